"""Networks for anybody's crystals: predictions with intervals, and a word where trust ends.

The experiments of the group `predictors` in params.yaml are trained for this. What a prediction
needs beside the weights stands in results/predictors/calibration/: see `calibrate`.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast, overload

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from crystalmesh import files, numerics
from crystalmesh.config import PREDICTORS, Experiment, Project, Task, lookup
from crystalmesh.data import registry, structures
from crystalmesh.data.crystals import Crystal, Crystals
from crystalmesh.data.structures import Item, Source
from crystalmesh.data.validation import Rules
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.batches import EVALUATION_BATCH, Part, place, samples
from crystalmesh.learn.conformal import Calibration, sets
from crystalmesh.learn.predict import (
    COARSE,
    Checkpoint,
    calibrated,
    finished,
    forward,
    inputs,
    intervals,
)
from crystalmesh.represent import Representation, representation
from crystalmesh.workers import in_order

T = TypeVar("T")
REFERENCE = 2000  # training crystals that stand for all, the first of them: their order is drawn
DIRECTIONS = 16  # of most variance, in which distances are measured
NEIGHBOURS = 5
FAR = 0.99  # share of the validation crystals that must be nearer to the training data for a word
FEW = 5  # training crystals with an element; with fewer it is as good as unknown
COLUMNS = ("file", "id", "formula", "task", "value", "lower", "upper", "unit", "warning")
CHUNK = 16  # sources handed to a process at once
FEW_SOURCES = 64  # are read by this process alone: another one takes seconds to start


def calibrate(project: Project, group: str, name: str) -> None:
    """The stage `calibrate`: what predictions for crystals without labels need.

    Writes results/<group>/calibration/<name>.safetensors:

    - scores f64 [n]: of the split conformal prediction (`learn.conformal`), on validation crystals;
    - elements i64 [119]: training crystals that have the element of this atomic number;
    - centre, scale f64 [d], directions f64 [d, k], reference f32 [r, k]: vectors of training
      crystals before the network's last layer (its first one's, where there are several),
      standardised, in their k directions of most variance;
    - distances f32 [n]: of validation crystals to their nearest references, ascending.

    Raises:
        CrystalmeshError: the experiment has several folds or no network, or its checkpoint is
            missing or damaged.
    """
    experiment = project.params.experiment(group, name)
    numerics.enforce(project.params.numerics(group))
    if experiment.fold == "all" or project.params.models[experiment.model].training is None:
        raise CrystalmeshError(
            f"params.yaml: {project.params.block(group, name)}: predictors need a network, and of"
            " one fold"
        )
    fold, sample = next(samples(project, experiment))
    predictor = Predictor(project, group, name, known=None)
    part = sample.calibration
    members = predictor.members(inputs(sample, part))
    if predictor.task.kind == "classification":
        known = Calibration.of_classes(part.targets.astype(np.int64), members.mean(axis=0))
    else:
        known = calibrated(members, part.targets)
    train = sample.train
    chosen = Part(train.ids[:REFERENCE], train.formulas[:REFERENCE], train.targets[:REFERENCE])
    space = Space.of(predictor.vectors(inputs(sample, chosen)))
    distances = space.distance(predictor.vectors(inputs(sample, part)))
    crystals = Crystals.load(project.crystals(experiment.dataset))
    seen = np.zeros(len(chemical_symbols), dtype=np.int64)
    for one in sample.train.ids:
        seen[np.unique(crystals[crystals.position(one)].numbers)] += 1
    files.write_tensors(
        project.calibration(group, name),
        {
            "scores": known.scores,
            "elements": seen,
            "centre": space.centre,
            "scale": space.scale,
            "directions": space.directions,
            "reference": space.reference,
            "distances": np.sort(distances).astype(np.float32),
        },
        json.dumps({"floor": known.floor, "n_train": len(sample.train.ids), "fold": fold}),
    )


@dataclass(frozen=True)
class Space:
    """The space of a network's crystal vectors, and where its training crystals lie in it."""

    centre: Float[NDArray[np.float64], " d"]
    scale: Float[NDArray[np.float64], " d"]
    directions: Float[NDArray[np.float64], "d k"]
    reference: Float[NDArray[np.float32], "r k"]

    @classmethod
    def of(cls, vectors: Float[NDArray[np.float64], "r d"]) -> "Space":
        """Keep the directions of most variance; a column that never varies counts nothing."""
        centre, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)
        standard = (vectors - centre) * scale
        _, _, rows = np.linalg.svd(standard, full_matrices=False)
        directions = np.ascontiguousarray(rows[:DIRECTIONS].T)
        return cls(centre, scale, directions, (standard @ directions).astype(np.float32))

    def distance(
        self, vectors: Float[NDArray[np.float64], "c d"]
    ) -> Float[NDArray[np.float64], " c"]:
        """Mean distance to the nearest training crystals."""
        inside = ((vectors - self.centre) * self.scale) @ self.directions
        count = min(NEIGHBOURS, len(self.reference))
        near, _ = cKDTree(self.reference).query(inside, k=list(range(1, count + 1)))
        mean: NDArray[np.float64] = near.mean(axis=1)
        return mean


