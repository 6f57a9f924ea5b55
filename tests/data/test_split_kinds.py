"""Splits by groups, by blocks, and as the data give them."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmesh.config.schema import Split
from crystalmesh.data.crystals import Crystals, Labels
from crystalmesh.data.splits import (
    _dealer,
    blocks,
    divide,
    divide_given,
    divide_groups,
    groups_of,
    keyed,
)
from crystalmesh.errors import CrystalmeshError

GROUPS = st.dictionaries(st.integers(0, 999).map(str), st.sampled_from("abcdefghij"), max_size=80)
RATIO = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def shuffled(values: dict[str, str], seed: int) -> dict[str, str]:
    items = list(values.items())
    random.Random(seed).shuffle(items)
    return dict(items)


@given(groups=GROUPS, ratio=RATIO, seed=st.integers(0, 9))
def test_groups_are_never_cut_and_the_ratio_holds(
    groups: dict[str, str], ratio: tuple[int, int, int], seed: int
) -> None:
    parts = divide_groups(groups, ratio, seed)
    assert sorted([*parts.train, *parts.val, *parts.test]) == sorted(groups)
    found = [{groups[name] for name in part} for part in parts]
    assert sum(map(len, found)) == len(set(groups.values()))
    largest = max([list(groups.values()).count(group) for group in groups.values()], default=0)
    for part, share in zip(parts, ratio, strict=True):
        beyond = len(part) - share * len(groups) / sum(ratio)
        assert -4 / 3 * largest - 1e-9 <= beyond <= 2 / 3 * largest + 1e-9
        assert part == keyed(part, seed)
    assert divide_groups(shuffled(groups, seed), ratio, seed) == parts


@given(groups=GROUPS, length=st.integers(1, 9), seed=st.integers(0, 9))
def test_blocks_are_consecutive_and_full(groups: dict[str, str], length: int, seed: int) -> None:
    found = blocks(groups, length)
    assert blocks(shuffled(groups, seed), length) == found
    for group in set(groups.values()):
        names = sorted((name for name in groups if groups[name] == group), key=int)
        pieces = [names[k : k + length] for k in range(0, len(names), length)]
        assert [[found[name] for name in piece] for piece in pieces] == [
            [f"{group}#{k}"] * len(piece) for k, piece in enumerate(pieces)
        ]


PARTS = st.sampled_from(["train", "val", "test", ""])


@given(
    said=st.dictionaries(st.integers(0, 999).map(str), PARTS, max_size=60), seed=st.integers(0, 9)
)
def test_given_parts_are_those_of_the_data(said: dict[str, str], seed: int) -> None:
    parts = divide_given(said, (8, 2, 1), seed)
    assert set(parts.test) == {name for name in said if said[name] == "test"}
    trained = {name for name in said if said[name] == "train"}
    if "val" in said.values():
        assert set(parts.train) == trained
        assert set(parts.val) == {name for name in said if said[name] == "val"}
    else:
        assert {*parts.train, *parts.val} == trained
        assert len(parts.val) == len(divide(sorted(trained), (8, 2, 0)).val)
        assert not set(parts.train) & set(parts.val)
    assert divide_given(shuffled(said, seed), (8, 2, 1), seed) == parts


def store(formulas: list[str], **columns: list[str]) -> Crystals:
    n = len(formulas)
    return Crystals(
        dataset="toy", entries=n, ids=[f"x-{i}" for i in range(n)], formulas=formulas,
        lattices=np.full((n, 3, 3), np.nan), pointer=np.arange(n + 1), numbers=np.ones(n, int),
        coordinates=np.zeros((n, 3)), labels=Labels(n, {}), columns=columns,
    )  # fmt: skip


def test_groups_of_formulas_elements_and_columns() -> None:
    toy = store(["NaCl", "Na2Cl", "Li3Fe2(PO4)3"], tag=["a", "b", "a"])
    assert list(groups_of(toy, "formula").values()) == toy.formulas
    assert list(groups_of(toy, "system").values()) == ["Cl-Na", "Cl-Na", "Fe-Li-O-P"]
    assert groups_of(toy, "tag") == {"x-0": "a", "x-1": "b", "x-2": "a"}
    with pytest.raises(CrystalmeshError, match="toy keeps no column 'parent'"):
        groups_of(toy, "parent")
    with pytest.raises(CrystalmeshError, match="'x-1' has no tag to group by"):
        groups_of(store(["C", "C"], tag=["a", ""]), "tag")


def split(**values: Any) -> Split:
    base = {"title": "s", "ratio": [3, 1, 1], "seed": 0}
    return Split.model_validate(base | values)


def test_a_split_deals_as_its_kind_says() -> None:
    toy = store(["C"] * 40, tag=["a"] * 20 + ["b"] * 20, part=["train"] * 30 + ["test"] * 10)
    everything = _dealer(split(), toy)(toy.ids, 0)
    assert everything == divide(keyed(toy.ids, 0), (3, 1, 1))
    blocked = _dealer(split(kind="group", group="tag", block=4, repeats=2), toy)
    groups = blocks(groups_of(toy, "tag"), 4)
    for fold in (0, 1):
        assert blocked(toy.ids, fold) == divide_groups(groups, (3, 1, 1), fold)
    assert blocked(toy.ids, 0) != blocked(toy.ids, 1)
    said = _dealer(split(kind="given", columns=["part"]), toy)(toy.ids, 0)
    assert (len(said.train), len(said.val), len(said.test)) == (23, 7, 10)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "given", "columns": ["part"]}, "toy keeps no column 'part'"),
        ({"kind": "given", "columns": ["tag"]}, "'a' is no part"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(CrystalmeshError) as caught:
        _dealer(split(**values), store(["C"], tag=["a"]))
    assert said in str(caught.value)
