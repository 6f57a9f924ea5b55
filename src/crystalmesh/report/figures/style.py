"""What all figures share: style, colours of the methods, panels, axes and legends."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import unit

WIDTH = 6.7  # inches, the document's line
STYLE: Any = {
    "svg.hashsalt": "crystalmesh",  # else the ids in the file are random
    "svg.fonttype": "path",  # the picture looks alike where the font is missing
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
}
# Okabe and Ito's colours, told apart by all readers; models take them in the order of the runs.
# After them come Paul Tol's muted ones.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255",
    "#999933", "#44AA99", "#AA4499", "#661100", "#6699CC", "#888888",
)  # fmt: skip
MARKERS = "os^D"  # with each of them all colours
DASHES: Sequence[Any] = ("-", "--", ":", "-.")
LINES = 6  # in one panel
NARROW = 4.0  # largest over smallest: errors nearer than this need no logarithmic axis
# Inches: a legend's letter on the mean, a handle with its space, a line.
LETTER, HANDLE, LINE = 0.055, 0.45, 0.13


@dataclass(frozen=True)
class Drawing:
    """A figure with the words that the document and a screen reader need."""

    name: str
    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Looks:
    """One colour and marker for each method of a study, the same in all of its figures."""

    project: Project
    methods: Sequence[tuple[str, str, bool]]

    @classmethod
    def of(cls, context: Context, variants: bool = False) -> "Looks":
        """Networks first: they are in most figures, and no two have the same colour.

        With `variants`, those of the table of ablations have colours too, after the others.
        """
        models = context.project.params.models
        found = methods([*context.plain, *(context.found if variants else ())])
        return cls(context.project, sorted(found, key=lambda m: models[m[0]].training is None))

    def colour(self, result: Result) -> str:
        return COLOURS[self.methods.index(result.method) % len(COLOURS)]

    def marker(self, result: Result) -> str:
        return MARKERS[self.methods.index(result.method) // len(COLOURS) % len(MARKERS)]

    def dashes(self, result: Result) -> Any:
        """The line's style, where there are no markers."""
        return DASHES[self.methods.index(result.method) // len(COLOURS) % len(DASHES)]

    def lines(self, drawn: Sequence[Result]) -> list[Line2D]:
        """As `handles`, for figures of lines without markers."""
        found = self.handles(drawn)
        each = {results.title(self.project, r): r for r in drawn}
        for handle in found:
            handle.set_marker("")
            handle.set_linestyle(self.dashes(each[str(handle.get_label())]))
        return found

    def handles(self, drawn: Sequence[Result]) -> list[Line2D]:
        """The methods that are drawn, each once, in their colours."""
        each = {r.method: r for r in drawn}
        return [
            Line2D(
                [], [], color=self.colour(r), marker=self.marker(r), markersize=3,
                label=results.title(self.project, r),
            )
            for r in sorted(each.values(), key=lambda r: self.methods.index(r.method))
        ]  # fmt: skip


def grid(panels: int, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in rows of at most `columns`; `height` inches a row."""
    # A lone panel as wide as the line looks lost, and one of its share has no room for a legend.
    width = WIDTH * min(1.0, max(panels, 0.55 * columns) / columns)
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    return figure, axes


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend above all panels, in as many columns as the figure is wide; grows the figure."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    width, height = figure.get_size_inches()
    columns = int(width // (LETTER * longest + HANDLE))
    columns = max(1, min(columns, len(handles)))
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)  # as few as these rows need
    figure.set_size_inches(width, height + LINE * rows)
    figure.legend(
        handles=list(handles), loc="outside upper center", ncols=columns, columnspacing=1.2
    )


def legend_beside(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend to the right of all panels, its lines wrapped; grows the figure where it must."""
    labels = [wrapped(str(handle.get_label()), 28) for handle in handles]
    width, height = figure.get_size_inches()
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_size_inches(width, max(height, LINE * lines + 2 * LINE))
    figure.legend(handles=list(handles), labels=labels, loc="outside right center", fontsize=6)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most so many letters."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def axis_title(result: Result, of: str = "test") -> str:
    """The metric with its unit, as a panel's axis names it."""
    return f"{of} {result.quantity.metric} / {unit(result.quantity)}"


def error_axis(ax: Axes) -> None:
    """A logarithmic axis with plain numbers, where what is drawn spans more than a little."""
    low, high = ax.dataLim.intervaly
    if low <= 0 or high < NARROW * low:
        return
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5), numticks=12))
    ax.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:,g}"))
    ax.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of the middle 99.8 % of values, a little widened: one outlier is no axis."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = 0.04 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def mix(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white (share > 0) or with black (share < 0)."""
    other = 1.0 if share > 0 else 0.0
    r, g, b = (abs(share) * other + (1 - abs(share)) * part for part in to_rgb(colour))
    return r, g, b


# Which results a figure shows ---------------------------------------------------------------------


def methods(found: Sequence[Result]) -> list[tuple[str, str, bool]]:
    """Each method once."""
    return list(dict.fromkeys(r.method for r in found))


def by_target(found: Sequence[Result]) -> Iterator[list[Result]]:
    """The results of each target in turn."""
    for target in dict.fromkeys(r.target for r in found):
        yield [r for r in found if r.target == target]


def network(project: Project, result: Result) -> bool:
    """Whether the run trains a network, and on all it learns from anew."""
    return project.params.models[result.run.model].training is not None and not result.transferred


def comparable(group: Sequence[Result]) -> list[Result]:
    """Of one target's results those with the crystals that most methods share."""
    groups: dict[object, list[Result]] = {}
    for result in group:
        groups.setdefault(result.parts, []).append(result)
    return max(groups.values(), key=lambda g: len(methods(g)), default=[])


def best(found: Sequence[Result], number: int = LINES) -> list[Result]:
    """The best results of one target, in the order in which they come."""
    kept = sorted(found, key=badness)[:number]
    return [result for result in found if result in kept]


def badness(result: Result) -> float:
    """Less is better, whatever the metric."""
    return -result.value if result.classes else result.value


def train_size(result: Result) -> int:
    """Training crystals."""
    return len(result.train)
