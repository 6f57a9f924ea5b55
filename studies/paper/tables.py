"""The answers of all studies in a few small tables."""

from collections import Counter

from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.tables import beside
from crystalmesh.report.tables.benchmark import benchmark
from crystalmesh.report.tables.repeated import transfer
from crystalmesh.report.tables.runs import targets
from crystalmesh.report.tables.table import NONE, Column, Table, count, heading, shown, unit

# How a crystal is read: title, architectures, representation (None: any).
READERS = {
    "mesh": ("published mesh", ("mesh",), "mesh.published"),
    "canonical": ("canonical mesh", ("mesh",), "mesh.canonical"),
    "cgcnn": ("CGCNN", ("cgcnn",), None),
    "complex": ("Delaunay complex", ("delaunay", "automorphisms"), None),
}


def reads(*names: str) -> beside.Chosen:
    """Whether a result is of one of the readers."""
    wanted = [READERS[name][1:] for name in names]
    return lambda r: any(
        r.architecture in architectures and representation in (None, r.run.representation)
        for architectures, representation in wanted
    )


def answers(context: Context) -> Table:
    """The metric of each reader on the crystals that most models share, beside published values.

    Of several models of one reader, the first; of several seeds, the mean.
    """
    shared = results.same_crystals(context.plain)
    table = Table(
        "answers",
        ("target", "metric", "unit", "published_train", "published_mesh", "published_cgcnn",
         "n_train", *READERS),
        (
            Column("target and metric", left=True),
            Column("train", "the study"),
            Column("mesh", "the study"),
            Column("CGCNN", "the study"),
            Column("train", "ours, the same crystals for all"),
            *(Column(title, "ours, the same crystals for all") for title, *_ in READERS.values()),
        ),
        "The study of 2022 and this work",
    )  # fmt: skip
    for name, target in targets(shared).items():
        theirs = context.published.get("study", {}).get("targets", {}).get(name, {})
        first = next(r for r in shared if r.target == name)
        values = []
        for reader in READERS:
            own = [r for r in shared if r.target == name and reads(reader)(r)]
            values.append(float(own[0].of_members().mean()) if own else None)
        published = [theirs.get(key) for key in ("mesh", "cgcnn")]
        table.add(
            [
                name, target.metric, unit(target), theirs.get("n_train"), *published,
                len(first.train), *values,
            ],
            [
                heading(target), count(theirs.get("n_train")),
                *(shown(value, target) for value in published), count(len(first.train)),
                *(shown(value, target) for value in values),
            ],
        )  # fmt: skip
    return table


def largest(context: Context) -> Table:
    """Networks on the Delaunay complex beside CGCNN, where both saw most crystals of a target."""
    pairs = beside.pairs(context, reads("complex"), reads("cgcnn"))
    best: dict[str, beside.Pair] = {}
    for pair in sorted(pairs, key=lambda p: (-len(p.one.train), p.ratio)):
        best.setdefault(pair.one.target, pair)
    chosen = [best[name] for name in targets(context.plain) if name in best]
    for name, pair in best.items():
        context.numbers[f"{name}.largest.complex"] = shown(pair.one.value, pair.one.quantity)
        context.numbers[f"{name}.largest.cgcnn"] = shown(pair.other.value, pair.other.quantity)
        context.numbers[f"{name}.largest.train"] = count(len(pair.one.train))
    names = ("complex", "CGCNN")
    parts = [
        beside.who(context, "network on the complex"),
        beside.metrics(names, ("complex", "cgcnn")),
        beside.ratio(names), beside.difference(names, printed=False),
    ]  # fmt: skip
    return beside.table("largest", chosen, parts, "The Delaunay complex beside CGCNN")


def verdicts(context: Context) -> None:
    """How often the mesh network or CGCNN is ahead on the same crystals, for the text."""
    pairs = beside.pairs(context, reads("mesh", "canonical"), reads("cgcnn"), longest=False)
    found = Counter(pair.verdict for pair in pairs)
    context.numbers.update(
        {
            "equal.all": count(len(pairs)),
            "equal.mesh": count(found["one"]),
            "equal.cgcnn": count(found["other"]),
            "equal.open": count(found["open"]),
        }
    )


def folds(context: Context) -> Table:
    """The best published algorithm on official folds, our best network, and our ensemble."""
    whole, numbers = benchmark(context), context.numbers
    verdicts(context)
    table = Table(
        "folds",
        ("target", "unit", "published", "published_mae", "network", "network_mae", "ensemble_mae"),
        (
            Column("target and metric", left=True),
            Column("algorithm", "best published", left=True),
            Column("MAE", "best published"),
            Column("network", "ours, best single network", left=True),
            Column("MAE", "ours, best single network"),
            Column("MAE", "ours, ensemble"),
        ),
        "Official folds of Matbench",
    )
    for name, target in targets(context.plain).items():
        key = f"{name}.benchmark"
        if f"{key}.ours" not in numbers or f"{key}.theirs" not in numbers:
            continue
        titles = [numbers[f"{key}.{whose}.title"] for whose in ("theirs", "ours")]
        own = [row for row in whole.rows if row[0] == name and row[5] is not None]
        theirs = min(row[5] for row in own if row[2] is None)
        single = [row for row in own if str(row[1]).startswith("this work:")]
        joined = [row for row in own if str(row[1]).startswith("this work, ensemble")]
        ours, ensemble = (min((row[5] for row in rows), default=None) for rows in (single, joined))
        table.add(
            [name, unit(target), titles[0], theirs, titles[1], ours, ensemble],
            [
                heading(target), titles[0], shown(theirs, target, 4), titles[1],
                shown(ours, target, 4), shown(ensemble, target, 4) if ensemble else NONE,
            ],
        )  # fmt: skip
    return table


def space_groups(context: Context) -> Table:
    """The network on automorphisms that saw most crystals, for the text; no table of its own."""
    own = [r for r in context.plain if r.architecture == "automorphisms"]
    if own:
        best = max(own, key=lambda r: len(r.train))
        context.numbers.update(
            {
                "symmetry.accuracy": f"{best.value:.2f}",
                "symmetry.train": count(len(best.train)),
                "symmetry.test": count(len(best.test)),
            }
        )
    return Table("symmetry", (), ())


TABLES = [answers, largest, folds, space_groups, transfer]
