"""What trainer and predictor share: the parts of a run as batches of tensors, and its targets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crystalmesh.config import Experiment, Project, Task, Training
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Representation, representation
from crystalmesh.represent.store import Features

LARGEST_TANH = 0.9999  # of an output: ten standard deviations from the mean
EVALUATION_BATCH = 64  # crystals; fixed, so that predictions do not depend on the training's


@dataclass(frozen=True)
class Part:
    """Training, validation, test or calibration crystals of a run.

    Attributes:
        ids, formulas: one a crystal.
        targets: f64 [c]; the label after the task's transform, or the class from 0.
        beside: f64 [c, k], the labels of the tasks learned beside it (NaN: none), if there are any.
            Of crystals that others teach by, the labels of all are NaN.
    """

    ids: list[str]
    formulas: list[str]
    targets: NDArray[np.float64]
    beside: NDArray[np.float64] | None = None

    @property
    def labels(self) -> NDArray[np.float64]:
        """Targets and those beside them, f64 [c, 1 + k]."""
        return np.column_stack([self.targets, *([] if self.beside is None else [self.beside])])


@dataclass(frozen=True)
class Sample:
    """All that a run of an experiment learns from, is calibrated on and is tested on."""

    train: Part
    val: Part
    test: Part
    calibration: Part
    pool: Part | None  # crystals without labels, if the experiment is taught by them
    features: Mapping[str, Mapping[str, NDArray[Any]]]
    maker: Representation

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sample":
        """Itself: what keeps a mean of a network's weights copies all that it holds."""
        return self

    @classmethod
    def load(cls, project: Project, experiment: Experiment) -> "Sample":
        """The sample of the experiment's only or first fold; see `samples`."""
        return next(samples(project, experiment))[1]

    def descriptors(self, part: Part) -> NDArray[np.float64]:
        """The descriptors of a part's crystals, f64 [c, d], in its order."""
        batches = Batches(self, part, len(part.ids))
        return np.concatenate([inputs["values"].numpy() for inputs, _ in batches])


def place(experiment: Experiment, fold: str, member: int) -> str:
    """Where a network of an experiment stands: the start of its tensors' names, "" if it is one."""
    return f"fold{fold}.member{member}." if experiment.several else ""


def samples(project: Project, experiment: Experiment) -> Iterator[tuple[str, Sample]]:
    """Each fold of an experiment, by name: features, labels and split are read once.

    Crystals without features are left out; of the calibration part, those that `sizes` of the
    features leaves out are no error. With `refit` the validation crystals are trained on too, and
    none is left for the calibration.
    """
    task = project.params.tasks[experiment.task]
    crystals = Crystals.load(project.crystals(experiment.dataset))
    features = Features(project.features(experiment.dataset, experiment.representation))
    settings = project.params.representation(experiment.representation)
    maker = representation(experiment.representation, settings)
    beside = [project.params.tasks[name] for name in experiment.beside or ()]
    pool = None
    if experiment.taught:
        pool = _unlabelled(crystals, features, task, experiment.taught.atoms)
    for fold in splits.folds(project, experiment):
        parts = splits.select(project, experiment, fold)
        calibration = [i for i in parts.calibration if i in features and not experiment.refit]
        train = parts.train + (parts.val if experiment.refit else [])
        yield (
            fold,
            Sample(
                _part(crystals, features, task, train, beside),
                _part(crystals, features, task, parts.val),
                _part(crystals, features, task, parts.test),
                _part(crystals, features, task, calibration),
                pool,
                features,
                maker,
            ),
        )


def _part(
    crystals: Crystals,
    features: Features,
    task: Task,
    ids: Sequence[str],
    beside: Sequence[Task] = (),
) -> Part:
    missing = [i for i in ids if i not in features and i not in features.rejected]
    if missing:
        raise CrystalmeshError(
            f"{missing[0]} and {len(missing) - 1} more crystals of the experiment have no features;"
            " raise `sizes` under `features` in params.yaml"
        )
    kept = [i for i in ids if i in features]
    rows = np.array([crystals.position(i) for i in kept], dtype=np.int64)
    targets = _targets(crystals, task, rows)
    others = np.stack([_targets(crystals, one, rows) for one in beside], axis=1) if beside else None
    return Part(kept, [crystals.formulas[i] for i in rows], targets, others)


