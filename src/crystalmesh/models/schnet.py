"""SchNet: continuous-filter convolutions (Schuett et al., NeurIPS 2017, arXiv 1706.08566)."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.models.layers import cut
from crystalmesh.represent.atoms import ELEMENTS, FEATURES, table


class Settings(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding: Literal["learned", "features"] = "learned"  # of the element; else CGCNN's features
    atom: int = Field(gt=1)  # length of an atom's vector
    filters: int = Field(gt=0)
    interactions: int = Field(gt=0)
    gaussians: int = Field(gt=1)
    gaussian_max: float = Field(gt=0)  # Angstrom; the last centre, the first is at 0
    gamma: float | None = None  # 1/Angstrom^2; None: 0.5/spacing^2
    cutoff: float = Field(gt=0)  # Angstrom, where the filters vanish; that of the graph
    readout: Literal["mean", "sum"]  # for intensive or extensive targets


class Messages(torch.autograd.Function):
    """m_i = sum over edges (j -> i) of count * x_j * W_group, * element by element.

    Written out because the plain form keeps three arrays of edges x filters floats for the backward
    pass, this one none. Where a graph of the gradient is wanted, the backward pass overwrites
    nothing: it can be differentiated as often as one likes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n f"],
        filters: Float[Tensor, "g f"],
        source: Int[Tensor, " e"],
        target: Int[Tensor, " e"],
        group: Int[Tensor, " e"],
        count: Float[Tensor, " e"],
    ) -> Float[Tensor, "n f"]:
        ctx.save_for_backward(x, filters, source, target, group, count)
        message = x.index_select(0, source).mul_(filters.index_select(0, group))
        message.mul_(count[:, None])
        return torch.zeros_like(x).index_add_(0, target, message)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, filters, source, target, group, count = ctx.saved_tensors
        each = grad.index_select(0, target).mul_(count[:, None])
        dfilters = torch.zeros_like(filters).index_add_(0, group, each * x.index_select(0, source))
        filtered = filters.index_select(0, group)
        each = each * filtered if torch.is_grad_enabled() else each.mul_(filtered)
        dx, dcount = torch.zeros_like(x).index_add_(0, source, each), None
        if ctx.needs_input_grad[5]:
            message = x.index_select(0, source) * filtered
            dcount = (grad.index_select(0, target) * message).sum(dim=1)
        return dx, dfilters, None, None, None, dcount


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(e^x / 2 + 1 / 2): zero at zero."""
    return F.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    """v_i <- v_i + L3 ssp(L2 sum_j (L1 v_j) * W(d_ij)), W(d) = F2 ssp(F1 gaussians(d)) * fade(d).

    Equation 2 and figure 2 of the paper; torch-geometric's InteractionBlock. The filter W is a
    function of the distance alone and is formed once a group of equal distances.
    """

    def __init__(self, atom: int, filters: int, gaussians: int) -> None:
        super().__init__()
        self.filter1 = nn.Linear(gaussians, filters)
        self.filter2 = nn.Linear(filters, filters)
        self.inward = nn.Linear(atom, filters, bias=False)
        self.outward = nn.Linear(filters, atom)
        self.last = nn.Linear(atom, atom)

    def forward(
        self,
        atoms: Float[Tensor, "n a"],
        gaussians: Float[Tensor, "g b"],
        fade: Float[Tensor, "g 1"],
        batch: Mapping[str, Tensor],
    ) -> Float[Tensor, "n a"]:
        filters = self.filter2(shifted_softplus(self.filter1(gaussians))) * fade  # [g, f]
        edges = (batch[key] for key in ("source", "target", "group"))
        total = Messages.apply(  # type: ignore[no-untyped-call]
            self.inward(atoms), filters, *edges, batch["count"].to(atoms.dtype)
        )
        out: Tensor = atoms + self.last(shifted_softplus(self.outward(total)))
        return out


class Network(nn.Module):
    """SchNet.

    With the learned embedding, the network of torch-geometric's SchNet: cosine cutoff, and a head
    of half the width on each atom before the readout.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.graph.Radius`; output: [c, outputs].
    """

    elements: Tensor
    centres: Tensor

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        config = parse(Settings, settings, "network (schnet)")
        self.cutoff, self.readout = config.cutoff, config.readout
        spacing = config.gaussian_max / (config.gaussians - 1)
        self.gamma = 0.5 / spacing**2 if config.gamma is None else config.gamma
        self.register_buffer(
            "centres",
            torch.linspace(0.0, config.gaussian_max, config.gaussians),
            persistent=False,
        )
        described = torch.from_numpy(table())[1:] if config.embedding == "features" else None
        self.register_buffer("elements", described, persistent=False)  # [100, 92]
        self.embedding = (
            nn.Embedding(ELEMENTS, config.atom)
            if described is None
            else nn.Linear(FEATURES, config.atom)
        )
        self.interactions = nn.ModuleList(
            Interaction(config.atom, config.filters, config.gaussians)
            for _ in range(config.interactions)
        )
        self.hidden = nn.Linear(config.atom, config.atom // 2)
        self.out = nn.Linear(config.atom // 2, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c d"]:
        """What the last linear layer sees: an atom's hidden features, pooled; d = atom // 2."""
        return self._pooled(self._of_atoms(batch), batch)

    def _of_atoms(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """The hidden features of each atom."""
        weight = self.embedding.weight if self.elements is None else self.embedding(self.elements)
        atoms = weight.index_select(0, batch["numbers"] - 1)  # [n, a]
        distance = batch["distance"].to(atoms.dtype)[:, None]  # [g, 1]
        gaussians = cut(torch.exp(-self.gamma * (distance - self.centres) ** 2))  # [g, b]
        fade = 0.5 * (torch.cos(distance * (math.pi / self.cutoff)) + 1.0)
        for interaction in self.interactions:
            atoms = interaction(atoms, gaussians, fade, batch)
        return shifted_softplus(self.hidden(atoms))

    def _pooled(
        self, hidden: Float[Tensor, "n d"], batch: Mapping[str, Tensor]
    ) -> Float[Tensor, "c d"]:
        hidden = hidden * batch["sites"].to(hidden.dtype)[:, None]
        counts = batch["pointer"].diff()
        pooled = hidden.new_zeros(len(counts), hidden.shape[1]).index_add_(
            0, torch.repeat_interleave(counts), hidden
        )  # [c, d]
        return pooled / self.atoms(batch)[:, None] if self.readout == "mean" else pooled

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c out"]:
        return self._outputs(self.vector(batch), batch)

    def with_atoms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "c out"], Float[Tensor, "n out"]]:
        """The output for systems, and for each atom: what the last layer makes of it alone."""
        hidden = self._of_atoms(batch)
        return self._outputs(self._pooled(hidden, batch), batch), self.out(hidden)

    def _outputs(
        self, vector: Float[Tensor, "c d"], batch: Mapping[str, Tensor]
    ) -> Float[Tensor, "c out"]:
        # The last layer is linear: on each atom before the readout, as published, is the same.
        if self.readout == "mean":
            out: Tensor = self.out(vector)
            return out
        return vector @ self.out.weight.t() + self.atoms(batch)[:, None] * self.out.bias

    def atoms(self, batch: Mapping[str, Tensor]) -> Float[Tensor, " c"]:
        """Atoms of each crystal."""
        counts = batch["pointer"].diff()
        sites = batch["sites"].to(self.centres.dtype)
        return sites.new_zeros(len(counts)).index_add_(0, torch.repeat_interleave(counts), sites)
