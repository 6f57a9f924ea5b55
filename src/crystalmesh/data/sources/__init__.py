"""Formats of raw files, one module each: a new format is one new file in this folder.

A module has `read(path, advance, **settings)`, which yields entries as a stream, and `LABELS`: of
each label that a dataset of this format has if it declares none, the names it may have in a file.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from crystalmesh.data.entries import Entry, Watch
from crystalmesh.errors import CrystalmeshError


class Format(Protocol):
    """What a module in this folder is."""

    LABELS: Mapping[str, tuple[str, ...]]

    def read(self, path: Path, advance: Watch | None = None, **settings: Any) -> Iterator[Entry]:
        """Yield the entries of a file in its order.

        Raises:
            CrystalmeshError: the file is missing, broken, or not of this format.
        """
        ...


def known() -> list[str]:
    """The names of all formats."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def source(format: str) -> Format:
    """The module of a format.

    Raises:
        CrystalmeshError: there is none of this name.
    """
    if format not in known():
        raise CrystalmeshError(f"no format '{format}'; known: {', '.join(known())}")
    found: Any = importlib.import_module(f"{__name__}.{format}")
    checked: Format = found
    return checked


def read(
    format: str, path: Path, advance: Watch | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[Entry]:
    """The entries of a file of a format.

    Args:
        format: name of a module in this folder.
        path: the file.
        advance: called now and then with the number of bytes of the file read since the last call.
        settings: further arguments of the format's `read`.

    Raises:
        CrystalmeshError: unknown format or setting; the file is missing or broken.
    """
    module, settings = source(format), settings or {}
    allowed = list(inspect.signature(module.read).parameters)[2:]
    for name in settings:
        if name not in allowed:
            raise CrystalmeshError(
                f"format {format}: no setting '{name}'; it has {', '.join(allowed) or 'none'}"
            )
    return module.read(path, advance, **settings)
