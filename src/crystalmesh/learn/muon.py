"""Muon: matrices move along the nearest orthogonal matrix of their momentum."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# What has a shorter side reads a handful of numbers or answers with a few. The layer that reads
# the features of the elements has none, and is taken with the others, unlike Jordan's embeddings.
SIDE = 64
MOMENTUM = 0.95
# Of the quintic iteration; chosen by Jordan for a steep start. Singular values above 0.3 % of the
# matrix's norm end between 0.6 and 1.3, smaller ones below.
A, B, C = 3.4445, -4.775, 2.0315
STEPS = 5


def orthogonal(x: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """About the orthogonal factor of each matrix: its singular values set to one. Best with r <= c.

    By a Newton-Schulz iteration, in the matrices' own precision: torch.optim.Muon's is in bfloat16,
    whose products differ between CPUs, and which most of them have to emulate.
    """
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(STEPS):
        gram = torch.bmm(x, x.mT)
        x = A * x + torch.bmm(B * gram + C * torch.bmm(gram, gram), x)
    return x


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for matrices with both sides at least `SIDE`, AdamW for the rest.

    A matrix takes Nesterov's momentum, made orthogonal, with a root mean square of 0.2 an entry
    (less where the gradient has few directions), as AdamW's steps have about; so rates and decay of
    AdamW hold (Liu et al., arXiv:2502.16982, 2025). A schedule that cycles AdamW's momentum leaves
    the matrices' as it is. Takes what AdamW takes.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what the closure, which makes the gradients, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [pair for group in self.param_groups for pair in self._step_matrices(group)]
        for p, _ in gradients:
            p.grad = None  # AdamW passes over what has none
        super().step()
        for p, gradient in gradients:
            p.grad = gradient
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> list[tuple[nn.Parameter, Tensor]]:
        """Moves the matrices; returns them with their gradients."""
        alike: dict[tuple[Any, ...], list[tuple[nn.Parameter, Tensor]]] = {}
        for p in group["params"]:
            if p.grad is not None and is_matrix(p):
                alike.setdefault((p.device, p.dtype, *sorted(p.shape)), []).append((p, p.grad))
        for (*_, shorter, longer), pairs in alike.items():
            wide = [p.shape == (shorter, longer) for p, _ in pairs]
            updates = [self._momentum(p, gradient) for p, gradient in pairs]
            stack = torch.stack([u if w else u.mT for u, w in zip(updates, wide, strict=True)])
            size = group["lr"] * 0.2 * longer**0.5
            for (p, _), update, w in zip(pairs, orthogonal(stack), wide, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update if w else update.mT, alpha=-size)
        return [pair for pairs in alike.values() for pair in pairs]

    def _momentum(self, p: nn.Parameter, gradient: Tensor) -> Tensor:
        """Nesterov's: the gradient, drawn towards the running mean with it."""
        state = self.state[p]
        if not state:  # AdamW asks for a step wherever there is a state
            state |= {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(p)}
        state["step"] += 1
        mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(mean, MOMENTUM)


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter is one that Muon moves by itself."""
    return p.ndim == 2 and min(p.shape) >= SIDE
