"""Which crystals a model is trained, validated and tested on."""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Features, Run, Split, Target
from crystalmesh.data import registry
from crystalmesh.data.crystals import Crystals, natural
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_json, write_json

LONGEST = 256 << 20  # bytes of a benchmark's table once unpacked
# Official folds have a test part only: of the rest, in keyed order, every fifth validates. That is
# also what intervals are calibrated on, and a thousand crystals pin their coverage to one per cent.
FOLD_RATIO, FOLD_SEED = (4, 1, 0), 0
ELEMENT = re.compile(r"[A-Z][a-z]?")  # in a formula


@dataclass(frozen=True)
class Parts:
    """Ids of the crystals of one fold of a run, each list in keyed order.

    `calibration` is the whole validation part of the split, whatever the run's size:
    intervals are calibrated on it.
    """

    train: list[str]
    val: list[str]
    test: list[str]
    calibration: list[str]

    def __iter__(self) -> Iterator[list[str]]:
        return iter((self.train, self.val, self.test))


def keyed(ids: Iterable[str], seed: int) -> list[str]:
    """The ids in an order that is random, but depends on nothing but each id and the seed.

    Hence a crystal more or less in the dataset leaves the order of all others as it is.
    """
    return sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def divide(ids: list[str], ratio: tuple[int, int, int]) -> Parts:
    """Deal ids out by position modulo a+b+c, so the first N of them stand in the same ratio."""
    places = range(len(ids))
    train, val, test = ([ids[i] for i in places if _part(i, ratio) == part] for part in range(3))
    return Parts(train, val, test, val)


def divide_groups(groups: Mapping[str, str], ratio: tuple[int, int, int], seed: int) -> Parts:
    """Deal whole groups out, in keyed order, each to the part that lacks most of its share.

    No part has more than 2/3 of the largest group beyond its share, or 4/3 of it less.

    Args:
        groups: the group of each id.
        ratio: of the parts, in systems.
        seed: of the order of groups, and of the ids within a part.
    """
    members: dict[str, list[str]] = {}
    for name in groups:
        members.setdefault(groups[name], []).append(name)
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    dealt = 0
    for group in keyed(members, seed):
        dealt += len(members[group])
        lacking = [
            share * dealt - sum(ratio) * len(part) for share, part in zip(ratio, parts, strict=True)
        ]
        parts[lacking.index(max(lacking))].extend(members[group])
    train, val, test = (keyed(part, seed) for part in parts)
    return Parts(train, val, test, val)


def blocks(groups: Mapping[str, str], length: int) -> dict[str, str]:
    """Smaller groups: of each group so many consecutive ids (1 < 2 < 10), the last ones fewer."""
    places: dict[str, int] = {}
    found: dict[str, str] = {}
    for name in sorted(groups, key=natural):
        place = places.setdefault(groups[name], 0)
        found[name] = f"{groups[name]}#{place // length}"
        places[groups[name]] = place + 1
    return found


def divide_given(said: Mapping[str, str], ratio: tuple[int, int, int], seed: int) -> Parts:
    """The parts that the data say: train, val or test of each id, nothing for none of them.

    Where no id is said to be of `val`, that is drawn from `train`, as `ratio` has the two.

    Raises:
        CrystalmeshError: another word.
    """
    odd = sorted(set(said.values()) - {"train", "val", "test", ""})
    if odd:
        raise CrystalmeshError(f"'{odd[0]}' is no part; it must be train, val, test or empty")
    train, val, test = (
        keyed((name for name in said if said[name] == part), seed)
        for part in ("train", "val", "test")
    )
    if not val:
        train, val, _ = divide(train, (ratio[0], ratio[1], 0))
    return Parts(train, val, test, val)


def groups_of(crystals: Crystals, by: str) -> dict[str, str]:
    """The group of each system: its reduced formula, its elements (`system`), or a column's text.

    Raises:
        CrystalmeshError: the dataset keeps no such column, or a system has nothing there.
    """
    if by == "formula":
        texts = crystals.formulas
    elif by == "system":
        texts = ["-".join(sorted(set(ELEMENT.findall(text)))) for text in crystals.formulas]
    elif by in crystals.columns:
        texts = crystals.columns[by]
    else:
        raise CrystalmeshError(f"{crystals.dataset} keeps no column '{by}'; see its `columns`")
    lacking = next((one for one, text in zip(crystals.ids, texts, strict=True) if not text), None)
    if lacking is not None:
        raise CrystalmeshError(f"{crystals.dataset}: '{lacking}' has no {by} to group by")
    return dict(zip(crystals.ids, texts, strict=True))


