"""The mesh network: its size, its exactness, and what it must not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.models import network
from crystalmesh.models.mesh import Network

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


def test_output_is_the_head_of_the_vector() -> None:
    torch.manual_seed(0)
    net = Network(RELEASE, 1).eval()
    data = batch([30, 20])
    vector = net.vector(data)
    assert vector.shape == (2, 1024)
    assert torch.equal(net.head(vector), net(data))


def test_frozen_output() -> None:
    torch.manual_seed(0)
    net = Network(SMALL, 1)
    for _ in range(3):
        net(batch([30, 20]))
    values = net.eval()(batch([30, 20])).squeeze(1).tolist()
    assert values == pytest.approx(FROZEN, abs=1e-5)


FROZEN = [-0.16048365831375122, -0.16105860471725464]
