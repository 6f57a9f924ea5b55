"""Descriptors: a crystal as one row of numbers, for the models of `models.classical`.

`composition` is Magpie (Ward et al., npj Comput. Mater. 2, 16028 (2016)): statistics of the
properties of the elements. `structure` adds to it volume, symmetry and the neighbours of the
atoms, in the spirit of Ward et al., Phys. Rev. B 96, 024104 (2017), with weights that fade out
smoothly where that work tessellates. Both are functions of the crystal: of none of its rotation,
origin, order of sites, choice of cell or supercell. For that, no neighbour is in or out by a
threshold, and the lattice is that of the primitive cell, by its shortest vectors.

`structure` holds the space group: it must not be given to a model that is to predict it.

`magpie_table.csv` is made by env/build_magpie_table.py. Where Magpie has no value (the melting
point of He and Fr, the covalent radius of Bk to Fm, the electronegativity of He, Ne, Ar and Rn,
the space group of At, Rn, Fr, Es and Fm) the mean of the property over all elements stands for it,
as in matminer.

`elements_table.csv`, which the network on the complex can read too, is made by
env/build_elements_table.py.
"""

import csv
import functools
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import spglib
import torch
from ase.geometry.minkowski_reduction import minkowski_reduce
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from vesin import NeighborList

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import CRYSTAL_SYSTEMS, Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Length
from crystalmesh.represent.atoms import ELEMENTS, UnknownElementError

Floats = NDArray[np.float64]

PROPERTIES = (
    "Number",
    "MendeleevNumber",
    "AtomicWeight",  # g/mol
    "MeltingT",  # K
    "Column",
    "Row",
    "CovalentRadius",  # pm
    "Electronegativity",
    "NsValence",
    "NpValence",
    "NdValence",
    "NfValence",
    "NValence",
    "NsUnfilled",
    "NpUnfilled",
    "NdUnfilled",
    "NfUnfilled",
    "NUnfilled",
    "GSvolume_pa",  # Angstrom^3 an atom, of the elemental ground state (DFT)
    "GSbandgap",  # eV, of it
    "GSmagmom",  # Bohr magneton an atom, of it
    "SpaceGroupNumber",  # of it
)
# Columns of `elemental`.
ELEMENTAL = (
    "Bulk modulus",
    "Rigidity modulus",
    "Youngs modulus",
    "Velocity of sound",
    "Coefficient of linear thermal expansion",
    "Thermal conductivity",
    "Electrical resistivity",
    "Brinell hardness",
    "Boiling point",
    "Density of solid",
    "Molar volume",
    "Mineral hardness",
    "Poissons ratio",
    "Ionisation energy 1",
    "Ionisation energy 2",
    "Ionisation energy 3",
    "Electron affinity",
    "Highest s orbital",
    "Highest p orbital",
    "Highest d orbital",
    "Highest f orbital",
)
STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")
NORMS = (0, 2, 3, 5, 7, 10)

DENSITY = 1.66053906660  # g/cm3 of 1 g/mol an Angstrom^3 (the dalton of CODATA 2018)
NEAR, FAR = 1.1, 1.4  # a neighbour's weight falls from 1 to 0 between these multiples of the first
STEP = 0.1  # between the centres of the pair distribution, in units of (volume an atom)^(1/3)
CENTRES = np.arange(6, 25) * STEP
# Of an atom's neighbours: mean absolute difference to the atom.
DIFFERENCES = ("Electronegativity", "CovalentRadius", "Column", "NValence")
ATOMIC = (
    "nearest",  # Angstrom
    "nearest_scaled",  # least distance / sum of the covalent radii
    "coordination",  # sum of weights, by distance
    "coordination_scaled",  # by distance / sum of the covalent radii
    "bond",  # weighted mean distance, Angstrom
    *(f"difference {name}" for name in DIFFERENCES),
)
OVER_ATOMS = ("mean", "minimum", "maximum", "deviation")

