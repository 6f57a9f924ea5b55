"""The mesh network: its size, its exactness, and what it must not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.models import network
from crystalmesh.models.layers import PooledLayer
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


def trained(settings: dict[str, Any]) -> Network:
    """A network whose normalisations are not trivial: some factors are negative."""
    torch.manual_seed(0)
    net = Network(settings, 1)
    with torch.no_grad():
        net.pooled.norm.weight.normal_()
    for seed in range(3):
        net(batch([30, 20], seed))
    return net.eval()


@pytest.mark.parametrize("last_activation", [False, True])
def test_shares_tell_which_faces_the_vector_is_from(last_activation: bool) -> None:
    net = trained(SMALL | {"last_activation": last_activation})
    data = batch([30, 20])
    share = net.deciding(data)
    assert share.shape == (50,)
    torch.testing.assert_close(share[:30].sum(), torch.tensor(1.0))
    torch.testing.assert_close(share[30:].sum(), torch.tensor(1.0))
    # The same by brute force: the vector of each face as if it were alone.
    alone = net.vector(data | {"pointer": torch.arange(51)})  # [50, 16]
    if not last_activation:  # a rectified channel does not tell where its maximum was
        for start, stop in ((0, 30), (30, 50)):
            first = alone[start:stop].argmax(dim=0)
            counts = torch.bincount(first, minlength=stop - start)
            torch.testing.assert_close(share[start:stop], counts / alone.shape[1])


def test_a_face_without_a_share_changes_nothing() -> None:
    net = trained(SMALL)
    data = batch([30, 20])
    kept = net.deciding(data) > 0
    assert 2 <= kept.sum() < 40
    sizes = torch.stack([kept[:30].sum(), kept[30:].sum()])
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    fewer = {k: pointer if k == "pointer" else v[kept] for k, v in data.items()}
    torch.testing.assert_close(net.vector(fewer), net.vector(data), rtol=0, atol=1e-6)
    torch.testing.assert_close(net(fewer), net(data))


def test_of_equal_faces_the_first_has_the_share() -> None:
    """On whole numbers, where sums are exact: rounding may depend on a row's place."""
    torch.manual_seed(0)
    layer = PooledLayer(8, 16)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.randint(-3, 4, (16, 8)))
        layer.norm.weight.normal_()
    rows = torch.randint(-3, 4, (30, 8)).float()
    share = layer.deciding(torch.cat([rows, rows]), torch.tensor([0, 60]))
    assert share[30:].count_nonzero() == 0
    torch.testing.assert_close(share[:30], layer.deciding(rows, torch.tensor([0, 30])))
