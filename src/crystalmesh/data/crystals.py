"""The systems of a dataset: crystals, and molecules or clusters, which have no cell."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_json, read_tensors, sha256, write_json, write_tensors

TENSORS, INDEX = "crystals.safetensors", "index.json"
# The last space group of each crystal system.
CRYSTAL_SYSTEMS = {
    "triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167,
    "hexagonal": 194, "cubic": 230,
}  # fmt: skip


@dataclass(frozen=True)
class Crystal:
    """An accepted system: a crystal, a molecule, or a record without atoms.

    Attributes:
        id: in its dataset.
        formula: reduced formula.
        cell: rows a, b, c in Angstrom; None for a system without a cell.
        numbers: atomic number of each site.
        coordinates: of each site, as the raw file gives them: fractional where there is a cell,
            else Cartesian in Angstrom.
        columns: text that its dataset keeps of it.
    """

    id: str
    formula: str
    cell: Float[np.ndarray, "3 3"] | None
    numbers: Int[np.ndarray, " sites"]
    coordinates: Float[np.ndarray, "sites 3"]
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def lattice(self) -> Float[np.ndarray, "3 3"]:
        """The cell; raises CrystalmeshError where there is none."""
        if self.cell is None:
            raise CrystalmeshError(f"{self.id or 'system'}: no cell; this is for crystals only")
        return self.cell

    @property
    def frac(self) -> Float[np.ndarray, "sites 3"]:
        """Fractional coordinates; raises CrystalmeshError where there is no cell."""
        assert self.lattice is not None
        return self.coordinates

    @property
    def positions(self) -> Float[np.ndarray, "sites 3"]:
        """Cartesian coordinates in Angstrom."""
        if self.cell is None:
            return self.coordinates
        found: Float[np.ndarray, "sites 3"] = self.coordinates @ self.cell
        return found


class Labels(dict[str, Float[np.ndarray, "crystals ..."]]):
    """Labels by name; one that no system has reads as NaN for each of them."""

    def __init__(self, count: int, values: Mapping[str, Float[np.ndarray, "crystals ..."]]) -> None:
        super().__init__(values)
        self.count = count

    def __missing__(self, name: str) -> Float[np.ndarray, " crystals"]:
        return np.full(self.count, np.nan)


@dataclass(frozen=True)
class Crystals:
    """The accepted systems of a dataset, sorted by id; `crystals[i]` is a Crystal.

    Attributes:
        dataset: its name in config/.
        entries: how many entries the raw file has.
        ids, formulas: one a system.
        lattices: Angstrom; NaN for a system without a cell.
        pointer: sites of system i are pointer[i] to pointer[i + 1].
        numbers: of all sites, one system after the other.
        coordinates: of all sites: fractional, or Cartesian in Angstrom without a cell.
        labels: of every system a number, or a row of numbers; NaN where it has none or a target
            rejects it. Units are those of the raw file, as the targets declare them.
        atom_labels: of every site a number, or a row of numbers as a force; NaN likewise.
        columns: text of every system, of the columns that the dataset keeps.
    """

    dataset: str
    entries: int
    ids: list[str]
    formulas: list[str]
    lattices: Float[np.ndarray, "crystals 3 3"]
    pointer: Int[np.ndarray, " crystals+1"]
    numbers: Int[np.ndarray, " sites"]
    coordinates: Float[np.ndarray, "sites 3"]
    labels: dict[str, Float[np.ndarray, "crystals ..."]]
    atom_labels: dict[str, Float[np.ndarray, "sites ..."]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Crystals":
        """Read what `save` wrote; raises CrystalmeshError when it is missing or damaged."""
        index, tensors = read_json(folder / INDEX), read_tensors(folder / TENSORS)
        try:
            if sha256(folder / TENSORS) != index["checksum"]:
                raise CrystalmeshError(
                    f"{folder}: {INDEX} and {TENSORS} disagree; delete it, run again"
                )
            crystals = cls(
                dataset=index["dataset"],
                entries=index["entries"],
                ids=index["ids"],
                formulas=index["formulas"],
                lattices=tensors["lattice"],
                pointer=tensors["pointer"],
                numbers=tensors["numbers"].astype(np.int64),
                coordinates=tensors["frac"] if "frac" in tensors else tensors["coordinates"],
                labels=Labels(len(index["ids"]), _named(tensors, "label.")),
                atom_labels=_named(tensors, "atom."),
                columns=index.get("columns", {}),
            )
        except (KeyError, TypeError) as error:
            raise CrystalmeshError(f"{folder}: damaged ({error}); delete it, run again") from error
        if not len(crystals.ids) == len(crystals.lattices) == len(crystals.pointer) - 1:
            raise CrystalmeshError(f"{folder}: damaged; delete it, run again")
        return crystals

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Crystal:
        sites = slice(self.pointer[i], self.pointer[i + 1])
        return Crystal(
            self.ids[i],
            self.formulas[i],
            self.lattices[i] if self.periodic[i] else None,
            self.numbers[sites],
            self.coordinates[sites],
            {name: texts[i] for name, texts in self.columns.items()},
        )

    def __iter__(self) -> Iterator[Crystal]:
        return (self[i] for i in range(len(self)))

    def position(self, name: str) -> int:
        """The place of the system with this id; raises CrystalmeshError when there is none."""
        if name not in self._positions:
            raise CrystalmeshError(f"dataset {self.dataset}: no crystal '{name}'")
        return self._positions[name]

    def known(self, label: str) -> Bool[np.ndarray, " crystals"]:
        """Which systems have a label: all of its numbers, those of every site if it has sites."""
        known: Bool[np.ndarray, " crystals"]
        if label in self.atom_labels:
            whole = _finite(self.atom_labels[label])
            system = np.repeat(np.arange(len(self)), np.diff(self.pointer))
            known = np.bincount(system, ~whole, minlength=len(self)) == 0
        else:
            known = _finite(self.labels[label])
        return known

    @cached_property
    def periodic(self) -> Bool[np.ndarray, " crystals"]:
        """Which systems have a cell."""
        none: Bool[np.ndarray, " crystals"] = np.isnan(self.lattices).any(axis=(1, 2))
        return ~none

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}


def _finite(values: Float[np.ndarray, "rows ..."]) -> Bool[np.ndarray, " rows"]:
    """Which rows hold finite numbers only."""
    finite: Bool[np.ndarray, " rows"] = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return finite


def _named(
    tensors: Mapping[str, Float[np.ndarray, "..."]], prefix: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """The tensors whose names begin so, without the beginning."""
    found = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in sorted(found)}


def save(crystals: Crystals, folder: Path) -> None:
    """Write crystals.safetensors and index.json into an existing folder.

    Coordinates are called `frac` there if all systems have a cell, else `coordinates`.
    """
    tensors: dict[str, np.ndarray] = {
        "lattice": crystals.lattices,
        "pointer": crystals.pointer,
        "numbers": crystals.numbers.astype(np.uint8),
        "frac" if crystals.periodic.all() else "coordinates": crystals.coordinates,
    }
    for kind, labels in (("label", crystals.labels), ("atom", crystals.atom_labels)):
        tensors |= {  # a label that no system has takes no place
            f"{kind}.{name}": values for name, values in labels.items() if np.isfinite(values).any()
        }
    write_tensors(folder / TENSORS, tensors)
    index = {
        "dataset": crystals.dataset,
        "entries": crystals.entries,
        "ids": crystals.ids,
        "formulas": crystals.formulas,
        "checksum": sha256(folder / TENSORS),
    }
    write_json(folder / INDEX, index | ({"columns": crystals.columns} if crystals.columns else {}))


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key that compares the numbers in a name as numbers, and is a total order."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)), name


def reduced_formula(numbers: Int[np.ndarray, " sites"]) -> str:
    """Formula with the smallest whole numbers, elements by electronegativity: "Li3Fe2(PO4)3"."""
    found, counts = np.unique(numbers, return_counts=True)
    return _formula(tuple(found.tolist()), tuple(counts.tolist()))


@cache
def _formula(numbers: tuple[int, ...], counts: tuple[int, ...]) -> str:
    # Imported late: the worker processes do without it.
    from pymatgen.core.composition import Composition
    from pymatgen.core.periodic_table import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the noble gases have no electronegativity
        amounts = {
            Element.from_Z(number): count for number, count in zip(numbers, counts, strict=True)
        }
        return str(Composition(amounts).reduced_formula)


def formula_of(text: str) -> str:
    """The reduced formula of a formula as people write it; raises ValueError if it is none."""
    from pymatgen.core.composition import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(Composition(text).reduced_formula)
