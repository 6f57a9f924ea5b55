"""The radius graph of systems without a cell."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmesh.data.crystals import Crystal
from crystalmesh.represent.graph import Radius

GRAPH = Radius({"cutoff": 3.0})


def molecule(seed: int, atoms: int) -> Crystal:
    """Atoms on a rattled cubic grid: none is too near to another."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = rng.permutation(len(grid))[:atoms]
    positions = 1.5 * grid[sites] + rng.uniform(-0.2, 0.2, (atoms, 3))
    return Crystal("m", "M", None, rng.integers(1, 10, atoms), positions)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 64))
def test_a_molecule_alone_and_in_a_large_box_are_one_graph(seed: int, atoms: int) -> None:
    alone = molecule(seed, atoms)
    boxed = Crystal("m", "M", 40.0 * np.eye(3), alone.numbers, alone.positions / 40.0)
    one, other = GRAPH.build(alone), GRAPH.build(boxed)
    assert set(one) == set(other)
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=1e-6, err_msg=key)


def test_all_pairs_within_the_cutoff_are_edges() -> None:
    """None is dropped, however many neighbours an atom has."""
    points = np.random.default_rng(0).uniform(-1.4, 1.4, (60, 3)) / np.sqrt(3)
    graph = GRAPH.build(Crystal("m", "M", None, np.arange(1, 61), points))
    assert graph["count"].sum() == 60 * 59
    assert len(GRAPH.build(Crystal("m", "M", None, np.array([6]), points[:1]))["source"]) == 0
