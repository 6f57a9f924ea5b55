"""The network on automorphisms: the order of operations, and that it can learn space groups."""

import pytest
import torch
from torch import Tensor

from crystalmesh.errors import CrystalmeshError
from crystalmesh.models.automorphisms import Network
from tests.represent.test_automorphisms import MAKER, general


def net(outputs: int = 3) -> Network:
    torch.manual_seed(0)
    return Network({"width": 8}, outputs).double().eval()


def batch(*numbers: int) -> dict[str, Tensor]:
    made = MAKER.collate([MAKER.build(general(number, 0)) for number in numbers])
    return {k: v.double() if v.is_floating_point() else v for k, v in made.items()}


def test_the_order_of_operations_says_nothing() -> None:
    network, joined = net(), batch(1, 62, 225)
    values = network(joined)
    size = int(joined["pointer"][1])
    last = joined["pointer"][-2:].tolist()
    order = torch.arange(last[1])
    order[last[0] :] = order[last[0] :].flip(0)
    other = joined | {key: joined[key][order] for key in ("operations", "many")}
    assert size == 1
    torch.testing.assert_close(network(other), values)


def test_operations_that_are_alike_count_as_often_as_they_occur() -> None:
    joined = batch(225)
    repeated = joined["many"].long()
    apart = {
        "operations": joined["operations"].repeat_interleave(repeated, dim=0),
        "many": torch.ones(int(repeated.sum()), dtype=torch.float64),
        "pointer": torch.tensor([0, int(repeated.sum())]),
    }
    torch.testing.assert_close(net()(apart), net()(joined))


def test_it_learns_space_groups_from_one_crystal_each() -> None:
    """And knows another crystal of the same group, cut differently."""
    numbers = [2, 14, 62, 63, 139, 166, 194, 225, 227]
    torch.manual_seed(0)
    network = Network({"width": 32}, len(numbers))
    made = [MAKER.collate([MAKER.build(general(n, seed)) for n in numbers]) for seed in (0, 1)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(made[0]), torch.arange(len(numbers)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network(made[1]).argmax(dim=1).tolist() == list(range(len(numbers)))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(CrystalmeshError, match=r"network \(automorphisms\): widht: unknown"):
        Network({"widht": 8}, 1)
