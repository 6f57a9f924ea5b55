"""What every representation must do. A new one is found in config/representations.yaml.

`NOT_INVARIANT` of its file names by variant what else than the system its features depend on:

    sites        the order of the sites
    origin       where the system lies in its cell
    rotation     how it is turned
    reflection   whether it is seen in a mirror
    translation  in which of the periodic images of its cell each atom is given
    basis        which vectors span the lattice
    supercell    how many times it is repeated

Features are compared by their `signature`, in which the order of rows does not matter. Where they
depend on something on purpose, an example shows it.
"""

import copy
import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmesh import represent
from crystalmesh.config import project as folder
from crystalmesh.config.project import Project
from crystalmesh.data.crystals import Crystal, Crystals, save
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Representation, representation, store
from crystalmesh.represent.store import Features
from tests.conftest import TREE, Tree, write_project
from tests.represent.delaunay.test_tessellate import KNOWN, unimodular
from tests.represent.signature import Arrays, Floats, Layout, arrays, layout, signature
from tests.represent.test_complex import some
from tests.represent.test_graph_free import molecule

SAME, APART = 1e-4, 1e-3  # signatures are the same, or not
OF_ALL = ("sites", "origin", "rotation", "reflection")
KINDS = (*OF_ALL, "translation", "basis", "supercell")  # the others need a lattice
PARAMS = folder.load(Path(__file__).parents[2]).params
NAMES = [f"{module}.{one}" for module, block in PARAMS.representations.items() for one in block]
every = pytest.mark.parametrize("name", NAMES)

NAMED = st.sampled_from([*sorted(KNOWN), "random"])
EXAMPLES = [some(seed, "random") for seed in (1, 2, 3, 6)]
EXAMPLES += [some(seed, name) for seed, name in enumerate(sorted(KNOWN))]
# Of co-spherical atoms, so placed that even whole cells added to coordinates tip a tie.
TIED = some(122, "diamond: 8 tetrahedra, 16 rings")
FREE = [molecule(0, 5), molecule(1, 12)]


def made(name: str, changes: Any = (), without: str = "") -> Representation:
    """The representation with its settings, changed ones, and without one."""
    changed = PARAMS.representation(name) | dict(changes)
    return representation(name, {key: one for key, one in changed.items() if key != without})


def not_invariant(name: str) -> set[str]:
    """What its file declares."""
    module, _, variant = name.partition(".")
    declared = getattr(
        importlib.import_module(f"{represent.__name__}.{module}"), "NOT_INVARIANT", {}
    )
    return set(declared.get(variant, ()))


def refusal(name: str, one: Crystal) -> str | None:
    """What is said of a system that has no such representation."""
    try:
        made(name).build(one)
    except CrystalmeshError as error:
        return str(error)
    return None


def reads_free(name: str) -> bool:
    """Whether it reads systems without a cell."""
    return refusal(name, FREE[0]) is None


@cache
def known(name: str) -> Layout:
    return layout(made(name), EXAMPLES + FREE * reads_free(name))


def turns(batch: Arrays) -> Arrays:
    """Triangles from each of their corners: none of these is the first."""
    three = {key: np.concatenate([value] * 3) for key, value in batch.items()}
    for key in ("corner", "numbers"):
        rows = batch[key].reshape(len(batch[key]), 3, -1)
        turned = [np.roll(rows, step, axis=1).reshape(batch[key].shape) for step in range(3)]
        three[key] = np.concatenate(turned)
    return three


# Of features that can be written in several ways, all of these; by module.
ALIKE: dict[str, Callable[[Arrays], Arrays]] = {"mesh": turns}


def signed(name: str, batch: Arrays) -> Floats:
    """The signature of a batch."""
    alike = ALIKE.get(name.partition(".")[0])
    return signature(alike(batch) if alike else batch, known(name))


def seen(name: str, one: Crystal) -> Floats:
    """The signature of a system's features."""
    return signed(name, arrays(made(name), [one]))


