"""A network with two targets, of which the second's label may be missing."""

import json
import math

import numpy as np
import pytest
import torch

from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_note, read_tensors
from crystalmesh.learn.batches import Sample
from crystalmesh.learn.learner import Learner, moments
from crystalmesh.learn.predict import Checkpoint, forward, inputs
from crystalmesh.models.heads import Head
from tests.conftest import Tree, run_of
from tests.learn.conftest import Renew, fit, made, without_some


def test_both_targets_are_learned_predicted_and_evaluated(
    two: Project, tree: Tree, renew: Renew
) -> None:
    """Of moduli that some crystals lack: these have no part in their loss, nor in their test."""
    assert two
    without_some(tree)
    tree["studies"]["demo"]["runs"]["two"]["targets"] = ["e_form", "log_k"]
    project = renew(tree)
    run = run_of(project, "two")
    _, metrics = made(project, "two")
    sample = Sample.load(project, run)
    assert sample.train.labels.shape == (18, 2)
    assert 0 < np.isnan(sample.train.labels[:, 1]).sum() < 18
    assert set(sample.test["log_k"].ids) < set(sample.test["e_form"].ids)
    note = json.loads(read_note(project.checkpoint(run)))
    assert list(note["targets"]) == sorted(run.targets)
    assert read_tensors(project.checkpoint(run))["out.bias"].shape == (2,)
    net = Checkpoint.load(project, run).network(project, "")
    for k, target in enumerate(run.targets):
        known = sample.train.labels[:, k]
        known = known[np.isfinite(known)]
        mean, std = note["moments"][target]
        assert (mean, std) == pytest.approx((known.mean(), known.std()), rel=1e-6)
        rows = read_csv(project.predictions(run, target))
        assert [row["id"] for row in rows] == sample.test[target].ids
        said = forward(net, inputs(sample, sample.test[target]))[:, k].double().numpy()
        found = [float(row["prediction"]) for row in rows]
        assert found == pytest.approx(said * std + mean, abs=1e-6)
        errors = [abs(float(r["target"]) - float(r["prediction"])) for r in rows]
        own = metrics["targets"][target]
        assert (own["n_test"], own["value"]) == (len(rows), pytest.approx(np.mean(errors)))
    assert read_json(project.metrics(run)) == metrics
    # the first target is what is validated
    history = [float(row["val_metric"]) for row in read_csv(project.history(run))]
    mean, std = note["moments"]["e_form"]
    said = forward(net, inputs(sample, sample.val))[:, 0].double().numpy() * std + mean
    error = float(np.abs(said - sample.val.targets).mean())
    assert error == pytest.approx(min(history), rel=1e-6)


def test_the_loss_is_the_mean_of_both_each_over_the_crystals_that_have_it(two: Project) -> None:
    run = run_of(two, "two")
    sample = Sample.load(two, run)
    head = Head({name: two.params.targets[name] for name in run.targets})
    learner = Learner(torch.nn.Identity(), head, two.params.training(run), sample, 0)
    (mean, std), (other_mean, other_std) = learner.moments
    labels = torch.tensor([[1.0, 5.0], [2.0, math.nan]], dtype=torch.float64)
    values = torch.zeros(2, 2)
    own = (abs(1.0 - mean) + abs(2.0 - mean)) / 2 / std
    other = abs(5.0 - other_mean) / other_std
    assert float(learner.loss(values, labels)) == pytest.approx((own + other) / 2, rel=1e-5)
    labels[:, 1] = math.nan
    assert float(learner.loss(values, labels)) == pytest.approx(own / 2, rel=1e-5)


def test_moments_of_labels_that_none_or_all_equal_have() -> None:
    labels = np.array([[1.0, math.nan, 3.0], [3.0, math.nan, 3.0]])
    assert moments(list(labels.T), first=True) == [(2.0, 1.0), (0.0, 1.0), (3.0, 1.0)]
    assert moments(list(labels.T), first=False)[0] == (0.0, 1.0)


def test_a_second_target_is_not_tested_on_crystals_that_are_learned(
    two: Project, tree: Tree, renew: Renew
) -> None:
    """Each target's own parts: where labels are missing, they are other crystals."""
    assert two
    without_some(tree)
    del tree["splits"]["tiny"]["60-20-20"]["by"]
    project = renew(tree)
    with pytest.raises(
        CrystalmeshError,
        match=r"demo/two: \d+ crystals that e_form is tested or calibrated on are .* \(`by`\)",
    ):
        fit(project, "two")
    assert not project.checkpoint(run_of(project, "two")).exists()
