"""A class from the operations that map a crystal's complex onto itself (ours).

Each operation, in the bits of `represent.automorphisms`, goes through the same two layers; their
mean over the group, and how many there are, through two more (deep sets: Zaheer et al., NeurIPS
2017). Nothing depends on the order of the operations, nor on cell, origin or orientation.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.represent.automorphisms import BITS

MOST = 48.0  # operations of a primitive cell


class Settings(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(gt=0)  # of the vector of an operation, and of the crystal


class Network(nn.Module):
    """The network on automorphisms.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.automorphisms`; output: [c, outputs].
    """

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        d = parse(Settings, settings, "network (automorphisms)").width
        self.one = nn.Sequential(nn.Linear(BITS, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.all, self.out = nn.Linear(d + 1, d), nn.Linear(d, outputs)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c d"]:
        """What the last layer sees."""
        many, counts = batch["many"], batch["pointer"].diff()
        crystal = torch.repeat_interleave(counts)
        operations = self.one(batch["operations"]) * many[:, None]
        total = many.new_zeros(len(counts), 1).index_add_(0, crystal, many[:, None])
        mean = operations.new_zeros(len(counts), operations.shape[1])
        mean = mean.index_add_(0, crystal, operations) / total
        return F.silu(self.all(torch.cat([mean, total / MOST], dim=1)))

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c out"]:
        out: Tensor = self.out(self.vector(batch))
        return out
