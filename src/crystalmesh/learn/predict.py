"""From a checkpoint to one row a test crystal, each with an interval or a set of classes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
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
    rows: list[Sequence[Any]] = []
    for fold, sample in samples(project, experiment):
        try:
            members = _members(checkpoint, project, experiment, fold, sample)
        except (KeyError, RuntimeError) as error:
            raise CrystalmeshError(
                f"{project.checkpoint(group, name)}: not of this network; delete it and train again"
            ) from error
        fill = _classes if classes else _values
        found = fill(members, sample)
        found["fold"] = [fold] * len(sample.test.ids)
        found |= {"id": sample.test.ids, "formula": sample.test.formulas}
        rows += zip(*(found[column] for column in columns), strict=True)
    write_csv(project.predictions(group, name), columns, rows)


Outputs = tuple[NDArray[np.float64], NDArray[np.float64]]  # of the calibration and the test part


def _members(
    checkpoint: Checkpoint, project: Project, experiment: Experiment, fold: str, sample: Sample
) -> list[Outputs]:
    """What each network of a fold says: values [c] in the task's unit, or probabilities [c, k]."""
    task = project.params.tasks[experiment.task]
    parts = (sample.calibration, sample.test)
    found = []
    for member in range(experiment.members or 1):
        prefix = place(experiment, fold, member)
        facts, tensors = checkpoint.run(prefix)
        if project.params.models[experiment.model].training is None:
            settings = checkpoint.note["model"]["network"]
            calibration, test = (
                classical.apply(settings, tensors, sample.descriptors(part)) for part in parts
            )
        else:
            net = checkpoint.network(prefix, task.outputs)
            double = experiment.precision == "double"
            calibration, test = (
                finished(
                    forward(net, inputs(sample, part), double=double), facts, project, experiment
                )
                for part in parts
            )
        found.append((calibration, test))
    return found


def finished(
    outputs: Tensor, facts: Mapping[str, Any], project: Project, experiment: Experiment
) -> NDArray[np.float64]:
    """Outputs [c, out] of a network in the task's unit, f64 [c], or as probabilities [c, k]."""
    if project.params.tasks[experiment.task].kind == "classification":
        probability: NDArray[np.float64] = torch.softmax(outputs.double(), dim=1).numpy()
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


def _values(members: Sequence[Outputs], sample: Sample) -> dict[str, Sequence[Any]]:
    """Columns of a regression: prediction, interval, p-value, and the members."""
    calibration, test = (np.stack(side) for side in zip(*members, strict=True))  # [m, c]
    known = calibrated(calibration, sample.calibration.targets)
    target = sample.test.targets
    scale = known.scale(_spread(test), len(target))
    residual = np.abs(target - test.mean(axis=0))
    return {
        "target": target.tolist(),
        "p_value": _rounded(known.p_value(residual / scale), COARSE),
        **intervals(test, known),
    } | {f"member_{k}": _rounded(row, DIGITS) for k, row in enumerate(test)}


def _classes(members: Sequence[Outputs], sample: Sample) -> dict[str, Sequence[Any]]:
    """Columns of a classification: class, probability, set, p-value, and the members' classes."""
    calibration, test = (np.stack(side) for side in zip(*members, strict=True))  # [m, c, k]
    known = Calibration.of_classes(_index(sample.calibration), calibration.mean(axis=0))
    probability, target = test.mean(axis=0), _index(sample.test)
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


def _index(part: Part) -> Int[NDArray[np.int64], " c"]:
    return part.targets.astype(np.int64)


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
