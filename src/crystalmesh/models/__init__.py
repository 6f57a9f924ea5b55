"""Tensors -> prediction: one readable file a network, no data handling in here."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn


def network(architecture: str, settings: Mapping[str, Any], outputs: int) -> nn.Module:
    """The network of `crystalmesh.models.<architecture>`: a batch [c crystals] -> [c, outputs]."""
    built: nn.Module = importlib.import_module(f"crystalmesh.models.{architecture}").Network(
        settings, outputs
    )
    return built
