"""What networks learn from others: on which crystals, and that it is what the others say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh.config.project import Project
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_tensors
from crystalmesh.learn.batches import Part, Sample
from crystalmesh.learn.distillation import SoftLabels
from crystalmesh.learn.predict import Checkpoint, forward, inputs
from crystalmesh.models import classical
from crystalmesh.represent import representation
from tests.conftest import Tree, run_of, write_project
from tests.learn.conftest import COMPLEX, DISTILLATION, Renew, fit, outputs, without_some
from tests.learn.test_train import stopped_and_resumed

RIDGE: dict[str, Any] = {
    "network": {"estimator": "ridge", "alpha": 1.0},
    "representation": "descriptors.structure",
    "share": 0.25,
}
Distil = Callable[..., Project]


@pytest.fixture
def distil(two: Project, tree: Tree, renew: Renew) -> Distil:
    """A run that another one, which is trained, teaches on crystals without a modulus."""
    assert two
    without_some(tree)
    tree["representations"] |= {
        "descriptors": {"structure": {"symprec": 0.01}},
        "elastic": {"descriptors": COMPLEX},
    }
    runs = tree["studies"]["demo"]["runs"]
    # moduli first: a crystal without one is without a label
    tree["splits"]["tiny"]["60-20-20"]["by"] = "log_k"

    def make(**settings: Any) -> Project:
        runs["distilled"] = runs["two"] | {"distillation": DISTILLATION | settings}
        project = renew(tree)
        if not project.checkpoint(run_of(project, "two")).exists():
            fit(project, "two")
        return project

    return make


def soft_labels(project: Project, memo: dict[str, Any] | None = None) -> SoftLabels:
    """What the run `distilled` is taught."""
    run = run_of(project, "distilled")
    known = Checkpoint.load(project, run_of(project, "two"))
    sample = Sample.load(project, run)
    soft = SoftLabels.of(project, run, sample, known, "0", {} if memo is None else memo)
    assert soft is not None
    return soft


def said_by_networks(project: Project, sample: Sample) -> torch.Tensor:
    """What the teacher says of the crystals of a pool."""
    assert sample.pool is not None
    net = Checkpoint.load(project, run_of(project, "two")).network(project, "")
    return forward(net, inputs(sample, sample.pool))


def test_a_network_is_distilled_on_crystals_without_labels(
    distil: Distil, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = distil()
    sample = Sample.load(project, run_of(project, "distilled"))
    assert sample.pool is not None
    assert len(sample.pool.ids) == 9
    known = {*sample.train.ids, *sample.val.ids, *sample.test["log_k"].ids}
    assert not set(sample.pool.ids) & known
    fit(project, "distilled")
    expected = outputs(project, "distilled")
    plain, own = (
        read_tensors(project.checkpoint(run_of(project, name))) for name in ("two", "distilled")
    )
    assert not np.array_equal(plain["out.weight"], own["out.weight"])
    stopped_and_resumed(project, "distilled", monkeypatch)
    assert outputs(project, "distilled") == expected


def test_soft_labels_are_what_the_teacher_says_and_all_crystals_get_their_turn(
    distil: Distil,
) -> None:
    project = distil()
    soft = soft_labels(project)
    assert torch.equal(soft.outputs, said_by_networks(project, soft.sample))
    net = Checkpoint.load(project, run_of(project, "two")).network(project, "")
    order = soft.order((1, 2, 3))
    assert sorted(order) == list(range(9))
    assert order.tolist() == soft.order((1, 2, 3)).tolist() != soft.order((1, 3, 3)).tolist()
    off = SoftLabels(soft.sample, soft.outputs + 2, soft.settings)
    for step in range(3):  # the teacher has nothing to learn, one who is off by 2 much
        assert float(soft.loss(net.eval(), order, step).detach()) == pytest.approx(0, abs=1e-5)
        assert float(off.loss(net, order, step).detach()) == pytest.approx(0.5 * 2, rel=1e-5)


@pytest.mark.parametrize("name", ["descriptors.structure", "elastic.descriptors"])
def test_a_classical_model_teaches_beside_the_networks(distil: Distil, name: str) -> None:
    project = distil(classical=RIDGE | {"representation": name})
    memo: dict[str, Any] = {}
    soft = soft_labels(project, memo)
    sample = soft.sample
    assert sample.pool is not None
    said = said_by_networks(project, sample).double().numpy()
    structures = Crystals.load(project.crystals("tiny"))
    maker = representation(name, project.params.representation(name))

    def described(part: Part) -> Any:
        items = [maker.build(structures[structures.position(i)]) for i in part.ids]
        return maker.collate(items)["values"].numpy()

    run = run_of(project, "distilled")
    facts, _ = Checkpoint.load(project, run_of(project, "two")).of("")
    for k, target in enumerate(run.targets):
        labels = sample.train.labels[:, k]
        line = classical.fit(RIDGE["network"], described(sample.train), labels, 0, None)
        mean, std = facts["moments"][target]
        other = (classical.apply(RIDGE["network"], line, described(sample.pool)) - mean) / std
        mixed = 0.75 * said[:, k] + 0.25 * other
        assert soft.outputs[:, k].numpy() == pytest.approx(mixed, abs=1e-5)
        assert np.abs(mixed - said[:, k]).max() > 0.01
    assert set(memo) == {*sample.train.ids, *sample.pool.ids}
    for values in memo.values():  # another fold takes what is there
        values[:] = 0.0
    assert not torch.equal(soft_labels(project, memo).outputs, soft.outputs)


def test_a_distilled_network_may_be_another_than_its_teacher(distil: Distil, tree: Tree) -> None:
    model = tree["models"]["complex"]
    tree["models"]["wide"] = model | {
        "architecture": "delaunay", "network": model["network"] | {"width": 12}
    }  # fmt: skip
    project = distil()
    runs = tree["studies"]["demo"]["runs"]
    runs["distilled"]["model"] = "wide"
    project = write_project(project.root, tree)
    fit(project, "distilled")
    path = project.checkpoint(run_of(project, "distilled"))
    assert read_tensors(path)["out.weight"].shape[1] > 8
    # but no weights are taken into another network
    runs["distilled"] = runs["two"] | {"model": "wide", "start": "demo/two"}
    with pytest.raises(CrystalmeshError, match="has another network or representation"):
        write_project(project.root, tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "other"}, "demo/two has another `split`"),
        ({"targets": ["log_k"]}, "demo/two has another `targets`"),
        ({"representation": "complex.full"}, r"demo/two cannot read complex\.full"),
        ({"start": "demo/two"}, "a distilled network starts anew"),
        ({"classical": RIDGE | {"share": 1.0}}, r"classical\.share"),
        ({"classical": RIDGE | {"representation": "descriptors.none"}}, "no variant 'none'"),
        ({"run": "demo/none"}, "no run of study demo 'none'"),
    ],
)
def test_who_cannot_be_taught(
    tmp_path: Path, two: Project, tree: Tree, change: dict[str, Any], message: str
) -> None:
    assert two
    tree["representations"]["descriptors"] = {"structure": {"symprec": 0.01}}
    tree["representations"]["complex"]["full"] = COMPLEX | {"tolerance": 0.1}
    tree["features"]["tiny"]["complex.full"] = {}
    splits, runs = tree["splits"]["tiny"], tree["studies"]["demo"]["runs"]
    splits["other"] = splits["60-20-20"] | {"seed": 7}
    inner = {key: value for key, value in change.items() if key in ("classical", "run")}
    outer = {key: value for key, value in change.items() if key not in inner}
    runs["distilled"] = runs["two"] | {"distillation": DISTILLATION | inner} | outer
    with pytest.raises(CrystalmeshError, match=message):
        write_project(tmp_path / "other", tree)


def test_a_classical_teacher_without_a_setting_is_named(distil: Distil) -> None:
    project = distil(classical=RIDGE | {"network": {"estimator": "ridge"}})
    with pytest.raises(CrystalmeshError, match="alpha: ridge needs it"):
        soft_labels(project)


def test_without_unlabelled_crystals_nothing_can_be_learned(
    two: Project, tree: Tree, renew: Renew
) -> None:
    assert two
    runs = tree["studies"]["demo"]["runs"]
    runs["distilled"] = runs["two"] | {"distillation": DISTILLATION}
    project = renew(tree)
    with pytest.raises(CrystalmeshError, match="no crystal of tiny without bulk modulus"):
        Sample.load(project, run_of(project, "distilled"))
