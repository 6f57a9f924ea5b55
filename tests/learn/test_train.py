"""Training: same bits again, whether or not interrupted; what the stages write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.evaluate import classification, evaluate, regression
from crystalmesh.learn.predict import predict
from crystalmesh.learn.train import Learner, train
from crystalmesh.represent import store

EXPERIMENTS = ["log_k-cgcnn", "log_k-mesh", "space_group-cgcnn"]


@pytest.fixture
def ready(project: Project) -> Project:
    for key in project.params.features:
        store.build(project, key, 1)
    return project


def outputs(project: Project, name: str) -> dict[str, bytes]:
    paths = (project.checkpoint("demo", name), project.history("demo", name))
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_train_predict_evaluate(ready: Project, name: str) -> None:
    train(ready, "demo", name)
    first = outputs(ready, name)
    train(ready, "demo", name)
    assert outputs(ready, name) == first
    assert not any((ready.scratch / "train").iterdir())
    card = read_json(ready.card("demo", name))
    assert card["device"] == "cpu"
    assert card["train_seconds"] > 0
    assert set(card["data"]) > {"data/crystals/tiny/crystals.safetensors"}

    predict(ready, "demo", name)
    rows = read_csv(ready.predictions("demo", name))
    sample = Sample.load(ready, ready.params.experiment("demo", name))
    assert [row["id"] for row in rows] == sample.test.ids
    predicted = ready.predictions("demo", name).read_bytes()
    predict(ready, "demo", name)
    assert ready.predictions("demo", name).read_bytes() == predicted

    evaluate(ready, "demo", name)
    metrics = read_json(ready.metrics("demo", name))
    assert metrics["n_test"] == len(rows)
    assert metrics["n_train"] == len(sample.train.ids)
    assert metrics["split"] == "60/20/20"
    errors = [abs(float(r["target"]) - float(r["prediction"])) for r in rows]
    expected = 100 * np.mean(np.equal(errors, 0)) if "space" in name else np.mean(errors)
    assert metrics["value"] == pytest.approx(expected)


def test_best_epoch_is_what_is_kept(ready: Project) -> None:
    """The checkpoint's validation error is the least of the history."""
    name = "log_k-cgcnn"
    train(ready, "demo", name)
    history = [float(row["val_metric"]) for row in read_csv(ready.history("demo", name))]
    note = json.loads(read_note(ready.checkpoint("demo", name)))
    assert note["best_epoch"] == 1 + int(np.argmin(history))
    sample = Sample.load(ready, ready.params.experiment("demo", name))
    errors = []
    import torch

    from crystalmesh.learn.predict import forward, inputs
    from crystalmesh.models import network

    net = network(note["model"]["architecture"], note["model"]["network"], 1)
    state = read_tensors(ready.checkpoint("demo", name))
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    values = forward(net, inputs(sample, sample.val)).squeeze(1).double().numpy()
    errors = np.abs(values * note["std"] + note["mean"] - sample.val.targets)
    assert errors.mean() == pytest.approx(min(history), rel=1e-6)


