"""What networks learn from others: on which crystals, and that it is what the others say."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.data import crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_tensors
from crystalmesh.learn.batches import Part, Sample
from crystalmesh.learn.lessons import Lessons, substituted
from crystalmesh.learn.predict import Checkpoint, forward, inputs
from crystalmesh.learn.train import train
from crystalmesh.models import classical
from crystalmesh.represent import representation
from tests.learn.conftest import some_without
from tests.learn.test_train import outputs, stopped_and_resumed, taking
from tests.models.test_complex import PROCESS


@pytest.fixture
def pupil(averaged: Project, tree: dict[str, Any]) -> Project:
    """An experiment that another one teaches, on the crystals whose modulus is out of range."""
    experiments = tree["experiments"]["demo"]
    own = experiments["log_k-complex"]
    taught = {"atoms": 3, "batch_size": 4, "weight": 0.5}
    source = {"pretrained": {"group": "demo", "name": "log_k-complex"}}
    tree["transfer"] = {"demo": {"log_k-taught": own | source | {"taught": taught}}}
    project = some_without(averaged, tree, "orbits")
    train(project, "demo", "log_k-complex")
    return project


def test_a_network_is_taught_on_crystals_without_labels(
    pupil: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "log_k-taught"
    sample = Sample.load(pupil, pupil.params.experiment("demo", name))
    assert sample.pool is not None
    assert len(sample.pool.ids) == 9
    assert not set(sample.pool.ids) & {*sample.train.ids, *sample.val.ids, *sample.test.ids}
    train(pupil, "demo", name)
    expected = outputs(pupil, name)
    plain, own = (read_tensors(pupil.checkpoint("demo", one)) for one in ("log_k-complex", name))
    assert not np.array_equal(plain["out.weight"], own["out.weight"])
    stopped_and_resumed(pupil, name, monkeypatch)
    assert outputs(pupil, name) == expected


def test_lessons_are_what_the_teacher_says_and_all_crystals_get_their_turn(pupil: Project) -> None:
    experiment = pupil.params.experiment("demo", "log_k-taught")
    sample = Sample.load(pupil, experiment)
    assert sample.pool is not None
    assert experiment.taught is not None
    net = Checkpoint.load(pupil, "demo", "log_k-complex").network("", 2)
    said = forward(net, inputs(sample, sample.pool))
    lessons = Lessons(sample, said, experiment.taught)
    order = lessons.order((1, 2, 3))
    assert sorted(order) == list(range(9))
    assert order.tolist() == lessons.order((1, 2, 3)).tolist() != lessons.order((1, 3, 3)).tolist()
    for step in range(3):  # the teacher has nothing to learn, one who is off by 2 much
        assert float(lessons.loss(net, order, step).detach()) == pytest.approx(0, abs=1e-5)
        other = Lessons(sample, said + 2, experiment.taught)
        assert float(other.loss(net, order, step).detach()) == pytest.approx(0.5 * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "other"}, "log_k-taught.split: not as in the experiment"),
        ({"pretrained": None}, "log_k-taught.taught: needs `pretrained`"),
        ({"as_is": True}, "log_k-taught.taught: with `as_is`"),
    ],
)
def test_who_cannot_be_taught(
    pupil: Project, tree: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    split = tree["splits"]["tiny-60-20-20"]
    tree["splits"]["tiny-other"] = split | {"split": "other", "seed": 7}
    own = tree["transfer"]["demo"].pop("log_k-taught") | changes
    place = tree["transfer"]["demo"] if own["pretrained"] else tree["experiments"]["demo"]
    place["log_k-taught"] = own
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=message):
        config.load(pupil.root)


def test_without_unlabelled_crystals_nothing_can_be_taught(
    averaged: Project, tree: dict[str, Any]
) -> None:
    project = taking(
        averaged, tree, task="log_k", beside=["e_form"], as_is=None,
        taught={"atoms": 3, "batch_size": 4, "weight": 0.5},
    )  # fmt: skip
    with pytest.raises(CrystalmeshError, match="no crystal of tiny without bulk modulus"):
        Sample.load(project, project.params.experiment("demo", "e_form-complex"))


def test_substituted_crystals_have_similar_elements_of_training_crystals(pupil: Project) -> None:
    sample = Sample.load(pupil, pupil.params.experiment("demo", "log_k-taught"))
    more = substituted(sample, 2, 0)
    assert sample.pool is not None
    assert more.pool is not None
    before, train_ids = len(sample.pool.ids), sample.train.ids
    assert more.pool.ids[:before] == sample.pool.ids
    new = more.pool.ids[before:]
    assert [one.partition(" ")[0] for one in new] == [one for one in train_ids for _ in range(2)]
    assert len(set(new)) == len(new) == len(more.pool.formulas) - before
    assert np.isnan(more.pool.targets).all()
    seen = {int(z) for one in train_ids for z in sample.features[one]["numbers"]}
    changed = 0
    for one in new:
        item, source = more.features[one], sample.features[one.partition(" ")[0]]
        assert set(item["numbers"].tolist()) <= seen
        changed += not np.array_equal(item["numbers"], source["numbers"])
        # equal sites stay equal, lengths grow alike
        assert len(np.unique(np.stack([source["numbers"], item["numbers"]]), axis=1).T) == len(
            np.unique(source["numbers"])
        )
        factors = item["edges_size"][:, 0] / source["edges_size"][:, 0]
        assert np.ptp(factors) < 1e-5
    assert changed > len(new) / 2
    again, other = substituted(sample, 2, 0).features, substituted(sample, 2, 1).features
    for i in new:
        assert np.array_equal(again[i]["numbers"], more.features[i]["numbers"])
        assert not np.array_equal(other[i]["edges_size"], more.features[i]["edges_size"])


def taught(pupil: Project, tree: dict[str, Any], **settings: Any) -> tuple[Project, Lessons]:
    """The pupil with other settings of how it is taught, and its lessons."""
    tree["transfer"]["demo"]["log_k-taught"]["taught"] |= settings
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(pupil.root)
    experiment = project.params.experiment("demo", "log_k-taught")
    known = Checkpoint.load(project, "demo", "log_k-complex")
    lessons = Lessons.of(project, experiment, Sample.load(project, experiment), known, "")
    assert lessons is not None
    return project, lessons


def said_by_networks(project: Project, sample: Sample) -> torch.Tensor:
    """What the teacher says of the crystals of a pool."""
    assert sample.pool is not None
    net = Checkpoint.load(project, "demo", "log_k-complex").network("", 2)
    return forward(net, inputs(sample, sample.pool))


def learns_something_else(
    pupil: Project, changed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than with the first settings; and so again where it was stopped and resumed."""
    name = "log_k-taught"
    train(pupil, "demo", name)
    without = outputs(pupil, name)
    train(changed, "demo", name)
    expected = outputs(changed, name)
    assert expected != without
    stopped_and_resumed(changed, name, monkeypatch)
    assert outputs(changed, name) == expected


