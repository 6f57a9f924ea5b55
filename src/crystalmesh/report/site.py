"""The result site of a report: pages that open from disk, without a server and without a network.

Only what the report's stages left is read, and every number is as they wrote it; predictions are
rounded to STEP. The data of the pages are JavaScript files, as a page on disk may read no other.
"""

import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from crystalmesh import files
from crystalmesh.config import Project, Task, lookup
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.predictors import Predictor
from crystalmesh.report import results, viewer
from crystalmesh.report.figures import Looks
from crystalmesh.report.results import CANONICAL, PUBLISHED, Result
from crystalmesh.report.tables import metric, shown, unit
from crystalmesh.represent import representation

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
STEP = 1e-4  # of targets and predictions, in the task's unit
PAGES = {
    "index": "Overview",
    "tables": "Tables",
    "parity": "Predictions",
    "curves": "Learning curves",
    "experiments": "Experiments",
    "viewer": "Meshes",
}
ABOUT = {
    "tables": "Every table of the report; each column sorts.",
    "parity": "Each test crystal's prediction beside its target, for every experiment.",
    "curves": "Validation metric and training loss by epoch, laid over each other.",
    "experiments": "Each experiment's card: metrics, settings, data by checksum, machine.",
    "viewer": "Crystals as the mesh network reads them, and the faces that decide.",
}
TABLES = {  # title, and what it does not say
    "models": (
        "All models on the same crystals",
        "Mean ± standard deviation over the seeds, or the one network’s metric.",
    ),
    "main": ("The study and this work", ""),
    "matbench": (
        "Matbench’s official folds",
        "MAE of published algorithms and of ours on the same entries; ±: over the folds.",
    ),
    "equal": (
        "Mesh networks beside CGCNN",
        "The same training and test crystals. For an MAE a positive difference, for an accuracy a"
        " negative one, means that CGCNN is ahead.",
    ),
    "kinds": (
        "The canonical beside the published mesh",
        "The same network and crystals. For an MAE a negative difference, for an accuracy a"
        " positive one, means that the canonical mesh is ahead.",
    ),
    "complex": (
        "The complex beside CGCNN",
        "The same training and test crystals. The ratio is of the errors.",
    ),
    "symmetry": (
        "Wrong space groups of the network on automorphisms",
        "Operations: of the complex found, and of the point group of the label.",
    ),
    "ablations": (
        "Ablations of the network on the complex",
        "Mean ± standard deviation over seeds; change against the first line.",
    ),
    "transfer": ("Transfer learning", "A negative change is an improvement by pretraining."),
    "repeated": (
        "Every model on the repeated splits",
        "Mean ± standard deviation over the repeats.",
    ),
    "experiments": ("Every experiment", "Interval: bootstrap over the test crystals."),
    "uncertainty": (
        "The 90 % intervals",
        "The share of test crystals that they hold, and their mean width; of classes, how many.",
    ),
    "labels": ("Labels and splits", ""),
    "entries": ("Entries of the raw files", ""),
    "checksums": ("Raw files", ""),
    "settings": ("Settings, from params.yaml", ""),
    "software": ("Versions of the main packages", ""),
}
FIRST = ("models", "main")  # the headline table is the first of these that has rows


def build(project: Project, report: str) -> None:
    """Write results/<report>/site/.

    Raises:
        CrystalmeshError: something that an earlier stage makes is missing, damaged, or made with
            other settings; a crystal of `site` in params.yaml is none of its dataset.
    """
    lookup(project.params.reports, report, "report")
    found = results.load(project, report)
    site = Site.of(project, report, found)
    with files.writing_folder(project.results(report) / "site") as folder:
        for name, text in site.pages().items():
            _write(folder / f"{name}.html", text)
        for name, value in site.data().items():
            _write(
                folder / "data" / f"{name}.js",
                f"crystalmesh.data({json.dumps(name)},{viewer.script(value)});\n",
            )
        for name in ("site.css", "site.js"):
            _write(folder / name, viewer.web(name))
        _write(folder / "plotly.min.js", viewer.plotly())


def _write(path: Path, text: str) -> None:
    files.write_bytes(path, text.encode())


