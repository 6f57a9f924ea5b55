"""Repeated splits: every method with its spread, and transfer learning repeat by repeat."""

import statistics
from typing import Any

from crystalmesh.data import splits
from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.runs import place, targets
from crystalmesh.report.tables.table import (
    NONE,
    Column,
    Table,
    change,
    count,
    deviation_of,
    heading,
    p_value,
    shown,
    size,
    unit,
)


def transfer(context: Context) -> Table:
    """Pretrained networks beside the same ones trained anew, over the same repeated splits."""
    table = Table(
        "transfer",
        ("target", "model", "pretrained", "size", "n_train", "n_test", "repeats", "plain",
         "transfer", "difference", "p", "p_corrected", "unit"),
        (
            Column("target and metric", left=True),
            Column("model", left=True),
            Column("pretrained on", left=True),
            Column("target crystals"),
            Column("trained anew", "mean over repeats"),
            Column("pretrained", "mean over repeats"),
            Column("change / %"),
            Column("p", "paired t-test"),
            Column("p, corrected", "paired t-test"),
        ),
        "Transfer learning",
        "A negative change is an improvement by pretraining.",
    )  # fmt: skip
    for result in context.plain:
        anew = _anew(context, result)
        if anew is not None:
            _add_transfer(context, table, result, anew)
    if table.rows:
        context.numbers["transfer.repeats"] = count(table.rows[0][6])
    table.merge()
    return table


def _anew(context: Context, result: Result) -> Result | None:
    """The same network on the same repeated splits, trained anew; None where there is none."""
    if not result.transferred or result.run.fold != "all":
        return None
    same = (result.target, result.trained, result.method[:2])
    others = (r for r in context.plain if not r.transferred)
    return next((r for r in others if (r.target, r.trained, r.method[:2]) == same), None)


def _add_transfer(context: Context, table: Table, result: Result, anew: Result) -> None:
    params, target = context.project.params, result.quantity
    assert result.run.start
    first = params.run(result.run.start)
    test = results.paired_test(result, anew)
    seen = count(len(splits.select(context.project, first).train))
    values = [float(r.of_folds().mean()) for r in (anew, result)]
    table.add(
        [
            result.target, result.run.model, first.name, result.run.size, len(result.train),
            len(result.test) // test.repeats, test.repeats, *values, test.difference, test.p,
            test.p_corrected, unit(target),
        ],
        [
            heading(target), params.models[result.run.model].title,
            f"{params.targets[first.target].title} of {seen} crystals", size(result.run),
            *(shown(value, target, 4) for value in values),
            change(100 * test.difference / values[0]), p_value(test.p), p_value(test.p_corrected),
        ],
    )  # fmt: skip


def repeated(context: Context) -> Table:
    """Every method on the repeated splits: mean and standard deviation over the repeats."""
    project = context.project
    found = results.repeated(project, context.plain)
    quantities = targets(found)
    order = list(quantities)
    columns = sorted(
        {(r.target, len(r.train)) for r in found},
        key=lambda column: (order.index(column[0]), column[1]),
    )
    table = Table(
        "repeated",
        ("target", "model", "representation", "pretrained", "n_train", "repeats", "mean", "std",
         "unit"),
        (
            Column("model", left=True),
            *(Column(f"{count(n)} crystals", heading(quantities[name])) for name, n in columns),
        ),
        "Every model on the repeated splits",
        "Mean ± standard deviation over the repeats.",
    )  # fmt: skip
    methods: dict[tuple[Any, ...], dict[tuple[str, int], Result]] = {}
    for result in sorted(found, key=place(context)):
        source = project.params.run(result.run.start).name if result.run.start else None
        methods.setdefault((*result.method, source), {})[result.target, len(result.train)] = result
    for key, own in methods.items():
        cells = [results.title(project, next(iter(own.values())))]
        if key[3] and sum(other[:3] == key[:3] for other in methods) > 1:
            cells[0] += f" ({key[3]})"
        for column in columns:
            cells.append(_add_repeated(table, own[column], key[3]) if column in own else NONE)
        table.cells.append(cells)
    return table


def _add_repeated(table: Table, result: Result, source: str | None) -> str:
    """Add a row to the CSV; the cell as printed."""
    values, target = result.of_folds().tolist(), result.quantity
    mean, spread = statistics.fmean(values), deviation_of(values)
    table.add(
        [
            result.target, *result.method[:2], source, len(result.train), len(values), mean, spread,
            unit(target),
        ],
        None,
    )  # fmt: skip
    return f"{shown(mean, target)} ± {shown(spread, target)}"