COMPOSITION: tuple[str, ...] = (
    *(f"{p}-norm" for p in NORMS),
    *(f"{statistic} {name}" for name in PROPERTIES for statistic in STATISTICS),
)
STRUCTURE: tuple[str, ...] = (
    *COMPOSITION,
    "volume",  # Angstrom^3 an atom
    "density",  # g/cm3
    "packing",  # volume of spheres of the covalent radii / volume
    "valence_density",  # valence electrons an Angstrom^3
    "volume_ratio",  # volume / that of the elements' ground states
    "space_group",
    "operations",  # of the point group
    *CRYSTAL_SYSTEMS,
    "atoms",  # in the primitive cell
    "b/a",  # of the primitive lattice's successive minima a <= b <= c
    "c/a",
    "fill",  # volume / abc
    *(f"{statistic} {name}" for name in ATOMIC for statistic in OVER_ATOMS),
    *(f"pairs {centre:.1f}" for centre in CENTRES),
)


class CompositionSettings(BaseModel):
    """Settings of the composition's descriptors: none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StructureSettings(BaseModel):
    """Settings of the structure's descriptors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib


class Joined:
    """Rows of numbers, and how they are joined."""

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """values, float64 [1, d]."""
        raise NotImplementedError

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join crystals: values, float64 [c, d]."""
        return {"values": torch.from_numpy(np.concatenate([item["values"] for item in items]))}


class Composition(Joined):
    """Magpie's descriptors of the composition; their names are `COMPOSITION`.

    The p-norms of the atomic fractions (p = 0: the number of elements), and of each elemental
    property minimum, maximum and range over the elements, and mean, mean absolute deviation from
    it and mode by atomic fraction (the mode: value of the commonest element, the smallest of
    several).

    Args:
        settings: `representations.descriptors.composition` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        parse(CompositionSettings, settings, "representations.descriptors.composition")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """values, float64 [1, 138].

        Raises:
            UnknownElementError: an element is beyond 100.
        """
        return {"values": _composition(crystal.numbers)[None]}


class Structure(Joined):
    """`Composition`, volume, symmetry, lattice and neighbours; their names are `STRUCTURE`.

    A neighbour at d weighs 1 up to `NEAR` times the distance of the atom's nearest neighbour,
    nothing from `FAR` times on, and in between 1 - s^2 (3 - 2 s) with s from 0 to 1. The mean,
    minimum, maximum and standard deviation over the atoms are taken of what is in `ATOMIC`.
    "pairs x" is the number of neighbours an atom at x (volume an atom)^(1/3), each shared between
    the two next centres in proportion.

    Args:
        settings: `representations.descriptors.structure` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(StructureSettings, settings, "representations.descriptors.structure")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """values, float64 [1, 211].

        Raises:
            UnknownElementError: an element is beyond 100.
            CrystalmeshError: spglib finds no space group.
        """
        parts = (
            _composition(crystal.numbers),
            _bulk(crystal),
            _symmetry(crystal, self.settings.symprec),
            _neighbours(crystal),
        )
        return {"values": np.concatenate(parts)[None]}


@functools.cache
def magpie() -> Floats:
    """Properties of the elements: [101, 22], row = atomic number, row 0 their means.

    Columns are `PROPERTIES`; a value that Magpie lacks is the mean.
    """
    text = importlib.resources.files(__package__).joinpath("magpie_table.csv").read_text("utf-8")
    rows = {int(row["number"]): row for row in csv.DictReader(text.splitlines())}
    means = [float(rows[0][name]) for name in PROPERTIES]
    return np.array(
        [
            [float(rows[z][name] or mean) for name, mean in zip(PROPERTIES, means, strict=True)]
            for z in range(ELEMENTS + 1)
        ]
    )


def elemental() -> Floats:
    """What is known of the elements as solids and free atoms: [101, 21], row = atomic number.

    Columns are `ELEMENTAL`, with the mean 0 and deviation 1 over the elements with a value; 0
    stands for none. Source: see env/build_elements_table.py.
    """
    text = importlib.resources.files(__package__).joinpath("elements_table.csv").read_text("utf-8")
    names, *rows = (row[2:] for row in csv.reader(text.splitlines()))
    assert tuple(names) == ELEMENTAL
    return np.array([[0.0] * len(rows[0]), *([float(cell or 0) for cell in row] for row in rows)])


def column(name: str) -> Floats:
    """One of Magpie's `PROPERTIES`: [101], row = atomic number."""
    values: Floats = magpie()[:, PROPERTIES.index(name)]
    return values


