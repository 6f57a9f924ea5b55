"""A table for programs and for people, and how values are printed in it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crystalmesh import files
from crystalmesh.config.schema import Run, Target

NONE = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A printed column: a heading, perhaps under a common heading, with the unit below."""

    title: str
    group: str = ""
    left: bool = False


@dataclass
class Table:
    """A table for programs (`keys`, `rows`) and the same for people (`columns`, `cells`).

    Attributes:
        name: of its files.
        keys: the columns of the CSV.
        columns: those that are printed; without any, the table is a CSV only.
        title, note: what stands above it on the result site.
    """

    name: str
    keys: Sequence[str]
    columns: Sequence[Column]
    title: str = ""
    note: str = ""
    rows: list[Sequence[Any]] = field(default_factory=list)
    cells: list[Sequence[str]] = field(default_factory=list)

    def add(self, row: Sequence[Any], cells: Sequence[str] | None) -> None:
        """Append a row; without cells it stands in the CSV only."""
        self.rows.append(row)
        if cells is not None:
            self.cells.append(cells)

    def merge(self) -> None:
        """Leave the first cell empty where it repeats the one above: the rows are one group."""
        first = [cells[0] for cells in self.cells]
        for place in range(1, len(first)):
            if first[place] == first[place - 1]:
                self.cells[place] = ["", *self.cells[place][1:]]

    def write(self, folder: Path) -> None:
        """Write NAME.csv and, where there is something to print, NAME.json."""
        files.write_csv(folder / f"{self.name}.csv", self.keys, self.rows)
        if self.columns:
            content = {
                "title": self.title,
                "note": self.note,
                "columns": [{"title": c.title, "left": c.left} for c in self.columns],
                "groups": self._groups(),
                "rows": self.cells,
            }
            files.write_json(folder / f"{self.name}.json", content)

    def _groups(self) -> list[dict[str, Any]]:
        """Columns under one common heading: its text, first and last + 1 column."""
        groups: list[dict[str, Any]] = []
        for place, column in enumerate(self.columns):
            if groups and column.group and groups[-1]["title"] == column.group:
                groups[-1]["end"] = place + 1
            else:
                groups.append({"title": column.group, "start": place, "end": place + 1})
        return groups if any(group["title"] for group in groups) else []


def count(number: int | None) -> str:
    """A count with commas at the thousands."""
    return NONE if number is None else f"{number:,}"


def shown(value: float | None, target: Target, digits: int = 3) -> str:
    """A metric as printed: accuracy with one decimal, an error with `digits`."""
    if value is None:
        return NONE
    value = round(value, 9)  # sums in another order are printed alike
    text = f"{value:.1f}" if target.kind == "classification" else f"{value:.{digits}f}"
    return text.replace("-", "−")


def unit(target: Target) -> str:
    """The metric's unit as printed."""
    return "%" if target.kind == "classification" else target.unit.replace("log10", "log₁₀")


def heading(target: Target) -> str:
    """The target with its metric and unit, as a row of a table names it."""
    return f"{target.title} ({target.metric}, {unit(target)})"


def size(run: Run) -> str:
    """The declared size as printed."""
    return count(run.size) if isinstance(run.size, int) else run.size


def span(low: float, high: float, target: Target, digits: int = 3) -> str:
    """An interval as printed."""
    return f"{shown(low, target, digits)} to {shown(high, target, digits)}"


def spread(values: Sequence[float], target: Target, digits: int = 3) -> str:
    """Mean and standard deviation as printed; of one value, the value."""
    text, deviation = shown(statistics.fmean(values), target, digits), deviation_of(values)
    return text if deviation is None else f"{text} ± {shown(deviation, target, digits)}"


def deviation_of(values: Sequence[float | None]) -> float | None:
    """Standard deviation of a sample; None where there are not two numbers."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def change(percent: float) -> str:
    """A change in per cent as printed, with its sign."""
    return f"{percent:+.1f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value as printed."""
    if value >= 0.001:
        return f"{value:.3f}"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(value))
    return f"{value / 10**exponent:.0f} × {power(exponent)}"


def power(exponent: int) -> str:
    """A power of ten as printed."""
    return "10" + str(exponent).translate(SUPERSCRIPT)
