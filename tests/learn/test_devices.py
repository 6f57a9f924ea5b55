"""Several processes train one network: as one does, up to rounding, with one set of outputs."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalmesh.config import Project
from crystalmesh.data import registry, splits, validation
from crystalmesh.files import read_csv, read_json, read_tensors
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import train
from crystalmesh.represent import store
from tests.conftest import write_project
from tests.workflow.chain import settings
from tests.workflow.conftest import BIN

# Not those with a maximum over rows: of equal rows of these symmetric crystals, rounding decides
# which one gets the gradient. tests/models/test_processes.py compares their gradients.
NAMES = ("log_k-schnet", "log_k-cgcnn")
CLOSE = 1e-5  # relative; it is 1e-7 here
SGD = {
    "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant", "loss": "mse",
}  # fmt: skip


def tree() -> dict[str, Any]:
    """Two networks by plain descent: Adam makes a step of a gradient that is only rounding.

    And an ensemble, whose networks are trained one after the other by the same processes.
    """
    content = settings("native", everything=True)
    for model in ("schnet", "cgcnn"):
        content["models"][model]["training"] = content["models"][model]["training"] | SGD
    every = content["experiments"]["demo"]
    every["log_k-schnet"].pop("members")
    ensemble = every["log_k-mesh"] | {"members": 2}
    content["experiments"]["demo"] = {n: every[n] for n in NAMES} | {"ensemble": ensemble}
    content["transfer"] = {}
    content["reports"]["demo"]["maps"] = list(NAMES)
    return content


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with data and features; only to be copied."""
    root = tmp_path_factory.mktemp("devices") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMESH_MIRROR", str(root))
        project = write_project(root, tree())
        registry.fetch(project, "tiny", 1)
        validation.build(project, "tiny", 1)
        splits.build(project, "tiny-60-20-20")
        for name in project.params.group("demo"):
            experiment = project.params.experiment("demo", name)
            key = f"tiny-{experiment.representation.replace('.', '_')}"
            store.build(project, key, 1)
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(made.root, root)
    return replace(made, root=root)


def command(
    project: Project, name: str, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Train by the command line, which starts the other processes."""
    return subprocess.run(
        [str(BIN / "crystalmesh"), "train", "demo", name, "--accelerator", "cpu", *options],
        cwd=project.root,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(project: Project, name: str) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """The history as numbers (epoch, loss, metric, rate), and the tensors."""
    rows = read_csv(project.history("demo", name))
    numbers = [[float(value) for key, value in row.items() if key != "run"] for row in rows]
    return np.array(numbers), read_tensors(project.checkpoint("demo", name))


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_does(project: Project, name: str) -> None:
    train(project, "demo", name)
    history, tensors = outputs(project, name)
    assert "parallel" not in read_json(project.card("demo", name))
    shutil.rmtree(project.root / "results")
    ended = command(project, name, "--devices", "2", "--strategy", "ddp")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("epoch 1/3") == 1  # the first process speaks for both
    found, weights = outputs(project, name)
    assert found == pytest.approx(history, rel=CLOSE)
    for key, value in tensors.items():
        assert weights[key] == pytest.approx(value, rel=CLOSE, abs=CLOSE), key


def test_one_set_of_outputs_of_an_ensemble(project: Project) -> None:
    ended = command(project, "ensemble", CRYSTALMESH_DEVICES="2")
    assert ended.returncode == 0, ended.stderr
    history, tensors = outputs(project, "ensemble")
    assert history[:, 0].tolist() == [0, 1, 2] * 2
    assert np.isfinite(history).all()
    assert {key.split(".")[1] for key in tensors} == {"member0", "member1"}
    card = read_json(project.card("demo", "ensemble"))
    parallel = {"accelerator": "cpu", "count": 2, "nodes": 1, "strategy": "auto"}
    assert card["parallel"] == parallel
    assert not any((project.scratch / "train").iterdir())
    written = [p for p in (project.root / "results").rglob("*") if p.is_file()]
    assert len(written) == 3
    predict(project, "demo", "ensemble")
    sample = Sample.load(project, project.params.experiment("demo", "ensemble"))
    ids = [row["id"] for row in read_csv(project.predictions("demo", "ensemble"))]
    assert ids == sample.test.ids


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--devices", "7"), "log_k-cgcnn: 7 processes for 5 crystals; use fewer devices"),
        (("--devices", "2", "--strategy", "nonesuch"), "nonesuch"),
        (("--devices", "2", "--accelerator", "gpu"), "log_k-cgcnn: "),
    ],
)
def test_devices_that_are_not_there(project: Project, options: tuple[str, ...], says: str) -> None:
    if "gpu" in options:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    ended = command(project, "log_k-cgcnn", *options)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert says in ended.stderr


def test_each_batch_is_shared_out(made: Project) -> None:
    sample = Sample.load(made, made.params.experiment("demo", "log_k-cgcnn"))
    count = len(sample.train.ids)
    for processes in (2, 3):
        shares = [
            list(Batches(sample, sample.train, 5, (0, 0), (r, processes))) for r in range(processes)
        ]
        whole = list(Batches(sample, sample.train, 5, (0, 0)))
        assert sum(len(targets) for share in shares for _, targets in share) == count
        for batch, *parts in zip(whole[:-1], *shares, strict=False):
            targets = [t for _, part in parts for t in part.tolist()]
            assert targets == batch[1].tolist()
            assert min(len(part) for _, part in parts) > 0
