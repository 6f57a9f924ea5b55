"""Training: same bits again, whether or not interrupted; what the stages write."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors, write_tensors
from crystalmesh.learn import batches
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.evaluate import classification, evaluate, regression
from crystalmesh.learn.learner import Learner
from crystalmesh.learn.predict import Checkpoint, finished, forward, inputs, predict
from tests.conftest import Tree, run_of, write_project
from tests.learn.conftest import Renew, fit, made, outputs

NAMES = ["log_k-cgcnn", "log_k-mesh", "space_group-cgcnn"]


@pytest.mark.parametrize("name", NAMES)
def test_train_predict_evaluate(ready: Project, name: str) -> None:
    fit(ready, name)
    first = outputs(ready, name)
    rows, metrics = made(ready, name)
    assert outputs(ready, name) == first
    assert not any((ready.scratch / "train").iterdir())
    run = run_of(ready, name)
    card = read_json(ready.card(run))
    assert card["device"] == "cpu"
    assert {"train_seconds", "cpu_seconds"} < card.keys()
    assert set(card["data"]) > {"data/crystals/tiny/crystals.safetensors"}

    sample = Sample.load(ready, run)
    assert [row["id"] for row in rows] == sample.test[run.target].ids
    predicted = ready.predictions(run, run.target).read_bytes()
    predict(ready, run)
    assert ready.predictions(run, run.target).read_bytes() == predicted

    assert (metrics["study"], metrics["run"]) == ("demo", name)
    assert metrics["n_train"] == len(sample.train.ids)
    assert metrics["split"] == "60/20/20"
    own = metrics["targets"][run.target]
    assert own["n_test"] == len(rows)
    errors = [abs(float(r["target"]) - float(r["prediction"])) for r in rows]
    expected = 100 * np.mean(np.equal(errors, 0)) if "space" in name else np.mean(errors)
    assert own["value"] == pytest.approx(expected)


def test_best_epoch_is_what_is_kept(ready: Project) -> None:
    """The checkpoint's validation error is the least of the history."""
    fit(ready, "log_k-cgcnn")
    run = run_of(ready, "log_k-cgcnn")
    history = [float(row["val_metric"]) for row in read_csv(ready.history(run))]
    note = json.loads(read_note(ready.checkpoint(run)))
    assert note["best_epoch"] == 1 + int(np.argmin(history))
    sample = Sample.load(ready, run)
    net = Checkpoint.load(ready, run).network(ready, "")
    outputs, sizes = forward(net, inputs(sample, sample.val)), sample.val.sizes
    values = finished(outputs, sizes, note, ready, run, run.target)
    errors = np.abs(values - sample.val.targets)
    assert errors.mean() == pytest.approx(min(history), rel=1e-6)


