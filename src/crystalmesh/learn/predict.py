"""From a checkpoint to one row a test crystal, each with an interval or a set of classes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh import numerics
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run, Target
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_note, read_tensors, write_csv, writing_folder
from crystalmesh.learn.batches import Batches, Part, Sample, place, samples, unscale
from crystalmesh.learn.conformal import LEVEL, Calibration, sets
from crystalmesh.models import classical, network
from crystalmesh.models.heads import Head

DIGITS = 6  # after the point, of predictions as published
COARSE = 4  # of what tells how sure they are
FORMAT = 2  # of checkpoints; each says its own


@dataclass(frozen=True)
class Checkpoint:
    """The published weights of a run, and what they were trained with.

    Attributes:
        run_: the run.
        note: settings and facts, as `learn.train.train` writes them.
        tensors: name -> array; of several networks, the names start with `place`.
    """

    run_: Run
    note: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, project: Project, run: Run) -> "Checkpoint":
        """Read the checkpoint of a run.

        Raises:
            CrystalmeshError: it is missing, damaged, of another format, or was trained with other
                settings.
        """
        path = project.checkpoint(run)
        note = json.loads(read_note(path))
        if note.get("format") != FORMAT:
            raise CrystalmeshError(
                f"{path}: checkpoint of format {note.get('format', 1)}, and this version reads"
                f" {FORMAT}; train again, or take it over: crystalmesh convert"
            )
        for key, value in project.params.settings(run).items():
            if note.get(key) != value:
                raise CrystalmeshError(
                    f"{path}: trained with another `{key}` than the settings have now; train again"
                )
        return cls(run, note, read_tensors(path))

    def of(self, prefix: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Facts and tensors of one of its networks."""
        facts = self.note["runs"][prefix.rstrip(".")] if prefix else dict(self.note)
        tensors = {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }
        return facts, tensors

    def network(self, project: Project, prefix: str) -> nn.Module:
        """One of its networks, with half precision made single again.

        Raises:
            CrystalmeshError: the tensors are not of this network.
        """
        model = self.note["model"]
        net = network(model["architecture"], model["network"], project.params.outputs(self.run_))
        _, tensors = self.of(prefix)
        try:
            net.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        except RuntimeError as error:
            raise CrystalmeshError(
                f"{project.checkpoint(self.run_)}: not of this network; train again, or restore it"
            ) from error
        return net


def predict(project: Project, run: Run) -> None:
    """The stage `predict`: the run's test crystals through its checkpoint.

    Writes a folder with a CSV for each target: id, formula (of several folds: `fold`), target and
    prediction (regression: after the target's transform; classes: from 1). An ensemble predicts the
    mean of its members (of classes: of their probabilities), which stand in columns of their own.
    Numbers are rounded to DIGITS, those of the uncertainty to COARSE.

    Of a target of each atom, or of several numbers, a row is one of them: `atom` is its place in
    the system and `component` that in its label, both from 0, in the place of `formula`. Those of
    one system are not independent of each other: intervals hold 90 % of all of them.

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
    numerics.enforce(project.params.numerics(run))
    checkpoint = Checkpoint.load(project, run)
    folds: dict[str, list[Fold]] = {target: [] for target in run.targets}
    for name, sample in samples(project, run):
        outputs = Outputs(project, checkpoint, name, sample)
        for target, found in folds.items():
            found.append(outputs.fold(target))
    with writing_folder(project.predictions(run, run.target).parent) as folder:
        for target, found in folds.items():
            if run.refit:
                found = [_calibrated_by_others(found, k) for k in range(len(found))]
            declared = project.params.targets[target]
            columns = _columns(run, declared)
            rows: list[Sequence[Any]] = []
            for one in found:
                table = _classes(one) if declared.kind == "classification" else _values(one)
                table |= _names(one)
                rows += zip(*(table[column] for column in columns), strict=True)
            write_csv(folder / f"{target}.csv", columns, rows)


def _columns(run: Run, target: Target) -> list[str]:
    classes = target.kind == "classification"
    columns = ["id", "fold" if run.fold == "all" else "formula"]
    if target.wide:
        columns = [one for one in columns if one != "formula"]
        columns += ["atom"] if target.level else []
        columns += ["component"] if (target.size or 1) > 1 else []
    columns += ["target", "prediction"]
    columns += ["probability", "set"] if classes else ["lower", "upper"]
    columns += ["p_value"]
    if run.members:
        columns += [] if classes else ["spread"]
        columns += [f"member_{k}" for k in range(run.members)]
    return columns


def _names(fold: "Fold") -> dict[str, Sequence[Any]]:
    """What each row is of: a crystal, or one number of a wide target."""
    part = fold.part
    if 0 not in part.wide:
        return {"id": part.ids, "formula": part.formulas, "fold": [fold.name] * len(part.ids)}
    each = [
        (name, atom, component)
        for name, labels in zip(part.ids, part.wide[0], strict=True)
        for atom, component in np.ndindex(labels.shape)
    ]
    names = dict(zip(("id", "atom", "component"), zip(*each, strict=True), strict=True))
    return names | {"fold": [fold.name] * len(each)}


@dataclass(frozen=True)
class Fold:
    """What the m networks of a fold say of one target.

    Of regressions values [m, c] in the target's unit (of a wide one all numbers in a row), of
    classes probabilities [m, c, k].

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


