"""Splits: exact ratios, nested sizes, an order that no crystal's neighbours can change."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Features, Run
from crystalmesh.data import registry, splits, validation
from crystalmesh.data.splits import Parts, divide, keyed
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_json, sha256
from tests.data.conftest import SPLIT, dataframe, many, packed

Declare = Callable[..., Project]
IDS = st.sets(st.text(min_size=1, max_size=6), max_size=60)
RATIO = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


@given(ids=st.permutations([f"mp-{i}" for i in range(12)]), seed=st.integers(0, 9))
def test_keyed_order_depends_on_ids_and_seed_alone(ids: list[str], seed: int) -> None:
    order = keyed(ids, seed)
    assert order == keyed(sorted(ids), seed)
    assert [name for name in order if name != ids[0]] == keyed(ids[1:], seed)


def test_frozen_order() -> None:
    assert keyed(["mp-1", "mp-2", "mp-3", "mp-4"], 0) == ["mp-4", "mp-2", "mp-1", "mp-3"]
    assert keyed(["mp-1", "mp-2", "mp-3", "mp-4"], 1) == ["mp-3", "mp-4", "mp-1", "mp-2"]


@given(ids=IDS, ratio=RATIO, size=st.integers(0, 60))
def test_parts_are_disjoint_whole_nested_and_exact(
    ids: set[str], ratio: tuple[int, int, int], size: int
) -> None:
    order = keyed(ids, 0)
    whole, some = divide(order, ratio), divide(order[:size], ratio)
    assert sorted([*whole.train, *whole.val, *whole.test]) == sorted(ids)
    for large, small in zip(whole, some, strict=True):
        assert large[: len(small)] == small
    rounds = len(order) // sum(ratio)
    for part, share in zip(divide(order[: rounds * sum(ratio)], ratio), ratio, strict=True):
        assert len(part) == rounds * share


BENCHMARK = """mbid,mp_id,fold,target,rf
a,mp-3,0,1.1,1
b,mp-6,1,1.2,1
c,mp-9,2,1.3,1
d,mp-12,0,1.4,1
e,mp-1,0,1.5,1
f,mp-999,1,1.6,1
"""


def prepared(
    declare: Declare, table: str | bytes = BENCHMARK, count: int = 90, **split: Any
) -> Project:
    """Ninety crystals, thirty with a modulus, and a benchmark of some; `split` adds to 60-20-20."""
    raw = table if isinstance(table, bytes) else gzip.compress(table.encode(), mtime=0)
    benchmark = {
        "dataset": "tiny",
        "target": "log_k",
        "source": "made up",
        "file": "bench.csv.gz",
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    project = declare(
        packed(dataframe(many(count))),
        benchmarks={"bench": benchmark},
        splits={"tiny": {"60-20-20": SPLIT | split}},
    )
    (registry.mirror(project) / "bench.csv.gz").write_bytes(raw)
    for name in ("tiny", "bench"):
        registry.fetch(project, name, 1)
    validation.build(project, "tiny", 1)
    return project


def run(**values: Any) -> Run:
    base = {
        "study": "demo",
        "name": "one",
        "dataset": "tiny",
        "targets": ["log_k"],
        "split": "60-20-20",
        "representation": "graph.cgcnn",
        "model": "any",
    }
    return Run.model_validate(base | values)


def test_a_split_holds_every_target_and_its_sizes_are_nested(declare: Declare) -> None:
    project = prepared(declare)
    splits.build(project, "tiny", "60-20-20")
    path = project.split("tiny", "60-20-20")
    content = read_json(path)
    assert sorted(content) == ["e_form", "gap", "log_k", "space_group"]
    sizes = {
        target: [len(folds["0"][p]) for p in ("train", "val", "test")]
        for target, folds in content.items()
    }
    assert sizes == {
        "e_form": [54, 18, 18], "gap": [54, 18, 18], "log_k": [18, 6, 6],
        "space_group": [54, 18, 18],
    }  # fmt: skip
    whole = splits.select(project, run())
    assert whole == splits.select(project, run(size="all"))
    assert whole == splits.select(project, run(size=30))
    assert {name for part in whole for name in part} == {f"mp-{i}" for i in range(3, 91, 3)}
    for size, counts in ((10, [6, 2, 2]), (8, [6, 1, 1]), (29, [18, 6, 5])):
        some = splits.select(project, run(size=size))
        assert [len(part) for part in some] == counts
        for large, small in zip(whole, some, strict=True):
            assert large[: len(small)] == small
    assert sha256(path)[:16] == "0d56e66c7a0c3b91"


def test_a_split_without_a_target_has_none_of_its_crystals(declare: Declare) -> None:
    project = prepared(declare, without="log_k", targets=["e_form"])
    splits.build(project, "tiny", "60-20-20")
    parts = read_json(project.split("tiny", "60-20-20"))["e_form"]["0"]
    names = {name for part in parts.values() for name in part}
    assert names == {f"mp-{i}" for i in range(1, 91) if i % 3}


def test_a_split_by_one_target_holds_for_the_others(declare: Declare) -> None:
    """What one target is tested on, another one has not been trained on."""
    project = prepared(declare, by="e_form", targets=["e_form", "log_k"])
    splits.build(project, "tiny", "60-20-20")
    content = read_json(project.split("tiny", "60-20-20"))
    for part, names in content["log_k"]["0"].items():
        have = [name for name in content["e_form"]["0"][part] if int(name[3:]) % 3 == 0]
        assert names == have != []


@pytest.mark.parametrize("setting", ["without", "by"])
def test_a_split_names_targets_that_exist(declare: Declare, setting: str) -> None:
    with pytest.raises(CrystalmeshError, match=r"splits\.tiny\.60-20-20\).*'log_q'"):
        declare(b"", splits={"tiny": {"60-20-20": SPLIT | {setting: "log_q"}}})


def test_features_cover_the_crystals_of_their_sizes(declare: Declare) -> None:
    project = prepared(declare)
    splits.build(project, "tiny", "60-20-20")
    every = splits.wanted(project, "tiny", Features())
    assert every == [f"mp-{i}" for i in range(1, 91)]
    block = Features(split="60-20-20", sizes={"log_k": 10, "e_form": 20})
    some = splits.wanted(project, "tiny", block)
    parts = [
        *splits.select(project, run(size=10)),
        *splits.select(project, run(targets=["e_form"], size=20)),
    ]
    assert set(some) == {name for part in parts for name in part}
    assert some == [name for name in every if name in some]


def test_official_folds_test_what_they_say(declare: Declare) -> None:
    rows = "".join(f"{i},mp-{i},{i // 3 % 5},1.0,1\n" for i in range(90, 0, -1))
    project = prepared(declare, "mbid,mp_id,fold,target,rf\n" + rows)
    splits.build_folds(project, "bench")
    content = read_json(project.split("tiny", "bench"))
    assert list(content) == list(project.params.targets)
    assert sorted(content["log_k"]) == ["0", "1", "2", "3", "4"]
    labelled = {f"mp-{i}" for i in range(3, 91, 3)}
    for fold, parts in content["log_k"].items():
        assert set(parts["test"]) == {f"mp-{i}" for i in range(3, 91, 3) if i // 3 % 5 == int(fold)}
        assert set(parts["train"]) | set(parts["val"]) | set(parts["test"]) == labelled
        rest = keyed(labelled - set(parts["test"]), 0)
        assert parts["val"] == rest[4::5]
        assert parts["train"] == [name for name in rest if name not in parts["val"]]
    whole = splits.select(project, run(split="bench", fold=3))
    some = splits.select(project, run(split="bench", fold=3, size=10))
    assert some == Parts(whole.train[:8], whole.val[:2], whole.test, whole.val)
    # another target has the same folds, as far as the crystals have its label
    other = splits.select(project, run(targets=["e_form"], split="bench", fold=3))
    assert set(other.test) <= set(whole.test)
    assert set(other.train) <= set(whole.train)


def test_folds_leave_out_what_the_dataset_lacks(declare: Declare) -> None:
    project = prepared(declare)  # mp-1 has no modulus, mp-999 is unknown
    splits.build_folds(project, "bench")
    folds = read_json(project.split("tiny", "bench"))["log_k"]
    assert {fold: sorted(parts["test"]) for fold, parts in folds.items()} == {
        "0": ["mp-12", "mp-3"], "1": ["mp-6"], "2": ["mp-9"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("mbid,fold,target\n", "no column 'mp_id'"),
        ("", "no column 'mp_id'"),
        ("mp_id,fold,target\nmp-3,0\n", "line 2: not one value for each column"),
        ("mp_id,fold,target\nmp-3,0,1,2\n", "line 2: not one value for each column"),
        ("mp_id,fold,target\nmp-3,x,1\n", "line 2"),
        ("mp_id,fold,target\nmp-3,0,1\nmp-3,1,1\n", "line 3: mp-3 stands there twice"),
        ("mp_id,fold,target\nmp-1,0,1\n", "no crystal of dataset tiny"),
        (b"plain", "broken table"),
        (gzip.compress(BENCHMARK.encode(), mtime=0)[:-9], "broken table"),
    ],
)
def test_a_broken_benchmark_is_named(declare: Declare, table: str | bytes, said: str) -> None:
    project = prepared(declare, table, count=3)
    with pytest.raises(CrystalmeshError, match=said) as caught:
        splits.build_folds(project, "bench")
    assert str(project.raw("bench")) in str(caught.value)
    assert not project.split("tiny", "bench").exists()


def test_what_cannot_be_selected_is_said(declare: Declare) -> None:
    project = prepared(declare)
    path: Path = project.split("tiny", "60-20-20")
    with pytest.raises(CrystalmeshError, match="missing; run the stage"):
        splits.select(project, run())
    splits.build(project, "tiny", "60-20-20")
    for values, said in (
        ({"size": 31}, "size 31 of target 'log_k': it has only 30 crystals"),
        ({"size": 3}, "target 'log_k', fold 0: no crystals to val"),
        ({"fold": 1}, "no fold 1 of target 'log_k'"),
        ({"targets": ["mu_b"]}, "no fold 0 of target 'mu_b'"),
    ):
        with pytest.raises(CrystalmeshError, match=said) as caught:
            splits.select(project, run(**values))
        assert str(caught.value).startswith(str(path))
    with pytest.raises(CrystalmeshError, match="no split of tiny '60-20-2'; did you mean"):
        splits.build(project, "tiny", "60-20-2")
