"""From a checkpoint to one row a test crystal, each with an interval or a set of classes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh import numerics
from crystalmesh.config import Experiment, Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_note, read_tensors, write_csv
from crystalmesh.learn.batches import Batches, Part, Sample, place, samples, unscale
from crystalmesh.learn.conformal import LEVEL, Calibration, sets
from crystalmesh.models import classical, network

DIGITS = 6  # after the point, of predictions as published
COARSE = 4  # of what tells how sure they are


@dataclass(frozen=True)
class Checkpoint:
    """The published weights of an experiment, and what they were trained with.

    Attributes:
        note: settings and facts, as `learn.train.train` writes them.
        tensors: name -> array; of several networks, the names start with `place`.
    """

    note: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, project: Project, group: str, name: str) -> "Checkpoint":
        """Read the checkpoint of an experiment.

        Raises:
            CrystalmeshError: it is missing, damaged, or was trained with other settings.
        """
        path = project.checkpoint(group, name)
        note = json.loads(read_note(path))
        for key, value in project.params.settings(project.params.experiment(group, name)).items():
            if note.get(key) != value:
                raise CrystalmeshError(
                    f"{path}: trained with another `{key}` than params.yaml has now; train again"
                )
        return cls(note, read_tensors(path))

    def run(self, prefix: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Facts and tensors of one of its networks."""
        facts = self.note["runs"][prefix.rstrip(".")] if prefix else dict(self.note)
        tensors = {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }
        return facts, tensors

    def network(self, prefix: str, outputs: int) -> nn.Module:
        """One of its networks, with half precision made single again."""
        model = self.note["model"]
        net = network(model["architecture"], model["network"], outputs)
        _, tensors = self.run(prefix)
        net.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        return net


def predict(project: Project, group: str, name: str) -> None:
    """The stage `predict`: the experiment's test crystals through its checkpoint.

    Writes a CSV with id, formula (of several folds: `fold`), target and prediction (regression:
    after the task's transform; classes: from 1). An ensemble predicts the mean of its members (of
    classes: of their probabilities), which stand in columns of their own. Numbers are rounded to
    DIGITS, those of the uncertainty to COARSE.

    - regression: `spread`, the standard deviation over the members, if there are any; `lower` and
      `upper`, a 90 % interval;
    - classes: `probability` of the predicted one; `set`, the classes of a 90 % set;
    - `p_value` of the target: see `learn.conformal`, which both are calibrated by.

    With `refit` no crystal is left to calibrate by; the test crystals of the other folds, which
    these folds' networks have not seen, take their place (cross-conformal prediction: Vovk, Ann.
    Math. Artif. Intell. 74, 9, 2015).

    Raises:
        CrystalmeshError: the checkpoint is missing, damaged or of another network.
    """
    experiment = project.params.experiment(group, name)
    task = project.params.tasks[experiment.task]
    numerics.enforce(project.params.numerics(group))
    checkpoint = Checkpoint.load(project, group, name)
    classes = task.kind == "classification"
    columns = ["id", "fold" if experiment.fold == "all" else "formula", "target", "prediction"]
    columns += ["probability", "set"] if classes else ["lower", "upper"]
    columns += ["p_value"]
    if experiment.members:
        columns += [] if classes else ["spread"]
        columns += [f"member_{k}" for k in range(experiment.members)]
    folds: list[Fold] = []
    for fold, sample in samples(project, experiment):
        try:
            folds.append(_outputs(checkpoint, project, experiment, fold, sample))
        except (KeyError, RuntimeError) as error:
            raise CrystalmeshError(
                f"{project.checkpoint(group, name)}: not of this network; delete it and train again"
            ) from error
    if experiment.refit:
        folds = [_calibrated_by_others(folds, k) for k in range(len(folds))]
    rows: list[Sequence[Any]] = []
    for one in folds:
        found = _classes(one) if classes else _values(one)
        found["fold"] = [one.name] * len(one.part.ids)
        found |= {"id": one.part.ids, "formula": one.part.formulas}
        rows += zip(*(found[column] for column in columns), strict=True)
    write_csv(project.predictions(group, name), columns, rows)


@dataclass(frozen=True)
class Fold:
    """What the m networks of a fold say.

    Of regressions values [m, c] in the task's unit, of classes probabilities [m, c, k].

    Attributes:
        name: of the fold.
        part: its test crystals.
        test: for these.
        calibration: for those that its intervals are calibrated by.
        targets: f64, of the calibration crystals.
    """

    name: str
    part: Part
    test: NDArray[np.float64]
    calibration: NDArray[np.float64]
    targets: NDArray[np.float64]


def _calibrated_by_others(folds: Sequence[Fold], k: int) -> Fold:
    """Fold k with the test crystals of all other folds as its calibration crystals."""
    others = [fold for i, fold in enumerate(folds) if i != k]
    return replace(
        folds[k],
        calibration=np.concatenate([other.test for other in others], axis=1),
        targets=np.concatenate([other.part.targets for other in others]),
    )


