"""What the experiments of a report predicted, as arrays: read alike by tables and figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config import Experiment, Project, Task
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.evaluate import holds, mean_width

LEVEL = 95  # per cent of the bootstrap intervals
RESAMPLES = 2000
BOOTSTRAP_SEED = 0
PUBLISHED, CANONICAL, GRAPH = "mesh.published", "mesh.canonical", "graph.cgcnn"
# The network that the tables of meshes and graphs mean: others may read the same representation.
READER = {PUBLISHED: "mesh", CANONICAL: "mesh", GRAPH: "cgcnn"}
BLOCK = 200_000  # numbers of resamples in memory at once


@dataclass(frozen=True)
class Result:
    """One experiment's test predictions, and the crystals it was trained on.

    `train` and `held` are the split's parts, of several folds the first one's `train` and the
    `held` of all; `test` the crystals of `held` that have a prediction, and `fold` theirs.
    `variant_of` is the model that its own one is a variant of, for the table of ablations;
    `optimizer` is what it was trained by, if by gradients.
    `target` and `prediction` are in the task's unit (after its transform), or class numbers;
    `members` [m, n] those of an ensemble's members. `p_value` is of the target (see
    `learn.conformal`), `inside` tells whether the interval or set holds it, and
    `width` how wide these are (of sets: how large) on the mean.
    """

    name: str
    experiment: Experiment
    architecture: str
    variant_of: str | None
    optimizer: str | None
    task: Task
    train: Sequence[str]
    held: Sequence[str]
    test: Sequence[str]
    fold: Sequence[str]
    target: Float[NDArray[np.float64], " n"]
    prediction: Float[NDArray[np.float64], " n"]
    members: Float[NDArray[np.float64], "m n"]
    p_value: Float[NDArray[np.float64], " n"]
    inside: NDArray[np.bool_]
    width: float

    @property
    def method(self) -> tuple[str, str, bool]:
        """Model, representation, whether transferred: what is compared with what."""
        e = self.experiment
        return e.model, e.representation, e.transferred

    @property
    def trained(self) -> tuple[str, str, str | int, str | int]:
        """What its experiment was trained on."""
        return self.experiment.trained

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

    @property
    def coverage(self) -> float:
        """Share of the targets that the intervals or sets hold."""
        return float(self.inside.mean())

    def of_folds(self) -> Float[NDArray[np.float64], " folds"]:
        """The metric of each fold."""
        fold, losses = np.array(self.fold), self.losses
        return np.array([losses[fold == name].mean() for name in dict.fromkeys(self.fold)])

    def of_members_by_fold(self) -> Float[NDArray[np.float64], " folds"]:
        """The metric of each fold, as the mean over an ensemble's members of their own metrics."""
        if not len(self.members):
            return self.of_folds()
        fold = np.array(self.fold)
        wrong = np.abs(self.members - self.target)
        own = 100.0 * (wrong == 0) if self.task.kind == "classification" else wrong
        return np.array([own[:, fold == name].mean() for name in dict.fromkeys(self.fold)])

    def of_members(self) -> Float[NDArray[np.float64], " m"]:
        """The metric of each member of an ensemble; of the one network where there is one."""
        if not len(self.members):
            return np.array([self.value])
        classes = self.task.kind == "classification"
        wrong = np.abs(self.members - self.target)
        found: NDArray[np.float64] = (100.0 * (wrong == 0) if classes else wrong).mean(axis=1)
        return found


def load(project: Project, report: str) -> list[Result]:
    """Every experiment of the report, by task and model in params.yaml's order, largest first.

    Raises:
        CrystalmeshError: predictions are missing or damaged; see also `splits.select`.
    """
    params = project.params
    tasks, models = list(params.tasks), list(params.models)
    order = [f"{m}.{v}" for m, variants in params.representations.items() for v in variants]
    results = []
    for name, experiment in params.group(report).items():
        path = project.predictions(report, name)
        rows = files.read_csv(path)
        parts = [splits.select(project, experiment, f) for f in splits.folds(project, experiment)]
        held = list(dict.fromkeys(i for part in parts for i in part.test))
        try:
            target, prediction, p_value = (
                np.array([float(row[key]) for row in rows])
                for key in ("target", "prediction", "p_value")
            )
            test = [row["id"] for row in rows]
            fold = [row.get("fold", str(experiment.fold)) for row in rows]
            columns = [f"member_{k}" for k in range(experiment.members or 0)]
            members = np.array([[float(row[key]) for row in rows] for key in columns])
            inside = np.array([holds(row) for row in rows])
            width = mean_width(rows)
        except (KeyError, TypeError, ValueError) as error:
            raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
        trained = params.models[experiment.model].training is not None
        by = params.training(experiment).optimizer if trained else None
        results.append(
            Result(
                name, experiment, params.models[experiment.model].architecture,
                params.models[experiment.model].variant_of, by,
                params.tasks[experiment.task],
                parts[0].train, held, test, fold, target, prediction, members, p_value, inside,
                width,
            )
        )  # fmt: skip
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


