"""Sums over the processes that share a batch, which batch normalisation needs.

With one process, as by default, nothing is sent and every value is what it was, bit for bit. With
several, each has some of the batch's crystals, and the networks are the same functions of the whole
batch, with the same gradients, up to rounding.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether this process is one of several of a training."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process, from 0; the first one writes."""
    return dist.get_rank() if several() else 0


def gathered(value: Any) -> list[Any]:
    """The value of each process, in the order of processes."""
    if not several():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def summed(values: Tensor) -> Tensor:
    """The sum over processes, without a gradient."""
    if not several():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def averaged(mean: Tensor, rows: int, count: int) -> Tensor:
    """The mean over the `count` rows of all processes, from that over the `rows` of this one."""
    return summed(mean * (rows / count)) if several() else mean


def counted(rows: Tensor) -> int:
    """The number of rows of all processes, from the rows of this one."""
    return int(summed(rows.new_tensor(len(rows), dtype=torch.int64))) if several() else len(rows)