@dataclass(frozen=True)
class Site:
    """All that the pages show.

    Attributes:
        numbers: the prose numbers of the tables' stage.
        tables: the printed tables, by name.
        metrics, cards: of each experiment.
        history: of each experiment, its runs' validation metrics and training losses.
        groups: of each experiment, its metric by space group.
        crystals: of each crystal of the viewer, what the viewer draws.
    """

    project: Project
    report: str
    found: Sequence[Result]
    looks: Looks
    numbers: Mapping[str, Any]
    tables: Mapping[str, Any]
    metrics: Mapping[str, Any]
    cards: Mapping[str, Any]
    history: Mapping[str, Any]
    groups: Mapping[str, str]
    crystals: Mapping[str, Any]

    @classmethod
    def of(cls, project: Project, report: str, found: Sequence[Result]) -> "Site":
        folder = project.results(report) / "tables"
        order = list(TABLES)
        names = sorted(
            (p.stem for p in folder.glob("*.json") if p.stem not in ("numbers", "published")),
            key=lambda n: (order.index(n) if n in order else len(order), n),
        )
        tables = {name: files.read_json(folder / f"{name}.json") for name in names}
        return cls(
            project,
            report,
            found,
            Looks.of(project, found),
            files.read_json(folder / "numbers.json"),
            tables,
            {r.name: files.read_json(project.metrics(report, r.name)) for r in found},
            {r.name: files.read_json(project.card(report, r.name)) for r in found},
            {r.name: _history(project.history(report, r.name)) for r in found},
            _groups(folder / "space_groups.csv"),
            _crystals(project, report),
        )

    # Data -----------------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        """The content of each script of data/, by name."""
        machines, inputs = (
            _distinct(card.get(key) for card in self.cards.values()) for key in ("numerics", "data")
        )
        named = self._named()
        sets: dict[str, str] = {}  # content -> name: experiments share their test crystals
        content: dict[str, Any] = {}
        for dataset, formulas in named.items():
            content[f"crystals-{dataset}"] = _ids([*formulas]) | {
                "formulas": " ".join(formulas.values())
            }
        experiments = []
        for result in self.found:
            tested = self._tested(result, list(named[result.experiment.dataset]))
            key = json.dumps(tested, sort_keys=True)
            if key not in sets:
                sets[key] = f"{result.experiment.task}-{len(sets)}"
                content[f"sets/{sets[key]}"] = tested
            card = self.cards[result.name]
            apart = ("settings", "runs", "data", "numerics", "name")
            content[f"experiments/{result.name}"] = {
                "errors": pack(_steps(result.prediction, result.task, result.target)),
                "history": self.history[result.name],
                "metrics": self.metrics[result.name],
                "numerics": machines.index(card.get("numerics")),
                "data": inputs.index(card.get("data")),
                "groups": self.groups.get(result.name, ""),
                "card": {key: card[key] for key in ("settings", "runs") if key in card}
                | {"rest": {key: value for key, value in card.items() if key not in apart}},
            }
            experiments.append(self._experiment(result, sets[key]))
        tasks = {r.experiment.task: r.task for r in self.found}
        content["summary"] = {
            "report": self.report,
            "tasks": {
                name: {
                    "title": task.title,
                    "unit": unit(task),
                    "metric": metric(task),
                    "classes": task.kind == "classification",
                    "step": _step(task),
                }
                for name, task in tasks.items()
            },
            "experiments": experiments,
            "numerics": machines,
            "data": inputs,
            "crystals": [
                {"id": name, "formula": one["formula"], "group": one["group"]}
                for name, one in self.crystals.items()
            ],
        }
        return content | {f"viewer/{name}": one for name, one in self.crystals.items()}

    def _named(self) -> dict[str, dict[str, str]]:
        """Ids and formulas of all test crystals of each dataset, in the dataset's order."""
        tested: dict[str, set[str]] = {}
        for result in self.found:
            tested.setdefault(result.experiment.dataset, set()).update(result.test)
        named = {}
        for dataset, ids in tested.items():
            crystals = Crystals.load(self.project.crystals(dataset))
            rows = sorted(crystals.position(i) for i in ids)
            named[dataset] = {crystals.ids[row]: crystals.formulas[row] for row in rows}
        return named

    def _tested(self, result: Result, ids: Sequence[str]) -> dict[str, Any]:
        """An experiment's test crystals as steps through the list of ids, and their targets."""
        row = {name: i for i, name in enumerate(ids)}
        places = np.array([row[i] for i in result.test])
        runs: list[list[Any]] = []  # [fold, how many crystals in a row]
        for fold in result.fold:
            if not runs or runs[-1][0] != fold:
                runs.append([fold, 0])
            runs[-1][1] += 1
        return {
            "crystals": pack(np.diff(places, prepend=0)),
            "targets": pack(_steps(result.target, result.task)),
            "folds": runs,
        }

    def _experiment(self, result: Result, tested: str) -> dict[str, Any]:
        """One line of the list of experiments."""
        metrics, task = self.metrics[result.name], result.task
        parts = "folds" if "folds" in metrics else "members"
        spread = ", ".join(shown(float(part), task, 4) for part in metrics.get(parts, []))
        machine = self.cards[result.name].get("numerics", {}).get("cpu", {})
        try:
            return {
                "name": result.name,
                "task": result.experiment.task,
                "dataset": result.experiment.dataset,
                "model": result.experiment.model,
                "representation": result.experiment.representation,
                "title": results.title(self.project, result),
                "colour": self.looks.colour(result),
                "split": metrics["split"],
                "metric": metrics["metric"],
                "shown": shown(float(metrics["value"]), task, 4),
                "spread": spread,
                "over": "fold" if parts == "folds" else "seed",
                "coverage": result.coverage,
                "n_train": metrics["n_train"],
                "n_val": metrics["n_val"],
                "n_test": metrics["n_test"],
                "set": tested,
                "curve": any(len(run["val"]) > 1 for run in self.history[result.name]),
                "search": machine.get("model", ""),
            }
        except (KeyError, TypeError, ValueError) as error:
            path = self.project.metrics(self.report, result.name)
            raise CrystalmeshError(f"{path}: has no {error}; delete it and run again") from error

    # Pages ----------------------------------------------------------------------------------------

    def pages(self) -> dict[str, str]:
        """Each page as HTML, by name."""
        return {
            "index": self._page("index", self._index()),
            "tables": self._page("tables", self._tables()),
            "parity": self._page("parity", PARITY, "Predictions of the test crystals"),
            "curves": self._page("curves", CURVES, "Learning curves"),
            "experiments": self._page("experiments", EXPERIMENTS, "Experiments"),
            "viewer": self._page("viewer", self._viewer(), "Crystals as meshes"),
        }

    @property
    def title(self) -> str:
        """The report's."""
        return self.project.params.reports[self.report].title

    def _page(self, name: str, body: str, heading: str = "") -> str:
        here = {name: ' aria-current="page"'}
        links = "".join(
            f'<li><a href="{page}.html"{here.get(page, "")}>{title}</a></li>'
            for page, title in PAGES.items()
        )
        drawn = name not in ("index", "tables")
        scripts = ["plotly.min.js", "site.js", "data/summary.js"] if drawn else ["site.js"]
        tags = "".join(f'<script src="{path}" defer></script>\n' for path in scripts)
        title = self.title if name == "index" else f"{PAGES[name]} – {self.title}"
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n"
            '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="site.css">\n'
            f'{tags}</head>\n<body data-page="{name}">\n'
            '<a class="skip" href="#content">Skip to the content</a>\n'
            '<header><div><a class="name" href="index.html">crystalmesh</a>'
            f'<nav aria-label="pages"><ul>{links}</ul></nav></div></header>\n<main id="content">\n'
            + (f"<h1>{escape(heading)}</h1>\n" if heading else "")
            + (NOSCRIPT if drawn else "")
            + f"{body}</main>\n<footer><div>{self._footer()}</div></footer>\n</body>\n</html>\n"
        )

    def _footer(self) -> str:
        source = escape(str(self.numbers["dataset.source"]))
        return (
            f"Made by <code>crystalmesh site {self.report}</code> from the files in "
            f'<code>results/{self.report}</code>: <a href="../paper.pdf">paper</a>, '
            '<a href="../metrics.json">metrics</a>, <a href="../ledger.json">ledger of checksums'
            f"</a>. Data: {source}."
        )

    def _index(self) -> str:
        n = self.numbers
        cards = "".join(
            f'<li><a href="{page}.html">{PAGES[page]}</a><p>{escape(text)}</p></li>'
            for page, text in ABOUT.items()
        )
        cards += (
            '<li><a href="../paper.pdf">Paper</a><p>The report as a document (PDF).</p></li>'
            '<li><a href="../ledger.json">Ledger</a><p>The checksum of every output, and the'
            " numerics it was made with.</p></li>"
        )
        head = next((name for name in FIRST if self.tables.get(name, {}).get("rows")), None)
        same = (
            f" Trained on the same {n['shared.train']} crystals, tested on the same "
            f"{n['shared.test']}."
            if head == "models" and "shared.train" in n
            else ""
        )
        table = (
            f"<h2>{TABLES[head][0]}</h2>\n<p>{TABLES[head][1]}{same}</p>\n"
            f"{_table(self.tables[head])}"
            if head
            else ""
        )
        return (
            f"<h1>{escape(self.title)}</h1>\n"
            f"<p>{escape(str(n['experiments']))} experiments on {escape(str(n['dataset']))}: "
            "what each predicted, what it learned from, and how to make it again, bit for bit."
            f'</p>\n<ul class="pages">{cards}</ul>\n{table}'
        )

    def _tables(self) -> str:
        printed = {name: table for name, table in self.tables.items() if table["rows"]}
        titles = {name: TABLES.get(name, (name, "")) for name in printed}
        links = "".join(
            f'<li><a href="#{name}">{escape(title)}</a></li>' for name, (title, _) in titles.items()
        )
        parts = [
            f'<section id="{name}"><h2>{escape(titles[name][0])}</h2>\n'
            f'<p class="note">{escape(titles[name][1])} <a href="../tables/{name}.csv">Full '
            f"precision (CSV)</a></p>\n{_table(table)}</section>\n"
            for name, table in printed.items()
        ]
        if self.groups:
            parts.append(
                '<section id="space_groups"><h2>The metric by space group</h2><p>On each '
                'experiment’s <a href="experiments.html">page</a>, and of all of them in '
                '<a href="../tables/space_groups.csv">space_groups.csv</a>.</p></section>\n'
            )
        return (
            "<h1>Tables</h1>\n<p>Press a column’s heading to sort by it.</p>\n"
            f'<ol class="contents">{links}</ol>\n' + "".join(parts)
        )

    def _viewer(self) -> str:
        if not self.crystals:
            return "<p>params.yaml names no crystals for this page (<code>site</code>).</p>\n"
        return (
            '<div class="controls"><label><span>crystal</span>'
            f'<select id="crystal"></select></label></div>\n{viewer.panel()}'
        )


