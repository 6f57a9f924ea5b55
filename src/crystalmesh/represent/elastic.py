"""The complex as an elastic truss: each edge a spring, and how stiff the whole is (ours).

A spring's stiffness is what a bar of the edge's dual face and length would have, A / r, times what
a bond of these elements at this length may bear. Linear elasticity of it (Born & Huang, Dynamical
Theory of Crystal Lattices, 1954, sections 11 and 12) needs no label: strain the cell, let the atoms
relax, and what is left of the energy is its elastic tensor. That atoms relax is no sum over
neighbours, and so hard to learn from such sums. The cell does not turn while it is strained: with
stiffness across the edges, which a rotation feels, shear of cells of low symmetry comes out stiffer
than of a truss that is free to turn.

Nothing depends on orientation, origin, order of sites, cell or supercell. An edge whose dual face
vanishes has no stiffness, so that the moduli do not jump where edges come and go; deviations over
bonds grow as the root of the new faces' areas, and the number of edges jumps.
"""

import csv
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.represent import Length, descriptors, geometry
from crystalmesh.represent.delaunay import Complex
from crystalmesh.represent.descriptors import ELEMENTAL, STRUCTURE, column, elemental
from crystalmesh.represent.mesh import primitive_complex

Floats = NDArray[np.float64]

DECAYS = (2.0, 4.0, 8.0)  # of a bond: exp(-decay (r / sum of covalent radii - 1))
LONGEST = 2.0  # r / sum of covalent radii from which on bonds are equally weak
# Of a bond, the geometric mean of both ends': one, exp of the standardised logarithm of the
# elemental solid's bulk modulus and rigidity (1, the mean, where `elemental` has none: of O, N, H,
# ...), and a tenth of the valence electrons.
SCALES = ("one", "bulk", "rigidity", "valence")
TRANSVERSE = (0.005, 0.05, 0.5)  # stiffness across an edge / along it
HELD = 0.05  # the same, where it is asked how the others hold an atom
LIMIT = 4.0  # standard deviations
ENTRIES = 20_000  # pairs of atoms from which on trusses are relaxed one after the other
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
MODULI = ("K", "K / affine", "G_V / K", "G_V / affine", "G_R / K", "G_R / G_V")
SPECTRUM = ("softest", "mean", "stiffest", "anisotropy")
BONDS = ("scaled length", "length", "electronegativity", "bulk step", "bulk", "valence", "area")
NAMES: tuple[str, ...] = (
    *(
        f"log {modulus} (decay {decay:g}, scale {scale}, transverse {across:g})"
        for decay in DECAYS
        for scale in SCALES
        for across in TRANSVERSE
        for modulus in MODULI
    ),
    *(
        f"{name} of springs (decay {decay:g}, scale {scale})"
        for decay in DECAYS
        for scale in SCALES
        for name in SPECTRUM
    ),
    *(f"{statistic} {bond}" for bond in BONDS for statistic in ("mean", "deviation")),
    "edges an atom",
    "like ends",
    "deviation volume",
)
# What `Descriptors` has before `NAMES`.
OTHERS: tuple[str, ...] = (
    *STRUCTURE,
    *(
        f"{statistic} of elements' {name}"
        for name in ELEMENTAL
        for statistic in ("mean", "deviation", "minimum", "maximum")
    ),
)


@functools.cache
def _scales() -> Floats:
    """Logarithms of `SCALES` by atomic number: [4, 101]."""
    moduli = elemental()[:, :2]
    valence = np.log(np.maximum(column("NValence"), 0.5) / 10)
    return np.stack([np.zeros(len(moduli)), moduli[:, 0], moduli[:, 1], valence])


