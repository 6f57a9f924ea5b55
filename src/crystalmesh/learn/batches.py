"""What trainer and predictor share: the parts of a run as batches of tensors, and its targets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run, Target, Training
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Representation, representation
from crystalmesh.represent.store import Features

LARGEST_TANH = 0.9999  # of an output: ten standard deviations from the mean
EVALUATION_BATCH = 64  # crystals; fixed, so that predictions do not depend on the training's
Batch = tuple[dict[str, Tensor], Tensor, *tuple[Tensor, ...]]  # see `Batches.__iter__`


@dataclass(frozen=True)
class Part:
    """Training, validation, test, calibration or unlabelled crystals of a run.

    Attributes:
        ids, formulas: one a crystal.
        labels: f64 [c, t], one column a target: the label after the target's transform, or the
            class from 0; NaN where there is none, and of a wide target.
        wide: by column, of a wide target its labels: f64 [r, k] a crystal, a row for each of its
            atoms (k = 3 for forces) or one row for the crystal; NaN where there is none.
        sizes: i64 [c]: atoms of each crystal; empty where none of the targets needs it.
    """

    ids: list[str]
    formulas: list[str]
    labels: Float[NDArray[np.float64], "c t"]
    wide: Mapping[int, list[Float[NDArray[np.float64], "r k"]]] = field(default_factory=dict)
    sizes: Int[NDArray[np.int64], " c"] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def targets(self) -> Float[NDArray[np.float64], " c"]:
        """Labels of the first target: one a crystal, or all of its many in a row."""
        return self.of(0)

    def of(self, column: int) -> Float[NDArray[np.float64], " c"]:
        """Labels of a target: one a crystal, or all of its many in a row."""
        if column not in self.wide:
            return self.labels[:, column]
        return np.concatenate([np.empty(0), *(one.ravel() for one in self.wide[column])])

    def first(self, count: int) -> "Part":
        """The first crystals."""
        return Part(
            self.ids[:count],
            self.formulas[:count],
            self.labels[:count],
            {column: labels[:count] for column, labels in self.wide.items()},
            self.sizes[:count],
        )

    def relative(self, references: Sequence[float]) -> "Part":
        """The labels less so much for each atom: one number a target, the first ones of these."""
        own = np.array(references[: self.labels.shape[1]])
        return replace(self, labels=self.labels - self.sizes[:, None] * own) if own.any() else self


@dataclass(frozen=True)
class Sample:
    """All that the networks of a fold learn from, are calibrated on and are tested on.

    Attributes:
        train: with a column for each target of the run.
        val: of the first target alone.
        test, calibration: by target, each of this target alone.
        pool: crystals without labels, if the run is distilled on them.
        features: id -> arrays.
        maker: what joins them to batches.
    """

    train: Part
    val: Part
    test: Mapping[str, Part]
    calibration: Mapping[str, Part]
    pool: Part | None
    features: Mapping[str, Mapping[str, NDArray[Any]]]
    maker: Representation

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sample":
        """Itself: what keeps a mean of a network's weights copies all that it holds."""
        return self

    @classmethod
    def load(cls, project: Project, run: Run) -> "Sample":
        """The sample of the run's only or first fold; see `samples`."""
        return next(samples(project, run))[1]

    def descriptors(self, part: Part) -> NDArray[np.float64]:
        """The descriptors of a part's crystals, f64 [c, d], in its order."""
        batches = Batches(self, part, len(part.ids))
        return np.concatenate([inputs["values"].numpy() for inputs, *_ in batches])


def place(run: Run, fold: str, member: int) -> str:
    """Where a network of a run stands: how its tensors' names start; "" if it is the only one."""
    return f"fold{fold}.member{member}." if run.several else ""


def samples(project: Project, run: Run) -> Iterator[tuple[str, Sample]]:
    """Each fold of a run, by name: features, labels and split are read once.

    Crystals without features are left out; of the calibration part, those that `sizes` of the
    features leaves out are no error. With `refit` the validation crystals are trained on too, and
    none is left for the calibration.

    Raises:
        CrystalmeshError: inputs are missing or damaged, crystals of the run have no features, or a
            further target would be tested or calibrated on crystals that the network has learned.
    """
    crystals = Crystals.load(project.crystals(run.dataset))
    features = Features(project.features(run.dataset, run.representation))
    settings = project.params.representation(run.representation)
    maker = representation(run.representation, settings)
    targets = {name: project.params.targets[name] for name in run.targets}

    def part(ids: Sequence[str], *names: str) -> Part:
        return _part(crystals, features, [targets[name] for name in names], ids)

    pool = None
    if run.distillation:
        most = run.distillation.max_atoms
        pool = _unlabelled(crystals, features, list(targets.values()), most)
    for fold in splits.folds(project, run):
        parts = {name: splits.select(project, run, fold, name) for name in targets}
        own = parts[run.target]
        train = own.train + (own.val if run.refit else [])
        for name, each in parts.items():
            learned = {*own.train, *own.val} & {*each.test}
            learned |= set() if run.refit else {*own.train} & {*each.calibration}
            if learned:
                raise CrystalmeshError(
                    f"{run.reference}: {len(learned)} crystals that {name} is tested or calibrated"
                    f" on are among those that it learns from ({min(learned)} first); use a split"
                    " that shares them (`by`)"
                )
        yield (
            fold,
            Sample(
                part(train, *targets),
                part(own.val, run.target),
                {name: part(each.test, name) for name, each in parts.items()},
                {
                    name: part(
                        [i for i in each.calibration if i in features and not run.refit], name
                    )
                    for name, each in parts.items()
                },
                pool,
                features,
                maker,
            ),
        )