def joined(parts: Sequence[Result], wanted: Sequence[int]) -> Result:
    """The first networks of several experiments as the members of one ensemble.

    Its intervals are the first one's, which are not of the ensemble.

    Args:
        parts: the experiments.
        wanted: how many networks of each.

    Raises:
        CrystalmeshError: the experiments were not tested on the same crystals.
    """
    first = parts[0]
    for one in parts[1:]:
        if one.test != first.test or one.fold != first.fold:
            raise CrystalmeshError(
                f"params.yaml: {first.name} and {one.name} were tested on other crystals or folds;"
                " take one of them out of `together`"
            )
    every = [r.members if len(r.members) else r.prediction[None] for r in parts]
    members = np.concatenate([own[:n] for own, n in zip(every, wanted, strict=True)])
    return replace(first, members=members, prediction=members.mean(axis=0))


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
    if result.experiment.transferred:
        name = f"{name}, warm restart" if restarted(project, result) else f"TL-{name}"
    module, _, variant = result.experiment.representation.partition(".")
    # said where the model itself does not tell it
    said = {"canonical": "canonical", "primitive": "primitive cell", "copies": "2 × 2 × 2 cells"}
    if module == "descriptors":
        said = {"composition": "composition", "structure": "composition and structure"}
    return f"{name}, {said[variant]}" if variant in said else name


def restarted(project: Project, result: Result) -> bool:
    """Whether its training went on from one on the same task and crystals, by a warm restart.

    Source: Loshchilov & Hutter, ICLR 2017.
    """
    source = result.experiment.pretrained
    if source is None or not result.experiment.transferred:
        return False
    first = project.params.experiment(source.group, source.name)
    return (first.task, first.trained) == (result.experiment.task, result.trained)


def largest(results: Sequence[Result], task: str, representation: str) -> Result | None:
    """The experiment on a representation that saw most crystals of a task; None without any.

    Of those with the network of this representation, and with one training and one test part: folds
    and repeated splits stand for themselves.
    """
    candidates = [
        r
        for r in results
        if r.experiment.task == task
        and r.experiment.representation == representation
        and r.architecture == READER[representation]
        and not r.experiment.transferred
        and r.experiment.fold != "all"
    ]
    return max(candidates, key=lambda r: len(r.train), default=None)


def equal(results: Sequence[Result], one: Result, representation: str) -> Result | None:
    """The experiment on another representation with the training and test parts of `one`.

    Of several models the one of the same name is taken, else one trained by the same optimizer,
    else the first.
    """
    candidates = [
        r
        for r in results
        if r.experiment.representation == representation
        and r.architecture == READER[representation]
        and not r.experiment.transferred
        and _parts(r) == _parts(one)
    ]

    def unlike(r: Result) -> tuple[bool, bool]:
        return r.experiment.model != one.experiment.model, r.optimizer != one.optimizer

    return min(candidates, key=unlike, default=None)


def longest(project: Project, group: str, results: Sequence[Result], one: Result) -> Result:
    """Of the trainings of a network on the same crystals, warm restarts too, the longest."""
    candidates = [
        r
        for r in results
        if (r.experiment.model, r.experiment.representation)
        == (one.experiment.model, one.experiment.representation)
        and (not r.experiment.transferred or restarted(project, r))
        and _parts(r) == _parts(one)
    ]
    return max(candidates, key=lambda r: sum(trainings(project, group, r.name)))


def same_crystals(results: Sequence[Result]) -> list[Result]:
    """The experiments that most methods of a report share: one dataset, split, fold and size."""
    groups: dict[tuple[str, str, str | int, str | int], list[Result]] = {}
    for result in results:
        groups.setdefault(result.trained, []).append(result)

    def methods(group: Sequence[Result]) -> int:
        return len({r.method for r in group})

    return max(groups.values(), key=methods, default=[])


def single(project: Project, results: Sequence[Result]) -> list[Result]:
    """The experiments that test each crystal once: all but those on repeated splits."""
    official = project.params.benchmarks
    return [r for r in results if r.experiment.fold != "all" or r.experiment.split in official]


def repeated(project: Project, results: Sequence[Result]) -> list[Result]:
    """The experiments on repeated splits: all but the `single` ones."""
    names = {r.name for r in single(project, results)}
    return [r for r in results if r.name not in names]


def plain(results: Sequence[Result]) -> list[Result]:
    """Without those that only the table of ablations has."""
    return [r for r in results if r.variant_of is None]


def folds(results: Sequence[Result], benchmark: str) -> list[Result]:
    """The experiments on all official folds of a benchmark."""
    return [r for r in results if r.experiment.split == benchmark and r.experiment.fold == "all"]


