"""Runs of several networks, transfer, and the models that are fitted at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.config.project import Project
from crystalmesh.data import splits
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn import fit as fitting
from crystalmesh.learn.batches import scale, unscale
from crystalmesh.learn.fit import Fit, Fitted, transfer
from crystalmesh.models import network
from tests.conftest import TRAINING, TREE, Tree, run_of, write_project
from tests.learn.conftest import fit, made

CGCNN = {"target": "log_k", "model": "cgcnn", "split": "60-20-20", "seed": 1}
FOREST = CGCNN | {"model": "forest"}
REPEATED = {"split": "repeated", "fold": "all"}


@pytest.fixture
def tree(tree: Tree) -> Tree:
    own = tree["splits"]["tiny"]
    own["repeated"] = own["60-20-20"] | {"repeats": 2}
    tree["representations"]["descriptors"] = {"composition": {}}
    tree["features"]["tiny"] = {"graph.cgcnn": {}, "descriptors.composition": {}}
    forest = {"estimator": "random_forest", "trees": 4, "max_features": 0.5, "min_leaf": 1}
    tree["models"]["forest"] = {
        "title": "forest",
        "architecture": "classical",
        "representation": "descriptors.composition",
        "network": forest,
    }
    tree["studies"]["demo"]["runs"] = {
        "one": CGCNN,
        "ensemble": CGCNN | {"members": 2},
        "folds": CGCNN | REPEATED,
        "both": CGCNN | REPEATED | {"members": 2},
        "classes": CGCNN | {"target": "space_group", "members": 2},
        "forest": FOREST | {"members": 2},
        "forest-classes": FOREST | {"target": "space_group"},
        "transfer": CGCNN | REPEATED | {"start": "demo/one"},
    }
    return tree


def column(rows: list[dict[str, str]], name: str) -> np.ndarray[Any, Any]:
    return np.array([float(row[name]) for row in rows])


def test_an_ensemble_is_the_mean_of_networks_from_other_seeds(ready: Project) -> None:
    rows, metrics = made(ready, "ensemble")
    members = np.stack([column(rows, "member_0"), column(rows, "member_1")])
    assert np.allclose(column(rows, "prediction"), members.mean(axis=0), atol=1e-6)
    assert np.allclose(column(rows, "spread"), members.std(axis=0, ddof=1), atol=1e-4)
    assert (column(rows, "spread") > 0).all()
    own, target = metrics["targets"]["log_k"], column(rows, "target")
    assert own["members"] == pytest.approx(np.abs(members - target).mean(axis=1))
    # its first member is the network of the same run with one
    fit(ready, "one")
    alone = read_tensors(ready.checkpoint(run_of(ready, "one")))
    both = read_tensors(ready.checkpoint(run_of(ready, "ensemble")))
    assert len(both) == 2 * len(alone)
    assert all((both[f"fold0.member0.{key}"] == value).all() for key, value in alone.items())
    card = read_json(ready.card(run_of(ready, "ensemble")))
    assert list(card["runs"]) == ["fold0.member0", "fold0.member1"]


def test_each_fold_is_trained_and_tested_on_its_own(ready: Project) -> None:
    rows, metrics = made(ready, "folds")
    run = run_of(ready, "folds")
    for fold in ("0", "1"):
        tested = [row["id"] for row in rows if row["fold"] == fold]
        assert tested == splits.select(ready, run, fold).test
    own = metrics["targets"]["log_k"]
    assert len(own["folds"]) == 2
    assert own["value"] == pytest.approx(np.mean(own["folds"]))  # folds of equal size
    history = read_csv(ready.history(run))
    assert [row["run"] for row in history] == ["fold0.member0"] * 3 + ["fold1.member0"] * 3


@pytest.mark.parametrize("name", ["classes", "forest-classes"])
def test_classes_have_sets(ready: Project, name: str) -> None:
    rows, metrics = made(ready, name)
    own = metrics["targets"]["space_group"]
    assert all(row["prediction"] in row["set"].split() for row in rows)
    held = [row["target"] in row["set"].split() for row in rows]
    assert own["coverage"] == sum(held) / len(held)
    assert own["width"] == sum(len(row["set"].split()) for row in rows) / len(rows)


def test_a_forest_goes_the_same_way(ready: Project) -> None:
    rows, metrics = made(ready, "forest")
    path = ready.checkpoint(run_of(ready, "forest"))
    first = [path.read_bytes(), rows]
    rows, _ = made(ready, "forest")
    assert [path.read_bytes(), rows] == first
    assert metrics["epochs"] == 1
    assert metrics["targets"]["log_k"]["mae"] < 0.2


def test_an_interrupted_ensemble_goes_on(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of folds and members together."""
    rows, metrics = made(ready, "both")
    own = metrics["targets"]["log_k"]
    assert {"fold", "member_0", "member_1"} <= set(rows[0])
    assert (len(own["folds"]), len(own["members"])) == (2, 2)
    path = ready.checkpoint(run_of(ready, "both"))
    assert len(json.loads(read_note(path))["runs"]) == 4
    whole, twice = path.read_bytes(), Fit.twice
    fitted: list[str] = []

    def dying(self: Fit, scratch: Path) -> Fitted:
        if len(fitted) == 3:
            raise KeyboardInterrupt
        fitted.append(self.label)
        return twice(self, scratch)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "twice", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(ready, "both")
    started: list[str] = []

    def listening(self: Fit, scratch: Path) -> Fitted:
        started.append(self.label)
        return twice(self, scratch)

    monkeypatch.setattr(Fit, "twice", listening)
    fit(ready, "both")
    assert started == ["both fold 1 member 1"]
    assert path.read_bytes() == whole


