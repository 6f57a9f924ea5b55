"""The complex as parts and borders: sums that must come out, orbits, what it must not depend on."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.complex import VARIANTS, collate
from tests.represent.delaunay.test_tessellate import KNOWN, random_crystal, unimodular

SETTINGS = {"symprec": 0.01, "tolerance": 0.001}
REDUCED, FULL = (VARIANTS[name](SETTINGS) for name in ("reduced", "full"))
ELEMENTS = [11, 17, 22, 8, 26, 55, 47]
Parts = dict[str, NDArray[Any]]


def some(seed: int, name: str) -> Crystal:
    """A known structure with elements drawn, or a crystal without symmetry."""
    rng = np.random.default_rng(seed)
    if name == "random":
        lattice, frac = random_crystal(seed, 1 + seed % 4)
    else:
        lattice, frac = np.array(KNOWN[name][0]), np.array(KNOWN[name][1], float)
        lattice = lattice * rng.uniform(0.8, 1.6)
    return Crystal("x", "X", lattice, rng.choice(ELEMENTS, len(frac)), frac)


def moved(one: Crystal, seed: int) -> Crystal:
    """The same crystal: turned or mirrored, other origin, order, cell, and perhaps doubled."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lattice, frac, numbers = one.lattice, one.frac, one.numbers
    if seed % 2:
        axis = seed // 2 % 3
        scale = np.ones(3)
        scale[axis] = 2
        lattice = lattice * scale[:, None]
        frac = np.concatenate([frac / scale, (frac + np.eye(3)[axis]) / scale])
        numbers = np.concatenate([numbers, numbers])
    change, order = unimodular(rng), rng.permutation(len(frac))
    frac = (frac + rng.random(3)) @ np.linalg.inv(change)
    return Crystal("x", "X", change @ lattice @ turn, numbers[order], frac[order])


CRYSTALS = {"seed": st.integers(0, 10_000), "name": st.sampled_from([*sorted(KNOWN), "random"])}


def around(parts: Parts, border: str, column: int, of: str, by: str) -> NDArray[np.float64]:
    """How many borders each part in `column` of `border` has, from those of the parts `by`."""
    rows = parts[border]
    share = parts[f"{border}_count"] * parts[f"{by}_many"][rows[:, 0]]
    total = np.bincount(rows[:, column], share, len(parts[f"{of}_many"]))
    return total / parts[f"{of}_many"]


@settings(max_examples=20, deadline=None)
@given(**CRYSTALS)
def test_what_must_add_up(seed: int, name: str) -> None:
    one = some(seed, name)
    whole, parts = FULL.build(one), REDUCED.build(one)
    for part in ("atoms", "edges", "faces", "cells"):
        assert parts[f"{part}_many"].sum() == whole[f"{part}_many"].sum()
        assert (whole[f"{part}_many"] == 1).all()
    for found in (whole, parts):
        many = {part: found[f"{part}_many"] for part in ("atoms", "edges", "faces", "cells")}
        assert many["atoms"].sum() - many["edges"].sum() + many["faces"].sum() == (
            many["cells"].sum()
        )
        # a face parts two cells; dihedral angles make a full turn
        np.testing.assert_allclose(around(found, "walls", 1, "faces", "cells"), 2)
        rows = found["hinges"]
        share = found["hinges_count"] * found["cells_many"][rows[:, 0]] * found["hinges_angle"]
        turn = np.bincount(rows[:, 1], share) / many["edges"]
        np.testing.assert_allclose(turn, 2 * np.pi, atol=0.05)
        # as many faces as cells around an edge, and the angles of a polygon
        np.testing.assert_allclose(
            around(found, "sides", 1, "edges", "faces"),
            around(found, "hinges", 1, "edges", "cells"),
        )
        sides = np.bincount(found["sides"][:, 0], found["sides_count"])
        inside = np.bincount(
            found["corners"][:, 0], found["corners_count"] * found["corners_angle"]
        )
        np.testing.assert_allclose(inside, (sides - 2) * np.pi, atol=0.02)
        # solid angles around an atom
        first, second = found["edges_ends"].T
        solid = found["edges_size"][:, 1] * many["edges"]
        total = np.bincount(first, solid, len(many["atoms"]))
        total += np.bincount(second, solid, len(many["atoms"]))
        np.testing.assert_allclose(total.sum(), 4 * np.pi * many["atoms"].sum(), rtol=1e-5)
        volume = (found["atoms_size"] * many["atoms"]).sum()
        np.testing.assert_allclose(volume, (found["cells_size"][:, 0] * many["cells"]).sum(), 1e-3)


def test_rock_salt() -> None:
    name = next(n for n in KNOWN if n.startswith("NaCl"))
    lattice, frac = np.array(KNOWN[name][0]), np.array(KNOWN[name][1], float)
    numbers = np.array([11] * 4 + [17] * 4)
    parts = REDUCED.build(Crystal("x", "NaCl", lattice, numbers, frac))
    counts = {part: parts[f"{part}_many"].tolist() for part in ("atoms", "edges", "faces", "cells")}
    assert counts == {"atoms": [1, 1], "edges": [6], "faces": [6], "cells": [2]}
    assert parts["edges_ends"].tolist() in ([[0, 1]], [[1, 0]])
    assert (parts["sides_count"].tolist(), parts["corners_count"].tolist()) == ([4], [4])
    assert (parts["walls_count"].tolist(), parts["hinges_count"].tolist()) == ([6], [12])
    np.testing.assert_allclose(parts["corners_angle"], np.pi / 2)
    np.testing.assert_allclose(parts["edges_size"][:, 1], 4 * np.pi / 6, rtol=1e-6)


def test_parts_of_a_batch_are_counted_through() -> None:
    items = [REDUCED.build(some(seed, "random")) for seed in (1, 2, 3)]
    batch = collate(items)
    last = {part: batch[f"{part}_pointer"][2] for part in ("atoms", "edges", "faces", "cells")}
    for border, of in {"sides": ("faces", "edges"), "hinges": ("cells", "edges")}.items():
        rows = batch[border][-len(items[2][border]) :].numpy()
        expected = items[2][border] + np.array([last[part] for part in of])
        np.testing.assert_array_equal(rows, expected)
    assert batch["atoms_pointer"].tolist()[-1] == len(batch["numbers"])


NEAREST = VARIANTS["nearest"]({"symprec": 0.01, "neighbours": 12, "cutoff": 9.0})


@settings(max_examples=30, deadline=None)
@given(**CRYSTALS)
def test_edges_to_nearest_neighbours(seed: int, name: str) -> None:
    """Each atom has its twelve at least; the lengths do not depend on how the crystal is told."""
    one = some(seed, name)
    parts, other = NEAREST.build(one), NEAREST.build(moved(one, seed))
    degree = np.bincount(parts["edges_ends"].ravel(), minlength=len(parts["numbers"]))
    assert degree.min() >= 12
    assert len(parts["edges_ends"]) <= 12 * len(parts["numbers"])
    assert set(parts) == set(FULL.build(one))
    assert not any(len(parts[f"{border}_count"]) for border in ("sides", "walls", "corners"))
    shortest, again = (np.sort(p["edges_size"][:, 0])[:3] for p in (parts, other))
    np.testing.assert_allclose(shortest, again, atol=1e-4)


def test_too_few_neighbours_are_told() -> None:
    lonely = VARIANTS["nearest"]({"symprec": 0.01, "neighbours": 12, "cutoff": 1.0})
    with pytest.raises(CrystalmeshError, match=r"fewer than 12 neighbours within 1\.0 Angstrom"):
        lonely.build(some(1, "random"))