def _composition(numbers: NDArray[np.integer[Any]]) -> Floats:
    """`Composition` of sites of these atomic numbers: [138]."""
    outside = numbers[(numbers < 1) | (numbers > ELEMENTS)]
    if outside.size:
        raise UnknownElementError(
            f"atomic number {int(outside[0])}: Magpie's properties cover elements 1-100 (H to Fm); "
            "leave out the crystals that contain it"
        )
    elements, counts = np.unique(numbers, return_counts=True)
    # By the smallest whole numbers: a supercell has the same bits.
    counts //= np.gcd.reduce(counts)
    values, weights = magpie()[elements], (counts / counts.sum())[:, None]  # [e, 22], [e, 1]
    low, high = values.min(axis=0), values.max(axis=0)
    mean = (weights * values).sum(axis=0)
    deviation = (weights * np.abs(values - mean)).sum(axis=0)
    mode = values[counts == counts.max()].min(axis=0)
    statistics = np.stack([low, high, high - low, mean, deviation, mode], axis=1)  # [22, 6]
    return np.concatenate([_norms(counts.tolist()), statistics.ravel()])


def _norms(counts: list[int]) -> list[float]:
    """p-norms of the atomic fractions; in decimals, which no machine rounds its own way."""
    total = Decimal(sum(counts))
    return [
        float(Decimal(sum(c**p for c in counts)) ** (1 / Decimal(p)) / total) if p else len(counts)
        for p in NORMS
    ]


def _volume(lattice: Floats) -> float:
    (a, b, c), (d, e, f), (g, h, i) = lattice.tolist()
    return abs(float(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)))


def _bulk(crystal: Crystal) -> Floats:
    """From "volume" to "volume_ratio": [5]."""
    n = len(crystal.numbers)
    volume = _volume(crystal.lattice) / n
    radius = column("CovalentRadius")[crystal.numbers] / 100
    spheres = float((4 / 3 * math.pi * radius * radius * radius).sum()) / n
    weight, electrons, elements = (
        float(column(name)[crystal.numbers].sum()) / n
        for name in ("AtomicWeight", "NValence", "GSvolume_pa")
    )
    return np.array(
        [volume, weight / volume * DENSITY, spheres / volume, electrons / volume, volume / elements]
    )


