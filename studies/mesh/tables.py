"""The study's tables beside ours, and mesh networks beside CGCNN and beside each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from crystalmesh.config.schema import Target
from crystalmesh.report import bootstrap, results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables import beside
from crystalmesh.report.tables.beside import Pair, Part
from crystalmesh.report.tables.runs import targets
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
from crystalmesh.represent.store import Features

PUBLISHED, CANONICAL, GRAPH = "mesh.published", "mesh.canonical", "graph.cgcnn"
# The network that is meant by each: others may read the same representation.
READER = {PUBLISHED: "mesh", CANONICAL: "mesh", GRAPH: "cgcnn"}
MESHES = (PUBLISHED, CANONICAL)


def reads(*representations: str) -> beside.Chosen:
    """Whether a result is of the network that is meant by one of the representations."""
    return lambda r: (
        r.run.representation in representations and r.architecture == READER[r.run.representation]
    )


def largest(found: Sequence[Result], target: str, representation: str) -> Result | None:
    """The result on a representation that saw most crystals of a target; None without any.

    Of those with one training and one test part, trained anew.
    """
    chosen = reads(representation)
    candidates = [
        r
        for r in found
        if chosen(r) and r.target == target and not r.transferred and r.run.fold != "all"
    ]
    return max(candidates, key=lambda r: len(r.train), default=None)


def main(context: Context) -> Table:
    """The study's two tables of results as one: its published values and ours, side by side."""
    table = Table(
        "main",
        (
            "target", "metric", "unit", "published_train", "published_mesh", "published_cgcnn",
            "dft_low", "dft_high", "mesh_model", "mesh_train", "mesh", "canonical_same",
            "cgcnn_same", "canonical_train", "canonical", "cgcnn_train", "cgcnn",
        ),
        (
            Column("target and metric", left=True),
            Column("train", "the study"),
            Column("mesh", "the study"),
            Column("CGCNN", "the study"),
            Column("DFT error", "the study"),
            Column("train", "ours, equal size"),
            Column("published mesh", "ours, equal size"),
            Column("canonical mesh", "ours, equal size"),
            Column("CGCNN", "ours, equal size"),
            Column("train", "ours, largest CGCNN"),
            Column("CGCNN", "ours, largest CGCNN"),
        ),
        "The study of 2022 and this work",
    )  # fmt: skip
    for name, target in targets(context.plain).items():
        ours = _ours(context, name)
        if any(ours):  # else only learned over folds or repeated splits
            _add_main(context, table, name, target, ours)
    if study := context.published.get("study"):
        context.numbers.update({"study.dataset": study["dataset"], "study.split": study["split"]})
    return table


def _ours(context: Context, name: str) -> list[Result | None]:
    """On the published mesh; on the canonical mesh and CGCNN at equal size; these two at most."""
    found = context.plain
    mesh, canonical, graph = (largest(found, name, kind) for kind in (*MESHES, GRAPH))
    if graph:
        graph = results.longest(context.project, found, graph)
    same = [beside.partner(found, mesh, reads(k)) if mesh else None for k in (CANONICAL, GRAPH)]
    return [mesh, *same, canonical, graph]


