"""How a crystal's Delaunay complex maps onto itself: its symmetries, found on the mesh.

An isometry of the crystal carries the edges around an atom to the edges around its image, so it
is known from where three edges of one atom go. `automorphisms` tries all places that lengths,
angles and elements allow and keeps those where every atom meets an atom. No table of space
groups and no other program's search for symmetry takes part.

`describe` says of each isometry what every choice of cell, origin and orientation agrees on: its
kind, its screw or glide, how its axis lies to the lattice and to the axes of the others. These
bits tell all 230 space groups apart, of the 11 mirror-image pairs by the sense of their screws (a
test). A network that reads them has only to learn which number goes with which of them.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Length
from crystalmesh.represent.delaunay import Complex
from crystalmesh.represent.mesh import primitive_complex

SLACK = 5  # candidates are sought within this many times the tolerance, and then looked at closely
SQUARE = 0.3  # least sine of the angle between the first two edges that are followed
KINDS = {  # (trace, determinant) of the rotation -> place; 1, 2, 3, 4, 6, then with inversion
    (3, 1): 0, (-1, 1): 1, (0, 1): 2, (1, 1): 3, (2, 1): 4,
    (-3, -1): 5, (1, -1): 6, (0, -1): 7, (-1, -1): 8, (-2, -1): 9,
}  # fmt: skip
IDENTITY, TWOFOLD, INVERSION, MIRROR = 0, 1, 5, 6
ORDERS = (1, 2, 3, 4, 6)
SCREWS = {0: 0, 6: 1, 4: 2, 8: 3, 3: 4, 9: 5, 2: 6, 10: 7}  # twelfths of the axis' period -> place
PLANES = 3  # a mirror; a glide along an axis of the crystal; another glide
FAMILIES = ((TWOFOLD,), (MIRROR,), (2, 7), (3, 8))  # kinds whose axes span a lattice; see `_spans`
INDICES = {1: 0, 2: 1, 3: 2, 4: 3}  # of such a lattice; all others share the last place
_KIND, _SCREW, _PLANE = 0, len(KINDS), len(KINDS) + len(SCREWS)
_OWN = _PLANE + PLANES  # bits of an operation itself, then those of its surroundings
_STEP, _SAME, _ALONG = _OWN, _OWN + 3, _OWN + 3 + _OWN
_SPAN, _MEET = _ALONG + _OWN, _ALONG + _OWN + 3 + 5
BITS = _MEET + 1


class Settings(BaseModel):
    """Settings of the search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib's search for the primitive cell
    tolerance: Length  # Angstrom within which atoms count as co-spherical
    meet: Length  # Angstrom within which an image meets an atom


