"""Several processes train one network: as one does, up to rounding, with one set of outputs."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_tensors
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.fit import Devices
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import train
from tests.conftest import TREE, Tree, run_of, write_project
from tests.learn.conftest import fit

# CGCNN, whose batch normalisation spans the processes; not a network with a maximum over rows: of
# equal rows of these symmetric crystals, rounding decides which one gets the gradient.
# tests/models/test_distributed.py compares their gradients.
NAME = "log_k-cgcnn"
CLOSE = 1e-5  # relative; it is 1e-7 here
SGD: dict[str, Any] = {
    "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant", "loss": "mse",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(built: Callable[[Tree], Path], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with data and features; only to be copied.

    A network by plain descent: Adam makes a step of a gradient that is only rounding. And an
    ensemble, whose networks are trained one after the other by the same processes.
    """
    tree = copy.deepcopy(TREE)
    tree["features"]["tiny"] = {"graph.cgcnn": {}}
    tree["models"] = {"cgcnn": tree["models"]["cgcnn"]}
    tree["models"]["cgcnn"]["training"] |= SGD
    one = tree["studies"]["demo"]["runs"][NAME]
    tree["studies"]["demo"] |= {"runs": {NAME: one, "ensemble": one | {"members": 2}}}
    project = write_project(tmp_path_factory.mktemp("devices") / "project", tree)
    shutil.copytree(built(tree), project.data)
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
    stage = ["crystalmesh.cli", "train", f"demo/{name}", "--accelerator", "cpu"]
    return subprocess.run(
        [sys.executable, "-m", *stage, *options],
        cwd=project.root,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(project: Project, name: str) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """The history as numbers (epoch, loss, metric, rate), and the tensors."""
    rows = read_csv(project.history(run_of(project, name)))
    numbers = [[float(value) for key, value in row.items() if key != "run"] for row in rows]
    return np.array(numbers), read_tensors(project.checkpoint(run_of(project, name)))


def test_two_processes_train_as_one_does(project: Project) -> None:
    fit(project, NAME)
    history, tensors = outputs(project, NAME)
    assert "parallel" not in read_json(project.card(run_of(project, NAME)))
    shutil.rmtree(project.root / "results")
    ended = command(project, NAME, "--devices", "2", "--strategy", "ddp")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("epoch 1/3") == 1  # the first process speaks for both
    found, weights = outputs(project, NAME)
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
    card = read_json(project.card(run_of(project, "ensemble")))
    parallel = {"accelerator": "cpu", "count": 2, "nodes": 1, "strategy": "auto"}
    assert card["parallel"] == parallel
    assert not any((project.scratch / "train").iterdir())
    written = [p for p in (project.root / "results").rglob("*") if p.is_file()]
    assert len(written) == 3
    run = run_of(project, "ensemble")
    predict(project, run)
    sample = Sample.load(project, run)
    ids = [row["id"] for row in read_csv(project.predictions(run, "log_k"))]
    assert ids == sample.test["log_k"].ids


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        (Devices("cpu", 7), "log_k-cgcnn: 7 processes for 5 crystals; use fewer devices"),
        (Devices("cpu", 2, strategy="nonesuch"), "nonesuch"),
        (Devices("gpu", 2), "log_k-cgcnn: "),
    ],
)
def test_devices_that_are_not_there(project: Project, devices: Devices, says: str) -> None:
    if devices.accelerator == "gpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(CrystalmeshError) as caught:
        train(project, run_of(project, NAME), devices)
    assert says in str(caught.value)


def test_each_batch_is_shared_out(made: Project) -> None:
    sample = Sample.load(made, run_of(made, NAME))
    count = len(sample.train.ids)
    for processes in (2, 3):
        shares = [
            list(Batches(sample, sample.train, 5, (0, 0), (r, processes))) for r in range(processes)
        ]
        whole = list(Batches(sample, sample.train, 5, (0, 0)))
        assert sum(len(targets) for share in shares for _, targets, *_ in share) == count
        for batch, *parts in zip(whole[:-1], *shares, strict=False):
            targets = [t for _, part, *_ in parts for t in part.tolist()]
            assert targets == batch[1].tolist()
            assert min(len(part) for _, part in parts) > 0
