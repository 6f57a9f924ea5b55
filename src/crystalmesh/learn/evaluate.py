"""From predictions to metrics."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_note, write_json


def evaluate(project: Project, group: str, name: str) -> None:
    """The stage `evaluate`: write the experiment's metrics; see `compute`."""
    project.params.experiment(group, name)  # an unknown name is told before a missing file
    note = json.loads(read_note(project.checkpoint(group, name)))
    write_json(project.metrics(group, name), compute(project, group, name, note))


def compute(project: Project, group: str, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of the experiment, computed from its predictions alone.

    Args:
        project: the project.
        group: the report.
        name: the experiment.
        facts: what its checkpoint (or its card) says of the training.

    Raises:
        CrystalmeshError: the predictions are missing, empty or damaged.
    """
    experiment = project.params.experiment(group, name)
    task = project.params.tasks[experiment.task]
    path = project.predictions(group, name)
    rows = read_csv(path)
    try:
        target = np.array([float(row["target"]) for row in rows])
        prediction = np.array([float(row["prediction"]) for row in rows])
        metrics: dict[str, Any] = (
            classification(target, prediction)
            if task.kind == "classification"
            else regression(target, prediction)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    headline = "accuracy" if task.kind == "classification" else "mae"
    split = project.params.splits.get(f"{experiment.dataset}-{experiment.split}")
    return (
        metrics
        | {
            "metric": "accuracy" if task.kind == "classification" else "MAE",
            "value": metrics[headline],
            "unit": "%" if task.kind == "classification" else task.unit,
            "experiment": name,
            "dataset": experiment.dataset,
            "task": experiment.task,
            "representation": experiment.representation,
            "model": experiment.model,
            "split": split.title if split else "matbench",
            "fold": experiment.fold,
            "seed": experiment.seed,
            "size": experiment.size,
            "n_test": len(rows),
        }
        | {key: facts[key] for key in ("n_train", "n_val", "parameters", "epochs", "best_epoch")}
    )


def regression(target: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean absolute error, root mean squared error (task's unit) and R2 over all crystals."""
    return {
        "mae": float(mean_absolute_error(target, prediction)),
        "rmse": float(root_mean_squared_error(target, prediction)),
        "r2": float(r2_score(target, prediction)) if len(target) > 1 else 0.0,
    }


def classification(
    target: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]
) -> dict[str, float]:
    """Accuracy in per cent, and the F1 score averaged over the classes that occur."""
    return {
        "accuracy": 100.0 * float(accuracy_score(target, prediction)),
        "macro_f1": float(f1_score(target, prediction, average="macro", zero_division=0)),
    }