def _outputs(
    checkpoint: Checkpoint, project: Project, experiment: Experiment, fold: str, sample: Sample
) -> Fold:
    """Each network of a fold on its calibration crystals, if it has any, and its test crystals."""
    parts = (sample.calibration, sample.test)[1 if experiment.refit else 0 :]
    found: list[list[NDArray[np.float64]]] = []
    for member in range(experiment.members or 1):
        prefix = place(experiment, fold, member)
        facts, tensors = checkpoint.run(prefix)
        if project.params.models[experiment.model].training is None:
            settings = checkpoint.note["model"]["network"]
            found.append(
                [classical.apply(settings, tensors, sample.descriptors(part)) for part in parts]
            )
        else:
            net = checkpoint.network(prefix, project.params.outputs(experiment))
            double = experiment.precision == "double"
            found.append(
                [
                    finished(
                        forward(net, inputs(sample, part), double=double),
                        facts,
                        project,
                        experiment,
                    )
                    for part in parts
                ]
            )
    calibration, test = (np.stack([of[k] for of in found]) for k in (0, -1))
    return Fold(fold, sample.test, test, calibration, sample.calibration.targets)


def finished(
    outputs: Tensor, facts: Mapping[str, Any], project: Project, experiment: Experiment
) -> NDArray[np.float64]:
    """Outputs [c, out] of a network in the task's unit, f64 [c], or as probabilities [c, k]."""
    task = project.params.tasks[experiment.task]
    if task.kind == "classification":
        chances = torch.softmax(outputs[:, : task.outputs].double(), dim=1)
        probability: NDArray[np.float64] = chances.numpy()
        return probability
    return unscale(outputs, facts["mean"], facts["std"], project.params.training(experiment))


def calibrated(
    members: Float[NDArray[np.float64], "m c"], targets: Float[NDArray[np.float64], " c"]
) -> Calibration:
    """The calibration of an ensemble of m networks (or of one) by its calibration crystals."""
    return Calibration.of_values(targets, members.mean(axis=0), _spread(members))


def intervals(
    members: Float[NDArray[np.float64], "m c"], known: Calibration
) -> dict[str, Sequence[float]]:
    """Prediction, 90 % interval and (of several networks) spread, rounded as they are published."""
    prediction, spread = members.mean(axis=0), _spread(members)
    reach = known.quantile(LEVEL) * known.scale(spread, len(prediction))
    return {
        "prediction": _rounded(prediction, DIGITS),
        "lower": _rounded(prediction - reach, COARSE),
        "upper": _rounded(prediction + reach, COARSE),
        "spread": [] if spread is None else _rounded(spread, COARSE),
    }


def _spread(members: Float[NDArray[np.float64], "m c"]) -> Float[NDArray[np.float64], " c"] | None:
    return np.std(members, axis=0, ddof=1) if len(members) > 1 else None


def _values(fold: Fold) -> dict[str, Sequence[Any]]:
    """Columns of a regression: prediction, interval, p-value, and the members."""
    known, test = calibrated(fold.calibration, fold.targets), fold.test
    target = fold.part.targets
    scale = known.scale(_spread(test), len(target))
    residual = np.abs(target - test.mean(axis=0))
    return {
        "target": target.tolist(),
        "p_value": _rounded(known.p_value(residual / scale), COARSE),
        **intervals(test, known),
    } | {f"member_{k}": _rounded(row, DIGITS) for k, row in enumerate(test)}


def _classes(fold: Fold) -> dict[str, Sequence[Any]]:
    """Columns of a classification: class, probability, set, p-value, and the members' classes."""
    test = fold.test
    known = Calibration.of_classes(fold.targets.astype(np.int64), fold.calibration.mean(axis=0))
    probability, target = test.mean(axis=0), fold.part.targets.astype(np.int64)
    scores = 1 - probability[np.arange(len(target)), target]
    return {
        "target": (target + 1).tolist(),
        "prediction": (probability.argmax(axis=1) + 1).tolist(),
        "probability": _rounded(probability.max(axis=1), COARSE),
        "set": [" ".join(map(str, row + 1)) for row in sets(probability, known)],
        "p_value": _rounded(known.p_value(scores), COARSE),
    } | {f"member_{k}": (row.argmax(axis=1) + 1).tolist() for k, row in enumerate(test)}


def _rounded(values: Float[NDArray[np.float64], " c"], digits: int) -> list[float]:
    rounded: list[float] = np.round(values, digits).tolist()
    return rounded


def inputs(sample: Sample, part: Part) -> Iterator[Mapping[str, Tensor]]:
    """The batches of a part in its order, without the targets."""
    return (batch for batch, _ in Batches(sample, part))


def forward(
    net: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    vectors: bool = False,
    double: bool = False,
) -> Tensor:
    """Outputs [c, out] of a network for crystals in batches, or the crystals' vectors [c, d].

    In single precision the last bits of a crystal's output depend on what shares its batch, as
    matrix products sum blocks of rows in different orders; with `double` they are far below the
    digits that are published.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).eval()
    if double:
        net.double()
    apply: Callable[[Mapping[str, Tensor]], Tensor] = net.vector if vectors else net  # type: ignore[assignment]

    def placed(value: Tensor) -> Tensor:
        value = value.to(device)
        return value.double() if double and value.is_floating_point() else value

    outputs: list[Float[Tensor, "b out"]] = []
    with torch.inference_mode():
        for batch in batches:
            outputs.append(apply({key: placed(value) for key, value in batch.items()}).cpu())
    return torch.cat(outputs)