def _add_main(
    context: Context, table: Table, name: str, target: Target, ours: Sequence[Result | None]
) -> None:
    theirs = context.published.get("study", {}).get("targets", {}).get(name, {})
    dft = context.published.get("dft", {}).get(name, {})
    values = [r.value if r else None for r in ours]
    sizes = [len(r.train) if r else None for r in ours]
    table.add(
        [
            name, target.metric, unit(target), theirs.get("n_train"), theirs.get("mesh"),
            theirs.get("cgcnn"), dft.get("low"), dft.get("high"),
            ours[0].run.model if ours[0] else None,
            sizes[0], *values[:3], sizes[3], values[3], sizes[4], values[4],
        ],
        [
            heading(target), count(theirs.get("n_train")), shown(theirs.get("mesh"), target),
            shown(theirs.get("cgcnn"), target), _dft(dft, target), count(sizes[0]),
            *(shown(value, target) for value in values[:3]), count(sizes[4]),
            shown(values[4], target),
        ],
    )  # fmt: skip
    context.numbers.update(
        {
            f"{name}.published.train": count(theirs.get("n_train")),
            f"{name}.published.mesh": shown(theirs.get("mesh"), target),
            f"{name}.published.cgcnn": shown(theirs.get("cgcnn"), target),
            f"{name}.mesh.train": count(sizes[0]),
            f"{name}.mesh": shown(values[0], target),
            f"{name}.mesh.canonical": shown(values[1], target),
            f"{name}.mesh.cgcnn": shown(values[2], target),
            f"{name}.cgcnn.train": count(sizes[4]),
            f"{name}.cgcnn": shown(values[4], target),
        }
    )
    if graph := ours[4]:
        context.numbers[f"{name}.cgcnn.interval"] = span(*bootstrap.interval(graph.losses), target)


def _dft(dft: Mapping[str, float], target: Target) -> str:
    """The error of density functional theory against experiment as printed."""
    ends = dict.fromkeys(shown(dft[end], target) for end in ("low", "high") if end in dft)
    return "–".join(ends) or NONE


def equal(context: Context) -> Table:
    """Each mesh network beside CGCNN on exactly its training and test crystals."""
    pairs = beside.pairs(context, reads(*MESHES), reads(GRAPH), longest=False)
    verdicts = Counter(pair.verdict for pair in pairs)
    context.numbers.update(
        {
            "equal.all": count(len(pairs)),
            "equal.mesh": count(verdicts["one"]),
            "equal.cgcnn": count(verdicts["other"]),
            "equal.open": count(verdicts["open"]),
        }
    )
    names = ("mesh", "CGCNN")
    parts = [
        beside.who(context, "mesh network"), beside.metrics(names, ("mesh", "cgcnn")),
        beside.difference(names),
    ]  # fmt: skip
    note = (
        "The same training and test crystals. For an MAE a positive difference, for an accuracy a"
        " negative one, means that CGCNN is ahead."
    )
    return beside.table("equal", pairs, parts, "Mesh networks beside CGCNN", note)


def kinds(context: Context) -> Table:
    """The mesh network on the canonical mesh beside the same network on the published one."""
    pairs = beside.pairs(context, reads(CANONICAL), reads(PUBLISHED), longest=False)
    pairs = [pair for pair in pairs if pair.one.run.model == pair.other.run.model]
    names = ("canonical", "published")
    parts = [
        beside.who(context, "mesh network"), beside.metrics(names, names),
        beside.difference(names), triangles(context),
    ]  # fmt: skip
    note = (
        "The same network and crystals. For an MAE a negative difference, for an accuracy a"
        " positive one, means that the canonical mesh is ahead."
    )
    title = "The canonical beside the published mesh"
    return beside.table("kinds", pairs, parts, title, note)


def triangles(context: Context) -> Part:
    """Mean number of triangles of a crystal, of those that have the mesh."""
    known: dict[tuple[str, str], Mapping[str, int]] = {}

    def mean(result: Result) -> float | None:
        key = result.run.dataset, result.run.representation
        if key not in known:
            features = Features(context.project.features(*key))
            known[key] = {i: len(features[i]["faces"]) for i in features}
        found = [known[key][i] for i in (*result.train, *result.test) if i in known[key]]
        return sum(found) / len(found) if found else None

    def both(pair: Pair) -> list[Any]:
        return [mean(pair.one), mean(pair.other)]

    return Part(
        ("triangles_canonical", "triangles_published"),
        [Column(name, "triangles a crystal") for name in ("canonical", "published")],
        both,
        lambda pair: [count(None if n is None else round(n)) for n in both(pair)],
    )


TABLES = [main, equal, kinds]
