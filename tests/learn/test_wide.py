"""Targets of each atom that are no gradient, and of several numbers a system: the whole chain."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.data import registry, splits, validation
from crystalmesh.data.crystals import Crystals
from crystalmesh.files import read_csv, read_json, sha256
from crystalmesh.inference.calibrate import calibrate
from crystalmesh.inference.predictor import Predictor
from crystalmesh.inference.table import stream
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.predict import Checkpoint, of_head
from crystalmesh.models.heads import Head
from crystalmesh.report import results
from crystalmesh.represent import store
from tests.conftest import TRAINING, TREE, Tree, run_of, write_project
from tests.learn.conftest import fit, made, outputs
from tests.learn.test_train import stopped_and_resumed

SYSTEMS = 24
LACKING = ("x-3", "x-4", "x-5")  # have no labels of atoms
PLAIN = {"unit": "1", "range": [-1e3, 1e3]}
TRAIN = {"training": {"epochs": 2}}
ON = {  # what each model reads that has a row for each site
    "schnet": "graph.atoms", "cgcnn": "graph.cgcnn", "delaunay": "complex.sites",
}  # fmt: skip
BOTH = {"targets": ["energy", "charges"], "split": "all", "seed": 1, "precision": "double"} | TRAIN


def frames() -> str:
    """Crystals of two to four atoms; their labels are smooth functions of the cell."""
    rng, texts = np.random.default_rng(0), []
    for k in range(SYSTEMS):
        atoms, edge = 2 + k % 3, 3.2 + 0.04 * k
        symbols = rng.choice(["Na", "Cl", "Cu"], atoms)
        places = edge * (np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0], [0, 1, 1]])[:atoms] / 2)
        charges = np.array([{"Na": 1.0, "Cl": -1.0, "Cu": 0.2}[one] for one in symbols]) * edge
        own = "" if f"x-{k}" in LACKING else ":charges:R:1"
        spectrum = " ".join(f"{edge * n:.6f}" for n in range(1, 5))
        head = f'id=x-{k} energy={-edge * atoms:.6f} spectrum="{spectrum}" pbc="T T T"'
        cell = " ".join(f"{x:.6f}" for x in (edge * np.eye(3)).ravel())
        texts.append(f'{atoms}\n{head} Lattice="{cell}" Properties=species:S:1:pos:R:3{own}\n')
        for symbol, place, charge in zip(symbols, places, charges, strict=True):
            values = " ".join(f"{x:.6f}" for x in (*place, *([charge] if own else [])))
            texts.append(f"{symbol} {values}\n")
    return "".join(texts)


def settings(file: Path) -> Tree:
    network = {"atom": 8, "gaussian_max": 5.0}
    models: dict[str, Any] = {
        "schnet": network | {
            "filters": 8, "interactions": 2, "gaussians": 10, "cutoff": 5.0, "readout": "sum",
        },
        "cgcnn": network | {
            "convolutions": 2, "hidden": 8, "hidden_layers": 2, "gaussian_step": 0.5,
        },
        "delaunay": {"width": 8, "layers": 2, "parts": "edges"},
    }  # fmt: skip
    runs: dict[str, Any] = {name: BOTH | {"model": name} for name in models}
    runs["atoms"] = BOTH | {"model": "schnet", "targets": ["charges"]}
    runs["spectrum"] = BOTH | {"model": "cgcnn", "targets": ["spectrum", "energy"]}
    runs["again"] = runs["spectrum"] | {"seed": 2}
    runs["members"] = BOTH | {"model": "cgcnn", "targets": ["charges", "spectrum"], "members": 2}
    return {
        "validation": TREE["validation"],
        "datasets": {
            "tiny": {**TREE["datasets"]["tiny"], "catalogue": True},
            "cells": {
                "title": "cells", "source": "made up", "file": file.name, "format": "extxyz",
                "sha256": sha256(file),
                "labels": {name: name for name in ("energy", "charges", "spectrum")},
            },
        },
        "targets": {
            "energy": PLAIN | {"title": "energy", "label": "energy", "extensive": True},
            "charges": PLAIN | {"title": "charges", "label": "charges", "level": "atom"},
            "spectrum": PLAIN | {"title": "spectrum", "label": "spectrum", "size": 4},
        },
        "splits": {"cells": {"all": {
            "title": "all", "ratio": [3, 1, 1], "seed": 0, "by": "energy",
        }}},
        "representations": {
            "graph": {"atoms": {"cutoff": 5.0}, "cgcnn": TREE["representations"]["graph"]["cgcnn"]},
            "complex": {"sites": {"symprec": 0.01, "tolerance": 0.001}},
        },
        "features": {"cells": {name: {} for name in ON.values()}},
        "models": {
            name: {
                "title": name, "representation": ON[name], "network": network, "atoms": True,
                "training": TRAINING | {"ema": 0.9},
            }
            for name, network in models.items()
        },
        "studies": {"demo": {
            "title": "Wide", "dataset": "cells", "numerics": "native", "runs": runs,
            "serves": [f"demo/{name}" for name in ("schnet", "spectrum")],
        }},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with its data and features; only to be copied."""
    root = tmp_path_factory.mktemp("wide") / "project"
    root.mkdir()
    (root / "cells.xyz").write_text(frames())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMESH_MIRROR", str(root))
        project = write_project(root, settings(root / "cells.xyz"))
        registry.fetch(project, "cells", 1)
    validation.build(project, "cells", 1)
    splits.build(project, "cells", "all")
    for name in ON.values():
        store.build(project, "cells", name, 1)
    return project


