"""Distillation: what networks learn from others, and on which crystals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Classical, Distillation, Run
from crystalmesh.data.crystals import Crystals
from crystalmesh.learn.batches import Part, Sample, place, scale
from crystalmesh.learn.predict import DIGITS, Checkpoint, forward, inputs
from crystalmesh.models import classical
from crystalmesh.represent import Representation, representation


@dataclass(frozen=True)
class SoftLabels:
    """What other networks say of crystals without labels (distillation: Hinton, Vinyals, Dean,
    arXiv:1503.02531, 2015; on unlabelled data: Xie et al., CVPR 2020).

    Attributes:
        sample: whose `pool` these crystals are.
        outputs: f32 [p, outputs], one row a crystal, scaled as the networks' own outputs are.
        settings: how many of them at a time, and what they count.
    """

    sample: Sample
    outputs: Tensor
    settings: Distillation

    @classmethod
    def of(
        cls,
        project: Project,
        run: Run,
        sample: Sample,
        teachers: Checkpoint | None,
        fold: str,
        described: dict[str, NDArray[np.float64]],
    ) -> "SoftLabels | None":
        """What the networks of a fold, `teachers`, say on the mean; None if there are none.

        With `classical`, the mean of this, weighted by `1 - share`, and of what that model says;
        descriptors of crystals are taken from `described` or put there, by crystal.

        Raises:
            CrystalmeshError: a setting of `classical` is missing, unknown or out of range.
        """
        if teachers is None or run.distillation is None:
            return None
        assert sample.pool is not None
        source = project.params.run(run.distillation.run)
        said = [
            forward(
                teachers.network(project, place(source, fold, member)),
                inputs(sample, sample.pool),
            )
            for member in range(source.members or 1)
        ]
        outputs = torch.stack(said).mean(dim=0)
        if other := run.distillation.classical:
            crystals = Crystals.load(project.crystals(run.dataset))
            maker = representation(
                other.representation, project.params.representation(other.representation)
            )
            moments = teachers.of(place(source, fold, 0))[0]["moments"]
            training = project.params.training(source)
            values = _classical(other, maker, crystals, sample, described)
            scaled = [
                scale(one, mean, std, training)
                for one, (mean, std) in zip(values, map(moments.get, run.targets), strict=True)
            ]
            outputs = torch.lerp(outputs, torch.stack(scaled, dim=1).float(), other.share)
        return cls(sample, outputs, run.distillation)

    def order(self, seed: Sequence[int]) -> NDArray[np.int64]:
        """The crystals' order in an epoch."""
        return np.random.default_rng(list(seed)).permutation(len(self.outputs))

    def loss(self, net: nn.Module, order: NDArray[np.int64], step: int) -> Tensor:
        """Weighted L1 error of a network on the crystals of a step."""
        assert self.sample.pool is not None
        size = self.settings.batch_size
        rows = order[(step * size + np.arange(size)) % len(order)]
        ids = self.sample.pool.ids
        batch = self.sample.maker.collate([self.sample.features[ids[row]] for row in rows])
        device = next(net.parameters()).device
        outputs = net({key: value.to(device) for key, value in batch.items()})
        return self.settings.weight * F.l1_loss(outputs, self.outputs[rows].to(device))


def _classical(
    model: Classical,
    maker: Representation,
    crystals: Crystals,
    sample: Sample,
    memo: dict[str, NDArray[np.float64]],
) -> list[Tensor]:
    """What a classical model says of the pool: f64 [p] for each output, in the target's unit.

    It is fitted on the training crystals, for each output on those that have its label. Rounded
    as predictions are, its values do not depend on the machine.
    """
    assert sample.pool is not None

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
