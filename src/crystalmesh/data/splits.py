"""Which crystals a model is trained, validated and tested on."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crystalmesh.config import Experiment, Features, Project, lookup
from crystalmesh.data import registry
from crystalmesh.data.crystals import Crystals, natural
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_json, write_json

LONGEST = 256 << 20  # bytes of a benchmark's table once unpacked
# Official folds have a test part only: of the rest, in keyed order, every tenth validates.
FOLD_RATIO, FOLD_SEED = (9, 1, 0), 0


@dataclass(frozen=True)
class Parts:
    """Ids of the crystals of one experiment, each list in keyed order."""

    train: list[str]
    val: list[str]
    test: list[str]

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
    return Parts(*([ids[i] for i in places if _part(i, ratio) == part] for part in range(3)))


def build(project: Project, key: str) -> None:
    """Write the split `splits.key` of params.yaml: train, val, test of every task, fold "0"."""
    split = lookup(project.params.splits, key, "split")
    crystals = Crystals.load(project.crystals(split.dataset))
    content = {}
    for name, task in project.params.tasks.items():
        parts = divide(keyed(labelled(crystals, task.label), split.seed), split.ratio)
        content[name] = {"0": vars(parts)}
    write_json(project.split(split.dataset, split.split), content)


def build_folds(project: Project, name: str) -> None:
    """Write the official folds of a benchmark, as far as the dataset holds its crystals.

    The test part of a fold is the official one; train and val come from the other folds.
    """
    benchmark = lookup(project.params.benchmarks, name, "benchmark")
    crystals = Crystals.load(project.crystals(benchmark.dataset))
    label = project.params.tasks[benchmark.task].label
    held = set(labelled(crystals, label))
    folds = {row["mp_id"]: row["fold"] for row in read_benchmark(project, name)}
    ids = keyed((one for one in folds if one in held), FOLD_SEED)
    if not ids:
        raise CrystalmeshError(
            f"{project.raw(name)}: no crystal of dataset {benchmark.dataset} is among its mp_id"
        )
    content = {}
    for fold in sorted(set(folds.values()), key=natural):
        rest = divide([one for one in ids if folds[one] != fold], FOLD_RATIO)
        test = [one for one in ids if folds[one] == fold]
        content[fold] = vars(Parts(rest.train, rest.val, test))
    write_json(project.split(benchmark.dataset, name), {benchmark.task: content})


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


def select(project: Project, experiment: Experiment) -> Parts:
    """The crystals of an experiment: its fold of its split, cut down to its size.

    A size of N means the first N crystals in keyed order, still in the ratio of the split; with
    the official folds of a benchmark, N crystals for train and val, and always the whole test.

    Raises:
        CrystalmeshError: no such split file, task or fold; fewer crystals than the size; or a
            part with no crystal in it.
    """
    return _select(
        project,
        (experiment.dataset, experiment.split),
        experiment.task,
        str(experiment.fold),
        experiment.size,
    )


def wanted(project: Project, features: Features) -> list[str]:
    """Ids that a block of `features` covers, in the order of the crystals."""
    crystals = Crystals.load(project.crystals(features.dataset))
    if features.sizes == "all":
        return crystals.ids
    chosen: set[str] = set()
    for task, size in features.sizes.items():
        for part in _select(project, (features.dataset, features.split), task, "0", size):
            chosen.update(part)
    return [name for name in crystals.ids if name in chosen]


def labelled(crystals: Crystals, label: str) -> list[str]:
    """Ids of the crystals that have the label."""
    return [crystals.ids[i] for i in np.flatnonzero(np.isfinite(crystals.labels[label]))]


def _part(position: int, ratio: tuple[int, int, int]) -> Literal[0, 1, 2]:
    place = position % sum(ratio)
    return 0 if place < ratio[0] else 1 if place < ratio[0] + ratio[1] else 2


def _select(
    project: Project, split: tuple[str, str], task: str, fold: str, size: int | str
) -> Parts:
    path = project.split(*split)
    content = read_json(path)
    try:
        parts = Parts(**content[task][fold])
    except (KeyError, TypeError) as error:
        raise CrystalmeshError(
            f"{path}: no fold {fold} of task '{task}'; see params.yaml"
        ) from error
    official = split[1] in project.params.benchmarks
    if isinstance(size, int):
        ratios = [s.ratio for s in project.params.splits.values() if (s.dataset, s.split) == split]
        ratio = FOLD_RATIO if official else ratios[0]
        most = len(parts.train) + len(parts.val) + (0 if official else len(parts.test))
        if size > most:
            raise CrystalmeshError(
                f"{path}: size {size} of task '{task}': it has only {most} crystals"
            )
        counts = [sum(_part(i, ratio) == part for i in range(size)) for part in range(3)]
        test = parts.test if official else parts.test[: counts[2]]
        parts = Parts(parts.train[: counts[0]], parts.val[: counts[1]], test)
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        if not part:
            raise CrystalmeshError(f"{path}: task '{task}', fold {fold}: no crystals to {name}")
    return parts
