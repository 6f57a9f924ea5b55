"""Crystal graphs: atoms joined to their nearest neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from vesin import NeighborList

from crystalmesh.config import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.represent import atoms

SHELL = 1e-4  # Angstrom: a gap in distance above this parts two shells


class CgcnnSettings(BaseModel):
    """Settings of the CGCNN graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    neighbours: int
    cutoff: float  # Angstrom


class Cgcnn:
    """The graph of CGCNN (Xie & Grossman 2018): a fixed number of nearest neighbours an atom.

    Neighbours of one atom are ordered by shell, then by atomic number, site and cell shift: this
    decides which atoms of a shell that straddles the last place are kept. A shell ends where the
    next distance is more than `SHELL` larger, so that no shell is cut by rounding.
    An atom with fewer neighbours than places within the cutoff is filled up with itself at
    cutoff + 1 Angstrom, where all Gaussians nearly vanish. (The original code fills with the first
    atom of the cell, which makes its output depend on the order of sites.)

    Args:
        settings: `representations.graph.cgcnn` of params.yaml.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(CgcnnSettings, settings, "representations.graph.cgcnn")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The graph as indices and shifts.

        Returns:
            lattice [3, 3] (Angstrom, rows), numbers [n], frac [n, 3], neighbour [n, k] (site, -1
            where there is none) and shift [n, k, 3] (in cells).
        """
        atoms.vectors(crystal.numbers)  # refuses elements without features
        k, n = self.settings.neighbours, len(crystal.numbers)
        # A third of the neighbours that a far cutoff gives is enough for most crystals.
        volume = abs(float(np.linalg.det(crystal.lattice)))
        cutoff = (3.5 * k * volume / n * 3 / (4 * np.pi)) ** (1 / 3)
        found = None
        if cutoff < self.settings.cutoff:
            found = _nearest(crystal, k, cutoff)
        if found is None:
            found = _nearest(crystal, k, self.settings.cutoff, all_there_are=True)
        assert found is not None
        i, j, shift = found
        rank = np.arange(len(i)) - np.searchsorted(i, np.arange(n))[i]
        kept = rank < k
        neighbour = np.full((n, k), -1, dtype=np.int16)
        shifts = np.zeros((n, k, 3), dtype=np.int8)
        neighbour[i[kept], rank[kept]] = j[kept]
        shifts[i[kept], rank[kept]] = shift[kept]
        return {
            "lattice": crystal.lattice,
            "numbers": crystal.numbers.astype(np.uint8),
            "frac": crystal.frac,
            "neighbour": neighbour,
            "shift": shifts,
        }

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join graphs.

        Returns:
            pointer [c + 1]: atoms of crystal i are rows pointer[i] to pointer[i + 1]; numbers [n]
            (atomic numbers), neighbour [n, k] (rows of the batch), distance [n, k] (Angstrom).
        """
        counts = np.array([len(item["numbers"]) for item in items])
        pointer = np.concatenate([[0], np.cumsum(counts)])
        crystal = np.repeat(np.arange(len(items)), counts)
        lattice = np.stack([item["lattice"] for item in items])[crystal]  # [n, 3, 3]
        frac = np.concatenate([item["frac"] for item in items])
        local = np.concatenate([item["neighbour"] for item in items]).astype(np.int64)
        absent = local < 0
        own = np.arange(pointer[-1])[:, None]
        neighbour = np.where(absent, own, local + pointer[crystal][:, None])
        shift = np.concatenate([item["shift"] for item in items])
        step = frac[neighbour] + shift - frac[:, None]  # [n, k, 3]
        distance = np.linalg.norm(np.matmul(step, lattice), axis=2)
        distance[absent] = self.settings.cutoff + 1.0
        return {
            "pointer": torch.from_numpy(pointer),
            "numbers": torch.from_numpy(
                np.concatenate([item["numbers"] for item in items]).astype(np.int64)
            ),
            "neighbour": torch.from_numpy(neighbour),
            "distance": torch.from_numpy(distance.astype(np.float32)),
        }


def _nearest(
    crystal: Crystal, k: int, cutoff: float, *, all_there_are: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]] | None:
    """Site, neighbour and shift of each pair in the order of `Cgcnn`: at least k of each site.

    Returns:
        None where the cutoff is too near for that and not `all_there_are` are asked for.
    """
    n = len(crystal.numbers)
    i, j, shift, distance = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=crystal.frac @ crystal.lattice,
        box=crystal.lattice,
        periodic=True,
        quantities="ijSd",
    )
    # Each atom's neighbours by distance; a gap above SHELL begins a new shell.
    order = np.lexsort((distance, i))
    i, distance = i[order].astype(np.int64), distance[order]
    first = np.searchsorted(i, np.arange(n + 1))
    count = np.diff(first)
    new = np.diff(distance, prepend=-np.inf) > SHELL
    new[first[:-1][count > 0]] = True
    shell = np.cumsum(new)
    # Only shells that hold one of the first k places need to be ordered within.
    last = (
        np.minimum(first[:-1] + k, first[1:]) - 1
    )  # of each atom; before its first if it has none
    near = shell <= np.append(shell, 0)[last][i]
    if not all_there_are and (count.min() < k or distance[near].max() > cutoff - 2 * SHELL):
        return None
    i, shell, order = i[near], shell[near], order[near]
    j, shift = j[order].astype(np.int64), shift[order]
    order = np.lexsort((*shift.T[::-1], j, crystal.numbers[j], shell))
    return i[order], j[order], shift[order]


VARIANTS = {"cgcnn": Cgcnn}
