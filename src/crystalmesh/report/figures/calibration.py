"""Calibration: how much more or less often than they say the intervals hold the truth."""

import numpy as np

from crystalmesh.report import results
from crystalmesh.report.figures.style import (
    Drawing,
    Looks,
    best,
    by_target,
    comparable,
    grid,
    legend_above,
    network,
)
from crystalmesh.report.own import Context


def draw(context: Context) -> Drawing | None:
    """Coverage minus level, level by level: the networks that share crystals, a panel a target."""
    project, looks = context.project, Looks.of(context)
    found = [r for r in results.single(project, context.plain) if network(project, r)]
    groups = [best(comparable(group)) for group in by_target(found)]
    if not groups:
        return None
    levels = np.linspace(0.02, 0.98, 49)
    figure, axes = grid(len(groups), 1.9, columns=3)
    for ax, group in zip(axes, groups, strict=True):
        for result in group:
            held = np.array([(result.p_value > 1 - level).mean() for level in levels])
            ax.plot(
                100 * levels,
                100 * (held - levels),
                color=looks.colour(result),
                linestyle=looks.dashes(result),
                linewidth=0.9,
            )
        ax.axhspan(-2, 2, color="0.9", zorder=0)
        ax.axhline(0, color="0.5", linewidth=0.5)
        ax.set_ylim(-7, 7)
        ax.set_title(group[0].quantity.title)
        ax.set_xlabel("level of the interval / %")
        ax.set_ylabel("coverage − level / %")
    legend_above(figure, looks.lines([r for group in groups for r in group]))
    return Drawing(
        "calibration",
        figure,
        "Calibration of the conformal intervals (regression) and sets (classes): by how much the "
        "share of test crystals whose true value lies inside differs from the level. Grey: 2%.",
        "Line plots of coverage minus level against the level, one panel a target.",
    )
