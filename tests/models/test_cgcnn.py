"""CGCNN: its size, its exactness against the plain form, and what it must not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import CGConv

from crystalmesh.data.crystals import Crystal
from crystalmesh.models import network
from crystalmesh.models.cgcnn import Convolution, Network
from crystalmesh.represent.graph import Cgcnn

SETTINGS: dict[str, Any] = {
    "atom": 64,
    "convolutions": 4,
    "hidden": 32,
    "hidden_layers": 1,
    "gaussian_max": 8.0,
    "gaussian_step": 0.2,
}
SMALL = SETTINGS | {"atom": 6, "convolutions": 2, "hidden": 5, "hidden_layers": 2}


@pytest.mark.parametrize(
    ("changes", "expected"), [({"convolutions": 3, "hidden": 128}, 80_833), ({}, 96_641)]
)
def test_number_of_parameters_is_the_released_codes(changes: dict[str, int], expected: int) -> None:
    net = network("cgcnn", SETTINGS | changes, 1)
    assert sum(p.numel() for p in net.parameters()) == expected


def plain(layer: Convolution, atoms: Tensor, edges: Tensor, neighbour: Tensor) -> Tensor:
    """The convolution as the released code writes it."""
    n, k = neighbour.shape
    own = atoms[:, None].expand(n, k, -1)
    z = layer.full(torch.cat([own, atoms[neighbour], edges], dim=2))
    z = layer.edge_norm(z.view(n * k, -1)).view(n, k, -1)
    gate, core = z.chunk(2, dim=2)
    total = (torch.sigmoid(gate) * F.softplus(core)).sum(dim=1)
    return F.softplus(atoms + layer.atom_norm(total))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 9), k=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_convolution_equals_the_plain_form(n: int, k: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    ours, theirs = Convolution(width, 3).double(), Convolution(width, 3).double()
    nn.init.normal_(ours.edge_norm.weight)
    theirs.load_state_dict(ours.state_dict())
    atoms = torch.randn(n, width, dtype=torch.float64)
    edges = torch.rand(n, k, 3, dtype=torch.float64)
    neighbour = torch.randint(0, n, (n, k))
    weight = torch.randn(n, width, dtype=torch.float64)
    a, b = atoms.clone().requires_grad_(), atoms.clone().requires_grad_()
    out, expected = ours(a, edges, neighbour), plain(theirs, b, edges, neighbour)
    torch.testing.assert_close(out, expected)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-8)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(
        ours(atoms, edges, neighbour), plain(theirs, atoms, edges, neighbour)
    )


def test_messages_are_those_of_torch_geometric() -> None:
    """With the batch normalisations switched off, the sum over neighbours is CGConv's."""
    torch.manual_seed(0)
    n, k, a, g = 5, 3, 4, 2
    ours = Convolution(a, g).double().eval()  # running mean 0, variance 1
    theirs = CGConv(a, dim=g).double()
    with torch.no_grad():
        theirs.lin_f.weight.copy_(ours.full.weight[:a])
        theirs.lin_f.bias.copy_(ours.full.bias[:a])
        theirs.lin_s.weight.copy_(ours.full.weight[a:])
        theirs.lin_s.bias.copy_(ours.full.bias[a:])
    for norm in (ours.edge_norm, ours.atom_norm):
        norm.eps = 0.0
    atoms = torch.randn(n, a, dtype=torch.float64)
    edges = torch.rand(n, k, g, dtype=torch.float64)
    neighbour = torch.randint(0, n, (n, k))
    # torch-geometric writes an edge as (from the neighbour, to the atom) and adds the atom itself.
    index = torch.stack([neighbour.view(-1), torch.arange(n).repeat_interleave(k)])
    expected = F.softplus(theirs(atoms, index, edges.view(n * k, g)))
    torch.testing.assert_close(ours(atoms, edges, neighbour), expected)


def crystal(seed: int = 0) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * 4 + rng.normal(scale=0.4, size=(3, 3))
    return Crystal("x", "X", lattice, np.array([11, 17, 26, 8]), rng.random((4, 3)))


def output(net: Network, *crystals: Crystal) -> Tensor:
    graph = Cgcnn({"neighbours": 12, "cutoff": 8.0})
    with torch.no_grad():
        out: Tensor = net(graph.collate([graph.build(c) for c in crystals]))
    return out


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_prediction_is_a_function_of_the_crystal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Network(SMALL, 1).eval()
    one = crystal(seed)
    expected = output(net, one)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(4)
    shear = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    doubled = Crystal(
        "x",
        "X",
        np.diag([2, 1, 1]) @ one.lattice,
        np.tile(one.numbers, 2),
        np.concatenate([one.frac, one.frac + [1, 0, 0]]) / [2, 1, 1],
    )
    for other in (
        Crystal("x", "X", one.lattice @ rotation, one.numbers, one.frac),
        Crystal("x", "X", one.lattice, one.numbers[order], one.frac[order]),
        Crystal("x", "X", one.lattice, one.numbers, one.frac + rng.random(3)),
        Crystal("x", "X", shear @ one.lattice, one.numbers, one.frac @ np.linalg.inv(shear)),
        doubled,
    ):
        torch.testing.assert_close(output(net, other), expected, rtol=1e-4, atol=1e-5)


def test_output_is_linear_in_the_vector() -> None:
    torch.manual_seed(0)
    net, graph = Network(SMALL, 1).eval(), Cgcnn({"neighbours": 12, "cutoff": 8.0})
    data = graph.collate([graph.build(crystal(1)), graph.build(crystal(2))])
    vector = net.vector(data)
    assert vector.shape == (2, SMALL["hidden"])
    assert torch.equal(net.out(vector), net(data))
