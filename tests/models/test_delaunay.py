"""The network on the complex: orbits and all parts alike, invariances, exact gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.models.delaunay import Layer, Messages, Network, Settings, Update
from crystalmesh.represent.complex import VARIANTS, collate, padded, rows
from tests.represent.test_complex import CRYSTALS, FULL, REDUCED, SETTINGS, moved, some

SMALL: dict[str, Any] = {"width": 8, "layers": 2, "gaussians": 10}
ELASTIC, DESCRIBED = (VARIANTS[name](SETTINGS) for name in ("elastic", "described"))
PARTS = ("edges", "faces", "cells")
STACKING = {"steps": 10, "part": 20, "freedom": 4.0}
FROZEN = [-0.1848519120254462, -0.07905623748240323]


def net(parts: str, outputs: int = 2, **more: bool) -> Network:
    torch.manual_seed(0)
    return Network(SMALL | {"parts": parts} | more, outputs).double().eval()


def double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


def output(network: Network, maker: Any, *crystals: Crystal) -> Tensor:
    with torch.no_grad():
        values: Tensor = network(double(collate([maker.build(one) for one in crystals])))
    return values


@settings(max_examples=25, deadline=None)
@given(**CRYSTALS)
def test_one_part_of_each_orbit_tells_what_all_of_them_do(seed: int, name: str) -> None:
    one = some(seed, name)
    for network in (*map(net, PARTS), net("edges", contrast=True, norm=False, local=True)):
        torch.testing.assert_close(
            output(network, REDUCED, one), output(network, FULL, one), rtol=0, atol=1e-6
        )


@settings(max_examples=40, deadline=None)
@given(**CRYSTALS)
def test_rotation_reflection_origin_order_cell_and_supercell(seed: int, name: str) -> None:
    one = some(seed, name)
    other = moved(one, seed)
    for network in (net("cells", contrast=True), net("cells", norm=False, local=True)):
        for maker in (REDUCED, FULL):
            torch.testing.assert_close(
                output(network, maker, one), output(network, maker, other), rtol=0, atol=2e-6
            )


@settings(max_examples=20, deadline=None)
@given(**CRYSTALS, more=st.lists(st.integers(1, 200), min_size=9, max_size=9))
def test_rows_of_no_crystal_change_nothing(seed: int, name: str, more: list[int]) -> None:
    both = some(seed, name), some(seed + 1, "random")
    batch = double(collate([DESCRIBED.build(one) for one in both]))
    had = {rows(key): len(value) for key, value in batch.items() if "_pointer" not in key}
    sizes = {kind: n + by for (kind, n), by in zip(sorted(had.items()), more, strict=True)}
    wide = padded(batch, sizes)
    assert all(len(v) == sizes[rows(k)] for k, v in wide.items() if "_pointer" not in k)
    for network in (*map(net, PARTS), net("edges", contrast=True, norm=False, local=True)):
        gradients = []
        for one in (batch, wide):
            network.zero_grad()
            outputs = network(one)[:2]
            outputs.square().sum().backward()
            weights = [p.grad.clone() for p in network.parameters() if p.grad is not None]
            gradients.append([outputs.detach(), *weights])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("parts", "local"), [*((p, False) for p in PARTS), ("edges", True)])
def test_a_batch_is_its_crystals(parts: str, local: bool) -> None:
    crystals = [some(seed, "random") for seed in (1, 2, 3)]
    network = net(parts, local=local)
    alone = torch.cat([output(network, REDUCED, one) for one in crystals])
    torch.testing.assert_close(output(network, REDUCED, *crystals), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        *((p, {}) for p in PARTS),
        ("edges", {"contrast": True}),
        ("cells", {"norm": False}),
        ("edges", {"local": True}),
    ],
)
def test_it_sees_elements_lengths_and_angles(parts: str, more: dict[str, bool]) -> None:
    """What tells crystals apart reaches the output, and every weight gets a gradient."""
    one = some(1, "random")
    stretched = Crystal("x", "X", one.lattice * 1.02, one.numbers, one.frac)
    sheared = Crystal("x", "X", one.lattice @ (np.eye(3) + 0.02), one.numbers, one.frac)
    other = Crystal("x", "X", one.lattice, one.numbers % 80 + 1, one.frac)
    network = net(parts, **more)
    values = output(network, REDUCED, one, stretched, sheared, other)
    gaps = (values[:, None] - values[None]).abs().amax(dim=2) + torch.eye(4)
    assert float(gaps.min()) > 1e-6
    batch = collate([REDUCED.build(one), REDUCED.build(stretched)])
    network.float()(batch).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert not silent


def test_an_edge_hears_how_much_its_ends_differ() -> None:
    """Ends of another sum are heard anyway; ends of the same sum, with the contrast only."""
    u, v = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ends = torch.tensor([[0, 1], [1, 0]])
    batch = {"edges_ends": ends, "w_ends": torch.ones(4, dtype=torch.float64)}
    for contrast in (False, True):
        torch.manual_seed(0)
        layer = Layer(Settings(**SMALL, parts="edges", contrast=contrast)).double()
        pairs = torch.stack([u, v]), torch.stack([(u + v) / 2] * 2)
        edges = torch.zeros(2, 8, dtype=torch.float64)
        apart, alike = (layer({"atoms": a, "edges": edges}, batch)["edges"] for a in pairs)
        torch.testing.assert_close(apart[0], apart[1], rtol=0, atol=1e-12)  # from either end
        assert torch.allclose(apart, alike) is not contrast


def test_without_the_norm_it_counts_how_much_is_heard() -> None:
    """Twice as much of the same, and as much more of everything: nothing new to a layer norm."""
    x, heard = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for norm in (True, False):
        torch.manual_seed(0)
        update = Update(Settings(**SMALL, norm=norm)).double()
        once, more = update(x, heard), update(x, 2 * heard + 1)
        assert torch.allclose(once, more, rtol=0, atol=1e-3) is norm


def test_a_local_network_is_linear_in_its_parts() -> None:
    """Parts of two crystals with half their weights, as those of one: the mean of both outputs."""
    batch = double(collate([REDUCED.build(some(seed, "random")) for seed in (1, 2)]))
    for local in (True, False):
        network = net("edges", local=local)
        weighted = network.weighted(batch)
        one = {k: v for k, v in weighted.items() if not k.endswith("_pointer")}
        halves = {f"w_{part}": weighted[f"w_{part}"] / 2 for part in ("atoms", "edges")}
        none = {f"of_{part}": torch.zeros_like(one[f"of_{part}"]) for part in ("atoms", "edges")}
        ends = torch.tensor([0, len(batch["numbers"])])
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            apart = network(batch).mean(dim=0)
            whole = one | halves | none | {"atoms_pointer": ends}
            patch.setattr(network, "weighted", lambda _, whole=whole: whole)
            together = network(batch)[0]
        assert torch.allclose(together, apart, rtol=0, atol=1e-9) is local


@pytest.mark.parametrize("more", [{"elastic": True}, {"described": 5}, {"stacking": STACKING}])
def test_what_is_of_the_whole_crystal_goes_into_no_mean_of_parts(more: dict[str, Any]) -> None:
    with pytest.raises(CrystalmeshError, match="local: not together with elastic"):
        Network(SMALL | {"local": True} | more, 1)


def test_gradients_of_messages() -> None:
    rng = np.random.default_rng(0)
    source, target = (torch.from_numpy(rng.integers(0, n, 7)) for n in (4, 3))
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)

    def ours(x: Tensor, w: Tensor) -> Tensor:
        out: Tensor = Messages.apply(x, w, source, target, 3)  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(ours, (x, w))
    plain = torch.zeros(3, 2, dtype=torch.float64).index_add(0, target, x[source] * w)
    torch.testing.assert_close(ours(x, w), plain)


def test_frozen_output() -> None:
    crystals = [some(seed, "random") for seed in (1, 2)]
    values = output(net("cells", 1), REDUCED, *crystals).squeeze(1).tolist()
    assert values == pytest.approx(FROZEN, abs=1e-6)


def test_properties_of_elements_can_be_left_out() -> None:
    plain, full = (Network(SMALL | {"properties": on}, 1) for on in (False, True))
    assert (plain.element.in_features, full.element.in_features) == (92, 92 + 22)
    assert full.elements[1:, 92:].mean(dim=0).abs().max() < 1e-6
    more = Network(SMALL | {"elemental": True}, 1)
    assert more.element.in_features == 92 + 22 + 21
    assert torch.equal(more.elements[:, :114], full.elements)


KNOWN = [some(seed, "random") for seed in range(4)]


def reader(kind: str) -> tuple[Network, Any]:
    """A network that reads more than parts, and what makes its inputs."""
    torch.manual_seed(0)
    more = {"elastic": True, "described": 5, "stacking": STACKING}[kind]
    network = Network(SMALL | {"parts": "edges", kind: more}, 2)
    if network.processes is None:
        return network.double().eval(), ELASTIC if kind == "elastic" else DESCRIBED
    batch = collate([DESCRIBED.build(one) for one in KNOWN])
    support = torch.cat([batch["described"], batch["truss"]], dim=1)
    weights = 0.1 * torch.rand(2, support.shape[1])
    state = {"weights": weights, "support": support, "dual": torch.randn(2, 4)}
    network.processes.load_state_dict(state | {"squared": torch.ones(2)})
    return network.double().eval(), DESCRIBED


@pytest.mark.parametrize("kind", ["elastic", "described", "stacking"])
@settings(max_examples=25, deadline=None)
@given(**CRYSTALS)
def test_what_reads_more_is_invariant_too(kind: str, seed: int, name: str) -> None:
    one, (network, maker) = some(seed, name), reader(kind)
    torch.testing.assert_close(
        output(network, maker, one), output(network, maker, moved(one, seed)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("elastic", "truss"),
        ("described", "truss"),
        ("described", "described"),
        ("stacking", "said"),
    ],
)
def test_it_reads_each_number(kind: str, read: str) -> None:
    """Each counts, those of one crystal for this crystal only."""
    (network, maker), crystals = reader(kind), [some(seed, "random") for seed in (1, 2)]
    batch = collate([maker.build(one) for one in crystals])
    batch = double(batch)
    batch |= {"said": torch.zeros(2, 2, dtype=torch.float64)} if read == "said" else {}
    batch[read].requires_grad_()
    network(batch)[0].sum().backward()
    gradient = batch[read].grad
    assert gradient is not None
    assert (gradient[0] != 0).all()
    assert (gradient[1] == 0).all()


def test_what_it_is_not_told_it_asks_its_processes() -> None:
    network, maker = reader("stacking")
    batch = collate([maker.build(some(seed, "random")) for seed in (1, 9)])
    batch = double(batch)
    assert network.processes is not None
    said = network.processes(torch.cat([batch["described"], batch["truss"]], dim=1))
    with torch.no_grad():
        asked, vector = network(batch), network.vector(batch)
        assert torch.equal(network(batch | {"said": said}), asked)
        assert not torch.allclose(network(batch | {"said": said + 1}), asked)
    assert torch.equal(vector[:, -2:], said)
    assert (said.abs() > 1e-3).all()


def test_what_is_rounded_has_no_gradient() -> None:
    """It would be zero: an error instead, where one is asked for."""
    network, maker = reader("stacking")
    batch = double(collate([maker.build(some(1, "random"))]))
    batch["truss"].requires_grad_()
    with pytest.raises(RuntimeError, match="a process is not differentiated by what it reads"):
        network(batch)
    assert network(batch | {"said": torch.zeros(1, 2, dtype=torch.float64)}).requires_grad
    with torch.no_grad():
        assert network(batch).isfinite().all()


def test_at_first_half_of_what_is_said_counts() -> None:
    torch.manual_seed(0)
    network = Network(SMALL | {"stacking": STACKING}, 3)
    assert torch.equal(network.out.weight[:, -3:], 0.5 * torch.eye(3))


def test_what_is_off_leaves_nothing() -> None:
    torch.manual_seed(0)
    off = {
        "contrast": False,
        "norm": True,
        "local": False,
        "elastic": False,
        "described": 0,
        "stacking": None,
    }
    plain = Network(SMALL | off, 1).state_dict()
    torch.manual_seed(0)
    bare = Network(SMALL, 1).state_dict()
    assert plain.keys() == bare.keys()
    assert all(torch.equal(plain[key], bare[key]) for key in bare)
    of_parts = {"contrast", "traits", "of_atom", "of_edge"}
    options = of_parts | {"truss", "described", "told", "processes"}
    assert not [key for key in bare if not options.isdisjoint(key.split("."))]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(CrystalmeshError, match=r"network \(complex\): widht: unknown"):
        Network({"widht": 8, "layers": 2}, 1)
    with pytest.raises(CrystalmeshError, match="parts"):
        Network(SMALL | {"parts": "volumes"}, 1)
    assert set(VARIANTS) == {"reduced", "full", "sites", "nearest", "elastic", "described"}
    assert VARIANTS["reduced"](SETTINGS).collate is not None