@pytest.fixture
def project(whole: Project, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(whole.root, root)
    return Project(root, whole.params)


def column(rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) for row in rows])


def test_labels_of_atoms_and_rows_of_numbers_are_read(project: Project) -> None:
    crystals = Crystals.load(project.crystals("cells"))
    assert read_csv(project.crystals("cells") / "rejected.csv") == []
    assert crystals.atom_labels["charges"].shape == (crystals.pointer[-1],)
    assert crystals.labels["spectrum"].shape == (SYSTEMS, 4)
    lacking = {crystals.ids[i] for i in np.flatnonzero(~crystals.known("charges"))}
    assert lacking == set(LACKING)
    sample = Sample.load(project, run_of(project, "members"))
    for batch, labels, *wide in Batches(sample, sample.train, 4, shuffle=(1,)):
        charges, spectra = wide
        assert charges.shape == (len(batch["numbers"]), 1)
        assert spectra.shape == (len(labels), 4)
        assert labels.isnan().all()


@pytest.mark.parametrize("name", ON)
def test_atoms_beside_a_number_of_the_system(project: Project, name: str) -> None:
    """Of every network that gives numbers of atoms; some systems have no labels of them."""
    run = run_of(project, name)
    _, metrics = made(project, name)
    sample = Sample.load(project, run)
    assert {*LACKING} & {*sample.train.ids}
    part = sample.test["charges"]
    assert not {*LACKING} & {*part.ids}
    rows = read_csv(project.predictions(run, "charges"))
    assert list(rows[0]) == [
        "id", "atom", "target", "prediction", "lower", "upper", "p_value",
    ]  # fmt: skip
    places = [(i, str(k)) for i, n in zip(part.ids, part.sizes, strict=True) for k in range(n)]
    assert [(row["id"], row["atom"]) for row in rows] == places
    np.testing.assert_array_equal(column(rows, "target"), part.targets)
    own = metrics["targets"]["charges"]
    error = np.abs(column(rows, "target") - column(rows, "prediction")).mean()
    assert (own["n_test"], own["value"]) == (len(part.ids), pytest.approx(error))
    # each system alone, and the moments of all known labels
    facts, _ = Checkpoint.load(project, run).of("")
    known = sample.train.of(1)[np.isfinite(sample.train.of(1))]
    assert facts["moments"]["charges"] == pytest.approx([known.mean(), known.std()], rel=1e-6)
    net = Checkpoint.load(project, run).network(project, "")
    head = Head({one: project.params.targets[one] for one in run.targets})
    alone = [
        of_head(net, head, [sample.maker.collate([sample.features[i]])], double=True)[1]
        for i in part.ids
    ]
    mean, std = facts["moments"]["charges"]
    said = np.concatenate([one.numpy().ravel() for one in alone]) * std + mean
    np.testing.assert_allclose(column(rows, "prediction"), said, atol=1e-6)