def told(one: Crystal, kinds: Sequence[str], rng: np.random.Generator) -> Crystal:
    """The same system, told in another way."""
    cell, numbers, places = one.cell, one.numbers, one.coordinates
    if cell is not None and "supercell" in kinds:
        times = np.roll([2, 1, 1], rng.integers(3))
        places = np.concatenate([places, places + (times > 1)]) / times
        cell, numbers = cell * times[:, None], np.concatenate([numbers, numbers])
    if "sites" in kinds:
        order = rng.permutation(len(numbers))
        numbers, places = numbers[order], places[order]
    if "origin" in kinds:
        places = places + rng.random(3)
    if "rotation" in kinds:
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        if cell is None:
            places = places @ turn
        else:
            cell = cell @ turn
    if "reflection" in kinds:
        if cell is None:
            places = places * [1, 1, -1]
        else:
            cell = cell * [1, 1, -1]
    if cell is not None and "translation" in kinds:
        places = places + rng.integers(-3, 4, places.shape)
    if cell is not None and "basis" in kinds:
        change = unimodular(rng, 3)
        cell, places = change @ cell, places @ np.linalg.inv(change)
    return Crystal(one.id, one.formula, cell, numbers, places)


def gap(name: str, one: Crystal, kinds: Sequence[str], seed: int) -> float:
    """How far the signatures of a system told in two ways are apart."""
    found = np.abs(seen(name, told(one, kinds, np.random.default_rng(seed))) - seen(name, one))
    return float(found.max())


def test_every_variant_has_settings() -> None:
    found = set()
    for module in pkgutil.iter_modules(represent.__path__):
        one = importlib.import_module(f"{represent.__name__}.{module.name}")
        found |= {f"{module.name}.{variant}" for variant in getattr(one, "VARIANTS", {})}
        assert set(getattr(one, "NOT_INVARIANT", {})) <= set(getattr(one, "VARIANTS", {}))
    assert found == set(NAMES)
    assert set().union(*map(not_invariant, NAMES)) <= set(KINDS)


@every
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), of=NAMED, kinds=st.sets(st.sampled_from(KINDS), min_size=1))
def test_features_are_of_the_system_and_not_of_how_it_is_told(
    name: str, seed: int, of: str, kinds: set[str]
) -> None:
    claimed = sorted(kinds - not_invariant(name))
    assert gap(name, some(seed, of), claimed, seed) < SAME, claimed


@every
def test_atoms_far_away_in_another_image_are_the_same_or_refused(name: str) -> None:
    """Also by more cells than small integers can count."""
    one, far = EXAMPLES[3], EXAMPLES[3].frac.copy()
    far[0] += [300, -40_000, 5]
    other = Crystal(one.id, one.formula, one.cell, one.numbers, far)
    if (said := refusal(name, other)) is not None:
        assert "\n" not in said
    else:
        different = np.abs(seen(name, other) - seen(name, one)).max() > APART
        assert not different or "translation" in not_invariant(name)


@every
def test_what_features_depend_on_besides_is_seen(name: str) -> None:
    """A statement that is not true any longer is found."""
    for kind in not_invariant(name):
        gaps = (gap(name, one, [kind], seed) for one in [*EXAMPLES, TIED] for seed in range(3))
        assert any(found > APART for found in gaps), kind