def _unlabelled(crystals: Crystals, features: Features, task: Task, atoms: int) -> Part:
    """Crystals that have features but no label of the task, with so many atoms at most.

    Raises:
        CrystalmeshError: there is none.
    """
    unknown = np.isnan(crystals.labels[task.label]) & (np.diff(crystals.pointer) <= atoms)
    rows = [i for i in np.flatnonzero(unknown).tolist() if crystals.ids[i] in features]
    if not rows:
        raise CrystalmeshError(
            f"no crystal of {crystals.dataset} without {task.title} has features and {atoms} atoms"
            " at most; raise `atoms` under `taught` in params.yaml"
        )
    none = np.full(len(rows), np.nan)
    return Part([crystals.ids[i] for i in rows], [crystals.formulas[i] for i in rows], none)


def _targets(crystals: Crystals, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Labels after the task's transform; classes from 0; NaN where there is none."""
    labels: NDArray[np.float64] = crystals.labels[task.label][rows]
    if task.transform == "log10":
        return np.log10(labels)
    return labels - 1 if task.kind == "classification" else labels


class Batches:
    """Batches of a part, collated as they are asked for.

    Args:
        sample: where the features are.
        part: the crystals.
        batch_size: crystals a batch, by default as in evaluation; a remainder of one joins the
            batch before it, as batch normalisation needs two.
        shuffle: seed of the order, or None for the order of the part.
        share: (rank, processes): this process gets its share of each batch. A remainder that is
            not enough for all processes joins the batch before it.
    """

    def __init__(
        self,
        sample: Sample,
        part: Part,
        batch_size: int = EVALUATION_BATCH,
        shuffle: Sequence[int] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.sample, self.part = sample, part
        order = np.arange(len(part.ids))
        if shuffle is not None:
            order = np.random.default_rng(list(shuffle)).permutation(order)
        starts = list(range(0, len(order), batch_size))
        rank, processes = share
        if len(starts) > 1 and len(order) - starts[-1] < max(2, processes):
            starts.pop()
        stops = [*starts[1:], len(order)]
        self._rows = [
            np.array_split(order[a:b], processes)[rank] for a, b in zip(starts, stops, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """(inputs of the network, targets f64 [c]; with tasks beside it [c, 1 + k])."""
        targets = self.part.targets if self.part.beside is None else self.part.labels
        for rows in self._rows:
            items: list[Any] = [self.sample.features[self.part.ids[row]] for row in rows]
            yield self.sample.maker.collate(items), torch.from_numpy(targets[rows])


def scale(targets: Tensor, mean: float, std: float, training: Training) -> Tensor:
    """Targets as the network learns them: standardised, and with `tanh` squeezed into (-1, 1).

    tanh((y - mean) / (2 std)) is our reading of the scaling by tanh of Lee and Asahi, Comput.
    Mater. Sci. 190, 110314 (2021): it takes weight from the targets far from the mean.
    """
    standard = (targets - mean) / std
    return torch.tanh(standard / 2) if training.standardise == "tanh" else standard


def unscale(outputs: Tensor, mean: float, std: float, training: Training) -> NDArray[np.float64]:
    """Outputs of a network, of which the first is the task's, in its unit: the inverse of `scale`.

    Args: outputs [c, 1 or more]. Returns: f64 [c].
    """
    values = outputs[:, 0].double().numpy()
    if training.standardise == "tanh":
        inside = np.clip(values, -LARGEST_TANH, LARGEST_TANH)
        values = np.log((1 + inside) / (1 - inside))  # 2 artanh
    standardised: NDArray[np.float64] = values * std + mean
    return standardised
