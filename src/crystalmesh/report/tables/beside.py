"""One network beside another on the same crystals: pairs, and tables of them.

A study says which networks are compared, and takes of the columns here what its question needs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import (
    NONE,
    Column,
    Table,
    count,
    heading,
    shown,
    span,
    unit,
)

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
Chosen = Callable[[Result], bool]


@dataclass(frozen=True)
class Pair:
    """Two results with the same target, training and test crystals."""

    one: Result
    other: Result

    @cached_property
    def difference(self) -> float:
        """Of the metrics, one minus other, over the test crystals of both."""
        return float(results.paired(self.one, self.other).mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of the difference: both are tested on the same crystals."""
        return results.paired_interval(self.one, self.other)

    @property
    def ratio(self) -> float:
        """Of the errors; of classes, of the shares of wrong ones."""
        one, other = (100 - r.value if r.classes else r.value for r in (self.one, self.other))
        return one / other if other else math.inf

    @property
    def verdict(self) -> str:
        """Which of them is ahead: `one`, `other`, or `open` where the interval holds zero."""
        low, high = self.interval
        if low <= 0 <= high:
            return "open"
        return "one" if (high < 0) != self.one.classes else "other"


def partner(found: Sequence[Result], one: Result, chosen: Chosen) -> Result | None:
    """Of the chosen results, the one with the training and test crystals of `one`.

    Of several models the one of the same name is taken, else one trained by the same optimizer,
    else the first.
    """
    candidates = [r for r in found if chosen(r) and not r.transferred and r.parts == one.parts]

    def unlike(r: Result) -> tuple[bool, bool]:
        return r.run.model != one.run.model, r.optimizer != one.optimizer

    return min(candidates, key=unlike, default=None)


def pairs(context: Context, one: Chosen, other: Chosen, longest: bool = True) -> list[Pair]:
    """Each chosen result with its partner, where it has one; not those on all folds.

    Args:
        context: of the study; variants for the table of ablations are left out.
        one, other: what is compared with what.
        longest: of several trainings of the partner, warm restarts too, take the longest.
    """
    found = context.plain
    made = []
    for result in found:
        if not one(result) or result.run.fold == "all":
            continue
        match = partner(found, result, other)
        if match is not None and longest:
            match = results.longest(context.project, found, match)
        if match is not None:
            made.append(Pair(result, match))
    return made


@dataclass(frozen=True)
class Part:
    """Some columns of a table of pairs: what they say of a pair, for programs and for people."""

    keys: Sequence[str]
    columns: Sequence[Column]
    row: Callable[[Pair], Sequence[Any]]
    cells: Callable[[Pair], Sequence[str]]


def who(context: Context, title: str) -> Part:
    """Target, network, and how many crystals it was trained and tested on."""

    def sizes(pair: Pair) -> list[int]:
        return [len(pair.one.train), pair.one.tested]

    return Part(
        ("target", "model", "representation", "n_train", "n_test"),
        (
            Column("target and metric", left=True),
            Column(title, left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
        ),
        lambda p: [p.one.target, *p.one.method[:2], *sizes(p)],
        lambda p: [
            heading(p.one.quantity), results.title(context.project, p.one), *map(count, sizes(p)),
        ],
    )  # fmt: skip


def metrics(names: tuple[str, str], keys: tuple[str, str]) -> Part:
    """The metrics of both."""
    return Part(
        keys,
        [Column(name, "test metric") for name in names],
        lambda p: [p.one.value, p.other.value],
        lambda p: [shown(r.value, r.quantity, 4) for r in (p.one, p.other)],
    )


def ratio(names: tuple[str, str]) -> Part:
    """The ratio of their errors."""
    return Part(
        ("ratio",),
        (Column(" / ".join(names), "error"),),
        lambda p: [p.ratio],
        lambda p: [f"{p.ratio:.2f}"],
    )


def difference(names: tuple[str, str], printed: bool = True) -> Part:
    """The difference of their metrics, printed or not, and its bootstrap interval."""
    group = " – ".join(names)
    columns = [Column("difference", group)] * printed + [Column("interval", group)]
    return Part(
        ("difference", "low", "high", "unit"),
        columns,
        lambda p: [p.difference, *p.interval, unit(p.one.quantity)],
        lambda p: [
            *[shown(p.difference, p.one.quantity, 4)] * printed,
            span(*p.interval, p.one.quantity, 4),
        ],
    )


def training(context: Context, names: tuple[str, str], key: str) -> Part:
    """Epochs, those before a warm restart too, and optimizers of both."""

    def epochs(pair: Pair) -> list[list[int]]:
        return [results.trainings(context.project, r.run) for r in (pair.one, pair.other)]

    def optimizers(pair: Pair) -> list[str | None]:
        return [r.optimizer for r in (pair.one, pair.other)]

    return Part(
        ("epochs", f"epochs_{key}", "optimizer", f"optimizer_{key}"),
        (
            Column("optimizer", ", ".join(names), left=True),
            *(Column(name, "epochs") for name in names),
        ),
        lambda p: [*map(sum, epochs(p)), *optimizers(p)],
        lambda p: [
            ", ".join(OPTIMIZERS.get(name or "", NONE) for name in optimizers(p)),
            *(" + ".join(map(str, own)) for own in epochs(p)),
        ],
    )


def table(
    name: str, chosen: Iterable[Pair], parts: Sequence[Part], title: str, note: str = ""
) -> Table:
    """A row a pair, in the columns of all parts."""
    made = Table(
        name,
        [key for part in parts for key in part.keys],
        [column for part in parts for column in part.columns],
        title,
        note,
    )
    for pair in chosen:
        made.add(
            [value for part in parts for value in part.row(pair)],
            [cell for part in parts for cell in part.cells(pair)],
        )
    made.merge()
    return made


def compared(
    context: Context, chosen: Sequence[Pair], names: tuple[str, str], keys: tuple[str, str],
    name: str, title: str,
) -> Table:  # fmt: skip
    """The usual table of pairs: metrics, ratio of the errors, interval, optimizers and epochs.

    Args:
        context, chosen: of the study, and the pairs.
        names, keys: what is compared with what, as printed and in the CSV.
        name, title: of the table.
    """
    parts = [
        who(context, "network"), metrics(names, keys), ratio(names),
        difference(names, printed=False), training(context, names, keys[1]),
    ]  # fmt: skip
    note = "The same training and test crystals. The ratio is of the errors."
    return table(name, chosen, parts, title, note)
