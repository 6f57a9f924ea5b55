"""The result site of a study: pages that open from disk, without a server and without a network.

Only what the study's stages left is read, and every number is as they wrote it; predictions are
rounded to STEP. The data of the pages are JavaScript files, as a page on disk may read no other.
"""

import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Target
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.inference.predictor import Predictor
from crystalmesh.report import results, viewer
from crystalmesh.report.figures.scene import meshes
from crystalmesh.report.figures.style import Looks
from crystalmesh.report.own import Context
from crystalmesh.report.pages import Pages
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import shown, unit

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
STEP = 1e-4  # of true values and predictions, in the target's unit


def build(project: Project, study: str) -> None:
    """Write results/<study>/site/.

    Raises:
        CrystalmeshError: something that an earlier stage makes is missing, damaged, or made with
            other settings; a crystal of `report.site` is none of the study's dataset.
    """
    context = Context.load(project, study)
    site = Site.of(context)
    with files.writing_folder(project.results(study) / "site") as folder:
        for name, text in site.pages().html().items():
            _write(folder / f"{name}.html", text)
        for name, value in site.data().items():
            _write(
                folder / "data" / f"{name}.js",
                f"crystalmesh.data({json.dumps(name)},{viewer.script(value)});\n",
            )
        for name in ("site.css", "site.js", "viewer.js"):
            _write(folder / name, viewer.web(name))
        _write(folder / "plotly.min.js", viewer.plotly())


def _write(path: Path, text: str) -> None:
    files.write_bytes(path, text.encode())


def key(result: Result) -> str:
    """What the pages call a run's predictions of one target."""
    return f"{result.name}.{result.target}"


