"""The Delaunay network beside CGCNN on the same crystals."""

from crystalmesh.report.own import Context
from crystalmesh.report.tables import beside
from crystalmesh.report.tables.table import Table, count, shown


def delaunay(context: Context) -> Table:
    """The Delaunay network beside the longest training of CGCNN on the same crystals."""
    pairs = beside.pairs(
        context, lambda r: r.architecture == "delaunay", lambda r: r.architecture == "cgcnn"
    )
    if pairs:
        best = min(pairs, key=lambda pair: (-len(pair.one.train), pair.one.value))
        context.numbers.update(
            {
                "best.train": count(len(best.one.train)),
                "best.delaunay": shown(best.one.value, best.one.quantity),
                "best.cgcnn": shown(best.other.value, best.other.quantity),
            }
        )
    title = "The Delaunay network beside CGCNN"
    names, keys = ("Delaunay", "CGCNN"), ("delaunay", "cgcnn")
    return beside.compared(context, pairs, names, keys, "delaunay", title)


TABLES = [delaunay]
