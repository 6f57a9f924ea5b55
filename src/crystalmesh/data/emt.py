"""The embedded dataset `emt`: relaxed alloys of seven metals from nothing but ASE's EMT potential.

Prototype structures are decorated with Al, Cu, Ag, Au, Ni, Pd and Pt, relaxed within the symmetry
of the prototype, and labelled with a formation energy and the Voigt-Reuss-Hill moduli. The result
has the shape of matminer's raw Materials Project JSON, so it enters the pipeline by the same door.

ASE's own calculator needs milliseconds a call; `emt_gradients` below is the same potential, with
ASE's parameters, on a batch of images of one crystal at once. The tests hold it to ASE's numbers.

Sources: K. W. Jacobsen, P. Stoltze, J. K. Norskov, Surf. Sci. 366, 394 (1996), as coded in
`ase.calculators.emt`; prototypes as in the AFLOW encyclopedia (Mehl et al., Comput. Mater. Sci.
136, S1, 2017); averages of Hill, Proc. Phys. Soc. A 65, 349 (1952).
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import spglib
from ase.calculators import emt as ase_emt
from ase.units import Bohr, GPa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from crystalmesh.workers import in_order

# spglib warns on every call unless it may raise.
spglib.error.OLD_ERROR_HANDLING = False

Array = NDArray[np.float64]

# Pauling electronegativity rises along the tuple: the order in which a formula names elements.
METALS = ("Al", "Cu", "Ni", "Ag", "Pd", "Pt", "Au")

COLUMNS = [
    "mpid", "formula", "e_form", "gap pbe", "mu_b", "bulk modulus", "shear modulus", "structure",
]  # fmt: skip


# --- prototypes -----------------------------------------------------------------------------------


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


# --- the potential --------------------------------------------------------------------------------

BETA = ase_emt.beta

# Cutoffs as in ase.calculators.emt.EMT with asap_cutoff=False: set by the largest element of the
# table, whatever the crystal holds.
_R1NN = BETA * max(par[1] for par in ase_emt.parameters.values()) * Bohr
CUTOFF_MIDPOINT = _R1NN * 0.5 * (math.sqrt(3.0) + 2.0)  # Angstrom
CUTOFF = CUTOFF_MIDPOINT + 0.5  # Angstrom
CUTOFF_SLOPE = math.log(1e4 - 1.0) / (2.0 * _R1NN - CUTOFF_MIDPOINT)  # 1/Angstrom


class _Parameters(NamedTuple):
    """EMT parameters of every metal of METALS, in eV and Angstrom, each of shape "metals"."""

    e0: Array
    s0: Array
    v0: Array
    eta2: Array
    kappa: Array
    lambda_: Array
    n0: Array
    gamma1: Array
    gamma2: Array


def _parameters() -> _Parameters:
    table = np.array([ase_emt.parameters[metal] for metal in METALS]).T
    e0, s0, v0, eta2, kappa, lambda_, n0 = table
    s0, eta2, kappa, lambda_, n0 = (
        s0 * Bohr,
        eta2 / Bohr,
        kappa / Bohr,
        lambda_ / Bohr,
        n0 / Bohr**3,
    )
    shells = BETA * s0[:, None] * np.sqrt([1.0, 2.0, 3.0])  # first three of fcc: "metals 3"
    weight = np.array([12.0, 6.0, 24.0]) / (
        12.0 * (1.0 + np.exp(CUTOFF_SLOPE * (shells - CUTOFF_MIDPOINT)))
    )
    beyond = shells - BETA * s0[:, None]
    gamma1 = (weight * np.exp(-eta2[:, None] * beyond)).sum(axis=1)
    gamma2 = (weight * np.exp(-kappa[:, None] / BETA * beyond)).sum(axis=1)
    return _Parameters(e0, s0, v0, eta2, kappa, lambda_, n0, gamma1, gamma2)


EMT = _parameters()


class Pairs:
    """Directed neighbour pairs i -> j of one crystal, good for every image near it.

    i, j: "pairs", sorted by i; offset: "pairs 3" lattice vectors to add to j; reverse: the place
    of j -> i. Site species index METALS.

    Raises ValueError if a site has no neighbour: the potential is then undefined.
    """

    def __init__(self, species: NDArray[np.intp], lattice: Array, frac: Array, skin: float):
        reach = CUTOFF + skin
        heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
        spread = np.ptp(frac, axis=0)
        bounds = np.floor(reach / heights + spread).astype(int)
        offsets = np.array(list(itertools.product(*(range(-b, b + 1) for b in bounds))), float)
        delta = frac[None, :] - frac[:, None]  # "i j 3"
        vectors = (delta[:, :, None] + offsets) @ lattice  # "i j offsets 3"
        squared = np.einsum("ijoc,ijoc->ijo", vectors, vectors)
        self.i, self.j, shift = np.nonzero((squared < reach**2) & (squared > 1e-12))
        self.offset = offsets[shift]
        self.starts = np.searchsorted(self.i, np.arange(len(frac)))
        if len(np.unique(self.i)) < len(frac):
            raise ValueError(f"a site has no neighbour within {reach:.2f} Angstrom")
        # `product` counts offsets up, so the opposite of offset k is k from the end.
        n, m = len(frac), len(offsets)
        code = (self.i * n + self.j) * m + shift
        self.reverse = np.searchsorted(code, (self.j * n + self.i) * m + (m - 1 - shift))
        self.shortest = math.sqrt(float(squared[self.i, self.j, shift].min()))

        self.species = species
        si, sj = species[self.i], species[self.j]
        chi = EMT.n0[sj] / EMT.n0[si]
        self.eta2, self.kappa = EMT.eta2[sj], EMT.kappa[sj] / BETA
        self.density = chi * np.exp(EMT.eta2[sj] * BETA * EMT.s0[sj])
        self.pair_energy = (
            -0.5 * EMT.v0[si] / EMT.gamma2[si] * chi * np.exp(EMT.kappa[sj] * EMT.s0[sj])
        )


def emt_gradients(pairs: Pairs, lattice: Array, frac: Array) -> tuple[Array, Array, Array]:
    """Energies "images" in eV, forces "images sites 3" in eV/Angstrom, stress "images 3 3".

    lattice: "images 3 3" in Angstrom, frac: "images sites 3". Stress is dE/dstrain / volume in
    eV/Angstrom^3, positive under tension, as in ASE. The zero of energy is ASE's: the elements'
    E0, close to their fcc crystals.
    """
    delta = frac[:, pairs.j] + pairs.offset - frac[:, pairs.i]
    d = delta @ lattice  # "images pairs 3"
    r = np.sqrt(np.einsum("bpc,bpc->bp", d, d))
    w = (r < CUTOFF) / (1.0 + np.exp(CUTOFF_SLOPE * (r - CUTOFF_MIDPOINT)))
    dlogw = CUTOFF_SLOPE * (w - 1.0)

    density = pairs.density * np.exp(-pairs.eta2 * r) * w
    pair = pairs.pair_energy * np.exp(-pairs.kappa * r) * w
    sigma1 = np.add.reduceat(density, pairs.starts, axis=1)  # "images sites"

    eta2, kappa, lambda_ = (p[pairs.species] for p in (EMT.eta2, EMT.kappa, EMT.lambda_))
    e0, v0, gamma1 = (p[pairs.species] for p in (EMT.e0, EMT.v0, EMT.gamma1))
    ds = -np.log(sigma1 / (12.0 * gamma1)) / (BETA * eta2)
    cohesion = e0 * np.exp(-lambda_ * ds)
    correction = 6.0 * v0 * np.exp(-kappa * ds)
    site = (1.0 + lambda_ * ds) * cohesion + correction - e0
    energy = site.sum(axis=1) + pair.sum(axis=1)

    dsite = (lambda_**2 * ds * cohesion + kappa * correction) / (BETA * eta2 * sigma1)
    slope = dsite[:, pairs.i] * density * (dlogw - pairs.eta2) + pair * (dlogw - pairs.kappa)
    pull = ((slope + slope[:, pairs.reverse]) / r)[:, :, None] * d
    forces = np.add.reduceat(pull, pairs.starts, axis=1)
    volume = np.abs(np.linalg.det(lattice))
    stress = 0.5 * (d.transpose(0, 2, 1) @ pull) / volume[:, None, None]
    return energy, forces, (stress + stress.transpose(0, 2, 1)) / 2


# --- relaxation and elasticity --------------------------------------------------------------------


class Relaxed(NamedTuple):
    """A relaxed primitive cell: lattice "3 3" (Angstrom), frac "sites 3", species into METALS.

    energy: eV a cell.
    """

    species: NDArray[np.intp]
    lattice: Array
    frac: Array
    energy: float


def _moved(lattice: Array, frac: Array, strains: Array, shifts: Array) -> tuple[Array, Array]:
    """Images of a crystal after strains "images 3 3" and then displacements "images sites 3"."""
    strained = lattice @ (np.eye(3) + strains)
    return strained, frac + shifts @ np.linalg.inv(strained)


def relax(name: str, metals: tuple[str, ...], fmax: float) -> Relaxed | None:
    """Relaxes cell and ions of prototype `name`, slots A, B, C filled by `metals`, to a minimum.

    Newton steps in the few degrees of freedom the space group leaves, so the symmetry stays. A
    strain counts as a length through the cube root of the volume, and its stress as a force in
    eV/Angstrom: all are below `fmax` at the end. None if the search fails or the crystal
    collapses or flies apart.
    """
    shape = template(name)
    species = np.array([METALS.index(metals["ABC".index(slot)]) for slot in shape.slots])
    frac = shape.frac
    n_strains, n = len(shape.strains), len(frac)
    # Atoms of the fcc elements' sizes, then the best of some volumes around that.
    expected = float(((math.sqrt(2) * BETA * EMT.s0[species]) ** 3 / 4).sum())
    start = shape.lattice * (expected / abs(np.linalg.det(shape.lattice))) ** (1 / 3)
    scales = np.linspace(0.92, 1.2, 15)
    energies = emt_gradients(
        Pairs(species, start * scales[0], frac, 0.0),
        start * scales[:, None, None],
        np.broadcast_to(frac, (len(scales), n, 3)),
    )[0]
    lattice = start * scales[np.argmin(energies)]

    length = expected ** (1 / 3)
    strains = np.concatenate([shape.strains / length, np.zeros((len(shape.shifts), 3, 3))])
    shifts = np.concatenate([np.zeros((n_strains, n, 3)), shape.shifts])

    def gradients(pairs: Pairs, steps: Array) -> tuple[Array, Array]:
        """Energies "images" and their slopes "images freedoms" after steps "images freedoms"."""
        cells, sites = _moved(
            lattice, frac, np.einsum("bq,qcd->bcd", steps, strains),
            np.einsum("bq,qnc->bnc", steps, shifts),
        )  # fmt: skip
        energy, forces, stress = emt_gradients(pairs, cells, sites)
        volume = np.abs(np.linalg.det(cells))
        slopes = np.einsum("b,bcd,qcd->bq", volume, stress, strains)
        return energy, slopes - np.einsum("bnc,qnc->bq", forces, shifts)

    freedoms = len(strains)
    probe = 1e-4  # Angstrom
    probes = np.concatenate([np.zeros((1, freedoms)), probe * np.eye(freedoms)])
    probes = np.concatenate([probes, -probes[1:]])
    polished = False
    for _ in range(80):
        pairs = Pairs(species, lattice, frac, 0.6)
        if pairs.shortest < 1.5:
            return None
        energy, slopes = gradients(pairs, probes)
        hessian = (slopes[1 : freedoms + 1] - slopes[freedoms + 1 :]) / (2 * probe)
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        slope = float(np.abs(slopes[0]).max())
        if slope < fmax and polished:
            if values[0] <= 0:
                return None  # stopped on a saddle
            break
        # One step more than asked for: it takes the error below what rounding keeps.
        polished = slope < fmax
        step = -vectors @ ((vectors.T @ slopes[0]) / np.maximum(np.abs(values), 0.05))
        step *= min(1.0, 0.15 / float(np.abs(step).max() + 1e-300))
        if slope > 1e-3:
            factors = np.array([1.0, 0.5, 0.2, 0.05])
            trial = gradients(pairs, factors[:, None] * step)[0]
            best = int(np.argmin(trial))
            if trial[best] >= energy[0]:
                return None
            step = factors[best] * step
        moved = _moved(
            lattice, frac, np.einsum("q,qcd->cd", step, strains)[None],
            np.einsum("q,qnc->nc", step, shifts)[None],
        )  # fmt: skip
        lattice, frac = moved[0][0], moved[1][0]
    else:
        return None
    if not 0.6 < abs(float(np.linalg.det(lattice))) / expected < 2.0:
        return None
    return Relaxed(species, lattice, frac, float(energy[0]))


_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def elastic_tensor(crystal: Relaxed, strain: float, fmax: float) -> Array | None:
    """Elastic tensor "6 6" in GPa, Voigt order xx yy zz yz xz xy, engineering shears.

    Central differences of the stress at +-`strain`, the ions relaxed at each (a shear can move
    ions which no symmetric strain moves, so all may move). None where they have no minimum to
    relax to: the crystal is unstable against displacements within its cell.
    """
    species, lattice, frac, _ = crystal
    n = len(frac)
    pairs = Pairs(species, lattice, frac, 0.3)
    deformations = np.zeros((12, 3, 3))
    for k, (a, b) in enumerate(_VOIGT):
        deformations[k, a, b] += strain / 2
        deformations[k, b, a] += strain / 2
    deformations[6:] = -deformations[:6]
    shifts = np.zeros((12, n, 3))

    stiffness_inverse = np.zeros((3 * n, 3 * n))
    if n > 1:
        probe = 1e-3  # Angstrom
        probes = probe * np.eye(3 * n).reshape(3 * n, n, 3)
        images = np.concatenate([probes, -probes])
        cells, sites = _moved(lattice, frac, np.zeros((len(images), 3, 3)), images)
        forces = emt_gradients(pairs, cells, sites)[1].reshape(2, 3 * n, 3 * n)
        stiffness = (forces[1] - forces[0]) / (2 * probe)
        drift = np.tile(np.eye(3), (n, 1)) / math.sqrt(n)
        still = np.eye(3 * n) - drift @ drift.T
        # Uniform translations cost nothing; a large constant keeps them out of the way.
        values, vectors = np.linalg.eigh(
            still @ (stiffness + stiffness.T) @ still / 2 + 1e3 * drift @ drift.T
        )
        if values[0] < 1e-3:  # eV/Angstrom^2
            return None
        stiffness_inverse = (vectors / values) @ vectors.T

    for _ in range(30):
        cells, sites = _moved(lattice, frac, deformations, shifts)
        _, forces, stress = emt_gradients(pairs, cells, sites)
        residual = float(np.abs(forces).max())
        # The stress is divided by the strain below, so the forces must be small against that.
        if residual < fmax * strain:
            break
        shifts = shifts + (forces.reshape(12, 3 * n) @ stiffness_inverse).reshape(12, n, 3)
        if np.abs(shifts).max() > 0.1:
            return None
    if residual > fmax:
        return None
    rows, columns = zip(*_VOIGT, strict=True)
    voigt = stress[:, rows, columns]  # "images 6"
    tensor = (voigt[:6] - voigt[6:]) / (2 * strain) / GPa
    return np.asarray((tensor + tensor.T) / 2)


def hill_moduli(tensor: Array) -> tuple[float, float] | None:
    """Voigt-Reuss-Hill bulk and shear modulus in GPa of an elastic tensor "6 6" in GPa.

    None if the tensor is not positive definite (Born's criterion): the crystal is unstable.
    """
    if np.linalg.eigvalsh(tensor)[0] < 1e-3:
        return None
    c, s = tensor, np.linalg.inv(tensor)
    k_voigt = c[:3, :3].sum() / 9
    k_reuss = 1 / s[:3, :3].sum()
    off_c = c[0, 1] + c[0, 2] + c[1, 2]
    off_s = s[0, 1] + s[0, 2] + s[1, 2]
    g_voigt = (np.trace(c[:3, :3]) - off_c + 3 * np.trace(c[3:, 3:])) / 15
    g_reuss = 15 / (4 * (np.trace(s[:3, :3]) - off_s) + 3 * np.trace(s[3:, 3:]))
    return float(k_voigt + k_reuss) / 2, float(g_voigt + g_reuss) / 2


# --- the dataset ----------------------------------------------------------------------------------


class EmtSettings(BaseModel):
    """What the embedded dataset holds and how it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elements: tuple[str, ...] = METALS
    prototypes: tuple[str, ...] | Literal["all"] = "all"
    max_per_prototype: int = Field(default=42, ge=1)
    """Crystals tried of each prototype (a fixed pseudo-random choice): 42 keeps all binaries."""
    strain: float = Field(default=0.001, gt=0, le=0.01)
    """Finite strain of the elastic tensor. Small, as EMT's cutoff is only 0.04 Angstrom wide."""
    fmax: float = Field(default=1e-6, ge=1e-8, le=1e-2)
    """Largest force left, eV/Angstrom."""
    decimals: int = Field(default=6, ge=4, le=7)
    """Of lattice vectors (Angstrom), fractional coordinates and e_form (eV/atom)."""

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(METALS))
        if unknown or not value or len(set(value)) != len(value):
            raise ValueError(f"elements must be distinct, from {METALS}; got {value}")
        return value

    @field_validator("prototypes")
    @classmethod
    def _known_prototypes(
        cls, value: tuple[str, ...] | Literal["all"]
    ) -> tuple[str, ...] | Literal["all"]:
        if value != "all" and (not value or set(value) - set(PROTOTYPES)):
            unknown = sorted(set(value) - set(PROTOTYPES))
            raise ValueError(f"unknown prototypes {unknown}; known: {', '.join(PROTOTYPES)}")
        return value


