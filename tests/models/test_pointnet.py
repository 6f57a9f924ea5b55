"""PointNet: its size, what it must not depend on, and its T-Net."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.models import network
from crystalmesh.models.layers import PooledLayer
from crystalmesh.models.pointnet import InputTransform, Network
from crystalmesh.represent.points import Points

SETTINGS: dict[str, Any] = {
    "input_transform": False,
    "atoms": [64],
    "shared": [64, 128, 512],
    "head": [256, 128],
    "dropout": 0.2,
}
SMALL = SETTINGS | {"atoms": [8], "shared": [12, 16], "head": [8], "dropout": 0.0}
both = pytest.mark.parametrize("transform", [False, True])


def batch(*counts: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, 3, generator=generator) for n in counts]
    return {
        "pointer": torch.tensor(np.cumsum([0, *counts])),
        "position": torch.cat([p - p.mean(dim=0) for p in parts]),
        "numbers": torch.randint(1, 100, (sum(counts),), generator=generator),
    }


def made(transform: bool, **changes: Any) -> Network:
    """A network whose T-Net, if it has one, has left the identity."""
    torch.manual_seed(0)
    net = Network(SMALL | {"input_transform": transform} | changes, 1)
    if net.transform is not None:
        for parameter in net.transform.head[-1].parameters():
            nn.init.normal_(parameter, std=0.3)
    return net


# linear n m: n m + m; normalisation: 2 m
SIZE = (92 + 3) * 64 + (67 + 3) * 64 + (64 + 3) * 128 + (128 + 3) * 512 + (512 + 3) * 256
SIZE += (256 + 3) * 128 + 129
T_NET = (3 + 3) * 16 + (16 + 3) * 32 + (32 + 3) * 256 + (256 + 3) * 128 + (128 + 3) * 64 + 65 * 9


@pytest.mark.parametrize(
    ("changes", "outputs", "expected"),
    [
        ({}, 1, SIZE),
        ({}, 230, SIZE + 229 * 129),
        ({"input_transform": True}, 1, SIZE + T_NET),
    ],
)
def test_number_of_parameters(changes: dict[str, Any], outputs: int, expected: int) -> None:
    net = network("pointnet", SETTINGS | changes, outputs)
    assert sum(p.numel() for p in net.parameters()) == expected


@both
def test_output_does_not_depend_on_the_order_of_points(transform: bool) -> None:
    net = made(transform)
    data = batch(30, 20)
    order = torch.cat([torch.randperm(30), 30 + torch.randperm(20)])
    shuffled = {k: v if k == "pointer" else v[order] for k, v in data.items()}
    for mode in (True, False):
        net.train(mode)
        torch.testing.assert_close(net(shuffled), net(data), rtol=1e-4, atol=1e-5)


@both
def test_prediction_does_not_depend_on_origin_and_order_of_sites(transform: bool) -> None:
    rng = np.random.default_rng(0)
    net, maker = made(transform).eval(), Points({"cell": "input", "copies": 2, "symprec": 0.01})
    lattice = np.eye(3) * 4 + rng.normal(scale=0.4, size=(3, 3))
    numbers, frac = np.array([11, 17, 26, 8]), rng.random((4, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))

    def output(lattice: Any, numbers: Any, frac: Any) -> Tensor:
        out: Tensor = net(maker.collate([maker.build(Crystal("x", "X", lattice, numbers, frac))]))
        return out

    expected = output(lattice, numbers, frac)
    for other in (
        output(lattice, numbers[[2, 0, 3, 1]], frac[[2, 0, 3, 1]]),
        output(lattice, numbers, frac + rng.normal(size=3)),
    ):
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)
    # It reads the orientation.
    assert (output(lattice @ turn, numbers, frac) - expected).abs().item() > 1e-3


def test_crystals_of_a_batch_do_not_touch_in_evaluation() -> None:
    net = made(True).eval()
    data = batch(30, 20)
    alone = {k: v[30:] if k != "pointer" else torch.tensor([0, 20]) for k, v in data.items()}
    torch.testing.assert_close(net(data)[1:], net(alone))


@both
def test_crystals_of_one_point(transform: bool) -> None:
    net = made(transform)
    for data in (batch(1, 1), batch(1, 5, 1)):
        out = net.train()(data)
        out.square().sum().backward()
        assert out.shape == (len(data["pointer"]) - 1, 1)
        assert out.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.eval()(batch(1)).isfinite().all()


def test_transform_starts_as_the_identity() -> None:
    data = batch(7, 1, 5)
    for mode in (True, False):
        turned = InputTransform().train(mode)(data["position"], data["pointer"])
        assert torch.equal(turned, data["position"])


def test_transform_multiplies_the_positions_of_a_crystal_by_its_matrix() -> None:
    transform = made(True).eval().transform
    assert transform is not None
    data = batch(7, 5)
    turned = transform(data["position"], data["pointer"])
    matrices = []
    for part, of in zip(turned.split([7, 5]), data["position"].split([7, 5]), strict=True):
        matrices.append(torch.linalg.lstsq(of, part).solution)
        torch.testing.assert_close(of @ matrices[-1], part, rtol=1e-4, atol=1e-4)
    assert (matrices[0] - matrices[1]).abs().max() > 1e-3
    assert (matrices[0] - torch.eye(3)).abs().max() > 1e-3


@both
def test_gradients_reach_every_parameter(transform: bool) -> None:
    net = made(transform)
    for module in net.modules():
        if isinstance(module, PooledLayer):
            # So that the ReLU cuts something; else the normalisation after it undoes the bias.
            nn.init.constant_(module.norm.bias, -1.5)
    net(batch(30, 20, 10, 5)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # A bias before a normalisation cancels.
        if not name.endswith("linear.bias"):
            assert parameter.grad.abs().max() > 1e-6, name


@both
def test_evaluation_is_training_once_the_statistics_are_those_of_the_batch(transform: bool) -> None:
    """The pooled layer has two forms, one for either; they are the same function."""
    net = made(transform).double()
    data = {k: v.double() if v.is_floating_point() else v for k, v in batch(30, 20, 10).items()}
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0
    trained = net.train()(data)
    # What is kept is the unbiased variance of rows: of points up to a pooling, then of crystals.
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_var is not None
            rows = 3 if "head" in name else 60
            module.running_var *= (rows - 1) / rows
    torch.testing.assert_close(net.eval()(data), trained)


@both
def test_output_is_the_head_of_the_vector(transform: bool) -> None:
    net, data = made(transform).eval(), batch(30, 20)
    vector = net.vector(data)
    assert vector.shape == (2, 16)
    assert (vector >= 0).all()
    assert torch.equal(net.head(vector), net(data))


def test_element_features_may_enter_as_they_are() -> None:
    net = made(False, atoms=[], shared=[16])
    assert net(batch(3, 4)).shape == (2, 1)


def test_settings_without_a_layer_to_pool_are_refused() -> None:
    with pytest.raises(CrystalmeshError, match="shared"):
        made(False, shared=[])


def test_frozen_output() -> None:
    """With the T-Net."""
    net = made(True)
    for _ in range(3):
        net(batch(30, 20))
    values = net.eval()(batch(30, 20)).squeeze(1).tolist()
    assert values == pytest.approx([-0.09409880638122559, -0.15864379703998566], abs=1e-5)
