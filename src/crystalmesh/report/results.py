"""What the experiments of a report predicted, as arrays: read alike by tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config import Experiment, Project, Task
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError

LEVEL = 95  # per cent of the bootstrap intervals
RESAMPLES = 2000
BOOTSTRAP_SEED = 0
PUBLISHED, CANONICAL, GRAPH = "mesh.published", "mesh.canonical", "graph.cgcnn"
BLOCK = 200_000  # numbers of resamples in memory at once


@dataclass(frozen=True)
class Result:
    """One experiment's test predictions, and the crystals it was trained on.

    `train` and `held` are the split's parts; `test` the crystals of `held` that have a prediction.
    `target` and `prediction` are in the task's unit (after its transform), or class numbers.
    """

    name: str
    experiment: Experiment
    task: Task
    train: Sequence[str]
    held: Sequence[str]
    test: Sequence[str]
    target: Float[NDArray[np.float64], " n"]
    prediction: Float[NDArray[np.float64], " n"]

    @property
    def method(self) -> tuple[str, str]:
        """Model and representation: what is compared with what."""
        return self.experiment.model, self.experiment.representation

    @property
    def mesh(self) -> bool:
        """Whether the network reads a mesh."""
        return self.experiment.representation.startswith("mesh.")

    @property
    def losses(self) -> Float[NDArray[np.float64], " n"]:
        """A number a test crystal whose mean is the metric: |error|, or 100 for a right class."""
        if self.task.kind == "classification":
            return np.where(self.target == self.prediction, 100.0, 0.0)
        return np.abs(self.prediction - self.target)

    @property
    def value(self) -> float:
        """The metric: mean absolute error in the task's unit, or accuracy in per cent."""
        return float(self.losses.mean())


def load(project: Project, report: str) -> list[Result]:
    """Every experiment of the report, by task and model in params.yaml's order, largest first.

    Raises:
        CrystalmeshError: predictions are missing or damaged; see also `splits.select`.
    """
    params = project.params
    tasks, models = list(params.tasks), list(params.models)
    order = [f"{m}.{v}" for m, variants in params.representations.items() for v in variants]
    results = []
    for name, experiment in params.experiments[report].items():
        path = project.predictions(report, name)
        rows = files.read_csv(path)
        parts = splits.select(project, experiment)
        try:
            target = np.array([float(row["target"]) for row in rows])
            prediction = np.array([float(row["prediction"]) for row in rows])
            test = [row["id"] for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
        task = params.tasks[experiment.task]
        results.append(
            Result(name, experiment, task, parts.train, parts.test, test, target, prediction)
        )
    return sorted(
        results,
        key=lambda r: (
            tasks.index(r.experiment.task),
            models.index(r.experiment.model),
            order.index(r.experiment.representation),
            -len(r.train),
            r.name,
        ),
    )


def interval(losses: Float[NDArray[np.float64], " n"]) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over test crystals, from a fixed seed.

    It tells how much the mean would move with another draw of test crystals. It says nothing of
    another draw of training crystals or of another seed of the network.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    n = len(losses)
    rows = max(1, BLOCK // n)  # resamples drawn at once
    means: list[float] = []
    while len(means) < RESAMPLES:
        drawn = generator.integers(0, n, (min(rows, RESAMPLES - len(means)), n))
        means += losses[drawn].mean(axis=1).tolist()
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def title(project: Project, result: Result) -> str:
    """The method in words."""
    name = project.params.models[result.experiment.model].title
    return f"{name}, canonical" if result.experiment.representation == CANONICAL else name


def largest(results: Sequence[Result], task: str, representation: str) -> Result | None:
    """The experiment on a representation that saw most crystals of a task; None without any."""
    candidates = [
        r
        for r in results
        if r.experiment.task == task and r.experiment.representation == representation
    ]
    return max(candidates, key=lambda r: len(r.train), default=None)


def equal(results: Sequence[Result], one: Result, representation: str) -> Result | None:
    """The experiment on another representation with the training and test parts of `one`.

    Of several models the one of the same name is taken, else the first.
    """
    candidates = [
        r
        for r in results
        if r.experiment.representation == representation and _parts(r) == _parts(one)
    ]
    return min(candidates, key=lambda r: r.experiment.model != one.experiment.model, default=None)


def _parts(result: Result) -> tuple[str, frozenset[str], frozenset[str]]:
    return result.experiment.task, frozenset(result.train), frozenset(result.held)


def paired(one: Result, other: Result) -> Float[NDArray[np.float64], " n"]:
    """Difference of the losses on the test crystals of both (a mesh may lack some)."""
    second = dict(zip(other.test, other.losses, strict=True))
    pairs = zip(one.test, one.losses, strict=True)
    return np.array([loss - second[i] for i, loss in pairs if i in second])


def targets(task: Task, crystals: Crystals) -> dict[str, float]:
    """The task's value, after its transform, of every crystal that has one."""
    values = crystals.labels[task.label]
    if task.transform == "log10":
        values = np.log10(values)  # log10(NaN) is NaN, without a warning
    return {i: float(v) for i, v in zip(crystals.ids, values, strict=True) if np.isfinite(v)}


def constant(result: Result, values: Mapping[str, float]) -> float:
    """The metric of the best constant guess: the training median, or the most frequent class."""
    train = np.array([values[i] for i in result.train])
    if result.task.kind == "classification":
        classes, counts = np.unique(train, return_counts=True)
        return float(100 * (result.target == classes[counts.argmax()]).mean())
    return float(np.abs(result.target - np.median(train)).mean())


def frequency(result: Result, crystals: Crystals) -> Int[NDArray[np.int64], "n 2"]:
    """For each test crystal: its space group, and the number of training crystals of that group.

    A crystal without a space group (spglib found none) has group 0 and is left out of figures.
    """
    numbers = np.nan_to_num(crystals.labels["space_group"]).astype(int).tolist()
    group = dict(zip(crystals.ids, numbers, strict=True))
    seen = np.bincount([group[i] for i in result.train], minlength=231)
    test = np.array([group[i] for i in result.test])
    return np.stack([test, seen[test]], axis=1)


def benchmarks(project: Project, report: str) -> list[str]:
    """The benchmarks that a report prints: those of its dataset."""
    params = project.params
    dataset = params.reports[report].dataset
    return [name for name, b in params.benchmarks.items() if b.dataset == dataset]
