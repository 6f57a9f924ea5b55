"""Energies and forces on one network: labels of atoms, loss, training, predictions, metrics."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crystalmesh.config.project import Project
from crystalmesh.data import registry, splits, validation
from crystalmesh.data.crystals import Crystals, save
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.learner import Learner, references
from crystalmesh.learn.predict import Checkpoint, inputs, of_head
from crystalmesh.models.heads import Head
from crystalmesh.represent import store
from tests.conftest import TRAINING, TREE, Tree, run_of, write_project
from tests.learn.conftest import fit, made, outputs
from tests.learn.test_train import stopped_and_resumed

ENERGY = {"title": "energy", "label": "energy", "unit": "eV", "range": [-1e3, 1e3]}
FORCES = ENERGY | {"label": "forces", "level": "atom", "size": 3, "gradient_of": "energy"}
RUN = {"dataset": "clusters", "split": "all", "model": "schnet", "seed": 1}
BOTH = RUN | {"targets": ["energy", "forces"], "weights": {"forces": 3.0}}


def settings() -> Tree:
    """Clusters and crystals of the pipeline's own set; one system in training has no forces."""
    return {
        "validation": TREE["validation"],
        "datasets": {
            "tiny": {**TREE["datasets"]["tiny"], "catalogue": True},
            "clusters": {
                "title": "clusters", "source": "made", "kind": "emt_forces", "format": "extxyz",
                "generator": {"clusters": 8, "crystals": 4, "frames": 3, "atoms": [3, 6]},
            },
        },
        "targets": {"energy": ENERGY | {"extensive": True}, "forces": FORCES},
        "splits": {"clusters": {
            "all": {"title": "all", "ratio": [4, 1, 1], "seed": 0, "by": "energy"},
            "twice": {
                "title": "twice", "ratio": [4, 1, 1], "seed": 0, "by": "energy", "repeats": 2,
            },
        }},
        "representations": {"graph": {"atoms": {"cutoff": 4.0}}},
        "features": {"clusters": {"graph.atoms": {}}},
        "models": {"schnet": {
            "title": "SchNet", "representation": "graph.atoms",
            "network": {
                "atom": 8, "filters": 8, "interactions": 2, "gaussians": 10, "gaussian_max": 4.0,
                "cutoff": 4.0, "readout": "sum",
            },
            "training": TRAINING | {"ema": 0.9},
        }},
        "studies": {"demo": {
            "title": "Forces", "dataset": "clusters", "numerics": "native",
            "runs": {
                "both": BOTH,
                "forces-first": BOTH | {"targets": ["forces", "energy"]},
                "members": BOTH | {"members": 2, "split": "twice", "fold": "all", "refit": True},
                "energy": RUN | {"target": "energy"},
            },
        }},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with its data and features; only to be copied."""
    root = tmp_path_factory.mktemp("forces") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMESH_MIRROR", str(root))
        project = write_project(root, settings())
        registry.fetch(project, "clusters", 1)
    validation.build(project, "clusters", 1)
    found = Crystals.load(project.crystals("clusters"))
    lacking = found.position("cluster-0-1")
    forces = found.atom_labels["forces"].copy()
    forces[found.pointer[lacking] : found.pointer[lacking + 1]] = np.nan
    save(replace(found, atom_labels={"forces": forces}), project.crystals("clusters"))
    for split in project.params.splits["clusters"]:
        splits.build(project, "clusters", split)
    store.build(project, "clusters", "graph.atoms", 1)
    return project


@pytest.fixture
def project(whole: Project, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(whole.root, root)
    return Project(root, whole.params)


def learner_of(project: Project, name: str) -> Learner:
    run = run_of(project, name)
    head = Head({one: project.params.targets[one] for one in run.targets})
    training, weights = project.params.training(run), project.params.weights(run)
    sample = Sample.load(project, run)
    return Learner(torch.nn.Identity(), head, training, sample, 0, None, weights)


def test_labels_of_atoms_stand_beside_those_of_systems(project: Project) -> None:
    sample = Sample.load(project, run_of(project, "both"))
    crystals = Crystals.load(project.crystals("clusters"))
    assert "cluster-0-1" in sample.train.ids
    assert "cluster-0-1" not in sample.test["forces"].ids
    seen = 0
    for batch, labels, *atoms in Batches(sample, sample.train, 4, shuffle=(1,)):
        (forces,) = atoms
        assert forces.shape == batch["positions"].shape
        assert labels[:, 1].isnan().all()
        seen += len(forces)
    rows = [crystals.position(one) for one in sample.train.ids]
    assert seen == sum(np.diff(crystals.pointer)[rows])
    for one, known in zip(sample.train.ids, sample.train.wide[1], strict=True):
        row = crystals.position(one)
        own = crystals.atom_labels["forces"][crystals.pointer[row] : crystals.pointer[row + 1]]
        np.testing.assert_array_equal(known, own)
        assert np.isnan(known).all() == (one == "cluster-0-1")
    part = sample.test["forces"]
    assert part.targets.shape == (3 * part.sizes.sum(),)
    assert part.first(2).targets.shape == (3 * part.sizes[:2].sum(),)


def test_energies_are_learned_less_the_mean_of_an_atom_and_forces_share_their_scale(
    project: Project,
) -> None:
    learner = learner_of(project, "both")
    sample = Sample.load(project, run_of(project, "both"))
    (reference, none), energies = learner.references, sample.train.labels[:, 0]
    assert none == 0.0
    assert reference == pytest.approx(energies.sum() / sample.train.sizes.sum())
    rest = energies - reference * sample.train.sizes
    np.testing.assert_allclose(learner.sample.train.labels[:, 0], rest)
    assert learner.sample.val.labels.shape == sample.val.labels.shape
    assert learner.moments == [(0.0, pytest.approx(rest.std())), (0.0, learner.moments[0][1])]
    targets = list(learner.head.targets.values())
    assert references(sample.train, targets, first=False) == [0.0, 0.0]


def test_the_loss_of_forces_is_the_mean_over_all_known_components(project: Project) -> None:
    learner = learner_of(project, "both")
    std = learner.moments[0][1]
    labels = torch.tensor([[2.0, np.nan], [4.0, np.nan]], dtype=torch.float64)
    forces = torch.tensor([[1.0, -2.0, 3.0], [np.nan] * 3, [4.0, 0.0, 0.0]], dtype=torch.float64)
    said = torch.zeros(2), torch.zeros(3, 3)
    energy, force = 3.0 / std, 10.0 / 6 / std
    expected = (energy + 3.0 * force) / 4
    assert float(learner.loss(said, labels, forces)) == pytest.approx(expected, rel=1e-5)
    nothing = torch.full((3, 3), torch.nan, dtype=torch.float64)
    assert float(learner.loss(said, labels, nothing)) == pytest.approx(energy / 4, rel=1e-5)
    learner.weights = None
    expected = (energy + force) / 2
    assert float(learner.loss(said, labels, forces)) == pytest.approx(expected, rel=1e-5)


def test_predictions_and_metrics_of_each_component(project: Project) -> None:
    run = run_of(project, "both")
    energies, metrics = made(project, "both")
    sample = Sample.load(project, run)
    note = json.loads(read_note(project.checkpoint(run)))
    std, reference = note["moments"]["energy"][1], note["references"]["energy"]
    assert note["moments"]["forces"] == [0.0, std]
    head = Head({one: project.params.targets[one] for one in run.targets})
    net = Checkpoint.load(project, run).network(project, "")
    part = sample.test["energy"]
    said = of_head(net, head, inputs(sample, part))[0].double().numpy() * std
    found = [float(row["prediction"]) for row in energies]
    assert found == pytest.approx(said + reference * part.sizes, abs=1e-5)
    part = sample.test["forces"]
    rows = read_csv(project.predictions(run, "forces"))
    assert list(rows[0]) == [
        "id", "atom", "component", "target", "prediction", "lower", "upper", "p_value",
    ]  # fmt: skip
    expected = [
        (name, str(atom), str(axis))
        for name, size in zip(part.ids, part.sizes, strict=True)
        for atom in range(size)
        for axis in range(3)
    ]
    assert [(row["id"], row["atom"], row["component"]) for row in rows] == expected
    target = np.array([float(row["target"]) for row in rows])
    np.testing.assert_array_equal(target, part.targets)
    forces = of_head(net, head, inputs(sample, part))[1].double().numpy() * std
    prediction = np.array([float(row["prediction"]) for row in rows])
    np.testing.assert_allclose(prediction, forces.ravel(), atol=1e-5)
    own = metrics["targets"]["forces"]
    assert own["n_test"] == len(part.ids)
    assert own["mae"] == own["value"] == pytest.approx(np.abs(target - prediction).mean())
    assert own["rmse"] == pytest.approx(np.sqrt(((target - prediction) ** 2).mean()))
    assert own["unit"] == FORCES["unit"]


def test_a_checkpoint_has_the_names_of_the_network_alone(project: Project) -> None:
    fit(project, "both", "energy")
    both, alone = (
        read_tensors(project.checkpoint(run_of(project, name))) for name in ("both", "energy")
    )
    assert {key: one.shape for key, one in both.items()} == {k: v.shape for k, v in alone.items()}


def test_an_interrupted_training_with_forces_ends_as_if_it_had_not_been(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(project, "both")
    expected = outputs(project, "both")
    fit(project, "both")
    assert outputs(project, "both") == expected
    stopped_and_resumed(project, "both", monkeypatch, at=8)
    assert outputs(project, "both") == expected


def test_forces_may_be_what_is_validated(project: Project) -> None:
    rows, metrics = made(project, "forces-first")
    run = run_of(project, "forces-first")
    note = json.loads(read_note(project.checkpoint(run)))
    assert note["moments"]["forces"] == [0.0, note["moments"]["energy"][1]]
    assert metrics["targets"]["forces"]["n_test"] == len({row["id"] for row in rows})
    sample = Sample.load(project, run)
    head = Head({one: project.params.targets[one] for one in run.targets})
    net = Checkpoint.load(project, run).network(project, "")
    said = of_head(net, head, inputs(sample, sample.val))[0].double().numpy().ravel()
    error = np.abs(said * note["moments"]["forces"][1] - sample.val.targets).mean()
    history = [float(row["val_metric"]) for row in read_csv(project.history(run))]
    assert error == pytest.approx(min(history), rel=1e-5)


def test_members_and_folds_of_forces(project: Project) -> None:
    made(project, "members")
    run = run_of(project, "members")
    rows = read_csv(project.predictions(run, "forces"))
    assert list(rows[0])[:4] == ["id", "fold", "atom", "component"]
    for row in rows[:20]:
        members = [float(row[f"member_{k}"]) for k in range(2)]
        assert float(row["prediction"]) == pytest.approx(np.mean(members), abs=1e-5)
        assert float(row["lower"]) < float(row["prediction"]) < float(row["upper"])
    metrics = read_json(project.metrics(run))["targets"]["forces"]
    assert len(metrics["members"]) == len(metrics["folds"]) == 2
