"""Official folds, the Delaunay network beside CGCNN, and its ablations."""

import statistics
from collections.abc import Mapping, Sequence

from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables import beside
from crystalmesh.report.tables.benchmark import benchmark
from crystalmesh.report.tables.runs import place, targets
from crystalmesh.report.tables.table import (
    NONE,
    Column,
    Table,
    change,
    count,
    deviation_of,
    heading,
    spread,
    unit,
)


def delaunay(context: Context) -> Table:
    """The Delaunay network beside the longest training of CGCNN on the same crystals."""
    pairs = beside.pairs(
        context, lambda r: r.architecture == "delaunay", lambda r: r.architecture == "cgcnn"
    )
    title = "The Delaunay network beside CGCNN"
    names, keys = ("Delaunay", "CGCNN"), ("delaunay", "cgcnn")
    return beside.compared(context, pairs, names, keys, "delaunay", title)


def ablations(context: Context) -> Table:
    """Each variant of a network beside it, on the same crystals; and what training it costs.

    The speed is that of benchmarks/models.json, where it has the network.
    """
    pairs = _pairs(sorted(context.found, key=place(context)))
    columns = targets([variant for variant, _ in pairs])
    table = Table(
        "ablations",
        ("target", "model", "representation", "variant_of", "n_train", "seeds", "mean", "std",
         "change", "train_crystals_per_s", "unit"),
        (
            Column("network", left=True),
            *(
                Column(title, heading(target))
                for target in columns.values()
                for title in ("mean over seeds", "change / %")
            ),
            Column("seeds"),
            Column("crystals/s, training"),
        ),
        "Ablations of the Delaunay network",
        "Mean ± standard deviation over seeds; change against the first line.",
    )  # fmt: skip
    speeds = results.Speeds.load(context.project, context.name)
    for name in dict.fromkeys(variant.variant_of for variant, _ in pairs):
        own = [pair for pair in pairs if pair[0].variant_of == name]
        bases = {base.target: base for _, base in own}
        lines = [bases]
        for model in dict.fromkeys(variant.run.model for variant, _ in own):
            lines.append({v.target: v for v, _ in own if v.run.model == model})
        for rows in lines:
            _add(context, table, list(columns), rows, bases, speeds)
    if pairs:
        context.numbers["ablations.train"] = count(len(pairs[0][0].train))
    return table


def _pairs(found: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Each variant with the network that it is a variant of, on the same crystals."""
    pairs = []
    for variant in (r for r in found if r.variant_of):
        same = (variant.variant_of, variant.target, variant.trained)
        base = [r for r in found if (r.run.model, r.target, r.trained) == same]
        pairs += [(variant, r) for r in base[:1]]
    return pairs


def _add(
    context: Context, table: Table, columns: Sequence[str], rows: Mapping[str, Result],
    bases: Mapping[str, Result], speeds: results.Speeds,
) -> None:  # fmt: skip
    """A line: a network on each target, and how far it is from the first line."""
    first = next(iter(rows.values()))
    speed = speeds.of(first.run).get("train_crystals_per_s")
    cells = [context.project.params.models[first.run.model].title]
    for name in columns:
        if name not in rows:
            cells += [NONE, NONE]
            continue
        result = rows[name]
        values = result.of_members().tolist()
        mean, other = statistics.fmean(values), float(bases[name].of_members().mean())
        percent = 100 * (mean - other) / other if result.variant_of else None
        table.add(
            [
                name, *result.method[:2], first.variant_of, len(first.train), len(values), mean,
                deviation_of(values), percent, speed, unit(result.quantity),
            ],
            None,
        )  # fmt: skip
        cells += [
            spread(values, result.quantity, 4), NONE if percent is None else change(percent),
        ]  # fmt: skip
    cells += [count(len(first.of_members())), count(None if speed is None else round(speed))]
    table.cells.append(cells)


TABLES = [benchmark, delaunay, ablations]