@pytest.mark.parametrize("name", [*ON, "atoms", "spectrum"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    project: Project, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(project, name)
    expected = outputs(project, name)
    stopped_and_resumed(project, name, monkeypatch, at=5)
    assert outputs(project, name) == expected


def test_atoms_may_be_what_is_validated(project: Project) -> None:
    rows, metrics = made(project, "atoms")
    run = run_of(project, "atoms")
    sample = Sample.load(project, run)
    assert not {*LACKING} & {*sample.train.ids}
    own = metrics["targets"]["charges"]
    assert own["n_test"] == len({row["id"] for row in rows})
    net = Checkpoint.load(project, run).network(project, "")
    head = Head({"charges": project.params.targets["charges"]})
    batches = (batch for batch, *_ in Batches(sample, sample.val))
    mean, std = json_moments(project, "atoms", "charges")
    said = of_head(net, head, batches)[0].numpy().ravel() * std + mean
    error = np.abs(said - sample.val.targets).mean()
    history = column(read_csv(project.history(run)), "val_metric")
    assert error == pytest.approx(history.min(), rel=1e-4)


def json_moments(project: Project, name: str, target: str) -> tuple[float, float]:
    facts, _ = Checkpoint.load(project, run_of(project, name)).of("")
    mean, std = facts["moments"][target]
    return mean, std


def test_several_numbers_of_a_system(project: Project) -> None:
    rows, metrics = made(project, "spectrum")
    run = run_of(project, "spectrum")
    sample = Sample.load(project, run)
    part = sample.test["spectrum"]
    assert list(rows[0])[:3] == ["id", "component", "target"]
    places = [(name, str(k)) for name in part.ids for k in range(4)]
    assert [(row["id"], row["component"]) for row in rows] == places
    np.testing.assert_array_equal(column(rows, "target"), part.targets)
    own = metrics["targets"]["spectrum"]
    error = np.abs(column(rows, "target") - column(rows, "prediction")).mean()
    assert (own["n_test"], own["value"]) == (len(part.ids), pytest.approx(error))
    assert own["n_test"] == metrics["targets"]["energy"]["n_test"]
    mean, std = json_moments(project, "spectrum", "spectrum")
    assert (mean, std) == pytest.approx((sample.train.of(0).mean(), sample.train.of(0).std()))


def test_members_of_wide_targets(project: Project) -> None:
    rows, _ = made(project, "members")
    for row in rows:
        members = [float(row[f"member_{k}"]) for k in range(2)]
        assert float(row["prediction"]) == pytest.approx(np.mean(members), abs=1e-5)
        assert float(row["lower"]) < float(row["prediction"]) < float(row["upper"])
    metrics = read_json(project.metrics(run_of(project, "members")))["targets"]
    assert len(metrics["charges"]["members"]) == len(metrics["spectrum"]["members"]) == 2


def test_reports_compare_number_by_number(project: Project) -> None:
    names = ("spectrum", "again")
    for name in names:
        made(project, name)
    found = results.of_runs(project, [run_of(project, name) for name in names])
    one, other = (r for r in found if r.target == "spectrum")
    np.testing.assert_array_equal(results.paired(one, other), one.losses - other.losses)
    assert len(one.losses) == 4 * len(one.held)
    crystals = Crystals.load(project.crystals("cells"))
    train = Sample.load(project, run_of(project, "spectrum")).train
    guess = np.abs(one.true - np.median(train.targets)).mean()
    assert results.constant(one, crystals) == pytest.approx(guess)


@pytest.mark.parametrize("name", ["schnet", "spectrum"])
def test_an_extensive_target_is_offered_as_the_pipeline_predicts_it(
    project: Project, name: str
) -> None:
    """With the mean of an atom added back, and whatever other targets the network has."""
    made(project, name)
    run = run_of(project, name)
    assert (run, "energy") in project.served()
    assert {target for _, target in project.served()} == {"energy"}
    assert Checkpoint.load(project, run).of("")[0]["references"]["energy"] < -1
    calibrate(project, run, "energy")
    network = Predictor(project, run)
    file = str(project.root / "cells.xyz")
    found = [got for _, got in stream(project, [file], [network], 1)]
    for row in read_csv(project.predictions(run, "energy")):
        got = found[int(row["id"].removeprefix("x-"))]
        assert not isinstance(got, str)
        assert repr(float(got[0].value)) == repr(float(row["prediction"]))
