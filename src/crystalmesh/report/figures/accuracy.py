"""Accuracy against cost: the error of every model on the same crystals."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crystalmesh.report import results
from crystalmesh.report.figures.style import (
    WIDTH,
    Drawing,
    Looks,
    axis_title,
    by_target,
    comparable,
    legend_beside,
    methods,
)
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import count

FEWEST = 3  # models: fewer are no comparison


def draw(context: Context) -> Drawing | None:
    """The error against training hours and prediction speed, where speeds were measured."""
    project, looks = context.project, Looks.of(context)
    speeds = results.Speeds.load(project, context.name)
    single = results.single(project, context.plain)
    groups = [
        [r for r in comparable(group) if speeds.of(r.run) and not r.transferred]
        for group in by_target([r for r in single if not r.classes])
    ]
    shared = max(groups, key=lambda g: len(methods(g)), default=[])
    if len(methods(shared)) < FEWEST:
        return None
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for result in shared:
        value = float(result.of_members().mean())
        shape = {"marker": looks.marker(result), "color": looks.colour(result), "markersize": 4.5}
        hours = speeds.hours(project, result.run)
        speed = speeds.of(result.run)["predict_crystals_per_s"]
        for ax, x in zip(axes, (hours, speed), strict=True):
            ax.plot([x], [value], linestyle="", **shape)
            if len(result.members):
                ax.plot([x], [result.value], linestyle="", mfc="white", **shape)
    for ax, words in zip(
        axes, ("training of one network / CPU hours", "prediction / crystals per s"), strict=True
    ):
        ax.set_xscale("log")
        ax.set_xlabel(words)
    axes[0].set_ylabel(axis_title(shared[0]))
    handles = looks.handles(shared)
    for handle in handles:
        handle.set_linestyle("")
    open_one = Line2D([], [], linestyle="", marker="o", mfc="white", color="0.3", markersize=4)
    open_one.set_label("open: the ensemble")
    legend_beside(figure, [*handles, *([open_one] if any(len(r.members) for r in shared) else [])])
    return Drawing(
        "accuracy",
        figure,
        f"Test error of the {shared[0].quantity.title} against cost, models trained on the same "
        f"{count(len(shared[0].train))} crystals. Filled: one network (mean over its seeds); open: "
        "the ensemble of these seeds. Training costs epochs × crystals over the speed measured by "
        f"benchmarks/models.py ({speeds.machine}).",
        "Two scatter plots of the test error against training hours and prediction speed.",
    )
