"""What networks are told by processes: of training crystals, only what all others know."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from crystalmesh import config
from crystalmesh.config import Project, Source
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_tensors
from crystalmesh.learn.batches import Part, Sample
from crystalmesh.learn.kriging import informed
from crystalmesh.learn.predict import Checkpoint, forward, inputs, predict
from crystalmesh.learn.train import Shared, train
from crystalmesh.models.gaussian_process import Processes
from tests.learn.conftest import some_without
from tests.learn.test_train import outputs, stopped_and_resumed
from tests.models.test_complex import PROCESS


def sample_of(project: Project) -> Sample:
    return Sample.load(project, project.params.experiment("demo", "log_k-complex"))


def said(sample: Sample, part: Part) -> Any:
    return np.concatenate([sample.features[i]["said"] for i in part.ids])


def relabelled(sample: Sample, row: int, by: float) -> Sample:
    """The sample with another label of one training crystal."""
    targets = sample.train.targets.copy()
    targets[row] += by
    return replace(sample, train=replace(sample.train, targets=targets))


def test_a_training_crystal_is_not_told_its_own_label(kriged: Project) -> None:
    """A process is nearer to it where it has seen it."""
    sample = sample_of(kriged)
    told, arrays = informed(sample, PROCESS)
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


def scaled(sample: Sample) -> Any:
    targets = sample.train.targets
    return (targets - targets.mean()) / targets.std()


def test_labels_of_crystals_to_be_predicted_are_not_read(kriged: Project) -> None:
    sample = sample_of(kriged)
    told, arrays = informed(sample, PROCESS)
    unknown = {
        name: replace(part, targets=np.full(len(part.ids), np.nan), beside=None)
        for name in ("val", "test", "calibration")
        for part in [getattr(sample, name)]
    }
    other, again = informed(replace(sample, **unknown), PROCESS)
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array)
    for part in (sample.train, sample.val, sample.test):
        np.testing.assert_array_equal(said(other, part), said(told, part))
    changed, _ = informed(relabelled(sample, 0, 0.5), PROCESS)
    assert (said(changed, sample.test) != said(told, sample.test)).any()


def test_a_label_that_some_crystals_lack(kriged: Project) -> None:
    """These are told what the process says that does not know them."""
    sample = sample_of(kriged)
    assert sample.train.beside is not None
    beside = sample.train.beside.copy()
    beside[:3] = np.nan
    fewer = replace(sample, train=replace(sample.train, beside=beside))
    told, arrays = informed(fewer, PROCESS)
    assert np.isfinite(said(told, sample.train)).all()
    assert (arrays["processes.dual"][1, :3] == 0).all()
    assert (arrays["processes.dual"][0, :3] != 0).all()
    kept = Part(sample.train.ids[3:], sample.train.formulas[3:], sample.train.targets[3:])
    alone = replace(sample, train=replace(kept, beside=beside[3:]))
    rest = Part(sample.train.ids[:3], sample.train.formulas[:3], sample.train.targets[:3])
    expected, _ = informed(replace(alone, val=rest), PROCESS)
    for part in (rest, kept, sample.test):
        np.testing.assert_allclose(
            said(told, part)[:, 1], said(expected, part)[:, 1], rtol=0, atol=1e-4
        )


def test_a_label_that_no_crystal_has(kriged: Project) -> None:
    sample = sample_of(kriged)
    none = np.full((len(sample.train.ids), 1), np.nan)
    told, arrays = informed(replace(sample, train=replace(sample.train, beside=none)), PROCESS)
    assert (said(told, sample.test)[:, 1] == 0).all()
    assert (said(told, sample.train)[:, 1] == 0).all()
    expected, _ = informed(sample, PROCESS)
    np.testing.assert_array_equal(said(told, sample.test)[:, 0], said(expected, sample.test)[:, 0])
    assert (arrays["processes.dual"][1] == 0).all()


def test_settings_of_the_process_are_checked(kriged: Project, tree: dict[str, Any]) -> None:
    sample = sample_of(kriged)
    with pytest.raises(CrystalmeshError, match=r"process\.freedm: unknown"):
        informed(sample, PROCESS | {"freedm": 1})
    with pytest.raises(CrystalmeshError, match=r"process\.steps"):
        informed(sample, {"part": 20, "freedom": 4.0})
    restart = {"epochs": 1, "lr": 0.1, "network": {"process": PROCESS | {"steps": 5}}}
    tree["models"]["complex"]["training"] |= {"restart": restart}
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=r"restart\.network: changes the sizes"):
        train(config.load(kriged.root), "demo", "log_k-complex")


def test_the_checkpoint_has_all_that_it_reads(
    kriged: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(kriged, "demo", "log_k-complex")
    sample = sample_of(kriged)
    told, arrays = informed(sample, PROCESS)
    tensors = read_tensors(kriged.checkpoint("demo", "log_k-complex"))
    assert len(arrays) == 4
    for key, array in arrays.items():
        np.testing.assert_array_equal(tensors[key], array)
    assert len(tensors["processes.support"]) == len(sample.train.ids)
    assert tensors["processes.weights"].dtype == np.float64
    assert tensors["told.weight"].dtype == np.float16
    net = Checkpoint.load(kriged, "demo", "log_k-complex").network("", 2)
    found = forward(net, inputs(sample, sample.test))
    assert torch.equal(found, forward(net, inputs(told, sample.test)))
    predict(kriged, "demo", "log_k-complex")
    assert len(read_csv(kriged.predictions("demo", "log_k-complex"))) == len(sample.test.ids)
    expected = outputs(kriged, "log_k-complex")
    stopped_and_resumed(kriged, "log_k-complex", monkeypatch)
    assert outputs(kriged, "log_k-complex") == expected


def test_the_process_of_another_output(kriged: Project, tree: dict[str, Any]) -> None:
    """Read at the output beside, the network says the same, whichever comes first."""
    own = tree["experiments"]["demo"]["log_k-complex"]
    source = {"pretrained": {"group": "demo", "name": "log_k-complex"}, "as_is": True}
    tree["transfer"] = {
        "demo": {"e_form-complex": own | source | {"task": "e_form", "beside": ["log_k"]}}
    }
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    project = config.load(kriged.root)
    train(project, "demo", "log_k-complex")
    train(project, "demo", "e_form-complex")
    sample = sample_of(project)
    one, other = (
        forward(Checkpoint.load(project, "demo", name).network("", 2), inputs(sample, sample.test))
        for name in ("log_k-complex", "e_form-complex")
    )
    torch.testing.assert_close(one, other.flip(1), rtol=0, atol=1e-6)


def test_who_is_taught_by_such_a_network(kriged: Project, tree: dict[str, Any]) -> None:
    """The teachers ask processes of their own, whose outputs may be in another order."""
    own = tree["experiments"]["demo"]["log_k-complex"]
    tree["splits"]["tiny-60-20-20"]["by"] = "log_k"

    def source(name: str) -> dict[str, Any]:
        return {"pretrained": {"group": "demo", "name": name}}

    other = own | {"task": "e_form", "beside": ["log_k"], **source("log_k-complex")}
    back = own | {"taught": {"atoms": 3, "batch_size": 4, "weight": 0.5}}
    tree["transfer"] = {"demo": {
        "e_form-complex": other | {"as_is": True},
        "log_k-taught": back | source("log_k-complex"),
    }}  # fmt: skip
    project = some_without(kriged, tree, "described")
    train(project, "demo", "log_k-complex")
    train(project, "demo", "e_form-complex")
    train(project, "demo", "log_k-taught")
    taught = project.params.experiment("demo", "log_k-taught")
    plain = Sample.load(project, taught)
    assert plain.pool is not None
    for name, order in (("log_k-complex", [0, 1]), ("e_form-complex", [1, 0])):
        known = Checkpoint.load(project, "demo", name)
        asked = taught.model_copy(update={"pretrained": Source(group="demo", name=name)})
        shared = Shared.of(project, asked, plain, known, "0", {})
        assert shared.lessons is not None
        told = shared.lessons.sample
        assert told.pool is not None
        assert all("said" in told.features[i] for i in told.pool.ids)
        outputs = forward(known.network("", 2), inputs(plain, plain.pool))
        torch.testing.assert_close(shared.lessons.outputs, outputs, rtol=0, atol=0)
        first = forward(
            Checkpoint.load(project, "demo", "log_k-complex").network("", 2),
            inputs(plain, plain.pool),
        )
        torch.testing.assert_close(outputs[:, order], first, rtol=0, atol=1e-6)
    del back["taught"]
    tree["transfer"]["demo"]["log_k-taught"] = back | source("e_form-complex")
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match="reads processes of another experiment"):
        config.load(kriged.root)


def test_classes_have_no_process(kriged: Project, tree: dict[str, Any]) -> None:
    own = tree["experiments"]["demo"]
    own["space_group-complex"] = own["log_k-complex"] | {"task": "space_group"}
    (kriged.root / "params.yaml").write_text(json.dumps(tree))
    with pytest.raises(CrystalmeshError, match=r"the process of models\.complex knows no classes"):
        config.load(kriged.root)
