"""SchNet: torch-geometric's outputs, exact gradients, and what it must not depend on."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import SchNet
from torch_geometric.nn.models.schnet import ShiftedSoftplus

from crystalmesh.data.crystals import Crystal
from crystalmesh.models import network
from crystalmesh.models.schnet import Messages, Network
from crystalmesh.represent.graph import Radius, pairs

SMALL: dict[str, Any] = {
    "atom": 8,
    "filters": 6,
    "interactions": 2,
    "gaussians": 10,
    "gaussian_max": 5.0,
    "cutoff": 5.0,
    "readout": "mean",
}
# Names of our layers in torch-geometric.
NAMES = {
    "filter1": "mlp.0",
    "filter2": "mlp.2",
    "inward": "conv.lin1",
    "outward": "conv.lin2",
    "last": "lin",
    "hidden": "lin1",
    "out": "lin2",
}
# The molecules (Angstrom): ethanol without symmetry, and methane, whose hydrogens are alike.
Molecule = tuple[list[int], list[list[float]]]
ETHANOL: Molecule = (
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [[-0.888, 0.167, -0.026], [0.466, -0.512, -0.036], [1.441, 0.324, 0.614],
     [-0.883, 1.117, -0.568], [-1.640, -0.481, -0.477], [-1.196, 0.390, 1.000],
     [0.434, -1.457, 0.513], [0.764, -0.723, -1.069], [1.414, 1.164, 0.149]],
)  # fmt: skip
METHANE: Molecule = (
    [6, 1, 1, 1, 1],
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63],
     [0.63, -0.63, -0.63]],
)  # fmt: skip


def boxed(numbers: list[int], places: list[list[float]], edge: float = 30.0) -> Crystal:
    """A molecule in a cell so wide that its images are out of reach."""
    return Crystal("x", "X", np.eye(3) * edge, np.array(numbers), np.array(places) / edge)


def theirs_of(ours: Network, config: dict[str, Any], crystals: list[Crystal]) -> SchNet:
    """torch-geometric's SchNet with our weights, on all pairs of these crystals."""
    starts = np.cumsum([0, *(len(c.numbers) for c in crystals)])
    found = [pairs(c, config["cutoff"]) for c in crystals]
    index = np.concatenate(
        [np.stack([s, t]) + start for (s, t, _, _), start in zip(found, starts[:-1], strict=True)],
        axis=1,
    )
    lengths = np.concatenate([distance[group] for _, _, group, distance in found])
    edges = torch.from_numpy(index), torch.from_numpy(lengths)
    theirs = SchNet(
        config["atom"],
        config["filters"],
        config["interactions"],
        config["gaussians"],
        config["cutoff"],
        interaction_graph=lambda *_: edges,
        readout=config["readout"],
    ).double()
    theirs.distance_expansion.offset = ours.centres
    theirs.distance_expansion.coeff = -ours.gamma
    for layer in theirs.modules():
        if isinstance(layer, ShiftedSoftplus):
            layer.shift = math.log(2.0)  # theirs is of single precision, 2e-9 off
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), matching(ours, theirs), strict=True):
            other.copy_(mine.roll(1, 0) if mine is ours.embedding.weight else mine)
    return theirs


def matching(ours: Network, theirs: SchNet) -> list[Tensor]:
    """torch-geometric's parameters in the order of ours; its embedding has a row 0, and no 100."""
    parameters, found = dict(theirs.named_parameters()), []
    for name, _ in ours.named_parameters():
        for mine, other in NAMES.items():
            name = name.replace(f"{mine}.", f"{other}.")
        found.append(parameters[name])
    return found


@pytest.mark.parametrize("readout", ["mean", "sum"])
@pytest.mark.parametrize(
    "changes", [{}, {"gaussians": 301, "gaussian_max": 30.0, "gamma": 10.0}, {"cutoff": 3.0}]
)
def test_molecules_as_torch_geometric(readout: str, changes: dict[str, Any]) -> None:
    check([boxed(*ETHANOL), boxed(*METHANE), boxed([2], [[0, 0, 0]])], readout, changes)


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_crystals_as_torch_geometric_on_all_pairs(readout: str) -> None:
    check([crystal(3), supercell(rock_salt(), np.eye(3, dtype=int))], readout, {})


