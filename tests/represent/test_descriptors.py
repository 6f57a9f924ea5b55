"""Descriptors: matminer's Magpie features, known crystals, invariances."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymatgen.core import Composition as Formula

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import descriptors
from crystalmesh.represent.descriptors import COMPOSITION, PROPERTIES, STRUCTURE, VARIANTS
from tests.represent.prototypes import FCC

COMPOSITIONS = VARIANTS["composition"]({})
STRUCTURES = VARIANTS["structure"]({"symprec": 0.01})
# What matminer 0.10.1 computes: Stoichiometry and ElementProperty.from_preset("magpie").
REFERENCE = json.loads(
    (Path(__file__).parent / "magpie_reference.json").read_text(encoding="utf-8")
)
CRYSTALS = {  # edges, atomic numbers, fractional coordinates
    "Cu": ([3.6, 3.6, 3.6], [29] * 4, FCC),
    "Fe": ([2.87, 2.87, 2.87], [26] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "NaCl": ([5.64, 5.64, 5.64], [11] * 4 + [17] * 4, [*FCC, *((np.array(FCC) + 0.5) % 1)]),
    "SrTiO3": (
        [3.9, 3.9, 3.9],
        [38, 22, 8, 8, 8],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ),
    "TiO2": (
        [4.59, 4.59, 2.96],
        [22, 22, 8, 8, 8, 8],
        [
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.305, 0.305, 0],
            [0.695, 0.695, 0],
            [0.805, 0.195, 0.5],
            [0.195, 0.805, 0.5],
        ],
    ),
}


def crystal(name: str, scale: float = 1.0) -> Crystal:
    edges, numbers, frac = CRYSTALS[name]
    return Crystal(name, name, np.diag(edges) * scale, np.array(numbers), np.array(frac, float))


def random_crystal(seed: int, atoms: int) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * rng.uniform(3.0, 6.0, 3) + rng.normal(scale=0.4, size=(3, 3))
    return Crystal("x", "X", lattice, rng.integers(1, 90, atoms), rng.random((atoms, 3)))


def structure(one: Crystal) -> NDArray[np.float64]:
    values: NDArray[np.float64] = STRUCTURES.build(one)["values"][0]
    return values


def named(one: Crystal) -> dict[str, float]:
    return dict(zip(STRUCTURE, structure(one).tolist(), strict=True))


@pytest.mark.parametrize("formula", sorted(REFERENCE["values"]))
def test_composition_is_matminers(formula: str) -> None:
    counts = Formula(formula).as_dict()
    numbers = np.repeat(
        [Formula(symbol).elements[0].Z for symbol in counts], [int(n) for n in counts.values()]
    )
    one = Crystal("x", formula, np.eye(3), numbers, np.zeros((len(numbers), 3)))
    values = COMPOSITIONS.build(one)["values"]
    assert REFERENCE["names"] == list(COMPOSITION)
    np.testing.assert_allclose(values[0], REFERENCE["values"][formula], rtol=1e-6, atol=1e-6)


def test_a_missing_property_is_the_mean() -> None:
    table = descriptors.magpie()
    assert table.shape == (101, len(PROPERTIES))
    assert np.isfinite(table).all()
    helium = PROPERTIES.index("Electronegativity")
    assert table[2, helium] == table[10, helium] == table[0, helium]


def test_properties_of_solids_and_atoms_are_standardised() -> None:
    table = descriptors.elemental()
    assert table.shape == (101, 21)
    assert not table[0].any()
    assert abs(table).max() == 3  # cut
    bulk = table[:, 0]
    assert bulk[75] > bulk[74] > bulk[26] > bulk[11] > bulk[55]  # Re, W, Fe, Na, Cs
    assert abs(table[1:].sum(axis=0)).max() < 5  # means are 0 but for what was cut


def test_names_are_those_of_the_columns() -> None:
    assert len(set(COMPOSITION)) == len(COMPOSITION) == 138
    assert len(set(STRUCTURE)) == len(STRUCTURE) == 211
    items = [
        [maker.build(crystal(name)) for name in ("Cu", "TiO2")]
        for maker in (COMPOSITIONS, STRUCTURES)
    ]
    assert COMPOSITIONS.collate(items[0])["values"].shape == (2, 138)
    values = STRUCTURES.collate(items[1])["values"]
    assert values.shape == (2, 211)
    np.testing.assert_array_equal(values.numpy()[1], items[1][1]["values"][0])


def test_known_crystals() -> None:
    copper = named(crystal("Cu"))
    assert copper["volume"] == pytest.approx(3.6**3 / 4)
    assert copper["density"] == pytest.approx(63.546 * 4 / (6.02214076e23 * 3.6e-8**3), rel=1e-6)
    assert copper["packing"] == pytest.approx(4 * 4 / 3 * np.pi * 1.32**3 / 3.6**3)
    assert copper["mean coordination"] == pytest.approx(12)
    assert copper["mean nearest"] == pytest.approx(3.6 / np.sqrt(2))
    assert copper["atoms"] == 1
    assert (copper["b/a"], copper["c/a"]) == pytest.approx((1, 1))
    assert copper["fill"] == pytest.approx(np.sqrt(0.5))
    assert (copper["space_group"], copper["operations"], copper["cubic"]) == (225, 48, 1)
    salt = named(crystal("NaCl"))
    assert salt["atoms"] == 2
    assert salt["mean coordination"] == pytest.approx(6, abs=0.01)
    assert salt["mean difference Electronegativity"] == pytest.approx(3.16 - 0.93)
    iron = named(crystal("Fe"))
    assert 8 < iron["mean coordination"] < 14  # the second shell counts in part
    rutile = named(crystal("TiO2"))
    assert (rutile["space_group"], rutile["tetragonal"], rutile["atoms"]) == (136, 1, 6)
    assert rutile["maximum coordination"] == pytest.approx(6, abs=0.01)
    assert 3 < rutile["minimum coordination"] < 4  # oxygen: three Ti, and a little of O
    assert rutile["b/a"] == rutile["c/a"] == pytest.approx(4.59 / 2.96)


def moved(one: Crystal, seed: int) -> Crystal:
    """The same crystal: rotated, shifted, sites reordered, in another cell or a supercell."""
    rng = np.random.default_rng(seed)
    change = np.diag(rng.permutation([1, 1, int(rng.integers(1, 4))]))
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        change[i] += rng.integers(-1, 2) * change[j]
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    grid = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    # One of the old cells for each place within the new one; none lies on its faces.
    inside = (grid + [0.0137, 0.0229, 0.0311]) @ np.linalg.inv(change)
    cells = grid[((inside >= 0) & (inside < 1)).all(axis=1)]
    assert len(cells) == round(abs(np.linalg.det(change)))
    frac = ((one.frac[None] + cells[:, None]) @ np.linalg.inv(change)).reshape(-1, 3)
    numbers = np.tile(one.numbers, len(cells))
    order = rng.permutation(len(numbers))
    frac = (frac + rng.random(3)) + rng.integers(-2, 3, frac.shape)
    return Crystal("y", "X", change @ one.lattice @ rotation, numbers[order], frac[order])


def same(one: Crystal, other: Crystal) -> None:
    a, b = structure(one), structure(other)
    assert np.isfinite(a).all()
    wrong = np.abs(a - b) > 1e-6 * np.maximum(np.abs(a), np.abs(b)) + 1e-9
    assert not wrong.any(), [(STRUCTURE[k], a[k], b[k]) for k in np.flatnonzero(wrong)]


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(CRYSTALS)),
    scale=st.floats(0.8, 1.6),
    noise=st.sampled_from([0.0, 1e-9, 1e-5]),
    seed=st.integers(0, 10_000),
)
def test_a_symmetric_crystal_is_known_again(
    name: str, scale: float, noise: float, seed: int
) -> None:
    """Wherever shells fall, exactly or nearly symmetric."""
    one = crystal(name, scale)
    rng = np.random.default_rng(seed)
    one.frac[:] += rng.normal(scale=noise, size=one.frac.shape)
    same(one, moved(one, seed))


def test_a_descriptor_does_not_jump_with_a_distance() -> None:
    """Through NEAR and FAR times the nearest distance, where a threshold would."""
    steps = np.linspace(1.05, 1.45, 41)
    rows = []
    for ratio in steps:
        lattice = np.diag([3.0, 3.0, 3.0 * ratio])
        rows.append(structure(Crystal("x", "X", lattice, np.array([29]), np.zeros((1, 3)))))
    smooth = [k for k, name in enumerate(STRUCTURE) if "coordination" in name]
    jumps = np.abs(np.diff(np.array(rows)[:, smooth], axis=0))
    assert jumps.max() < 0.1


def test_what_cannot_be_described_is_refused() -> None:
    one: dict[str, Any] = {"id": "x", "formula": "X", "coordinates": np.zeros((1, 3))}
    with pytest.raises(CrystalmeshError, match="no space group"):
        STRUCTURES.build(Crystal(cell=np.eye(3) * 1e-3, numbers=np.array([1]), **one))
