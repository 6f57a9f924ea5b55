"""Training: same bits again, whether or not interrupted; what the stages write."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.data import splits
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn import batches
from crystalmesh.learn.batches import Batches, Sample
from crystalmesh.learn.evaluate import classification, evaluate, regression
from crystalmesh.learn.predict import Checkpoint, finished, forward, inputs, predict
from crystalmesh.learn.train import Learner, train
from crystalmesh.represent import store

EXPERIMENTS = ["log_k-cgcnn", "log_k-mesh", "space_group-cgcnn"]


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
    assert {"train_seconds", "cpu_seconds"} < card.keys()
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


def stopped_and_resumed(
    project: Project, name: str, monkeypatch: pytest.MonkeyPatch, at: int = 6
) -> None:
    """Train, die in a step, by default the sixth, and train on."""
    step, steps = Learner.training_step, 0

    def dying(self: Learner, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(project, "demo", name)
    train(project, "demo", name)


def restarting(project: Project, tree: dict[str, Any], **network: Any) -> Project:
    """With an experiment that trains once more, and one that starts from what the first left."""
    tree["models"]["complex"]["network"] |= {"dropout": 0.2}
    own = tree["experiments"]["demo"]["log_k-complex"]
    restart = {"epochs": 2, "lr": 0.001, "network": network}
    tree["experiments"]["demo"]["log_k-again"] = own | {"training": {"restart": restart}}
    source = {"pretrained": {"group": "demo", "name": "log_k-complex"}}
    tree["transfer"] = {
        "demo": {"log_k-second": own | source | {"training": {"epochs": 2, "lr": 0.001}}}
    }
    (project.root / "params.yaml").write_text(json.dumps(tree))
    return config.load(project.root)


def test_a_restart_is_a_second_training_from_the_weights_of_the_first(
    averaged: Project, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = restarting(averaged, tree)
    names = ("log_k-complex", "log_k-second", "log_k-again")
    for name in names:
        train(project, "demo", name)
    _, second, again = (read_tensors(project.checkpoint("demo", name)) for name in names)
    assert all(np.array_equal(again[key], value) for key, value in second.items())
    rows = [read_csv(project.history("demo", name)) for name in names]
    assert [row["epoch"] for row in rows[2]] == ["0", "1", "2", "3", "4"]
    assert [row["val_metric"] for row in rows[2]] == [
        row["val_metric"] for row in (*rows[0], *rows[1])
    ]
    notes = [json.loads(read_note(project.checkpoint("demo", name))) for name in names]
    assert notes[2]["epochs"] == 5
    assert notes[2]["best_epoch"] == 3 + notes[1]["best_epoch"]
    for at in (6, 14):  # in the first training, and in the second
        expected = outputs(project, names[2])
        stopped_and_resumed(project, names[2], monkeypatch, at)
        assert outputs(project, names[2]) == expected


def test_a_restart_may_change_what_has_no_weights(averaged: Project, tree: dict[str, Any]) -> None:
    project = restarting(averaged, tree, dropout=0.0)
    for name in ("log_k-complex", "log_k-second", "log_k-again"):
        train(project, "demo", name)
    second, again = (
        read_tensors(project.checkpoint("demo", name)) for name in ("log_k-second", "log_k-again")
    )
    assert not np.array_equal(again["out.weight"], second["out.weight"])
    project = restarting(averaged, tree, width=12)
    with pytest.raises(CrystalmeshError, match=r"restart\.network: changes the sizes of weights"):
        train(project, "demo", "log_k-again")


@pytest.mark.parametrize("name", ["log_k-complex", "space_group-complex"])
def test_a_network_of_two_tasks_is_tested_on_the_first(averaged: Project, name: str) -> None:
    train(averaged, "demo", name)
    predict(averaged, "demo", name)
    evaluate(averaged, "demo", name)
    note = json.loads(read_note(averaged.checkpoint("demo", name)))
    assert [task["label"] for task in note["beside"]] == ["e_form"]
    outputs = averaged.params.outputs(averaged.params.experiment("demo", name))
    assert outputs == (231 if "space" in name else 2)
    assert read_tensors(averaged.checkpoint("demo", name))["out.bias"].shape == (outputs,)
    history = [float(row["val_metric"]) for row in read_csv(averaged.history("demo", name))]
    assert len(history) == 3
    if "space" not in name:  # what it says of the validation crystals is what its history says
        experiment = averaged.params.experiment("demo", name)
        sample = Sample.load(averaged, experiment)
        net = Checkpoint.load(averaged, "demo", name).network("", outputs)
        values = finished(forward(net, inputs(sample, sample.val)), note, averaged, experiment)
        error = float(np.abs(values - sample.val.targets).mean())
        assert error == pytest.approx(min(history), rel=1e-6)


def test_a_running_mean_of_weights_survives_an_interruption(
    averaged: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "log_k-complex"
    train(averaged, "demo", name)
    expected = outputs(averaged, name)
    stopped_and_resumed(averaged, name, monkeypatch)
    assert outputs(averaged, name) == expected


@pytest.mark.parametrize("width", [8, 64])
def test_muon_survives_an_interruption_and_wants_matrices(
    averaged: Project, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    name, one = "log_k-complex", tree["models"]["complex"]
    one["network"] |= {"width": width}
    adam = one["training"] | {"schedule": "one_cycle"}
    seen = []
    for optimizer in ("adamw", "muon"):
        one["training"] = adam | {"optimizer": optimizer}
        (averaged.root / "params.yaml").write_text(json.dumps(tree))
        project = config.load(averaged.root)
        if (width, optimizer) == (8, "muon"):
            with pytest.raises(CrystalmeshError, match="no matrix of 64 x 64 or more; set adamw"):
                train(project, "demo", name)
            return
        train(project, "demo", name)
        seen.append(outputs(project, name))
    assert seen[0] != seen[1]
    stopped_and_resumed(project, name, monkeypatch)
    assert outputs(project, name) == seen[1]


def test_crystals_without_the_label_beside_count_for_the_task_alone(averaged: Project) -> None:
    import torch

    experiment = averaged.params.experiment("demo", "log_k-complex")
    sample = Sample.load(averaged, experiment)
    assert sample.train.beside is not None
    assert sample.val.beside is None
    learner = Learner(
        torch.nn.Identity(), averaged.params.tasks["log_k"],
        averaged.params.training(experiment), sample, 0,
    )  # fmt: skip
    targets = torch.tensor([[1.0, 5.0], [2.0, math.nan]], dtype=torch.float64)
    values = torch.zeros(2, 2)
    own = (targets[:, 0] - learner.mean).abs().mean() / learner.std
    other = (5.0 - learner.beside_mean[0]).abs() / learner.beside_std[0]
    expected = float(own + other) / 2
    assert float(learner.loss(values, targets)) == pytest.approx(expected, rel=1e-5)
    targets[:, 1] = math.nan
    assert float(learner.loss(values, targets)) == pytest.approx(float(own) / 2, rel=1e-5)


def test_refit_trains_on_all_but_the_test_and_folds_calibrate_each_other(
    averaged: Project, tree: dict[str, Any]
) -> None:
    tree["splits"]["tiny-folds"] = tree["splits"]["tiny-60-20-20"] | {
        "split": "folds", "repeats": 3
    }  # fmt: skip
    experiments = tree["experiments"]["demo"]
    one = experiments["log_k-complex"] | {"split": "folds", "fold": "all", "refit": True}
    experiments["log_k-complex-folds"] = one
    (averaged.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(averaged.root)
    splits.build(project, "tiny-folds")
    name = "log_k-complex-folds"
    train(project, "demo", name)
    predict(project, "demo", name)
    evaluate(project, "demo", name)
    metrics = read_json(project.metrics("demo", name))
    assert (metrics["n_val"], metrics["best_epoch"]) == (0, metrics["epochs"])
    experiment = project.params.experiment("demo", name)
    rows = read_csv(project.predictions("demo", name))
    residual = {
        fold: np.array(
            [abs(float(r["target"]) - float(r["prediction"])) for r in rows if r["fold"] == fold]
        )
        for fold in ("0", "1", "2")
    }  # fmt: skip
    for fold, sample in batches.samples(project, experiment):
        assert set(sample.val.ids) < set(sample.train.ids)
        assert not set(sample.test.ids) & set(sample.train.ids)
        assert not sample.calibration.ids
        others = np.sort(np.concatenate([r for f, r in residual.items() if f != fold]))
        widths = {
            round((float(r["upper"]) - float(r["lower"])) / 2, 3)
            for r in rows if r["fold"] == fold
        }  # fmt: skip
        place = math.ceil((len(others) + 1) * 0.9)
        reach = float(others[place - 1])
        assert all(abs(width - reach) < 2e-3 for width in widths)


def taking(project: Project, tree: dict[str, Any], **changes: Any) -> Project:
    """With an experiment on formation energies that takes its networks from one on moduli."""
    first = tree["experiments"]["demo"]["log_k-complex"]
    source = {"group": "demo", "name": "log_k-complex"}
    own = first | {"task": "e_form", "beside": ["log_k"], "pretrained": source, "as_is": True}
    tree["transfer"] = {"demo": {"e_form-complex": own | changes}}
    (project.root / "params.yaml").write_text(json.dumps(tree))
    return config.load(project.root)


def test_networks_of_another_experiment_as_they_are(
    averaged: Project, tree: dict[str, Any]
) -> None:
    """One training, two experiments: the second reads the output that was learned beside."""
    project = taking(averaged, tree)
    for name in ("log_k-complex", "e_form-complex"):
        train(project, "demo", name)
        predict(project, "demo", name)
        evaluate(project, "demo", name)
    first, second = (
        Checkpoint.load(project, "demo", name) for name in ("log_k-complex", "e_form-complex")
    )
    sample = Sample.load(project, project.params.experiment("demo", "e_form-complex"))
    theirs, ours = (
        forward(one.network("", 2), inputs(sample, sample.test)) for one in (first, second)
    )
    assert ours.tolist() == theirs.flip(1).tolist()
    mean, std = (float(f(sample.train.targets)) for f in (np.mean, np.std))
    assert (second.note["mean"], second.note["std"]) == pytest.approx((mean, std))
    values = ours[:, 0].double().numpy() * std + mean
    rows = read_csv(project.predictions("demo", "e_form-complex"))
    assert [float(row["prediction"]) for row in rows] == pytest.approx(values, abs=1e-6)
    assert read_json(project.metrics("demo", "e_form-complex"))["n_train"] == len(sample.train.ids)
    assert len(read_csv(project.history("demo", "e_form-complex"))) == 1


@pytest.mark.parametrize("cause", [KeyboardInterrupt, ValueError])
def test_an_interrupt_that_lightning_stumbles_over(
    ready: Project, monkeypatch: pytest.MonkeyPatch, cause: type[BaseException]
) -> None:
    """Between two epochs, tidying up fails; any other failure is told as what it is."""

    def fit(*_: Any, **__: Any) -> None:
        try:
            raise cause
        except cause:
            len(CombinedLoader([]))  # as in lightning's teardown

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    with pytest.raises(KeyboardInterrupt if cause is KeyboardInterrupt else RuntimeError):
        train(ready, "demo", "log_k-cgcnn")


def test_a_network_of_one_task_as_it_is(averaged: Project, tree: dict[str, Any]) -> None:
    """As one is published that predicts in double precision."""
    tree["experiments"]["demo"]["log_k-complex"]["beside"] = None
    project = taking(averaged, tree, task="log_k", beside=None, precision="double")
    for name in ("log_k-complex", "e_form-complex"):
        train(project, "demo", name)
        predict(project, "demo", name)
    first, second = (
        [float(row["prediction"]) for row in read_csv(project.predictions("demo", name))]
        for name in ("log_k-complex", "e_form-complex")
    )
    assert second == pytest.approx(first, abs=1e-4)


def test_networks_that_have_seen_the_test_crystals_are_refused(
    averaged: Project, tree: dict[str, Any]
) -> None:
    split = tree["splits"]["tiny-60-20-20"]
    tree["splits"]["tiny-other"] = split | {"split": "other", "seed": 7}
    project = taking(averaged, tree, split="other")
    splits.build(project, "tiny-other")
    train(project, "demo", "log_k-complex")
    with pytest.raises(CrystalmeshError, match=r"log_k-complex has learned \d+ crystals"):
        train(project, "demo", "e_form-complex")
    assert not project.checkpoint("demo", "e_form-complex").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "e_form-complex.seed: not as in the experiment"),
        ({"beside": None}, "e_form-complex.beside: with `as_is`"),
        ({"task": "space_group"}, "e_form-complex.beside: with `as_is`"),
    ],
)
def test_what_cannot_be_taken(
    averaged: Project, tree: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CrystalmeshError, match=message):
        taking(averaged, tree, **changes)


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
