"""Structure types in their primitive cells, with the freedom that their space groups leave.

As in the AFLOW encyclopedia (Mehl et al., Comput. Mater. Sci. 136, S1, 2017).
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np
import spglib
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Prototype(NamedTuple):
    """A structure type: standard setting (origin choice 2, hexagonal axes), starting shape, sites.

    `sites` lists one representative of each orbit, "slot x y z", separated by "|". Slots named in
    `swap` may exchange their elements without making another crystal.
    """

    space_group: int
    b_over_a: float
    c_over_a: float
    sites: str
    swap: str = ""


# Where a shape is free, it starts away from any more symmetric one: a relaxation that keeps the
# symmetry it starts with would otherwise never leave that saddle. Simple types come first, for
# they keep their name when a later one relaxes into the same crystal (EMT flattens B4 into Bk).
PROTOTYPES: dict[str, Prototype] = {
    # elements
    "A1": Prototype(225, 1, 1, "A 0 0 0"),
    "A2": Prototype(229, 1, 1, "A 0 0 0"),
    "A3": Prototype(194, 1, 1.62, "A 1/3 2/3 1/4"),
    "A3p": Prototype(194, 1, 3.25, "A 0 0 0 | A 1/3 2/3 1/4"),
    "A4": Prototype(227, 1, 1, "A 1/8 1/8 1/8"),
    "A5": Prototype(141, 1, 0.54, "A 0 3/4 1/8"),
    "A15e": Prototype(223, 1, 1, "A 0 0 0 | A 1/4 0 1/2"),
    "Af": Prototype(191, 1, 0.95, "A 0 0 0"),
    "Ah": Prototype(221, 1, 1, "A 0 0 0"),
    "BC8": Prototype(206, 1, 1, "A 0.1 0.1 0.1"),
    "6H": Prototype(194, 1, 4.88, "A 0 0 1/4 | A 1/3 2/3 0.083"),
    "9R": Prototype(166, 1, 7.3, "A 0 0 0 | A 0 0 0.222"),
    "C14e": Prototype(194, 1, 1.63, "A 1/3 2/3 0.062 | A 0 0 0 | A 0.83 0.66 1/4"),
    "C15e": Prototype(227, 1, 1, "A 1/8 1/8 1/8 | A 1/2 1/2 1/2"),
    "C32e": Prototype(191, 1, 0.62, "A 0 0 0 | A 1/3 2/3 1/2"),
    "Zp": Prototype(191, 1, 0.99, "A 1/2 0 0 | A 1/3 2/3 1/2 | A 0 0 0.25"),
    # AB
    "B1": Prototype(225, 1, 1, "A 0 0 0 | B 1/2 1/2 1/2", "AB"),
    "B2": Prototype(221, 1, 1, "A 0 0 0 | B 1/2 1/2 1/2", "AB"),
    "B3": Prototype(216, 1, 1, "A 0 0 0 | B 1/4 1/4 1/4", "AB"),
    "Bk": Prototype(194, 1, 1.9, "A 1/3 2/3 1/4 | B 1/3 2/3 3/4", "AB"),
    "B4": Prototype(186, 1, 1.63, "A 1/3 2/3 0 | B 1/3 2/3 0.375", "AB"),
    "L10": Prototype(123, 1, 1.32, "A 0 0 0 | B 1/2 1/2 1/2", "AB"),
    "L11": Prototype(166, 1, 4.8, "A 0 0 0 | B 0 0 1/2", "AB"),
    "B81": Prototype(194, 1, 1.5, "A 0 0 0 | B 1/3 2/3 1/4"),
    "B11": Prototype(129, 1, 1.9, "A 1/4 1/4 0.1 | B 1/4 1/4 0.65", "AB"),
    "B17": Prototype(131, 1, 1.76, "A 0 1/2 0 | B 0 0 1/4"),
    "B19": Prototype(51, 0.61, 1.0, "A 1/4 1/2 0.81 | B 1/4 0 0.31", "AB"),
    "B20": Prototype(198, 1, 1, "A 0.137 0.137 0.137 | B 0.842 0.842 0.842", "AB"),
    "B27": Prototype(62, 0.54, 0.74, "A 0.18 1/4 0.125 | B 0.036 1/4 0.61"),
    "B31": Prototype(62, 0.60, 1.12, "A 0.005 1/4 0.2 | B 0.19 1/4 0.57"),
    "B32": Prototype(227, 1, 1, "A 1/8 1/8 1/8 | B 3/8 3/8 3/8", "AB"),
    "B33": Prototype(63, 2.65, 0.99, "A 0 0.146 1/4 | B 0 0.44 1/4"),
    "B35": Prototype(191, 1, 0.8, "A 1/2 0 0 | B 0 0 0 | B 1/3 2/3 1/2"),
    "Bh": Prototype(187, 1, 0.98, "A 0 0 0 | B 1/3 2/3 1/2", "AB"),
    "Bi": Prototype(194, 1, 3.3, "A 1/3 2/3 0.125 | B 0 0 0 | B 1/3 2/3 3/4"),
    "40": Prototype(141, 1, 1.97, "A 0 3/4 1/8 | B 0 1/4 3/8", "AB"),
    "V2": Prototype(166, 1, 9.7, "A 0 0 0.125 | B 0 0 0.375", "AB"),
    # A2B
    "C1": Prototype(225, 1, 1, "B 0 0 0 | A 1/4 1/4 1/4"),
    "C2": Prototype(205, 1, 1, "B 0 0 0 | A 0.385 0.385 0.385"),
    "C4": Prototype(136, 1, 0.65, "B 0 0 0 | A 0.305 0.305 0"),
    "C6": Prototype(164, 1, 2.4, "B 0 0 0 | A 1/3 2/3 0.33"),
    "C7": Prototype(194, 1, 3.2, "B 1/3 2/3 1/4 | A 1/3 2/3 0.6"),
    "C11b": Prototype(139, 1, 3.1, "B 0 0 0 | A 0 0 0.34"),
    "C14": Prototype(194, 1, 1.63, "B 1/3 2/3 0.062 | A 0 0 0 | A 0.83 0.66 1/4"),
    "C15": Prototype(227, 1, 1, "B 1/8 1/8 1/8 | A 1/2 1/2 1/2"),
    "C16": Prototype(140, 1, 0.8, "B 0 0 1/4 | A 0.158 0.658 0"),
    "C19": Prototype(166, 1, 4.6, "B 0 0 0 | A 0 0 0.25"),
    "C22": Prototype(189, 1, 0.59, "A 0.256 0 0 | A 0.594 0 1/2 | B 1/3 2/3 0 | B 0 0 1/2"),
    "C23": Prototype(62, 0.76, 1.44, "A 0.038 1/4 0.218 | A 0.174 1/4 0.562 | B 0.702 1/4 0.611"),
    "C32": Prototype(191, 1, 0.95, "B 0 0 0 | A 1/3 2/3 1/2"),
    "C38": Prototype(129, 1, 1.5, "A 3/4 1/4 0 | A 1/4 1/4 0.27 | B 1/4 1/4 0.70"),
    "C40": Prototype(180, 1, 1.44, "B 1/2 0 1/2 | A 0.166 0.332 1/2"),
    "C49": Prototype(63, 3.94, 0.99, "B 0 0.102 1/4 | A 0 0.446 1/4 | A 0 0.752 1/4"),
    "C54": Prototype(70, 0.58, 1.03, "B 1/8 1/8 1/8 | A 0.46 1/8 1/8"),
    "Cc": Prototype(141, 1, 3.3, "B 0 3/4 1/8 | A 0 3/4 0.542"),
    "B82": Prototype(194, 1, 1.25, "B 1/3 2/3 1/4 | A 0 0 0 | A 1/3 2/3 3/4"),
    "MoPt2": Prototype(71, 3.05, 1.4, "B 0 0 0 | A 0 0.34 0"),
    "beta1": Prototype(139, 1, 4.3, "B 0 0 0 | A 0 0 0.33"),
    # A3B
    "L12": Prototype(221, 1, 1, "B 0 0 0 | A 0 1/2 1/2"),
    "D03": Prototype(225, 1, 1, "B 0 0 0 | A 1/2 1/2 1/2 | A 1/4 1/4 1/4"),
    "D018": Prototype(194, 1, 1.79, "B 1/3 2/3 1/4 | A 0 0 1/4 | A 1/3 2/3 0.583"),
    "D019": Prototype(194, 1, 0.81, "B 1/3 2/3 1/4 | A 0.833 0.666 1/4"),
    "D022": Prototype(139, 1, 2.03, "B 0 0 0 | A 0 0 1/2 | A 0 1/2 1/4"),
    "D023": Prototype(139, 1, 4.05, "B 0 0 0.118 | A 0 1/2 0 | A 0 1/2 1/4 | A 0 0 0.375"),
    "D024": Prototype(194, 1, 1.63, "B 0 0 0 | B 1/3 2/3 1/4 | A 1/2 0 0 | A 0.833 0.666 1/4"),
    "D0a": Prototype(59, 0.83, 0.87, "B 1/4 1/4 0.34 | A 1/4 3/4 0.66 | A 0 1/4 0.84"),
    "A15": Prototype(223, 1, 1, "B 0 0 0 | A 1/4 0 1/2"),
    "Z1": Prototype(123, 1, 2.9, "B 0 0 0 | A 0 0 1/2 | A 1/2 1/2 0.24"),
    "V1": Prototype(166, 1, 9.7, "B 0 0 0 | A 0 0 1/2 | A 0 0 0.25"),
    # A4B, A5B and richer
    "D13": Prototype(139, 1, 2.5, "B 0 0 0 | A 0 1/2 1/4 | A 0 0 0.38"),
    "D1a": Prototype(87, 1, 0.63, "B 0 0 0 | A 0.2 0.4 0"),
    "Hg4Pt": Prototype(229, 1, 1, "B 0 0 0 | A 1/4 1/4 1/4"),
    "D2d": Prototype(191, 1, 0.8, "B 0 0 0 | A 1/3 2/3 0 | A 1/2 0 1/2"),
    "C15b": Prototype(216, 1, 1, "B 0 0 0 | A 1/4 1/4 1/4 | A 0.625 0.625 0.625"),
    "Ca7Ge": Prototype(225, 1, 1, "B 0 0 0 | A 1/2 1/2 1/2 | A 0 1/4 1/4"),
    "Pt8Ti": Prototype(139, 1, 0.475, "B 0 0 0 | A 0.33 0 0 | A 0.33 0.33 0"),
    "D2b": Prototype(139, 1, 0.58, "B 0 0 0 | A 1/4 1/4 1/4 | A 0.361 0 0 | A 0.277 1/2 0"),
    "WAl12": Prototype(204, 1, 1, "B 0 0 0 | A 0 0.184 0.309"),
    # A3B2, A4B3, A5B3, A7B6
    "D513": Prototype(164, 1, 1.21, "A 0 0 0 | A 1/3 2/3 0.648 | B 1/3 2/3 0.149"),
    "D5a": Prototype(127, 1, 0.53, "A 0 0 0 | A 0.181 0.681 1/2 | B 0.389 0.889 0"),
    "Os3Al2": Prototype(139, 1, 5.1, "A 0 0 0 | A 0 0 0.4 | B 0 0 0.2"),
    "Zr4Al3": Prototype(191, 1, 0.99, "B 1/2 0 0 | A 1/3 2/3 1/2 | A 0 0 0.25"),
    "D88": Prototype(193, 1, 0.7, "A 1/3 2/3 0 | A 0.23 0 1/4 | B 0.6 0 1/4"),
    "D8m": Prototype(140, 1, 0.52, "A 0 1/2 1/4 | A 0.077 0.223 0 | B 0 0 1/4 | B 0.165 0.665 0"),
    "D85": Prototype(
        166,
        1,
        5.43,
        "A 0 0 0 | A -0.167 -0.334 0.257 | B 0 0 0.167 | B 0 0 0.346 | B 0 0 0.448",
    ),
    # ternaries
    "C1b": Prototype(216, 1, 1, "A 0 0 0 | B 1/2 1/2 1/2 | C 1/4 1/4 1/4", "AB"),
    "L21": Prototype(225, 1, 1, "A 1/4 1/4 1/4 | B 0 0 0 | C 1/2 1/2 1/2", "BC"),
    "Xa": Prototype(216, 1, 1, "A 0 0 0 | A 1/4 1/4 1/4 | B 1/2 1/2 1/2 | C 3/4 3/4 3/4", "BC"),
    "D022t": Prototype(139, 1, 2.03, "A 0 1/2 1/4 | B 0 0 0 | C 0 0 1/2", "BC"),
    "L12t": Prototype(123, 1, 1.03, "A 0 1/2 1/2 | B 0 0 0 | C 1/2 1/2 0", "BC"),
    "ZrBeSi": Prototype(194, 1, 1.5, "A 0 0 0 | B 1/3 2/3 1/4 | C 1/3 2/3 3/4", "BC"),
    "MgSnCu4": Prototype(216, 1, 1, "A 0.625 0.625 0.625 | B 0 0 0 | C 1/4 1/4 1/4", "BC"),
    "E21": Prototype(221, 1, 1, "A 0 1/2 1/2 | B 0 0 0 | C 1/2 1/2 1/2"),
    "ThCr2Si2": Prototype(139, 1, 2.5, "A 0 1/2 1/4 | B 0 0 0.37 | C 0 0 0"),
    "PbClF": Prototype(129, 1, 1.5, "A 3/4 1/4 0 | B 1/4 1/4 0.27 | C 1/4 1/4 0.70", "BC"),
    "CeCo3B2": Prototype(191, 1, 0.8, "A 1/2 0 1/2 | B 1/3 2/3 0 | C 0 0 0"),
    "MgCuAl2": Prototype(63, 2.3, 1.78, "A 0 0.356 0.056 | B 0 0.072 1/4 | C 0 0.778 1/4"),
    "Cr2AlC": Prototype(194, 1, 4.0, "A 1/3 2/3 0.086 | B 1/3 2/3 3/4 | C 0 0 0"),
    "ZrNiAl": Prototype(189, 1, 0.55, "A 0.59 0 0 | B 0.25 0 1/2 | C 0 0 0 | C 1/3 2/3 1/2"),
    "TiNiSi": Prototype(62, 0.6, 1.13, "A 0.02 1/4 0.18 | B 0.15 1/4 0.56 | C 0.77 1/4 0.62"),
}

# Rows are the primitive vectors in units of the conventional ones (hexagonal axes for R, obverse).
CENTRING: dict[str, Array] = {
    "P": np.eye(3),
    "I": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
    "F": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
    "C": np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]]) / 2,
    "R": np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3,
}


@dataclass(frozen=True)
class Template:
    """A prototype laid out in its primitive cell.

    lattice: "3 3" rows are vectors, in units of the conventional a. frac: "sites 3".
    slots: slot letter of each site. strains: "p 3 3" and shifts: "q sites 3", orthonormal bases of
    the strains and Cartesian displacements which the space group leaves alone.
    """

    lattice: Array
    frac: Array
    slots: tuple[str, ...]
    strains: Array
    shifts: Array


@cache
def _operations(space_group: int) -> tuple[Array, Array, str]:
    """Rotations "n 3 3", translations "n 3" (conventional cell) and the letter of the centring."""
    best: tuple[int, int, str] | None = None
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        assert kind is not None
        if kind.number == space_group:
            rank = 0 if kind.choice in ("2", "H") else 1
            if best is None or rank < best[0]:
                best = (rank, hall, kind.international_short[0])
    assert best is not None
    symmetry = spglib.get_symmetry_from_database(best[1])
    assert symmetry is not None
    return symmetry["rotations"].astype(float), symmetry["translations"], best[2]


def _fixed_subspace(representation: Array) -> Array:
    """Orthonormal rows spanning what every matrix of "n d d" leaves alone."""
    projector = representation.mean(axis=0)
    values, vectors = np.linalg.eigh((projector + projector.T) / 2)
    return np.ascontiguousarray(vectors[:, values > 0.5].T)


def _site_of(point: Array, frac: Array) -> int:
    """Index of the site at `point` modulo the lattice; -1 if there is none."""
    delta = frac - point
    hit = np.flatnonzero(np.abs(delta - np.round(delta)).max(axis=-1) < 1e-4)
    return int(hit[0]) if len(hit) else -1


@cache
def template(name: str) -> Template:
    """The prototype `name` in its primitive cell, with the freedom its space group leaves it.

    Raises KeyError for an unknown name.
    """
    proto = PROTOTYPES[name]
    rotations, translations, centring = _operations(proto.space_group)
    primitive = CENTRING[centring]
    to_primitive = np.linalg.inv(primitive)
    hexagonal = 143 <= proto.space_group <= 194
    second = (-0.5, math.sqrt(0.75), 0.0) if hexagonal else (0.0, proto.b_over_a, 0.0)
    conventional = np.array([(1.0, 0.0, 0.0), second, (0.0, 0.0, proto.c_over_a)])

    sites: list[Array] = []
    slots: list[str] = []
    for text in proto.sites.split("|"):
        slot, *xyz = text.split()
        start = np.array([float(Fraction(value)) for value in xyz])
        for image in (rotations @ start + translations) @ to_primitive:
            if not sites or _site_of(image, np.array(sites)) < 0:
                sites.append(image - np.floor(image + 1e-9))
                slots.append(slot)
    frac = np.array(sites)

    # Row vectors throughout, so a rotation acts from the right and is transposed. The first
    # operations repeat under every centring translation, which changes no average.
    turns = np.linalg.inv(conventional) @ rotations.transpose(0, 2, 1) @ conventional
    n = len(frac)
    on_shifts = np.zeros((len(turns), n, 3, n, 3))
    for k, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        images = (frac @ primitive @ rotation.T + translation) @ to_primitive
        for i, image in enumerate(images):
            on_shifts[k, _site_of(image, frac), :, i, :] = turns[k].T
    on_strains = np.einsum("kac,kbd->kcdab", turns, turns)
    on_strains = (on_strains + on_strains.transpose(0, 1, 2, 4, 3)) / 2  # symmetric strains only
    strains = _fixed_subspace(on_strains.reshape(-1, 9, 9)).reshape(-1, 3, 3)
    drift = np.tile(np.eye(3), (n, 1)) / math.sqrt(n)  # the three uniform translations
    still = np.eye(3 * n) - drift @ drift.T
    shifts = _fixed_subspace(on_shifts.reshape(-1, 3 * n, 3 * n) @ still).reshape(-1, n, 3)
    return Template(primitive @ conventional, frac, tuple(slots), strains, shifts)
