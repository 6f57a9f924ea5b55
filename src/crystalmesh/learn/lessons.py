"""What networks learn from others (distillation), and from which crystals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh.config import Classical, Experiment, Project, Taught
from crystalmesh.data.crystals import Crystals
from crystalmesh.learn.batches import Part, Sample, place, scale
from crystalmesh.learn.predict import DIGITS, Checkpoint, forward, inputs
from crystalmesh.models import classical
from crystalmesh.represent import truss
from crystalmesh.represent.complex import exchanged
from crystalmesh.represent.descriptors import Structure, column

STEPS = 3.0  # along Pettifor's scale, standard deviation
STRETCH = 0.02  # of all lengths, standard deviation


@dataclass(frozen=True)
class Lessons:
    """What other networks say of crystals without labels (distillation: Hinton, Vinyals, Dean,
    arXiv:1503.02531, 2015; on unlabelled data: Xie et al., CVPR 2020).

    Attributes:
        sample: whose `pool` these crystals are.
        outputs: f32 [p, outputs], one row a crystal, scaled as the networks' own outputs are.
        taught: how many of them at a time, and what they count.
    """

    sample: Sample
    outputs: Tensor
    taught: Taught

    @classmethod
    def of(
        cls,
        project: Project,
        experiment: Experiment,
        sample: Sample,
        known: Checkpoint | None,
        fold: str,
        described: dict[str, NDArray[np.float64]] | None = None,
    ) -> "Lessons | None":
        """What the networks of a fold, `known`, say on the mean; None if they do not teach.

        With `classical`, the mean of this, weighted by `1 - share`, and of what that model says;
        descriptors of crystals are taken from `described` or put there, by crystal.

        Raises:
            CrystalmeshError: a setting of `classical` is missing, unknown or out of range.
        """
        taught, teachers = experiment.taught, experiment.pretrained
        if known is None or teachers is None or taught is None:
            return None
        if taught.substituted:
            sample = substituted(sample, taught.substituted, experiment.seed)
        assert sample.pool is not None
        source = project.params.experiment(teachers.group, teachers.name)
        said = [
            forward(
                known.network(place(source, fold, member), project.params.outputs(source)),
                inputs(sample, sample.pool),
            )
            for member in range(source.members or 1)
        ]
        outputs = torch.stack(said).mean(dim=0)
        if other := taught.classical:
            crystals = Crystals.load(project.crystals(experiment.dataset))
            facts, _ = known.run(place(source, fold, 0))
            memo = {} if described is None else described
            first, *beside = _classical(other, crystals, sample, memo)
            scaled = [scale(first, facts["mean"], facts["std"], project.params.training(source))]
            for task, values in zip(experiment.beside or (), beside, strict=True):
                mean, std = facts["moments"][task]
                scaled.append((values - mean) / std)
            outputs = torch.lerp(outputs, torch.stack(scaled, dim=1).float(), other.share)
        return cls(sample, outputs, taught)

    def order(self, seed: Sequence[int]) -> NDArray[np.int64]:
        """The crystals' order in an epoch."""
        return np.random.default_rng(list(seed)).permutation(len(self.outputs))

    def loss(self, net: nn.Module, order: NDArray[np.int64], step: int) -> Tensor:
        """Weighted L1 error of a network on the crystals of a step."""
        assert self.sample.pool is not None
        size = self.taught.batch_size
        rows = order[(step * size + np.arange(size)) % len(order)]
        ids = self.sample.pool.ids
        batch = self.sample.maker.collate([self.sample.features[ids[row]] for row in rows])
        device = next(net.parameters()).device
        outputs = net({key: value.to(device) for key, value in batch.items()})
        return self.taught.weight * F.l1_loss(outputs, self.outputs[rows].to(device))


def _classical(
    model: Classical,
    crystals: Crystals,
    sample: Sample,
    memo: dict[str, NDArray[np.float64]],
) -> list[Tensor]:
    """What a classical model says of the pool: f64 [p] for each output, in the task's unit.

    It is fitted on the training crystals, for each output on those that have its label. Rounded
    as predictions are, its values do not depend on the machine.
    """
    assert sample.pool is not None
    maker = truss.Descriptors(model.truss) if model.truss else Structure(model.structure or {})

    def described(part: Part) -> NDArray[np.float64]:
        for i in part.ids:
            if i not in memo:
                memo[i] = maker.build(crystals[crystals.position(i)])["values"]
        return np.concatenate([memo[i] for i in part.ids])

    train, pool = described(sample.train), described(sample.pool)
    said = []
    for targets in sample.train.labels.T:
        has = np.isfinite(targets)
        tensors = classical.fit(model.network, train[has], targets[has], seed=0, classes=None)
        said.append(np.round(classical.apply(model.network, tensors, pool), DIGITS))
    return [torch.from_numpy(values) for values in said]


def substituted(sample: Sample, each: int, seed: int) -> Sample:
    """The sample with training crystals in its pool whose elements are replaced by similar ones.

    Small cells nearly all have labels, so that the others teach little about them. Each element of
    a crystal is replaced by one some steps away on Pettifor's scale (J. Phys. C 19, 285, 1986;
    Magpie's Mendeleev numbers), among those that the training crystals have; lengths grow as the
    mean covalent radius does, and by a little at random.

    Args:
        sample: its features must be of `represent.complex`.
        each: so many new crystals of each training crystal.
        seed: of the substitutions.
    """
    assert sample.pool is not None
    found = np.unique(np.concatenate([sample.features[i]["numbers"] for i in sample.train.ids]))
    scale = found[np.argsort(column("MendeleevNumber")[found], kind="stable")]
    place_of = np.zeros(int(found.max()) + 1, dtype=np.int64)
    place_of[scale] = np.arange(len(scale))
    radius = column("CovalentRadius")
    new: dict[str, Mapping[str, NDArray[Any]]] = {}
    for row, name in enumerate(sample.train.ids):
        item = sample.features[name]
        rng = np.random.default_rng([seed, row])
        for k in range(each):
            steps = np.rint(rng.normal(scale=STEPS, size=len(scale))).astype(np.int64)
            elements = scale[np.clip(place_of + steps[place_of], 0, len(scale) - 1)]
            before, after = (
                np.average(radius[numbers], weights=item["atoms_many"])
                for numbers in (item["numbers"], elements[item["numbers"]])
            )
            stretch = after / before * (1 + rng.normal(scale=STRETCH))
            new[f"{name} substituted {k}"] = exchanged(item, elements, stretch)
    ids, none = [*sample.pool.ids, *new], np.full(len(new), np.nan)
    pool = Part(ids, [*sample.pool.formulas, *new], np.append(sample.pool.targets, none))
    features = {one: sample.features[one] for one in (*sample.train.ids, *sample.pool.ids)}
    return replace(sample, pool=pool, features=features | new)
