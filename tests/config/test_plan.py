"""plan.json: digests change with what they should and nothing else; an older one is refused."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crystalmesh.config import plan
from crystalmesh.config.project import load
from crystalmesh.errors import CrystalmeshError
from tests.conftest import Tree, write_project, write_settings

CGCNN = {"demo.log_k-cgcnn", "demo.space_group-cgcnn"}
RUNS = CGCNN | {"demo.log_k-mesh"}
REPORT = "demo.report"
FEATURES = {f"features.tiny-{one}.digest" for one in ("mesh_published", "mesh_canonical")} | {
    "features.tiny-graph_cgcnn.digest"
}


def digests(root: Path, tree: Tree) -> dict[str, str]:
    write_project(root, tree)
    return dict(plan.digests(root))


def place(*keys: str) -> Callable[[Tree], Any]:
    def find(tree: Tree) -> Any:
        for key in keys:
            tree = tree[key]
        return tree

    return find


RUN = place("studies", "demo", "runs", "log_k-cgcnn")
TRAINING, MODEL = place("models", "cgcnn", "training"), place("models", "cgcnn")
TARGET, SPLIT = place("targets", "log_k"), place("splits", "tiny", "60-20-20")


@pytest.mark.parametrize(
    ("block", "change", "changed"),
    [
        (RUN, {"seed": 2}, {"demo.log_k-cgcnn", REPORT}),
        (RUN, {"training": {"lr": 0.5}}, {"demo.log_k-cgcnn", REPORT}),
        (RUN, {"members": 2}, {"demo.log_k-cgcnn", REPORT}),
        (TRAINING, {"lr": 0.5}, CGCNN | {REPORT}),
        (place("models", "cgcnn", "network"), {"atom": 9}, CGCNN | {REPORT}),
        (MODEL, {"title": "another"}, {REPORT}),
        (MODEL, {"checkpoint": "float16"}, CGCNN | {REPORT}),
        (TARGET, {"title": "another"}, {REPORT}),
        (TARGET, {"range": [0.1, 10.0]}, {
            "demo.log_k-cgcnn", "demo.log_k-mesh", REPORT,
            "datasets.tiny.digest", "splits.tiny-60-20-20.digest",
        }),
        (SPLIT, {"seed": 1}, {"splits.tiny-60-20-20.digest", REPORT}),
        (place("representations", "graph", "cgcnn"), {"cutoff": 7.0},
         CGCNN | {"features.tiny-graph_cgcnn.digest", REPORT}),
        (place("features", "tiny", "graph.cgcnn"), {"split": "60-20-20", "sizes": {"log_k": 9}},
         {"features.tiny-graph_cgcnn.digest"}),
        (place("validation"), {"symprec": 0.1}, {"datasets.tiny.digest", REPORT}),
        (place("datasets", "tiny"), {"title": "another", "source": "another"}, {REPORT}),
        (SPLIT, {"title": "another"}, {REPORT}),
        (place("datasets", "tiny"), {"url": "https://x.org"}, {"raw.tiny.digest", REPORT}),
        (place("studies", "demo"), {"title": "another"}, {REPORT}),
        (place("studies", "demo"), {"numerics": "portable"}, RUNS | {REPORT}),
        (place("studies", "demo", "report"), {"embeddings": ["log_k-mesh"]}, {REPORT}),
    ],
)  # fmt: skip
def test_a_digest_changes_with_what_it_should(
    tmp_path: Path,
    tree: Tree,
    block: Callable[[Tree], Any],
    change: dict[str, Any],
    changed: set[str],
) -> None:
    before = digests(tmp_path, tree)
    assert set(before) == RUNS | FEATURES | {
        REPORT, "demo.stability", "raw.tiny.digest", "datasets.tiny.digest",
        "splits.tiny-60-20-20.digest",
    }  # fmt: skip
    block(tree).update(change)
    after = digests(tmp_path, tree)
    assert {key for key, value in after.items() if before.get(key) != value} == changed


def test_digests_do_not_change_with_order_comments_or_runs_beside(
    tmp_path: Path, tree: Tree
) -> None:
    before = digests(tmp_path, tree)
    runs = tree["studies"]["demo"]["runs"]
    tree["studies"]["demo"]["runs"] = dict(reversed(runs.items())) | {
        "more": runs["log_k-cgcnn"] | {"seed": 9}
    }
    tree["models"]["cgcnn"]["network"] = dict(reversed(tree["models"]["cgcnn"]["network"].items()))
    tree["models"]["other"] = tree["models"]["cgcnn"] | {"architecture": "cgcnn"}
    after = digests(tmp_path, tree)
    assert {key for key in before if before[key] != after[key]} == {REPORT}
    assert set(after) - set(before) == {"demo.more"}


def test_a_plan_says_what_a_run_reads_and_writes(tmp_path: Path, tree: Tree) -> None:
    runs = tree["studies"]["demo"]["runs"]
    runs["after"] = runs["log_k-cgcnn"] | {"start": "demo/log_k-cgcnn"}
    write_project(tmp_path, tree)
    stored = plan.stored(tmp_path, "demo")["runs"]
    first, after = stored["log_k-cgcnn"], stored["after"]
    assert first["start"] == plan.NONE
    assert first["inputs"] == [
        "data/crystals/tiny", "data/splits/tiny/60-20-20.json", "data/features/tiny/graph.cgcnn",
    ]  # fmt: skip
    assert after["inputs"] == [*first["inputs"], after["start"]]
    assert after["start"] in first["outputs"]
    assert len({*first["outputs"], *after["outputs"]}) == 10


def test_what_changes_no_bit_keeps_the_plan(tmp_path: Path, tree: Tree) -> None:
    write_project(tmp_path, tree)
    assert plan.write(tmp_path) == []
    tree["studies"]["demo"]["runs"]["log_k-cgcnn"]["seed"] = 2
    write_settings(tmp_path, tree)
    assert plan.write(tmp_path, check=True) == ["studies/demo/plan.json"]
    assert plan.write(tmp_path) == ["studies/demo/plan.json"]
    assert plan.write(tmp_path, check=True) == []


@pytest.mark.parametrize("place", ["config/all.yaml", "studies/demo/study.yaml"])
def test_a_plan_that_is_older_than_its_settings_is_refused(
    tmp_path: Path, tree: Tree, place: str
) -> None:
    write_project(tmp_path, tree)
    path = tmp_path / place
    path.write_text(path.read_text() + "# more\n")
    with pytest.raises(CrystalmeshError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        "studies/demo/plan.json: older than studies/demo/study.yaml or config/; run"
        " `crystalmesh plan`"
    )
    plan.write(tmp_path)
    load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "missing; run `crystalmesh plan`"), ("{", "not valid JSON"), ("{}", "older than")],
)
def test_a_plan_that_is_missing_or_broken(
    tmp_path: Path, tree: Tree, content: str | None, message: str
) -> None:
    write_project(tmp_path, tree)
    path = tmp_path / "studies" / "demo" / "plan.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(CrystalmeshError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith("studies/demo/plan.json: ")


def test_a_stamp_is_rewritten_only_when_its_digest_changes(tmp_path: Path, tree: Tree) -> None:
    write_project(tmp_path, tree)
    plan.restamp(tmp_path)
    keys = dict(plan.digests(tmp_path))
    before = {key: plan.stamp(tmp_path, key).stat().st_mtime_ns for key in keys}
    time.sleep(0.01)
    tree["studies"]["demo"]["runs"]["log_k-cgcnn"]["seed"] = 2
    write_project(tmp_path, tree)
    plan.restamp(tmp_path)
    after = {key: plan.stamp(tmp_path, key).stat().st_mtime_ns for key in keys}
    assert {key for key in keys if before[key] != after[key]} == {"demo.log_k-cgcnn", REPORT}
