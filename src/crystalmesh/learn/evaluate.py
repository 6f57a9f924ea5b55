"""From predictions to metrics."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.data.crystals import natural
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_note, write_json


def evaluate(project: Project, run: Run) -> None:
    """The stage `evaluate`: write the run's metrics; see `compute`."""
    note = json.loads(read_note(project.checkpoint(run)))
    write_json(project.metrics(run), compute(project, run, note))


def compute(project: Project, run: Run, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of the run, computed from its predictions alone.

    Args:
        project: the project.
        run: the run.
        facts: what its checkpoint (or its card) says of the training; of several networks, the
            first one's sizes and epochs are taken.

    Raises:
        CrystalmeshError: the predictions are missing, empty or damaged.
    """
    first = next(iter(facts["runs"].values())) if "runs" in facts else facts
    split = project.params.splits.get(run.dataset, {}).get(run.split)
    return {
        "run": run.name,
        "study": run.study,
        "dataset": run.dataset,
        "representation": run.representation,
        "model": run.model,
        "split": split.title if split else "matbench",
        "fold": run.fold,
        "seed": run.seed,
        "size": run.size,
        "targets": {target: _of_target(project, run, target) for target in run.targets},
    } | {key: first[key] for key in ("n_train", "n_val", "parameters", "epochs", "best_epoch")}


def _of_target(project: Project, run: Run, name: str) -> dict[str, Any]:
    target, path = project.params.targets[name], project.predictions(run, name)
    classes = target.kind == "classification"
    rows = read_csv(path)
    try:
        true = np.array([float(row["target"]) for row in rows])
        prediction = np.array([float(row["prediction"]) for row in rows])
        metrics: dict[str, Any] = {}
        metrics |= classification(true, prediction) if classes else regression(true, prediction)
        metrics |= uncertainty(rows)
        metrics |= parts(rows, classes)
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    return metrics | {
        "metric": target.metric,
        "value": metrics["accuracy" if classes else "mae"],
        "unit": "%" if classes else target.unit,
        "n_test": len({row["id"] for row in rows}) if target.wide else len(rows),
    }


def uncertainty(rows: Sequence[Mapping[str, str]]) -> dict[str, float | None]:
    """Share of targets that the 90 % intervals or sets hold, and their mean width or size.

    The mean p-value is one half where intervals of all levels together hold what they promise.
    """
    width = mean_width(rows)
    return {
        "coverage": sum(holds(row) for row in rows) / len(rows),
        "width": width if math.isfinite(width) else None,
        "mean_p_value": math.fsum(float(row["p_value"]) for row in rows) / len(rows),
    }


def mean_width(rows: Sequence[Mapping[str, str]]) -> float:
    """Mean width of intervals, or mean number of classes in sets."""
    if "set" in rows[0]:
        return sum(len(row["set"].split()) for row in rows) / len(rows)
    return math.fsum(float(row["upper"]) - float(row["lower"]) for row in rows) / len(rows)


def holds(row: Mapping[str, str]) -> bool:
    """Whether the interval or the set of a prediction holds the target."""
    if "set" in row:
        return row["target"] in row["set"].split()
    return float(row["lower"]) <= float(row["target"]) <= float(row["upper"])


def parts(rows: Sequence[Mapping[str, str]], classes: bool) -> dict[str, list[float]]:
    """The metric of each member of an ensemble, and of each fold; absent where there is one."""
    target = np.array([float(row["target"]) for row in rows])

    def metric(column: str, chosen: NDArray[np.bool_]) -> float:
        values = np.array([float(row[column]) for row in rows])[chosen]
        if classes:
            return 100.0 * float((values == target[chosen]).mean())
        return float(np.abs(values - target[chosen]).mean())

    found: dict[str, list[float]] = {}
    members = [column for column in rows[0] if column.startswith("member_")]
    if members:
        found["members"] = [metric(column, np.full(len(rows), True)) for column in members]
    if "fold" in rows[0]:
        fold = np.array([row["fold"] for row in rows])
        names = sorted(set(fold.tolist()), key=natural)
        found["folds"] = [metric("prediction", fold == name) for name in names]
    return found


def regression(target: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean absolute error, root mean squared error (target's unit) and R2.

    Over all crystals, or over all numbers of all of these.
    """
    from sklearn import metrics  # two seconds, which tables and figures need not wait

    return {
        "mae": float(metrics.mean_absolute_error(target, prediction)),
        "rmse": float(metrics.root_mean_squared_error(target, prediction)),
        "r2": float(metrics.r2_score(target, prediction)) if len(target) > 1 else 0.0,
    }


def classification(
    target: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Accuracy in per cent, and the F1 score averaged over the classes that occur."""
    from sklearn import metrics

    return {
        "accuracy": 100.0 * float(metrics.accuracy_score(target, prediction)),
        "macro_f1": float(metrics.f1_score(target, prediction, average="macro", zero_division=0)),
    }
