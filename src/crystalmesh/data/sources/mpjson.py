"""Raw Materials Project JSON, read as a stream: entries come one at a time, whatever the size."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson.backends.yajl2_c as ijson
import numpy as np
from ijson.common import JSONError

from crystalmesh.data.entries import BLOCK, PACKED, Entry, Species, Watch, broken_gzip, opened
from crystalmesh.errors import CrystalmeshError

LONGEST = 64 << 20  # bytes of one entry; the longest of the Materials Project have some 100 KiB
DEEPEST = 1000  # brackets within brackets; a crystal has six
# Python and pandas write these, JSON knows them not: outside a string each is made a string.
# The word stands first in the pattern, which makes the search some thirty times faster.
NAN = re.compile(rb"NaN(?<=[\s\[:,]NaN)(?=[\s\]},]|$)")
INFINITY = re.compile(rb"Infinity(?<=[\s\[:,]Infinity)(?=[\s\]},]|$)")
MINUS_INFINITY = re.compile(rb"-Infinity(?<=[\s\[:,]-Infinity)(?=[\s\]},]|$)")

# Labels by their names in matminer's dataframe, then in the API's documents, newer before older:
# e_form [eV/atom], gap [eV], mu_b [Bohr magneton/cell], k_vrh, g_vrh [GPa], n (refractive index).
LABELS = {
    "e_form": ("e_form", "formation_energy_per_atom"),
    "gap": ("gap pbe", "band_gap"),
    "mu_b": ("mu_b", "total_magnetization"),
    "k_vrh": (
        "bulk modulus", "bulk_modulus.vrh", "bulk_modulus.k_vrh", "bulk_modulus", "k_vrh"
    ),
    "g_vrh": (
        "shear modulus", "shear_modulus.vrh", "shear_modulus.g_vrh", "shear_modulus", "g_vrh"
    ),
    "n": ("n",),
}  # fmt: skip


def read(path: Path, advance: Watch | None = None, id: str = "mpid") -> Iterator[Entry]:
    """Yield the entries of a raw file in its order.

    Both shapes are read, plain or gzip-compressed: matminer's dataframe JSON (an object with
    `columns` and `data`) and a list of summary documents of the Materials Project API.

    Args:
        path: the file.
        advance: called now and then with the number of bytes of the file read since the last call.
        id: the column of the dataframe that holds the ids; documents have `material_id`.

    Raises:
        CrystalmeshError: the file is not JSON of either shape, or ends too early.
    """
    position = 0
    try:
        with _unpacked(path, None) as stream:
            first = stream.read(BLOCK).lstrip()[:1]
        if first not in (b"[", b"{"):
            raise CrystalmeshError(
                f"{path}: not a JSON object or list; give matminer's dataframe JSON or a list of "
                "Materials Project documents"
            )
        columns = _columns(path, id) if first == b"{" else None
        with _unpacked(path, advance, LONGEST) as stream:
            prefix = "item" if columns is None else "data.item"
            for row in ijson.items(stream, prefix, use_float=True):
                where = f"{path}: entry {position} (from 0)"
                yield (
                    _document(where, position, row)
                    if columns is None
                    else _row(where, position, row, columns, id)
                )
                position += 1
                stream.unread = stream.depth = 0
    except _ExcessError as error:
        raise CrystalmeshError(
            f"{path}: entry {position} (from 0) is {error}: not a crystal; see what the file is"
        ) from error
    except JSONError as error:
        said = " ".join(str(error).split("\n", 1)[0].split())
        raise CrystalmeshError(
            f"{path}: broken JSON after {position} whole entries ({said}); get the file again"
        ) from error
    except PACKED as error:
        raise broken_gzip(path, position, error) from error
    if position == 0:
        raise CrystalmeshError(f"{path}: holds no entries; the list of crystals is empty or absent")


class _ExcessError(Exception):
    """What an entry has too much of."""


class _Json:
    """A byte stream of JSON in which NaN and Infinity outside strings have become strings.

    Attributes:
        unread: bytes since it was last set to zero, of at most `longest`: a small packed file may
            unpack to more than the memory holds.
        depth: brackets opened and not closed since then, those in strings counted as well; of at
            most DEEPEST, as the parser would overflow its stack.
    """

    def __init__(self, stream: Any, longest: float = math.inf) -> None:
        self.stream: Any = stream
        self.longest = longest
        self.rest = b""
        self.unread = self.depth = 0

    def read(self, size: int) -> bytes:
        if size == 0:  # ijson asks whether it gets bytes or text
            return b""
        while True:
            block: bytes = self.stream.read(BLOCK)
            self.unread += len(block)
            if self.unread > self.longest:
                raise _ExcessError(f"longer than {LONGEST >> 20} MiB")
            self.depth += _climb(block, DEEPEST - self.depth)
            text = self.rest + block
            # Cut before a comma: no token spans one, and each keeps the sign before it.
            cut = text.rfind(b",") if block else len(text)
            self.rest = text[max(cut, 0) :]
            if cut > 0 or not block:
                text = text[:cut]
                for pattern in (NAN, INFINITY, MINUS_INFINITY):
                    text = pattern.sub(rb'"\g<0>"', text)
                return text


def _climb(block: bytes, room: int) -> int:
    """How much deeper the brackets of a block lead in the end; they never may beyond `room`."""
    text = np.frombuffer(block, dtype=np.uint8)
    opened, closed = (text == 91) | (text == 123), (text == 93) | (text == 125)  # [ { and ] }
    steps = (opened.view(np.int8) - closed.view(np.int8))[opened | closed]
    depths = np.cumsum(steps, dtype=np.int64)
    if len(depths) and int(depths.max()) > room:
        raise _ExcessError(f"nested more than {DEEPEST} deep")
    return int(depths[-1]) if len(depths) else 0


@contextlib.contextmanager
def _unpacked(path: Path, watch: Watch | None, longest: float = math.inf) -> Iterator[_Json]:
    with opened(path, watch) as stream:
        yield _Json(stream, longest)


def _columns(path: Path, id: str) -> dict[str, int]:
    """The place of each column; where `columns` follows `data`, the file is read twice."""
    with _unpacked(path, None) as stream:
        columns = next(ijson.items(stream, "columns"), None)
    if not isinstance(columns, list):
        raise CrystalmeshError(
            f"{path}: an object without `columns`: not matminer's dataframe JSON"
        )
    lacking = [name for name in (id, "structure") if name not in columns]
    if lacking:
        names = ", ".join(map(str, columns))
        raise CrystalmeshError(f"{path}: no column '{lacking[0]}' among its columns: {names}")
    return {name: i for i, name in enumerate(columns) if isinstance(name, str)}


def _row(where: str, position: int, row: Any, columns: Mapping[str, int], id: str) -> Entry:
    """The entry in one row of matminer's dataframe."""
    if not isinstance(row, list) or len(row) <= max(columns.values()):
        raise CrystalmeshError(f"{where}: not a row with a value for each of the columns")
    values = {name: row[place] for name, place in columns.items() if name not in (id, "structure")}
    return entry(position, row[columns[id]], row[columns["structure"]], values)