NOSCRIPT = (
    "<noscript><p>This page draws its data with JavaScript, from the files beside it; nothing is "
    "loaded from elsewhere.</p></noscript>\n"
)
PARITY = (
    '<div class="controls"><label><span>task</span><select id="task"></select></label>'
    '<label><span>experiment</span><select id="experiment"></select></label></div>\n'
    '<h2 id="heading" aria-live="polite"></h2>\n'
    '<div class="two"><div><div id="chart" class="square" role="img" aria-label="predictions and '
    'targets; the table below has the largest errors"></div><p id="note" class="note"></p></div>\n'
    '<div><div id="facts"></div></div></div>\n<div id="classes"></div>\n'
    '<h2>Crystals</h2>\n<div class="controls"><label><span>formula or id</span>'
    '<input type="search" id="find" placeholder="a formula or an id" autocomplete="off"></label>'
    '<span id="found" class="note" aria-live="polite"></span></div>\n<div id="crystals"></div>\n'
)
CURVES = (
    '<div class="controls"><label><span>task</span><select id="task"></select></label>'
    '<label><span>shown</span><select id="what"><option value="val">validation metric</option>'
    '<option value="loss">training loss</option></select></label>'
    '<label class="tick"><input type="checkbox" id="log"> logarithmic</label></div>\n'
    '<div class="two list">'
    '<fieldset id="choose" class="choose" aria-label="experiments"></fieldset>'
    '<div><div id="chart" class="chart" role="img" aria-label="metric by epoch"></div>'
    '<p class="note">Strong line: the mean of an experiment’s networks (folds and ensemble '
    "members); faint: each of them. Models that are fitted in one step have no curve.</p>"
    "</div></div>\n"
)
EXPERIMENTS = (
    '<div class="controls"><label><span>search in names, models, tasks, splits, machines</span>'
    '<input type="search" id="find" autocomplete="off"></label>'
    '<span id="count" class="note" aria-live="polite"></span></div>\n'
    '<div class="two list"><nav id="choose" class="choose" aria-label="experiments"></nav>'
    '<div id="card"></div></div>\n'
)


