"""metrics.json: one record an experiment."""

import pytest

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import metrics
from tests.report.conftest import Maker

FIELDS = {
    "experiment", "dataset", "task", "representation", "model", "split", "fold", "seed", "size",
    "n_train", "n_val", "n_test", "metric", "value", "unit", "device", "train_seconds",
}  # fmt: skip


def test_every_experiment_is_a_record(finished: Project) -> None:
    records = files.read_json(finished.results("toy") / "metrics.json")
    assert [r["experiment"] for r in records] == list(finished.params.group("toy"))
    assert all(set(record) == FIELDS for record in records)
    assert {record["split"] for record in records} == {"60/20/20"}
    assert (records[0]["n_train"], records[0]["device"]) == (93, "cpu")


def test_a_missing_card_is_one_line(make: Maker) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    project.card("toy", "a").unlink()
    with pytest.raises(CrystalmeshError, match=r"a\.json: missing"):
        metrics.build(project, "toy")


def test_a_card_without_its_time_is_one_line(make: Maker) -> None:
    project = make(experiments={"a": ("e_form", "cgcnn", "all")}, benchmark=False)
    files.write_json(project.card("toy", "a"), {"device": "cpu"})
    with pytest.raises(CrystalmeshError, match="has no 'train_seconds'"):
        metrics.build(project, "toy")


def test_an_unknown_report_is_named(finished: Project) -> None:
    with pytest.raises(CrystalmeshError, match="no report 'tooy'; did you mean 'toy'"):
        metrics.build(finished, "tooy")
