"""Tensors -> prediction: one readable file a network, no data handling in here."""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from crystalmesh.errors import CrystalmeshError


def network(architecture: str, settings: Mapping[str, Any], outputs: int) -> nn.Module:
    """The network of `crystalmesh.models.<architecture>`: a batch [c crystals] -> [c, outputs].

    Raises:
        CrystalmeshError: there is no such file.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise CrystalmeshError(
            f"config/models: architecture '{architecture}': no file models/{architecture}.py;"
            f" {hint}"
        )
    built: nn.Module = importlib.import_module(f"crystalmesh.models.{architecture}").Network(
        settings, outputs
    )
    return built
