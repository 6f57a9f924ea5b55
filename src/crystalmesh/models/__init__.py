"""Tensors -> prediction: one readable file a network, no data handling in here."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def network(architecture: str, settings: Mapping[str, Any], outputs: int) -> nn.Module:
    """The network of `crystalmesh.models.<architecture>`: a batch [c crystals] -> [c, outputs]."""
    built: nn.Module = importlib.import_module(f"crystalmesh.models.{architecture}").Network(
        settings, outputs
    )
    return built


def update_running(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """What nn.BatchNorm1d does with the statistics of a training batch of `rows` rows."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    momentum = 0.1 if norm.momentum is None else norm.momentum
    with torch.no_grad():
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), momentum)
        norm.num_batches_tracked.add_(1)
