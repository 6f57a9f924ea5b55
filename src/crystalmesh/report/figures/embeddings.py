"""Embeddings: the vectors that networks form of crystals, projected to the plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crystalmesh import files
from crystalmesh.data.crystals import CRYSTAL_SYSTEMS
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import results
from crystalmesh.report.figures.style import COLOURS, WIDTH, Drawing, wrapped
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import count, unit

ROWS = ("PCA", "t-SNE", "t-SNE")


def draw(context: Context) -> Drawing | None:
    """The embeddings of the runs that the report names, coloured by two things."""
    if not context.report.embeddings:
        return None
    path = context.project.results(context.name) / "embeddings.json"
    content = files.read_json(path)
    runs = {r.name: r for r in context.found if r.target == r.run.target}
    figure = Figure(figsize=(WIDTH, 1.4 * 3 + 0.6), layout="constrained")
    axes = figure.subplots(3, len(context.report.embeddings), squeeze=False)
    try:
        for column, name in enumerate(context.report.embeddings):
            image = _column(axes[:, column].tolist(), content[name])
            title = results.title(context.project, runs[name])
            axes[0, column].set_title(wrapped(title, 20), fontsize=6)
        shown = [content[name] for name in context.report.embeddings]
        guess = max(float(one["system_most_frequent"]) for one in shown)
        crystals = max(len(one["ids"]) for one in shown)
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    for row, words in enumerate(ROWS):
        axes[row, 0].set_ylabel(words)
    target = runs[context.report.embeddings[0]].quantity
    figure.colorbar(image, ax=axes[2, :].tolist(), label=unit(target), shrink=0.9, aspect=12)
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=3, color=COLOURS[i], label=name)
        for i, name in enumerate(CRYSTAL_SYSTEMS)
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=7, fontsize=6, handletextpad=0.1
    )
    return Drawing(
        "embeddings",
        figure,
        f"What networks trained on the {target.title} make of {count(crystals)} test crystals: "
        "their vectors projected by PCA and t-SNE, coloured by crystal system (rows one and two) "
        f"and by the {target.title} (row three). Below: how often the crystal system is the most "
        "frequent of the five nearest neighbours in all dimensions (always guessing the most "
        f"frequent: {guess:.0f}%), and how well the mean of their values predicts the property.",
        "Scatter plots of projected crystal vectors, a column a network.",
    )


def _column(axes: Sequence[Axes], one: Mapping[str, Any]) -> Any:
    """Draw one network's embedding; what the colours of the last row are."""
    shades = [to_rgb(COLOURS[s]) for s in one["system"]]
    ways: Sequence[tuple[str, dict[str, Any]]] = (
        ("pca", {"c": shades}),
        ("tsne", {"c": shades}),
        ("tsne", {"c": np.array(one["target"]), "cmap": "viridis"}),
    )
    for ax, (key, colours) in zip(axes, ways, strict=True):
        x, y = np.array(one[key]).T
        image = ax.scatter(x, y, s=2.2, linewidths=0, **colours)
        ax.set_xticks([])
        ax.set_yticks([])
    axes[1].set_xlabel(f"system {one['system_accuracy']:.0f}%", fontsize=6.5)
    axes[2].set_xlabel(f"R² {one['target_r2']:.2f}", fontsize=6.5)
    return image
