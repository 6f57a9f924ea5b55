"""Layers that several networks share: those on rows, of which a crystal has one or many."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from crystalmesh.models.distributed import averaged, counted, several, summed

NEGLIGIBLE = 1e-20  # of a Gaussian's 1 at its centre; float32 rounds at 6e-8


def cut(gaussians: Tensor) -> Tensor:
    """Gaussians with zero for what is negligible.

    Tails below 1.2e-38 are denormal numbers, and so are products of somewhat larger ones: with
    these, Intel's CPUs take ten times as long for a matrix product, AMD's do not.
    """
    return F.threshold(gaussians, NEGLIGIBLE, 0.0)


class Summed(torch.autograd.Function):
    """The sum over processes; each of their losses depends on it."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        total: Tensor = Summed.apply(grad)  # type: ignore[no-untyped-call]
        return total


def normalised(
    rows: Float[Tensor, "r c"],
    gamma: Float[Tensor, " c"],
    beta: Float[Tensor, " c"],
    eps: float,
    count: int,
) -> tuple[Float[Tensor, "r c"], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Batch normalisation over the `count` rows of all processes, with their mean and variance."""

    def over_processes(values: Tensor) -> Tensor:
        total: Tensor = Summed.apply(values) if several() else values  # type: ignore[no-untyped-call]
        return total

    mean = over_processes(rows.sum(dim=0)) / count
    centred = rows - mean
    variance = over_processes((centred * centred).sum(dim=0)) / count
    return torch.addcmul(beta, centred, gamma * torch.rsqrt(variance + eps)), mean, variance


def gradients(
    plain: Callable[..., Tensor], arguments: Sequence[Tensor], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradient of plain(*arguments) along `grad`, with a graph: it has gradients itself.

    A backward pass that is written out has none, as what it keeps tells nothing of what it was made
    from. It calls this where a graph of the gradient is wanted, at the cost of the plain form.
    """
    # Each as if it were independent of the others, which it may have been made from.
    own = [a.view_as(a) if need else a for a, need in zip(arguments, needed, strict=True)]
    wanted = [a for a, need in zip(own, needed, strict=True) if need]
    found = iter(torch.autograd.grad(plain(*own), wanted, grad, create_graph=True))
    return [next(found) if need else None for need in needed]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows; those of all processes that share the batch."""

    def forward(self, rows: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        if not (self.training and several()):
            return super().forward(rows)
        count = counted(rows)
        out, mean, variance = normalised(rows, self.weight, self.bias, self.eps, count)
        update_running(self, mean, variance, count)
        return out


class Layer(nn.Module):
    """Linear, batch normalisation, ReLU, on rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = BatchNorm(outputs)

    def forward(self, rows: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        return F.relu(self.norm(self.linear(rows)), inplace=True)


def perceptron(*widths: int) -> nn.Sequential:
    """A shared MLP: one `Layer` from each width to the next."""
    return nn.Sequential(*(Layer(a, b) for a, b in pairwise(widths)))


def head(inputs: int, widths: Sequence[int], outputs: int, dropout: float) -> nn.Sequential:
    """From a crystal's vector to its outputs: layers with dropout, then a linear one."""
    layers: list[nn.Module] = []
    for a, b in pairwise((inputs, *widths)):
        layers += [Layer(a, b), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((inputs, *widths)[-1], outputs))


class LinearNormMax(torch.autograd.Function):
    """max over the rows of each crystal of BatchNorm(h W^T).

    Three quarters of the mesh network's work. The plain form stores rows x channels floats and
    multiplies three matrices of that size. This one is the same function and gradient with half of
    the arithmetic and none of the storage:

    - one crystal's h W^T at a time is formed, reduced to its maximum, and forgotten;
    - variance = diag(W G W^T) / rows with the Gram matrix G = h^T h of the centred h, which also
      serves the gradient of W;
    - the gradient reaches one row a crystal and channel through the maximum (sparse), and all
      rows through the statistics, where it is -h M with the small M = W^T diag(c) W.

    A normalisation with gamma < 0 turns the maximum into a minimum: signs move into W.

    The gradient of the gradient is that of `plain`, with its storage.
    """

    @staticmethod
    def plain(
        rows: Float[Tensor, "r k"],
        weight: Float[Tensor, "c k"],
        gamma: Float[Tensor, " c"],
        beta: Float[Tensor, " c"],
        place: Int[Tensor, "b c"],
        eps: float,
        count: int,
    ) -> Float[Tensor, "b c"]:
        """The same from the rows at which the maxima are."""
        return normalised(rows @ weight.t(), gamma, beta, eps, count)[0].gather(0, place)

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "r k"],
        weight: Float[Tensor, "c k"],
        gamma: Float[Tensor, " c"],
        beta: Float[Tensor, " c"],
        pointer: Int[Tensor, " b+1"],
        eps: float,
        count: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        sign = torch.where(gamma < 0, -1.0, 1.0)
        signed = (weight * sign[:, None]).t().contiguous()  # [k, c]
        mean = averaged(rows.mean(dim=0), len(rows), count)
        centred = rows - mean
        bounds = pointer.tolist()
        top = rows.new_empty(len(bounds) - 1, len(weight))
        place = torch.empty_like(top, dtype=torch.long)
        gram = rows.new_zeros(rows.shape[1], rows.shape[1])
        for crystal, (start, stop) in enumerate(pairwise(bounds)):
            part = centred[start:stop]
            torch.max(part @ signed, dim=0, out=(top[crystal], place[crystal]))
            gram.addmm_(part.t(), part)
            place[crystal] += start
        top *= sign
        variance = ((weight @ summed(gram)) * weight).sum(dim=1) / count
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, weight, gamma, inverse, gram, top, place, rows, beta)
        channel_mean = weight @ mean
        ctx.mark_non_differentiable(channel_mean, variance)
        ctx.eps, ctx.count = eps, count
        return torch.addcmul(beta, top, gamma * inverse), channel_mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight, gamma, inverse, gram, top, place, rows, beta = ctx.saved_tensors
        count = ctx.count
        if torch.is_grad_enabled():
            plain = partial(LinearNormMax.plain, place=place, eps=ctx.eps, count=count)
            needed = ctx.needs_input_grad[:4]
            return *gradients(plain, (rows, weight, gamma, beta), needed, grad), None, None, None
        dbeta = grad.sum(dim=0)
        dgamma = (grad * top).sum(dim=0) * inverse
        through = grad * (gamma * inverse)  # [b, c], to the one row that was the maximum
        statistics = gamma * inverse * inverse * summed(dgamma) / count  # [c]
        drows = centred @ (weight.t() @ (weight * -statistics[:, None]))
        drows -= (gamma * inverse * summed(dbeta) / count) @ weight
        dweight = -statistics[:, None] * (weight @ gram)
        for crystal in range(len(grad)):
            chosen, coefficient = place[crystal], through[crystal][:, None]
            drows.index_add_(0, chosen, weight * coefficient)
            dweight.addcmul_(centred.index_select(0, chosen), coefficient)
        return drows, dweight, dgamma, dbeta, None, None, None


