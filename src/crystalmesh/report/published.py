"""Published predictions of other algorithms, scored on the crystals that ours are tested on."""

import math

from crystalmesh import files
from crystalmesh.config import Project, lookup
from crystalmesh.data import splits
from crystalmesh.data.crystals import natural
from crystalmesh.errors import CrystalmeshError

SPLIT = "60-20-20"
KEYS = ("mbid", "mp_id", "fold", "target")  # every other column is an algorithm's predictions


def evaluate(project: Project, report: str, name: str) -> None:
    """MAE of each algorithm of a benchmark: on all its entries, on each fold, on our test crystals.

    Each prediction is the algorithm's own for an entry of the fold that it was not trained on.
    Reads P.raw(name) and the split; writes metrics/<name>.json of the report.
    """
    benchmark = lookup(project.params.benchmarks, name, "benchmark")
    rows = splits.read_benchmark(project, name)
    folds = files.read_json(project.split(benchmark.dataset, SPLIT)).get(benchmark.task, {})
    test = {identifier for fold in folds.values() for identifier in fold["test"]}
    algorithms = {}
    for algorithm in sorted(key for key in rows[0] if key not in KEYS):
        try:
            errors = {
                row["mp_id"]: abs(float(row[algorithm]) - float(row["target"]))
                for row in rows
                if row[algorithm]  # an algorithm may lack an entry
            }
        except ValueError as error:
            raise CrystalmeshError(
                f"{project.raw(name)}: column '{algorithm}': {error}; fetch the file again"
            ) from error
        held = [error for identifier, error in errors.items() if identifier in test]
        algorithms[algorithm] = {
            "n_all": len(errors),
            "mae_all": _mean(list(errors.values())),
            "n_test": len(held),
            "mae_test": _mean(held),
            "folds": [
                _mean(
                    [errors[row["mp_id"]] for row in rows if row["fold"] == fold and row[algorithm]]
                )
                for fold in sorted({row["fold"] for row in rows}, key=natural)
            ],
        }
    files.write_json(
        project.metrics(report, name),
        {"task": benchmark.task, "dataset": benchmark.dataset, "algorithms": algorithms},
    )


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
