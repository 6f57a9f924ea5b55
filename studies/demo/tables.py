"""What of the tables for single studies the demo has rows for: transfer over repeated splits."""

from crystalmesh.report.own import Context
from crystalmesh.report.tables import beside, repeated
from crystalmesh.report.tables.table import Table


def equal(context: Context) -> Table:
    """Each mesh network beside CGCNN on exactly its training and test crystals."""
    pairs = beside.pairs(
        context, lambda r: r.architecture == "mesh", lambda r: r.architecture == "cgcnn"
    )
    names, keys = ("mesh", "CGCNN"), ("mesh", "cgcnn")
    return beside.compared(context, pairs, names, keys, "equal", "Mesh networks beside CGCNN")


TABLES = [equal, repeated.transfer, repeated.repeated]
