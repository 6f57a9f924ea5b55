"""The mesh network of the study, in the widths of its 2022 talk and of its 2023 release.

Tsuruta, Katsura, Kumagai, "3-D mesh representation of crystal structures" (2022); released as
DeepCrysTet (arXiv 2310.06852). After MeshNet (Feng et al., AAAI 2019).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from crystalmesh.config import parse
from crystalmesh.models import update_running
from crystalmesh.represent.atoms import FEATURES, table


class Settings(BaseModel):
    """Which face features, and the widths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    geometry: Literal["normal", "edges"]  # talk: unit normal; release: edge lengths
    atoms: tuple[int, ...]
    shared: tuple[int, ...]  # shared MLP on the concatenated face features, up to the pooling
    last_activation: bool  # ReLU after the last shared layer
    head: tuple[int, ...]
    dropout: float


class Layer(nn.Module):
    """Linear, batch normalisation, ReLU, on rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, rows: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        return F.relu(self.norm(self.linear(rows)), inplace=True)


def perceptron(*widths: int) -> nn.Sequential:
    """A shared MLP: one `Layer` from each width to the next."""
    return nn.Sequential(*(Layer(a, b) for a, b in pairwise(widths)))


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


class LinearNormMax(torch.autograd.Function):
    """max over the faces of each crystal of BatchNorm(h W^T): three quarters of the network's work.

    The plain form stores faces x channels floats and multiplies three matrices of that size. This
    one is the same function and gradient with half of the arithmetic and none of the storage:

    - one crystal's h W^T at a time is formed, reduced to its maximum, and forgotten;
    - variance = diag(W G W^T) / rows with the Gram matrix G = h^T h of the centred h, which also
      serves the gradient of W;
    - the gradient reaches one face a crystal and channel through the maximum (sparse), and all
      faces through the statistics, where it is -h M with the small M = W^T diag(c) W.

    A normalisation with gamma < 0 turns the maximum into a minimum: signs move into W.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "f k"],
        weight: Float[Tensor, "c k"],
        gamma: Float[Tensor, " c"],
        beta: Float[Tensor, " c"],
        pointer: Int[Tensor, " b+1"],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        sign = torch.where(gamma < 0, -1.0, 1.0)
        signed = (weight * sign[:, None]).t().contiguous()  # [k, c]
        mean = rows.mean(dim=0)
        centred = rows - mean
        bounds = pointer.tolist()
        top = rows.new_empty(len(bounds) - 1, len(weight))
        face = torch.empty_like(top, dtype=torch.long)
        gram = rows.new_zeros(rows.shape[1], rows.shape[1])
        for crystal, (start, stop) in enumerate(pairwise(bounds)):
            part = centred[start:stop]
            torch.max(part @ signed, dim=0, out=(top[crystal], face[crystal]))
            gram.addmm_(part.t(), part)
            face[crystal] += start
        top *= sign
        variance = ((weight @ gram) * weight).sum(dim=1) / len(rows)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, weight, gamma, inverse, gram, top, face)
        channel_mean = weight @ mean
        ctx.mark_non_differentiable(channel_mean, variance)
        ctx.bounds = bounds
        return torch.addcmul(beta, top, gamma * inverse), channel_mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight, gamma, inverse, gram, top, face = ctx.saved_tensors
        count = len(centred)
        dbeta = grad.sum(dim=0)
        dgamma = (grad * top).sum(dim=0) * inverse
        through = grad * (gamma * inverse)  # [b, c], to the one face that was the maximum
        statistics = gamma * inverse * inverse * dgamma / count  # [c]
        drows = centred @ (weight.t() @ (weight * -statistics[:, None]))
        drows -= (gamma * inverse * dbeta / count) @ weight
        dweight = -statistics[:, None] * (weight @ gram)
        for crystal in range(len(grad)):
            chosen, coefficient = face[crystal], through[crystal][:, None]
            drows.index_add_(0, chosen, weight * coefficient)
            dweight.addcmul_(centred.index_select(0, chosen), coefficient)
        return drows, dweight, dgamma, dbeta, None, None


class PooledLayer(nn.Module):
    """Linear, batch normalisation over faces, maximum over the faces of each crystal."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(
        self, rows: Float[Tensor, "f k"], pointer: Int[Tensor, " b+1"]
    ) -> Float[Tensor, "b c"]:
        linear, norm = self.linear, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if self.training:
            pooled, mean, variance = LinearNormMax.apply(  # type: ignore[no-untyped-call]
                rows, linear.weight, norm.weight, norm.bias, pointer, norm.eps
            )
            # The bias of the linear layer shifts the mean and cancels everywhere else.
            update_running(norm, mean + linear.bias.detach(), variance, len(rows))
            # Keeps the bias in the graph: its gradient is zero, not absent.
            out: Tensor = pooled + 0.0 * linear.bias
            return out
        sign = torch.where(norm.weight < 0, -1.0, 1.0)
        signed = (linear.weight * sign[:, None]).t()
        bounds = pointer.tolist()
        tops = [(rows[a:b] @ signed).amax(dim=0) for a, b in pairwise(bounds)]
        top = torch.stack(tops) * sign + linear.bias
        return torch.addcmul(
            norm.bias,
            top - norm.running_mean,
            norm.weight * torch.rsqrt(norm.running_var + norm.eps),
        )


class Network(nn.Module):
    """The mesh network: features of each face -> shared MLP -> maximum over faces -> head.

    Args:
        settings: `models.<name>.network` of params.yaml; see `Settings`.
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
        layers: list[nn.Module] = []
        for a, b in zip((config.shared[-1], *config.head[:-1]), config.head, strict=True):
            layers += [Layer(a, b), nn.Dropout(config.dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(config.head[-1], outputs))

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "b out"]:
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
        pooled = self.pooled(self.shared(rows), batch["pointer"])  # [b, c]
        if self.last_activation:
            pooled = F.relu(pooled)
        out: Tensor = self.head(pooled)
        return out
