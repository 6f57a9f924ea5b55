"""What every network must do. A new one is found by its file; nothing has to be written for it.

Each has the settings and reads the representation of the first model in config/models that uses its
file. `NOT_INVARIANT` of its file names what its output, from that representation,
depends on besides the crystal: "sites" (their order), "origin" or "rotation".

Where outputs change on purpose, the frozen ones are made again, on real crystals as all here, by

    python -m tests.models.test_contracts
"""

import copy
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from crystalmesh import models
from crystalmesh.config import project
from crystalmesh.config.check import WITH_SITES
from crystalmesh.data.crystals import Crystal
from crystalmesh.represent import Representation, representation
from tests.represent.prototypes import DIAMOND, PEROVSKITE

ROOT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("frozen.json")
SAME, APART = 1e-5, 1e-4  # outputs are the same, or not
REFUSALS = "once_differentiable|is not differentiated"  # of a gradient that is not there
STEP = 0.01  # of each number, where derivatives are taken
# Parameters without a gradient in training, and why there is none.
SILENT: dict[str, dict[str, str]] = {}

Batch = dict[str, Tensor]


def crystal(lattice: Any, numbers: Any, frac: Any) -> Crystal:
    return Crystal("x", "X", np.array(lattice, float), np.array(numbers), np.array(frac, float))


CRYSTALS = {
    "copper": crystal(1.805 * (1 - np.eye(3)), [29], [[0, 0, 0]]),
    "rock salt": crystal(2.82 * (1 - np.eye(3)), [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "titanium": crystal(
        [[2.95, 0, 0], [-1.475, 1.475 * 3**0.5, 0], [0, 0, 4.68]],
        [22, 22],
        [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]],
    ),
    "tungsten carbide": crystal(
        [[2.906, 0, 0], [-1.453, 1.453 * 3**0.5, 0], [0, 0, 2.837]],
        [74, 6],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.5]],
    ),
    "no symmetry": crystal(
        [[3.9, 0.3, -0.2], [0.5, 4.3, 0.4], [-0.3, 0.6, 4.8]],
        [26, 8, 47, 17],
        [[0.02, 0.05, 0.11], [0.47, 0.58, 0.14], [0.55, 0.07, 0.63], [0.09, 0.52, 0.49]],
    ),
    "perovskite": crystal(3.905 * np.eye(3), [38, 22, 8, 8, 8], PEROVSKITE),
    "silicon": crystal(5.43 * np.eye(3), [14] * 8, DIAMOND),
}
FEW = ("titanium", "tungsten carbide", "no symmetry")  # those of few faces


def module_of(architecture: str) -> ModuleType:
    return importlib.import_module(f"crystalmesh.models.{architecture}")


def architectures() -> list[str]:
    """The files of `crystalmesh.models` that have a network."""
    names = [module.name for module in pkgutil.iter_modules(models.__path__)]
    return [name for name in names if hasattr(module_of(name), "Network")]


every = pytest.mark.parametrize("architecture", architectures())


@cache
def used(architecture: str) -> tuple[dict[str, Any], Representation]:
    """Settings of the network, and what it reads, of the first model that uses it."""
    params = project.load(ROOT).params
    for model in params.models.values():
        if model.architecture == architecture:
            settings = params.representation(model.representation)
            return dict(model.network), representation(model.representation, settings)
    raise AssertionError(f"config/models: no model uses the architecture '{architecture}'")


@cache
def sited(architecture: str) -> Representation:
    """What it reads that has a row for each site: of a model in config/models, or of its kind."""
    params = project.load(ROOT).params
    own = [one.representation for one in params.models.values() if one.architecture == architecture]
    kinds = {name.partition(".")[0]: params.representation(name) for name in own}
    near = [name for name in WITH_SITES if name.partition(".")[0] in kinds]
    name = next(one for one in (*own, *near) if one in WITH_SITES)
    return representation(name, kinds[name.partition(".")[0]])


def read(
    architecture: str, crystals: Sequence[Crystal], maker: Representation | None = None
) -> Batch:
    """The crystals as the network reads them, in double precision."""
    maker = maker or used(architecture)[1]
    batch = maker.collate([maker.build(one) for one in crystals])
    return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


@cache
def named(architecture: str, *names: str) -> Batch:
    """These crystals, or all."""
    return read(architecture, [CRYSTALS[name] for name in names or CRYSTALS])


def made(architecture: str, outputs: int = 1, seed: int = 0) -> nn.Module:
    """The network in double precision and without dropout, for training."""
    torch.manual_seed(seed)
    net = models.network(architecture, used(architecture)[0], outputs).double()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net.train()


def seen(architecture: str, outputs: int = 1, seed: int = 0) -> nn.Module:
    """The network for evaluation, once its normalisations have seen the crystals three times."""
    return copy.deepcopy(_seen(architecture, outputs, seed))


