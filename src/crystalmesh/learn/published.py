"""Published predictions of other algorithms, scored on all entries and on each fold."""

import math

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.data import splits
from crystalmesh.data.crystals import natural
from crystalmesh.errors import CrystalmeshError

KEYS = ("mbid", "mp_id", "fold", "target")  # every other column is an algorithm's predictions


def evaluate(project: Project, name: str) -> None:
    """MAE of each algorithm of a benchmark: on all its entries and on each fold.

    Each prediction is the algorithm's own for an entry of the fold that it was not trained on.
    Reads the benchmark's raw file; writes results/benchmarks/<name>.json.

    Raises:
        CrystalmeshError: the file is missing, changed or broken.
    """
    benchmark = lookup(project.params.benchmarks, name, "benchmark")
    rows = splits.read_benchmark(project, name)
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
        algorithms[algorithm] = {
            "n_all": len(errors),
            "mae_all": _mean(list(errors.values())),
            "folds": [
                _mean(
                    [errors[row["mp_id"]] for row in rows if row["fold"] == fold and row[algorithm]]
                )
                for fold in sorted({row["fold"] for row in rows}, key=natural)
            ],
        }
    content = {"target": benchmark.target, "dataset": benchmark.dataset, "algorithms": algorithms}
    files.write_json(project.benchmark(name), content)


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