def _document(where: str, position: int, document: Any) -> Entry:
    """The entry in one summary document of the Materials Project API."""
    needed = ("material_id", "structure")
    lacking = list(needed)
    if isinstance(document, dict):
        lacking = [name for name in needed if name not in document]
    if lacking:
        raise CrystalmeshError(f"{where}: not a Materials Project document with '{lacking[0]}'")
    values = {name: value for name, value in document.items() if name not in needed}
    return entry(position, document["material_id"], document["structure"], values)


def entry(position: int, name: Any, structure: Any, values: dict[str, Any]) -> Entry:
    """The parts of a pymatgen structure (a dictionary), read without building one.

    That would take minutes for a whole file. What is wrong with it stands in `fault`.
    """
    lattice, frac = np.full((3, 3), np.nan), np.empty((0, 3))
    species: tuple[Species, ...] = ()
    fault = ""
    try:
        sites = structure["sites"]
        lattice = np.array(structure["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
        frac = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(len(sites), 3)
        species = tuple(
            tuple((str(s["element"]), float(s["occu"])) for s in site["species"]) for site in sites
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # A null structure is one entry's fault and not the file's.
        fault = "null" if structure is None else f"{type(error).__name__}: {error}"
    return Entry(
        position=position,
        id="" if name is None else str(name),
        lattice=lattice,
        species=species,
        coordinates=frac,
        labels={label: value for label, value in values.items() if value is not None},
        fault=fault,
    )