@cache
def _seen(architecture: str, outputs: int, seed: int) -> nn.Module:
    net = made(architecture, outputs, seed)
    with torch.no_grad():
        for _ in range(3):
            net(named(architecture))
    return net.eval()


def output(net: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        out: Tensor = net(batch)
    return out


@every
@pytest.mark.parametrize("outputs", [1, 3])
def test_outputs_are_finite_numbers_of_each_crystal(architecture: str, outputs: int) -> None:
    for net in (made(architecture, outputs), seen(architecture, outputs)):
        values = output(net, named(architecture))
        assert values.shape == (len(CRYSTALS), outputs)
        assert values.isfinite().all()


@every
def test_every_parameter_has_a_gradient(architecture: str) -> None:
    """In training it is there, and at evaluation not zero; then no normalisation undoes it."""
    silent = SILENT.get(architecture, {})
    for net, told in ((made(architecture, 3), False), (seen(architecture, 3), True)):
        net(named(architecture)).square().sum().backward()
        missing = {
            name
            for name, p in net.named_parameters()
            if p.grad is None or not p.grad.isfinite().all() or (told and not p.grad.any())
        }
        assert missing == set(silent)


@every
def test_a_batch_is_its_crystals_in_any_order(architecture: str) -> None:
    net, names = seen(architecture, 3), list(CRYSTALS)
    together = output(net, named(architecture))
    alone = torch.cat([output(net, named(architecture, name)) for name in names])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = read(architecture, [CRYSTALS[names[i]] for i in order])
    torch.testing.assert_close(output(net, mixed), together[order], rtol=0, atol=1e-9)
    # and in training, where the order of a batch must not matter either
    net = made(architecture, 3)
    torch.testing.assert_close(
        output(net, mixed), output(net, named(architecture))[order], rtol=1e-7, atol=1e-9
    )


def described_otherwise(one: Crystal, rng: np.random.Generator) -> dict[str, Crystal]:
    """The same crystal three times: with sites in another order, another origin, and turned."""
    order, turn = rng.permutation(len(one.numbers)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    return {
        "sites": crystal(one.lattice, one.numbers[order], one.frac[order]),
        "origin": crystal(one.lattice, one.numbers, one.frac + rng.random(3)),
        "rotation": crystal(one.lattice @ turn, one.numbers, one.frac),
    }


@every
def test_the_output_is_of_the_crystal_and_not_of_its_description(architecture: str) -> None:
    """But for what the network's file declares, and that is seen."""
    net, rng = seen(architecture, 3), np.random.default_rng(0)
    expected = output(net, named(architecture))
    gaps: dict[str, float] = {}
    for _ in range(2):
        others = [described_otherwise(one, rng) for one in CRYSTALS.values()]
        for kind in others[0]:
            gap = output(net, read(architecture, [other[kind] for other in others])) - expected
            gaps[kind] = max(gaps.get(kind, 0.0), float(gap.abs().max()))
    declared = set(getattr(module_of(architecture), "NOT_INVARIANT", ()))
    assert {kind for kind, gap in gaps.items() if gap > SAME} == declared, gaps
    assert all(gaps[kind] > APART for kind in declared), gaps


@every
def test_numbers_of_atoms_are_declared(architecture: str) -> None:
    """In config/models, where the check of settings reads it: `atoms: true`, or not."""
    params = project.load(ROOT).params
    said = {one.atoms for one in params.models.values() if one.architecture == architecture}
    assert said == {hasattr(module_of(architecture).Network, "with_atoms")}


of_atoms = pytest.mark.parametrize(
    "architecture",
    [name for name in architectures() if hasattr(module_of(name).Network, "with_atoms")],
)


def both(net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Outputs for crystals, and for their atoms."""
    with torch.no_grad():
        crystals, atoms = net.with_atoms(batch)  # type: ignore[operator]
    return crystals, atoms


@of_atoms
def test_each_site_has_an_output_and_crystals_have_their_own(architecture: str) -> None:
    """In the order of the sites; a crystal's is the same whether or not atoms are asked for."""
    net, maker = seen(architecture, 3), sited(architecture)
    crystals, rng = list(CRYSTALS.values()), np.random.default_rng(0)
    batch = read(architecture, crystals, maker)
    whole, atoms = both(net, batch)
    assert torch.equal(whole, output(net, batch))
    usual = output(net, named(architecture))  # from what it reads elsewhere
    torch.testing.assert_close(whole, usual, rtol=0, atol=APART)
    assert atoms.shape == (sum(len(one.numbers) for one in crystals), 3)
    assert atoms.isfinite().all()
    alone = [both(net, read(architecture, [one], maker))[1] for one in crystals]
    torch.testing.assert_close(atoms, torch.cat(alone), rtol=0, atol=1e-9)
    declared = set(getattr(module_of(architecture), "NOT_INVARIANT", ()))
    for one, expected in zip(crystals, alone, strict=True):
        order = rng.permutation(len(one.numbers))
        mixed = crystal(one.lattice, one.numbers[order], one.frac[order])
        others = described_otherwise(one, rng) | {"sites": mixed}
        for kind in set(others) - declared:
            found = both(net, read(architecture, [others[kind]], maker))[1]
            wanted = expected[torch.from_numpy(order)] if kind == "sites" else expected
            torch.testing.assert_close(found, wanted, rtol=0, atol=SAME)


@of_atoms
def test_atoms_alone_teach_every_weight(architecture: str) -> None:
    net = seen(architecture, 2).train()
    batch = read(architecture, list(CRYSTALS.values()), sited(architecture))
    net.with_atoms(batch)[1].square().sum().backward()  # type: ignore[operator]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@every
def test_a_loaded_network_is_the_saved_one(architecture: str) -> None:
    net, other = seen(architecture, 3), seen(architecture, 3, seed=1)
    batch = named(architecture)
    assert not torch.allclose(output(net, batch), output(other, batch))
    other.load_state_dict(net.state_dict())
    assert torch.equal(output(net, batch), output(other, batch))


def moved(net: nn.Module, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A number of the network's outputs as a function of steps [s], and steps of zero.

    Each step moves all weights of one part of the network, or one input of floats, along a
    direction that is drawn. It is small beside the places at which a ReLU has no derivative.
    """
    draw = torch.Generator().manual_seed(1)

    def drawn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=torch.float64, generator=draw)

    weights = {name: p.detach() + 0.1 * drawn(p) for name, p in net.named_parameters()}
    parts = sorted({name.split(".")[0] for name in weights})
    keys = [key for key, value in batch.items() if value.is_floating_point()]
    along = {name: STEP * drawn(value) for name, value in weights.items()}
    inputs = {key: STEP * drawn(batch[key]) for key in keys}
    mixing = drawn(batch[next(key for key in batch if key.endswith("pointer"))][1:])

    def value(steps: Tensor) -> Tensor:
        by = dict(zip([*parts, *keys], steps, strict=True))
        own = {name: p + by[name.split(".")[0]] * along[name] for name, p in weights.items()}
        given = batch | {key: batch[key] + by[key] * inputs[key] for key in keys}
        out: Tensor = torch.func.functional_call(net, own, (given,))
        return (out[:, 0] * mixing).sum() / STEP**2

    return value, torch.zeros(len(parts) + len(keys), dtype=torch.float64, requires_grad=True)


@every
@pytest.mark.parametrize("training", [True, False])
def test_gradients_and_their_gradients(architecture: str, training: bool) -> None:
    """By every weight and input, as finite differences tell; or a second one is refused."""
    net = seen(architecture).train(training)
    value, steps = moved(net, named(architecture, *FEW))
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(value, steps, atol=1e-3, fast_mode=True)
    try:
        assert torch.autograd.gradgradcheck(value, steps, atol=1e-3, fast_mode=True)
    except RuntimeError as error:
        if isinstance(error, GradcheckError) or not re.search(REFUSALS, str(error)):
            raise


def frozen(architecture: str) -> dict[str, list[float]]:
    """Outputs of all crystals, from seed 0."""
    found = {"training": made(architecture), "evaluation": seen(architecture)}
    return {
        mode: [round(float(x), 9) for x in output(net, named(architecture))[:, 0]]
        for mode, net in found.items()
    }


def kept() -> dict[str, dict[str, list[float]]]:
    values: dict[str, dict[str, list[float]]] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return values


def test_each_architecture_has_frozen_outputs() -> None:
    assert sorted(kept()) == architectures()


@every
def test_outputs_are_the_frozen_ones(architecture: str) -> None:
    for mode, values in frozen(architecture).items():
        assert values == pytest.approx(kept()[architecture][mode], rel=0, abs=SAME), mode


@every
def test_a_changed_weight_is_noticed(architecture: str) -> None:
    """Of each parameter, by the frozen outputs of a few crystals."""
    net, batch = seen(architecture), named(architecture, *FEW)
    values = dict(zip(CRYSTALS, kept()[architecture]["evaluation"], strict=True))
    expected = pytest.approx([values[name] for name in FEW], rel=0, abs=SAME)
    assert output(net, batch)[:, 0].tolist() == expected
    draw = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        before = parameter.detach().clone()
        change = torch.randn(before.shape, dtype=before.dtype, generator=draw)
        with torch.no_grad():
            parameter.add_(0.1 * change)
            assert output(net, batch)[:, 0].tolist() != expected, name
            parameter.copy_(before)


if __name__ == "__main__":
    text = json.dumps({name: frozen(name) for name in architectures()}, indent=1)
    FROZEN.write_text(text + "\n", encoding="utf-8")