def build(project: Project, dataset: str, name: str) -> None:
    """Write the split `splits.<dataset>.<name>` of config/: target -> fold -> train, val, test.

    The folds are "0", or as many as `repeats` says, each drawn from a seed of its own; of a given
    split one for each of its columns.

    Raises:
        CrystalmeshError: the settings do not fit the dataset; or no system has the label of a
            target that the split names.
    """
    split = lookup(project.params.splits.get(dataset, {}), name, f"split of {dataset}")
    crystals = Crystals.load(project.crystals(dataset))
    try:
        _check_labels(project, dataset, crystals, split)
        deal = _dealer(split, crystals)
    except CrystalmeshError as error:
        raise CrystalmeshError(f"splits.{dataset}.{name}: {error}") from error
    without: set[str] = set()
    if split.without:
        without = set(labelled(crystals, project.params.targets[split.without]))
    content: dict[str, dict[str, dict[str, list[str]]]] = {}
    for key, target in project.params.targets_of(dataset).items():
        if split.targets is not None and key not in split.targets:
            continue
        dealt = project.params.targets[split.by] if split.by else target
        ids = [i for i in labelled(crystals, dealt) if i not in without]
        have = set(labelled(crystals, target))
        content[key] = {}
        for fold in range(split.folds):
            content[key][str(fold)] = _written(deal(ids, fold), have)
    write_json(project.split(dataset, name), content)


def _check_labels(project: Project, dataset: str, crystals: Crystals, split: Split) -> None:
    """Raise where no system at all has the label of a target that the split names.

    A dataset that the pipeline makes is excepted: there it is known which labels are null (EMT has
    no band gap), and nothing can have gone wrong with a file. A split that names no targets has all
    of the project, most of which may be of other datasets.
    """
    if project.params.datasets[dataset].kind != "file":
        return
    for target in (*(split.targets or ()), *filter(None, [split.by])):
        label = project.params.targets[target].label
        if not crystals.known(label).any():
            rejected = project.crystals(dataset) / "rejected.csv"
            raise CrystalmeshError(
                f"no system has the label '{label}' of target '{target}'; see {rejected} and"
                f" `labels` of dataset {dataset}, or leave the target out"
            )


def _dealer(split: Split, crystals: Crystals) -> Callable[[list[str], int], Parts]:
    """How a split of this kind deals ids out in a fold."""
    if split.kind == "random":
        return lambda ids, fold: divide(keyed(ids, split.seed + fold), split.ratio)
    if split.group:
        groups = groups_of(crystals, split.group)
        if split.block:
            groups = blocks(groups, split.block)
        return lambda ids, fold: divide_groups(
            {one: groups[one] for one in ids}, split.ratio, split.seed + fold
        )
    folds = []
    for column in split.columns:
        if column not in crystals.columns:
            raise CrystalmeshError(
                f"{crystals.dataset} keeps no column '{column}'; see its `columns`"
            )
        folds.append(dict(zip(crystals.ids, crystals.columns[column], strict=True)))
        divide_given(folds[-1], split.ratio, split.seed)  # every word is known
    return lambda ids, fold: divide_given(
        {one: folds[fold][one] for one in ids}, split.ratio, split.seed
    )


def build_folds(project: Project, name: str) -> None:
    """Write the official folds of a benchmark, as far as the dataset holds its crystals.

    The test part of a fold is the official one; train and val come from the other folds. The other
    targets have the same folds on the same crystals, as far as these have their labels.
    """
    benchmark = lookup(project.params.benchmarks, name, "benchmark")
    crystals = Crystals.load(project.crystals(benchmark.dataset))
    held = set(labelled(crystals, project.params.targets[benchmark.target]))
    folds = {row["mp_id"]: row["fold"] for row in read_benchmark(project, name)}
    ids = keyed((one for one in folds if one in held), FOLD_SEED)
    if not ids:
        raise CrystalmeshError(
            f"{project.raw(name)}: no crystal of dataset {benchmark.dataset} is among its mp_id"
        )
    content: dict[str, dict[str, dict[str, list[str]]]] = {}
    for key, target in project.params.targets_of(benchmark.dataset).items():
        have = set(labelled(crystals, target))
        if not have:
            continue
        content[key] = {}
        for fold in sorted(set(folds.values()), key=natural):
            rest = divide([one for one in ids if folds[one] != fold], FOLD_RATIO)
            test = [one for one in ids if folds[one] == fold]
            parts = Parts(rest.train, rest.val, test, [])
            content[key][fold] = _written(parts, have)
    write_json(project.split(benchmark.dataset, name), content)


def _written(parts: Parts, have: set[str]) -> dict[str, list[str]]:
    """The parts as they stand in the file, without crystals that lack the target's label."""
    return {
        name: [one for one in part if one in have]
        for name, part in zip(("train", "val", "test"), parts, strict=True)
    }


