"""Experiments of several networks, transfer, and the models that are fitted at once."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.config import Project
from crystalmesh.data import registry, splits, validation
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn import train as training
from crystalmesh.learn.batches import scale, unscale
from crystalmesh.learn.evaluate import evaluate
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import Run, train, transfer
from crystalmesh.models import network
from crystalmesh.represent import store
from tests.conftest import SOME, TRAINING, TREE, write_project

CGCNN = SOME | {"task": "log_k", "representation": "graph.cgcnn", "model": "cgcnn"}
DESCRIBED = SOME | {"task": "log_k", "representation": "descriptors.composition"}
REPEATED = {"split": "repeated", "fold": "all"}


def tree() -> dict[str, Any]:
    content = copy.deepcopy(TREE)
    content["splits"]["tiny-repeated"] = content["splits"]["tiny-60-20-20"] | {
        "split": "repeated",
        "repeats": 2,
    }
    content["representations"]["descriptors"] = {"composition": {}}
    graph = content["features"]["tiny-graph_cgcnn"]
    described = graph | {"representation": "descriptors.composition"}
    content["features"] = {"tiny-graph_cgcnn": graph, "tiny-descriptors": described}
    forest = {"estimator": "random_forest", "trees": 4, "max_features": 0.5, "min_leaf": 1}
    content["models"]["forest"] = {
        "title": "forest", "architecture": "classical", "network": forest,
    }  # fmt: skip
    content["experiments"]["demo"] = {
        "one": CGCNN,
        "ensemble": CGCNN | {"members": 2},
        "folds": CGCNN | REPEATED,
        "both": CGCNN | REPEATED | {"members": 2},
        "classes": CGCNN | {"task": "space_group", "members": 2},
        "forest": DESCRIBED | {"model": "forest", "members": 2},
        "forest-classes": DESCRIBED | {"model": "forest", "task": "space_group"},
    }
    start = {"pretrained": {"group": "demo", "name": "one"}}
    content["transfer"] = {"demo": {"transfer": CGCNN | REPEATED | start}}
    return content


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("runs") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMESH_MIRROR", str(root))
        project = write_project(root, tree())
        registry.fetch(project, "tiny", 1)
        validation.build(project, "tiny", 1)
        for key in project.params.splits:
            splits.build(project, key)
        for key in project.params.features:
            store.build(project, key, 1)
    return project


def made(project: Project, name: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    train(project, "demo", name)
    predict(project, "demo", name)
    evaluate(project, "demo", name)
    return read_csv(project.predictions("demo", name)), read_json(project.metrics("demo", name))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray[Any, Any]:
    return np.array([float(row[name]) for row in rows])


def test_an_ensemble_is_the_mean_of_networks_from_other_seeds(ready: Project) -> None:
    rows, metrics = made(ready, "ensemble")
    members = np.stack([column(rows, "member_0"), column(rows, "member_1")])
    assert np.allclose(column(rows, "prediction"), members.mean(axis=0), atol=1e-6)
    assert np.allclose(column(rows, "spread"), members.std(axis=0, ddof=1), atol=1e-4)
    assert (column(rows, "spread") > 0).all()
    target = column(rows, "target")
    assert metrics["members"] == pytest.approx(np.abs(members - target).mean(axis=1))
    # its first member is the network of the same experiment with one
    made(ready, "one")
    alone = read_tensors(ready.checkpoint("demo", "one"))
    both = read_tensors(ready.checkpoint("demo", "ensemble"))
    assert len(both) == 2 * len(alone)
    assert all((both[f"fold0.member0.{key}"] == value).all() for key, value in alone.items())
    card = read_json(ready.card("demo", "ensemble"))
    assert list(card["runs"]) == ["fold0.member0", "fold0.member1"]


def test_each_fold_is_trained_and_tested_on_its_own(ready: Project) -> None:
    rows, metrics = made(ready, "folds")
    experiment = ready.params.experiment("demo", "folds")
    for fold in ("0", "1"):
        tested = [row["id"] for row in rows if row["fold"] == fold]
        assert tested == splits.select(ready, experiment, fold).test
    assert len(metrics["folds"]) == 2
    assert metrics["value"] == pytest.approx(np.mean(metrics["folds"]))  # folds of equal size
    history = read_csv(ready.history("demo", "folds"))
    assert [row["run"] for row in history] == ["fold0.member0"] * 3 + ["fold1.member0"] * 3


def test_folds_and_members_go_together(ready: Project) -> None:
    rows, metrics = made(ready, "both")
    assert {"fold", "member_0", "member_1"} <= set(rows[0])
    assert (len(metrics["folds"]), len(metrics["members"])) == (2, 2)
    assert len(json.loads(read_note(ready.checkpoint("demo", "both")))["runs"]) == 4


@pytest.mark.parametrize("name", ["classes", "forest-classes"])
def test_classes_have_sets(ready: Project, name: str) -> None:
    rows, metrics = made(ready, name)
    assert all(row["prediction"] in row["set"].split() for row in rows)
    held = [row["target"] in row["set"].split() for row in rows]
    assert metrics["coverage"] == sum(held) / len(held)
    assert metrics["width"] == sum(len(row["set"].split()) for row in rows) / len(rows)


def test_a_forest_goes_the_same_way(ready: Project) -> None:
    rows, metrics = made(ready, "forest")
    first = [ready.checkpoint("demo", "forest").read_bytes(), rows]
    assert [ready.checkpoint("demo", "forest").read_bytes(), made(ready, "forest")[0]] == first
    assert metrics["epochs"] == 1
    assert metrics["mae"] < 0.2


def test_an_interrupted_ensemble_goes_on(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    train(ready, "demo", "both")
    whole = ready.checkpoint("demo", "both").read_bytes()
    fit = training._fit
    fitted: list[str] = []

    def dying(*arguments: Any) -> Run:
        if len(fitted) == 3:
            raise KeyboardInterrupt
        fitted.append(arguments[5])
        return fit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_fit", dying)
        with pytest.raises(KeyboardInterrupt):
            train(ready, "demo", "both")
    started: list[str] = []

    def listening(*arguments: Any) -> Run:
        started.append(arguments[5])
        return fit(*arguments)

    monkeypatch.setattr(training, "_fit", listening)
    train(ready, "demo", "both")
    assert started == ["both fold 1 member 1"]
    assert ready.checkpoint("demo", "both").read_bytes() == whole


def test_transfer_starts_from_the_other_weights(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(ready, "demo", "one")
    starts: list[Mapping[str, Tensor]] = []

    def listening(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        starts.append(weights)
        transfer(net, weights)

    monkeypatch.setattr(training, "transfer", listening)
    rows, _ = made(ready, "transfer")
    source = read_tensors(ready.checkpoint("demo", "one"))
    assert len(starts) == 2  # a network a fold
    assert all((starts[0][key].numpy() == value).all() for key, value in source.items())
    assert (
        "results/demo/checkpoints/one.safetensors"
        in read_json(ready.card("demo", "transfer"))["data"]
    )
    plain, _ = made(ready, "folds")
    assert column(rows, "prediction").tolist() != column(plain, "prediction").tolist()


def test_transfer_leaves_what_does_not_fit() -> None:
    settings = TREE["models"]["cgcnn"]["network"]
    torch.manual_seed(0)
    one, many = network("cgcnn", settings, 1), network("cgcnn", settings, 5)
    source, drawn = one.state_dict(), many.state_dict()["out.weight"].clone()
    transfer(many, source)
    assert torch.equal(many.state_dict()["embedding.weight"], source["embedding.weight"])
    assert torch.equal(many.state_dict()["out.weight"], drawn)


def test_a_missing_source_is_one_line(ready: Project, tmp_path: Path) -> None:
    here = ready.checkpoint("demo", "one")
    train(ready, "demo", "one")
    kept = here.rename(tmp_path / "one")
    try:
        with pytest.raises(CrystalmeshError, match=r"one\.safetensors: missing"):
            train(ready, "demo", "transfer")
    finally:
        kept.rename(here)


@pytest.mark.parametrize("standardise", [True, False, "tanh"])
def test_scaling_is_undone(ready: Project, standardise: bool | str) -> None:
    base = ready.params.models["cgcnn"].training
    assert base is not None
    settings = base.model_validate(TRAINING | {"standardise": standardise})
    values = torch.linspace(-3, 9, 7, dtype=torch.float64)
    scaled = scale(values, 2.0, 1.5, settings)
    assert standardise != "tanh" or float(scaled.abs().max()) < 1
    assert unscale(scaled[:, None], 2.0, 1.5, settings) == pytest.approx(values.numpy(), abs=1e-9)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for change, message in (
        ({"pretrained": {"group": "demo", "name": "ensemble"}}, "has several networks"),
        ({"pretrained": {"group": "demo", "name": "forest"}}, "of another model"),
    ):
        content = tree()
        content["transfer"]["demo"]["transfer"] |= change
        with pytest.raises(CrystalmeshError, match=message):
            write_project(tmp_path, content)
    content = tree()
    content["experiments"]["demo"] |= content.pop("transfer")["demo"]
    with pytest.raises(CrystalmeshError, match=r"belong under transfer\.demo"):
        write_project(tmp_path, content)
    content = tree()
    content["experiments"]["demo"]["forest"] |= {"training": {"epochs": 3}}
    with pytest.raises(CrystalmeshError, match="has no `training`"):
        write_project(tmp_path, content)
