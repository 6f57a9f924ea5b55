"""Settings that fit no stage are told by the plan, in one line, before anything is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from crystalmesh.errors import CrystalmeshError
from tests.conftest import TREE, Tree, write_project

RUN = {"target": "log_k", "model": "cgcnn", "split": "60-20-20"}
TEACH = {"max_atoms": 3, "batch_size": 4, "weight": 0.5}
SPLIT = TREE["splits"]["tiny"]["60-20-20"]
FOREST = {"estimator": "random_forest", "trees": 4, "max_features": 0.5, "min_leaf": 1}


@pytest.fixture
def more(tree: Tree) -> Tree:
    """With a second study, a classical model, a benchmark, and a dataset that has a column."""
    tree["models"]["forest"] = {
        "title": "forest", "architecture": "classical", "representation": "graph.cgcnn",
        "network": FOREST,
    }  # fmt: skip
    tree["datasets"]["other"] = {
        "title": "other", "source": "made up", "kind": "emt", "columns": ["tag"],
    }  # fmt: skip
    tree["splits"]["other"] = {
        "few": SPLIT | {"targets": ["log_k"], "repeats": 3},
        "by_tag": SPLIT | {"kind": "group", "group": "tag", "block": 2},
        "by_formula": SPLIT | {"kind": "group", "group": "formula"},
        "said": SPLIT | {"kind": "given", "columns": ["tag"]},
    }
    tree["features"]["other"] = {
        "graph.cgcnn": {},
        "mesh.published": {"split": "few", "sizes": {"log_k": 5}},
        "mesh.canonical": {"split": "bench", "sizes": {"e_form": "all"}, "calibration": True},
    }
    tree["benchmarks"] = {
        "bench": {
            "dataset": "other", "target": "log_k", "source": "made up", "file": "b.csv.gz",
            "sha256": "0" * 64,
        }
    }  # fmt: skip
    tree["studies"]["x"] = {"title": "X", "dataset": "tiny", "runs": {}}
    return tree


def refused(root: Path, tree: Tree) -> str:
    """The line that says what is wrong; nothing is written."""
    with pytest.raises(CrystalmeshError) as caught:
        write_project(root, tree)
    assert "\n" not in str(caught.value)
    assert not list(root.rglob("plan.json"))
    return str(caught.value)


def test_all_this_is_valid(tmp_path: Path, more: Tree) -> None:
    other = RUN | {"dataset": "other", "split": "few"}
    more["targets"]["log_n"] = more["targets"]["log_k"] | {"range": [0.0, 9.0]}
    more["studies"]["x"]["runs"] = {
        "a": RUN | {"seed": 2**31 - 1, "members": 3},
        "b": RUN | {"start": "demo/log_k-cgcnn"},
        "c": RUN | {"start": "x/b"},
        "d": RUN | {"distillation": TEACH | {"run": "x/c"}},
        "e": RUN | {"model": "forest", "members": 2},
        "f": other | {"fold": 2},
        "g": other | {"fold": "all", "size": 5},
        "h": other | {"split": "bench", "fold": 4},
        "i": other | {"split": "said"},
    }
    assert len(write_project(tmp_path, more).params.studies["x"].runs) == 9


@pytest.mark.parametrize(
    ("before", "circle"),
    [
        ({"a": {"start": "x/a"}}, "x/a -> x/a"),
        ({"a": {"distillation": TEACH | {"run": "x/a"}}}, "x/a -> x/a"),
        ({"a": {"start": "x/b"}, "b": {"start": "x/a"}}, "x/a -> x/b -> x/a"),
        ({"a": {"start": "x/b"}, "b": {"start": "x/b"}}, "x/b -> x/b"),
        (
            {"a": {"distillation": TEACH | {"run": "x/b"}}, "b": {"start": "x/a"}},
            "x/a -> x/b -> x/a",
        ),
        (
            {name: {"distillation": TEACH | {"run": f"x/{to}"}} for name, to in ("ab", "bc", "ca")},
            "x/a -> x/b -> x/c -> x/a",
        ),
    ],
)
def test_no_run_waits_for_itself(
    tmp_path: Path, more: Tree, before: dict[str, Tree], circle: str
) -> None:
    more["studies"]["x"]["runs"] = {name: RUN | one for name, one in before.items()}
    assert f"studies: {circle}: a run waits for itself; take out one" in refused(tmp_path, more)


CLASSICAL = {"model": "forest", "name": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**31}, "seed: Input should be less than"),
        ({"seed": True}, "seed: Input should be a valid integer"),
        ({"size": True}, "runs.0: size: Input should be a valid integer or 'all'"),
        ({"fold": True}, "runs.0: fold: Input should be a valid integer or 'all'"),
        ({"members": True}, "members: Input should be a valid integer"),
        ({"training": {"epochs": True}}, "a.training: epochs: Input should be a valid integer"),
        ({"training": {"lr": True}}, "a.training: lr: Input should be a valid number"),
        (CLASSICAL | {"weights": {"log_k": 2.0}}, "a.weights: forest is fitted in one step"),
        (CLASSICAL | {"start": "x/forest"}, "a.start: forest is fitted in one step"),
        (
            CLASSICAL | {"distillation": TEACH | {"run": "demo/log_k-cgcnn"}},
            "a.distillation: forest is fitted in one step, not by epochs; leave it out",
        ),
        ({"start": "x/forest"}, "a.start: x/forest has another network or representation"),
        (
            {"distillation": TEACH | {"run": "x/forest"}},
            "a.distillation.run: x/forest has no networks, forest being fitted in one step; name",
        ),
        ({"fold": 1}, "a.fold: 1, and the last one of the split 60-20-20 is 0; give one"),
        (
            {"dataset": "other", "split": "few", "fold": 7},
            "a.fold: 7, and the last one of the split few is 2; give one",
        ),
        (
            {"dataset": "other", "split": "few", "target": "e_form"},
            "a.targets: the split few of other has no 'e_form'; add it to the `targets` of",
        ),
        (
            {"dataset": "other", "split": "fwe"},
            "a.split: other has no split 'fwe'; did you mean 'few'?",
        ),
    ],
)
def test_runs_that_no_training_can_make(
    tmp_path: Path, more: Tree, change: Tree, message: str
) -> None:
    forest = RUN | {"model": "forest"}
    more["studies"]["x"]["runs"] = [RUN | {"name": "a"} | change, forest | {"name": "forest"}]
    assert message in refused(tmp_path, more)


FEW, PUBLISHED = ("splits", "other", "few"), ("features", "other", "mesh.published")


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (FEW, {"kind": "group"}, "splits.other.few.group: missing; a group split needs it"),
        (FEW, {"kind": "given"}, "few.repeats: a given split has none; leave it out, or give"),
        (FEW, {"kind": "given", "repeats": None}, "few.columns: missing; a given split needs it"),
        (FEW, {"group": "tag"}, "few.group: a random split has none; leave it out, or give `kind:"),
        (FEW, {"block": 5}, "few.block: a random split has none; leave it out, or give `kind:"),
        (FEW, {"columns": ["tag"]}, "few.columns: a random split has none; leave it out, or give"),
        (FEW, {"kind": "group", "group": "tga"}, "few: other keeps no column 'tga'; add it to"),
        (
            FEW,
            {"kind": "given", "columns": ["part"], "repeats": None},
            "few: other keeps no column 'part'; add it to datasets.other.columns",
        ),
        (FEW, {"seed": True}, "few.seed: Input should be a valid integer"),
        (FEW, {"targets": []}, "few.targets: Tuple should have at least 1 item"),
        (("splits", "other"), {"bench": SPLIT}, "bench: a benchmark of other has this name"),
        (PUBLISHED, {"split": "fwe"}, "published.split: other has no split 'fwe'; did you mean"),
        (PUBLISHED, {"split": None}, "published.split: missing; `sizes` and `calibration` are of"),
        (PUBLISHED, {"sizes": {}}, "published.sizes: missing; say how many"),
        (
            PUBLISHED,
            {"sizes": {"log_q": 5}},
            "sizes: the split few has no target 'log_q'; did you mean 'log_k'?",
        ),
        (PUBLISHED, {"sizes": {"e_form": 5}}, "the split few has no target 'e_form'; known: log_k"),
        (("datasets", "other"), {"kind": "file"}, "datasets.other: nothing says where it comes"),
        (("datasets", "other"), {"kind": "emtt"}, "datasets.other.kind: Input should be 'file'"),
        (("datasets", "tiny"), {"file": "../tiny.json.gz"}, "datasets.tiny.file: ../tiny.json.gz"),
        (("benchmarks", "bench"), {"file": "a/../../b.csv.gz"}, "bench.file: a/../../b.csv.gz lea"),
        (("datasets", "tiny"), {"join": {"tiny": {"n": "n"}}}, "datasets.tiny.join: it joins itse"),
        (("datasets", "tiny"), {"join": {"othre": {}}}, "no dataset (datasets.tiny.join) 'othre'"),
    ],
)  # fmt: skip
def test_data_that_no_stage_can_make(
    tmp_path: Path, more: Tree, place: Sequence[str], change: Tree, message: str
) -> None:
    block: Any = more
    for key in place:
        block = block[key]
    block |= change
    assert message in refused(tmp_path, more)


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        ("log_k", {"unit": ""}, "targets.log_k.unit: String should have at least 1 character"),
        ("log_k", {"range": [9.0, 1.0]}, "targets.log_k.range: 9.0 is not below 1.0; the lowest"),
        ("log_k", {"range": [-1.0, 0.0]}, "log_k.range: up to 0.0, and there is no log10 of 0 and"),
        ("log_k", {"classes": 3}, "log_k.classes: a regression has none; leave it out, or give"),
        ("space_group", {"classes": 1}, "space_group.classes: a classification needs two at le"),
        ("space_group", {"classes": 0}, "space_group.classes: Input should be greater than 0"),
    ],
)  # fmt: skip
def test_targets_without_meaning(
    tmp_path: Path, more: Tree, target: str, change: Tree, message: str
) -> None:
    more["targets"][target] |= change
    assert message in refused(tmp_path, more)


def test_a_classification_says_how_many_classes(tmp_path: Path, more: Tree) -> None:
    del more["targets"]["space_group"]["classes"]
    assert "space_group.classes: a classification needs two" in refused(tmp_path, more)


@pytest.mark.parametrize("block", ["datasets", "benchmarks", "targets", "models", "splits.other"])
@pytest.mark.parametrize("name", ["a.b", "a..b"])
def test_names_are_parts_of_paths_and_keys(
    tmp_path: Path, more: Tree, block: str, name: str
) -> None:
    own: Any = more
    for key in block.split("."):
        own = own[key]
    own[name] = dict(next(iter(own.values())))
    said = f"{block}.{name}: a name has letters, digits, _ and - only; change it"
    assert said in refused(tmp_path, more)


def test_a_name_has_no_slash(tmp_path: Path, more: Tree) -> None:
    more["targets"]["../x"] = more["targets"]["log_k"]
    assert "targets.../x: a name has letters" in refused(tmp_path, more)
