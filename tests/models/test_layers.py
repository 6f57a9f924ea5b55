"""The shared layers: the pooled one and the cut Gaussians are the plain ones, only faster."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crystalmesh import config
from crystalmesh.models import cgcnn, complex, schnet
from crystalmesh.models.layers import NEGLIGIBLE, PooledLayer, cut, head
from crystalmesh.represent.graph import Cgcnn, Radius
from tests.represent.delaunay.test_tessellate import KNOWN
from tests.represent.test_complex import ORBITS, some

ROOT = Path(__file__).parents[2]


@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda c: sum(c) > 2),
    widths=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 1000),
)
def test_pooled_layer_equals_linear_norm_and_maximum(
    counts: list[int], widths: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    pooled = PooledLayer(*widths).double()
    # Signs of both kinds: a negative gamma turns the maximum into a minimum.
    nn.init.normal_(pooled.norm.weight)
    nn.init.normal_(pooled.norm.bias)
    plain = nn.Sequential(nn.Linear(*widths), nn.BatchNorm1d(widths[1])).double()
    plain[0].load_state_dict(pooled.linear.state_dict())
    plain[1].load_state_dict(pooled.norm.state_dict())
    rows = torch.randn(sum(counts), widths[0], dtype=torch.float64)
    pointer = torch.tensor(np.cumsum([0, *counts]))
    weight = torch.randn(len(counts), widths[1], dtype=torch.float64)

    def reference(x: Tensor) -> Tensor:
        return torch.stack([part.amax(dim=0) for part in plain(x).split(counts)])

    for mode in (True, False):
        pooled.train(mode)
        plain.train(mode)
        ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        a, b = pooled(ours, pointer), reference(theirs)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        if mode:
            (a * weight).sum().backward()
            (b * weight).sum().backward()
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-8)
            for p, q in zip(pooled.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-8)
    for name, value in plain[1].named_buffers():
        torch.testing.assert_close(pooled.norm.get_buffer(name), value)


def test_a_head_without_layers_is_linear() -> None:
    assert [type(m) for m in head(3, (), 2, 0.5)] == [nn.Linear]


def test_a_cut_gaussian_holds_no_denormal_number() -> None:
    values = torch.exp(-torch.linspace(0, 110, 1000)).requires_grad_()
    assert ((values > 0) & (values < torch.finfo(values.dtype).tiny)).any()
    kept = values > NEGLIGIBLE
    assert torch.equal(cut(values), torch.where(kept, values, 0))
    cut(values).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, kept.to(values.dtype))


@pytest.mark.parametrize(
    ("name", "module", "maker"),
    [
        ("cgcnn", cgcnn, Cgcnn({"neighbours": 12, "cutoff": 8.0})),
        ("schnet", schnet, Radius({"cutoff": 5.0})),
        ("complex", complex, ORBITS),
    ],
)
def test_what_is_cut_changes_no_bit_of_the_output(
    name: str, module: ModuleType, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load(ROOT).params.models[name].network
    crystals = [some(seed, kind) for seed in range(3) for kind in (*KNOWN, "random")]
    batch = maker.collate([maker.build(one) for one in crystals])

    def run() -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        net: nn.Module = module.Network(settings, 1)
        out = net(batch)
        return out, list(torch.autograd.grad(out.square().sum(), list(net.parameters())))

    ours, gradients = run()
    seen: list[Tensor] = []

    def kept(gaussians: Tensor) -> Tensor:
        seen.append(gaussians)
        return gaussians

    monkeypatch.setattr(module, "cut", kept)
    theirs, whole = run()
    assert any(((x > 0) & (x < NEGLIGIBLE)).any() for x in seen)
    assert torch.equal(ours, theirs)
    for a, b in zip(gradients, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-18)
