"""PointNet on the atoms of a crystal.

Qi, Su, Mo, Guibas, "PointNet: deep learning on point sets for 3D classification and segmentation"
(CVPR 2017). On crystals it was used by Okuno et al. (2020); details of that network are not public,
so this is our reading: the classification network, with features of the element beside the
position, and without the second T-Net, which transforms features.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.models.layers import PooledLayer, head, perceptron
from crystalmesh.represent.atoms import FEATURES, table

# Of a crystal in `points.conventional`: the origin tells which atoms are in the cell.
NOT_INVARIANT = ("origin",)


class Settings(BaseModel):
    """The widths, and whether positions are transformed first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_transform: bool  # T-Net
    atoms: tuple[int, ...]  # MLP on an atom's element features
    # MLP on position and element features, up to the pooling
    shared: tuple[int, ...] = Field(min_length=1)
    head: tuple[int, ...]
    dropout: float


class InputTransform(nn.Module):
    """T-Net: a 3x3 matrix for each crystal, from its positions, that multiplies them.

    A small PointNet of its own, a quarter as wide as the published one. It begins as the identity.
    """

    identity: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shared = perceptron(3, 16, 32)
        self.pooled = PooledLayer(32, 256)
        self.head = head(256, (128, 64), 9, 0.0)
        for parameter in self.head[-1].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("identity", torch.eye(3), persistent=False)

    def forward(
        self, position: Float[Tensor, "p 3"], pointer: Int[Tensor, " c+1"]
    ) -> Float[Tensor, "p 3"]:
        pooled = F.relu(self.pooled(self.shared(position), pointer))  # [c, 256]
        matrix = self.identity + self.head(pooled).view(-1, 3, 3)
        crystal = torch.repeat_interleave(pointer.diff())  # [p]
        turned: Tensor = (position[:, :, None] * matrix.index_select(0, crystal)).sum(dim=1)
        return turned


class Network(nn.Module):
    """PointNet: [position, MLP(element)] of each atom -> shared MLP -> maximum over atoms -> head.

    Batch normalisation and ReLU after every layer but the last, as published. It is a function of
    the set of points: their order does not matter, and neither does their origin, as they come
    centred. Their orientation does; with the T-Net, too, which can learn to undo rotations and is
    not made to. Positions are in Angstrom and not scaled to the unit sphere as the shapes of the
    paper are: a crystal's size is a part of what it is.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.points.Points`: pointer [c + 1], numbers [p], position [p, 3]
        (Angstrom, centred); output: [c, outputs].
    """

    elements: Tensor

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        config = parse(Settings, settings, "network (pointnet)")
        self.register_buffer("elements", torch.from_numpy(table()), persistent=False)
        self.transform = InputTransform() if config.input_transform else None
        self.atoms = perceptron(FEATURES, *config.atoms)
        *widths, last = (3 + (FEATURES, *config.atoms)[-1], *config.shared)
        self.shared = perceptron(*widths)
        self.pooled = PooledLayer(widths[-1], last)
        self.head = head(last, config.head, outputs, config.dropout)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c v"]:
        """What the head reads of each crystal: the maximum over its atoms."""
        position, pointer = batch["position"], batch["pointer"]
        if self.transform is not None:
            position = self.transform(position, pointer)
        atoms = self.atoms(F.embedding(batch["numbers"], self.elements))
        rows = torch.cat([position, atoms], dim=1)  # [p, 3 + a]
        return F.relu(self.pooled(self.shared(rows), pointer))

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c out"]:
        out: Tensor = self.head(self.vector(batch))
        return out