def test_transfer_starts_from_the_other_weights(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(ready, "one")
    starts: list[Mapping[str, Tensor]] = []

    def listening(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        starts.append(weights)
        transfer(net, weights)

    monkeypatch.setattr(fitting, "transfer", listening)
    rows, _ = made(ready, "transfer")
    source = read_tensors(ready.checkpoint(run_of(ready, "one")))
    assert len(starts) == 2  # a network a fold
    assert all((starts[0][key].numpy() == value).all() for key, value in source.items())
    data = read_json(ready.card(run_of(ready, "transfer")))["data"]
    assert "results/demo/checkpoints/one.safetensors" in data
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


def test_a_missing_source_is_one_line(ready: Project) -> None:
    with pytest.raises(CrystalmeshError, match=r"one\.safetensors: missing"):
        fit(ready, "transfer")


@pytest.mark.parametrize("standardise", [True, False, "tanh"])
def test_scaling_is_undone(project: Project, standardise: bool | str) -> None:
    base = project.params.models["cgcnn"].training
    assert base is not None
    settings = base.model_validate(TRAINING | {"standardise": standardise})
    values = torch.linspace(-3, 9, 7, dtype=torch.float64)
    scaled = scale(values, 2.0, 1.5, settings)
    assert standardise != "tanh" or float(scaled.abs().max()) < 1
    assert unscale(scaled, 2.0, 1.5, settings) == pytest.approx(values.numpy(), abs=1e-9)


@pytest.mark.parametrize(
    ("run", "change", "message"),
    [
        ("transfer", {"start": "demo/ensemble"}, "demo/ensemble has several networks"),
        ("transfer", {"start": "demo/forest"}, "another network or representation"),
        ("forest", {"training": {"epochs": 3}}, "forest is not trained by epochs"),
        ("one", {"refit": True}, r"one\.refit: needs a network trained by epochs, and `fold: all`"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, tree: Tree, run: str, change: dict[str, Any], message: str
) -> None:
    tree["studies"]["demo"]["runs"][run] |= change
    with pytest.raises(CrystalmeshError, match=message):
        write_project(tmp_path, tree)