@dataclass(frozen=True)
class Known:
    """What a network's predictions are held to: the content of its calibration file."""

    calibration: Calibration
    elements: NDArray[np.int64]
    space: Space
    distances: Float[NDArray[np.float32], " n"]

    @classmethod
    def load(cls, path: Path) -> "Known":
        tensors = files.read_tensors(path)
        try:
            note = json.loads(files.read_note(path))
            space = Space(*(tensors[k] for k in ("centre", "scale", "directions", "reference")))
            calibration = Calibration(tensors["scores"], note["floor"])
            return cls(calibration, tensors["elements"], space, tensors["distances"])
        except (KeyError, ValueError) as error:
            raise CrystalmeshError(f"{path}: damaged ({error}); restore it from Git") from error


@dataclass(frozen=True)
class Prediction:
    """One value for one crystal.

    Attributes:
        file, id, formula: which crystal.
        task: a key of `tasks` in params.yaml.
        value: in `unit`; of `space_group` its number.
        lower, upper: the 90 % interval; None for classes.
        warning: empty, or why to trust it less than the interval says.
        model: the experiment of the group `predictors`.
        spread: standard deviation over the networks; None where there is one.
        probability, classes: of classes: the share of the predicted one, and the 90 % set.
        familiarity: share of the validation crystals that are farther from the training crystals
            than this one, in the network's space.
    """

    file: str
    id: str
    formula: str
    task: str
    value: float
    lower: float | None
    upper: float | None
    unit: str
    warning: str
    model: str
    spread: float | None = None
    probability: float | None = None
    classes: tuple[int, ...] = ()
    familiarity: float = 1.0


