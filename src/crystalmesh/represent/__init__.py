"""Crystal -> tensors: one file a kind of representation, no learning in here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from pydantic import Field

from crystalmesh.data.crystals import Crystal

if TYPE_CHECKING:  # tables and figures need no torch, which takes two seconds to import
    from torch import Tensor

Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a setting, in Angstrom
Count = Annotated[int, Field(gt=0)]  # a setting


class Representation(Protocol):
    """What `crystalmesh.represent.<module>.VARIANTS[<variant>]` makes from its settings.

    `NOT_INVARIANT[<variant>]` of the module names what besides the system features depend on, if
    anything: "sites" (their order), "origin", "rotation", "reflection", "translation" (in which
    image of its cell an atom is given), "basis" (of the lattice) or "supercell".
    """

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """Arrays of one crystal: indices and shifts, not expanded features."""
        ...

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join crystals to a batch and form their features."""
        ...


@runtime_checkable
class Padding(Protocol):
    """A representation whose batches can be brought to one size, for CUDA graphs."""

    def rows(self, key: str) -> str:
        """What a row of this array of a batch is."""
        ...

    def padded(self, batch: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """The batch with rows that no crystal of it has, so that its arrays have these sizes."""
        ...


@runtime_checkable
class Positions(Protocol):
    """A representation whose batches hold positions, from which gradients can be taken.

    A batch has positions f64 [n, 3] and, of each edge from an atom to an image of another, the
    rows `source` and `target` of its atoms and shift f64 [e, 3], all in Angstrom: the edge is
    positions[source] + shift - positions[target].
    """

    positions: bool


def padding(maker: Representation) -> Padding | None:
    """The representation, if it can pad its batches."""
    return maker if isinstance(maker, Padding) else None


def representation(name: str, settings: Mapping[str, Any]) -> Representation:
    """The representation named module.variant, for example `mesh.published`."""
    module, _, variant = name.partition(".")
    found: Representation = importlib.import_module(f"crystalmesh.represent.{module}").VARIANTS[
        variant
    ](settings)
    return found
