"""What networks read of processes: of training crystals, only what all others know."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_tensors
from crystalmesh.learn.batches import Part, Sample
from crystalmesh.learn.predict import Checkpoint, forward, inputs
from crystalmesh.learn.stacking import stacked
from crystalmesh.learn.train import Shared
from crystalmesh.models.gaussian_process import Processes
from tests.conftest import Tree, run_of, write_project
from tests.learn.conftest import DISTILLATION, Renew, fit, made, outputs, without_some
from tests.learn.test_train import stopped_and_resumed
from tests.models.test_delaunay import STACKING


@pytest.fixture
def sample(stacking: Project) -> Sample:
    return Sample.load(stacking, run_of(stacking, "two"))


def said(sample: Sample, part: Part) -> Any:
    return np.concatenate([sample.features[i]["said"] for i in part.ids])


def scaled(sample: Sample) -> Any:
    targets = sample.train.targets
    return (targets - targets.mean()) / targets.std()


def relabelled(sample: Sample, labels: Any) -> Sample:
    """The sample with other labels of its training crystals."""
    return replace(sample, train=replace(sample.train, labels=labels))


def test_a_training_crystal_is_not_told_its_own_label(sample: Sample) -> None:
    """A process is nearer to it where it has seen it."""
    told, arrays = stacked(sample, STACKING)
    errors = np.abs(said(told, sample.train)[:, 0] - scaled(sample))
    processes = Processes()
    processes.load_state_dict(
        {key.removeprefix("processes."): torch.from_numpy(a) for key, a in arrays.items()}
    )
    rows = [
        np.concatenate([sample.features[i]["described"], sample.features[i]["truss"]], axis=1)
        for i in sample.train.ids
    ]
    seen = processes(torch.from_numpy(np.concatenate(rows)).double()).numpy()[:, 0]
    assert np.abs(seen - scaled(sample)).mean() < 0.8 * errors.mean()


def test_labels_of_crystals_to_be_predicted_are_not_read(sample: Sample) -> None:
    told, arrays = stacked(sample, STACKING)

    def blind(part: Part) -> Part:
        return replace(part, labels=np.full_like(part.labels, np.nan))

    unknown = replace(
        sample,
        val=blind(sample.val),
        test={name: blind(part) for name, part in sample.test.items()},
        calibration={name: blind(part) for name, part in sample.calibration.items()},
    )
    other, again = stacked(unknown, STACKING)
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array)
    for part in (sample.train, sample.val, *sample.test.values()):
        np.testing.assert_array_equal(said(other, part), said(told, part))
    labels = sample.train.labels.copy()
    labels[0, 0] += 0.5
    changed, _ = stacked(relabelled(sample, labels), STACKING)
    assert (said(changed, sample.val) != said(told, sample.val)).any()


def test_a_label_that_some_crystals_lack(sample: Sample) -> None:
    """These are told what the process says that does not know them."""
    labels = sample.train.labels.copy()
    labels[:3, 1] = np.nan
    told, arrays = stacked(relabelled(sample, labels), STACKING)
    assert np.isfinite(said(told, sample.train)).all()
    assert (arrays["processes.dual"][1, :3] == 0).all()
    assert (arrays["processes.dual"][0, :3] != 0).all()
    rest, kept = (
        Part(sample.train.ids[own], sample.train.formulas[own], labels[own])
        for own in (slice(3), slice(3, None))
    )
    expected, _ = stacked(replace(sample, train=kept, val=rest), STACKING)
    for part in (rest, kept, *sample.test.values()):
        np.testing.assert_allclose(
            said(told, part)[:, 1], said(expected, part)[:, 1], rtol=0, atol=1e-4
        )


def test_a_label_that_no_crystal_has(sample: Sample) -> None:
    labels = sample.train.labels.copy()
    labels[:, 1] = np.nan
    told, arrays = stacked(relabelled(sample, labels), STACKING)
    expected, _ = stacked(sample, STACKING)
    for part in (sample.train, sample.val):
        assert (said(told, part)[:, 1] == 0).all()
        np.testing.assert_array_equal(said(told, part)[:, 0], said(expected, part)[:, 0])
    assert (arrays["processes.dual"][1] == 0).all()


def test_settings_of_the_processes_are_checked(
    stacking: Project, sample: Sample, tree: Tree
) -> None:
    with pytest.raises(CrystalmeshError, match=r"stacking: freedm: unknown"):
        stacked(sample, STACKING | {"freedm": 1})
    with pytest.raises(CrystalmeshError, match=r"stacking: steps"):
        stacked(sample, {"part": 20, "freedom": 4.0})
    restart = {"epochs": 1, "lr": 0.1, "network": {"stacking": STACKING | {"steps": 5}}}
    tree["models"]["complex"]["training"] |= {"restart": restart}
    with pytest.raises(CrystalmeshError, match=r"restart\.network: changes the sizes"):
        fit(write_project(stacking.root, tree), "two")


def test_the_checkpoint_has_all_that_it_reads(
    stacking: Project, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = made(stacking, "two")
    run = run_of(stacking, "two")
    assert len(rows) == len(sample.test["log_k"].ids)
    told, arrays = stacked(sample, STACKING)
    tensors = read_tensors(stacking.checkpoint(run))
    assert len(arrays) == 4
    for key, array in arrays.items():
        np.testing.assert_array_equal(tensors[key], array)
    assert len(tensors["processes.support"]) == len(sample.train.ids)
    assert tensors["processes.weights"].dtype == np.float64
    assert tensors["told.weight"].dtype == np.float16
    net = Checkpoint.load(stacking, run).network(stacking, "")
    found = forward(net, inputs(sample, sample.val))
    assert torch.equal(found, forward(net, inputs(told, sample.val)))
    expected = outputs(stacking, "two")
    stopped_and_resumed(stacking, "two", monkeypatch)
    assert outputs(stacking, "two") == expected


def test_a_stacked_network_teaches_what_its_own_processes_say(
    stacking: Project, tree: Tree, renew: Renew
) -> None:
    assert stacking
    without_some(tree)
    tree["splits"]["tiny"]["60-20-20"]["by"] = "log_k"
    runs = tree["studies"]["demo"]["runs"]
    runs["distilled"] = runs["two"] | {"distillation": DISTILLATION}
    project = renew(tree)
    fit(project, "two", "distilled")
    run = run_of(project, "distilled")
    known = Checkpoint.load(project, run_of(project, "two"))
    plain = Sample.load(project, run)
    shared = Shared.of(project, run, plain, known, "0", {})
    assert plain.pool is not None
    assert shared.soft is not None
    assert shared.soft.sample.pool is not None
    assert all("said" in shared.soft.sample.features[i] for i in plain.pool.ids)
    expected = forward(known.network(project, ""), inputs(plain, plain.pool))
    torch.testing.assert_close(shared.soft.outputs, expected, rtol=0, atol=0)


def test_classes_have_no_process(stacking: Project, tree: Tree) -> None:
    tree["studies"]["demo"]["runs"]["two"]["targets"] = ["space_group"]
    tree["splits"]["tiny"]["60-20-20"].pop("by")
    with pytest.raises(CrystalmeshError, match="stacking: not of classes"):
        fit(write_project(stacking.root, tree), "two")
