"""What the data are: entries read and rejected, labels by target, the parts of each split."""

from collections import Counter

from crystalmesh import files
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import Column, Table, count


def entries(context: Context) -> Table:
    """How many entries were read, accepted, and rejected for which reason."""
    project = context.project
    table = Table(
        "entries",
        ("dataset", "what", "entries"),
        (Column("dataset", left=True), Column("", left=True), Column("entries")),
        "Entries of the raw files",
    )
    for dataset, own in context.crystals.items():
        folder, title = project.crystals(dataset), project.params.datasets[dataset].title
        read = int(files.read_json(folder / "index.json")["entries"])
        rejected = files.read_csv(folder / "rejected.csv")
        reasons = Counter(row["reason"] for row in rejected if row["scope"] == "crystal")
        rows = [("read", read)]
        rows += [(f"rejected: {reason}", n) for reason, n in sorted(reasons.items())]
        for what, n in [*rows, ("accepted", len(own))]:
            table.add((dataset, what, n), (title, what, count(n)))
        context.numbers.update(
            {
                f"{dataset}.entries": count(read),
                f"{dataset}.accepted": count(len(own)),
                f"{dataset}.rejected": count(read - len(own)),
            }
        )
    table.merge()
    return table


def labels(context: Context) -> Table:
    """For each target: crystals with the label, labels rejected and missing, the parts.

    The document shows the targets that runs of the study are on; the CSV has all.
    """
    table = Table(
        "labels",
        ("dataset", "target", "split", "labelled", "rejected", "missing", "train", "val", "test"),
        (
            Column("target", left=True),
            Column("split", left=True),
            Column("with label", "crystals"),
            Column("label rejected", "crystals"),
            Column("no label", "crystals"),
            Column("train", "of the split"),
            Column("validation", "of the split"),
            Column("test", "of the split"),
        ),
        "Labels and splits",
    )
    used = {(r.run.dataset, r.run.split) for r in context.found}
    for dataset, splits in context.project.params.splits.items():
        for split in splits:
            if (dataset, split) in used:
                _add_labels(context, table, dataset, split)
    for name, one in context.project.params.benchmarks.items():
        if (one.dataset, name) in used:
            _add_labels(context, table, one.dataset, name)
    return table


def _add_labels(context: Context, table: Table, dataset: str, split: str) -> None:
    project, own = context.project, context.crystals[dataset]
    ours = project.params.splits.get(dataset, {}).get(split)
    title = ours.title if ours else f"{split}, fold 0"  # official folds
    members = files.read_json(project.split(dataset, split))
    used = {(r.run.dataset, r.run.split, r.target) for r in context.found}
    rejected = Counter(
        row["scope"] for row in files.read_csv(project.crystals(dataset) / "rejected.csv")
    )
    for name, target in project.params.targets.items():
        labelled = int(own.known(target.label).sum())
        bad = rejected[name]
        if name not in members or not labelled + bad:  # not of this split, or of this dataset
            continue
        fold = members[name].get("0", {"train": [], "val": [], "test": []})
        sizes = [len(fold[part]) for part in ("train", "val", "test")]
        row = [labelled, bad, len(own) - labelled - bad, *sizes]
        cells = [target.title, title, *map(count, row)]
        table.add([dataset, name, title, *row], cells if (dataset, split, name) in used else None)
