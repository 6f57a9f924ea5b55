"""The shared layers: the pooled one and the cut Gaussians are the plain ones, only faster.

And each function whose gradient is written out, of whatever network, can be differentiated twice.
"""

from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crystalmesh.config.project import load
from crystalmesh.models import cgcnn, delaunay, schnet
from crystalmesh.models.layers import NEGLIGIBLE, LinearNormMax, PooledLayer, Summed, cut, head
from crystalmesh.represent.graph import Cgcnn, Radius
from tests.represent.delaunay.test_tessellate import KNOWN
from tests.represent.test_complex import REDUCED, some

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


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def written_out() -> dict[str, tuple[type[torch.autograd.Function], tuple[Any, ...]]]:
    """Each function of `torch.autograd` that we wrote, with arguments of few numbers."""
    torch.manual_seed(0)
    source, target, group = torch.randint(0, 4, (3, 9))
    neighbour, pointer = torch.randint(0, 4, (4, 3)), torch.tensor([0, 3, 4, 9])
    scales = numbers(4), numbers(4)  # gammas of both signs
    gated = *(numbers(4, 4) for _ in range(2)), numbers(4, 3, 2), numbers(4, 2), *scales
    return {
        "schnet": (
            schnet.Messages,
            (numbers(4, 3), numbers(4, 3), source, target, group, numbers(9)),
        ),
        "complex": (delaunay.Messages, (numbers(4, 3), numbers(9, 3), source, target, 5)),
        "cgcnn": (cgcnn.GatedSum, (*gated, neighbour, 1e-5, 12)),
        "pooled": (LinearNormMax, (numbers(9, 3), numbers(4, 3), *scales, pointer, 1e-5, 9)),
        "summed": (Summed, (numbers(3),)),
    }


@pytest.mark.parametrize("name", list(written_out()))
def test_what_is_written_out_is_differentiated_twice(name: str) -> None:
    function, arguments = written_out()[name]

    def first(*values: Any) -> Tensor:
        out = function.apply(*values)
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found

    assert torch.autograd.gradcheck(first, arguments)
    assert torch.autograd.gradgradcheck(first, arguments)


@pytest.mark.parametrize("name", list(written_out()))
def test_a_graph_of_the_gradient_does_not_change_the_gradient(name: str) -> None:
    """Of each argument alone, too, and of arguments that are made from one another."""
    function, arguments = written_out()[name]
    floats = [i for i, a in enumerate(arguments) if torch.is_tensor(a) and a.requires_grad]
    for one in floats:
        given = [a.detach() if i in floats and i != one else a for i, a in enumerate(arguments)]
        check_graph(function, given, [given[one]])
    seed = numbers(1)
    linked = [a.detach() * seed + seed**2 if i in floats else a for i, a in enumerate(arguments)]
    for i, j in pairwise(floats):
        linked[j] = linked[j] + linked[i].sum()
    check_graph(function, linked, [seed])


def check_graph(function: Any, arguments: list[Any], of: list[Tensor]) -> None:
    out = function.apply(*arguments)
    out = out[0] if isinstance(out, tuple) else out
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    plain, graph = (
        torch.autograd.grad(out, of, weight, retain_graph=True, create_graph=create)
        for create in (False, True)
    )
    torch.testing.assert_close(plain, graph, rtol=1e-9, atol=1e-11)


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
        ("delaunay", delaunay, REDUCED),
    ],
)
def test_what_is_cut_changes_no_bit_of_the_output(
    name: str, module: ModuleType, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(ROOT).params.models[name].network
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
