"""Learning curves: the test metric by training crystals, the validation metric by epoch."""

import matplotlib
import numpy as np

from crystalmesh.report import bootstrap, results
from crystalmesh.report.figures.style import (
    Drawing,
    Looks,
    axis_title,
    best,
    by_target,
    comparable,
    error_axis,
    grid,
    legend_above,
    network,
    train_size,
)
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import count

CLOSE = 2.0  # sizes nearer than this ratio share a tick: their numbers would overlap


def curves(context: Context) -> Drawing | None:
    """The test metric against the number of training crystals, a line a network."""
    project, looks = context.project, Looks.of(context)
    found = [r for r in results.single(project, context.plain) if network(project, r)]
    groups = [lines for group in by_target(found) if (lines := _sized(group))]
    if not groups:
        return None
    figure, axes = grid(len(groups), 1.95, columns=3)
    for ax, lines in zip(axes, groups, strict=True):
        for own in lines:
            bounds = np.array([bootstrap.interval(r.losses, r.drawn) for r in own]).T
            values = np.array([r.value for r in own])
            ax.errorbar(
                [len(r.train) for r in own], values, yerr=np.abs(bounds - values),
                fmt=looks.marker(own[0]) + "-", color=looks.colour(own[0]), markersize=3,
                capsize=1.5, elinewidth=0.8,
            )  # fmt: skip
        ax.set_xscale("log")
        sizes = _apart(sorted({len(r.train) for own in lines for r in own}))
        ax.set_xticks(sizes, [count(n) for n in sizes])
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        if not lines[0][0].classes:
            error_axis(ax)
        ax.margins(0.15)
        ax.set_title(lines[0][0].quantity.title)
        ax.set_xlabel("training crystals")
        ax.set_ylabel(axis_title(lines[0][0]))
    legend_above(figure, looks.handles([r for lines in groups for own in lines for r in own]))
    return Drawing(
        "learning_curves",
        figure,
        "Learning curves of the networks that were trained on several sizes, and for comparison "
        "the best others: the test metric against the number of training crystals, with "
        f"{bootstrap.LEVEL}% bootstrap intervals over the test crystals.",
        "Line plots of the test metric by the number of training crystals, one panel a target.",
    )


def _sized(group: list[Result]) -> list[list[Result]]:
    """Of one target the methods with several sizes, and the best others; each by its size."""
    every: dict[object, list[Result]] = {}
    for result in sorted(group, key=train_size):
        every.setdefault(result.method, []).append(result)
    several = [own for own in every.values() if len({len(r.train) for r in own}) > 1]
    others = [own[0] for own in every.values() if own not in several]
    return [*several, *([r] for r in best(others, 3))] if several else []


def _apart(sizes: list[int]) -> list[int]:
    """The sizes from the largest down, without those whose numbers would overlap."""
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or kept[-1] >= CLOSE * size:
            kept.append(size)
    return kept[::-1]


def training(context: Context) -> Drawing | None:
    """The validation metric by epoch of the networks that share their crystals."""
    project, looks = context.project, Looks.of(context)
    found = [r for r in results.single(project, context.plain) if network(project, r)]
    # Of several targets only the first is validated; with `refit` nothing is.
    found = [r for r in found if r.target == r.run.target and not r.run.refit]
    groups = [best(comparable(group)) for group in by_target(found)]
    if not groups:
        return None
    figure, axes = grid(len(groups), 1.95, columns=3)
    for ax, group in zip(axes, groups, strict=True):
        highest = []
        for result in group:
            epochs, values = results.history(project, result.run)
            highest.append(np.percentile(values, 97))
            ax.plot(
                epochs,
                values,
                color=looks.colour(result),
                linestyle=looks.dashes(result),
                linewidth=0.9,
            )
        ax.set_title(f"{group[0].quantity.title}\n{count(len(group[0].train))} training crystals")
        ax.set_xlabel("epoch")
        ax.set_ylabel(axis_title(group[0], "validation"))
        if not group[0].classes:
            error_axis(ax)
            ax.set_ylim(top=max(highest) * 1.15)
    legend_above(figure, looks.lines([r for group in groups for r in group]))
    return Drawing(
        "training",
        figure,
        "Training: the metric on the validation crystals by epoch, of the first network of each "
        "run, for the best networks of each target that were trained on the same crystals.",
        "Line plots of the validation metric by epoch, one panel a target.",
    )
