"""Targets of each atom: what settings may not say, and that others are as they were."""

from pathlib import Path
from typing import Any

import pytest

from crystalmesh.config.project import dump
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree, run_of, write_project

ENERGY = {"title": "energy", "label": "energy", "unit": "eV", "range": [-9, 9]}
FORCES = ENERGY | {"label": "forces", "level": "atom", "size": 3, "gradient_of": "energy"}
CHARGES = ENERGY | {"label": "charges", "level": "atom"}


@pytest.fixture
def forces(tree: Tree) -> Tree:
    """With a run that learns energies and forces."""
    tree["targets"] |= {"energy": ENERGY, "forces": FORCES, "charges": CHARGES}
    tree["targets"]["dipole"] = ENERGY | {"label": "dipole", "size": 3}
    tree["representations"]["graph"]["atoms"] = {"cutoff": 4.0}
    tree["features"]["tiny"]["graph.atoms"] = {}
    run = {"model": "cgcnn", "representation": "graph.atoms", "split": "60-20-20"}
    tree["studies"]["demo"]["runs"]["both"] = run | {"targets": ["energy", "forces"]}
    return tree


def test_a_run_learns_a_target_and_its_gradient(tmp_path: Path, forces: Tree) -> None:
    project = write_project(tmp_path, forces)
    both = run_of(project, "both")
    assert project.params.outputs(both) == 1
    assert project.params.weights(both) is None
    forces["studies"]["demo"]["runs"]["both"]["weights"] = {"forces": 50.0}
    project = write_project(tmp_path, forces)
    assert project.params.weights(run_of(project, "both")) == [1.0, 50.0]


def test_other_targets_and_runs_say_nothing_of_it(tmp_path: Path, tree: Tree) -> None:
    """So that their digests, and what their checkpoints say, stay the same."""
    project = write_project(tmp_path, tree)
    new = {"level", "gradient_of", "extensive", "weights"}
    for one in (*project.params.targets.values(), run_of(project, "log_k-cgcnn")):
        assert not new & dump(one).keys()


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        ("forces", {"gradient_of": "x"}, r"no target \(targets.forces.gradient_of\) 'x'"),
        ("forces", {"size": 2}, "needs `level: atom` and `size: 3`"),
        ("forces", {"level": None}, "needs `level: atom` and `size: 3`"),
        ("forces", {"gradient_of": "space_group"}, "space_group is not a number of the system"),
        ("forces", {"gradient_of": "log_k"}, "log_k is not a number of the system as it is"),
        ("forces", {"gradient_of": "forces"}, "forces is not a number of the system"),
        ("forces", {"gradient_of": "dipole"}, "dipole is not a number of the system"),
        ("charges", {"kind": "classification", "classes": 2}, "of each atom has no classes"),
        ("charges", {"transform": "log10"}, "of each atom has no classes or transform"),
        ("charges", {"extensive": True}, "only a number of the system can be that"),
        ("log_k", {"extensive": True}, "only a number of the system can be that"),
    ],
)
def test_targets_that_make_no_sense(
    tmp_path: Path, forces: Tree, target: str, change: dict[str, Any], message: str
) -> None:
    forces["targets"][target] = forces["targets"][target] | change
    with pytest.raises(CrystalmeshError, match=message):
        write_project(tmp_path, forces)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ["forces"]}, "forces is the gradient of energy, which is not among them"),
        ({"targets": ["charges"]}, "nothing learns this target yet"),
        ({"targets": ["energy", "dipole"]}, "nothing learns this target yet"),
        ({"representation": "graph.cgcnn"}, "which graph.cgcnn does not have; use graph.atoms"),
        ({"weights": {"log_k": 2.0}}, "weights: log_k is none of its `targets`"),
        ({"weights": {"forces": 0.0}}, "weights"),
        ({"training": {"standardise": "tanh"}}, "tanh is not linear, as forces needs it"),
    ],
)
def test_runs_that_cannot_learn_their_targets(
    tmp_path: Path, forces: Tree, change: dict[str, Any], message: str
) -> None:
    forces["studies"]["demo"]["runs"]["both"] |= change
    with pytest.raises(CrystalmeshError, match=message):
        write_project(tmp_path, forces)


def test_such_a_network_is_not_offered_for_other_peoples_files(
    tmp_path: Path, forces: Tree
) -> None:
    forces["studies"]["demo"]["serves"] = ["demo/both"]
    with pytest.raises(CrystalmeshError, match="not of extensive targets, nor of those of each"):
        write_project(tmp_path, forces)