def read_benchmark(project: Project, name: str) -> list[dict[str, str]]:
    """Rows of a benchmark's table: mbid, mp_id, fold, target, then one column an algorithm.

    Raises:
        CrystalmeshError: the file is missing, changed or broken, or names a crystal twice.
    """
    path = registry.open_raw(project, name)
    try:
        with gzip.open(path) as stream:
            content = stream.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise CrystalmeshError(
                f"{path}: longer than {LONGEST >> 20} MiB: not a benchmark's table"
            )
        table = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        header = list(table.fieldnames or ())
        rows = list(table)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise CrystalmeshError(f"{path}: broken table ({error}); fetch it again") from error
    lacking = [column for column in ("mp_id", "fold", "target") if column not in header]
    if lacking:
        raise CrystalmeshError(f"{path}: no column '{lacking[0]}'")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not row["fold"].isdecimal():
            raise CrystalmeshError(f"{path}: line {number}: not one value for each column")
        if row["mp_id"] in seen:
            raise CrystalmeshError(f"{path}: line {number}: {row['mp_id']} stands there twice")
        seen.add(row["mp_id"])
    return rows


def folds(project: Project, run: Run) -> list[str]:
    """The folds that a run goes over, by name.

    Raises:
        CrystalmeshError: the split has no such target.
    """
    if run.fold != "all":
        return [str(run.fold)]
    path = project.split(run.dataset, run.split)
    content = _content(path)
    if not content.get(run.target):
        raise CrystalmeshError(f"{path}: no target '{run.target}'; see `splits` in config/")
    return sorted(content[run.target], key=natural)


def select(project: Project, run: Run, fold: str | None = None, target: str | None = None) -> Parts:
    """The crystals of a run: a fold of its split, cut down to its size.

    A size of N means the first N crystals in keyed order, still in the ratio of the split; with
    the official folds of a benchmark and with splits that are repeated, given or by groups, N
    crystals for train and val, and always the whole test.

    Args:
        project: the project.
        run: the run.
        fold: by name; default: the only one of the run, or the first.
        target: one of the run's; default: the first.

    Raises:
        CrystalmeshError: no such split file, target or fold; fewer crystals than the size; or a
            part with no crystal in it.
    """
    return _select(
        project,
        (run.dataset, run.split),
        target or run.target,
        fold or folds(project, run)[0],
        run.size,
    )


def wanted(project: Project, dataset: str, features: Features) -> list[str]:
    """The crystals that get a representation, in the order of the crystals."""
    crystals = Crystals.load(project.crystals(dataset))
    if features.split is None:
        return crystals.ids
    chosen: set[str] = set()
    for target, size in features.sizes.items():
        parts = _select(project, (dataset, features.split), target, "0", size)
        chosen.update(*parts, parts.calibration if features.calibration else ())
    return [name for name in crystals.ids if name in chosen]


def labelled(crystals: Crystals, target: Target) -> list[str]:
    """Ids of the crystals that have the target's label, above its threshold where it has one."""
    known = crystals.known(target.label)
    if target.above is not None:
        known &= np.nan_to_num(crystals.labels[target.label], nan=-np.inf) > target.above
    return [crystals.ids[i] for i in np.flatnonzero(known)]


def _part(position: int, ratio: tuple[int, int, int]) -> Literal[0, 1, 2]:
    place = position % sum(ratio)
    return 0 if place < ratio[0] else 1 if place < ratio[0] + ratio[1] else 2


def _content(path: Path) -> Any:
    """A split's file; read once, as runs of many folds ask for it many times."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return read_json(path)  # says what is missing


@lru_cache(maxsize=4)
def _read(path: Path, _: int) -> Any:
    return read_json(path)


def _select(
    project: Project, split: tuple[str, str], target: str, fold: str, size: int | str
) -> Parts:
    path = project.split(*split)
    content = _content(path)
    try:
        parts = Parts(**content[target][fold], calibration=content[target][fold]["val"])
    except (KeyError, TypeError) as error:
        raise CrystalmeshError(
            f"{path}: no fold {fold} of target '{target}'; see `splits` in config/"
        ) from error
    if isinstance(size, int):
        ours = project.params.splits.get(split[0], {}).get(split[1])
        # the test part is never cut
        whole = ours is None or ours.repeats is not None or ours.kind != "random"
        ratio = FOLD_RATIO if ours is None else ours.ratio
        if whole:
            ratio = (ratio[0], ratio[1], 0)
        most = len(parts.train) + len(parts.val) + (0 if whole else len(parts.test))
        if size > most:
            raise CrystalmeshError(
                f"{path}: size {size} of target '{target}': it has only {most} crystals"
            )
        counts = [sum(_part(i, ratio) == part for i in range(size)) for part in range(3)]
        if ours and ours.kind != "random":  # not in the ratio: one part gives what another lacks
            counts[0] = min(max(counts[0], size - len(parts.val)), len(parts.train))
            counts[1] = size - counts[0]
        test = parts.test if whole else parts.test[: counts[2]]
        parts = Parts(parts.train[: counts[0]], parts.val[: counts[1]], test, parts.calibration)
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        if not part:
            raise CrystalmeshError(f"{path}: target '{target}', fold {fold}: no crystals to {name}")
    return parts
