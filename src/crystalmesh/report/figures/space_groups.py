"""The metric against how often the test crystal's space group occurs in training."""

import numpy as np
from matplotlib.axes import Axes

from crystalmesh.data.crystals import Crystals
from crystalmesh.report import bootstrap, results
from crystalmesh.report.figures.style import (
    Drawing,
    Looks,
    axis_title,
    best,
    by_target,
    comparable,
    grid,
    legend_above,
)
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import count

BINS = (0, 1, 3, 10, 30, 100, 300, 1000, 10**9)  # training crystals of a space group
MOST = 4  # models in a panel: the intervals of more lie over each other


def draw(context: Context) -> Drawing | None:
    """A panel a target: the best models that share their crystals."""
    project, looks = context.project, Looks.of(context)
    found = [r for r in results.single(project, context.plain) if not r.transferred]
    groups = [best(comparable(group), MOST) for group in by_target(found)]
    if not groups:
        return None
    figure, axes = grid(len(groups), 2.2, columns=3)
    for ax, group in zip(axes, groups, strict=True):
        _panel(ax, group, context.crystals[group[0].run.dataset], looks)
    figure.supxlabel("training crystals of the test crystal's space group", fontsize=7)
    legend_above(figure, looks.handles([result for group in groups for result in group]))
    return Drawing(
        "space_groups",
        figure,
        "Test metric against the number of training crystals that share the test crystal's space "
        f"group: of each target the {MOST} best models that were trained on the same crystals, "
        f"with {bootstrap.LEVEL}% bootstrap intervals over the test crystals.",
        "Test metric by the frequency of the space group among the training crystals.",
    )


def _panel(ax: Axes, group: list[Result], crystals: Crystals, looks: Looks) -> None:
    edges, last = np.array(BINS), 0
    for place, result in enumerate(group):
        seen = results.frequency(result, crystals)
        known = seen[:, 0] > 0
        which = np.searchsorted(edges, seen[known, 1], side="right") - 1
        losses = result.losses[known]
        bins = [b for b in range(len(edges) - 1) if (which == b).any()]
        means = np.array([losses[which == b].mean() for b in bins])
        bounds = np.array([bootstrap.interval(losses[which == b]) for b in bins]).T
        ax.errorbar(
            np.array(bins) + 0.12 * (place - (len(group) - 1) / 2), means,
            yerr=np.abs(bounds - means), markersize=2.8, fmt=looks.marker(result) + "-",
            color=looks.colour(result), capsize=1.2, elinewidth=0.7,
        )  # fmt: skip
        last = max(last, *bins)
    ax.set_xticks(
        range(last + 1), [bin_name(b) for b in range(last + 1)],
        rotation=50, ha="right", rotation_mode="anchor",
    )  # fmt: skip
    ax.set_title(f"{group[0].quantity.title}\n{count(len(group[0].train))} training crystals")
    ax.set_ylabel(axis_title(group[0]))
    ax.set_ylim(bottom=0)


def bin_name(number: int) -> str:
    """The training crystals of a bin, in words."""
    low, high = BINS[number], BINS[number + 1] - 1
    if number == len(BINS) - 2:
        return f"{count(low)}+"
    return count(low) if low == high else f"{count(low)}–{count(high)}"
