"""Extended XYZ, read as a stream: one frame is in memory at a time, parsed by ASE."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ase.io
import numpy as np
from jaxtyping import Float

from crystalmesh.data.entries import PACKED, Entry, Watch, broken_gzip, fractional, opened
from crystalmesh.errors import CrystalmeshError

# Units are those of the file: by ASE's convention eV and eV/Angstrom.
LABELS = {"energy": ("energy",), "forces": ("forces",)}

LONGEST = 1 << 20  # bytes of a line
MOST_ATOMS = 1_000_000  # of a frame
OF_ATOMS = ("energies", "forces", "stresses", "charges", "magmoms")  # what ASE has of every atom


def read(path: Path, advance: Watch | None = None, id: str = "id") -> Iterator[Entry]:
    """Yield the frames of a file in its order.

    What the second line of a frame says is in `labels`, the columns of its atoms in `atoms`. A
    frame that is whole but cannot be understood is an entry with a `fault`.

    Args:
        path: the file, plain or gzip-compressed.
        advance: called now and then with the number of bytes of the file read since the last call.
        id: the key of the second line that holds the id; without it, a frame is known by its place
            in the file, from 0.

    Raises:
        CrystalmeshError: the file is missing, breaks off, or holds no frame.
    """
    position = 0
    try:
        with opened(path, advance) as stream:
            while text := _frame(f"{path}: frame {position} (from 0)", stream):
                yield _entry(position, text, id)
                position += 1
    except PACKED as error:
        raise broken_gzip(path, position, error) from error
    if position == 0:
        raise CrystalmeshError(f"{path}: holds no frame of extended XYZ; see what the file is")


def _frame(where: str, stream: IO[bytes]) -> str:
    """The lines of the next frame; empty at the end of the file."""
    first = b"\n"
    while first and not first.strip():
        first = stream.readline(LONGEST)
    if not first:
        return ""
    digits = first.strip()
    known = digits.isdigit() and len(digits) <= len(str(MOST_ATOMS))  # int() has a limit of its own
    if not known or int(digits) > MOST_ATOMS:
        begins = first[:40].decode("utf-8", errors="replace").strip()
        raise CrystalmeshError(
            f"{where} begins with '{begins}' and not with its number of atoms; get the file again"
        )
    lines = [first]
    for number in range(int(digits) + 1):
        line = stream.readline(LONGEST)
        if not line.endswith(b"\n"):  # half a number is one, too: "-12." of "-12.375"
            what = f"the file breaks off in it, in its line {number + 2}"
            if len(line) == LONGEST:
                what = f"line {number + 2} is too long"
            raise CrystalmeshError(f"{where}: {what}; get the file again")
        lines.append(line)
    return b"".join(lines).decode("utf-8", errors="replace")


def _entry(position: int, text: str, id: str) -> Entry:
    none = np.empty((0, 3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = next(ase.io.iread(io.StringIO(text), index=":", format="extxyz"))
    except Exception as error:  # the parser raises whatever the text leads it into
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Entry(position, str(position), None, (), none, {}, f"frame cannot be read: {said}")
    atoms: Any = found
    labels, arrays = _values(atoms)
    name = str(labels.pop(id, position))
    cell = np.array(atoms.cell[:], dtype=np.float64)
    positions = np.array(atoms.positions, dtype=np.float64)
    species = tuple(((symbol, 1.0),) for symbol in atoms.get_chemical_symbols())
    fault = ""
    if atoms.pbc.any() and not atoms.pbc.all():
        fault = "periodic in some directions only: neither a crystal nor a molecule"
    lattice = cell if atoms.pbc.all() else None
    coordinates = positions if lattice is None else fractional(lattice, positions)
    return Entry(position, name, lattice, species, coordinates, labels, fault, arrays)


def _values(atoms: Any) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "sites ..."]]]:
    """What a frame says of the system, and of each atom."""
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    arrays = {name: values for name, values in results.items() if name in OF_ATOMS}
    arrays |= {n: v for n, v in atoms.arrays.items() if n not in ("numbers", "positions")}
    arrays = {n: np.array(v, dtype=np.float64) for n, v in arrays.items() if v.dtype.kind in "fiub"}
    labels = {}
    for name, value in (atoms.info | results).items():
        if name in OF_ATOMS or value is None:
            continue
        if isinstance(value, np.ndarray) and value.ndim:
            labels[name] = value.ravel()  # a tensor row by row
        else:
            labels[name] = value.item() if isinstance(value, np.ndarray | np.generic) else value
    return labels, arrays
