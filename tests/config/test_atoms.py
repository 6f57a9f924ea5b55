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
    tree["models"]["cgcnn"]["atoms"] = True
    ridge = {"kind": "ridge", "strength": 1.0}
    tree["models"]["ridge"] = {
        "title": "ridge", "representation": "graph.cgcnn", "network": ridge,
    }  # fmt: skip
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
        (
            "charges",
            {"kind": "classification", "classes": 2},
            "labels of atoms, and several numbers, have no classes",
        ),
        ("charges", {"transform": "log10"}, "have no classes, transform or `above`"),
        ("dipole", {"transform": "log10"}, r"targets.dipole.size: .* have no classes, transform"),
        ("dipole", {"above": 0.0}, "have no classes, transform or `above`"),
        ("dipole", {"extensive": True}, "only a number of the system can be that"),
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
        (
            {"targets": ["charges"], "representation": "mesh.canonical"},
            "charges is of each atom, and mesh.canonical has not one row for each; use complex",
        ),
        (
            {"targets": ["charges"], "model": "mesh_release"},
            "charges is of each atom, and mesh_release gives no numbers of atoms",
        ),
        ({"targets": ["charges"], "model": "ridge"}, "learns one number or class of a system"),
        ({"targets": ["dipole"], "model": "ridge"}, "dipole: ridge is fitted in one step"),
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


def test_of_such_networks_numbers_of_a_system_are_offered(tmp_path: Path, forces: Tree) -> None:
    study = forces["studies"]["demo"]
    study["serves"] = ["demo/both"]
    project = write_project(tmp_path, forces)
    assert project.served() == [(run_of(project, "both"), "energy")]
    study["runs"]["both"] |= {"targets": ["charges", "dipole"]}
    with pytest.raises(CrystalmeshError, match="demo/both: none of its targets is one number"):
        write_project(tmp_path, forces)


def test_vectors_of_systems_are_drawn_with_one_number_each(tmp_path: Path, forces: Tree) -> None:
    study = forces["studies"]["demo"]
    study["report"] = {"embeddings": ["both"]}
    write_project(tmp_path, forces)
    study["runs"]["both"] |= {"targets": ["dipole", "energy"]}
    with pytest.raises(CrystalmeshError, match="both: its first target is not"):
        write_project(tmp_path, forces)


@pytest.mark.parametrize("targets", [["energy", "forces"], ["charges"], ["dipole"]])
def test_they_teach_no_other(tmp_path: Path, forces: Tree, targets: list[str]) -> None:
    runs = forces["studies"]["demo"]["runs"]
    runs["both"]["targets"] = targets
    teachers = {"run": "demo/both", "max_atoms": 3, "batch_size": 4, "weight": 0.5}
    runs["pupil"] = runs["both"] | {"distillation": teachers}
    with pytest.raises(CrystalmeshError, match="distillation: not of gradients and other targets"):
        write_project(tmp_path, forces)
