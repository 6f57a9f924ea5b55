"""Crystal -> tensors: one file a kind of representation, no learning in here."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from crystalmesh.data.crystals import Crystal


class Representation(Protocol):
    """What `crystalmesh.represent.<module>.VARIANTS[<variant>]` makes from its settings."""

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """Arrays of one crystal: indices and shifts, not expanded features."""
        ...

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join crystals to a batch and form their features."""
        ...


def representation(name: str, settings: Mapping[str, Any]) -> Representation:
    """The representation named module.variant, for example `mesh.published`."""
    module, _, variant = name.partition(".")
    found: Representation = importlib.import_module(f"crystalmesh.represent.{module}").VARIANTS[
        variant
    ](settings)
    return found
