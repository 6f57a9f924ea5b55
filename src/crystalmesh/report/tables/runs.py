"""Every run with its metric, all models on the same crystals, intervals, and space groups."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from crystalmesh import files
from crystalmesh.config.schema import Target
from crystalmesh.learn.conformal import LEVEL
from crystalmesh.report import bootstrap, results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import (
    NONE,
    Column,
    Table,
    count,
    deviation_of,
    heading,
    shown,
    span,
    spread,
    unit,
)

MARGIN = 0.02  # by which a coverage may miss its level


def targets(found: Sequence[Result]) -> dict[str, Target]:
    """The targets of some results, in their order."""
    return {r.target: r.quantity for r in found}


def place(context: Context) -> Callable[[Result], tuple[int, str]]:
    """Sort key: models in the order of config/models."""
    order = list(context.project.params.models)
    return lambda r: (order.index(r.run.model), r.run.representation)


def runs(context: Context) -> Table:
    """Every run with its sizes, its metric, the bootstrap interval and a constant guess."""
    project = context.project
    table = Table(
        "runs",
        (
            "study", "run", "target", "model", "representation", "split", "fold", "seed", "size",
            "n_train", "n_val", "n_test", "metric", "value", "low", "high", "constant", "unit",
            "parameters", "epochs",
        ),
        (
            Column("target and metric", left=True),
            Column("model", left=True),
            Column("representation", left=True),
            Column("train", "crystals"),
            Column("val.", "crystals"),
            Column("test", "crystals"),
            Column("metric"),
            Column("interval"),
            Column("constant"),
            Column("parameters"),
            Column("epochs"),
        ),
        "Every run",
        "Interval: bootstrap over the test crystals. Constant: the metric of the best constant"
        " guess.",
    )  # fmt: skip
    for result in context.found:
        run, target = result.run, result.quantity
        own = files.read_json(project.metrics(run))
        guess = results.constant(result, context.crystals[run.dataset])
        low, high = bootstrap.interval(result.losses, result.drawn)
        sizes = [*results.sizes(project, result), result.tested]
        facts, value = [own["parameters"], own["epochs"]], own["targets"][result.target]["value"]
        table.add(
            [
                run.study, run.name, result.target, run.model, run.representation, run.split,
                run.fold, run.seed, run.size, *sizes, target.metric, value, low, high, guess,
                unit(target), *facts,
            ],
            [
                heading(target), results.title(project, result), run.representation,
                *map(count, sizes), shown(value, target, 4), span(low, high, target, 4),
                shown(guess, target, 4), *map(count, facts),
            ],
        )  # fmt: skip
    context.numbers["runs"] = count(len({r.run.reference for r in context.found}))
    table.merge()
    return table


def models(context: Context) -> Table:
    """All models by all targets, on the crystals that most methods share.

    A cell is the mean and the standard deviation over the seeds of an ensemble's members, or the
    one network's metric. The CSV also has the ensemble's own metric.
    """
    shared = results.same_crystals(context.plain)
    columns = targets(shared)
    table = Table(
        "models",
        ("target", "model", "representation", "n_train", "n_test", "seeds", "mean", "std",
         "ensemble", "coverage", "width", "unit"),
        (Column("model", left=True), *(Column(heading(target)) for target in columns.values())),
        "All models on the same crystals",
        "Mean ± standard deviation over the seeds, or the one network’s metric.",
    )  # fmt: skip
    by_method = {r.method: r for r in sorted(shared, key=place(context))}
    for method, first in by_method.items():
        cells = [results.title(context.project, first)]
        for name, target in columns.items():
            own = [r for r in shared if r.method == method and r.target == name][:1]
            cells += [spread(r.of_members().tolist(), target) for r in own] or [NONE]
            for result in own:
                table.add(_of_model(result), None)
        table.cells.append(cells)
    table.cells.append(["best constant", *_guesses(context, table, shared)])
    context.numbers["shared"] = len(by_method) > 1
    if shared:
        context.numbers.update(
            {
                "shared.train": count(len(shared[0].train)),
                "shared.test": count(shared[0].tested),
                "shared.methods": count(len(by_method)),
            }
        )
    return table


def _of_model(result: Result) -> list[Any]:
    """A row of the table of models."""
    members = result.of_members().tolist()
    return [
        result.target, *result.method[:2], len(result.train), result.tested, len(members),
        statistics.fmean(members), deviation_of(members),
        result.value if len(members) > 1 else None, result.coverage, _width(result),
        unit(result.quantity),
    ]  # fmt: skip


def _guesses(context: Context, table: Table, shared: Sequence[Result]) -> list[str]:
    """The best constant of each target as printed; adds them to the CSV."""
    cells = []
    for name in targets(shared):
        one = next(r for r in shared if r.target == name)
        value = results.constant(one, context.crystals[one.run.dataset])
        sizes = [len(one.train), one.tested]
        table.add([name, "constant", None, *sizes, 1, value, *[None] * 4, unit(one.quantity)], None)
        cells.append(shown(value, one.quantity))
    return cells


def _width(result: Result) -> float | None:
    """Mean width of the intervals, or mean number of classes in a set; None where infinite."""
    return result.width if math.isfinite(result.width) else None


def uncertainty(context: Context) -> Table:
    """Coverage and width of the 90 % intervals, and what an ensemble gains over its members."""
    project = context.project
    table = Table(
        "uncertainty",
        ("study", "run", "target", "n_test", "seeds", "coverage", "low", "high", "width", "mean",
         "ensemble", "unit"),
        (
            Column("target and metric", left=True),
            Column("model", left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
            Column("coverage / %", "90% intervals"),
            Column("interval", "90% intervals"),
            Column("width", "90% intervals"),
            Column("members", "metric"),
            Column("ensemble", "metric"),
        ),
        "The 90 % intervals",
        "The share of test crystals that they hold, and their mean width; of classes, how many.",
    )  # fmt: skip
    inside = 0
    for result in context.found:
        target, members = result.quantity, result.of_members()
        low, high = bootstrap.interval(result.inside.astype(float), result.drawn)
        several = len(members) > 1
        mean = float(members.mean()) if several else result.value
        ensemble = result.value if several else None
        inside += abs(result.coverage - LEVEL) <= MARGIN
        seen = len(result.train) + results.validated(project, result.run)
        table.add(
            [
                result.run.study, result.name, result.target, result.tested, len(members),
                result.coverage, low, high, _width(result), mean, ensemble, unit(target),
            ],
            [
                heading(target), results.title(project, result), count(seen),
                count(result.tested), f"{100 * result.coverage:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}", shown(_width(result), target),
                shown(mean, target, 4), shown(ensemble, target, 4),
            ],
        )  # fmt: skip
    context.numbers.update(
        {
            "coverage.inside": count(inside),
            "coverage.all": count(len(context.found)),
        }
    )
    table.merge()
    return table


def space_groups(context: Context) -> Table:
    """The metric of each run by space group, with the group's training crystals."""
    keys = ("study", "run", "target", "space_group", "n_train", "n_test", "value")
    table = Table("space_groups", keys, ())
    for result in context.found:
        groups = results.frequency(result, context.crystals[result.run.dataset])
        losses = result.losses
        for group in sorted(set(groups[:, 0].tolist())):
            inside = groups[:, 0] == group
            row = [group, int(groups[inside][0, 1]), int(inside.sum())]
            value = float(losses[inside].mean())
            table.add((result.run.study, result.name, result.target, *row, value), None)
    return table
