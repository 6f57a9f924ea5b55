"""The mesh network: its size, its exactness, and what it must not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crystalmesh.models import network
from crystalmesh.models.mesh import Network, PooledLayer

RELEASE: dict[str, Any] = {
    "geometry": "edges",
    "atoms": [92, 128],
    "shared": [512, 1024],
    "last_activation": False,
    "head": [512, 256],
    "dropout": 0.2,
}
SMALL = RELEASE | {"atoms": [8], "shared": [12, 16], "head": [8], "dropout": 0.0}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def batch(faces: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(faces)

    def normal(width: int) -> Tensor:
        return torch.randn(total, width, generator=generator)

    return {
        "pointer": torch.tensor(np.cumsum([0, *faces])),
        "centre": normal(3),
        "normal": normal(3),
        "edges": normal(3).abs(),
        "corner": normal(9),
        "numbers": torch.randint(1, 100, (total, 3), generator=generator),
    }


@pytest.mark.parametrize(("outputs", "expected"), [(1, 1_348_133), (230, 1_406_986)])
def test_release_has_the_published_number_of_parameters(outputs: int, expected: int) -> None:
    assert count(network("mesh", RELEASE, outputs)) == expected


@settings(max_examples=20, deadline=None)
@given(
    faces=st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda f: sum(f) > 2),
    widths=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 1000),
)
def test_pooled_layer_equals_linear_norm_and_maximum(
    faces: list[int], widths: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    pooled = PooledLayer(*widths).double()
    # Signs of both kinds: a negative gamma turns the maximum into a minimum.
    nn.init.normal_(pooled.norm.weight)
    nn.init.normal_(pooled.norm.bias)
    plain = nn.Sequential(nn.Linear(*widths), nn.BatchNorm1d(widths[1])).double()
    plain[0].load_state_dict(pooled.linear.state_dict())
    plain[1].load_state_dict(pooled.norm.state_dict())
    rows = torch.randn(sum(faces), widths[0], dtype=torch.float64)
    pointer = torch.tensor(np.cumsum([0, *faces]))
    weight = torch.randn(len(faces), widths[1], dtype=torch.float64)

    def reference(x: Tensor) -> Tensor:
        return torch.stack([part.amax(dim=0) for part in plain(x).split(faces)])

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


@pytest.mark.parametrize("geometry", ["normal", "edges"])
def test_output_does_not_depend_on_the_order_of_faces(geometry: str) -> None:
    torch.manual_seed(0)
    net = Network(SMALL | {"geometry": geometry}, 1).eval()
    data = batch([30, 20])
    order = torch.cat([torch.randperm(30), 30 + torch.randperm(20)])
    shuffled = {k: v if k == "pointer" else v[order] for k, v in data.items()}
    torch.testing.assert_close(net(shuffled), net(data))


def test_crystals_of_a_batch_do_not_touch_in_evaluation() -> None:
    torch.manual_seed(0)
    net = Network(SMALL, 2).eval()
    both = batch([30, 20])
    alone = {k: v[30:] if k != "pointer" else torch.tensor([0, 20]) for k, v in both.items()}
    torch.testing.assert_close(net(both)[1:], net(alone))


def test_talk_ends_its_shared_layers_with_an_activation() -> None:
    torch.manual_seed(0)
    plain = Network(SMALL, 1)
    rectified = Network(SMALL | {"last_activation": True}, 1)
    rectified.load_state_dict(plain.state_dict())
    nn.init.constant_(plain.pooled.norm.bias, -100.0)
    nn.init.constant_(rectified.pooled.norm.bias, -100.0)
    data = batch([30, 20])
    seen: list[Tensor] = []
    rectified.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    rectified(data)
    assert seen[0].count_nonzero() == 0


def test_frozen_output() -> None:
    torch.manual_seed(0)
    net = Network(SMALL, 1)
    for _ in range(3):
        net(batch([30, 20]))
    values = net.eval()(batch([30, 20])).squeeze(1).tolist()
    assert values == pytest.approx(FROZEN, abs=1e-5)


FROZEN = [-0.16048365831375122, -0.16105860471725464]