class Outputs:
    """What each network of a fold says of crystals; targets share what is computed once."""

    def __init__(self, project: Project, checkpoint: Checkpoint, fold: str, sample: Sample) -> None:
        self.project, self.checkpoint, self.sample = project, checkpoint, sample
        self.run, self.name = checkpoint.run_, fold
        self.prefixes = [place(self.run, fold, k) for k in range(self.run.members or 1)]
        self._known: dict[tuple[str, tuple[str, ...]], Any] = {}

    def fold(self, target: str) -> Fold:
        """Each network on its calibration crystals, if it has any, and its test crystals."""
        test, calibration = self.sample.test[target], self.sample.calibration[target]
        said = self.of(test, target)
        heard = said if self.run.refit else self.of(calibration, target)
        return Fold(self.name, test, said, heard, calibration.targets)

    def of(self, part: Part, target: str) -> NDArray[np.float64]:
        """Of each network values [m, c] or probabilities [m, c, k]."""
        return np.stack([self._one(prefix, part, target) for prefix in self.prefixes])

    def _one(self, prefix: str, part: Part, target: str) -> NDArray[np.float64]:
        key = prefix, tuple(part.ids)
        double = self.run.precision == "double"
        facts, tensors = self.checkpoint.of(prefix)
        if self.project.params.models[self.run.model].training is None:
            if key not in self._known:
                settings = self.checkpoint.note["model"]["network"]
                self._known[key] = classical.apply(settings, tensors, self.sample.descriptors(part))
            values: NDArray[np.float64] = self._known[key]
            return values
        if key not in self._known:
            net = self.checkpoint.network(self.project, prefix)
            head = Head({name: self.project.params.targets[name] for name in self.run.targets})
            batches = inputs(self.sample, part)
            if head.plain:
                self._known[key] = forward(net, batches, double=double)
            else:
                self._known[key] = of_head(net, head, batches, double=double)
        return finished(self._known[key], part.sizes, facts, self.project, self.run, target)


def finished(
    outputs: Float[Tensor, "c o"] | Sequence[Tensor],
    sizes: Int[NDArray[np.int64], " c"],
    facts: Mapping[str, Any],
    project: Project,
    run: Run,
    target: str,
) -> NDArray[np.float64]:
    """Outputs of a network or of its head for one target, in its unit.

    Args:
        outputs: of the network, or of the head.
        sizes: atoms of each crystal.
        facts: of the network; an extensive target has `references`, so much for each atom.
        project, run: whose network it is.
        target: one of the run's.

    Returns:
        f64 [c]; of classes probabilities [c, k]; of a wide target all numbers in a row.
    """
    head = Head({name: project.params.targets[name] for name in run.targets})
    each = head.columns(outputs) if isinstance(outputs, Tensor) else outputs
    said = each[run.targets.index(target)]
    if head.targets[target].kind == "classification":
        probability: NDArray[np.float64] = torch.softmax(said.double(), dim=1).numpy()
        return probability
    mean, std = facts["moments"][target]
    values = unscale(said.reshape(-1), mean, std, project.params.training(run))
    reference = facts.get("references", {}).get(target)
    return values + sizes * reference if reference else values


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
    return (batch for batch, *_ in Batches(sample, part))


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
    apply: Callable[[Mapping[str, Tensor]], Tensor] = net.vector if vectors else net  # type: ignore[assignment]
    placed = _placed(net, batches, double)
    with torch.inference_mode():
        return torch.cat([apply(batch).cpu() for batch in placed])


def of_head(
    net: nn.Module, head: Head, batches: Iterable[Mapping[str, Tensor]], *, double: bool = False
) -> tuple[Tensor, ...]:
    """Each target of a head on a network for crystals in batches: see `Head`, and `forward`."""
    with torch.inference_mode():
        said = [[one.cpu() for one in head(net, batch)] for batch in _placed(net, batches, double)]
    return tuple(torch.cat(each) for each in zip(*said, strict=True))


def _placed(
    net: nn.Module, batches: Iterable[Mapping[str, Tensor]], double: bool
) -> Iterator[dict[str, Tensor]]:
    """The batches where the network is, in its precision; it is made ready to predict."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).eval()
    if double:
        net.double()

    def placed(value: Tensor) -> Tensor:
        value = value.to(device)
        return value.double() if double and value.is_floating_point() else value

    return ({key: placed(value) for key, value in batch.items()} for batch in batches)