def _part(
    crystals: Crystals, features: Features, targets: Sequence[Target], ids: Sequence[str]
) -> Part:
    missing = [i for i in ids if i not in features and i not in features.rejected]
    if missing:
        raise CrystalmeshError(
            f"{missing[0]} and {len(missing) - 1} more crystals of the run have no features;"
            " raise `sizes` under `features` in config/"
        )
    kept = [i for i in ids if i in features]
    rows = np.array([crystals.position(i) for i in kept], dtype=np.int64)
    labels = np.stack([values(crystals, one, rows) for one in targets], axis=1)
    sizes = np.diff(crystals.pointer)[rows]
    more = {k: wide(crystals, one, rows) for k, one in enumerate(targets) if one.wide}
    return Part(kept, [crystals.formulas[i] for i in rows], labels, more, sizes)


def _unlabelled(
    crystals: Crystals, features: Features, targets: Sequence[Target], atoms: int
) -> Part:
    """Crystals that have features but no label of the first target, with so many atoms at most.

    Raises:
        CrystalmeshError: there is none.
    """
    unknown = np.isnan(crystals.labels[targets[0].label]) & (np.diff(crystals.pointer) <= atoms)
    rows = [i for i in np.flatnonzero(unknown).tolist() if crystals.ids[i] in features]
    if not rows:
        raise CrystalmeshError(
            f"no crystal of {crystals.dataset} without {targets[0].title} has features and {atoms}"
            " atoms at most; raise `max_atoms` under `distillation`"
        )
    none = np.full((len(rows), len(targets)), np.nan)
    return Part([crystals.ids[i] for i in rows], [crystals.formulas[i] for i in rows], none)


def values(crystals: Crystals, target: Target, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Labels after the target's transform; classes from 0; NaN where the system has none."""
    if target.wide:
        return np.full(len(rows), np.nan)
    labels: NDArray[np.float64] = crystals.labels[target.label][rows]
    if target.transform == "log10":
        return np.log10(labels)
    return labels - 1 if target.kind == "classification" else labels


def wide(
    crystals: Crystals, target: Target, rows: NDArray[np.int64]
) -> list[Float[NDArray[np.float64], "r k"]]:
    """Labels of each of these systems, of a wide target; NaN where there is none."""
    starts, width = np.arange(len(crystals) + 1), target.size or 1
    labels = crystals.labels.get(target.label)
    if target.level:
        starts, labels = crystals.pointer, crystals.atom_labels.get(target.label)
    if labels is None:
        labels = np.full((starts[-1], width), np.nan)
    labels = labels.reshape(len(labels), width)
    return [labels[starts[row] : starts[row + 1]] for row in rows]


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

    def __iter__(self) -> Iterator[Batch]:
        """(inputs of the network, labels f64 [c, t], of each wide target f64 [r, k])."""
        for rows in self._rows:
            items: list[Any] = [self.sample.features[self.part.ids[row]] for row in rows]
            labels = torch.from_numpy(self.part.labels[rows])
            more = (
                torch.from_numpy(np.concatenate([one[row] for row in rows]))
                for _, one in sorted(self.part.wide.items())
            )
            yield self.sample.maker.collate(items), labels, *more


def scale(targets: Tensor, mean: float, std: float, training: Training) -> Tensor:
    """Targets as the network learns them: standardised, and with `tanh` squeezed into (-1, 1).

    tanh((y - mean) / (2 std)) is our reading of the scaling by tanh of Lee and Asahi, Comput.
    Mater. Sci. 190, 110314 (2021): it takes weight from the targets far from the mean.
    """
    standard = (targets - mean) / std
    return torch.tanh(standard / 2) if training.standardise == "tanh" else standard


def unscale(
    outputs: Float[Tensor, " *c"], mean: float, std: float, training: Training
) -> Float[NDArray[np.float64], " *c"]:
    """Outputs of a network for one target in its unit: the inverse of `scale`."""
    values = outputs.double().numpy()
    if training.standardise == "tanh":
        inside = np.clip(values, -LARGEST_TANH, LARGEST_TANH)
        values = np.log((1 + inside) / (1 - inside))  # 2 artanh
    standardised: NDArray[np.float64] = values * std + mean
    return standardised
