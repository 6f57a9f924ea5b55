"""metrics.json of a study: one record for each of its runs and targets."""

from typing import Any

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import bootstrap, results
from crystalmesh.report.results import Result

OF_RUN = ("study", "dataset", "model", "representation", "split", "fold", "seed", "size")


def build(project: Project, study: str) -> None:
    """Write results/<study>/metrics.json: of the study's own runs, in their order.

    Raises:
        CrystalmeshError: predictions, metrics or a card are missing or damaged.
    """
    runs = list(project.params.study(study).runs.values())
    found = {(r.name, r.target): r for r in results.of_runs(project, runs)}
    records = [record(project, found[run.name, target]) for run in runs for target in run.targets]
    files.write_json(project.results(study) / "metrics.json", records)


def record(project: Project, result: Result) -> dict[str, Any]:
    """All that says how good a run is on one target, and what it cost.

    `low` and `high` are the ends of the bootstrap interval of the metric over the test crystals.
    `train_cpu_seconds` is the run's own training; `total_cpu_seconds` has with it its teachers and
    the runs that it started from. Both are None where a card does not say.
    """
    run, path = result.run, project.metrics(result.run)
    block, card = files.read_json(path), files.read_json(project.card(run))
    low, high = bootstrap.interval(result.losses, result.drawn)
    n_train, n_val = results.sizes(project, result)
    try:
        own = block["targets"][result.target]
        return {
            "run": run.name,
            **{key: getattr(run, key) for key in OF_RUN},
            "target": result.target,
            "n_train": n_train,
            "n_val": n_val,
            **{key: own[key] for key in ("n_test", "metric", "value", "unit")},
            "low": low,
            "high": high,
            "device": card["device"],
            "train_cpu_seconds": card.get("cpu_seconds"),
            "total_cpu_seconds": total(project, run),
        }
    except (KeyError, TypeError) as error:
        raise CrystalmeshError(
            f"{path}: it or its card has no {error}; delete both and run again"
        ) from error


def total(project: Project, run: Run) -> float | None:
    """CPU seconds of all trainings that a run's networks needed; None where a card lacks them."""
    seconds = 0.0
    before: Run | None = run
    while before is not None:
        own = files.read_json(project.card(before)).get("cpu_seconds")
        if own is None:
            return None
        seconds += own
        before = project.params.run(before.before) if before.before else None
    return round(seconds, 1)