def check(crystals: list[Crystal], readout: str, changes: dict[str, Any]) -> None:
    """Outputs, and the gradient of every parameter, are torch-geometric's."""
    torch.manual_seed(1)
    config = SMALL | {"readout": readout} | changes
    ours = Network(config, 1).double()
    with torch.no_grad():  # biases are zero at first and would not be tested
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs = theirs_of(ours, config, crystals)
    graph = Radius({"cutoff": config["cutoff"]})
    batch = graph.collate([graph.build(c) for c in crystals])
    # The stored distances are of single precision, torch-geometric's here are not.
    batch["distance"] = torch.cat(
        [torch.from_numpy(pairs(c, config["cutoff"])[3]) for c in crystals]
    )
    out = ours(batch)
    numbers = torch.from_numpy(np.concatenate([c.numbers for c in crystals]))
    counts = torch.tensor([len(c.numbers) for c in crystals])
    expected = theirs(numbers, torch.zeros(len(numbers), 3), torch.repeat_interleave(counts))
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    single = forward(copy.deepcopy(ours).float(), *crystals).double()
    torch.testing.assert_close(single, expected.detach(), rtol=1e-5, atol=1e-6)
    out.square().sum().backward()
    expected.square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), matching(ours, theirs), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        expected = b.grad.roll(-1, 0) if name.startswith("embedding") else b.grad
        torch.testing.assert_close(a.grad, expected, rtol=1e-8, atol=1e-9)


def messages(*arguments: Tensor) -> Tensor:
    out: Tensor = Messages.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 6), e=st.integers(0, 12), g=st.integers(1, 5), seed=st.integers(0, 99))
def test_messages_and_gradients_equal_the_plain_form(n: int, e: int, g: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(g, 3, dtype=torch.float64, requires_grad=True)
    source, target = torch.randint(0, n, (2, e))
    group, count = torch.randint(0, g, (e,)), torch.randint(1, 9, (e,)).double()
    indices = source, target, group, count
    plain = torch.zeros(n, 3, dtype=torch.float64).index_add(
        0, target, x[source] * filters[group] * count[:, None]
    )
    ours = messages(x, filters, *indices)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn(n, 3, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (x, filters)),
        torch.autograd.grad((plain * weight).sum(), (x, filters)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    if e:
        assert torch.autograd.gradcheck(lambda x, w: messages(x, w, *indices), (x, filters))


def test_number_of_parameters() -> None:
    """The QM9 sizes of the paper are torch-geometric's defaults: 455,809 parameters."""
    sizes = {"atom": 128, "filters": 128, "interactions": 6, "gaussians": 50}
    net = network("schnet", SMALL | sizes, 1)
    count = sum(p.numel() for p in net.parameters())
    assert count == sum(p.numel() for p in SchNet().parameters()) == 455_809


def crystal(seed: int = 0) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * 4 + rng.normal(scale=0.4, size=(3, 3))
    return Crystal("x", "X", lattice, np.array([11, 17, 26, 8]), rng.random((4, 3)))


def rock_salt() -> Crystal:
    lattice = 2.82 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal("x", "X", lattice, np.array([11, 17]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


def supercell(one: Crystal, sizes: Any) -> Crystal:
    shifts = np.array(list(np.ndindex(*np.diag(sizes))))
    frac = (one.frac[None] + shifts[:, None]).reshape(-1, 3) / np.diag(sizes)
    return Crystal("x", "X", sizes @ one.lattice, np.tile(one.numbers, len(shifts)), frac)


def forward(net: Network, *crystals: Crystal) -> Tensor:
    graph = Radius({"cutoff": net.cutoff})
    with torch.no_grad():
        out: Tensor = net(graph.collate([graph.build(c) for c in crystals]))
    return out


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), simple=st.booleans())
def test_prediction_is_a_function_of_the_crystal(seed: int, simple: bool) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    mean, total = Network(SMALL, 2), Network(SMALL | {"readout": "sum"}, 2)
    one = rock_salt() if simple else crystal(seed)
    n = len(one.numbers)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # with reflections
    order = rng.permutation(n)
    change = np.array([[1, 1, 0], [0, 1, 0], [0, -2, 1]])
    for other in (
        Crystal("x", "X", one.lattice @ rotation, one.numbers, one.frac),
        Crystal("x", "X", one.lattice, one.numbers[order], one.frac[order]),
        Crystal("x", "X", one.lattice, one.numbers, one.frac + rng.random(3)),
        Crystal("x", "X", change @ one.lattice, one.numbers, one.frac @ np.linalg.inv(change)),
        supercell(one, np.diag([2, 1, 3])),
    ):
        times = len(other.numbers) / n
        for net, expected in ((mean, forward(mean, one)), (total, times * forward(total, one))):
            torch.testing.assert_close(forward(net, other), expected, rtol=1e-4, atol=1e-5)


def test_vector_is_what_the_last_layer_sees() -> None:
    torch.manual_seed(0)
    net = Network(SMALL, 3)
    graph = Radius({"cutoff": 5.0})
    batch = graph.collate([graph.build(crystal(1)), graph.build(rock_salt())])
    vector = net.vector(batch)
    assert vector.shape == (2, SMALL["atom"] // 2)
    torch.testing.assert_close(net.out(vector), net(batch))


def test_only_isolated_atoms() -> None:
    """Without any edge, only the elements count."""
    torch.manual_seed(0)
    net = Network(SMALL, 1)
    one = Crystal("x", "X", np.eye(3) * 20.0, np.array([2]), np.zeros((1, 3)))
    out = forward(net, one, one)
    assert out.isfinite().all()
    assert out[0] == out[1]
