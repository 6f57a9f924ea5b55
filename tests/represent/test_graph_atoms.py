"""The graph of every atom and image: ASE's pairs, none dropped, and positions that fit them."""

# mypy: disable-error-code="no-untyped-call"

import importlib
import pkgutil
from pathlib import Path

import ase
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmesh import represent
from crystalmesh.config import project
from crystalmesh.config.check import WITH_POSITIONS, WITH_SITES
from crystalmesh.data.crystals import Crystal
from crystalmesh.represent import Positions, representation
from crystalmesh.represent.graph import Atoms
from tests.represent.test_graph import random_crystal
from tests.represent.test_graph_free import molecule

GRAPH = Atoms({"cutoff": 4.5})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6), cell=st.booleans())
def test_pairs_are_ases(seed: int, atoms: int, cell: bool) -> None:
    one = random_crystal(seed, atoms) if cell else molecule(seed, 4 * atoms)
    graph = GRAPH.build(one)
    box = np.zeros((3, 3)) if one.cell is None else one.cell
    there = ase.Atoms(one.numbers, one.positions, cell=box, pbc=cell)
    i, j, shift = neighbor_list("ijS", there, 4.5)
    expected = sorted(map(tuple, np.column_stack([i, j, shift]).tolist()))
    found = np.column_stack([graph["target"], graph["source"], graph["shift"]])
    assert list(map(tuple, found.tolist())) == expected


def test_a_batch_holds_what_distances_are_formed_from() -> None:
    systems = [molecule(0, 5), random_crystal(1, 3), molecule(2, 1)]
    batch = GRAPH.collate([GRAPH.build(one) for one in systems])
    assert batch["pointer"].tolist() == [0, 5, 8, 9]
    np.testing.assert_array_equal(
        batch["positions"].numpy(), np.concatenate([one.positions for one in systems])
    )
    positions = batch["positions"]
    edge = positions[batch["source"]] + batch["shift"] - positions[batch["target"]]
    torch.testing.assert_close(edge.norm(dim=1).float(), batch["distance"])
    assert 0 < batch["distance"].min() <= batch["distance"].max() <= 4.5 + 1e-5
    system = torch.repeat_interleave(batch["pointer"].diff())
    assert torch.equal(system[batch["source"]], system[batch["target"]])
    assert batch["group"].tolist() == list(range(len(batch["source"])))


def test_no_neighbour_is_dropped_however_many_there_are() -> None:
    points = np.random.default_rng(0).uniform(-1.4, 1.4, (60, 3)) / np.sqrt(3)
    graph = GRAPH.build(Crystal("m", "M", None, np.arange(1, 61), points))
    assert len(graph["source"]) == 60 * 59
    assert len(GRAPH.build(Crystal("m", "M", None, np.array([6]), points[:1]))["source"]) == 0


def test_settings_know_which_representations_have_positions() -> None:
    found = []
    for module in pkgutil.iter_modules(represent.__path__):
        variants = getattr(
            importlib.import_module(f"{represent.__name__}.{module.name}"), "VARIANTS", {}
        )
        found += [
            f"{module.name}.{name}" for name, one in variants.items() if hasattr(one, "positions")
        ]
    assert tuple(found) == WITH_POSITIONS
    assert isinstance(GRAPH, Positions)


def test_settings_know_which_representations_have_a_row_for_each_site() -> None:
    """Of a doubled cell in any order: not of the primitive or conventional one, nor of kinds."""
    params = project.load(Path(__file__).parents[2]).params
    made = {
        f"{module}.{name}": settings
        for module, variants in params.representations.items()
        for name, settings in variants.items()
    }
    frac = np.array([[0.25, 0.5, 0.5], [0, 0, 0], [0.75, 0.5, 0.5], [0.5, 0, 0]])
    doubled = Crystal("x", "X", np.diag([6.0, 3.0, 3.0]), np.array([17, 11, 17, 11]), frac)
    found = []
    for name, own in made.items():
        maker = representation(name, own)
        batch = maker.collate([maker.build(doubled)])
        numbers = batch.get("numbers")
        if numbers is not None and numbers.tolist() == doubled.numbers.tolist():
            found.append(name)
    assert tuple(sorted(found)) == WITH_SITES
