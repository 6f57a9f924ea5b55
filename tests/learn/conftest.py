"""Networks on the complex, and what all tests of learning do with a run."""

from collections.abc import Callable
from typing import Any

import pytest

from crystalmesh.config.project import Project
from crystalmesh.files import read_csv, read_json
from crystalmesh.learn.evaluate import evaluate
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import train
from tests.conftest import Tree, run_of
from tests.models.test_delaunay import STACKING

Renew = Callable[[Tree], Project]
COMPLEX = {"symprec": 0.01, "tolerance": 0.001}
DISTILLATION: dict[str, Any] = {
    "run": "demo/two", "max_atoms": 3, "batch_size": 4, "weight": 0.5,
}  # fmt: skip


def fit(project: Project, *names: str) -> None:
    """Train runs of the study `demo`."""
    for name in names:
        train(project, run_of(project, name))


def made(project: Project, name: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Train, predict and evaluate a run: predictions of its first target, and its metrics."""
    run = run_of(project, name)
    train(project, run)
    predict(project, run)
    evaluate(project, run)
    return read_csv(project.predictions(run, run.target)), read_json(project.metrics(run))


def outputs(project: Project, name: str) -> dict[str, bytes]:
    """What training writes that must come out the same again."""
    run = run_of(project, name)
    paths = (project.checkpoint(run), project.history(run))
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def two(tree: Tree, renew: Renew) -> Project:
    """One network for two targets on the complex, the running mean of whose weights is kept."""
    tree["representations"] = {"complex": {"reduced": COMPLEX}}
    tree["features"]["tiny"] = {"complex.reduced": {}}
    tree["splits"]["tiny"]["60-20-20"]["by"] = "e_form"
    tree["models"] = {
        "complex": {
            "title": "complex",
            "architecture": "delaunay",
            "representation": "complex.reduced",
            "network": {"width": 8, "layers": 2},
            "training": tree["models"]["cgcnn"]["training"] | {"ema": 0.9, "loss": "l1"},
        }
    }
    one = {"targets": ["log_k", "e_form"], "model": "complex", "split": "60-20-20", "seed": 1}
    tree["studies"]["demo"]["runs"] = {"two": one}
    tree["studies"]["demo"].pop("report", None)  # it is of meshes
    return renew(tree)


@pytest.fixture
def stacking(two: Project, tree: Tree, renew: Renew) -> Project:
    """The same network, but it reads Gaussian processes."""
    assert two
    tree["representations"]["complex"]["described"] = COMPLEX
    tree["features"]["tiny"] = {"complex.described": {}}
    model = tree["models"]["complex"]
    model["network"] |= {"elastic": True, "stacking": STACKING}
    model |= {"representation": "complex.described", "checkpoint": "float16"}
    return renew(tree)


def without_some(tree: Tree) -> None:
    """Nine crystals of the tree have no bulk modulus: it is out of range."""
    moduli = sorted(400.0 / (3.0 + 0.05 * i) ** 2 + 10 * (1 + i % 3) for i in range(30))
    tree["targets"]["log_k"]["range"] = [0.001, moduli[20] + 1e-6]