def test_lessons_on_substituted_crystals(
    pupil: Project, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, lessons = taught(pupil, tree, substituted=3)
    sample = Sample.load(project, project.params.experiment("demo", "log_k-taught"))
    assert sample.pool is not None
    assert len(lessons.outputs) == len(sample.pool.ids) + 3 * len(sample.train.ids)
    assert torch.equal(lessons.outputs, said_by_networks(project, lessons.sample))
    learns_something_else(pupil, project, monkeypatch)


def test_a_taught_network_may_be_another_than_its_teacher(
    pupil: Project, tree: dict[str, Any]
) -> None:
    model = tree["models"]["complex"]
    tree["models"]["wide"] = model | {"network": model["network"] | {"width": 12}}
    own = tree["transfer"]["demo"]["log_k-taught"]
    own["model"] = "wide"
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(pupil.root)
    train(project, "demo", "log_k-taught")
    assert read_tensors(project.checkpoint("demo", "log_k-taught"))["out.weight"].shape[1] > 8
    del own["taught"]  # but no weights are taken into another network
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match="of another model or representation"):
        config.load(pupil.root)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"truss": True}, r"reads the truss; use complex\.truss"),
        ({"described": 8}, r"reads descriptors; use complex\.described"),
        ({"process": PROCESS}, r"reads descriptors; use complex\.described"),
    ],
)
def test_what_a_network_reads_must_be_told(
    pupil: Project, tree: dict[str, Any], setting: dict[str, Any], message: str
) -> None:
    tree["models"]["complex"]["network"] |= setting
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=message):
        config.load(pupil.root)


def test_who_reads_more_than_its_teacher(kriged: Project, tree: dict[str, Any]) -> None:
    """A network on descriptors is taught by one on the truss, if both are told the same truss."""
    complexes, models = tree["representations"]["complex"], tree["models"]
    complexes["truss"] = dict(complexes["described"])
    block = tree["features"]["tiny-complex_described"] | {"representation": "complex.truss"}
    tree["features"]["tiny-complex_truss"] = block
    models["truss"] = models["complex"] | {"network": {"width": 8, "layers": 2, "truss": True}}
    models["complex"]["network"] = {"width": 8, "layers": 2, "described": 4}
    first = tree["experiments"]["demo"]["log_k-complex"]
    source = {"pretrained": {"group": "demo", "name": "log_k-complex"}}
    own = first | source | {"taught": {"atoms": 3, "batch_size": 4, "weight": 0.5}}
    tree["transfer"] = {"demo": {"log_k-taught": own}}
    first |= {"representation": "complex.truss", "model": "truss"}
    project = some_without(kriged, tree, "truss", "described")
    for name in ("log_k-complex", "log_k-taught"):
        train(project, "demo", name)
    known = Checkpoint.load(project, "demo", "log_k-complex")
    taught, teacher = (
        project.params.experiment("demo", one) for one in ("log_k-taught", "log_k-complex")
    )
    lessons = Lessons.of(project, taught, Sample.load(project, taught), known, "0")
    assert lessons is not None
    pool = lessons.sample.pool
    assert pool is not None
    said = forward(known.network("", 2), inputs(Sample.load(project, teacher), pool))
    torch.testing.assert_close(lessons.outputs, said, rtol=0, atol=0)
    complexes["truss"]["tolerance"] *= 2
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match="is of another model or representation"):
        config.load(kriged.root)
    complexes["truss"]["tolerance"] /= 2
    own |= {"representation": "complex.truss", "model": "truss"}
    first |= {"representation": "complex.described", "model": "complex"}
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match="is of another model or representation"):
        config.load(kriged.root)


