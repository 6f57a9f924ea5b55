"""The tables of a report and every number of its prose, from metrics, predictions and counts.

Each table is written twice: NAME.csv with full precision for people's own analyses, and NAME.json
with the cells as the document prints them. `numbers.json` is one flat dictionary for the prose.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import spglib
import yaml

from crystalmesh import files, provenance, represent
from crystalmesh.config import Experiment, Project, Task, lookup
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.conformal import LEVEL
from crystalmesh.report import results
from crystalmesh.report.results import Result
from crystalmesh.represent import delaunay
from crystalmesh.represent.store import Features

# What a reader needs to know of the software; all of it stands in env/requirements.lock, and torch
# in env/torch.txt.
PACKAGES = (
    "ase", "dvc", "lightning", "matplotlib", "numpy", "pymatgen", "safetensors", "scipy",
    "snakemake", "spglib", "torch", "typst",
)  # fmt: skip
NONE = "–"
MARGIN = 0.02  # by which a coverage may miss its level
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A printed column: a heading, perhaps under a common heading, with the unit below."""

    title: str
    group: str = ""
    left: bool = False


@dataclass
class Table:
    """A table for programs (`keys`, `rows`) and the same for people (`columns`, `cells`)."""

    name: str
    keys: Sequence[str]
    columns: Sequence[Column]
    rows: list[Sequence[Any]] = field(default_factory=list)
    cells: list[Sequence[str]] = field(default_factory=list)

    def add(self, row: Sequence[Any], cells: Sequence[str] | None) -> None:
        """Append a row; without cells it stands in the CSV only."""
        self.rows.append(row)
        if cells is not None:
            self.cells.append(cells)

    def merge(self) -> None:
        """Leave the first cell empty where it repeats the one above: the rows are one group."""
        first = [cells[0] for cells in self.cells]
        for place in range(1, len(first)):
            if first[place] == first[place - 1]:
                self.cells[place] = ["", *self.cells[place][1:]]

    def write(self, folder: Path) -> None:
        """Write NAME.csv and, where there is something to print, NAME.json."""
        files.write_csv(folder / f"{self.name}.csv", self.keys, self.rows)
        if self.columns:
            columns = [{"title": c.title, "left": c.left} for c in self.columns]
            content = {"columns": columns, "groups": self._groups(), "rows": self.cells}
            files.write_json(folder / f"{self.name}.json", content)

    def _groups(self) -> list[dict[str, Any]]:
        """Runs of columns under one common heading: its text, first and last + 1 column."""
        groups: list[dict[str, Any]] = []
        for place, column in enumerate(self.columns):
            if groups and column.group and groups[-1]["title"] == column.group:
                groups[-1]["end"] = place + 1
            else:
                groups.append({"title": column.group, "start": place, "end": place + 1})
        return groups if any(group["title"] for group in groups) else []


def build(project: Project, report: str) -> None:
    """Write results/<report>/tables/ from metrics, predictions, splits, crystals and paper/."""
    lookup(project.params.reports, report, "report")
    crystals = results.crystals(project, report)
    found = results.load(project, report)
    metrics = {r.name: files.read_json(project.metrics(report, r.name)) for r in found}
    published = read_published(project.root / "paper" / "published.yaml")
    numbers: dict[str, Any] = {}
    plain = results.plain(found)
    speeds = results.Speeds.load(project, report)
    tables = [
        entries_table(project, crystals, numbers),
        labels_table(project, crystals, found),
        main_table(project, report, plain, published, numbers),
        experiments_table(project, found, metrics, crystals),
        equal_table(project, plain, numbers),
        kinds_table(project, plain, numbers),
        complex_table(project, report, plain, numbers),
        ablations_table(project, found, speeds, numbers),
        symmetry_table(project, plain, crystals, numbers),
        models_table(project, plain, crystals, numbers),
        uncertainty_table(project, found, numbers),
        transfer_table(project, plain, numbers),
        repeated_table(project, plain),
        matbench_table(project, report, plain, published, speeds, numbers),
        space_groups_table(found, crystals),
        settings_table(project, report, found),
        checksums_table(project, report),
        software_table(provenance.locked(project.root)),
    ]
    numbers |= prose_numbers(project, report, found)
    with files.writing_folder(project.results(report) / "tables") as folder:
        for table in tables:
            table.write(folder)
        files.write_json(folder / "numbers.json", numbers)
        files.write_json(folder / "published.json", published)


def read_published(path: Path) -> dict[str, Any]:
    """The values of the literature; raises CrystalmeshError where the file is missing or broken."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: tree[key] for key in ("study", "dft", "algorithms")}
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; restore it from the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise CrystalmeshError(f"{path}: not the published values ({text}); restore it") from error


def count(number: int) -> str:
    """A count with commas at the thousands."""
    return f"{number:,}"


def shown(value: float | None, task: Task, digits: int = 3) -> str:
    """A metric as printed: accuracy with one decimal, an error with `digits`."""
    if value is None:
        return NONE
    text = f"{value:.1f}" if task.kind == "classification" else f"{value:.{digits}f}"
    return text.replace("-", "−")


def unit(task: Task) -> str:
    """The metric's unit as printed."""
    return "%" if task.kind == "classification" else task.unit.replace("log10", "log₁₀")


def metric(task: Task) -> str:
    """The metric's name as printed."""
    return "accuracy" if task.kind == "classification" else "MAE"


def heading(task: Task) -> str:
    """The task with its metric and unit, as a row of a table names it."""
    return f"{task.title} ({metric(task)}, {unit(task)})"


def size(experiment: Experiment) -> str:
    """The declared size as printed."""
    return count(experiment.size) if isinstance(experiment.size, int) else experiment.size