def _table(table: Mapping[str, Any]) -> str:
    """A printed table as HTML; cells that repeat the one above are there for sorting, unseen."""
    columns = table["columns"]
    rows = ["<tr>"]
    if table["groups"]:
        for group in table["groups"]:
            kind = ' class="group"' if group["title"] else ""
            rows.append(
                f'<td{kind} colspan="{group["end"] - group["start"]}">{escape(group["title"])}</td>'
            )
        rows.append("</tr>\n<tr>")
    for column in columns:
        kind = ' class="left"' if column["left"] else ""
        rows.append(f'<th scope="col"{kind}>{escape(column["title"]) or "what"}</th>')
    rows.append("</tr>")
    body, above = [], ""
    for cells in table["rows"]:
        first, *others = cells
        again = bool(above) and first == ""
        above = above if again else first
        classes = ["left"] * columns[0]["left"] + ["again"] * again
        line = [f'<td class="{" ".join(classes)}">{escape(above)}</td>']
        for column, cell in zip(columns[1:], others, strict=True):
            kind = ' class="left"' if column["left"] else ""
            line.append(f"<td{kind}>{escape(cell)}</td>")
        body.append(f"<tr>{''.join(line)}</tr>\n")
    return (
        '<div class="scroll" tabindex="0"><table class="sortable">\n<thead>'
        f"{''.join(rows)}</thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
    )


