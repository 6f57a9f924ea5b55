"""Symmetries found on the complex: against spglib's, for all space groups, whatever the cell."""

import functools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice
from scipy.spatial.transform import Rotation

from crystalmesh.data.crystals import Crystal
from crystalmesh.represent.automorphisms import BITS, VARIANTS, automorphisms
from crystalmesh.represent.delaunay import tessellate
from crystalmesh.represent.mesh import primitive_cell
from tests.represent.delaunay.test_tessellate import unimodular

SETTINGS = {"symprec": 0.01, "tolerance": 0.001, "meet": 0.01}
MAKER = VARIANTS["complex"](SETTINGS)
Bits = tuple[bytes, bytes]


@functools.cache
def halls() -> dict[int, int]:
    """The first setting of each space group."""
    found: dict[int, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        assert kind is not None
        found.setdefault(kind.number, hall)
    return found


def general(number: int, seed: int) -> Crystal:
    """A crystal of a space group: two elements in general positions of a cell that fits it."""
    rng = np.random.default_rng([number, seed])
    lengths, angles = rng.uniform(4, 9, 3), rng.uniform(75, 105, 3)
    if number > 2:  # monoclinic in spglib's first setting, unique axis b
        angles[[0, 2]] = 90
    if number > 15:
        angles[1] = 90
    if number > 74:
        lengths[1] = lengths[0]
    if 142 < number < 195:
        angles[2] = 120
    if number > 194:
        lengths[2] = lengths[0]
    operations = spglib.get_symmetry_from_database(halls()[number])
    assert operations is not None
    turns, moves = operations["rotations"], operations["translations"]
    lattice = Lattice.from_parameters(*lengths, *angles).matrix
    lattice = lattice * (40 * len(turns) / abs(np.linalg.det(lattice))) ** (1 / 3)
    while True:
        frac = np.concatenate([turns @ rng.random(3) + moves for _ in range(2)])
        gap = frac[:, None] - frac
        far = np.linalg.norm((gap - np.round(gap)) @ lattice, axis=2)
        if far[~np.eye(len(frac), dtype=bool)].min() > 0.3:
            return Crystal("x", "X", lattice, np.repeat([29, 30], len(turns)), frac)


def bits(one: Crystal) -> Bits:
    """What a crystal's operations say, as something that can be compared."""
    found = MAKER.build(one)
    assert found["operations"].shape[1] == BITS
    return found["operations"].tobytes(), found["many"].tobytes()


@pytest.mark.parametrize("first", [1, 75, 143, 195])
def test_every_space_group_has_its_own_bits(first: int) -> None:
    """All 230, and each the same whatever the crystal, its cell, its order and its turn."""
    groups: dict[Bits, set[int]] = defaultdict(set)
    last = {1: 75, 75: 143, 143: 195, 195: 231}[first]
    for number in range(first, last):
        for seed in range(2):
            one = general(number, seed)
            turned = _turned(one, number)
            groups[bits(turned if seed else one)].add(number)
    assert [sorted(numbers) for numbers in groups.values() if len(numbers) > 1] == []
    assert len(groups) == last - first


def _turned(one: Crystal, seed: int) -> Crystal:
    """Turned (not mirrored, which may change the space group), other origin, order and cell."""
    rng = np.random.default_rng(seed)
    change, order = unimodular(rng), rng.permutation(len(one.frac))
    turn = Rotation.random(rng=rng).as_matrix()
    if np.linalg.det(change) < 0:
        change = -change
    frac = (one.frac + rng.random(3)) @ np.linalg.inv(change)
    return Crystal("x", "X", change @ one.lattice @ turn, one.numbers[order], frac[order])


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 230), seed=st.integers(10, 10_000))
def test_the_operations_are_spglibs(number: int, seed: int) -> None:
    lattice, frac, numbers = primitive_cell(general(number, seed), 0.01)
    found = tessellate(lattice, frac - np.floor(frac), 0.001)
    turns, moves = automorphisms(found, numbers, 0.01)
    cell: Any = (found.lattice, found.frac_coords, numbers)
    theirs = spglib.get_symmetry_dataset(cell, symprec=0.01)
    assert theirs is not None
    assert theirs.number == number
    ours = sorted(np.concatenate([turns.transpose(0, 2, 1).reshape(-1, 9)]).tolist())
    assert ours == sorted(theirs.rotations.reshape(-1, 9).tolist())
    order = np.lexsort(turns.transpose(0, 2, 1).reshape(-1, 9).T)
    other = np.lexsort(theirs.rotations.reshape(-1, 9).T)
    gap = moves[order] - theirs.translations[other]
    assert np.abs(gap - np.round(gap)).max() < 1e-3


def test_mirror_images_differ_only_in_the_sense_of_their_screws() -> None:
    """P3_1 and P3_2, and what a mirror makes of a crystal."""
    one = general(144, 0)
    mirrored = Crystal("x", "X", one.lattice * (1, 1, -1), one.numbers, one.frac)
    assert bits(mirrored) == bits(general(145, 0)) != bits(one)


def test_how_exact_a_symmetry_must_be() -> None:
    """An atom moved by more than `meet` breaks it, by much less does not."""
    counts = []
    for move in (0.002, 0.05):
        one = general(47, 3)
        frac = one.frac.copy()
        frac[0] += np.array([move, 0, 0]) @ np.linalg.inv(one.lattice)
        counts.append(
            int(MAKER.build(Crystal("x", "X", one.lattice, one.numbers, frac))["many"].sum())
        )
    assert counts == [8, 1]


def test_collate() -> None:
    crystals = [general(number, 0) for number in (1, 225, 62)]
    items = [MAKER.build(one) for one in crystals]
    batch = MAKER.collate(items)
    sizes = batch["pointer"].diff().tolist()
    assert sizes == [len(item["many"]) for item in items]
    orders = [int(part.sum()) for part in batch["many"].split(sizes)]
    assert orders == [1, 48, 8]
    assert batch["operations"].shape == (sum(sizes), BITS)