def span(low: float, high: float, task: Task, digits: int = 3) -> str:
    """An interval as printed."""
    return f"{shown(low, task, digits)} to {shown(high, task, digits)}"


def entries_table(
    project: Project, crystals: Mapping[str, Crystals], numbers: dict[str, Any]
) -> Table:
    """How many entries were read, accepted, and rejected for which reason."""
    table = Table(
        "entries",
        ("dataset", "what", "entries"),
        (Column("dataset", left=True), Column("", left=True), Column("entries")),
    )
    for dataset, own in crystals.items():
        folder, title = project.crystals(dataset), project.params.datasets[dataset].title
        entries = int(files.read_json(folder / "index.json")["entries"])
        rejected = files.read_csv(folder / "rejected.csv")
        reasons = Counter(row["reason"] for row in rejected if row["scope"] == "crystal")
        rows = [("read", entries)]
        rows += [(f"rejected: {reason}", n) for reason, n in sorted(reasons.items())]
        for what, n in [*rows, ("accepted", len(own))]:
            table.add((dataset, what, n), (title, what, count(n)))
        numbers |= {
            f"{dataset}.entries": count(entries),
            f"{dataset}.accepted": count(len(own)),
            f"{dataset}.rejected": count(entries - len(own)),
        }
    table.merge()
    return table


def labels_table(
    project: Project, crystals: Mapping[str, Crystals], found: Sequence[Result]
) -> Table:
    """For each task: crystals with the label, labels rejected and missing, the parts."""
    params = project.params
    used = {(r.experiment.dataset, r.experiment.split) for r in found}
    table = Table(
        "labels",
        ("dataset", "task", "split", "labelled", "rejected", "missing", "train", "val", "test"),
        (
            Column("task", left=True),
            Column("split", left=True),
            Column("with label", "crystals"),
            Column("label rejected", "crystals"),
            Column("no label", "crystals"),
            Column("train", "of the split"),
            Column("validation", "of the split"),
            Column("test", "of the split"),
        ),
    )
    for split in params.splits.values():
        if (dataset := split.dataset, split.split) not in used:
            continue
        members = files.read_json(project.split(dataset, split.split))
        rejected = Counter(
            row["scope"] for row in files.read_csv(project.crystals(dataset) / "rejected.csv")
        )
        for name, task in params.tasks.items():
            labelled = len(results.targets(task, crystals[dataset]))
            bad = rejected[name]
            if name not in members or not labelled + bad:  # not of this split, or of this dataset
                continue
            fold = members[name].get("0", {"train": [], "val": [], "test": []})
            sizes = [len(fold[part]) for part in ("train", "val", "test")]
            missing = len(crystals[dataset]) - labelled - bad
            row = [labelled, bad, missing, *sizes]
            cells = [task.title, split.title, *map(count, row)]
            table.add([dataset, name, split.title, *row], cells)
    return table


def main_table(
    project: Project,
    report: str,
    found: Sequence[Result],
    published: Mapping[str, Any],
    numbers: dict[str, Any],
) -> Table:
    """The study's two result tables as one: its published values and ours, side by side."""
    table = Table(
        "main",
        (
            "task", "metric", "unit", "published_train", "published_mesh", "published_cgcnn",
            "dft_low", "dft_high", "mesh_model", "mesh_train", "mesh", "canonical_same",
            "cgcnn_same", "canonical_train", "canonical", "cgcnn_train", "cgcnn",
        ),
        (
            Column("task and metric", left=True),
            Column("train", "the study"),
            Column("mesh", "the study"),
            Column("CGCNN", "the study"),
            Column("DFT error", "the study"),
            Column("train", "ours, equal size"),
            Column("published mesh", "ours, equal size"),
            Column("canonical mesh", "ours, equal size"),
            Column("CGCNN", "ours, equal size"),
            Column("train", "ours, largest canonical"),
            Column("mesh", "ours, largest canonical"),
            Column("train", "ours, largest CGCNN"),
            Column("CGCNN", "ours, largest CGCNN"),
        ),
    )  # fmt: skip
    for name, task in _tasks(found).items():
        theirs = published["study"]["tasks"].get(name, {})
        dft = published["dft"].get(name, {})
        mesh, canonical, cgcnn = (
            results.largest(found, name, kind)
            for kind in (results.PUBLISHED, results.CANONICAL, results.GRAPH)
        )
        cgcnn = cgcnn and results.longest(project, report, found, cgcnn)
        same, other = (
            results.equal(found, mesh, kind) if mesh else None
            for kind in (results.CANONICAL, results.GRAPH)
        )
        ours = (mesh, same, other, canonical, cgcnn)
        if not any(ours):  # only learned over folds or repeated splits, which have own tables
            continue
        values = [r.value if r else None for r in ours]
        sizes = [len(r.train) if r else None for r in ours]
        row = [
            name, metric(task), unit(task), theirs.get("n_train"), theirs.get("mesh"),
            theirs.get("cgcnn"), dft.get("low"), dft.get("high"),
            mesh.experiment.model if mesh else None,
            sizes[0], *values[:3], sizes[3], values[3], sizes[4], values[4],
        ]  # fmt: skip
        error = NONE
        if dft:
            ends = dict.fromkeys(shown(dft[end], task) for end in ("low", "high"))
            error = "–".join(ends)
        cells = [
            heading(task),
            _count(theirs.get("n_train")),
            shown(theirs.get("mesh"), task),
            shown(theirs.get("cgcnn"), task),
            error,
            _count(sizes[0]),
            *(shown(value, task) for value in values[:3]),
            _count(sizes[3]),
            shown(values[3], task),
            _count(sizes[4]),
            shown(values[4], task),
        ]
        table.add(row, cells)
        numbers |= {
            f"{name}.title": task.title,
            f"{name}.metric": metric(task),
            f"{name}.unit": unit(task),
            f"{name}.published.mesh": cells[2],
            f"{name}.published.cgcnn": cells[3],
            f"{name}.published.train": cells[1],
        }
        if cgcnn:
            numbers |= {
                f"{name}.cgcnn": cells[12],
                f"{name}.cgcnn.interval": span(*results.interval(cgcnn.losses), task),
                f"{name}.cgcnn.train": cells[11],
                f"{name}.cgcnn.test": count(len(cgcnn.test)),
            }
        if mesh:
            numbers |= {f"{name}.mesh": cells[6], f"{name}.mesh.train": cells[5]}
        if same:
            numbers[f"{name}.mesh.canonical"] = cells[7]
        if other:
            numbers[f"{name}.mesh.cgcnn"] = cells[8]
        if canonical:
            numbers |= {f"{name}.canonical": cells[10], f"{name}.canonical.train": cells[9]}
    numbers["tasks"] = [row[0] for row in table.rows]
    numbers["study.dataset"] = published["study"]["dataset"]
    numbers["study.split"] = published["study"]["split"]
    return table


