"""The complex as a truss: textbook moduli, relaxation, and what it must not depend on."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crystalmesh import represent
from crystalmesh.data.crystals import Crystal
from crystalmesh.represent.complex import VARIANTS
from crystalmesh.represent.delaunay import tessellate
from crystalmesh.represent.descriptors import ELEMENTAL, STRUCTURE, column, elemental
from crystalmesh.represent.elastic import (
    DECAYS,
    LIMIT,
    NAMES,
    OTHERS,
    SCALES,
    TRANSVERSE,
    Descriptors,
    truss,
)
from crystalmesh.represent.mesh import primitive_cell
from tests.represent.test_complex import CRYSTALS, some

SETTINGS = {"symprec": 0.01, "tolerance": 0.001}
DESCRIBED = Descriptors(SETTINGS)
Floats = NDArray[np.float64]
FROZEN = {
    "log K / affine (decay 2, scale one, transverse 0.005)": -0.32129972,
    "log K (decay 4, scale bulk, transverse 0.05)": -0.82240682,
    "log G_R / K (decay 8, scale valence, transverse 0.5)": 0.74498114,
    "softest of springs (decay 4, scale rigidity)": 1.91287454,
    "deviation electronegativity": 0.04952578,
    "like ends": 0.43129972,
    "deviation volume": 0.16042680,
}  # fmt: skip


def of(one: Crystal, primitive: bool = True) -> Floats:
    """Of its primitive cell, or of the cell as it is."""
    lattice, frac, numbers = one.lattice, one.frac, one.numbers
    if primitive:
        lattice, frac, numbers = primitive_cell(one, 0.01)
    return truss(tessellate(lattice, frac - np.floor(frac), 0.001), numbers)


def table() -> Floats:
    """Means and deviations that networks read by: [2, d]."""
    text = (Path(represent.__file__).parent / "elastic_table.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == [*OTHERS, *NAMES]
    return np.array([[float(row[key]) for row in rows] for key in ("mean", "deviation")])


def value(values: Floats, start: str) -> float:
    (found,) = [v for name, v in zip(NAMES, values.tolist(), strict=True) if name.startswith(start)]
    return float(found)


@pytest.mark.parametrize("z", [26, 84])
def test_moduli_of_a_simple_cubic_truss(z: int) -> None:
    """Springs k along the axes, t k across: C11 = k / a, C44 = t k / 2 a (not turning), C12 = 0."""
    a = 3.1
    values = of(Crystal("x", "X", a * np.eye(3), np.array([z]), np.zeros((1, 3))))
    scales = np.stack(
        [np.zeros(101), *elemental()[:, :2].T, np.log(column("NValence").clip(0.5) / 10)]
    )
    for decay in DECAYS:
        for scale, own in zip(SCALES, scales[:, z], strict=True):
            weaker = decay * (a / (2 * column("CovalentRadius")[z] / 100) - 1)
            k = np.exp(own - weaker)  # dual area / length = a; over a
            for t in TRANSVERSE:
                where = f"(decay {decay:g}, scale {scale}, transverse {t:g})"
                bulk, c11, c44 = k / 3, k, t * k / 2
                voigt, reuss = (c11 + 3 * c44) / 5, 5 / (4 / c11 + 3 / c44)
                expected = {
                    "K": bulk, "K / affine": 1, "G_V / K": voigt / bulk, "G_V / affine": 1,
                    "G_R / K": reuss / bulk, "G_R / G_V": reuss / voigt,
                }  # fmt: skip
                for name, modulus in expected.items():
                    found = value(values, f"log {name} {where}")
                    assert found == pytest.approx(np.log(modulus), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_supercell_relaxes_as_its_primitive_cell(seed: int) -> None:
    """Twice as many atoms are free to move, and none moves otherwise."""
    one = some(seed, "random")
    scale = np.array([2, 1, 1])
    doubled = Crystal(
        "x", "X", one.lattice * scale[:, None], np.tile(one.numbers, 2),
        np.concatenate([one.frac / scale, one.frac / scale + [0.5, 0, 0]]),
    )  # fmt: skip
    np.testing.assert_allclose(of(doubled, primitive=False), of(one, primitive=False), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(**CRYSTALS)
def test_bounds(seed: int, name: str) -> None:
    """Who may relax is softer than who is held; Reuss' mean is below Voigt's."""
    for label, found in zip(NAMES, of(some(seed, name)).tolist(), strict=True):
        if "/ affine" in label or "G_R / G_V" in label:
            assert found <= 1e-9, label


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_moduli_change_as_little_as_the_atoms_move(seed: int) -> None:
    """Also where cubes fall apart into tetrahedra, whose new edges have hardly a dual area."""
    rng = np.random.default_rng(seed)
    one = some(seed, "NaCl: eight cubes")
    moves = rng.normal(0, 1, (8, 3)) @ np.linalg.inv(one.lattice)
    smooth = np.array([name.startswith("log ") or " of springs" in name for name in NAMES])
    exact = tessellate(one.lattice, one.frac, 1e-6)
    before = truss(exact, one.numbers)[smooth]
    for distance in (1e-5, 1e-4, 1e-3):
        near = tessellate(one.lattice, one.frac + distance * moves, 1e-6)
        assert near.n_edges > exact.n_edges
        after = truss(near, one.numbers)[smooth]
        np.testing.assert_allclose(after, before, atol=300 * distance)


def test_unequal_springs_relax() -> None:
    """A chain of springs: forces balance where the atoms go, not where the strain takes them.

    Layers of one element at heights 0 and h of a cell c: per area, the springs s and l between
    them add in series along the axis, so that stretching costs less than held atoms would.
    """
    height, side, c = 0.4, 3.0, 7.0
    lattice = np.diag([side, side, c])
    one = Crystal("x", "X", lattice, np.array([26, 26]), np.array([[0, 0, 0], [0, 0, height]]))
    values = of(one)
    radius = 2 * column("CovalentRadius")[26] / 100
    for decay in DECAYS:
        lengths = np.array([height * c, (1 - height) * c])
        k = side**2 / lengths * np.exp(-decay * (np.minimum(lengths / radius, 2) - 1))
        across = side * (c / 2) / side * np.exp(-decay * (side / radius - 1))  # per atom and axis
        t = TRANSVERSE[0]
        volume = side**2 * c
        c11 = 2 * across * side**2 / volume
        held = (k * lengths**2).sum() / volume
        relaxed = c**2 / (1 / k).sum() / volume
        affine = (2 * c11 + held) / 9
        reuss = 1 / (2 / c11 + 1 / relaxed)
        where = f"(decay {decay:g}, scale one, transverse {t:g})"
        assert value(values, f"log K / affine {where}") == pytest.approx(np.log(reuss / affine))
        assert relaxed < held


def test_frozen_values() -> None:
    values = of(some(7, "random"))
    assert len(values) == len(NAMES) == 281
    assert {name: pytest.approx(value(values, name), abs=1e-6) for name in FROZEN} == FROZEN


def test_what_networks_read_is_limited() -> None:
    maker = VARIANTS["elastic"](SETTINGS)
    items = [maker.build(some(seed, "random")) for seed in range(4)]
    row = maker.collate(items)["truss"]
    assert row.shape == (4, len(NAMES))
    mean, deviation = table()[:, len(OTHERS) :]
    found = (np.array([of(some(seed, "random")) for seed in range(4)]) - mean) / deviation
    assert (np.abs(found) > LIMIT).any()
    np.testing.assert_allclose(row.numpy(), np.clip(found, -LIMIT, LIMIT), atol=1e-5)
    plain = VARIANTS["reduced"](SETTINGS).build(some(0, "random"))
    assert set(items[0]) - set(plain) == {"truss"}
    for key, array in plain.items():
        np.testing.assert_array_equal(items[0][key], array)


@settings(max_examples=15, deadline=None)
@given(**CRYSTALS)
def test_networks_read_what_classical_models_do(seed: int, name: str) -> None:
    """But standardised, and limited; the rest is as with the truss alone."""
    one = some(seed, name)
    item = VARIANTS["described"](SETTINGS).build(one)
    known = np.concatenate([item["described"], item["truss"]], axis=1)
    mean, deviation = table()
    assert (deviation > 0).all()
    values = DESCRIBED.build(one)["values"]
    expected = np.clip((values - mean) / deviation, -LIMIT, LIMIT)
    np.testing.assert_allclose(known, expected, rtol=1e-5, atol=1e-5)
    less = VARIANTS["elastic"](SETTINGS).build(one)
    assert set(item) - set(less) == {"described"}
    for key, array in less.items():
        np.testing.assert_array_equal(item[key], array)


@settings(max_examples=15, deadline=None)
@given(**CRYSTALS)
def test_descriptors(seed: int, name: str) -> None:
    one = some(seed, name)
    values = DESCRIBED.build(one)["values"]
    assert values.shape == (1, len(STRUCTURE) + 4 * 21 + len(NAMES)) == (1, len(OTHERS + NAMES))
    first = OTHERS.index(f"mean of elements' {ELEMENTAL[0]}")
    assert first == len(STRUCTURE)
    np.testing.assert_allclose(values[0, -len(NAMES) :], of(one))
    solids = values[0, len(STRUCTURE) : -len(NAMES)].reshape(21, 4)
    each = elemental()[one.numbers]
    for k, expected in enumerate((each.mean(0), each.std(0), each.min(0), each.max(0))):
        np.testing.assert_allclose(solids[:, k], expected, atol=1e-12)
