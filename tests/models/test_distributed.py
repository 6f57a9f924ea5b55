"""Batch normalisation over processes: gradients, and theirs, as in one; in double precision."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from crystalmesh.models.cgcnn import Convolution
from crystalmesh.models.layers import Layer, PooledLayer

ATOMS = (2, 3, 1, 2, 3)  # of each crystal
SHARES = ((0, 3), (3, 5))  # crystals of each process


class Small(nn.Module):
    """Each layer that normalises over a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.layer = Convolution(4, 3), Layer(4, 6)
        self.pooled, self.head = PooledLayer(6, 5), Layer(5, 3)

    def forward(self, atoms: Tensor, edges: Tensor, neighbour: Tensor, pointer: Tensor) -> Tensor:
        rows = self.layer(self.convolution(atoms, edges, neighbour))
        out: Tensor = self.head(self.pooled(rows, pointer))
        return out


def trained(first: int, last: int) -> dict[str, Tensor]:
    """Gradients and statistics of the network after crystals `first` to `last` of the batch.

    And, by `name, again`, gradients of which there is a graph; by `name, twice`, their gradients.
    """
    pointer = torch.tensor([0, *ATOMS]).cumsum(0)
    draw = torch.Generator().manual_seed(1)
    total = int(pointer[-1])
    atoms = torch.randn(total, 4, dtype=torch.double, generator=draw)
    edges = torch.randn(total, 2, 3, dtype=torch.double, generator=draw)
    targets = torch.randn(len(ATOMS), 3, dtype=torch.double, generator=draw)
    crystal = torch.repeat_interleave(torch.arange(len(ATOMS)), torch.tensor(ATOMS))
    # the first and the mirrored atom of the same crystal
    mirrored = (pointer[:-1] + pointer[1:] - 1)[crystal] - torch.arange(total)
    neighbour = torch.stack([pointer[crystal], mirrored], dim=1)
    start, stop = int(pointer[first]), int(pointer[last])
    net = Small().double()
    out = net(
        atoms[start:stop],
        edges[start:stop],
        neighbour[start:stop] - start,
        pointer[first : last + 1] - start,
    )
    loss = ((out - targets[first:last]) ** 2).sum()
    names, weights = zip(*net.named_parameters(), strict=True)
    once = torch.autograd.grad(loss, weights, retain_graph=True)
    again = torch.autograd.grad(loss, weights, create_graph=True)
    along = torch.stack([(g * p.detach().cos()).sum() for g, p in zip(again, weights, strict=True)])
    twice = torch.autograd.grad(along.sum(), weights, materialize_grads=True)
    found = dict(net.named_buffers())
    for what, values in (("", once), (", again", again), (", twice", twice)):
        found |= {name + what: g.detach() for name, g in zip(names, values, strict=True)}
    return found


def process(rank: int, folder: Path) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=len(SHARES))
    torch.save(trained(*SHARES[rank]), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    spawn(process, (tmp_path,), nprocs=len(SHARES))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(SHARES))]
    for name, expected in trained(0, len(ATOMS)).items():
        values = [part[name] for part in parts]
        if "running" in name or "tracked" in name:
            assert all(torch.allclose(value, expected, atol=1e-12) for value in values), name
        else:
            assert torch.allclose(sum(values), expected, atol=1e-12), name