@dataclass(frozen=True)
class PairedTest:
    """Student's paired t-test of two experiments over the same repeated splits.

    Attributes:
        difference: mean of the differences of their metrics.
        p: two-sided, as if the repeats were independent.
        p_corrected: with the variance that Nadeau and Bengio (Mach. Learn. 52, 239, 2003) give for
            repeats whose training parts overlap.
    """

    repeats: int
    difference: float
    p: float
    p_corrected: float


def paired_test(one: Result, other: Result) -> PairedTest:
    """Compare two experiments on the same folds, metric by metric."""
    differences = one.of_folds() - other.of_folds()
    repeats = len(differences)
    if not differences.std():  # the test knows no answer
        sure = float(not differences.any())
        return PairedTest(repeats, float(differences.mean()), sure, sure)
    t, p = scipy.stats.ttest_1samp(differences, 0.0)
    share = len(one.test) / repeats / len(one.train)  # test over training crystals
    corrected = 2 * scipy.stats.t.sf(abs(t) / math.sqrt(1 + repeats * share), repeats - 1)
    return PairedTest(repeats, float(differences.mean()), float(p), float(corrected))


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


def crystals(project: Project, report: str) -> dict[str, Crystals]:
    """The crystals of each dataset that experiments of a report are on, its own first."""
    names = project.params.datasets_of(report)
    return {name: Crystals.load(project.crystals(name)) for name in names}


def benchmarks(project: Project, report: str) -> list[str]:
    """The benchmarks that a report prints: those of its dataset."""
    params = project.params
    dataset = params.reports[report].dataset
    return [name for name, b in params.benchmarks.items() if b.dataset == dataset]


@dataclass(frozen=True)
class Speeds:
    """What benchmarks/models.py measured in a report's tier of numerics.

    `models` has by model and representation the crystals a second of one thread in training and
    in prediction; `machine` says where.
    """

    models: Mapping[str, Mapping[str, float]]
    machine: str

    @classmethod
    def load(cls, project: Project, report: str) -> "Speeds":
        """Raises CrystalmeshError when the file is not what the benchmark writes."""
        path = project.root / "benchmarks" / "models.json"
        content = files.read_json(path)
        try:
            tier = content["tiers"].get(project.params.numerics(report), {"models": {}})
            keys = ("train_crystals_per_s", "predict_crystals_per_s")
            models = {
                name: {key: float(own[key]) for key in keys} for name, own in tier["models"].items()
            }
            return cls(models, f"{content['machine']['processor']}, one thread")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CrystalmeshError(f"{path}: damaged ({error}); run the benchmark again") from error

    def of(self, experiment: Experiment) -> Mapping[str, float]:
        """The two figures of an experiment's network; empty, where it was not measured."""
        return self.models.get(f"{experiment.model} {experiment.representation}", {})

    def hours(self, project: Project, group: str, name: str, networks: int = 1) -> float:
        """CPU hours of the training of `networks` networks of an experiment that was measured.

        Epochs times crystals over the speed. A taught network sees its teachers' crystals too, as
        if these were as large as its own, and its teachers had to be trained, once for all that
        they teach; networks that are read at another output (`as_is`) cost what they cost once.
        """
        experiment = project.params.experiment(group, name)
        source = experiment.pretrained
        if experiment.as_is and source:
            return self.hours(project, source.group, source.name, networks)
        crystals = len(splits.select(project, experiment).train) + validated(project, experiment)
        hours = 0.0
        if (taught := experiment.taught) and source:
            steps = math.ceil(crystals / project.params.training(experiment).batch_size)
            crystals += steps * taught.batch_size
            teachers = project.params.experiment(source.group, source.name).members or 1
            hours = self.hours(project, source.group, source.name, teachers)
        seen = networks * crystals * len(history(project, group, name)[0])
        return hours + seen / self.of(experiment)["train_crystals_per_s"] / 3600


def validated(project: Project, experiment: Experiment) -> int:
    """Validation crystals of an experiment's first fold that `refit` trains on too."""
    return len(splits.select(project, experiment).val) if experiment.refit else 0


def trainings(project: Project, group: str, name: str) -> list[int]:
    """Epochs of the trainings that led to an experiment's network, those it started from first."""
    experiment = project.params.experiment(group, name)
    source = None if experiment.taught else experiment.pretrained
    before = trainings(project, source.group, source.name) if source else []
    return before if experiment.as_is else [*before, len(history(project, group, name)[0])]


def history(
    project: Project, report: str, name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Epochs and validation metrics of an experiment, of its first network."""
    path = project.history(report, name)
    rows = files.read_csv(path)
    rows = [row for row in rows if row.get("run") == rows[0].get("run")]
    try:
        epochs = np.array([int(row["epoch"]) for row in rows])
        values = np.array([float(row["val_metric"]) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    if not len(rows):
        raise CrystalmeshError(f"{path}: empty; delete it and run again")
    return epochs, values