def _symmetry(crystal: Crystal, symprec: float) -> Floats:
    """From "space_group" to "fill": [13]."""
    cell: Any = (crystal.lattice, crystal.frac, crystal.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, symprec=symprec)
    except spglib.SpglibError:
        found = None
    if found is None:
        raise CrystalmeshError(f"spglib finds no space group at symprec {symprec}")
    pure = (found.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    lattice, cells = _primitive(crystal.lattice, found.translations[pure])
    reduced, _ = minkowski_reduce(lattice)  # type: ignore[no-untyped-call]
    a, b, c = sorted(math.sqrt(sum(x * x for x in row)) for row in reduced.tolist())
    system = next(i for i, last in enumerate(CRYSTAL_SYSTEMS.values()) if found.number <= last)
    return np.array(
        [
            found.number,
            _operations(int(found.hall_number)),
            *np.eye(len(CRYSTAL_SYSTEMS))[system],
            len(crystal.numbers) / cells,
            b / a,
            c / a,
            _volume(lattice) / (a * b * c),
        ]
    )


@functools.cache
def _operations(hall: int) -> int:
    """How many operations the point group has; a supercell hides some of them from the search."""
    found = spglib.get_symmetry_from_database(hall)
    assert found is not None  # of every Hall number that spglib gives
    return len(np.unique(found["rotations"], axis=0))


def _primitive(lattice: Floats, translations: Floats) -> tuple[Floats, int]:
    """A basis [3, 3] of the lattice with these translations [m, 3] (in cells) added, and m.

    Translations form a group, so that their components are multiples of 1/m: whatever spglib took
    them from, they are made exact. (Were they no group within symprec, the cells count as found.)
    """
    m = len(translations)
    rows = np.concatenate([m * np.eye(3), np.round(translations * m)]).astype(int).tolist()
    basis = []
    for column in range(3):
        # Euclid's algorithm on the column, until one row has a number in it.
        while len(left := [row for row in rows if row[column]]) > 1:
            least = min(left, key=lambda row: abs(row[column]))
            rows = [
                row
                if row is least
                else [x - row[column] // least[column] * y for x, y in zip(row, least, strict=True)]
                for row in rows
            ]
        basis.append(left[0])
        rows = [row for row in rows if row is not left[0]]
    whole = np.array(basis, dtype=np.float64) / m
    cells = round(1 / abs(float(whole[0, 0] * whole[1, 1] * whole[2, 2])))
    x, y, z = lattice
    return whole[:, :1] * x + whole[:, 1:2] * y + whole[:, 2:] * z, cells


def _fade(ratio: Floats) -> Floats:
    """Weights of neighbours by the ratio of their distance to the least."""
    s = np.clip((ratio - NEAR) / (FAR - NEAR), 0.0, 1.0)
    weights: Floats = 1.0 - s * s * (3.0 - 2.0 * s)
    return weights


def _neighbours(crystal: Crystal) -> Floats:
    """`ATOMIC` by `OVER_ATOMS`, then the pair distribution: [36 + 19]."""
    n, numbers = len(crystal.numbers), crystal.numbers
    radius = column("CovalentRadius")[numbers] / 100
    unit = math.cbrt(_volume(crystal.lattice) / n)
    # Written out, as BLAS may round on another machine in another way.
    x, y, z = crystal.lattice
    points = crystal.frac[:, :1] * x + crystal.frac[:, 1:2] * y + crystal.frac[:, 2:] * z
    cutoff = unit * float(CENTRES[-1] + STEP)
    while True:
        i, j, distance = NeighborList(cutoff=cutoff, full_list=True, n_threads=1).compute(
            points=points, box=crystal.lattice, periodic=True, quantities="ijd"
        )
        order = np.lexsort((j, distance, i))
        i, j, distance = i[order].astype(np.int64), j[order].astype(np.int64), distance[order]
        first = np.searchsorted(i, np.arange(n + 1))
        if (np.diff(first) > 0).all():
            scaled = distance / (radius[i] + radius[j])
            nearest, nearest_scaled = distance[first[:-1]], np.minimum.reduceat(scaled, first[:-1])
            # All neighbours of a weight are found if those of the longest bond there may be are.
            reach = np.maximum(nearest, nearest_scaled * (radius + radius.max()))
            if FAR * reach.max() <= cutoff:
                break
        cutoff *= 1.5

    def gather(values: Floats) -> Floats:
        sums: Floats = np.bincount(i, weights=values, minlength=n).astype(np.float64)
        return sums

    weight = _fade(distance / nearest[i])
    coordination = gather(weight)
    atomic = [
        nearest,
        nearest_scaled,
        coordination,
        gather(_fade(scaled / nearest_scaled[i])),
        gather(weight * distance) / coordination,
    ]
    for name in DIFFERENCES:
        value = column(name)[numbers]
        atomic.append(gather(weight * np.abs(value[i] - value[j])) / coordination)
    statistics = []
    for values in atomic:
        mean = float(values.sum()) / n
        rest = values - mean
        deviation = math.sqrt(float((rest * rest).sum()) / n)
        statistics += [mean, values.min(), values.max(), deviation]
    place = distance / unit / STEP - CENTRES[0] / STEP  # in bins
    pairs = [float(np.maximum(0.0, 1.0 - np.abs(place - k)).sum()) / n for k in range(len(CENTRES))]
    return np.array([*statistics, *pairs])


VARIANTS = {"composition": Composition, "structure": Structure}
