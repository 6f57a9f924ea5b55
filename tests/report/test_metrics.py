"""metrics.json: one record a run and target."""

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import metrics
from tests.report.conftest import STUDY, Maker, run

FIELDS = {
    "run", "study", "dataset", "target", "model", "representation", "split", "fold", "seed", "size",
    "n_train", "n_val", "n_test", "metric", "value", "low", "high", "unit", "device",
    "train_cpu_seconds", "total_cpu_seconds",
}  # fmt: skip


def test_every_run_is_a_record(finished: Project) -> None:
    records = files.read_json(finished.results(STUDY) / "metrics.json")
    assert [r["run"] for r in records] == list(finished.params.study(STUDY).runs)
    for one in records:
        assert set(one) == FIELDS
        assert one["low"] <= one["value"] <= one["high"]
    first = next(r for r in records if r["run"] == "log_k-cgcnn-all")
    assert (first["split"], first["n_train"], first["device"]) == ("60-20-20", 93, "cpu")


def test_the_total_has_what_a_run_started_from(finished: Project) -> None:
    records = {r["run"]: r for r in files.read_json(finished.results(STUDY) / "metrics.json")}
    own, pretrained = records["log_k-cgcnn-all"], records["log_k-cgcnn-pretrained-50"]
    assert own["train_cpu_seconds"] == own["total_cpu_seconds"] == 1.5
    assert (pretrained["train_cpu_seconds"], pretrained["total_cpu_seconds"]) == (1.5, 3.0)


def test_several_targets_are_several_records(make: Maker) -> None:
    project = make(runs={"both": run("log_k,log_g", "cgcnn", 60)}, benchmark=False, like=None)
    one = project.params.run(f"{STUDY}/both")
    card = files.read_json(project.card(one))
    del card["cpu_seconds"]  # cards of old trainings do not say it
    files.write_json(project.card(one), card)
    metrics.build(project, STUDY)
    records = files.read_json(project.results(STUDY) / "metrics.json")
    assert [r["target"] for r in records] == ["log_k", "log_g"]
    assert [r["total_cpu_seconds"] for r in records] == [None, None]


def test_a_missing_or_damaged_card_is_one_line(make: Maker) -> None:
    project = make(runs={"a": run("e_form", "cgcnn", "all")}, benchmark=False, like=None)
    card = project.card(project.params.run(f"{STUDY}/a"))
    files.write_json(card, {"cpu_seconds": 1.0})
    with pytest.raises(CrystalmeshError, match="has no 'device'"):
        metrics.build(project, STUDY)
    card.unlink()
    with pytest.raises(CrystalmeshError, match=r"a\.json: missing"):
        metrics.build(project, STUDY)


def test_an_unknown_study_is_named(finished: Project) -> None:
    with pytest.raises(CrystalmeshError, match="no study 'tooy'; did you mean 'toy'"):
        metrics.build(finished, "tooy")
