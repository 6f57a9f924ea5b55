"""By how much two files of the same kind differ."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from crystalmesh import files


def difference(published: Path, made: Path) -> str:
    """By how much two files of the same kind differ: " by ..." or nothing more to say."""
    try:
        if made.suffix == ".safetensors":
            return _by(load_file(published), load_file(made))
        if made.suffix == ".csv":
            return _by(_columns(published), _columns(made))
        if made.suffix == ".json":
            return _by(_numbers(files.read_json(published)), _numbers(files.read_json(made)))
    except Exception as error:  # whatever is wrong with it, the file differs
        return f": cannot be compared ({type(error).__name__})"
    return f": {published.stat().st_size} and {made.stat().st_size} bytes"


def _by(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The largest difference between arrays of the same names."""
    if set(one) != set(other):
        names = sorted(set(one) ^ set(other))
        return f": only one has {names[0]}"
    worst, where, count, total = 0.0, "", 0, 0
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        if a.shape != b.shape:
            return f": {name} has shape {a.shape} instead of {b.shape}"
        total += a.size
        if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
            unequal = int((a != b).sum())
            count += unequal
            where = where or (name if unequal else "")
            continue
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        count += int((gap > 0).sum())
        if gap.size and float(gap.max()) > worst:
            worst, where = float(gap.max()), name
    if not count:
        return " in its bytes alone: all values are equal"
    return f" by up to {worst:.3g} in {count} of {total} values ({where})"


def _columns(path: Path) -> dict[str, Any]:
    """Columns of a CSV file, as numbers where they are."""
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    columns: dict[str, Any] = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        try:
            columns[name] = np.array([float(v or "nan") for v in values])
        except ValueError:
            columns[name] = np.array(values)
    return columns


def _numbers(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a JSON value by its place."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = ((str(i), one) for i, one in enumerate(value))  # type: ignore[assignment]
    else:
        return {place: value if isinstance(value, int | float) else str(value)}
    return {k: v for key, one in parts for k, v in _numbers(one, f"{place}.{key}").items()}
