"""The CGCNN graph: pymatgen's neighbours, filling up, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.graph import SHELL, Cgcnn, _nearest

GRAPH = Cgcnn({"neighbours": 12, "cutoff": 8.0})


def random_crystal(seed: int, atoms: int, edge: float = 4.0) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * edge + rng.normal(scale=0.4, size=(3, 3))
    return Crystal("x", "X", lattice, rng.integers(1, 90, atoms), rng.random((atoms, 3)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6))
def test_distances_are_those_of_pymatgens_nearest_neighbours(seed: int, atoms: int) -> None:
    one = random_crystal(seed, atoms)
    distance = GRAPH.collate([GRAPH.build(one)])["distance"].numpy()
    structure = Structure(Lattice(one.lattice), one.numbers.tolist(), one.frac)
    for row, neighbours in zip(distance, structure.get_all_neighbors(8.0), strict=True):
        expected = sorted(n.nn_distance for n in neighbours)[:12]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-4)


def test_neighbours_are_where_the_shifts_say() -> None:
    one = random_crystal(3, 5)
    graph = GRAPH.build(one)
    step = one.frac[graph["neighbour"]] + graph["shift"] - one.frac[:, None]
    expected = np.linalg.norm(step @ one.lattice, axis=2)
    batch = GRAPH.collate([graph])
    np.testing.assert_allclose(batch["distance"].numpy(), expected, atol=1e-5)
    assert (np.diff(expected, axis=1) > -1e-3).all()


def test_a_tie_in_the_last_shell_goes_to_the_lighter_element() -> None:
    # Simple cubic host of 6 + 8 neighbours in two shells: places 7 to 12 straddle the second.
    lattice = np.eye(3) * 3.0
    one = Crystal("x", "X", lattice * 2, np.array([3] * 4 + [87] * 4), _corners())
    graph = GRAPH.build(one)
    numbers = one.numbers[graph["neighbour"]]
    distance = GRAPH.collate([graph])["distance"].numpy()
    for row, z in zip(distance, numbers, strict=True):
        last = np.isclose(row, row[-1], atol=1e-3)
        assert (np.diff(z[last]) >= 0).all()


def by_the_rule(one: Crystal, places: int = 12, cutoff: float = 8.0) -> list[list[tuple[int, ...]]]:
    """pymatgen's neighbours in the order that `Cgcnn` states: site and shift of each."""
    structure = Structure(Lattice(one.lattice), one.numbers.tolist(), one.frac)
    rows = []
    for found in structure.get_all_neighbors(cutoff):
        found = sorted(found, key=lambda n: n.nn_distance)
        shells, before = [0], found[0].nn_distance
        for neighbour in found[1:]:
            shells.append(shells[-1] + (neighbour.nn_distance - before > SHELL))
            before = neighbour.nn_distance
        keys = [
            (shell, int(one.numbers[n.index]), n.index, *map(int, n.image))
            for shell, n in zip(shells, found, strict=True)
        ]
        rows.append([key[2:] for key in sorted(keys)[:places]])
    return rows


PROTOTYPES = {
    "fcc: 12 in the first shell": (
        3.6, [29] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    ),
    "bcc: 8 and 6 neighbours": (2.9, [26] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "CsCl: 8 and 6 neighbours": (4.1, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "perovskite": (
        3.9, [38, 22, 8, 8, 8],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ),
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(PROTOTYPES)),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.8, 1.6),
    noise=st.sampled_from([0.0, 1e-9, 1e-6]),
)
def test_the_twelve_are_pymatgens_ties_included(
    name: str, seed: int, scale: float, noise: float
) -> None:
    """Wherever the distances fall: no shell is cut by rounding, whatever the scale."""
    edge, numbers, frac = PROTOTYPES[name]
    rng = np.random.default_rng(seed)
    moved = np.array(frac) + rng.normal(scale=noise / edge, size=(len(frac), 3))
    one = Crystal("x", "X", np.eye(3) * edge * scale, np.array(numbers), moved)
    graph = GRAPH.build(one)
    rows = [
        [(int(j), *map(int, s)) for j, s in zip(*row, strict=True)]
        for row in zip(graph["neighbour"], graph["shift"], strict=True)
    ]
    assert rows == by_the_rule(one)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6), edge=st.floats(2.5, 6.0))
def test_a_near_cutoff_finds_what_a_far_one_does(seed: int, atoms: int, edge: float) -> None:
    one = random_crystal(seed, atoms, edge)
    graph = GRAPH.build(one)
    far = _nearest(one, 12, 8.0, all_there_are=True)
    assert far is not None
    for site in range(atoms):
        mine = far[0] == site
        kept = graph["neighbour"][site] >= 0
        assert graph["neighbour"][site][kept].tolist() == far[1][mine][:12].tolist()
        np.testing.assert_array_equal(graph["shift"][site][kept], far[2][mine][:12])


def _corners() -> np.ndarray:
    grid = np.stack(np.meshgrid([0, 0.5], [0, 0.5], [0, 0.5], indexing="ij"), -1)
    return grid.reshape(-1, 3)


def test_lonely_atoms_are_filled_up_with_themselves() -> None:
    one = Crystal("x", "X", np.eye(3) * 9.0, np.array([2, 10]), np.array([[0, 0, 0], [0, 0, 0.2]]))
    batch = GRAPH.collate([GRAPH.build(one), GRAPH.build(one)])
    assert batch["neighbour"][:, 0].tolist() == [1, 0, 3, 2]
    filled = batch["distance"] > 8.0
    assert filled.any()
    own = np.arange(4)[:, None].repeat(12, axis=1)
    assert (batch["neighbour"].numpy()[filled.numpy()] == own[filled.numpy()]).all()
    assert set(batch["distance"][filled].tolist()) == {9.0}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_graph_is_a_function_of_the_crystal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = random_crystal(seed, 3)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(3)
    other = Crystal(
        "x", "X", one.lattice @ rotation, one.numbers[order], (one.frac + rng.random(3))[order]
    )
    a, b = (GRAPH.collate([GRAPH.build(c)])["distance"].numpy() for c in (one, other))
    np.testing.assert_allclose(a[order], b, atol=1e-4)


def test_an_element_beyond_the_features_is_refused() -> None:
    one = Crystal("x", "X", np.eye(3) * 4, np.array([118]), np.zeros((1, 3)))
    with pytest.raises(CrystalmeshError, match="elements 1-100"):
        GRAPH.build(one)
