"""The mesh network of the study, in the widths of its 2022 talk and of its 2023 release.

Tsuruta, Katsura, Kumagai, "3-D mesh representation of crystal structures" (2022); released as
DeepCrysTet (arXiv 2310.06852). After MeshNet (Feng et al., AAAI 2019).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.models.layers import PooledLayer, head, perceptron
from crystalmesh.represent.atoms import FEATURES, table

# Of a crystal in `mesh.published`: the origin tells which faces are in the cell, and where atoms
# are co-spherical, the order of sites and the rounding after a rotation tell how they are joined.
NOT_INVARIANT = ("sites", "origin", "rotation")


class Settings(BaseModel):
    """Which face features, and the widths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    geometry: Literal["normal", "edges"]  # talk: unit normal; release: edge lengths
    atoms: tuple[int, ...]
    shared: tuple[int, ...]  # shared MLP on the concatenated face features, up to the pooling
    last_activation: bool  # ReLU after the last shared layer
    head: tuple[int, ...]
    dropout: float


class FaceRotateConvolution(nn.Module):
    """g(mean of f(v1, v2), f(v2, v3), f(v3, v1)): MeshNet's convolution on the corner vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = perceptron(6, 32, 32)
        self.fuse = perceptron(32, 64, 64)

    def forward(self, corner: Float[Tensor, "f 9"]) -> Float[Tensor, "f 64"]:
        rotated = torch.cat([corner, corner[:, :3]], dim=1)
        pairs = torch.stack([rotated[:, i : i + 6] for i in (0, 3, 6)], dim=1)  # [f, 3, 6]
        turned = self.pair(pairs.view(-1, 6)).view(len(corner), 3, -1)
        fused: Tensor = self.fuse(turned.mean(dim=1))
        return fused


class Network(nn.Module):
    """The mesh network: features of each face -> shared MLP -> maximum over faces -> head.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.mesh.collate`: pointer [b + 1] and, a row a face, centre,
        normal, edges [f, 3], corner [f, 9], numbers [f, 3]; output: [b, outputs].
    """

    elements: Tensor

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        config = parse(Settings, settings, "network (mesh)")
        self.geometry_name = config.geometry
        self.last_activation = config.last_activation
        self.register_buffer("elements", torch.from_numpy(table()), persistent=False)
        self.centre = perceptron(3, 16, 32)
        self.geometry = perceptron(3, 16, 32)
        self.corner = FaceRotateConvolution()
        self.atoms = perceptron(FEATURES, *config.atoms)
        face = 32 + 32 + 64 + config.atoms[-1]
        self.shared = perceptron(face, *config.shared[:-1])
        self.pooled = PooledLayer(config.shared[-2], config.shared[-1])
        self.head = head(config.shared[-1], config.head, outputs, config.dropout)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "b c"]:
        """What the head reads of each crystal: the maximum over its faces."""
        pooled: Tensor = self.pooled(self._faces(batch), batch["pointer"])  # [b, c]
        return F.relu(pooled) if self.last_activation else pooled

    def deciding(self, batch: Mapping[str, Tensor]) -> Float[Tensor, " f"]:
        """Each face's share of `vector`: of its numbers, how many are from this face.

        A face of share 0 could be left out, and the prediction would be the same. The shares of a
        crystal's faces add up to 1. Of a trained network, which must be in evaluation mode.
        """
        return self.pooled.deciding(self._faces(batch), batch["pointer"])

    def _faces(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "f k"]:
        """What the last layer before the pooling reads of each face."""
        atoms = F.embedding_bag(batch["numbers"], self.elements, mode="mean")  # [f, 92]
        rows = torch.cat(
            [
                self.centre(batch["centre"]),
                self.geometry(batch[self.geometry_name]),
                self.corner(batch["corner"]),
                self.atoms(atoms),
            ],
            dim=1,
        )  # [f, 256]
        faces: Tensor = self.shared(rows)
        return faces

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "b out"]:
        out: Tensor = self.head(self.vector(batch))
        return out