class Predictor:
    """A trained network that is called with crystals.

    Args:
        project: the folder of params.yaml and of the checkpoints.
        group, name: the experiment.
        known: its calibration; by default read from its file.

    Raises:
        CrystalmeshError: its checkpoint is missing, damaged, or of other settings.
    """

    def __init__(
        self,
        project: Project,
        group: str,
        name: str,
        known: Known | Literal["file"] | None = "file",
    ) -> None:
        self.project, self.name = project, name
        self.experiment: Experiment = project.params.experiment(group, name)
        self.task: Task = project.params.tasks[self.experiment.task]
        self.checkpoint = Checkpoint.load(project, group, name)
        self._prefixes = [
            place(self.experiment, str(self.experiment.fold), k)
            for k in range(self.experiment.members or 1)
        ]
        outputs = project.params.outputs(self.experiment)
        try:
            self.networks = [
                self.checkpoint.network(prefix, outputs).eval() for prefix in self._prefixes
            ]
        except (KeyError, RuntimeError) as error:
            raise CrystalmeshError(
                f"{project.checkpoint(group, name)}: not of this network; restore it from Git"
            ) from error
        settings = project.params.representation(self.experiment.representation)
        self.maker: Representation = representation(self.experiment.representation, settings)
        self.rules = Rules.of(project.params)
        path = project.calibration(group, name)
        self.known = Known.load(path) if known == "file" else known
        self.error: dict[str, Any] = {}
        if project.metrics(group, name).exists():
            self.error = files.read_json(project.metrics(group, name))

    def __repr__(self) -> str:
        said = f"{self.task.title}, {self.task.unit}"
        if self.error:
            said += f"; {self.error['metric']} {self.error['value']:.3g} on {self.error['n_test']}"
        return f"Predictor({self.name}: {said})"

    def members(self, batches: Iterable[Mapping[str, Tensor]]) -> NDArray[np.float64]:
        """What each network says: values [m, c] in the task's unit, or probabilities [m, c, k]."""
        batches = list(batches)
        double = self.experiment.precision == "double"
        return np.stack(
            [
                finished(
                    forward(net, batches, double=double),
                    self.checkpoint.run(prefix)[0],
                    self.project,
                    self.experiment,
                )
                for prefix, net in zip(self._prefixes, self.networks, strict=True)
            ]
        )

    def vectors(self, batches: Iterable[Mapping[str, Tensor]]) -> Float[NDArray[np.float64], "c d"]:
        """The crystals' vectors before the last layer of the first network."""
        found: NDArray[np.float64] = (
            forward(self.networks[0], batches, vectors=True, double=True).double().numpy()
        )
        return found

    @overload
    def __call__(self, crystals: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    @overload
    def __call__(self, crystals: Any) -> Prediction: ...
    def __call__(self, crystals: Any) -> Prediction | list[Prediction]:
        """Predict a pymatgen Structure or ASE Atoms, or a list of them.

        Raises:
            CrystalmeshError: one is no crystal that the network can take; the message says which.
        """
        several = isinstance(crystals, list | tuple)
        found = []
        for number, one in enumerate(crystals if several else [crystals]):
            name = f"structure {number}" if several else "structure"
            item = structures.of_object(one, name, self.rules)
            if item.crystal is None:
                raise CrystalmeshError(f"{name}: {item.problem}")
            found.append((item, self.maker.build(item.crystal)))
        predictions = [
            prediction
            for start in range(0, len(found), EVALUATION_BATCH)
            for prediction in self.predict(found[start : start + EVALUATION_BATCH])
        ]
        return predictions if several else predictions[0]

    def predict(self, found: Sequence[tuple[Item, Mapping[str, NDArray[Any]]]]) -> list[Prediction]:
        """Predict accepted crystals with their tensors of this network's representation."""
        if self.known is None:
            raise CrystalmeshError(f"{self.name}: no calibration; run the stage `calibrate`")
        if not found:
            return []
        batch = self.maker.collate([arrays for _, arrays in found])
        members = self.members([batch])
        distance = self.known.space.distance(self.vectors([batch]))
        nearer = np.searchsorted(self.known.distances, distance, side="left")
        familiarity = np.round(1 - nearer / len(self.known.distances), COARSE)
        columns: dict[str, Sequence[Any]]
        if self.task.kind == "classification":
            probability = members.mean(axis=0)
            columns = {
                "value": (probability.argmax(axis=1) + 1).tolist(),
                "probability": np.round(probability.max(axis=1), COARSE).tolist(),
                "classes": [
                    tuple((r + 1).tolist()) for r in sets(probability, self.known.calibration)
                ],
            }
        else:
            columns = dict(intervals(members, self.known.calibration))
            columns["value"] = columns.pop("prediction")
            if not columns["spread"]:
                del columns["spread"]
        return [
            Prediction(
                **{"lower": None, "upper": None}
                | {key: column[row] for key, column in columns.items()},
                file=item.file,
                id=item.id,
                formula=cast(Crystal, item.crystal).formula,
                task=self.experiment.task,
                unit=self.task.unit,
                warning="; ".join(
                    [*item.notes, *self._doubts(cast(Crystal, item.crystal), familiarity[row])]
                ),
                model=self.name,
                familiarity=float(familiarity[row]),
            )
            for row, (item, _) in enumerate(found)
        ]

    def _doubts(self, crystal: Crystal, familiarity: float) -> Iterator[str]:
        """Why the crystal is unlike the training data."""
        assert self.known is not None
        for number in np.unique(crystal.numbers).tolist():
            count = int(self.known.elements[number])
            if count < FEW:
                seen = f"in {count} training crystals only" if count else "in no training crystal"
                yield f"{chemical_symbols[number]} is {seen}"
        if familiarity < 1 - FAR:
            share = f"{100 * (1 - familiarity):.1f} %"
            yield f"unlike the training crystals: farther from them than {share} of validation ones"


def best(project: Project, task: str, model: str = "best") -> str:
    """The experiment of the group `predictors` for a task: the named one, or of least test error.

    Raises:
        CrystalmeshError: there is none of that name or task.
    """
    names = project.params.group(PREDICTORS)
    if model != "best":
        experiment = lookup(names, model, "predictor")
        if experiment.task != task:
            raise CrystalmeshError(f"--model {model}: predicts {experiment.task}, not {task}")
        return model
    of_task = [name for name, experiment in names.items() if experiment.task == task]
    if not of_task:
        known = ", ".join(tasks(project))
        raise CrystalmeshError(f"task '{task}': no network predicts it; known: {known}")
    sign = -1.0 if project.params.tasks[task].kind == "classification" else 1.0
    ranked = [
        (sign * files.read_json(project.metrics(PREDICTORS, name))["value"], name)
        for name in of_task
    ]
    return min(ranked)[1]


def tasks(project: Project) -> list[str]:
    """The tasks that some network of the group `predictors` predicts, in their order there."""
    return list(dict.fromkeys(e.task for e in project.params.group(PREDICTORS).values()))


def load(project: Project, task: str, model: str = "best") -> Predictor:
    """The network for a task; see `best`."""
    return Predictor(project, PREDICTORS, best(project, task, model))


Prepared = tuple[Item, dict[str, dict[str, NDArray[Any]] | str]]


def stream(
    project: Project,
    paths: Sequence[str],
    predictors: Sequence[Predictor],
    jobs: int,
) -> Iterator[tuple[Item, list[Prediction] | str]]:
    """Each structure of the paths with its predictions (one a predictor), or why it has none.

    Files are read and turned into tensors by `jobs` processes; results come in the order of the
    files, and do not depend on what else is predicted.
    """
    settings = {
        p.experiment.representation: project.params.representation(p.experiment.representation)
        for p in predictors
    }
    work = partial(_prepare, rules=Rules.of(project.params), settings=settings)
    sources = structures.sources(paths)
    first = list(itertools.islice(sources, FEW_SOURCES + 1))
    if len(first) <= FEW_SOURCES or structures.STDIN in paths:
        jobs = 1
    chunks = _chunks(itertools.chain(first, sources), CHUNK)
    prepared = itertools.chain.from_iterable(in_order(work, chunks, jobs))
    for batch in _chunks(prepared, EVALUATION_BATCH):
        yield from _predicted(batch, predictors)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    return iter(lambda: list(itertools.islice(stream, size)), [])


def _prepare(
    sources: Sequence[Source], rules: Rules, settings: Mapping[str, Mapping[str, Any]]
) -> list[Prepared]:
    """Structures and their tensors of each representation, or why there are none."""
    found: list[Prepared] = []
    for source in sources:
        for item in structures.parse(source, rules):
            made: dict[str, dict[str, NDArray[Any]] | str] = {}
            for name, values in settings.items() if item.crystal is not None else ():
                try:
                    made[name] = representation(name, values).build(cast(Crystal, item.crystal))
                except Exception as error:  # one crystal never stops the others
                    made[name] = " ".join(str(error).split()) or type(error).__name__
            found.append((item, made))
    return found


def _predicted(
    batch: Sequence[Prepared], predictors: Sequence[Predictor]
) -> Iterator[tuple[Item, list[Prediction] | str]]:
    rows: list[list[Prediction]] = [[] for _ in batch]
    problems = [item.problem for item, _ in batch]
    for predictor in predictors:
        name = predictor.experiment.representation
        usable = []
        for row, (item, made) in enumerate(batch):
            arrays = made.get(name)
            if isinstance(arrays, dict):
                usable.append((row, item, arrays))
            elif arrays is not None:
                problems[row] = arrays
        predictions = predictor.predict([(item, arrays) for _, item, arrays in usable])
        for (row, _, _), prediction in zip(usable, predictions, strict=True):
            if math.isfinite(prediction.value):
                rows[row].append(prediction)
            else:
                problems[row] = "the network gives no finite number for it"
    for (item, _), found, problem in zip(batch, rows, problems, strict=True):
        yield item, found or problem


def table(
    project: Project,
    paths: Sequence[str],
    predictors: Sequence[Predictor],
    jobs: int,
    out: Path | None,
) -> tuple[int, int]:
    """Predict and write a table; say on stderr what was skipped, and why.

    Args:
        project: where the networks are.
        paths: see `data.structures.read`.
        predictors: the networks; each gives a row a crystal.
        jobs: processes.
        out: a CSV file with COLUMNS, or a JSON file with all fields of `Prediction`; None: CSV on
            stdout. The file appears when the table is complete.

    Returns:
        How many structures were skipped, and how many predicted.

    Raises:
        CrystalmeshError: nothing was predicted; a file that was there stays as it was.
    """
    began = time.monotonic()
    skipped = predicted = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(registry.progress())
        sink: IO[bytes] = (
            sys.stdout.buffer if out is None else stack.enter_context(files.writing(out))
        )
        write = _Json(sink) if out is not None and out.suffix == ".json" else _Csv(sink)
        work = bar.add_task("predict", total=None)
        for item, found in stream(project, paths, predictors, jobs):
            bar.update(work, advance=1, description=f"predict: {predicted + skipped + 1} crystals")
            if isinstance(found, str):
                skipped += 1
                where = item.file if item.id in item.file else f"{item.file} ({item.id})"
                bar.console.print(
                    f"skipped {where}: {found}", markup=False, highlight=False, soft_wrap=True
                )
                continue
            predicted += 1
            for prediction in found:
                write.row(prediction)
        if out and not predicted:
            raise CrystalmeshError(
                f"nothing was predicted, for the reasons above; {out} is not written"
            )
        write.end()
    seconds = time.monotonic() - began
    said = (
        f"{predicted} crystals predicted, {skipped} skipped; {predicted / seconds:.0f} crystals/s"
    )
    print(said + (f"; {out}" if out else ""), file=sys.stderr)
    return skipped, predicted


class _Csv:
    """Predictions as rows of COLUMNS."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._write(COLUMNS)

    def _write(self, values: Iterable[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._sink.write(text.getvalue().encode("utf-8", errors="surrogateescape"))

    def row(self, prediction: Prediction) -> None:
        values = (getattr(prediction, column) for column in COLUMNS)
        self._write("" if v is None else repr(v) if isinstance(v, float) else v for v in values)

    def end(self) -> None:
        self._sink.flush()


class _Json:
    """Predictions as a list of objects with all that is known."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._lead = sink, "[\n"

    def row(self, prediction: Prediction) -> None:
        fields = {k: v for k, v in asdict(prediction).items() if v is not None and v != ()}
        self._sink.write(
            (self._lead + json.dumps(fields, ensure_ascii=False)).encode(errors="replace")
        )
        self._lead = ",\n"

    def end(self) -> None:
        self._sink.write(b"[]\n" if self._lead == "[\n" else b"\n]\n")
        self._sink.flush()