class Automorphisms:
    """The operations of the complex of a primitive cell, in bits.

    Args:
        settings: `representations.automorphisms.complex` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(Settings, settings, "representations.automorphisms.complex")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The operations of one crystal.

        Returns:
            operations [g, BITS] (0 or 1; see `describe`), each once; many [g]: how many are alike.

        Raises:
            CrystalmeshError: spglib finds no primitive cell, or see `tessellate`.
        """
        s = self.settings
        found, numbers = primitive_complex(crystal, s.symprec, s.tolerance)
        rows = describe(*automorphisms(found, numbers, s.meet), found.lattice)
        operations, many = np.unique(rows, axis=0, return_counts=True)
        return {"operations": operations.astype(np.uint8), "many": many.astype(np.int32)}

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join crystals.

        Returns:
            pointer [c + 1]: operations of crystal i are rows pointer[i] to pointer[i + 1];
            operations f32 [g, BITS]; many f32 [g].
        """
        joined = {key: np.concatenate([item[key] for item in items]) for key in items[0]}
        pointer = np.cumsum([0, *(len(item["many"]) for item in items)])
        batch = {key: torch.from_numpy(value.astype(np.float32)) for key, value in joined.items()}
        return {"pointer": torch.from_numpy(pointer), **batch}


def automorphisms(
    found: Complex, numbers: Int[NDArray[Any], " n"], meet: float
) -> tuple[Int[NDArray[np.int64], "g 3 3"], Float[NDArray[np.float64], "g 3"]]:
    """The isometries that map a crystal onto itself, up to lattice translations.

    Args:
        found: its complex.
        numbers: atomic number of each site.
        meet: Angstrom within which the image of an atom must meet an atom of its element, and
            that of a lattice vector have its length.

    Returns:
        rotations N and translations w in fractions: the atom at x (a row) comes to x N + w.
    """
    lattice, frac = found.lattice, found.frac_coords
    starts, ends = found.edge_sites.T
    vectors = (frac[ends] + found.edge_shift - frac[starts]) @ lattice
    starts, ends = np.concatenate([starts, ends]), np.concatenate([ends, starts])
    vectors = np.concatenate([vectors, -vectors])
    elements, lengths = numbers[ends], np.linalg.norm(vectors, axis=1)
    # From an atom of the rarest element with fewest edges there are fewest ways to go.
    kinds, counts = np.unique(numbers, return_counts=True)
    degree = np.bincount(starts)
    rarity = counts[np.searchsorted(kinds, numbers)]
    base = int(np.lexsort((degree, rarity))[0])
    three = _three(np.flatnonzero(starts == base), vectors, lengths)
    frame, back = vectors[three], np.linalg.inv(lattice)
    inverse, gram = np.linalg.inv(frame), frame @ frame.T
    near = SLACK * meet
    rotations, translations = [], []
    for site in np.flatnonzero(numbers == numbers[base]):
        star = np.flatnonzero(starts == site)
        fits = [
            star[(elements[star] == elements[k]) & (np.abs(lengths[star] - lengths[k]) < near)]
            for k in three
        ]
        ways = np.ones(tuple(map(len, fits)), dtype=bool)
        for a, b in combinations(range(3), 2):
            dot = vectors[fits[a]] @ vectors[fits[b]].T
            same = np.abs(dot - gram[a, b]) < near * (lengths[three[a]] + lengths[three[b]])
            ways &= np.expand_dims(same, 3 - a - b)
        place = np.argwhere(ways)
        images = np.stack([vectors[fits[k][place[:, k]]] for k in range(3)], axis=1)
        raw = lattice @ (inverse @ images) @ back  # [ways, 3, 3]
        whole = np.round(raw)
        whole = np.unique(whole[(np.abs(raw - whole) < 0.2).all(axis=(1, 2))], axis=0)
        rotations += list(whole)
        translations += [frac[site] - frac[base] @ one for one in whole]
    n, w = np.array(rotations), np.array(translations)
    good = _isometric(n, lattice, meet)
    good[good] = [
        _meets(*pair, found, numbers, meet) for pair in zip(n[good], w[good], strict=True)
    ]
    return n[good].astype(np.int64), w[good]


def _three(
    star: Int[NDArray[Any], " s"],
    vectors: Float[NDArray[np.float64], "e 3"],
    lengths: Float[NDArray[np.float64], " e"],
) -> list[int]:
    """Three short edges of an atom that span space."""
    star = star[np.argsort(lengths[star], kind="stable")]
    unit = vectors[star] / lengths[star, None]
    second = int(np.argmax(np.linalg.norm(np.cross(unit[0], unit), axis=1) > SQUARE))
    volume = np.abs(np.cross(unit[0], unit[second]) @ unit.T)
    third = int(np.argmax(volume / (1 + 0.2 * lengths[star])))
    return [int(star[0]), int(star[second]), int(star[third])]


def _isometric(
    n: Float[NDArray[np.float64], "g 3 3"], lattice: Float[NDArray[np.float64], "3 3"], meet: float
) -> Bool[NDArray[np.bool_], " g"]:
    """Whether each matrix keeps the lattice, and its vectors' lengths and products."""
    gram = lattice @ lattice.T
    length = np.sqrt(np.diag(gram))
    moved = n @ gram @ n.transpose(0, 2, 1)
    gap = np.sqrt(np.diagonal(moved, axis1=1, axis2=2)) - length
    turned = (moved - gram) / np.sqrt(np.outer(length, length))
    whole = np.abs(np.abs(np.linalg.det(n)) - 1) < 0.5
    kept: NDArray[np.bool_] = (
        whole & (np.abs(gap) < meet).all(axis=1) & (np.abs(turned) < 2 * meet).all(axis=(1, 2))
    )
    return kept


def _meets(
    n: Float[NDArray[np.float64], "3 3"],
    w: Float[NDArray[np.float64], " 3"],
    found: Complex,
    numbers: Int[NDArray[Any], " n"],
    meet: float,
) -> bool:
    """Whether every atom's image meets an atom of its element, no two the same."""
    gap = (found.frac_coords @ n + w)[:, None] - found.frac_coords
    far = np.linalg.norm((gap - np.round(gap)) @ found.lattice, axis=2)
    far[numbers[:, None] != numbers] = math.inf
    image = far.argmin(axis=1)
    return bool(far.min(axis=1).max() < meet) and len(np.unique(image)) == len(image)


