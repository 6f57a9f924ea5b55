"""Parity: predicted against true value of every test crystal."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm

from crystalmesh.config.project import Project
from crystalmesh.report import results
from crystalmesh.report.figures.style import (
    Drawing,
    Looks,
    best,
    by_target,
    grid,
    legend_above,
    limits,
    mix,
    network,
)
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import count, shown, unit

PANELS = 12  # of a figure with a panel a target and network
MANY = 600  # more test crystals than this are drawn as counts in hexagons


def draw(context: Context) -> Drawing | None:
    """The largest run of each target and network; of many networks the best ones."""
    project, looks = context.project, Looks.of(context)
    chosen = _chosen(project, results.single(project, context.plain))
    if not chosen:
        return None
    figure, axes = grid(len(chosen), 1.95)
    for ax, result in zip(axes, chosen, strict=True):
        _panel(ax, result, looks.colour(result))
    handles = looks.handles(chosen)
    for handle in handles:
        handle.set_linestyle("")
    legend_above(figure, handles)
    return Drawing(
        "parity",
        figure,
        "Predicted against true values of the test crystals, for the largest run of each target "
        "and network (where these are many, of the best networks). The line is equality. Where "
        "test crystals are many, a darker hexagon holds more of them (logarithmic scale).",
        "Scatter plots of predicted against true values, one a target and network.",
    )


def _chosen(project: Project, found: Sequence[Result]) -> list[Result]:
    """One result a target and network, and of each target so many that all fit."""
    largest: dict[tuple[str, tuple[str, str, bool]], Result] = {}
    for result in found:  # largest first
        if not result.classes and network(project, result):
            largest.setdefault((result.target, result.method), result)
    groups = list(by_target(list(largest.values())))
    each = PANELS // max(1, len(groups)) if len(largest) > PANELS else PANELS
    return [result for group in groups for result in best(group, max(1, each))]


def _panel(ax: Axes, result: Result, colour: str) -> None:
    low, high = limits(np.concatenate([result.true, result.prediction]))
    if len(result.test) > MANY:
        shades = LinearSegmentedColormap.from_list("", [mix(colour, 0.8), mix(colour, -0.5)])
        ax.hexbin(
            result.true, result.prediction, gridsize=45, extent=(low, high, low, high),
            mincnt=1, norm=LogNorm(), cmap=shades, linewidths=0.15,
        )  # fmt: skip
    else:
        ax.plot(
            result.true, result.prediction, "o", color=colour, alpha=0.45, markersize=2.4,
            markeredgewidth=0,
        )  # fmt: skip
    ax.plot([low, high], [low, high], color="0.25", linewidth=0.6, zorder=3)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set_title(result.quantity.title)
    ax.set_xlabel(f"true / {unit(result.quantity)}")
    ax.set_ylabel("predicted")
    ax.text(
        0.04, 0.97,
        f"MAE {shown(result.value, result.quantity)}\n{count(len(result.train))} train\n"
        f"{count(result.tested)} test",
        transform=ax.transAxes, va="top", fontsize=6,
    )  # fmt: skip
