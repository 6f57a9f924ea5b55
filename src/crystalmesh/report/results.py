"""What the runs of a study predicted, as arrays: read alike by tables and figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run, Target
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.evaluate import holds, mean_width
from crystalmesh.report import bootstrap


@dataclass(frozen=True)
class Result:
    """One run's test predictions of one target, and the crystals it was trained on.

    Attributes:
        run, target, quantity: the run, the name of the target, and what the settings say of it.
        architecture, variant_of: of the run's model; `variant_of` is for the table of ablations.
        optimizer: what it was trained by, if by gradients.
        train, held: the split's parts, of several folds the first one's `train` and the `held` of
            all.
        test, fold: the crystals of `held` that have a prediction, and the fold of each. Of a wide
            target each stands there once for each of its numbers, as in all arrays here.
        place: of a wide target, which number of its crystal each is: atom, component; else empty.
        true, prediction: in the target's unit (after its transform), or class numbers.
        members: [m, n], those of an ensemble's members.
        p_value: of the true value; see `learn.conformal`.
        inside, width: whether the interval or set holds the true value, and how wide these are (of
            sets: how large) on the mean.
    """

    run: Run
    target: str
    quantity: Target
    architecture: str
    variant_of: str | None
    optimizer: str | None
    train: Sequence[str]
    held: Sequence[str]
    test: Sequence[str]
    fold: Sequence[str]
    place: Sequence[tuple[str, ...]]
    true: Float[NDArray[np.float64], " n"]
    prediction: Float[NDArray[np.float64], " n"]
    members: Float[NDArray[np.float64], "m n"]
    p_value: Float[NDArray[np.float64], " n"]
    inside: NDArray[np.bool_]
    width: float

    @property
    def name(self) -> str:
        """Of its run."""
        return self.run.name

    @property
    def keys(self) -> Sequence[Any]:
        """What each prediction is of: a crystal, or one number of a crystal."""
        return list(zip(self.test, self.place, strict=True)) if self.place else self.test

    @property
    def classes(self) -> bool:
        """Whether the target is a class."""
        return self.quantity.kind == "classification"

    @property
    def transferred(self) -> bool:
        """Whether training started from the weights of another run."""
        return self.run.start is not None

    @property
    def method(self) -> tuple[str, str, bool]:
        """Model, representation, whether transferred: what is compared with what."""
        return self.run.model, self.run.representation, self.transferred

    @property
    def trained(self) -> tuple[str, str, str | int, str | int]:
        """What its run was trained on."""
        return self.run.trained

    @property
    def parts(self) -> tuple[str, frozenset[str], frozenset[str]]:
        """Target, training and test crystals: results that share these can be compared."""
        return self.target, frozenset(self.train), frozenset(self.held)

    @property
    def losses(self) -> Float[NDArray[np.float64], " n"]:
        """A number a test crystal whose mean is the metric: |error|, or 100 for a right class."""
        if self.classes:
            return np.where(self.true == self.prediction, 100.0, 0.0)
        return np.abs(self.prediction - self.true)

    @property
    def value(self) -> float:
        """The metric: mean absolute error in the target's unit, or accuracy in per cent."""
        return float(self.losses.mean())

    @property
    def tested(self) -> int:
        """Test crystals; of several folds in each of them."""
        return len({*zip(self.test, self.fold, strict=True)}) if self.place else len(self.test)

    @property
    def drawn(self) -> Sequence[str] | None:
        """What a bootstrap is to draw whole: of a wide target the crystal of each number."""
        return self.test if self.place else None

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
        wrong = np.abs(self.members - self.true)
        own = 100.0 * (wrong == 0) if self.classes else wrong
        return np.array([own[:, fold == name].mean() for name in dict.fromkeys(self.fold)])

    def of_members(self) -> Float[NDArray[np.float64], " m"]:
        """The metric of each member of an ensemble; of the one network where there is one."""
        if not len(self.members):
            return np.array([self.value])
        wrong = np.abs(self.members - self.true)
        found: NDArray[np.float64] = (100.0 * (wrong == 0) if self.classes else wrong).mean(axis=1)
        return found