@functools.cache
def _table() -> dict[str, tuple[float, float]]:
    """Mean and deviation by name; of which crystals, env/build_elastic_table.py says."""
    text = importlib.resources.files(__package__).joinpath("elastic_table.csv").read_text("utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    return {name: (float(mean), float(deviation)) for name, mean, deviation in rows}


def standard(values: Float[Floats, " t"], names: Sequence[str]) -> Float[Floats, " t"]:
    """Numbers of these names, standardised over small cells; none beyond `LIMIT`."""
    mean, deviation = np.array([_table()[name] for name in names]).T
    limited: Floats = np.clip((values - mean) / deviation, -LIMIT, LIMIT)
    return limited


def truss(found: Complex, numbers: Int[NDArray[Any], " n"]) -> Float[Floats, " t"]:
    """What is known of the crystal as a truss; the names are `NAMES`.

    For each decay, scale and transverse stiffness the logarithms of Reuss' mean K of the bulk
    modulus, and of ratios: K and Voigt's mean G_V of the shear modulus to Voigt's means with the
    atoms held where the strain takes them ("affine"), G_V and Reuss' mean G_R to K, and G_R to G_V.
    Then the stiffness with which its springs hold an atom: logarithm of the least, mean and largest
    over atoms and directions, and mean over atoms of that of the ratio of the least to the largest.
    Then the bonds, weighted by the volumes of their dual bipyramids, and the deviation of the
    logarithm of the atoms' Voronoi volumes.

    Args:
        found: the complex of a primitive cell.
        numbers: atomic number of each site.
    """
    length, (i, j) = geometry.edge_lengths(found), found.edge_sites.T
    along = geometry.edge_vectors(found) / length[:, None]
    area = np.maximum(geometry.dual_areas(found), 0.0)
    radius = column("CovalentRadius") / 100
    one, other = numbers[i], numbers[j]
    scaled = length / (radius[one] + radius[other])
    scale = 0.5 * (_scales()[:, one] + _scales()[:, other])  # [4, e]
    decay = np.array(DECAYS)[:, None, None] * (np.minimum(scaled, LONGEST) - 1.0)  # [3, 1, e]
    springs = (np.exp(scale - decay) * area / length).reshape(-1, len(length))  # [12, e]
    parts = _Parts(along, length, found.edge_sites, len(numbers), float(found.cell_volumes.sum()))
    moduli = np.stack([_moduli(parts, springs, across) for across in TRANSVERSE], axis=1)
    chi, valence = column("Electronegativity"), column("NValence") / 10
    bonds = np.stack(
        [
            scaled,
            length,
            np.abs(chi[one] - chi[other]),
            np.abs(_scales()[1, one] - _scales()[1, other]),
            scale[1],
            np.abs(valence[one] - valence[other]),
            area / (length * length),
        ]
    )
    weight = area * length / (area * length).sum()
    mean = (bonds * weight).sum(axis=1)
    deviation = np.sqrt((weight * (bonds - mean[:, None]) ** 2).sum(axis=1))
    return np.concatenate(
        [
            np.log(moduli).ravel(),
            _held(parts, springs).ravel(),
            np.stack([mean, deviation], axis=1).ravel(),
            [2 * len(length) / len(numbers), weight[one == other].sum()],
            [np.log(geometry.voronoi_volumes(found)).std()],
        ]
    )


class _Parts(NamedTuple):
    """What trusses of one complex have in common: edges and the cell."""

    along: Float[Floats, "e 3"]
    length: Float[Floats, " e"]
    ends: Int[NDArray[Any], "e 2"]
    atoms: int
    volume: float


def _tensor(parts: _Parts, across: float) -> Float[Floats, "e 3 3"]:
    """Force by displacement of an edge's end, for a stiffness of 1 along it."""
    n = parts.along
    tensor: Floats = (1 - across) * n[:, :, None] * n[:, None, :] + across * np.eye(3)
    return tensor


def _moduli(parts: _Parts, springs: Float[Floats, "m e"], across: float) -> Float[Floats, "m 6"]:
    """`MODULI`, not yet their logarithms, of trusses that differ in their springs."""
    tensor = _tensor(parts, across)
    # How far a unit of each strain moves an edge's far end from its near one.
    strain = np.zeros((len(tensor), 3, 6))
    for k, (a, b) in enumerate(VOIGT):
        half = 1.0 if a == b else 0.5
        strain[:, a, k] = half * parts.length * parts.along[:, b]
        strain[:, b, k] = half * parts.length * parts.along[:, a]
    force = tensor @ strain
    energy = (strain[:, :, :, None] * force[:, :, None, :]).sum(axis=1).reshape(-1, 36)
    affine = relaxed = (springs @ energy).reshape(-1, 6, 6) / parts.volume
    if parts.atoms > 1:
        pieces = np.array_split(springs, min(len(springs), 1 + parts.atoms**2 // ENTRIES))
        gained = [_gained(parts, piece, tensor, force) for piece in pieces]
        relaxed = affine - np.concatenate(gained) / parts.volume
    stiff, rigid = _voigt(affine)
    _, shear = _voigt(relaxed)
    compliance = np.linalg.inv(relaxed)
    normal, (diagonal, other) = compliance[:, :3, :3].sum(axis=(1, 2)), _traces(compliance)
    bulk, reuss = 1 / normal, 15 / (4 * diagonal - 2 * (normal - diagonal) + 3 * other)
    ratios = [bulk, bulk / stiff, shear / bulk, shear / rigid, reuss / bulk, reuss / shear]
    return np.stack(ratios, axis=1)


def _gained(
    parts: _Parts,
    springs: Float[Floats, "m e"],
    tensor: Float[Floats, "e 3 3"],
    force: Float[Floats, "e 3 6"],
) -> Float[Floats, "m 6 6"]:
    """Energy that the atoms gain by relaxing, by strain and strain."""
    m, free, (i, j) = len(springs), 3 * (parts.atoms - 1), parts.ends.T
    each = springs.T[:, :, None, None]
    stiffness, loads = each * tensor[:, None], each * force[:, None]
    between = np.zeros((parts.atoms, parts.atoms, m, 3, 3))
    on = np.zeros((parts.atoms, m, 3, 6))
    for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
        np.add.at(between, (a, b), sign * stiffness)
    np.add.at(on, i, -loads)
    np.add.at(on, j, loads)
    # The first atom is held: to shift them all costs nothing.
    matrix = between[1:, 1:].transpose(2, 0, 3, 1, 4).reshape(m, free, free)
    load = on[1:].transpose(1, 0, 2, 3).reshape(m, free, 6)
    gained: Floats = load.transpose(0, 2, 1) @ np.linalg.solve(matrix, load)
    return gained


def _voigt(c: Float[Floats, "m 6 6"]) -> tuple[Float[Floats, " m"], Float[Floats, " m"]]:
    """Bulk and shear modulus by Voigt's mean of an elastic tensor."""
    normal, (diagonal, other) = c[:, :3, :3].sum(axis=(1, 2)), _traces(c)
    return normal / 9, (diagonal - (normal - diagonal) / 2) / 15 + other / 5


def _traces(c: Float[Floats, "m 6 6"]) -> tuple[Float[Floats, " m"], Float[Floats, " m"]]:
    """Of normal strains, and of shear strains."""
    diagonal = np.diagonal(c, axis1=1, axis2=2)
    return diagonal[:, :3].sum(axis=1), diagonal[:, 3:].sum(axis=1)


def _held(parts: _Parts, springs: Float[Floats, "m e"]) -> Float[Floats, "m 4"]:
    """`SPECTRUM` of trusses that differ in their springs."""
    stiffness = springs.T[:, :, None, None] * _tensor(parts, HELD)[:, None]
    blocks = np.zeros((parts.atoms, len(springs), 3, 3))
    for end in parts.ends.T:
        np.add.at(blocks, end, stiffness)
    values = np.log(np.linalg.eigvalsh(blocks))  # [n, m, 3], rising
    least, largest = values[..., 0], values[..., 2]
    return np.stack(
        [
            least.min(axis=0),
            values.mean(axis=(0, 2)),
            largest.max(axis=0),
            (least - largest).mean(axis=0),
        ],
        axis=1,
    )


class Settings(BaseModel):
    """Settings of the descriptors with the truss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib
    tolerance: Length  # Angstrom within which atoms count as co-spherical


class Descriptors(descriptors.Joined):
    """`descriptors.Structure`, what elements are as solids and free atoms, and `truss`.

    Of each of the 21 properties of `descriptors.elemental`: mean, standard deviation, minimum and
    maximum over the atoms.

    Args:
        settings: `representations.elastic.descriptors` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(Settings, settings, "representations.elastic.descriptors")
        self._structure = descriptors.Structure({"symprec": self.settings.symprec})

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """values, float64 [1, 576]; their names are `OTHERS` and `NAMES`.

        Raises:
            UnknownElementError: an element is beyond 100.
            CrystalmeshError: spglib finds no space group, or see `tessellate`.
        """
        found, numbers = primitive_complex(crystal, self.settings.symprec, self.settings.tolerance)
        values = np.concatenate([self.others(crystal, numbers), truss(found, numbers)])
        return {"values": values[None]}

    def others(self, crystal: Crystal, numbers: Int[NDArray[Any], " n"]) -> Float[Floats, " d"]:
        """What it tells without the truss; the names are `OTHERS`.

        Args:
            crystal: the crystal.
            numbers: atomic number of each site of its primitive cell.
        """
        structure = self._structure.build(crystal)["values"][0]
        of = elemental()[numbers]
        solids = np.stack([of.mean(axis=0), of.std(axis=0), of.min(axis=0), of.max(axis=0)], axis=1)
        return np.concatenate([structure, solids.ravel()])


VARIANTS = {"descriptors": Descriptors}
