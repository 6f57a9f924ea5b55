"""Networks for anybody's crystals: predictions with intervals, and a word where trust ends.

A study that has `serves` names the runs whose networks are offered. What a prediction needs beside
the weights stands in the calibration/ folder of its results: see `inference.calibrate`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Run, Target
from crystalmesh.data import structures
from crystalmesh.data.crystals import Crystal
from crystalmesh.data.structures import Item
from crystalmesh.data.validation import Rules
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn.batches import EVALUATION_BATCH, place
from crystalmesh.learn.conformal import Calibration, sets
from crystalmesh.learn.predict import COARSE, Checkpoint, finished, forward, intervals
from crystalmesh.represent import Representation, representation

DIRECTIONS = 16  # of most variance, in which distances are measured
NEIGHBOURS = 5
FAR = 0.99  # share of the validation crystals that must be nearer to the training data for a word
FEW = 5  # training crystals with an element; with fewer it is as good as unknown


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
        target: a key of `targets` in config/.
        value: in `unit`; of `space_group` its number.
        lower, upper: the 90 % interval; None for classes.
        warning: empty, or why to trust it less than the interval says.
        model: the run whose network it is.
        spread: standard deviation over the networks; None where there is one.
        probability, classes: of classes: the share of the predicted one, and the 90 % set.
        familiarity: share of the validation crystals that are farther from the training crystals
            than this one, in the network's space.
    """

    file: str
    id: str
    formula: str
    target: str
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
        project: the folder of the settings and of the checkpoints.
        run: whose network it is.
        target: what is predicted; by default the run's first target that is offered, which is a
            class or one number of a crystal.
        known: its calibration; by default read from its file.

    Raises:
        CrystalmeshError: its checkpoint is missing, damaged, or of other settings.
    """

    def __init__(
        self,
        project: Project,
        run: Run,
        target: str | None = None,
        known: Known | Literal["file"] | None = "file",
    ) -> None:
        self.project, self.run = project, run
        targets = project.params.targets
        self.target = target or next(one for one in run.targets if not targets[one].wide)
        self.quantity: Target = project.params.targets[self.target]
        self.checkpoint = Checkpoint.load(project, run)
        self._prefixes = [place(run, str(run.fold), k) for k in range(run.members or 1)]
        self.networks = [self.checkpoint.network(project, one).eval() for one in self._prefixes]
        settings = project.params.representation(run.representation)
        self.maker: Representation = representation(run.representation, settings)
        self.rules = Rules.of(project.params)
        path = project.calibration(run, self.target)
        self.known: Known | None = Known.load(path) if known == "file" else known
        self.error: dict[str, Any] = {}
        if project.metrics(run).exists():
            self.error = files.read_json(project.metrics(run))["targets"][self.target]

    @property
    def name(self) -> str:
        """Of its run."""
        return self.run.name

    def __repr__(self) -> str:
        said = f"{self.quantity.title}, {self.quantity.unit}"
        if self.error:
            said += f"; {self.error['metric']} {self.error['value']:.3g} on {self.error['n_test']}"
        return f"Predictor({self.name}: {said})"

    def members(
        self, batches: Iterable[Mapping[str, Tensor]], sizes: Int[NDArray[np.int64], " c"]
    ) -> NDArray[np.float64]:
        """Values of each network [m, c] in the target's unit, or probabilities [m, c, k].

        Args:
            batches: crystals as the network reads them.
            sizes: atoms of each.
        """
        batches = list(batches)
        return np.stack(
            [
                finished(
                    forward(net, batches, double=True),
                    sizes,
                    self.checkpoint.of(prefix)[0],
                    self.project,
                    self.run,
                    self.target,
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
        sizes = np.array([len(cast(Crystal, item.crystal).numbers) for item, _ in found])
        members = self.members([batch], sizes)
        distance = self.known.space.distance(self.vectors([batch]))
        nearer = np.searchsorted(self.known.distances, distance, side="left")
        familiarity = np.round(1 - nearer / len(self.known.distances), COARSE)
        columns: dict[str, Sequence[Any]]
        if self.quantity.kind == "classification":
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
                target=self.target,
                unit=self.quantity.unit,
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


def best(project: Project, target: str, model: str = "best") -> Run:
    """The run that serves a target: the named one, or that of the least test error.

    Raises:
        CrystalmeshError: there is none of that name or target.
    """
    served = project.served()
    of_target = {run.name: run for run, one in served if one == target}
    if model != "best":
        run = lookup({run.name: run for run, _ in served}, model, "network")
        if run.name not in of_target:
            known = ", ".join(one for own, one in served if own.name == run.name)
            raise CrystalmeshError(f"--model {model}: predicts {known}, not {target}")
        return run
    if not of_target:
        known = ", ".join(targets(project))
        raise CrystalmeshError(f"target '{target}': no network predicts it; known: {known}")
    sign = -1.0 if project.params.targets[target].kind == "classification" else 1.0
    ranked = [
        (sign * files.read_json(project.metrics(run))["targets"][target]["value"], name)
        for name, run in of_target.items()
    ]
    return of_target[min(ranked)[1]]


def targets(project: Project) -> list[str]:
    """The targets that some network serves, in the order of the study."""
    return list(dict.fromkeys(target for _, target in project.served()))


def load(project: Project, target: str, model: str = "best") -> Predictor:
    """The network for a target; see `best`."""
    return Predictor(project, best(project, target, model), target)
