"""study.yaml -> runs: blocks multiplied out, inherited, named."""

from typing import Any

import pytest

from crystalmesh.config.schema import Model, Run
from crystalmesh.config.study import expand
from crystalmesh.errors import CrystalmeshError

MODELS = {
    name: Model(title=name, architecture=name, representation=f"{name}.one", network={})
    for name in ("a", "b")
}


def expanded(*blocks: Any) -> dict[str, Run]:
    return expand("demo", {"dataset": "tiny", "runs": list(blocks)}, MODELS, "study.yaml")


def test_lists_stand_for_one_run_each() -> None:
    runs = expanded({"split": "s", "target": ["k", "g"], "model": ["a", "b"]})
    assert list(runs) == ["k-a", "k-b", "g-a", "g-b"]
    one = runs["g-b"]
    assert (one.study, one.dataset, one.targets) == ("demo", "tiny", ("g",))
    assert (one.representation, one.reference) == ("b.one", "demo/g-b")
    assert (one.size, one.fold, one.seed, one.members) == ("all", 0, 0, None)


def test_targets_are_those_of_one_network_and_the_inner_setting_counts() -> None:
    group = {"split": "s", "model": "a", "target": ["k", "g"]}
    runs = expanded(group | {"runs": [{"targets": ["k", "g"]}, {"model": "b"}]})
    assert {name: run.targets for name, run in runs.items()} == {
        "k-a": ("k", "g"), "k-b": ("k",), "g-b": ("g",),
    }  # fmt: skip
    runs = expanded(group | {"targets": ["k", "g"], "runs": [{"target": "g"}]} | {"target": None})
    assert runs["g-a"].targets == ("g",)


def test_groups_hand_down_and_null_takes_out() -> None:
    inner = {"target": "k", "training": {"lr": 2.0, "epochs": 1}, "members": None}
    outer = {"split": "s", "model": "a", "members": 3, "training": {"lr": 1.0, "ema": 0.5}}
    (run,) = expanded(outer | {"runs": [{"size": 5, "runs": [inner]}]}).values()
    assert run.training == {"lr": 2.0, "ema": 0.5, "epochs": 1}
    assert (run.size, run.members) == (5, None)


def test_names_are_filled_in() -> None:
    name = "{target}-{model}-{representation}-{size}-{split}-{start}"
    block = {"target": "k", "model": "a", "split": "bench_{target}", "start": "other/first"}
    assert list(expanded(block | {"size": [10, "all"], "name": name})) == [
        "k-a-a_one-10-bench_k-first",
        "k-a-a_one-all-bench_k-first",
    ]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"target": "k"}, "runs.0: model: missing; add it"),
        ({"model": "a"}, "runs.0: targets: missing; add it"),
        ({"target": "k", "model": "a", "seeds": 1}, "unknown setting; did you mean 'seed'?"),
        ({"target": "k", "model": ["a", "a"]}, "runs.0: a second run 'k-a'; give one of both a"),
        ({"target": "k", "model": "a", "name": "{targets}"}, "runs.0.name: '{targets}' cannot be"),
        ({"target": "k", "model": "a", "name": "a b"}, "runs.0: name: 'a b' is not of the allowed"),
        ({"target": "k", "targets": ["k", "g"], "model": "a"}, "runs.0: has both `target` and"),
        ({"runs": ["k"]}, "runs.0.runs.0: not a block of settings"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(block: dict[str, Any], message: str) -> None:
    with pytest.raises(CrystalmeshError) as caught:
        expanded({"split": "s"} | block)
    assert message in str(caught.value)
    assert "study.yaml: runs.0" in str(caught.value)
    assert "\n" not in str(caught.value)