def describe(
    rotations: Int[NDArray[np.int64], "g 3 3"],
    translations: Float[NDArray[np.float64], "g 3"],
    lattice: Float[NDArray[np.float64], "3 3"],
) -> Bool[NDArray[np.bool_], "g b"]:
    """What can be said of each operation without regard to cell, origin and orientation.

    An operation stands for itself and all lattice translations after it, so it may be a rotation
    and a screw, or a mirror and a glide, at once.

    Args:
        rotations, translations: as `automorphisms` gives them.
        lattice: rows are vectors of a primitive cell, Angstrom.

    Returns:
        BITS a row: the kind (10); of rotations the screws by their share of the axis' period, seen
        along the axis that they turn anticlockwise about (8); of mirrors the glides (3); how far
        the lattice, projected on the axis, divides its period (3); what else has this axis (21);
        what has an axis along the glide (21); rank and index of the lattice that the axes of
        its family span (3 + 5); of twofold rotations whether another one meets it (1).

    Raises:
        CrystalmeshError: they are no crystallographic rotations.
    """
    g = len(rotations)
    bits = np.zeros((g, BITS), dtype=bool)
    try:
        kinds = np.array([KINDS[round(np.trace(n)), round(np.linalg.det(n))] for n in rotations])
    except KeyError as error:
        raise CrystalmeshError("an operation of the complex is no rotation of a lattice") from error
    bits[np.arange(g), _KIND + kinds] = True
    axes = np.array([_axis(n) for n in rotations])  # [g, 3]; zero of identity and inversion
    glides, pure = _alone(bits, rotations, translations, lattice, kinds, axes)
    own = _axis_bits(bits, axes, kinds, rotations, glides)
    parallel = _same_line(axes)
    np.fill_diagonal(parallel, val=False)
    bits[:, _SAME : _SAME + _OWN] = parallel @ own
    for k, classes in glides.items():
        for p in _along(k, classes, axes, rotations):
            bits[k, _ALONG : _ALONG + _OWN] |= own[p]
    _spans(bits, axes, kinds)
    _meetings(bits, rotations, kinds, pure)
    return bits


def _alone(
    bits: Bool[NDArray[np.bool_], "g b"],
    rotations: Int[NDArray[np.int64], "g 3 3"],
    translations: Float[NDArray[np.float64], "g 3"],
    lattice: Float[NDArray[np.float64], "3 3"],
    kinds: Int[NDArray[np.int64], " g"],
    axes: Float[NDArray[np.float64], "g 3"],
) -> tuple[dict[int, set[tuple[int, ...]]], dict[int, NDArray[np.float64]]]:
    """Set in `bits` what each operation says alone: steps, screws, planes.

    Returns:
        The glides of each mirror, and the translations of each pure rotation.
    """
    glides: dict[int, set[tuple[int, ...]]] = {}
    pure: dict[int, NDArray[np.float64]] = {}
    for k, (n, w, kind) in enumerate(zip(rotations, translations, kinds.tolist(), strict=True)):
        if kind in (IDENTITY, INVERSION):
            continue
        axis = axes[k]
        sign = 1 if kind < INVERSION else -1
        onto = _projection(sign * n)  # onto the axis
        along = shifts() @ onto @ axis / (axis @ axis)
        step = np.abs(along)[np.abs(along) > 1e-6].min()
        bits[k, _STEP + min(round(1 / step), 3) - 1] = True
        if sign > 0:
            turn = _sense(n, axis, lattice)
            share = turn * (w @ onto @ axis / (axis @ axis) + along)
            for twelfth in np.unique(np.round(12 * share).astype(int) % 12).tolist():
                if twelfth in SCREWS:
                    bits[k, _SCREW + SCREWS[twelfth]] = True
            whole = np.round(share)
            still = np.abs(share - whole) < 1 / 24
            pure[k] = w + shifts()[still] - turn * whole[still, None] * axis
        elif kind == MIRROR:
            twice = np.round((w + shifts()) @ (np.eye(3) + n)).astype(int)
            glides[k] = set(map(tuple, (twice % 2).tolist()))
            bits[k, _PLANE] = (0, 0, 0) in glides[k]
    return glides, pure


@functools.cache
def shifts() -> Int[NDArray[np.int64], "27 3"]:
    """Lattice translations of which some reach every screw and glide of an operation."""
    grid = np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 3)


def _projection(n: Int[NDArray[np.int64], "3 3"]) -> Float[NDArray[np.float64], "3 3"]:
    """Mean of the powers of a rotation: what projects rows on its axis."""
    order = ORDERS[KINDS[round(np.trace(n)), 1]]
    powers = [np.linalg.matrix_power(n, k) for k in range(order)]
    mean: NDArray[np.float64] = np.mean(powers, axis=0)
    return mean


def _axis(n: Int[NDArray[np.int64], "3 3"]) -> Int[NDArray[np.int64], " 3"]:
    """The shortest lattice vector along the axis of an operation (of a mirror, its normal)."""
    proper = n * round(np.linalg.det(n))
    if np.trace(proper) == 3:
        return np.zeros(3, dtype=np.int64)
    onto = _projection(proper) * ORDERS[KINDS[round(np.trace(proper)), 1]]
    row = np.round(onto[np.abs(onto).sum(axis=1).argmax()]).astype(np.int64)
    axis: NDArray[np.int64] = row // np.gcd.reduce(row)
    return axis