def load(project: Project, study: str) -> list[Result]:
    """Every run that a study shows and each of its targets; see `of_runs`."""
    return of_runs(project, project.params.shown(study))


def of_runs(project: Project, runs: Sequence[Run]) -> list[Result]:
    """Every run with each of its targets, largest first.

    By target in the order of config/, by model and representation in the order of the runs.

    Raises:
        CrystalmeshError: predictions are missing or damaged; see also `splits.select`.
    """
    targets = list(project.params.targets)
    models = list(dict.fromkeys(run.model for run in runs))
    order = list(dict.fromkeys(run.representation for run in runs))
    results = [_result(project, run, target) for run in runs for target in run.targets]
    return sorted(
        results,
        key=lambda r: (
            targets.index(r.target),
            models.index(r.run.model),
            order.index(r.run.representation),
            -len(r.train),
            r.name,
        ),
    )


def _result(project: Project, run: Run, target: str) -> Result:
    params, path = project.params, project.predictions(run, target)
    rows = files.read_csv(path)
    parts = [splits.select(project, run, f, target) for f in splits.folds(project, run)]
    held = list(dict.fromkeys(i for part in parts for i in part.test))
    try:
        true, prediction, p_value = (
            np.array([float(row[key]) for row in rows])
            for key in ("target", "prediction", "p_value")
        )
        places = [tuple(row[k] for k in ("atom", "component") if k in row) for row in rows]
        columns = [f"member_{k}" for k in range(run.members or 0)]
        members = np.array([[float(row[key]) for row in rows] for key in columns])
        model = params.models[run.model]
        return Result(
            run,
            target,
            params.targets[target],
            model.architecture,
            model.variant_of,
            params.training(run).optimizer if model.training else None,
            parts[0].train,
            held,
            [row["id"] for row in rows],
            [row.get("fold", str(run.fold)) for row in rows],
            places if params.targets[target].wide else [],
            true,
            prediction,
            members,
            p_value,
            np.array([holds(row) for row in rows]),
            mean_width(rows),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error


def joined(parts: Sequence[Result], wanted: Sequence[int]) -> Result:
    """The first networks of several runs as the members of one ensemble.

    Its intervals are the first one's, which are not of the ensemble.

    Args:
        parts: the runs.
        wanted: how many networks of each.

    Raises:
        CrystalmeshError: the runs were not tested on the same crystals.
    """
    first = parts[0]
    for one in parts[1:]:
        if one.keys != first.keys or one.fold != first.fold:
            raise CrystalmeshError(
                f"{first.name} and {one.name} were tested on other crystals or folds; take one of"
                " them out of `ensembles`"
            )
    every = [r.members if len(r.members) else r.prediction[None] for r in parts]
    members = np.concatenate([own[:n] for own, n in zip(every, wanted, strict=True)])
    return replace(first, members=members, prediction=members.mean(axis=0))


def title(project: Project, result: Result) -> str:
    """The method in words."""
    model, run = project.params.models[result.run.model], result.run
    name = model.title
    if result.transferred:
        name = f"{name}, warm restart" if restarted(project, result) else f"TL-{name}"
    if run.representation == model.representation:
        return name
    return f"{name}, {run.representation.partition('.')[2]}"


def restarted(project: Project, result: Result) -> bool:
    """Whether its training went on from one on the same target and crystals, by a warm restart.

    Source: Loshchilov & Hutter, ICLR 2017.
    """
    if result.run.start is None:
        return False
    first = project.params.run(result.run.start)
    return (first.target, first.trained) == (result.run.target, result.trained)


def longest(project: Project, results: Sequence[Result], one: Result) -> Result:
    """Of the trainings of a network on the same crystals, warm restarts too, the longest."""
    candidates = [
        r
        for r in results
        if (r.run.model, r.run.representation) == (one.run.model, one.run.representation)
        and (not r.transferred or restarted(project, r))
        and r.parts == one.parts
    ]
    return max(candidates, key=lambda r: sum(trainings(project, r.run)))


def same_crystals(results: Sequence[Result]) -> list[Result]:
    """The results that most methods share: one dataset, split, fold and size."""
    groups: dict[tuple[str, str, str | int, str | int], list[Result]] = {}
    for result in results:
        groups.setdefault(result.trained, []).append(result)

    def methods(group: Sequence[Result]) -> int:
        return len({r.method for r in group})

    return max(groups.values(), key=methods, default=[])


def single(project: Project, results: Sequence[Result]) -> list[Result]:
    """The results that test each crystal once: all but those on repeated splits."""
    official = project.params.benchmarks
    return [r for r in results if r.run.fold != "all" or r.run.split in official]


def repeated(project: Project, results: Sequence[Result]) -> list[Result]:
    """The results on repeated splits: all but the `single` ones."""
    once = {(r.run.reference, r.target) for r in single(project, results)}
    return [r for r in results if (r.run.reference, r.target) not in once]


def plain(results: Sequence[Result]) -> list[Result]:
    """Without those that only the table of ablations has."""
    return [r for r in results if r.variant_of is None]


def folds(results: Sequence[Result], benchmark: str) -> list[Result]:
    """The results on all official folds of a benchmark."""
    return [r for r in results if r.run.split == benchmark and r.run.fold == "all"]


@dataclass(frozen=True)
class PairedTest:
    """Student's paired t-test of two runs over the same repeated splits.

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
    """Compare two results on the same folds, metric by metric."""
    import scipy.stats  # a second or two, for tables that compare folds

    differences = one.of_folds() - other.of_folds()
    repeats = len(differences)
    if not differences.std():  # the test knows no answer
        sure = float(not differences.any())
        return PairedTest(repeats, float(differences.mean()), sure, sure)
    t, p = scipy.stats.ttest_1samp(differences, 0.0)
    share = one.tested / repeats / len(one.train)  # test over training crystals
    corrected = 2 * scipy.stats.t.sf(abs(t) / math.sqrt(1 + repeats * share), repeats - 1)
    return PairedTest(repeats, float(differences.mean()), float(p), float(corrected))


def paired_interval(one: Result, other: Result) -> tuple[float, float]:
    """Bootstrap interval of the mean of `paired`."""
    shared = set(other.keys)
    crystals = [i for i, key in zip(one.test, one.keys, strict=True) if key in shared]
    return bootstrap.interval(paired(one, other), crystals if one.place else None)


def paired(one: Result, other: Result) -> Float[NDArray[np.float64], " n"]:
    """Difference of the losses on the test crystals of both (a mesh may lack some).

    Of a wide target of each of its numbers.
    """
    second = dict(zip(other.keys, other.losses, strict=True))
    pairs = zip(one.keys, one.losses, strict=True)
    return np.array([loss - second[i] for i, loss in pairs if i in second])


def targets(target: Target, crystals: Crystals) -> dict[str, float]:
    """A system's value, after the target's transform, of every crystal that has one: not wide."""
    values = crystals.labels[target.label]
    if target.transform == "log10":
        values = np.log10(values)  # log10(NaN) is NaN, without a warning
    return {i: float(v) for i, v in zip(crystals.ids, values, strict=True) if np.isfinite(v)}


def constant(result: Result, crystals: Crystals) -> float:
    """The metric of the best constant guess: the training median, or the most frequent class."""
    if result.quantity.wide:
        from crystalmesh.learn.batches import wide  # imports torch, which takes seconds

        rows = np.array([crystals.position(i) for i in result.train])
        train = np.concatenate([one.ravel() for one in wide(crystals, result.quantity, rows)])
    else:
        values = targets(result.quantity, crystals)
        train = np.array([values[i] for i in result.train])
    if result.classes:
        classes, counts = np.unique(train, return_counts=True)
        return float(100 * (result.true == classes[counts.argmax()]).mean())
    return float(np.abs(result.true - np.median(train)).mean())


def frequency(result: Result, crystals: Crystals) -> Int[NDArray[np.int64], "n 2"]:
    """For each test crystal: its space group, and the number of training crystals of that group.

    A crystal without a space group (spglib found none) has group 0 and is left out of figures.
    """
    numbers = np.nan_to_num(crystals.labels["space_group"]).astype(int).tolist()
    group = dict(zip(crystals.ids, numbers, strict=True))
    seen = np.bincount([group[i] for i in result.train], minlength=231)
    test = np.array([group[i] for i in result.test])
    return np.stack([test, seen[test]], axis=1)


def crystals(project: Project, study: str) -> dict[str, Crystals]:
    """The crystals of each dataset that runs of a study are on, its own first."""
    names = project.params.datasets_of(study)
    return {name: Crystals.load(project.crystals(name)) for name in names}


@dataclass(frozen=True)
class Speeds:
    """What benchmarks/models.py measured in a study's tier of numerics.

    `models` has by model and representation the crystals a second of one thread in training and
    in prediction; `machine` says where.
    """

    models: Mapping[str, Mapping[str, float]]
    machine: str

    @classmethod
    def load(cls, project: Project, study: str) -> "Speeds":
        """Raises CrystalmeshError when the file is not what the benchmark writes."""
        path = project.root / "benchmarks" / "models.json"
        content = files.read_json(path)
        try:
            tier = content["tiers"].get(project.params.study(study).numerics, {"models": {}})
            keys = ("train_crystals_per_s", "predict_crystals_per_s")
            models = {
                name: {key: float(own[key]) for key in keys} for name, own in tier["models"].items()
            }
            return cls(models, f"{content['machine']['processor']}, one thread")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CrystalmeshError(f"{path}: damaged ({error}); run the benchmark again") from error

    def of(self, run: Run) -> Mapping[str, float]:
        """The two figures of a run's network; empty, where it was not measured."""
        return self.models.get(f"{run.model} {run.representation}", {})

    def hours(self, project: Project, run: Run, networks: int = 1) -> float:
        """CPU hours of the training of `networks` networks of a run that was measured.

        Epochs times crystals over the speed. A distilled network sees unlabelled crystals too, as
        if these were as large as its own, and its teachers had to be trained.
        """
        crystals = len(splits.select(project, run).train) + validated(project, run)
        hours = 0.0
        if run.distillation:
            steps = math.ceil(crystals / project.params.training(run).batch_size)
            crystals += steps * run.distillation.batch_size
            teachers = project.params.run(run.distillation.run)
            hours = self.hours(project, teachers, teachers.members or 1)
        seen = networks * crystals * len(history(project, run)[0])
        return hours + seen / self.of(run)["train_crystals_per_s"] / 3600


def validated(project: Project, run: Run) -> int:
    """Validation crystals of a run's first fold that `refit` trains on too."""
    return len(splits.select(project, run).val) if run.refit else 0


def sizes(project: Project, result: Result) -> tuple[int, int]:
    """Crystals that a result's network was trained and validated on, in its first fold.

    Of the run's first target as its metrics say it: features may lack some crystals of the split.
    """
    run = result.run
    if result.target == run.target:
        own = files.read_json(project.metrics(run))
        return own["n_train"], own["n_val"]
    parts = splits.select(project, run, target=result.target)
    both = len(parts.train), len(parts.val)
    return (sum(both), 0) if run.refit else both


def trainings(project: Project, run: Run) -> list[int]:
    """Epochs of the trainings that led to a run's network, those it started from first."""
    before = trainings(project, project.params.run(run.start)) if run.start else []
    return [*before, len(history(project, run)[0])]


def history(project: Project, run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Epochs and validation metrics of a run, of its first network."""
    path = project.history(run)
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