@every
def test_a_changed_number_is_noticed(name: str) -> None:
    """By the signature, of any array: else nothing of this could fail."""
    kinds, one = known(name), EXAMPLES[3]
    batch = arrays(made(name), [one])
    before = signed(name, batch)
    for key, value in batch.items():
        changed, place = value.copy(), tuple(size // 2 for size in value.shape)
        if not value.size:
            continue
        if value.dtype.kind == "f":
            changed[place] += 0.1 * max(1.0, abs(value[place]))
        elif column := next(iter(kinds.refers[key]), None):
            rows = next(len(batch[other]) for other, kind in kinds.rows.items() if kind == column)
            changed[place] = (value[place] + 1) % rows
        else:
            changed[place] = value[place] % 100 + 1
        if not np.array_equal(changed, value):
            assert np.abs(signed(name, batch | {key: changed}) - before).max() > APART, key
    twice = {key: np.concatenate([value, value[:1]]) for key, value in batch.items()}
    assert np.abs(signed(name, twice) - before).max() > APART


def contents(item: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Names, kinds, shapes and bytes of some arrays, in their order."""
    found = {key: np.asarray(value) for key, value in item.items()}
    return {key: (value.dtype.str, value.shape, value.tobytes()) for key, value in found.items()}


@every
def test_equal_systems_give_equal_bytes(name: str) -> None:
    """Of another object that makes them too, and whatever is made in between."""
    first = made(name)
    items = [first.build(one) for one in EXAMPLES]
    again = made(name)
    others = [again.build(one) for one in EXAMPLES[::-1]][::-1]
    for item, other in zip(items, others, strict=True):
        assert list(contents(item).items()) == list(contents(other).items())
    assert contents(first.collate(items)) == contents(again.collate(others))


@every
def test_pointers_say_which_rows_are_whose(name: str) -> None:
    """And these rows are as of the system alone: see `layout`."""
    kinds, maker = known(name), made(name)
    batch = maker.collate([maker.build(one) for one in EXAMPLES])
    counts = {rows[: len(EXAMPLES)] for rows in kinds.rows.values()}
    for key, value in batch.items():
        if key.endswith("pointer"):
            assert value[0] == 0
            assert tuple(value.diff().tolist()) in counts, key
        else:
            assert len(value) == sum(kinds.rows[key][: len(EXAMPLES)]), key
            assert value.isfinite().all(), key


@every
def test_a_system_without_a_cell_is_read_or_refused(name: str) -> None:
    """What is claimed holds of it too; there is no lattice for the rest."""
    if not reads_free(name):
        with pytest.raises(CrystalmeshError, match=r"^m: no cell; .+$"):
            made(name).build(FREE[0])
        return
    claimed = [kind for kind in OF_ALL if kind not in not_invariant(name)]
    for seed, one in enumerate(FREE):
        assert np.isfinite(seen(name, one)).all()
        assert gap(name, one, claimed, seed) < SAME


@every
def test_what_cannot_be_made_is_refused_in_one_line(name: str) -> None:
    """Elements beyond the tables; and where atoms lie on each other, only that."""
    for number in (0, 101, 118):
        one = Crystal("x", "X", 4 * np.eye(3), np.array([number]), np.zeros((1, 3)))
        with pytest.raises(CrystalmeshError, match=rf"^.*\b{number}\b.* elements 1-100 .*$"):
            made(name).build(one)
    clash = Crystal("x", "X", 4 * np.eye(3), np.array([11, 11]), np.zeros((2, 3)))
    assert "\n" not in (refusal(name, clash) or "")


@every
def test_bad_settings_are_refused_in_one_line(name: str) -> None:
    own = PARAMS.representation(name)
    wrong: list[tuple[str, dict[str, Any], str]] = [("nonesuch", {"nonesuch": 1}, "")]
    for key, value in own.items():
        others = ["text", -1, 0, math.nan, math.inf, None, [1], *([1.5] * isinstance(value, int))]
        wrong += [(key, {}, key), *((key, {key: other}, "") for other in others)]
    for key, changes, without in wrong:
        with pytest.raises(CrystalmeshError) as caught:
            made(name, changes, without)
        module = name.partition(".")[0]
        assert re.fullmatch(rf"representations\.{module}(\.\w+)?: {key}: .+", str(caught.value))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A dataset of the examples, and two without a cell, that is to get all representations."""
    tree: Tree = copy.deepcopy(TREE) | {"models": {}, "studies": {}}
    tree["representations"] = PARAMS.representations
    tree["features"] = {"tiny": {name: {} for name in NAMES}}
    project = write_project(tmp_path_factory.mktemp("stored") / "project", tree)
    systems, none = [*EXAMPLES[:4], *FREE, *EXAMPLES[4:]], np.full((3, 3), np.nan)
    project.crystals("tiny").mkdir(parents=True)
    save(
        Crystals(
            dataset="tiny",
            entries=len(systems),
            ids=[f"x-{number}" for number in range(len(systems))],
            formulas=[one.formula for one in systems],
            lattices=np.stack([none if one.cell is None else one.cell for one in systems]),
            pointer=np.cumsum([0, *(len(one.numbers) for one in systems)]),
            numbers=np.concatenate([one.numbers for one in systems]),
            coordinates=np.concatenate([one.coordinates for one in systems]),
            labels={},
        ),
        project.crystals("tiny"),
    )
    return project


@every
def test_what_is_stored_is_what_was_made(
    name: str, stored: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several files, with the reasons of the systems that have no such representation."""
    monkeypatch.setattr(store, "SHARD", 5)
    store.build(stored, "tiny", name, 1)
    features, maker = Features(stored.features("tiny", name)), made(name)
    crystals = Crystals.load(stored.crystals("tiny"))
    assert set(features.rejected) == (set() if reads_free(name) else {"x-4", "x-5"})
    assert set(features) == set(crystals.ids) - set(features.rejected)
    items = [maker.build(crystals[crystals.position(one)]) for one in features]
    for one, item in zip(features, items, strict=True):
        assert contents(features[one]) == contents(item)
    assert contents(maker.collate(list(features.values()))) == contents(maker.collate(items))