def _sense(
    n: Int[NDArray[np.int64], "3 3"],
    axis: Int[NDArray[np.int64], " 3"],
    lattice: Float[NDArray[np.float64], "3 3"],
) -> int:
    """1 if a rotation turns anticlockwise about its axis by less than a half turn, else -1."""
    along = axis @ lattice
    side = np.eye(3)[np.argmin(np.abs(along))]
    turned = side @ np.linalg.inv(lattice) @ n @ lattice
    return -1 if np.linalg.det(np.stack([along, side, turned])) < 0 else 1


def _same_line(axes: Int[NDArray[np.int64], "g 3"]) -> Bool[NDArray[np.bool_], "g g"]:
    """Which axes are the same, whatever their sense; those of no direction are no axes."""
    same = np.equal(axes[:, None], axes).all(axis=2)
    opposite = np.equal(axes[:, None], -axes).all(axis=2)
    has = np.asarray(axes.any(axis=1))
    line: NDArray[np.bool_] = (same | opposite) & has & has[:, None]
    return line


def _along(
    k: int,
    classes: set[tuple[int, ...]],
    axes: Int[NDArray[np.int64], "g 3"],
    rotations: Int[NDArray[np.int64], "g 3 3"],
) -> list[int]:
    """Operations whose axis lies in mirror k along one of its glides."""
    inside = (axes @ rotations[k] == axes).all(axis=1) & axes.any(axis=1)
    return [
        int(p)
        for p in np.flatnonzero(inside)
        if (rest := tuple((axes[p] % 2).tolist())) in classes and any(rest)
    ]


def _axis_bits(
    bits: Bool[NDArray[np.bool_], "g b"],
    axes: Int[NDArray[np.int64], "g 3"],
    kinds: Int[NDArray[np.int64], " g"],
    rotations: Int[NDArray[np.int64], "g 3 3"],
    glides: Mapping[int, set[tuple[int, ...]]],
) -> Bool[NDArray[np.bool_], "g o"]:
    """An operation's own bits, after the glides are told apart: along a twofold axis or a mirror's
    normal, or not."""
    straight = np.isin(kinds, (TWOFOLD, MIRROR))
    for k, classes in glides.items():
        on = {
            tuple((axes[p] % 2).tolist())
            for p in _along(k, classes, axes, rotations)
            if straight[p]
        }
        moved = {one for one in classes if any(one)}
        bits[k, _PLANE + 1] = bool(moved & on)
        bits[k, _PLANE + 2] = bool(moved - on)
    return bits[:, :_OWN].copy()


def _spans(
    bits: Bool[NDArray[np.bool_], "g b"],
    axes: Int[NDArray[np.int64], "g 3"],
    kinds: Int[NDArray[np.int64], " g"],
) -> None:
    """Rank and index of the lattice of each family's axes; pure mirrors and glides apart."""
    for family in FAMILIES:
        for pure in (False, True):
            chosen = np.isin(kinds, family) & (bits[:, _PLANE] == pure)
            if chosen.any():
                rank, index = _span(axes[chosen])
                bits[chosen, _SPAN + rank - 1] = True
                bits[chosen, _SPAN + 3 + INDICES.get(index, len(INDICES))] = True


def _span(axes: Int[NDArray[np.int64], "k 3"]) -> tuple[int, int]:
    """Rank of the lattice that vectors span, and its index in all lattice points of that span."""
    axes = np.unique(axes * np.where(axes @ (1, 10, 100) < 0, -1, 1)[:, None], axis=0)
    volumes = [round(np.linalg.det(np.stack(three))) for three in combinations(axes, 3)]
    if any(volumes):
        return 3, math.gcd(*volumes)
    areas = [np.gcd.reduce(np.cross(*two)) for two in combinations(axes, 2)]
    return (2, math.gcd(*map(int, areas))) if any(areas) else (1, 1)


def _meetings(
    bits: Bool[NDArray[np.bool_], "g b"],
    rotations: Int[NDArray[np.int64], "g 3 3"],
    kinds: Int[NDArray[np.int64], " g"],
    pure: Mapping[int, Float[NDArray[np.float64], "m 3"]],
) -> None:
    """Which twofold rotations meet one at a right angle: then one after the other is a rotation,
    else it is a screw."""
    twofold = [k for k in np.flatnonzero(kinds == TWOFOLD).tolist() if len(pure[k])]
    for a, b in combinations(twofold, 2):
        after = rotations[a] @ rotations[b]
        if round(np.trace(after)) == -1:
            moved = (pure[a] @ rotations[b])[:, None] + pure[b]
            if (np.round(moved @ (np.eye(3) + after)) == 0).all(axis=-1).any():
                bits[[a, b], _MEET] = True


VARIANTS = {"complex": Automorphisms}