# Numbers ------------------------------------------------------------------------------------------


def _step(task: Task) -> float:
    return 1 if task.kind == "classification" else STEP


def _steps(values: Any, task: Task, base: Any = None) -> Any:
    """Values as whole steps; with a base, the steps from it: i64 [n]."""
    steps = np.rint(np.asarray(values) / _step(task)).astype(np.int64)
    return steps if base is None else steps - _steps(base, task)


def pack(numbers: Iterable[int]) -> str:
    """Whole numbers as text, small ones of either sign as one or two characters.

    It is the base64 VLQ of source maps: five bits a character, the lower ones first, the sixth bit
    says that more follow; the lowest bit of a number is its sign.
    """
    found = []
    for number in map(int, numbers):
        rest = 2 * abs(number) + (number < 0)
        while rest > 31:
            found.append(BASE64[32 | rest & 31])
            rest >>= 5
        found.append(BASE64[rest])
    return "".join(found)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in the order of their first places."""
    return list({files.canonical_json(value): value for value in values}.values())


def _short(value: float) -> float:
    """The number with four digits."""
    return float(f"{value:.4g}")


def _history(path: Path) -> list[dict[str, list[float]]]:
    """Validation metric and training loss by epoch, of each run."""
    runs: dict[str, dict[str, list[float]]] = {}
    try:
        for row in files.read_csv(path):
            run = runs.setdefault(row.get("run", ""), {"val": [], "loss": []})
            run["val"].append(_short(float(row["val_metric"])))
            run["loss"].append(_short(float(row["train_loss"])))
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    return list(runs.values())


def _ids(ids: Sequence[str]) -> dict[str, str]:
    """Ids as they are or, where all are one word with a number (mp-149), by their numbers."""
    parts = [re.fullmatch(r"(\D*)(0|[1-9]\d*)", one) for one in ids]
    words = {part[1] if part else None for part in parts}
    if len(words) != 1 or None in words:
        return {"ids": " ".join(ids)}
    numbers = [int(part[2]) for part in parts if part]
    return {"prefix": words.pop() or "", "numbers": pack(np.diff(numbers, prepend=0))}


def _groups(path: Path) -> dict[str, str]:
    """Of each experiment: space group, its training and test crystals, the metric in steps."""
    groups: dict[str, list[int]] = {}
    try:
        for row in files.read_csv(path):
            groups.setdefault(row["experiment"], []).extend(
                [
                    *(int(row[key]) for key in ("space_group", "n_train", "n_test")),
                    round(float(row["value"]) / STEP),
                ]
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); run the stage tables again") from error
    return {name: pack(numbers) for name, numbers in groups.items()}


# The viewer's crystals ----------------------------------------------------------------------------


def _crystals(project: Project, report: str) -> dict[str, Any]:
    """What the viewer draws of each crystal that params.yaml names."""
    site = project.params.site.get(report)
    if site is None:
        return {}
    crystals = Crystals.load(project.crystals(site.dataset))
    rows = [crystals.position(name) for name in site.crystals]
    loaded = [Predictor(project, one.group, one.name, known=None) for one in site.networks]
    networks = {one.experiment.representation: one for one in loaded}
    drawn = {}
    for row in rows:
        crystal, meshes, predictions = crystals[row], [], []
        for kind in (PUBLISHED, CANONICAL):
            network = networks.get(kind)
            maker = representation(kind, project.params.representation(kind))
            meshes.append(viewer.build(crystal, maker, network.networks[0] if network else None))
            if network:
                predictions.append(
                    viewer.prediction(network, crystal)
                    | {"target": _target(crystals, row, network.task)}
                )
        group = crystals.labels["space_group"][row]
        drawn[crystal.id] = viewer.content(crystal, meshes, predictions) | {
            "group": "no space group" if np.isnan(group) else f"space group {int(group)}"
        }
    return drawn


def _target(crystals: Crystals, row: int, task: Task) -> str:
    value = results.targets(task, crystals).get(crystals.ids[row])
    if value is None:
        return "–"
    if task.kind == "classification":
        return str(int(value))
    return f"{shown(value, task)} {unit(task)}"
