"""Published predictions scored on all entries and on the test crystals."""

import gzip
from pathlib import Path

import pytest

from crystalmesh import files
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import published
from tests.report.conftest import Maker


def test_scores_by_algorithm(finished: Project) -> None:
    block = files.read_json(finished.metrics("toy", "bench_log_k"))
    assert (block["task"], block["dataset"]) == ("log_k", "toy")
    assert set(block["algorithms"]) == {"close", "dummy"}
    close = block["algorithms"]["close"]
    assert close["mae_all"] == pytest.approx(0.25)
    assert close["mae_test"] == pytest.approx(0.25)
    split = files.read_json(finished.split("toy", "60-20-20"))["log_k"]["0"]
    assert close["n_test"] == sum(int(i[2:]) % 2 for i in split["test"])
    assert close["n_all"] == sum(int(i[2:]) % 2 for part in split.values() for i in part)


def test_an_algorithm_without_test_crystals_has_no_mae(make: Maker) -> None:
    project = make()
    path = project.split("toy", "60-20-20")
    files.write_json(path, {"log_k": {"0": {"train": ["x-9"], "val": [], "test": []}}})
    published.evaluate(project, "toy", "bench_log_k")
    close = files.read_json(project.metrics("toy", "bench_log_k"))["algorithms"]["close"]
    assert close["n_test"] == 0
    assert close["mae_test"] is None


def test_a_changed_file_is_refused(make: Maker) -> None:
    project = make()
    path: Path = project.raw("bench_log_k")
    path.write_bytes(gzip.compress(b"mbid,mp_id,fold,target,a\nm,x-9,0,1.0,1.0\n"))
    with pytest.raises(CrystalmeshError, match="bench_log_k"):
        published.evaluate(project, "toy", "bench_log_k")
    assert not project.metrics("toy", "bench_log_k").exists()


def test_an_unknown_benchmark_is_named(make: Maker) -> None:
    with pytest.raises(CrystalmeshError, match="did you mean 'bench_log_k'"):
        published.evaluate(make(), "toy", "bench_logk")
