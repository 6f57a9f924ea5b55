"""The shared layers: the pooled one is the plain one, only faster."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crystalmesh.models.layers import PooledLayer, head


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
