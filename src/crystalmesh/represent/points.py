"""Crystals as point clouds: the positions of the atoms of a cell, and their elements.

Our reading of Okuno et al. (2020), who gave crystals to PointNet; which cell they took, and how
many copies of it, is not public. Three choices are declared, all by the same class: the atoms of
the primitive cell, of the conventional cell, and of several copies of a cell.

A set of points is not a function of the crystal alone. It has the orientation and the origin of
the cell it is cut from. spglib's standardised cells fix the orientation; the origin, which decides
on which side of the cell an atom is cut, only up to the shifts (and, in some space groups, the
rotations) that its standard setting leaves free: Na or Cl may be the atom at the corner.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Count, Length, atoms
from crystalmesh.represent.mesh import conventional_cell, primitive_cell

MOST = 10_000  # points of a crystal
EDGE = 1e-6  # cells: an atom this near below the cell's upper boundary counts as on its lower one


class PointsSettings(BaseModel):
    """Which points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cell: Literal["input", "primitive", "conventional"]  # of the raw file; spglib's standard ones
    copies: Count  # cells along each axis; 1: the cell alone
    symprec: Length  # Angstrom, of spglib; without effect on the cell of the raw file


class Points:
    """The atoms of a cell and its copies.

    The cell of the raw file is taken as it is, so that its points move with the origin and the
    axes of the file; the atoms of spglib's cells are moved into the cell.

    Args:
        settings: `representations.points.<variant>` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(PointsSettings, settings, "representations.points")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """One cell.

        Returns:
            lattice [3, 3] (Angstrom, rows), numbers [n], frac [n, 3].

        Raises:
            CrystalmeshError: spglib finds no symmetry, an element has no features, or there are
                more than `MOST` points.
        """
        lattice, frac, numbers = self._cell(crystal)
        points = len(numbers) * self.settings.copies**3
        if points > MOST:
            raise CrystalmeshError(
                f"{crystal.id}: {points} points are more than {MOST}; take fewer `copies`"
            )
        return {
            "lattice": np.asarray(lattice, dtype=np.float64),
            "numbers": numbers.astype(np.uint8),
            "frac": frac.astype(np.float64),
        }

    def _cell(
        self, crystal: Crystal
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.integer[Any]]]:
        """Lattice, coordinates and atomic numbers of the cell that the settings name."""
        atoms.vectors(crystal.numbers)  # refuses elements without features
        name, symprec = self.settings.cell, self.settings.symprec
        if name == "input":
            return crystal.lattice, crystal.frac, crystal.numbers
        search = conventional_cell if name == "conventional" else primitive_cell
        lattice, frac, numbers = search(crystal, symprec)
        return lattice, frac - np.floor(frac + EDGE), numbers

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join crystals.

        Returns:
            pointer [c + 1]: points of crystal i are rows pointer[i] to pointer[i + 1]; numbers [p]
            (atomic numbers), position [p, 3] (Angstrom; those of a crystal have mean zero). The
            points of a crystal are all copies of its first atom, then of its second, ...
        """
        k = self.settings.copies
        cells = np.stack(np.meshgrid(*[np.arange(k)] * 3, indexing="ij"), -1).reshape(-1, 3)
        positions = []
        for item in items:
            place = (item["frac"][:, None] + cells).reshape(-1, 3)
            position = place @ item["lattice"]
            positions.append(position - position.mean(axis=0))
        numbers = np.concatenate([item["numbers"] for item in items])
        return {
            "pointer": torch.tensor(np.cumsum([0, *(len(p) for p in positions)])),
            "numbers": torch.from_numpy(np.repeat(numbers.astype(np.int64), len(cells))),
            "position": torch.from_numpy(np.concatenate(positions).astype(np.float32)),
        }


VARIANTS = {"primitive": Points, "conventional": Points, "copies": Points}
NOT_INVARIANT = dict.fromkeys(VARIANTS, ("origin", "reflection", "basis", "supercell"))
