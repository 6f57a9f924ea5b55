"""npz files of the sGDML kind: many geometries of one molecule, with energies and forces.

Read as a stream, a few rows of every array at a time; pickled objects are never loaded.
"""

import contextlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from crystalmesh.data.entries import Entry, Watch
from crystalmesh.errors import CrystalmeshError

# Units are those of the file: rMD17 and MD17 have kcal/mol and kcal/mol/Angstrom.
LABELS = {"energy": ("E",), "forces": ("F",)}

ROWS = 256  # read at once
NUMBERS, WHOLE, TEXT = "iuf", "iu", "SU"  # kinds of dtypes
PARTS = re.compile(r"(train|val|valid|test)(?:_(\w+))?|idxs_(train|valid|test)")


def read(path: Path, advance: Watch | None = None) -> Iterator[Entry]:
    """Yield the geometries of a file in its order; a row's number is its id.

    Arrays: R [rows, atoms, 3] in Angstrom and Z [atoms] are needed; every other with a row for each
    geometry is a label, of each atom where it is [rows, atoms, ...]; one that is [rows, atoms] may
    be of the geometry, too. Rows that `train_01` and
    `test_01` name have "train" and "test" in the column `split_01`, and "" where none names them.

    Args:
        path: the file.
        advance: called now and then with the number of bytes of the file read since the last call.

    Raises:
        CrystalmeshError: the file is missing or broken, has no R and Z, or an array that is not of
            the kind and shape that it must have.
    """
    try:
        with zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
            yield from _rows(path, archive, stack, advance or (lambda _: None))
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; run the stage that makes it") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise CrystalmeshError(f"{path}: broken npz file ({said}); get the file again") from error


def _rows(
    path: Path, archive: zipfile.ZipFile, stack: contextlib.ExitStack, advance: Watch
) -> Iterator[Entry]:
    members = {_Member.name(one): _Member(archive, one, stack) for one in archive.namelist()}
    lacking = [name for name in ("R", "Z") if name not in members]
    if lacking:
        raise CrystalmeshError(
            f"{path}: no array '{lacking[0]}' among {', '.join(members) or 'none'}: not of sGDML"
        )
    _check(path, members)
    place, charges = members.pop("R"), members.pop("Z").read().tolist()
    count, sites = place.shape[0], len(charges)
    if not all(0 < z < len(chemical_symbols) for z in charges):
        raise CrystalmeshError(f"{path}: Z has a number that is no element's")
    if "r_unit" in members and str(members["r_unit"].read()) not in ("Ang", "Angstrom"):
        raise CrystalmeshError(f"{path}: R is not in Angstrom (r_unit); convert it")
    columns = _columns(path, members, count)
    alike = {n: m for n, m in members.items() if m.shape[:1] == (count,) and not PARTS.fullmatch(n)}
    species = tuple(((chemical_symbols[z], 1.0),) for z in charges)
    size, told = path.stat().st_size, 0
    for start in range(0, count, ROWS):
        rows = min(ROWS, count - start)
        positions = place.read(rows)
        blocks = {name: member.read(rows) for name, member in alike.items()}
        for row in range(rows):
            values = {name: block[row] for name, block in blocks.items()}
            atoms = {n: v for n, v in values.items() if v.ndim and v.shape[0] == sites}
            labels = {n: _plain(v) for n, v in values.items() if n not in atoms or v.ndim == 1}
            number = start + row
            yield Entry(
                number,
                str(number),
                None,
                species,
                positions[row].astype(np.float64),
                labels,
                atoms={n: v.astype(np.float64) for n, v in atoms.items()},
                columns={name: str(texts[number]) for name, texts in columns.items()},
            )
        now = size * (start + rows) // count
        advance(now - told)
        told = now


def _check(path: Path, members: dict[str, "_Member"]) -> None:
    """Raise for the first array that is not of the kind and shape that it must have."""
    shape = members["R"].shape
    frames, atoms = shape[:2] if len(shape) == 3 and min(shape) > 0 else ("frames", "atoms")
    each = [frames, atoms, 3]
    rules: dict[str, tuple[str, str, list[list[int | str]]]] = {
        "R": ("float", NUMBERS, [each]),
        "Z": ("integer", WHOLE, [[atoms]]),
        "E": ("float", NUMBERS, [[frames], [frames, 1]]),
        "F": ("float", NUMBERS, [each]),
    }
    for name in sorted(members, key=lambda one: (one != "R", one)):  # all others go by R
        found = members[name]
        has, kind = list(found.shape), found.dtype.kind
        if name in rules:
            word, kinds, shapes = rules[name]
            good = kind in kinds and has in shapes
            must = f"{word} {' or '.join(map(_shown, shapes))}"
        elif PARTS.fullmatch(name):
            good, must = kind in WHOLE and len(has) == 1, "integer [rows]"
        else:
            one = has[1:] in ([], [1])
            good = has[:1] != [frames] or kind in NUMBERS + "b" or (kind in TEXT and one)
            must = "numbers, or one text for each geometry"
        if not good:
            raise CrystalmeshError(
                f"{path}: {name} is {found.dtype.name} {_shown(has)} and must be {must};"
                " correct the file"
            )


def _shown(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _plain(value: Any) -> Any:
    """A number, or a row of them."""
    return value.item() if value.size == 1 else value.astype(np.float64)


def _columns(path: Path, members: dict[str, "_Member"], count: int) -> dict[str, NDArray[np.str_]]:
    """Which part each row is of, by the arrays of rows that name one."""
    columns: dict[str, NDArray[np.str_]] = {}
    for name in sorted(members):
        found = PARTS.fullmatch(name)
        if found is None:
            continue
        rows = members[name].read()
        if len(rows) and not 0 <= rows.min() <= rows.max() < count:
            raise CrystalmeshError(f"{path}: {name} has a row that R has not; get the file again")
        part = (found[1] or found[3]).replace("valid", "val")
        column = columns.setdefault(
            f"split_{found[2]}" if found[2] else "split", np.full(count, "", dtype="<U5")
        )
        if (column[rows] != "").any():
            raise CrystalmeshError(f"{path}: {name} has a row that another part has too")
        column[rows] = part
    return columns


class _Member:
    """An array of an npz file, read from its first row to its last."""

    @staticmethod
    def name(file: str) -> str:
        return file.removesuffix(".npy")

    def __init__(self, archive: zipfile.ZipFile, file: str, stack: contextlib.ExitStack) -> None:
        self.stream: IO[bytes] = stack.enter_context(archive.open(file))
        version = np.lib.format.read_magic(self.stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, fortran, self.dtype = header(self.stream)
        if self.dtype.hasobject:
            raise CrystalmeshError(
                f"{archive.filename}: {self.name(file)} holds Python objects, which are not read"
            )
        if fortran and len(self.shape) > 1:
            raise CrystalmeshError(
                f"{archive.filename}: {self.name(file)} is in Fortran's order; save it in C's"
            )

    def read(self, rows: int | None = None) -> NDArray[Any]:
        """The next rows; all of them by default."""
        shape = self.shape if rows is None else (rows, *self.shape[1:])
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        content = self.stream.read(size)
        if len(content) < size:
            raise EOFError("an array breaks off")
        return np.frombuffer(content, dtype=self.dtype).reshape(shape)
