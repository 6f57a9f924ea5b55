"""Muon against its definition, torch's own and AdamW."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.learn.muon import Muon, orthogonal

SHAPES = [(64, 64), (64, 96), (128, 64)]


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    small: list[tuple[int, ...]] = [(64,), (1, 64), (64, 12)]
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES + small]


def steps(
    optimizer: torch.optim.Optimizer, wanted: list[nn.Parameter], count: int, seed: int = 1
) -> list[Tensor]:
    """The parameters after steps with gradients that are the same for every optimizer."""
    rng = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in wanted:
            p.grad = torch.randn(p.shape, generator=rng)
        optimizer.step()
    return [p.detach().clone() for p in wanted]


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (64, 64)])
def test_singular_values_become_one_and_their_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, *shape, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    found = u.mT @ orthogonal(x) @ vt.mT
    values = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found, torch.diag_embed(values), rtol=0, atol=1e-10)
    enough = s > 0.003 * x.flatten(1).norm(dim=1)[:, None]  # smaller ones have not grown to one
    assert ((values > 0.6) & (values < 1.3))[enough].all()
    torch.testing.assert_close(orthogonal(7 * x), orthogonal(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_matrices_move_as_with_torch(count: int) -> None:
    """Whose products are in bfloat16."""
    ours, theirs = (parameters()[: len(SHAPES)] for _ in range(2))
    before = [p.detach().clone() for p in theirs]
    a = steps(Muon(ours, 0.02, weight_decay=0.1), ours, count)
    torchs = torch.optim.Muon(theirs, 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    b = steps(torchs, theirs, count)
    for one, other, start in zip(a, b, before, strict=True):
        assert float((one - other).norm() / (other - start).norm()) < 0.02


def test_a_step_is_about_a_fifth_of_the_rate_an_entry() -> None:
    ours = parameters()[: len(SHAPES)]
    before = [p.detach().clone() for p in ours]
    for one, start in zip(steps(Muon(ours, 0.02, weight_decay=0), ours, 1), before, strict=True):
        assert float((one - start).square().mean().sqrt()) == pytest.approx(0.0036, rel=0.1)


def test_all_else_moves_as_with_adamw() -> None:
    ours, theirs = parameters(), parameters()
    a = steps(Muon(ours, 0.01, weight_decay=0.1), ours, 3)
    b = steps(torch.optim.AdamW(theirs, 0.01, weight_decay=0.1), theirs, 3)
    for k, (one, other) in enumerate(zip(a, b, strict=True)):
        assert torch.equal(one, other) is (k >= len(SHAPES))


def test_it_goes_on_from_its_state() -> None:
    at_once, halfway = parameters(), parameters()
    whole, first, second = (
        Muon(one, 0.01, weight_decay=0.1) for one in (at_once, halfway, halfway)
    )
    steps(whole, at_once, 1)
    steps(first, halfway, 1)
    second.load_state_dict(deepcopy(first.state_dict()))
    steps(whole, at_once, 1, seed=2)
    steps(second, halfway, 1, seed=2)
    for one, other in zip(at_once, halfway, strict=True):
        assert torch.equal(one, other)


def test_it_returns_what_the_closure_does() -> None:
    wanted = parameters()

    def closure() -> Tensor:
        loss = torch.stack([p.square().sum() for p in wanted]).sum()
        loss.backward()
        return loss.detach()

    optimizer = Muon(wanted, 0.01, weight_decay=0)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(float(optimizer.step(closure)))
        assert all(p.grad is not None for p in wanted)
    assert losses == sorted(losses, reverse=True)
    assert np.isfinite(losses).all()