class Candidate(NamedTuple):
    """A prototype and the metals on its slots A, B, C."""

    prototype: str
    metals: tuple[str, ...]

    @property
    def id(self) -> str:
        """Stable name, metals in the order of the slots: `emt-L12-Cu3Au`.

        It tells where the crystal started; its relaxed space group may be a supergroup.
        """
        slots = template(self.prototype).slots
        counts = [slots.count("ABC"[k]) for k in range(len(self.metals))]
        return f"emt-{self.prototype}-{_formula(self.metals, counts)}"


def _formula(metals: tuple[str, ...], counts: list[int]) -> str:
    unit = math.gcd(*counts)
    return "".join(
        metal + (str(count // unit) if count > unit else "")
        for metal, count in zip(metals, counts, strict=True)
    )


def candidates(settings: EmtSettings) -> list[Candidate]:
    """The decorated prototypes the settings ask for, in the order of the table."""
    elements = [metal for metal in METALS if metal in settings.elements]
    found: list[Candidate] = []
    for name, prototype in PROTOTYPES.items():
        if settings.prototypes != "all" and name not in settings.prototypes:
            continue
        slots = sorted(set(template(name).slots))
        exchangeable = [slots.index(slot) for slot in prototype.swap]
        decorated = []
        for metals in itertools.permutations(elements, len(slots)):
            order = [elements.index(metals[k]) for k in exchangeable]
            if order == sorted(order):
                decorated.append(Candidate(name, metals))
        # A hash is a choice that neither the table nor a version's random numbers change.
        ranked = sorted(decorated, key=lambda c: hashlib.sha256(c.id.encode()).digest())
        kept = set(ranked[: settings.max_per_prototype])
        found += [candidate for candidate in decorated if candidate in kept]
    return found


class Labelled(NamedTuple):
    """A relaxed crystal, its moduli K and G in GPa (None if unstable), its space group's number."""

    crystal: Relaxed
    moduli: tuple[float, float] | None
    space_group: int

    @property
    def composition(self) -> tuple[int, ...]:
        """Numbers of atoms of each of METALS in the reduced formula."""
        counts = np.bincount(self.crystal.species, minlength=len(METALS))
        return tuple(int(count) for count in counts // np.gcd.reduce(counts))

    @property
    def energy(self) -> float:
        """eV/atom, from ASE's zero."""
        return self.crystal.energy / len(self.crystal.frac)

    @property
    def volume(self) -> float:
        """Angstrom^3/atom."""
        return abs(float(np.linalg.det(self.crystal.lattice))) / len(self.crystal.frac)


def label(task: tuple[Candidate, EmtSettings]) -> Labelled | None:
    """Relaxes one candidate and computes its moduli; None if it does not relax."""
    candidate, settings = task
    crystal = relax(candidate.prototype, candidate.metals, settings.fmax)
    if crystal is None:
        return None
    cell = (crystal.lattice.tolist(), crystal.frac.tolist(), crystal.species.tolist())
    symmetry = spglib.get_symmetry_dataset(cell, symprec=0.01)
    assert symmetry is not None  # the installed spglib raises instead
    tensor = elastic_tensor(crystal, settings.strain, settings.fmax)
    moduli = None if tensor is None else hill_moduli(tensor)
    return Labelled(crystal, moduli, int(symmetry.number))


def reference_energies(elements: tuple[str, ...], fmax: float) -> Array:
    """Energy in eV/atom of the lower of fcc and hcp, for each of METALS; nan for the others.

    EMT puts hcp some meV below fcc for five of the seven metals, and nothing below both.
    """
    energies = np.full(len(METALS), np.nan)
    for metal in elements:
        phases = [relax(name, (metal,), fmax) for name in ("A1", "A3")]
        energies[METALS.index(metal)] = min(
            phase.energy / len(phase.frac) for phase in phases if phase is not None
        )
    return energies


def _structure(crystal: Relaxed, decimals: int) -> dict[str, Any]:
    """The crystal as `pymatgen.core.Structure.as_dict` writes it, without importing pymatgen."""

    def rounded(values: Array) -> Any:
        return (np.round(values, decimals) + 0.0).tolist()  # + 0.0: no minus zero

    matrix = np.round(crystal.lattice, decimals) + 0.0
    frac = np.round(np.mod(np.round(crystal.frac, decimals), 1.0), decimals) + 0.0
    lengths = np.linalg.norm(matrix, axis=1)
    cosines = np.array([matrix[k - 2] @ matrix[k - 1] for k in range(3)]) / np.array(
        [lengths[k - 2] * lengths[k - 1] for k in range(3)]
    )
    sites = [
        {
            "species": [{"element": METALS[species], "occu": 1}],
            "abc": abc.tolist(),
            # All the digits of the product: with fewer, noise would break ties.
            "xyz": (np.round(abc @ matrix, 2 * decimals) + 0.0).tolist(),
            "label": METALS[species],
            "properties": {},
        }
        for species, abc in zip(crystal.species, frac, strict=True)
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0,
        "lattice": {
            "matrix": matrix.tolist(),
            "pbc": [True, True, True],
            **dict(zip("abc", rounded(lengths), strict=True)),
            **dict(
                zip(
                    ("alpha", "beta", "gamma"), rounded(np.degrees(np.arccos(cosines))), strict=True
                )
            ),
            "volume": rounded(np.abs(np.linalg.det(matrix))),
        },
        "properties": {},
        "sites": sites,
    }


def generate(
    settings: EmtSettings, jobs: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The dataset as raw MP JSON in the shape of matminer's dataframes: columns, index, data.

    e_form is in eV/atom against the lower of the relaxed fcc and hcp elements; the moduli are in
    GPa, null where the crystal is mechanically unstable; gap and mu_b are null. Candidates that
    do not relax are left out, and so are those that relax into an earlier one: same formula and
    space group, energies within 1e-4 eV/atom, volumes within 0.1 %. Entries, and their bits, do
    not depend on `jobs`, the number of processes. `progress` is called with (done, total).

    The processes are spawned: a script that calls this needs `if __name__ == "__main__"`.

    Raises ValueError if jobs < 1 or the settings leave no candidate.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    wanted = candidates(settings)
    if not wanted:
        raise ValueError(f"no prototype can be decorated with {settings.elements} alone")
    references = reference_energies(settings.elements, settings.fmax)

    kept: dict[tuple[tuple[int, ...], int], list[Labelled]] = {}
    data: list[list[Any]] = []

    def collect(results: Iterable[Labelled | None]) -> None:
        for done, (candidate, result) in enumerate(zip(wanted, results, strict=True), start=1):
            if progress is not None:
                progress(done, len(wanted))
            if result is None:
                continue
            alike = kept.setdefault((result.composition, result.space_group), [])
            if any(
                abs(result.energy - other.energy) < 1e-4
                and abs(result.volume / other.volume - 1) < 1e-3
                for other in alike
            ):
                continue
            alike.append(result)
            present = [k for k, count in enumerate(result.composition) if count]
            counts = [result.composition[k] for k in present]
            pure = sum(
                float(references[k]) * count for k, count in zip(present, counts, strict=True)
            ) / sum(counts)
            moduli = result.moduli or (None, None)
            data.append(
                [
                    candidate.id,
                    _formula(tuple(METALS[k] for k in present), counts),
                    round(result.energy - pure, settings.decimals) + 0.0,
                    None,
                    None,
                    *(None if value is None else round(value, 4) for value in moduli),
                    _structure(result.crystal, settings.decimals),
                ]
            )

    collect(in_order(label, [(candidate, settings) for candidate in wanted], jobs))
    return {"columns": list(COLUMNS), "index": list(range(len(data))), "data": data}