def stopped_and_resumed(
    project: Project, name: str, monkeypatch: pytest.MonkeyPatch, at: int = 6
) -> int:
    """Train, die in a step, by default the sixth, and train on; how many steps were begun."""
    step, steps = Learner.training_step, 0

    def dying(self: Learner, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            raise KeyboardInterrupt
        return step(self, *arguments)

    before = outputs(project, name)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(project, name)
        assert outputs(project, name) == before  # what was there stays whole
        fit(project, name)
    return steps


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(ready, "log_k-mesh")
    expected = outputs(ready, "log_k-mesh")
    steps = stopped_and_resumed(ready, "log_k-mesh", monkeypatch)
    assert outputs(ready, "log_k-mesh") == expected
    per_epoch = 4
    assert steps == 6 + 2 * per_epoch  # the first epoch was not run again


def restarting(tree: Tree, renew: Renew, **network: Any) -> Project:
    """With a run that trains once more, and one that starts from what the first left."""
    tree["models"]["complex"]["network"] |= {"dropout": 0.2}
    runs = tree["studies"]["demo"]["runs"]
    restart = {"epochs": 2, "lr": 0.001, "network": network}
    runs["again"] = runs["two"] | {"training": {"restart": restart}}
    runs["second"] = runs["two"] | {
        "start": "demo/two", "training": {"epochs": 2, "lr": 0.001}
    }  # fmt: skip
    return renew(tree)


def test_a_restart_is_a_second_training_from_the_weights_of_the_first(
    two: Project, tree: Tree, renew: Renew, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert two
    project = restarting(tree, renew)
    names = ("two", "second", "again")
    fit(project, *names)
    runs = [run_of(project, name) for name in names]
    _, second, again = (read_tensors(project.checkpoint(run)) for run in runs)
    assert all(np.array_equal(again[key], value) for key, value in second.items())
    rows = [read_csv(project.history(run)) for run in runs]
    assert [row["epoch"] for row in rows[2]] == ["0", "1", "2", "3", "4"]
    assert [row["val_metric"] for row in rows[2]] == [
        row["val_metric"] for row in (*rows[0], *rows[1])
    ]
    notes = [json.loads(read_note(project.checkpoint(run))) for run in runs]
    assert notes[2]["epochs"] == 5
    assert notes[2]["best_epoch"] == 3 + notes[1]["best_epoch"]
    expected = outputs(project, "again")
    for at in (6, 14):  # in the first training, and in the second
        stopped_and_resumed(project, "again", monkeypatch, at)
        assert outputs(project, "again") == expected


def test_a_restart_may_change_what_has_no_weights(two: Project, tree: Tree, renew: Renew) -> None:
    assert two
    project = restarting(tree, renew, dropout=0.0)
    fit(project, "two", "second", "again")
    second, again = (
        read_tensors(project.checkpoint(run_of(project, name))) for name in ("second", "again")
    )
    assert not np.array_equal(again["out.weight"], second["out.weight"])
    project = restarting(tree, renew, width=12)
    with pytest.raises(CrystalmeshError, match=r"restart\.network: changes the sizes of weights"):
        fit(project, "again")


def test_a_running_mean_of_weights_survives_an_interruption(
    two: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(two, "two")
    expected = outputs(two, "two")
    stopped_and_resumed(two, "two", monkeypatch)
    assert outputs(two, "two") == expected


@pytest.mark.parametrize("width", [8, 64])
def test_muon_survives_an_interruption_and_wants_matrices(
    two: Project, tree: Tree, renew: Renew, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    assert two
    one = tree["models"]["complex"]
    one["network"] |= {"width": width}
    one["training"] |= {"schedule": "one_cycle", "optimizer": "muon"}
    project = renew(tree)
    if width == 8:
        with pytest.raises(CrystalmeshError, match="no matrix of 64 x 64 or more; set adamw"):
            fit(project, "two")
        return
    fit(project, "two")
    expected = outputs(project, "two")
    stopped_and_resumed(project, "two", monkeypatch)
    assert outputs(project, "two") == expected
    one["training"] |= {"optimizer": "adamw"}
    fit(renew(tree), "two")
    assert outputs(project, "two") != expected


def test_refit_trains_on_all_but_the_test_and_folds_calibrate_each_other(
    two: Project, tree: Tree, renew: Renew
) -> None:
    assert two
    splits, runs = tree["splits"]["tiny"], tree["studies"]["demo"]["runs"]
    splits["folds"] = splits["60-20-20"] | {"repeats": 3}
    runs["folds"] = runs["two"] | {"split": "folds", "fold": "all", "refit": True}
    project = renew(tree)
    rows, metrics = made(project, "folds")
    assert (metrics["n_val"], metrics["best_epoch"]) == (0, metrics["epochs"])
    residual = {
        fold: np.array(
            [abs(float(r["target"]) - float(r["prediction"])) for r in rows if r["fold"] == fold]
        )
        for fold in ("0", "1", "2")
    }
    for fold, sample in batches.samples(project, run_of(project, "folds")):
        assert set(sample.val.ids) < set(sample.train.ids)
        assert not set(sample.test["log_k"].ids) & set(sample.train.ids)
        assert not sample.calibration["log_k"].ids
        others = np.sort(np.concatenate([r for f, r in residual.items() if f != fold]))
        widths = [
            (float(r["upper"]) - float(r["lower"])) / 2 for r in rows if r["fold"] == fold
        ]  # fmt: skip
        reach = float(others[math.ceil((len(others) + 1) * 0.9) - 1])
        assert widths == pytest.approx([reach] * len(widths), abs=2e-3)


@pytest.mark.parametrize("cause", [KeyboardInterrupt, ValueError])
def test_an_interrupt_that_lightning_stumbles_over(
    ready: Project, monkeypatch: pytest.MonkeyPatch, cause: type[BaseException]
) -> None:
    """Between two epochs, tidying up fails; any other failure is told as what it is."""

    def failing(*_: Any, **__: Any) -> None:
        try:
            raise cause
        except cause:
            len(CombinedLoader([]))  # as in lightning's teardown

    monkeypatch.setattr(pl.Trainer, "fit", failing)
    with pytest.raises(KeyboardInterrupt if cause is KeyboardInterrupt else RuntimeError):
        fit(ready, "log_k-cgcnn")


def test_seed_and_learning_rate_matter(ready: Project, tree: Tree, renew: Renew) -> None:
    fit(ready, "log_k-cgcnn")
    first = outputs(ready, "log_k-cgcnn")
    for change in ({"seed": 2}, {"training": {"lr": 0.02}}):
        tree["studies"]["demo"]["runs"]["log_k-cgcnn"] |= change
        project = renew(tree)
        fit(project, "log_k-cgcnn")
        assert outputs(project, "log_k-cgcnn") != first


def test_last_batch_is_never_a_single_crystal(ready: Project) -> None:
    sample = Sample.load(ready, run_of(ready, "log_k-cgcnn"))
    count = len(sample.train.ids)
    for size in range(2, count + 1):
        sizes = [len(labels) for _, labels, *_ in Batches(sample, sample.train, size, (0, 0))]
        assert sum(sizes) == count
        assert min(sizes) > 1
        assert max(sizes) <= size + 1


def test_order_of_batches_is_the_seeds(ready: Project) -> None:
    sample = Sample.load(ready, run_of(ready, "log_k-cgcnn"))

    def order(*seed: int) -> list[float]:
        batches = Batches(sample, sample.train, 4, seed)
        return [t for _, labels, *_ in batches for t in labels[:, 0].tolist()]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert sorted(order(0, 1)) == sorted(sample.train.targets.tolist())


def test_missing_features_are_named(ready: Project, tree: Tree, renew: Renew) -> None:
    assert ready
    tree["features"]["tiny"]["graph.cgcnn"] = {"split": "60-20-20", "sizes": {"log_k": 10}}
    with pytest.raises(CrystalmeshError, match="raise `sizes`"):
        fit(renew(tree), "log_k-cgcnn")


@pytest.mark.parametrize("damage", ["missing", "truncated", "other network"])
def test_a_damaged_checkpoint_is_named(ready: Project, damage: str) -> None:
    fit(ready, "log_k-cgcnn")
    run = run_of(ready, "log_k-cgcnn")
    path: Path = ready.checkpoint(run)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        write_tensors(path, {"x": np.zeros(1)}, read_note(path))
    with pytest.raises(CrystalmeshError, match=path.name):
        predict(ready, run)
    assert not ready.predictions(run, run.target).parent.exists()


def test_a_checkpoint_of_other_settings_or_format_is_refused(ready: Project) -> None:
    fit(ready, "log_k-cgcnn")
    run, other = run_of(ready, "log_k-cgcnn"), run_of(ready, "space_group-cgcnn")
    path = ready.checkpoint(run)
    ready.checkpoint(other).write_bytes(path.read_bytes())
    with pytest.raises(CrystalmeshError, match="trained with another `run` than the settings"):
        predict(ready, other)
    # the first format had no number; it named a task and one mean
    note = {"experiment": {"task": "log_k"}, "mean": 1.0, "std": 0.5}
    write_tensors(path, read_tensors(path), json.dumps(note))
    with pytest.raises(CrystalmeshError, match="of format 1, and this version reads 2") as caught:
        predict(ready, run)
    assert "\n" not in str(caught.value)


def test_a_misspelt_setting_of_a_network_or_representation_is_named(
    ready: Project, tree: Tree
) -> None:
    tree["models"]["cgcnn"]["network"]["hiden"] = 3
    with pytest.raises(CrystalmeshError, match="did you mean 'hidden'"):
        fit(write_project(ready.root, tree), "log_k-cgcnn")
    tree["representations"]["graph"]["cgcnn"]["cutof"] = 3
    with pytest.raises(CrystalmeshError, match="did you mean 'cutoff'"):
        fit(write_project(ready.root, tree), "log_k-cgcnn")


def test_damaged_predictions_are_named(ready: Project) -> None:
    fit(ready, "log_k-cgcnn")
    run = run_of(ready, "log_k-cgcnn")
    path = ready.predictions(run, "log_k")
    path.parent.mkdir(parents=True)
    for text in ("", "id,target\n1,2\n", "id,target,prediction\n1,2,x\n"):
        path.write_text(text)
        with pytest.raises(CrystalmeshError, match="damaged"):
            evaluate(ready, run)


def test_metrics_of_known_numbers() -> None:
    found = regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 2.0]))
    assert found["mae"] == pytest.approx(0.5)
    assert found["rmse"] == pytest.approx(np.sqrt(1.25 / 3))
    assert found["r2"] == pytest.approx(1 - 1.25 / 2)
    found = classification(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 2]))
    assert found["accuracy"] == 50.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
