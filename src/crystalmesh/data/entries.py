"""Raw entries: what every reader of a source format yields, nothing in it judged yet."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from crystalmesh.errors import CrystalmeshError

Species = tuple[tuple[str, float], ...]
Watch = Callable[[int], None]

GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 1 << 20
PACKED = (EOFError, zlib.error, gzip.BadGzipFile)  # what a broken gzip raises


@dataclass(frozen=True, slots=True)
class Entry:
    """One raw entry.

    Attributes:
        position: place in the file, from 0.
        id: its name in the file, or its position; empty where the file has null.
        lattice: rows a, b, c in Angstrom; None for a system without a cell.
        species: the species of each site as (name, occupancy) pairs.
        coordinates: of each site: fractional with a lattice, else Cartesian in Angstrom.
        labels: what the file says of the system, by the file's own names, or after `chosen` by
            those of the labels; one that is missing or null is absent.
        fault: what is wrong with a structure that could not be read; else empty.
        atoms: what the file says of every atom, [sites] or [sites, k]. A row that has as many
            numbers as there are sites may stand in `labels` as well: targets tell what it is.
        columns: text, as it stands; a name that is not in here is looked for in `labels`.
        bare: a record that has no atoms, as a row of a table.
        formula: of a bare record, if the file has one.
    """

    position: int
    id: str
    lattice: Float[np.ndarray, "3 3"] | None
    species: tuple[Species, ...]
    coordinates: Float[np.ndarray, "sites 3"]
    labels: dict[str, Any]
    fault: str = ""
    atoms: dict[str, Float[np.ndarray, "sites ..."]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    bare: bool = False
    formula: str = ""


def chosen(entry: Entry, labels: Mapping[str, Sequence[str]], columns: Sequence[str]) -> Entry:
    """The entry with what a dataset uses of it, under the dataset's own names.

    Args:
        entry: as the reader gives it.
        labels: of each label the names it may have in the file; the first that has a value counts.
            A dot leads into a dictionary: "bulk_modulus.vrh".
        columns: names of the text that is kept.
    """
    values: dict[str, Any] = {}
    arrays: dict[str, Float[np.ndarray, "sites ..."]] = {}
    for label, keys in labels.items():
        for key in keys:
            value = _found(entry.labels, key)
            inside = isinstance(value, dict) and any(one.startswith(f"{key}.") for one in keys)
            if value is not None and not inside:
                values[label] = value
            if key in entry.atoms:
                arrays[label] = entry.atoms[key]
            if label in values or label in arrays:
                break
    kept = {name: entry.columns.get(name, _text(entry.labels.get(name))) for name in columns}
    return replace(entry, labels=values, atoms=arrays, columns=kept)


def _found(values: Mapping[str, Any], key: str) -> Any:
    if key in values:
        return values[key]
    first, _, rest = key.partition(".")
    inner = values.get(first)
    return _found(inner, rest) if rest and isinstance(inner, dict) else None


def _text(value: Any) -> str:
    """A value as a column has it; empty for what is no text, whole number or truth value."""
    if isinstance(value, bool | np.bool_):
        return "T" if value else "F"
    return str(value) if isinstance(value, str | int | np.integer) else ""


class _Watched(io.RawIOBase):
    """The bytes of a file, with a word to `watch` of every block."""

    def __init__(self, stream: IO[bytes], watch: Watch) -> None:
        self.stream, self.watch = stream, watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.stream.read(len(buffer))
        buffer[: len(block)] = block
        self.watch(len(block))
        return len(block)


@contextlib.contextmanager
def opened(path: Path, watch: Watch | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is gzip-compressed (whatever its name is).

    Args:
        path: the file.
        watch: called now and then with the number of bytes of the file read since the last call.

    Raises:
        CrystalmeshError: there is no such file.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; run the stage that makes it") from error
    with file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        stream: IO[bytes] = file
        if watch is not None:
            stream = io.BufferedReader(_Watched(file, watch), BLOCK)
        if packed:
            with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
                yield unpacked  # type: ignore[misc]  # typeshed gives GzipFile a `read` of its own
        else:
            yield stream


def broken_gzip(path: Path, count: int, error: BaseException) -> CrystalmeshError:
    """The error of a file that does not unpack."""
    return CrystalmeshError(
        f"{path}: broken gzip after {count} whole entries ({error}); get the file again"
    )


def fractional(
    lattice: Float[np.ndarray, "3 3"], positions: Float[np.ndarray, "sites 3"]
) -> Float[np.ndarray, "sites 3"]:
    """Fractional coordinates of positions in Angstrom; zeros where the lattice has no volume.

    By sums and products alone in a fixed order, so that every machine gives the same bits.
    """
    normals = np.cross(np.roll(lattice, -1, axis=0), np.roll(lattice, -2, axis=0))  # [3, 3]
    first = lattice[0] * normals[0]
    volume = first[0] + first[1] + first[2]
    if volume == 0:
        return np.zeros_like(positions)
    terms = positions[:, None, :] * normals[None]  # [sites, 3, 3]
    found: Float[np.ndarray, "sites 3"] = (terms[..., 0] + terms[..., 1] + terms[..., 2]) / volume
    return found
