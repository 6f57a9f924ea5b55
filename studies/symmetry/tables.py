"""Space groups: every wrong one, with its reason, and the network beside CGCNN."""

from collections import Counter

import numpy as np
import spglib

from crystalmesh import represent
from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables import beside
from crystalmesh.report.tables.table import Column, Table, count, shown

ABOUT, FEW = "approximate symmetry", "few training crystals"


def wrong(context: Context) -> Table:
    """Every wrong space group of the network on automorphisms that saw most crystals, and why.

    Either the complex has not as many operations as the group of spglib's label (the
    crystal is symmetric within a tolerance only), or too few training crystals have that group.
    """
    table = Table(
        "wrong",
        ("id", "formula", "space_group", "predicted", "n_train", "operations", "expected",
         "reason"),
        (
            Column("crystal", left=True),
            Column("formula", left=True),
            Column("label", "space group"),
            Column("predicted", "space group"),
            Column("with this label", "training crystals"),
            Column("of the complex", "operations"),
            Column("of the label", "operations"),
            Column("reason", left=True),
        ),
        "Wrong space groups of the network on automorphisms",
        "Operations: of the complex found, and of the point group of the label.",
    )  # fmt: skip
    own = [r for r in context.plain if r.architecture == "automorphisms"]
    best = max(own, key=lambda r: len(r.train))
    known, name = context.crystals[best.run.dataset], best.run.representation
    maker = represent.representation(name, context.project.params.representation(name))
    seen = results.frequency(best, known)[:, 1]
    for k in np.flatnonzero(best.losses == 0).tolist():
        row = known.position(best.test[k])
        label, predicted, train = int(best.true[k]), int(best.prediction[k]), int(seen[k])
        operations = int(maker.build(known[row])["many"].sum())
        expected = point_group_order(label)
        reason = FEW if operations == expected else ABOUT
        values = [label, predicted, train, operations, expected]
        formula = known.formulas[row]
        table.add(
            [best.test[k], formula, *values, reason],
            [best.test[k], formula, *map(count, values), reason],
        )
    reasons = Counter(row[-1] for row in table.rows)
    context.numbers.update(
        {
            "symmetry.train": count(len(best.train)),
            "symmetry.test": count(len(best.test)),
            "symmetry.accuracy": f"{best.value:.2f}",
            "symmetry.wrong": count(len(table.rows)),
            "symmetry.about": count(reasons[ABOUT]),
            "symmetry.few": count(reasons[FEW]),
            "symmetry.published": shown(_published(context, best), best.quantity),
        }
    )
    return table


def _published(context: Context, result: Result) -> float | None:
    """The accuracy of the mesh network in the talk, where the published values have it."""
    theirs = context.published.get("study", {}).get("targets", {}).get(result.target, {})
    value: float | None = theirs.get("mesh")
    return value


def point_group_order(number: int) -> int:
    """How many operations the point group of a space group has."""
    hall = next(h for h in range(1, 531) if _space_group(h) == number)
    operations = spglib.get_symmetry_from_database(hall)
    return len(np.unique(operations["rotations"], axis=0)) if operations else 0


def _space_group(hall: int) -> int:
    kind = spglib.get_spacegroup_type(hall)
    return kind.number if kind else 0


def network(context: Context) -> Table:
    """The network on automorphisms beside CGCNN on the same crystals."""
    pairs = beside.pairs(
        context, lambda r: r.architecture == "automorphisms", lambda r: r.architecture == "cgcnn"
    )
    title = "The network on automorphisms beside CGCNN"
    names, keys = ("automorphisms", "CGCNN"), ("automorphisms", "cgcnn")
    return beside.compared(context, pairs, names, keys, "network", title)


TABLES = [wrong, network]
