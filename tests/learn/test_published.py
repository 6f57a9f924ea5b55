"""Published predictions of other algorithms scored on all entries and on each fold."""

import gzip
import hashlib

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.data import registry
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn import published
from tests.conftest import Tree, write_project

TABLE = """mbid,mp_id,fold,target,close,some
a,mp-1,0,1.0,1.25,
b,mp-2,0,2.0,1.75,2.5
c,mp-3,1,3.0,3.25,
"""


@pytest.fixture
def benchmark(project: Project, tree: Tree) -> Project:
    raw = gzip.compress(TABLE.encode(), mtime=0)
    (project.root / "bench.csv.gz").write_bytes(raw)
    block = {"dataset": "tiny", "target": "log_k", "source": "made up", "file": "bench.csv.gz"}
    tree["benchmarks"] = {"bench": block | {"sha256": hashlib.sha256(raw).hexdigest()}}
    found = write_project(project.root, tree)
    registry.fetch(found, "bench", 1)
    return found


def test_scores_by_algorithm_on_what_it_predicts(benchmark: Project) -> None:
    published.evaluate(benchmark, "bench")
    block = files.read_json(benchmark.benchmark("bench"))
    assert (block["target"], block["dataset"]) == ("log_k", "tiny")
    close = {"n_all": 3, "mae_all": 0.25, "folds": [0.25, 0.25]}
    assert block["algorithms"] == {
        "close": close, "some": {"n_all": 1, "mae_all": 0.5, "folds": [0.5, None]},
    }  # fmt: skip


def test_a_changed_or_unknown_table_is_refused(benchmark: Project) -> None:
    with pytest.raises(CrystalmeshError, match="did you mean 'bench'"):
        published.evaluate(benchmark, "bensh")
    changed = TABLE.replace("1.25", "1.0")
    benchmark.raw("bench").write_bytes(gzip.compress(changed.encode(), mtime=0))
    with pytest.raises(CrystalmeshError, match="bench"):
        published.evaluate(benchmark, "bench")
    assert not benchmark.benchmark("bench").exists()


def test_what_is_no_number_is_named(benchmark: Project, tree: Tree) -> None:
    raw = gzip.compress(TABLE.replace("1.25", "?").encode(), mtime=0)
    (benchmark.root / "bench.csv.gz").write_bytes(raw)
    tree["benchmarks"]["bench"]["sha256"] = hashlib.sha256(raw).hexdigest()
    project = write_project(benchmark.root, tree)
    registry.fetch(project, "bench", 1)
    with pytest.raises(CrystalmeshError, match="column 'close'"):
        published.evaluate(project, "bench")
