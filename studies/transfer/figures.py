"""Learning curves over repeated splits, with and without pretraining: the figure of this study."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from crystalmesh.report import results
from crystalmesh.report.figures.style import (
    COLOURS,
    MARKERS,
    Drawing,
    axis_title,
    by_target,
    grid,
    legend_above,
    network,
)
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import count

FAR = 2.0  # times the median of a panel: an error beyond is not drawn


def transfer(context: Context) -> Drawing | None:
    """The error by target crystals, mean and deviation over the repeats, a panel a target."""
    repeated = results.repeated(context.project, context.plain)
    if not repeated:
        return None
    groups = list(by_target(repeated))
    names = list(dict.fromkeys(_name(context, result) for result in repeated))
    figure, axes = grid(len(groups), 2.2, columns=3)
    handles: dict[str, Any] = {}
    for ax, group in zip(axes, groups, strict=True):
        handles |= _panel(context, ax, group, names)
    legend_above(figure, [handles[name] for name in names if name in handles])
    return Drawing(
        "transfer",
        figure,
        "Transfer learning: test error against the number of target crystals, mean and standard "
        "deviation over repeated splits. TL: all weights start from a network trained on formation "
        f"energies. An error of more than {FAR:g} times the median of a panel is in the table "
        "alone.",
        "Line plots of the test error against the number of target crystals.",
    )


def _name(context: Context, result: Result) -> str:
    """The method; where the source is not of all crystals, its size too."""
    title = results.title(context.project, result)
    if result.run.start is None:
        return title.removesuffix(", composition")  # all classical models here
    size = context.project.params.run(result.run.start).size
    return title if size == "all" else f"{title}, source of {size:,}"


def _panel(context: Context, ax: Axes, group: list[Result], names: list[str]) -> dict[str, object]:
    """Draw one target; the handle of each method that is drawn."""
    far = FAR * float(np.median([r.value for r in group]))
    lines: dict[str, list[Result]] = {}
    for result in sorted(group, key=lambda r: len(r.train)):
        if result.value < far:
            lines.setdefault(_name(context, result), []).append(result)
    handles: dict[str, object] = {}
    sizes = sorted({len(r.train) for r in group})
    middle = (len(lines) - 1) / 2
    for place, (name, own) in enumerate(lines.items()):
        spread = [r.of_folds().std(ddof=1) for r in own]
        aside = 1 + 0.02 * (place - middle)  # else the bars lie over each other
        colour = COLOURS[names.index(name) % len(COLOURS)]
        plain = not own[0].transferred
        handles[name] = ax.errorbar(
            [aside * len(r.train) for r in own], [r.of_folds().mean() for r in own], yerr=spread,
            fmt=MARKERS[0 if plain and network(context.project, own[0]) else 1 if plain else 2]
            + ("--" if plain else "-"),
            color=colour, markersize=3, linewidth=0.9, capsize=1.2, elinewidth=0.7, label=name,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(sizes, [count(n) for n in sizes])
    ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    ax.margins(0.15)
    ax.set_title(group[0].quantity.title)
    ax.set_xlabel("target crystals to train on")
    ax.set_ylabel(axis_title(group[0]))
    return handles


FIGURES = [transfer]