def test_only_complexes_are_substituted(pupil: Project, tree: dict[str, Any]) -> None:
    graph = {"representation": "graph.cgcnn", "model": "cgcnn"}
    tree["experiments"]["demo"]["log_k-complex"] |= graph
    taught = tree["transfer"]["demo"]["log_k-taught"]
    taught |= graph | {"taught": taught["taught"] | {"substituted": 1}}
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=r"taught\.substituted: needs complex\.orbits"):
        config.load(pupil.root)
    tree["representations"]["complex"]["truss"] = {"symprec": 0.01, "tolerance": 0.001}
    for own in (taught, tree["experiments"]["demo"]["log_k-complex"]):
        own |= {"representation": "complex.truss", "model": "complex"}
    (pupil.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=r"taught\.substituted: needs complex\.orbits"):
        config.load(pupil.root)


RIDGE: dict[str, Any] = {
    "network": {"estimator": "ridge", "alpha": 1.0},
    "structure": {"symprec": 0.01},
}


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("structure", "descriptors.structure", RIDGE["structure"]),
        ("truss", "truss.descriptors", {"symprec": 0.01, "tolerance": 0.001}),
    ],
)
def test_a_classical_model_teaches_beside_the_networks(
    pupil: Project,
    tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
    settings: dict[str, Any],
) -> None:
    ridge = {"network": RIDGE["network"], kind: settings, "share": 0.25}
    project, lessons = taught(pupil, tree, classical=ridge)
    sample = lessons.sample
    assert sample.pool is not None
    said = said_by_networks(project, sample).double().numpy()
    structures = crystals.Crystals.load(project.crystals("tiny"))
    maker = representation(name, settings)

    def described(part: Part) -> Any:
        items = [maker.build(structures[structures.position(i)]) for i in part.ids]
        return maker.collate(items)["values"].numpy()

    facts, _ = Checkpoint.load(project, "demo", "log_k-complex").run("")
    moments = [(facts["mean"], facts["std"]), *facts["moments"].values()]
    for k, targets in enumerate(sample.train.labels.T):
        line = classical.fit(RIDGE["network"], described(sample.train), targets, 0, None)
        mean, std = moments[k]
        other = (classical.apply(RIDGE["network"], line, described(sample.pool)) - mean) / std
        mixed = 0.75 * said[:, k] + 0.25 * other
        assert lessons.outputs[:, k].numpy() == pytest.approx(mixed, abs=1e-5)
        assert np.abs(mixed - said[:, k]).max() > 0.01
    experiment = project.params.experiment("demo", "log_k-taught")
    known = Checkpoint.load(project, "demo", "log_k-complex")
    memo: dict[str, Any] = {}
    first = Lessons.of(project, experiment, sample, known, "", memo)
    assert set(memo) == {*sample.train.ids, *sample.pool.ids}
    for values in memo.values():  # another fold takes what is there
        values[:] = 0.0
    again = Lessons.of(project, experiment, sample, known, "", memo)
    assert first is not None
    assert again is not None
    assert torch.equal(first.outputs, lessons.outputs)
    assert not torch.equal(again.outputs, lessons.outputs)
    learns_something_else(pupil, project, monkeypatch)


def test_a_classical_teacher_that_cannot_be(pupil: Project, tree: dict[str, Any]) -> None:
    without_alpha = RIDGE | {"share": 0.5, "network": {"estimator": "ridge"}}
    with pytest.raises(CrystalmeshError, match="alpha: ridge needs it"):
        taught(pupil, tree, classical=without_alpha)
    with pytest.raises(CrystalmeshError, match=r"classical\.share"):
        taught(pupil, tree, classical=RIDGE | {"share": 1.0})
    with pytest.raises(CrystalmeshError, match=r"taught\.classical: substituted crystals"):
        taught(pupil, tree, classical=RIDGE | {"share": 0.5}, substituted=1)
    both = RIDGE | {"share": 0.5, "truss": {"symprec": 0.01, "tolerance": 0.001}}
    neither = {"network": RIDGE["network"], "share": 0.5}
    del tree["transfer"]["demo"]["log_k-taught"]["taught"]["substituted"]
    for wrong in (both, neither):
        with pytest.raises(CrystalmeshError, match="needs either structure or truss"):
            taught(pupil, tree, classical=wrong)