class PooledLayer(nn.Module):
    """Linear, batch normalisation over rows, maximum over the rows of each crystal."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(
        self, rows: Float[Tensor, "r k"], pointer: Int[Tensor, " b+1"]
    ) -> Float[Tensor, "b c"]:
        linear, norm = self.linear, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if self.training:
            count = counted(rows)
            pooled, mean, variance = LinearNormMax.apply(  # type: ignore[no-untyped-call]
                rows, linear.weight, norm.weight, norm.bias, pointer, norm.eps, count
            )
            # The bias of the linear layer shifts the mean and cancels everywhere else.
            update_running(norm, mean + linear.bias.detach(), variance, count)
            # Keeps the bias in the graph: its gradient is zero, not absent.
            out: Tensor = pooled + 0.0 * linear.bias
            return out
        sign, signed = self._signed()
        bounds = pointer.tolist()
        tops = [(rows[a:b] @ signed).amax(dim=0) for a, b in pairwise(bounds)]
        top = torch.stack(tops) * sign + linear.bias
        return torch.addcmul(
            norm.bias,
            top - norm.running_mean,
            norm.weight * torch.rsqrt(norm.running_var + norm.eps),
        )

    def deciding(
        self, rows: Float[Tensor, "r k"], pointer: Int[Tensor, " b+1"]
    ) -> Float[Tensor, " r"]:
        """Each row's share of the maximum: of the channels, how many have their maximum there.

        The shares of a crystal's rows add up to 1. Of rows with the same value the first counts.
        """
        _, signed = self._signed()
        counts = [
            torch.bincount((rows[a:b] @ signed).argmax(dim=0), minlength=b - a)
            for a, b in pairwise(pointer.tolist())
        ]
        return torch.cat(counts) / signed.shape[1]

    def _signed(self) -> tuple[Float[Tensor, " c"], Float[Tensor, "k c"]]:
        """Signs of the normalisation's factors, and weights with them: always a maximum."""
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        return sign, (self.linear.weight * sign[:, None]).t()


def update_running(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """What nn.BatchNorm1d does with the statistics of a training batch of `rows` rows."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    momentum = 0.1 if norm.momentum is None else norm.momentum
    with torch.no_grad():
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), momentum)
        norm.num_batches_tracked.add_(1)
