"""CGCNN: crystal graph convolutional neural network (Xie & Grossman, PRL 120, 145301, 2018)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from crystalmesh.config.read import parse
from crystalmesh.models.distributed import averaged, counted, summed
from crystalmesh.models.layers import BatchNorm, cut, gradients, normalised, update_running
from crystalmesh.represent.atoms import FEATURES, table


class Settings(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    atom: int  # length of an atom's vector between convolutions
    convolutions: int
    hidden: int  # width after pooling
    hidden_layers: int
    gaussian_max: float  # Angstrom
    gaussian_step: float  # Angstrom; also the Gaussians' width


class GatedSum(torch.autograd.Function):
    """sum_j sigmoid(y_ij) * softplus(y'_ij) with (y, y') = BatchNorm(own_i + other_j + e_ij W).

    Written out because it is where the time goes: the plain form keeps a dozen arrays of
    edges x 2a floats for the backward pass, this one keeps z and recomputes the rest. The gradient
    of the gradient is that of `plain`, with its storage.
    """

    @staticmethod
    def plain(
        own: Float[Tensor, "n 2*a"],
        other: Float[Tensor, "n 2*a"],
        edges: Float[Tensor, "n k g"],
        weight: Float[Tensor, "2*a g"],
        gamma: Float[Tensor, " 2*a"],
        beta: Float[Tensor, " 2*a"],
        neighbour: Int[Tensor, "n k"],
        eps: float,
        count: int,
    ) -> Float[Tensor, "n a"]:
        """The sum in the plain form."""
        n, k = neighbour.shape
        z = other.index_select(0, neighbour.view(-1)).view(n, k, -1)
        z = z + edges @ weight.t() + own[:, None]
        y, _, _ = normalised(z.flatten(0, 1), gamma, beta, eps, count)
        gate, core = y.view_as(z).chunk(2, dim=2)
        return (torch.sigmoid(gate) * F.softplus(core)).sum(dim=1)

    @staticmethod
    def forward(
        ctx: Any,
        own: Float[Tensor, "n 2*a"],
        other: Float[Tensor, "n 2*a"],
        edges: Float[Tensor, "n k g"],
        weight: Float[Tensor, "2*a g"],
        gamma: Float[Tensor, " 2*a"],
        beta: Float[Tensor, " 2*a"],
        neighbour: Int[Tensor, "n k"],
        eps: float,
        count: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, k = neighbour.shape
        width = own.shape[1]
        z = other.index_select(0, neighbour.view(-1))  # [n*k, 2a]
        z.addmm_(edges.view(n * k, -1), weight.t())
        z = z.view(n, k, width).add_(own[:, None])
        mean = averaged(z.mean(dim=(0, 1)), n * k, count)
        z -= mean
        variance = averaged(torch.mul(z, z).mean(dim=(0, 1)), n * k, count)
        inverse = torch.rsqrt(variance + eps)
        y = torch.addcmul(beta, z, gamma * inverse)
        gate, core = y.chunk(2, dim=2)
        total = (torch.sigmoid(gate).mul_(F.softplus(core))).sum(dim=1)  # [n, a]
        ctx.save_for_backward(z, inverse, own, other, edges, weight, gamma, beta, neighbour)
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps, ctx.count = eps, count
        return total, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        z, inverse, *inputs, neighbour = ctx.saved_tensors
        _, _, edges, weight, gamma, beta = inputs
        if torch.is_grad_enabled():
            plain = partial(GatedSum.plain, neighbour=neighbour, eps=ctx.eps, count=ctx.count)
            return *gradients(plain, inputs, ctx.needs_input_grad[:6], grad), None, None, None
        n, k, width = z.shape
        half, rows = width // 2, n * k
        y = torch.addcmul(beta, z, gamma * inverse)
        core = F.softplus(y[..., half:])
        sigmoid = y.sigmoid_()
        gate, slope = sigmoid[..., :half], sigmoid[..., half:]  # slope = softplus'
        dy = torch.empty_like(z)
        shared = grad[:, None] * gate
        torch.mul(shared, slope, out=dy[..., half:])
        torch.mul(shared.mul_(core), 1 - gate, out=dy[..., :half])
        # Batch normalisation backwards: remove the parts of dy along 1 and along z.
        dbeta = dy.sum(dim=(0, 1))
        dgamma = torch.mul(dy, z, out=y).sum(dim=(0, 1)) * inverse
        scale = gamma * inverse
        dz = dy.mul_(scale).sub_(scale * summed(dbeta) / ctx.count)
        dz.addcmul_(z, -scale * inverse * summed(dgamma) / ctx.count)
        flat = dz.view(rows, width)
        dother = grad.new_zeros(n, width).index_add_(0, neighbour.view(-1), flat)
        dedges = (flat @ weight).view_as(edges) if ctx.needs_input_grad[2] else None
        dweight = flat.t() @ edges.view(rows, -1)
        return dz.sum(dim=1), dother, dedges, dweight, dgamma, dbeta, None, None, None


class Convolution(nn.Module):
    """v_i <- softplus(v_i + BN(sum_j sigmoid(BN(z_ij W_f + b_f)) * softplus(BN(z_ij W_s + b_s)))).

    z_ij = (v_i, v_j, e_ij); equation 5 of the paper with the released code's batch normalisations.
    The parameters are those of the released code; z_ij is never formed, as z W splits into parts
    that are computed once an atom.
    """

    def __init__(self, atom: int, gaussians: int) -> None:
        super().__init__()
        self.atom = atom
        self.full = nn.Linear(2 * atom + gaussians, 2 * atom)
        self.edge_norm = nn.BatchNorm1d(2 * atom)
        self.atom_norm = BatchNorm(atom)

    def forward(
        self,
        atoms: Float[Tensor, "n a"],
        edges: Float[Tensor, "n k g"],
        neighbour: Int[Tensor, "n k"],
    ) -> Float[Tensor, "n a"]:
        a, norm = self.atom, self.edge_norm
        weight = self.full.weight
        own = torch.addmm(self.full.bias, atoms, weight[:, :a].t())  # [n, 2a]
        other = atoms @ weight[:, a : 2 * a].t()
        if self.training:
            gamma, beta, count = norm.weight, norm.bias, counted(neighbour.view(-1))
            total, mean, variance = GatedSum.apply(  # type: ignore[no-untyped-call]
                own, other, edges, weight[:, 2 * a :], gamma, beta, neighbour, norm.eps, count
            )
            update_running(norm, mean, variance, count)
        else:
            z = other[neighbour] + edges @ weight[:, 2 * a :].t() + own[:, None]  # [n, k, 2a]
            z = norm(z.flatten(0, 1)).view_as(z)
            total = (torch.sigmoid(z[..., :a]) * F.softplus(z[..., a:])).sum(dim=1)
        return F.softplus(atoms + self.atom_norm(total))


class Network(nn.Module):
    """CGCNN.

    Args:
        settings: `network` of a model in config/models; see `Settings`.
        outputs: numbers a crystal.

    Shapes:
        input: a batch of `represent.graph.Cgcnn`: pointer [c + 1], numbers [n], neighbour [n, k],
        distance [n, k] (Angstrom); output: [c, outputs].
    """

    elements: Tensor
    centres: Tensor

    def __init__(self, settings: Mapping[str, Any], outputs: int) -> None:
        super().__init__()
        config = parse(Settings, settings, "network (cgcnn)")
        count = round(config.gaussian_max / config.gaussian_step) + 1
        self.width = config.gaussian_step
        self.register_buffer("elements", torch.from_numpy(table()), persistent=False)
        self.register_buffer(
            "centres", torch.linspace(0.0, config.gaussian_max, count), persistent=False
        )
        self.embedding = nn.Linear(FEATURES, config.atom)
        self.convolutions = nn.ModuleList(
            Convolution(config.atom, count) for _ in range(config.convolutions)
        )
        self.pooled = nn.Linear(config.atom, config.hidden)
        self.hidden = nn.ModuleList(
            nn.Linear(config.hidden, config.hidden) for _ in range(config.hidden_layers - 1)
        )
        self.out = nn.Linear(config.hidden, outputs)

    def vector(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c hidden"]:
        """The last hidden layer: what the output of each crystal is a linear function of."""
        return self._read(self._mean(self._of_atoms(batch), batch))

    def _of_atoms(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "n a"]:
        """The vector of each atom after the last convolution."""
        neighbour = batch["neighbour"]
        atoms: Tensor = self.embedding(self.elements)[batch["numbers"]]  # [n, a]
        step = batch["distance"][..., None] - self.centres
        edges = cut(torch.exp(-((step / self.width) ** 2)))  # [n, k, g]
        for convolution in self.convolutions:
            atoms = convolution(atoms, edges, neighbour)
        return atoms

    def _mean(self, atoms: Float[Tensor, "n a"], batch: Mapping[str, Tensor]) -> Tensor:
        """Of the atoms of each crystal: [c, a]."""
        counts = batch["pointer"].diff()
        crystal = torch.repeat_interleave(counts)  # [n]
        total = atoms.new_zeros(len(counts), atoms.shape[1]).index_add_(0, crystal, atoms)
        return total / counts[:, None]

    def _read(self, vectors: Float[Tensor, "r a"]) -> Float[Tensor, "r hidden"]:
        """The hidden layers."""
        pooled = F.softplus(self.pooled(F.softplus(vectors)))
        for layer in self.hidden:
            pooled = F.softplus(layer(pooled))
        return pooled

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "c out"]:
        out: Tensor = self.out(self.vector(batch))
        return out

    def with_atoms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "c out"], Float[Tensor, "n out"]]:
        """The output for crystals, and for each atom: as for a crystal with its vector as mean."""
        atoms = self._of_atoms(batch)
        return self.out(self._read(self._mean(atoms, batch))), self.out(self._read(atoms))