def experiments_table(
    project: Project,
    found: Sequence[Result],
    metrics: Mapping[str, Mapping[str, Any]],
    crystals: Mapping[str, Crystals],
) -> Table:
    """Every experiment with its sizes, its metric, the bootstrap interval and a constant guess."""
    table = Table(
        "experiments",
        (
            "experiment", "task", "model", "representation", "split", "fold", "seed", "size",
            "n_train", "n_val", "n_test", "metric", "value", "low", "high", "constant", "unit",
            "parameters", "epochs",
        ),
        (
            Column("task and metric", left=True),
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
    )  # fmt: skip
    for result in found:
        e, task, own = result.experiment, result.task, metrics[result.name]
        guess = results.constant(result, results.targets(task, crystals[result.experiment.dataset]))
        low, high = results.interval(result.losses)
        sizes = [own["n_train"], own["n_val"], own["n_test"]]
        table.add(
            [
                result.name, e.task, e.model, e.representation, own["split"], own["fold"],
                own["seed"], e.size, *sizes, own["metric"], own["value"], low, high, guess,
                unit(task), own["parameters"], own["epochs"],
            ],
            [
                heading(task), project.params.models[e.model].title, e.representation,
                *map(count, sizes), shown(own["value"], task, 4), span(low, high, task, 4),
                shown(guess, task, 4), count(own["parameters"]), count(own["epochs"]),
            ],
        )  # fmt: skip
    table.merge()
    return table


def equal_table(project: Project, found: Sequence[Result], numbers: dict[str, Any]) -> Table:
    """Each mesh network beside CGCNN on exactly its training and test crystals."""
    table = Table(
        "equal",
        (
            "task", "model", "representation", "n_train", "n_test", "mesh", "cgcnn", "difference",
            "low", "high", "unit",
        ),
        (
            Column("task and metric", left=True),
            Column("mesh network", left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
            Column("mesh", "test metric"),
            Column("CGCNN", "test metric"),
            Column("difference", "mesh – CGCNN"),
            Column("interval", "mesh – CGCNN"),
        ),
    )  # fmt: skip
    verdicts: Counter[str] = Counter(mesh=0, cgcnn=0, open=0)
    for mesh in (r for r in found if r.mesh):
        cgcnn = results.equal(found, mesh, results.GRAPH)
        if cgcnn is None:
            continue
        task = mesh.task
        # Paired: both networks are tested on the same crystals, so resample their differences.
        difference = results.paired(mesh, cgcnn)
        low, high = results.interval(difference)
        better = "mesh" if (high < 0) == (task.kind == "regression") else "cgcnn"
        verdicts["open" if low <= 0 <= high else better] += 1
        sizes = [len(mesh.train), len(mesh.test)]
        values = [mesh.value, cgcnn.value, float(difference.mean())]
        table.add(
            [mesh.experiment.task, *mesh.method[:2], *sizes, *values, low, high, unit(task)],
            [
                heading(task), results.title(project, mesh),
                *map(count, sizes), *(shown(v, task, 4) for v in values), span(low, high, task, 4),
            ],
        )  # fmt: skip
    numbers |= {f"equal.{key}": count(n) for key, n in verdicts.items()}
    numbers |= {"equal.all": count(verdicts.total()), "equal": bool(verdicts.total())}
    table.merge()
    return table


def kinds_table(project: Project, found: Sequence[Result], numbers: dict[str, Any]) -> Table:
    """The mesh network on the canonical mesh beside the same network on the published one."""
    table = Table(
        "kinds",
        (
            "task", "model", "n_train", "n_test", "published", "canonical", "difference", "low",
            "high", "unit", "triangles_published", "triangles_canonical",
        ),
        (
            Column("task and metric", left=True),
            Column("mesh network", left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
            Column("published", "test metric"),
            Column("canonical", "test metric"),
            Column("difference", "canonical – published"),
            Column("interval", "canonical – published"),
            Column("published", "triangles a crystal"),
            Column("canonical", "triangles a crystal"),
        ),
    )  # fmt: skip
    sizes: dict[str, Mapping[str, int]] = {}
    for canonical in (r for r in found if r.experiment.representation == results.CANONICAL):
        published = results.equal(found, canonical, results.PUBLISHED)
        if published is None or published.experiment.model != canonical.experiment.model:
            continue
        task = canonical.task
        difference = results.paired(canonical, published)
        low, high = results.interval(difference)
        values = [published.value, canonical.value, float(difference.mean())]
        triangles = []
        for result in (published, canonical):
            name = result.experiment.representation
            if name not in sizes:
                features = Features(project.features(result.experiment.dataset, name))
                sizes[name] = {i: len(features[i]["faces"]) for i in features}
            known = [sizes[name][i] for i in (*result.train, *result.test) if i in sizes[name]]
            triangles.append(sum(known) / len(known) if known else None)
        numbers_of = [len(canonical.train), len(canonical.test)]
        table.add(
            [
                canonical.experiment.task, canonical.experiment.model, *numbers_of, *values, low,
                high, unit(task), *triangles,
            ],
            [
                heading(task), project.params.models[canonical.experiment.model].title,
                *map(count, numbers_of), *(shown(v, task, 4) for v in values),
                span(low, high, task, 4),
                *(_count(None if n is None else round(n)) for n in triangles),
            ],
        )  # fmt: skip
    numbers["kinds"] = bool(table.rows)
    table.merge()
    return table


COMPLEX = ("complex.", "automorphisms.")  # what is read off the periodic complex itself
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}


def complex_table(
    project: Project, report: str, found: Sequence[Result], numbers: dict[str, Any]
) -> Table:
    """The networks on the complex beside CGCNN on exactly their training and test crystals.

    Of several trainings of CGCNN on these, the longest; by the same optimizer where there is one.
    """
    table = Table(
        "complex",
        ("task", "model", "n_train", "n_test", "complex", "cgcnn", "ratio", "difference", "low",
         "high", "unit", "epochs", "epochs_cgcnn", "optimizer", "optimizer_cgcnn"),
        (
            Column("task and metric", left=True),
            Column("network", left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
            Column("complex", "test metric"),
            Column("CGCNN", "test metric"),
            Column("complex / CGCNN", "error"),
            Column("interval", "complex – CGCNN"),
            Column("optimizer", "complex, CGCNN", left=True),
            Column("complex", "epochs"),
            Column("CGCNN", "epochs"),
        ),
    )  # fmt: skip
    for own in (r for r in found if r.experiment.representation.startswith(COMPLEX)):
        cgcnn = None if own.experiment.fold == "all" else results.equal(found, own, results.GRAPH)
        if cgcnn is None:
            continue
        cgcnn = results.longest(project, report, found, cgcnn)
        task = own.task
        classes = task.kind == "classification"
        difference = results.paired(own, cgcnn)
        low, high = results.interval(difference)
        values = [own.value, cgcnn.value]
        errors = [100 - value if classes else value for value in values]
        ratio = errors[0] / errors[1] if errors[1] else math.inf
        sizes = [len(own.train), len(own.test)]
        epochs = [results.trainings(project, report, r.name) for r in (own, cgcnn)]
        table.add(
            [
                own.experiment.task, own.experiment.model, *sizes, *values, ratio,
                float(difference.mean()), low, high, unit(task), *map(sum, epochs),
                own.optimizer, cgcnn.optimizer,
            ],
            [
                heading(task), results.title(project, own), *map(count, sizes),
                *(shown(v, task, 4) for v in values), f"{ratio:.2f}", span(low, high, task, 4),
                ", ".join(OPTIMIZERS.get(r.optimizer or "", NONE) for r in (own, cgcnn)),
                *(" + ".join(map(str, e)) for e in epochs),
            ],
        )  # fmt: skip
    numbers["complex"] = bool(table.rows)
    table.merge()
    return table


def ablations_table(
    project: Project, found: Sequence[Result], speeds: results.Speeds, numbers: dict[str, Any]
) -> Table:
    """Each variant of a network beside it, on the same crystals; and what training it costs.

    The speed is that of benchmarks/models.json, where it has the network.
    """
    params = project.params
    variants = [r for r in found if r.variant_of]
    pairs = []
    for r in variants:
        same = (r.experiment.task, r.trained)
        base = [
            b
            for b in found
            if b.experiment.model == r.variant_of and (b.experiment.task, b.trained) == same
        ]
        pairs += [(r, b) for b in base[:1]]
    tasks = {r.experiment.task: r.task for r, _ in pairs}
    table = Table(
        "ablations",
        ("task", "model", "representation", "variant_of", "n_train", "seeds", "mean", "std",
         "change", "train_crystals_per_s", "unit"),
        (
            Column("network", left=True),
            *(
                Column(title, heading(task))
                for task in tasks.values()
                for title in ("mean over seeds", "change / %")
            ),
            Column("seeds"),
            Column("crystals/s, training"),
        ),
    )  # fmt: skip

    def line(rows: Mapping[str, Result], base: Mapping[str, Result]) -> None:
        first = next(iter(rows.values()))
        e = first.experiment
        speed = speeds.of(first.experiment).get("train_crystals_per_s")
        cells = [params.models[e.model].title]
        for name, task in tasks.items():
            if name not in rows:
                cells += [NONE, NONE]
                continue
            values = rows[name].of_members().tolist()
            mean, spread = statistics.fmean(values), _deviation(values)
            other = float(base[name].of_members().mean())
            change = 100 * (mean - other) / other if rows[name].variant_of else None
            table.add(
                [name, e.model, e.representation, first.variant_of, len(first.train), len(values),
                 mean, spread, change, speed, unit(task)], None,
            )  # fmt: skip
            text = shown(mean, task, 4)
            cells.append(text if spread is None else f"{text} ± {shown(spread, task, 4)}")
            cells.append(NONE if change is None else f"{change:+.1f}".replace("-", "−"))
        cells += [count(len(first.of_members())), NONE if speed is None else count(round(speed))]
        table.cells.append(cells)

    for base_name in dict.fromkeys(r.variant_of for r, _ in pairs):
        of_base = [(r, b) for r, b in pairs if r.variant_of == base_name]
        bases = {b.experiment.task: b for _, b in of_base}
        line(bases, bases)
        for model in dict.fromkeys(r.experiment.model for r, _ in of_base):
            rows = {r.experiment.task: r for r, _ in of_base if r.experiment.model == model}
            line(rows, bases)
    numbers["ablations"] = bool(table.rows)
    if pairs:
        numbers["ablations.train"] = count(len(pairs[0][0].train))
    return table


def symmetry_table(
    project: Project,
    found: Sequence[Result],
    crystals: Mapping[str, Crystals],
    numbers: dict[str, Any],
) -> Table:
    """Every wrong space group of the network on automorphisms that saw most crystals, and why.

    Either the complex has not as many operations as the group of spglib's label (a crystal that
    is symmetric only about within a tolerance), or too few training crystals have that group.
    """
    table = Table(
        "symmetry",
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
    )  # fmt: skip
    own = [r for r in found if r.experiment.representation.startswith(COMPLEX[1])]
    numbers["symmetry"] = bool(own)
    if not own:
        return table
    best = max(own, key=lambda r: len(r.train))
    e, known = best.experiment, crystals[best.experiment.dataset]
    maker = represent.representation(
        e.representation, project.params.representation(e.representation)
    )
    seen = results.frequency(best, known)[:, 1]
    for k in np.flatnonzero(best.losses == 0).tolist():
        row = known.position(best.test[k])
        label, predicted, train = int(best.target[k]), int(best.prediction[k]), int(seen[k])
        operations = int(maker.build(known[row])["many"].sum())
        expected = point_group_order(label)
        reason = "few training crystals" if operations == expected else "symmetric only about"
        values = [label, predicted, train, operations, expected]
        formula = known.formulas[row]
        table.add(
            [best.test[k], formula, *values, reason],
            [best.test[k], formula, *map(count, values), reason],
        )
    reasons = Counter(row[-1] for row in table.rows)
    numbers |= {
        "symmetry.train": count(len(best.train)),
        "symmetry.test": count(len(best.test)),
        "symmetry.accuracy": f"{best.value:.2f}",
        "symmetry.wrong": count(len(table.rows)),
        "symmetry.about": count(reasons["symmetric only about"]),
        "symmetry.few": count(reasons["few training crystals"]),
    }
    return table


def point_group_order(number: int) -> int:
    """How many operations the point group of a space group has."""
    hall = next(h for h in range(1, 531) if _space_group(h) == number)
    operations = spglib.get_symmetry_from_database(hall)
    return len(np.unique(operations["rotations"], axis=0)) if operations else 0


def _space_group(hall: int) -> int:
    kind = spglib.get_spacegroup_type(hall)
    return kind.number if kind else 0


def matbench_table(
    project: Project,
    report: str,
    found: Sequence[Result],
    published: Mapping[str, Any],
    speeds: results.Speeds,
    numbers: dict[str, Any],
) -> Table:
    """Matbench's published algorithms and ours, on the same entries and official folds.

    The document shows the tasks that this report has an experiment on with official folds; the CSV
    has all.
    """
    tasks = project.params.tasks
    official = {
        project.params.benchmarks[name].task: name for name in results.benchmarks(project, report)
    }
    blocks = {
        task: files.read_json(project.metrics(report, name))["algorithms"]
        for task, name in official.items()
    }
    ours = {
        task: [r for r in found if r.experiment.task == task and _official(project, r, name)]
        for task, name in official.items()
    }
    printed = [task for task, rows in ours.items() if any(r.experiment.fold == "all" for r in rows)]
    columns = [
        Column("algorithm", left=True),
        Column("train", "crystals a fold"),
        Column("training", "CPU minutes a fold"),
    ]
    for name in printed:
        group = f"{tasks[name].title} / {unit(tasks[name])}"
        columns += [Column("all folds", group), Column("± folds", group), Column("fold 0", group)]
    keys = (
        "task", "algorithm", "n_train", "cpu_minutes", "n_all", "mae_all", "folds_std",
        "mae_fold_0",
    )  # fmt: skip
    table = Table("matbench", keys, columns)
    lines: list[tuple[float, list[str]]] = []
    # of ours, single networks over all folds
    best: dict[str, list[tuple[float, str]]] = {name: [] for name in printed}
    for algorithm in sorted({one for block in blocks.values() for one in block}):
        cells = [str(published["algorithms"].get(algorithm, algorithm)), NONE, NONE]
        order = math.inf
        for name, block in blocks.items():
            if algorithm not in block:
                values: list[float | None] = [None] * 3
            else:
                own = block[algorithm]
                values = [own["mae_all"], _deviation(own["folds"]), own["folds"][0]]
                table.add([name, algorithm, None, None, own["n_all"], *values], None)
            if name in printed:
                cells += [shown(value, tasks[name], 4) for value in values]
                order = min(order, values[0] or math.inf) if name == printed[0] else order
        lines.append((order, cells))
    methods = {(r.method, len(r.train)): r for name in printed for r in ours[name]}
    for (method, trained), first in methods.items():
        members = first.experiment.members or 1
        all_folds = first.experiment.fold == "all"
        for together in (False, True)[: 2 if members > 1 and all_folds else 1]:
            own = "this work" + (f", ensemble of {members}" if together else "")
            seen = trained + results.validated(project, first.experiment)
            minutes = _minutes(project, report, first, speeds, members if together else 1)
            cells = [f"{results.title(project, first)} ({own})", count(seen)]
            cells.append(NONE if minutes is None else f"{minutes:.1f}")
            order = math.inf
            for name in printed:
                values = [None] * 3
                for r in ours[name]:
                    if (r.method, len(r.train)) != (method, trained):
                        continue
                    by_fold = r.of_folds() if together else r.of_members_by_fold()
                    if r.experiment.fold == "all":
                        mean = r.value if together else float(r.of_members().mean())
                        values = [mean, _deviation(by_fold.tolist()), float(by_fold[0])]
                    elif r.experiment.fold == 0 and values[2] is None:
                        values = [None, None, float(by_fold[0])]
                    n_all = len(r.test) if r.experiment.fold == "all" else None
                    key = f"{own}: {results.title(project, r)}"
                    table.add([name, key, seen, minutes, n_all, *values], None)
                    if values[0] is not None and not together:
                        best[name].append((values[0], results.title(project, r)))
                cells += [shown(value, tasks[name], 4) for value in values]
                if name == printed[0]:
                    order = values[0] or values[2] or math.inf
            lines.append((order, cells))
    for ensemble in project.params.reports[report].together:
        rows = {
            name: [r for one in names for r in found if r.name == one]
            for name, names in ensemble.experiments.items()
        }
        joined = {
            name: results.joined(parts, list(ensemble.experiments[name].values()))
            for name, parts in rows.items()
        }
        first = next(iter(rows.values()))[0]
        own = f"this work, ensemble of {len(next(iter(joined.values())).members)}"
        seen = len(first.train) + results.validated(project, first.experiment)
        cells, order = [f"{ensemble.title} ({own})", count(seen), NONE], math.inf
        for name in printed:
            values = [None] * 3
            if whole := joined.get(name):
                by_fold = whole.of_folds().tolist()
                values = [whole.value, _deviation(by_fold), by_fold[0]]
                key = f"{own}: {ensemble.title}"
                table.add([name, key, seen, None, len(whole.test), *values], None)
                order = whole.value if name == printed[0] else order
            cells += [shown(value, tasks[name], 4) for value in values]
        lines.append((order, cells))
    table.cells = [cells for order, cells in sorted(lines, key=lambda line: line[0])]
    numbers["matbench"] = bool(printed)
    if printed:
        numbers["matbench.entries"] = count(
            max(own["n_all"] for own in blocks[printed[0]].values())
        )
    for name in printed:
        theirs = [
            (own["mae_all"], str(published["algorithms"].get(algorithm, algorithm)))
            for algorithm, own in blocks[name].items()
        ]
        for whose, candidates in (("ours", best[name]), ("theirs", theirs)):
            if candidates:
                value, title = min(candidates)
                numbers[f"{name}.matbench.{whose}"] = shown(value, tasks[name], 4)
                numbers[f"{name}.matbench.{whose}.title"] = title
    return table


def _minutes(
    project: Project, report: str, result: Result, speeds: results.Speeds, networks: int = 1
) -> float | None:
    """CPU minutes of trainings; None where crystals x epochs over a speed would not tell."""
    if not speeds.of(result.experiment):
        return None
    if project.params.models[result.experiment.model].training is None:  # fitted at once
        return None
    return 60 * speeds.hours(project, report, result.name, networks)


def _official(project: Project, result: Result, name: str) -> bool:
    """Whether an experiment is tested on official folds of a benchmark, under whichever name."""
    experiment, benchmark = result.experiment, project.params.benchmarks[name]
    if experiment.split == name:
        return True
    if experiment.split not in project.params.benchmarks:
        return False
    folds = files.read_json(project.split(benchmark.dataset, name))[benchmark.task]
    chosen = folds if experiment.fold == "all" else {"": folds.get(str(experiment.fold), {})}
    return set(result.held) == {i for fold in chosen.values() for i in fold.get("test", ())}


def _deviation(values: Sequence[float | None]) -> float | None:
    """Standard deviation of a sample; None where there are not two numbers."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def models_table(
    project: Project,
    found: Sequence[Result],
    crystals: Mapping[str, Crystals],
    numbers: dict[str, Any],
) -> Table:
    """All models by all tasks, on the crystals that most methods share.

    A cell is the mean and the standard deviation over the seeds of an ensemble's members, or the
    one network's metric. The CSV also has the ensemble's own metric.
    """
    shared = results.same_crystals(found)
    tasks = _tasks(shared)
    table = Table(
        "models",
        ("task", "model", "representation", "n_train", "n_test", "seeds", "mean", "std", "ensemble",
         "coverage", "width", "unit"),
        (Column("model", left=True), *(Column(heading(task)) for task in tasks.values())),
    )  # fmt: skip
    by_method = {r.method: r for r in sorted(shared, key=_place(project))}
    for method in by_method:
        cells = [results.title(project, by_method[method])]
        for name, task in tasks.items():
            own = [r for r in shared if r.method == method and r.experiment.task == name]
            if not own:
                cells.append(NONE)
                continue
            members = own[0].of_members().tolist()
            mean, spread = statistics.fmean(members), _deviation(members)
            ensemble = own[0].value if len(members) > 1 else None
            table.add(
                [
                    name, *method[:2], len(own[0].train), len(own[0].test), len(members), mean,
                    spread, ensemble, own[0].coverage, _width(own[0]), unit(task),
                ],
                None,
            )  # fmt: skip
            text = shown(mean, task)
            cells.append(text if spread is None else f"{text} ± {shown(spread, task)}")
        table.cells.append(cells)
    guesses = ["best constant"]
    for name in tasks:
        one = next(r for r in shared if r.experiment.task == name)
        value = results.constant(one, results.targets(one.task, crystals[one.experiment.dataset]))
        guesses.append(shown(value, one.task))
        table.add([name, "constant", None, len(one.train), len(one.test), 1, value, *[None] * 4,
                   unit(one.task)], None)  # fmt: skip
    table.cells.append(guesses)
    numbers["shared"] = len(by_method) > 1
    if shared:
        numbers |= {
            "shared.train": count(len(shared[0].train)),
            "shared.test": count(len(shared[0].test)),
            "shared.methods": count(len(by_method)),
        }
    return table


def _place(project: Project) -> Callable[[Result], tuple[int, str]]:
    """Sort key: models in the order of params.yaml."""
    order = list(project.params.models)
    return lambda r: (order.index(r.experiment.model), r.experiment.representation)


def _width(result: Result) -> float | None:
    """Mean width of the intervals, or mean number of classes in a set; None where infinite."""
    return result.width if math.isfinite(result.width) else None


def uncertainty_table(project: Project, found: Sequence[Result], numbers: dict[str, Any]) -> Table:
    """Coverage and width of the 90 % intervals, and what an ensemble gains over its members."""
    table = Table(
        "uncertainty",
        ("experiment", "task", "n_test", "seeds", "coverage", "low", "high", "width", "mean",
         "ensemble", "unit"),
        (
            Column("task and metric", left=True),
            Column("model", left=True),
            Column("train", "crystals"),
            Column("test", "crystals"),
            Column("coverage / %", "90% intervals"),
            Column("interval", "90% intervals"),
            Column("width", "90% intervals"),
            Column("members", "metric"),
            Column("ensemble", "metric"),
        ),
    )  # fmt: skip
    inside = 0
    for result in found:
        task, members = result.task, result.of_members()
        low, high = results.interval(result.inside.astype(float))
        several = len(members) > 1
        mean = float(members.mean()) if several else result.value
        ensemble = result.value if several else None
        inside += abs(result.coverage - LEVEL) <= MARGIN
        table.add(
            [
                result.name, result.experiment.task, len(result.test), len(members),
                result.coverage, low, high, _width(result), mean, ensemble, unit(task),
            ],
            [
                heading(task), results.title(project, result),
                count(len(result.train) + results.validated(project, result.experiment)),
                count(len(result.test)), f"{100 * result.coverage:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}", shown(_width(result), task),
                shown(mean, task, 4), shown(ensemble, task, 4),
            ],
        )  # fmt: skip
    numbers |= {"coverage.inside": count(inside), "coverage.all": count(len(found))}
    table.merge()
    return table


def transfer_table(project: Project, found: Sequence[Result], numbers: dict[str, Any]) -> Table:
    """Transfer learning beside the same network trained anew, over the same repeated splits."""
    table = Table(
        "transfer",
        ("task", "model", "pretrained", "size", "n_train", "n_test", "repeats", "plain",
         "transfer", "difference", "p", "p_corrected", "unit"),
        (
            Column("task and metric", left=True),
            Column("model", left=True),
            Column("pretrained on", left=True),
            Column("target crystals"),
            Column("trained anew", "mean over repeats"),
            Column("pretrained", "mean over repeats"),
            Column("change / %"),
            Column("p", "paired t-test"),
            Column("p, corrected", "paired t-test"),
        ),
    )  # fmt: skip
    for result in found:
        source = result.experiment.pretrained
        if source is None or not result.experiment.transferred:
            continue
        plain = next(
            (
                r
                for r in found
                if not r.experiment.transferred
                and (r.experiment.task, r.trained) == (result.experiment.task, result.trained)
                and r.method[:2] == result.method[:2]
            ),
            None,
        )
        if plain is None or result.experiment.fold != "all":
            continue
        test, task = results.paired_test(result, plain), result.task
        first = project.params.experiment(source.group, source.name)
        trained = len(splits.select(project, first).train)
        values = [float(r.of_folds().mean()) for r in (plain, result)]
        n_test = len(result.test) // test.repeats
        table.add(
            [
                result.experiment.task, result.experiment.model, source.name,
                result.experiment.size, len(result.train), n_test, test.repeats, *values,
                test.difference, test.p, test.p_corrected, unit(task),
            ],
            [
                heading(task), project.params.models[result.experiment.model].title,
                f"{count(trained)} {project.params.tasks[first.task].title}s".replace("ys", "ies"),
                size(result.experiment), *(shown(value, task, 4) for value in values),
                f"{100 * test.difference / values[0]:.1f}".replace("-", "−"), _p(test.p),
                _p(test.p_corrected),
            ],
        )  # fmt: skip
    numbers["transfer"] = bool(table.rows)
    if table.rows:
        numbers["transfer.repeats"] = count(table.rows[0][6])
    table.merge()
    return table


def repeated_table(project: Project, found: Sequence[Result]) -> Table:
    """Every method on the repeated splits: mean and standard deviation over the repeats."""
    repeated = results.repeated(project, found)
    tasks = _tasks(repeated)
    order = list(tasks)
    columns = sorted(
        {(r.experiment.task, len(r.train)) for r in repeated},
        key=lambda column: (order.index(column[0]), column[1]),
    )
    table = Table(
        "repeated",
        ("task", "model", "representation", "pretrained", "n_train", "repeats", "mean", "std",
         "unit"),
        (
            Column("model", left=True),
            *(Column(f"{count(n)} crystals", heading(tasks[name])) for name, n in columns),
        ),
    )  # fmt: skip
    methods: dict[tuple[Any, ...], dict[tuple[str, int], Result]] = {}
    for result in sorted(repeated, key=_place(project)):
        source = result.experiment.pretrained
        key = (*result.method, source.name if source else None)
        methods.setdefault(key, {})[result.experiment.task, len(result.train)] = result
    for (model, representation, *_, source), own in methods.items():
        cells = [results.title(project, next(iter(own.values())))]
        if source and sum(key[:3] == (model, representation, True) for key in methods) > 1:
            cells[0] += f" ({source})"
        for column in columns:
            if column not in own:
                cells.append(NONE)
                continue
            result, (task, n) = own[column], column
            values = result.of_folds().tolist()
            mean, spread = statistics.fmean(values), _deviation(values)
            table.add(
                [task, model, representation, source, n, len(values), mean, spread,
                 unit(result.task)], None,
            )  # fmt: skip
            cells.append(f"{shown(mean, result.task)} ± {shown(spread, result.task)}")
        table.cells.append(cells)
    return table


def _p(value: float) -> str:
    """A p-value as printed."""
    if value >= 0.001:
        return f"{value:.3f}"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(value))
    return f"{value / 10**exponent:.0f} × 10" + str(exponent).translate(SUPERSCRIPT)


def space_groups_table(found: Sequence[Result], crystals: Mapping[str, Crystals]) -> Table:
    """The metric of each experiment by space group, with the group's training crystals."""
    table = Table("space_groups", ("experiment", "space_group", "n_train", "n_test", "value"), ())
    for result in found:
        groups = results.frequency(result, crystals[result.experiment.dataset])
        losses = result.losses
        for group in sorted(set(groups[:, 0].tolist())):
            inside = groups[:, 0] == group
            train, n = int(groups[inside][0, 1]), int(inside.sum())
            table.add((result.name, group, train, n, float(losses[inside].mean())), None)
    return table


def settings_table(project: Project, report: str, found: Sequence[Result]) -> Table:
    """The settings that decide this report's results, as params.yaml gives them."""
    params, tree = project.params, project.tree
    columns = (Column("block of params.yaml", left=True), Column("setting", left=True))
    table = Table("settings", ("block", "setting"), columns)

    def add(block: str, value: Any) -> None:
        table.add((block, _flat(value)), (block, _flat(value)))

    add(f"reports.{report}", {"numerics": params.reports[report].numerics})
    add("validation", tree["validation"])
    used = {(r.experiment.dataset, r.experiment.split) for r in found}
    for name, split in tree["splits"].items():
        if (split["dataset"], split["split"]) in used:
            add(
                f"splits.{name}",
                {key: split[key] for key in ("ratio", "seed", "repeats") if key in split},
            )
    for name in sorted({r.experiment.representation for r in found}):
        add(f"representations.{name}", params.representation(name))
    for name in (m for m in params.models if any(r.experiment.model == m for r in found)):
        add(f"models.{name}.network", tree["models"][name]["network"])
        if "training" in tree["models"][name]:
            add(f"models.{name}.training", tree["models"][name]["training"])
    for result in found:
        if result.experiment.training:
            add(f"{params.block(report, result.name)}.training", result.experiment.training)
    add("first seeds of the experiments", sorted({r.experiment.seed for r in found}))
    return table


def checksums_table(project: Project, report: str) -> Table:
    """Source and SHA-256 of each raw file that the report starts from."""
    params = project.params
    columns = [Column(title, left=True) for title in ("name", "source", "SHA-256")]
    table = Table("checksums", ("name", "source", "sha256"), columns)
    rows = [
        (name, params.datasets[name].source, params.datasets[name].sha256)
        for name in params.datasets_of(report)
    ]
    for key in results.benchmarks(project, report):
        rows.append((key, params.benchmarks[key].source, params.benchmarks[key].sha256))
    for row in rows:
        table.add(row, [row[0], row[1], row[2] or "made by the pipeline; see the ledger"])
    return table


def software_table(versions: Mapping[str, str]) -> Table:
    """The locked versions of the packages that the results may depend on."""
    columns = (Column("package", left=True), Column("version", left=True))
    table = Table("software", ("package", "version"), columns)
    for name in PACKAGES:
        if name in versions:
            table.add((name, versions[name]), (name, versions[name]))
    return table


def prose_numbers(project: Project, report: str, found: Sequence[Result]) -> dict[str, Any]:
    """What the prose says beside the tables' numbers: names, settings, the bootstrap."""
    params = project.params
    settings = params.reports[report]
    dataset = params.datasets[settings.dataset]
    models = {r.experiment.model for r in found}
    titles = [model.title for name, model in params.models.items() if name in models]
    mesh = sorted({r.experiment.representation for r in found if r.mesh})
    numbers: dict[str, Any] = {
        "title": settings.title,
        "report": report,
        "numerics": settings.numerics,
        "dataset": dataset.title,
        "dataset.name": settings.dataset,
        "dataset.source": dataset.source,
        "experiments": count(len(found)),
        "models": titles,
        "mesh": mesh,
        "splits": sorted(
            {
                s.title
                for r in found
                for s in params.splits.values()
                if (s.dataset, s.split) == (r.experiment.dataset, r.experiment.split)
            }
        ),
        "points": any(r.experiment.representation.startswith("points.") for r in found),
        "classical": any(params.models[r.experiment.model].training is None for r in found),
        "interval.level": f"{100 * LEVEL:.0f}%",
        "bootstrap.level": f"{results.LEVEL}%",
        "bootstrap.resamples": count(results.RESAMPLES),
    }
    for name in {r.experiment.representation for r in found}:
        for key, value in params.representation(name).items():
            numbers[f"{name}.{key}"] = f"{value:g}" if isinstance(value, float) else str(value)
    digits = str(round(math.log10(delaunay.VOLUME))).translate(SUPERSCRIPT)
    numbers["mesh.canonical.volume"] = f"10{digits}"
    return numbers


def _tasks(found: Sequence[Result]) -> dict[str, Task]:
    return {r.experiment.task: r.task for r in found}


def _count(number: int | None) -> str:
    return NONE if number is None else count(number)


def _flat(value: Any) -> str:
    """Settings in words: `a 1, b 2`; lists in square brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(v)}" for key, v in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
