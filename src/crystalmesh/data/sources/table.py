"""Tables without atoms, CSV plain or gzip-compressed: an id, perhaps a formula, and values."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystalmesh.data.entries import PACKED, Entry, Watch, broken_gzip, opened
from crystalmesh.errors import CrystalmeshError

LABELS: dict[str, tuple[str, ...]] = {}  # every table has its own columns


def read(
    path: Path, advance: Watch | None = None, id: str = "", formula: str = ""
) -> Iterator[Entry]:
    """Yield the rows of a table in its order, as records without atoms.

    Several numbers in one cell, parted by blanks, are a label of several numbers.

    Args:
        path: the file; its first line names the columns; of two of one name the second is `name.1`.
        advance: called now and then with the number of bytes of the file read since the last call.
        id: the column that holds the ids; without it, a row is known by its number, from 0.
        formula: the column that holds the chemical formula, if there is one.

    Raises:
        CrystalmeshError: the file is missing or broken, lacks a column, or a row has not one value
            for each column.
    """
    position = 0
    try:
        with opened(path, advance) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            table = csv.reader(text, strict=True)
            header = _named(next(table, []))
            for name in (id, formula):
                if name and name not in header:
                    names = ", ".join(header)
                    raise CrystalmeshError(f"{path}: no column '{name}' among its columns: {names}")
            for row in table:
                if len(row) != len(header):
                    raise CrystalmeshError(
                        f"{path}: line {table.line_num}: {len(row)} values for {len(header)}"
                        " columns; get the file again"
                    )
                columns = dict(zip(header, row, strict=True))
                yield Entry(
                    position,
                    columns[id] if id else str(position),
                    None,
                    (),
                    np.empty((0, 3)),
                    {name: _value(cell) for name, cell in columns.items() if cell.strip()},
                    columns=columns,
                    bare=True,
                    formula=columns[formula] if formula else "",
                )
                position += 1
    except PACKED as error:
        raise broken_gzip(path, position, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CrystalmeshError(
            f"{path}: broken table after {position} whole rows ({error}); get the file again"
        ) from error
    if position == 0:
        raise CrystalmeshError(f"{path}: a table without a row; see what the file is")


def _named(header: list[str]) -> list[str]:
    """The names of the columns; the second `a` is called a.1, the third a.2."""
    return [
        f"{name}.{before}" if (before := header[:place].count(name)) else name
        for place, name in enumerate(header)
    ]


def _value(cell: str) -> Any:
    """A number where it is one, or a row of them, else the text."""
    try:
        numbers = [float(part) for part in cell.split()]
    except ValueError:
        return cell
    return numbers[0] if len(numbers) == 1 else numbers