@pytest.mark.parametrize("name", ["log_k-mesh"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    ready: Project, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(ready, "demo", name)
    expected = outputs(ready, name)
    step = Learner.training_step
    steps = 0

    def dying(self: Learner, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:  # within the second epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(ready, "demo", name)
    assert outputs(ready, name) == expected  # what was there stays whole
    train(ready, "demo", name)
    assert outputs(ready, name) == expected
    per_epoch = 4
    assert steps == 6 + 2 * per_epoch  # the first epoch was not run again


def test_seed_and_learning_rate_matter(ready: Project, tree: dict[str, Any]) -> None:
    name = "log_k-cgcnn"
    train(ready, "demo", name)
    first = outputs(ready, name)
    for change in ({"seed": 2}, {"training": {"lr": 0.02}}):
        experiment = tree["experiments"]["demo"][name] | change
        tree["experiments"]["demo"][name] = experiment
        (ready.root / "params.yaml").write_text(json.dumps(tree))
        other = config.load(ready.root)
        train(other, "demo", name)
        assert outputs(other, name) != first


def test_last_batch_is_never_a_single_crystal(ready: Project) -> None:
    sample = Sample.load(ready, ready.params.experiment("demo", "log_k-cgcnn"))
    count = len(sample.train.ids)
    for size in range(2, count + 1):
        sizes = [len(targets) for _, targets in Batches(sample, sample.train, size, (0, 0))]
        assert sum(sizes) == count
        assert min(sizes) > 1
        assert max(sizes) <= size + 1


def test_order_of_batches_is_the_seeds(ready: Project) -> None:
    sample = Sample.load(ready, ready.params.experiment("demo", "log_k-cgcnn"))

    def order(*seed: int) -> list[float]:
        batches = Batches(sample, sample.train, 4, seed)
        return [t for _, targets in batches for t in targets.tolist()]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert sorted(order(0, 1)) == sorted(sample.train.targets.tolist())


def test_missing_features_are_named(ready: Project, tree: dict[str, Any]) -> None:
    tree["features"]["tiny-graph_cgcnn"]["sizes"] = {"log_k": 10}
    (ready.root / "params.yaml").write_text(json.dumps(tree))
    smaller = config.load(ready.root)
    store.build(smaller, "tiny-graph_cgcnn", 1)
    with pytest.raises(CrystalmeshError, match="raise `sizes`"):
        train(smaller, "demo", "log_k-cgcnn")


@pytest.mark.parametrize("damage", ["missing", "truncated", "other network"])
def test_a_damaged_checkpoint_is_named(ready: Project, damage: str) -> None:
    name = "log_k-cgcnn"
    train(ready, "demo", name)
    path: Path = ready.checkpoint("demo", name)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        from crystalmesh.files import write_tensors

        write_tensors(path, {"x": np.zeros(1)}, read_note(path))
    with pytest.raises(CrystalmeshError, match=path.name):
        predict(ready, "demo", name)
    assert not ready.predictions("demo", name).exists()


def test_the_checkpoint_of_another_experiment_is_refused(ready: Project) -> None:
    train(ready, "demo", "log_k-cgcnn")
    other = ready.checkpoint("demo", "space_group-cgcnn")
    other.write_bytes(ready.checkpoint("demo", "log_k-cgcnn").read_bytes())
    with pytest.raises(CrystalmeshError, match="another `experiment`"):
        predict(ready, "demo", "space_group-cgcnn")


@pytest.mark.parametrize("block", ["network", "representation"])
def test_a_misspelt_setting_of_a_network_or_representation_is_named(
    ready: Project, tree: dict[str, Any], block: str
) -> None:
    settings = (
        tree["models"]["cgcnn"]["network"]
        if block == "network"
        else tree["representations"]["graph"]["cgcnn"]
    )
    settings["hiden" if block == "network" else "cutof"] = 3
    (ready.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=r"did you mean '(hidden|cutoff)'"):
        train(config.load(ready.root), "demo", "log_k-cgcnn")


def test_damaged_predictions_are_named(ready: Project) -> None:
    name = "log_k-cgcnn"
    train(ready, "demo", name)
    path = ready.predictions("demo", name)
    path.parent.mkdir(parents=True)
    for text in ("", "id,target\n1,2\n", "id,target,prediction\n1,2,x\n"):
        path.write_text(text)
        with pytest.raises(CrystalmeshError, match="damaged"):
            evaluate(ready, "demo", name)


def test_metrics_of_known_numbers() -> None:
    found = regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 2.0]))
    assert found["mae"] == pytest.approx(0.5)
    assert found["rmse"] == pytest.approx(np.sqrt(1.25 / 3))
    assert found["r2"] == pytest.approx(1 - 1.25 / 2)
    found = classification(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 2]))
    assert found["accuracy"] == 50.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
