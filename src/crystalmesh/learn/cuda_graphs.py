"""CUDA graphs: a network's steps on a GPU, recorded once and played again.

A small network waits for the processor that starts its kernels one by one. A recorded step starts
all at once, but needs arrays of one size: batches get rows that belong to no crystal.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crystalmesh.learn.batches import Sample
from crystalmesh.models.distributed import several
from crystalmesh.represent import padding

SPREAD = 3.0  # standard deviations that a batch may be larger than the mean one
STEP = 64  # sizes are multiples of this


class _Recorded(nn.Module):
    """Around the network, which keeps its own forward for batches of other sizes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = self.net(batch)
        return outputs


class Recorder:
    """Plays a network's forward and backward pass on padded batches.

    Args:
        net: the network, on a GPU, in training.
        sample: what it learns from.
        batch_size: crystals a batch.
    """

    def __init__(self, net: nn.Module, sample: Sample, batch_size: int) -> None:
        self.net, self.sizes = net, sizes(sample, batch_size)
        pad = padding(sample.maker)
        assert pad
        self.pad = pad
        self._recorded: Callable[..., Any] | None = None

    @classmethod
    def of(
        cls, net: nn.Module, sample: Sample, batch_size: int, device: torch.device
    ) -> "Recorder | None":
        """One on a single GPU, if the representation can pad its batches; else None."""
        alone = device.type == "cuda" and not several()
        return cls(net, sample, batch_size) if alone and padding(sample.maker) else None

    def padded(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch at the size that is recorded; as it is where it is larger."""
        larger = any(
            len(value) >= self.sizes[self.pad.rows(key)]
            for key, value in batch.items()
            if not key.endswith("_pointer")
        )
        return batch if larger else self.pad.padded(batch, self.sizes)

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Outputs of a batch of `padded`, those of rows that belong to no crystal behind them."""
        if len(batch["atoms_pointer"]) != self.sizes["crystals"] + 1:
            outputs: Tensor = self.net(batch)
            return outputs
        if self._recorded is None:
            state = torch.cuda.get_rng_state()
            like = {key: value.clone() for key, value in batch.items()}
            record: Callable[..., Any] = torch.cuda.make_graphed_callables
            self._recorded = record(_Recorded(self.net), (like,))
            torch.cuda.set_rng_state(state)  # recording has drawn dropout
        played: Tensor = self._recorded(batch)
        return played


def sizes(sample: Sample, batch_size: int) -> Mapping[str, int]:
    """Rows that nearly all batches of the training crystals stay below, by what a row is."""
    items = [sample.features[one] for one in sample.train.ids]
    pad = padding(sample.maker)
    assert pad
    kinds = {pad.rows(key): key for key in items[0]}
    found = {"crystals": batch_size + 2}  # a remainder of one joins another batch
    for kind, key in kinds.items():
        if kind != "crystals":
            counts = np.array([len(item[key]) for item in items])
            bound = batch_size * counts.mean() + SPREAD * np.sqrt(batch_size) * counts.std()
            found[kind] = STEP * (int(bound) // STEP + 1)
    return found