@dataclass(frozen=True)
class Site:
    """All that the pages show.

    Attributes:
        tables: the printed tables, by name.
        metrics, cards: of each run.
        history: of each run, its networks' validation metrics and training losses.
        groups: by `key`, the metric by space group.
        crystals: of each crystal of the viewer, what the viewer draws.
    """

    context: Context
    looks: Looks
    tables: Mapping[str, Any]
    metrics: Mapping[str, Any]
    cards: Mapping[str, Any]
    history: Mapping[str, Any]
    groups: Mapping[str, str]
    crystals: Mapping[str, Any]

    @classmethod
    def of(cls, context: Context) -> "Site":
        project = context.project
        folder = project.results(context.name) / "tables"
        names = files.read_json(folder / "numbers.json").get("tables", [])
        runs = {r.name: r.run for r in context.found}
        return cls(
            context,
            Looks.of(context, variants=True),
            {name: files.read_json(folder / f"{name}.json") for name in names},
            {name: files.read_json(project.metrics(run)) for name, run in runs.items()},
            {name: files.read_json(project.card(run)) for name, run in runs.items()},
            {name: _history(project.history(run)) for name, run in runs.items()},
            _groups(folder / "space_groups.csv"),
            _crystals(context),
        )

    def pages(self) -> Pages:
        """The pages."""
        study = self.context.study
        dataset = self.context.project.params.datasets[study.dataset]
        return Pages(
            self.context.name,
            study.title,
            dataset.title,
            dataset.source,
            len(self.metrics),
            self.tables,
            bool(self.groups),
            bool(self.crystals),
        )

    def data(self) -> dict[str, Any]:
        """The content of each script of data/, by name."""
        machines, inputs = (
            _distinct(card.get(name) for card in self.cards.values())
            for name in ("numerics", "data")
        )
        named = self._named()
        sets: dict[str, str] = {}  # content -> name: runs share their test crystals
        content: dict[str, Any] = {}
        for dataset, formulas in named.items():
            content[f"crystals-{dataset}"] = _ids([*formulas]) | {
                "formulas": " ".join(formulas.values())
            }
        entries = []
        for result in self.context.found:
            tested = self._tested(result, list(named[result.run.dataset]))
            text = json.dumps(tested, sort_keys=True)
            if text not in sets:
                sets[text] = f"{result.target}-{len(sets)}"
                content[f"sets/{sets[text]}"] = tested
            card = self.cards[result.name]
            content[f"runs/{key(result)}"] = self._run(result) | {
                "numerics": machines.index(card.get("numerics")),
                "data": inputs.index(card.get("data")),
            }
            entries.append(self._entry(result, sets[text]))
        content["summary"] = {
            "study": self.context.name,
            "targets": {
                name: {
                    "title": target.title,
                    "unit": unit(target),
                    "metric": target.metric,
                    "classes": target.kind == "classification",
                    "step": _step(target),
                }
                for name, target in {r.target: r.quantity for r in self.context.found}.items()
            },
            "entries": entries,
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
        for result in self.context.found:
            tested.setdefault(result.run.dataset, set()).update(result.test)
        named = {}
        for dataset, ids in tested.items():
            crystals = self.context.crystals[dataset]
            rows = sorted(crystals.position(i) for i in ids)
            named[dataset] = {crystals.ids[row]: crystals.formulas[row] for row in rows}
        return named

    def _tested(self, result: Result, ids: Sequence[str]) -> dict[str, Any]:
        """Test crystals as steps through the list of ids, and their true values."""
        row = {name: i for i, name in enumerate(ids)}
        places = np.array([row[i] for i in result.test])
        folds: list[list[Any]] = []  # [fold, how many crystals in a row]
        for fold in result.fold:
            if not folds or folds[-1][0] != fold:
                folds.append([fold, 0])
            folds[-1][1] += 1
        return {
            "crystals": pack(np.diff(places, prepend=0)),
            "true": pack(_steps(result.true, result.quantity)),
            "folds": folds,
        }

    def _run(self, result: Result) -> dict[str, Any]:
        """What the pages load of one run and target when they are asked for it."""
        card, metrics = self.cards[result.name], self._metrics(result)
        apart = ("settings", "runs", "data", "numerics", "name", "study")
        return {
            "errors": pack(_steps(result.prediction, result.quantity, result.true)),
            "history": self.history[result.name] if result.target == result.run.target else [],
            "metrics": metrics,
            "groups": self.groups.get(key(result), ""),
            "card": {name: card[name] for name in ("settings", "runs") if name in card}
            | {"rest": {name: value for name, value in card.items() if name not in apart}},
        }

    def _metrics(self, result: Result) -> dict[str, Any]:
        """A run's metrics, of one of its targets.

        Raises:
            CrystalmeshError: the file has none of the target.
        """
        whole = self.metrics[result.name]
        try:
            rest = {name: value for name, value in whole.items() if name != "targets"}
            own: dict[str, Any] = whole["targets"][result.target]
            return rest | {"target": result.target} | own
        except (AttributeError, KeyError, TypeError) as error:
            raise self._damaged(result, error) from error

    def _damaged(self, result: Result, error: Exception) -> CrystalmeshError:
        path = self.context.project.metrics(result.run)
        return CrystalmeshError(f"{path}: has no {error}; delete it and run again")

    def _entry(self, result: Result, tested: str) -> dict[str, Any]:
        """One line of the list of runs and targets."""
        metrics, target, run = self._metrics(result), result.quantity, result.run
        parts = "folds" if "folds" in metrics else "members"
        spread = ", ".join(shown(float(part), target, 4) for part in metrics.get(parts, []))
        machine = self.cards[result.name].get("numerics", {}).get("cpu", {})
        networks = self.history[result.name] if result.target == run.target else []
        try:
            return {
                "key": key(result),
                "study": run.study,
                "run": result.name,
                "target": result.target,
                "dataset": run.dataset,
                "model": run.model,
                "representation": run.representation,
                "title": results.title(self.context.project, result),
                "colour": self.looks.colour(result),
                "split": metrics["split"],
                "metric": metrics["metric"],
                "shown": shown(float(metrics["value"]), target, 4),
                "spread": spread,
                "over": "fold" if parts == "folds" else "seed",
                "coverage": result.coverage,
                "n_train": metrics["n_train"],
                "n_val": metrics["n_val"],
                "n_test": metrics["n_test"],
                "set": tested,
                "curve": any(len(network["val"]) > 1 for network in networks),
                "search": machine.get("model", ""),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(result, error) from error


# Numbers ------------------------------------------------------------------------------------------


def _step(target: Target) -> float:
    return 1 if target.kind == "classification" else STEP


def _steps(values: Any, target: Target, base: Any = None) -> Any:
    """Values as whole steps; with a base, the steps from it: i64 [n]."""
    steps = np.rint(np.asarray(values) / _step(target)).astype(np.int64)
    return steps if base is None else steps - _steps(base, target)


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
    """Validation metric and training loss by epoch, of each network."""
    networks: dict[str, dict[str, list[float]]] = {}
    try:
        for row in files.read_csv(path):
            network = networks.setdefault(row.get("run", ""), {"val": [], "loss": []})
            network["val"].append(_short(float(row["val_metric"])))
            network["loss"].append(_short(float(row["train_loss"])))
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    return list(networks.values())


def _ids(ids: Sequence[str]) -> dict[str, str]:
    """Ids as they are or, where all are one word with a number (mp-149), by their numbers."""
    parts = [re.fullmatch(r"(\D*)(0|[1-9]\d*)", one) for one in ids]
    words = {part[1] if part else None for part in parts}
    if len(words) != 1 or None in words:
        return {"ids": " ".join(ids)}
    numbers = [int(part[2]) for part in parts if part]
    return {"prefix": words.pop() or "", "numbers": pack(np.diff(numbers, prepend=0))}


def _groups(path: Path) -> dict[str, str]:
    """By `key`: space group, its training and test crystals, the metric in steps."""
    groups: dict[str, list[int]] = {}
    if not path.exists():
        return {}
    try:
        for row in files.read_csv(path):
            groups.setdefault(f"{row['run']}.{row['target']}", []).extend(
                [
                    *(int(row[key]) for key in ("space_group", "n_train", "n_test")),
                    round(float(row["value"]) / STEP),
                ]
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); run the stage tables again") from error
    return {name: pack(numbers) for name, numbers in groups.items()}


# The viewer's crystals ----------------------------------------------------------------------------


def _crystals(context: Context) -> dict[str, Any]:
    """What the viewer draws of each crystal that the study names."""
    site, project = context.report.site, context.project
    if site is None:
        return {}
    crystals = context.crystals[context.study.dataset]
    rows = [crystals.position(name) for name in site.systems]
    loaded = [Predictor(project, project.params.run(one), known=None) for one in site.networks]
    known = {one.run.representation: one for one in loaded}
    networks = {name: known[name] for name in meshes(project.params) if name in known}
    drawn = {}
    for row in rows:
        crystal = crystals[row]
        drawn_meshes, predictions = viewer.draw(project, crystal, networks)
        for one, network in zip(predictions, networks.values(), strict=True):
            one["true"] = _true(crystals, row, network.quantity)
        group = crystals.labels["space_group"][row]
        drawn[crystal.id] = viewer.content(crystal, drawn_meshes, predictions) | {
            "group": "no space group" if np.isnan(group) else f"space group {int(group)}"
        }
    return drawn


def _true(crystals: Crystals, row: int, target: Target) -> str:
    value = results.targets(target, crystals).get(crystals.ids[row])
    if value is None:
        return "–"
    if target.kind == "classification":
        return str(int(value))
    return f"{shown(value, target)} {unit(target)}"
