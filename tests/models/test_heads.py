"""Heads: forces are the slope of the energy, and do what forces do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crystalmesh.config.schema import Target
from crystalmesh.data.crystals import Crystal
from crystalmesh.models import network
from crystalmesh.models.heads import Head, distances
from crystalmesh.represent.graph import Atoms, Radius
from tests.represent.test_graph import random_crystal
from tests.represent.test_graph_free import molecule

CUTOFF = 4.0  # Angstrom
SETTINGS: dict[str, Any] = {
    "atom": 8, "filters": 6, "interactions": 2, "gaussians": 10, "gaussian_max": CUTOFF,
    "cutoff": CUTOFF, "readout": "sum",
}  # fmt: skip
ENERGY = {"title": "energy", "label": "energy", "unit": "eV", "range": (-9, 9)}
FORCES = ENERGY | {"label": "forces", "level": "atom", "size": 3, "gradient_of": "energy"}
HEAD = Head({"energy": Target.model_validate(ENERGY), "forces": Target.model_validate(FORCES)})
GRAPH = Atoms({"cutoff": CUTOFF})
SYSTEMS = [
    molecule(0, 7), molecule(1, 12), random_crystal(2, 3), random_crystal(5, 1), molecule(3, 1),
]  # fmt: skip


def net(outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return network("schnet", SETTINGS, outputs).double().eval()


def batch_of(systems: Sequence[Crystal]) -> dict[str, Tensor]:
    return GRAPH.collate([GRAPH.build(one) for one in systems])


def with_positions(one: Crystal, positions: np.ndarray) -> Crystal:
    places = positions if one.cell is None else positions @ np.linalg.inv(one.cell)
    return Crystal(one.id, one.formula, one.cell, one.numbers, places)


def slopes(system: Crystal, step: float = 1e-4) -> np.ndarray:
    """Minus the slope of the energy along each coordinate, by central differences."""
    own, batch = net(), batch_of([system])
    found = np.zeros((len(system.numbers), 3))
    for place in np.ndindex(found.shape):
        for sign in (1, -1):
            moved = batch["positions"].clone()
            moved[place] += sign * step
            energy = own(batch | {"distance": distances(moved, batch)})[0, 0]
            found[place] -= sign * float(energy.detach()) / (2 * step)
    return found


@pytest.mark.parametrize("system", SYSTEMS[:4])
def test_forces_are_minus_the_slope_of_the_energy(system: Crystal) -> None:
    _, forces = HEAD(net(), batch_of([system]))
    np.testing.assert_allclose(forces.numpy(), slopes(system), rtol=0, atol=1e-6)
    if len(system.numbers) > 1:  # one atom in a cell has none
        assert forces.abs().max() > 1e-3


def test_a_wrong_sign_would_be_seen() -> None:
    class Wrong(Head):
        def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
            energy, forces = super().__call__(*arguments)
            return energy, -forces

    _, forces = Wrong(HEAD.targets)(net(), batch_of([SYSTEMS[0]]))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(forces.numpy(), slopes(SYSTEMS[0]), rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 20))
def test_forces_add_up_to_zero_and_turn_with_the_system(seed: int, atoms: int) -> None:
    system = molecule(seed, atoms)
    energy, forces = HEAD(net(), batch_of([system]))
    np.testing.assert_allclose(forces.sum(dim=0).numpy(), 0, atol=1e-10)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turned = with_positions(system, system.positions @ turn + [1.0, -20.0, 3.0])
    other, found = HEAD(net(), batch_of([turned]))
    np.testing.assert_allclose(other.numpy(), energy.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.numpy(), forces.numpy() @ turn, atol=1e-6)


def test_a_batch_is_its_systems_one_by_one() -> None:
    energies, forces = HEAD(net(), batch_of(SYSTEMS))
    each = [HEAD(net(), batch_of([one])) for one in SYSTEMS]
    assert (energies.shape, forces.shape) == ((5,), (sum(len(s.numbers) for s in SYSTEMS), 3))
    torch.testing.assert_close(energies, torch.cat([one[0] for one in each]))
    torch.testing.assert_close(forces, torch.cat([one[1] for one in each]))
    assert (each[4][1] == 0).all()  # an atom alone


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(2, 20))
def test_a_molecule_alone_is_one_in_a_large_box(seed: int, atoms: int) -> None:
    alone = molecule(seed, atoms)
    boxed = Crystal("m", "M", 40.0 * np.eye(3), alone.numbers, alone.positions / 40.0)
    for one, other in zip(
        HEAD(net(), batch_of([alone])), HEAD(net(), batch_of([boxed])), strict=True
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_energies_are_those_of_the_graph_without_repeats() -> None:
    """And forces too are nothing that the network has to know of."""
    merged = Radius({"cutoff": CUTOFF})
    expected = net()(merged.collate([merged.build(one) for one in SYSTEMS]))[:, 0]
    torch.testing.assert_close(
        HEAD(net(), batch_of(SYSTEMS))[0], expected.detach(), atol=1e-4, rtol=1e-4
    )
    # at single precision: distances of a graph without repeats are stored so
    plain = net()(batch_of(SYSTEMS))[:, 0]
    torch.testing.assert_close(plain, HEAD(net(), batch_of(SYSTEMS))[0], atol=1e-4, rtol=1e-4)


def test_a_loss_on_forces_has_its_exact_gradient() -> None:
    """Of each weight: the network is differentiated twice."""
    own, batch = net().train(), batch_of(SYSTEMS[:3])

    def loss() -> Tensor:
        return (HEAD(own, batch)[1] ** 2).sum()

    loss().backward()
    for name, weight in own.named_parameters():
        if name in ("out.bias", "hidden.bias", "embedding.weight"):
            continue
        place, step = (0,) * weight.ndim, 1e-5
        assert weight.grad is not None
        with torch.no_grad():
            weight[place] += step
            above = float(loss().detach())
            weight[place] -= 2 * step
            below = float(loss().detach())
            weight[place] += step
        expected = (above - below) / (2 * step)
        assert float(weight.grad[place]) == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_predictions_are_made_without_gradients_around() -> None:
    own = net()
    expected = HEAD(own, batch_of(SYSTEMS))
    with torch.inference_mode():
        found = HEAD(own, batch_of(SYSTEMS))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


def test_without_gradients_a_head_gives_the_columns_of_its_network() -> None:
    classes = Target.model_validate(ENERGY | {"kind": "classification", "classes": 3})
    head = Head(
        {"a": Target.model_validate(ENERGY), "b": classes, "c": Target.model_validate(ENERGY)}
    )
    own, batch = net(5), batch_of(SYSTEMS[:2])
    outputs = own(batch)
    found = head(own, batch)
    assert not head.gradients
    assert [one.shape for one in found] == [(2,), (2, 3), (2,)]
    assert torch.equal(torch.cat([found[0][:, None], found[1], found[2][:, None]], 1), outputs)


def test_all_kinds_of_targets_stand_on_one_network() -> None:
    """A number and several of the system, numbers of each atom, and a gradient: each its own."""
    targets = {
        "energy": ENERGY,
        "charges": ENERGY | {"level": "atom"},
        "forces": FORCES,
        "spectrum": ENERGY | {"size": 4},
        "pairs": ENERGY | {"level": "atom", "size": 2},
    }
    head = Head({name: Target.model_validate(one) for name, one in targets.items()})
    own, batch = net(8), batch_of(SYSTEMS)
    energies, charges, forces, spectra, pairs = head(own, batch)
    systems, atoms = own.with_atoms(batch)  # type: ignore[operator]
    torch.testing.assert_close(energies, systems[:, 0].detach())
    torch.testing.assert_close(charges, atoms[:, 1:2].detach())
    torch.testing.assert_close(spectra, systems[:, 2:6].detach())
    torch.testing.assert_close(pairs, atoms[:, 6:].detach())
    torch.testing.assert_close(forces, HEAD(own, batch)[1])
    without = head.columns(own(batch))  # as where only numbers of systems are asked for
    assert [len(one) for one in without] == [5, 0, 0, 5, 0]
