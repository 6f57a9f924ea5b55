"""Stability: the share of crystals whose mesh changes when atoms move by a little."""

from matplotlib.figure import Figure

from crystalmesh import files
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report.figures.scene import mesh_title
from crystalmesh.report.figures.style import COLOURS, WIDTH, Drawing, legend_above
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import count


def draw(context: Context) -> Drawing | None:
    """What the stage `stability` found, a line a mesh."""
    settings = context.report.stability
    if settings is None:
        return None
    path = context.project.results(context.name) / "stability.json"
    content = files.read_json(path)
    figure = Figure(figsize=(WIDTH * 0.6, 2.1), layout="constrained")
    ax = figure.subplots()
    handles = []
    try:
        sizes = [float(size) for size in content["displacements"]]
        anew = min(sizes) / 10  # the place of "not displaced" on a logarithmic axis
        for name, colour in zip(settings.representations, COLOURS, strict=False):
            values = [content["described anew"][name], *content["displaced"][name]]
            shares = [100 * float(value) for value in values]
            label = mesh_title(name)
            handles += ax.plot(sizes, shares[1:], "o-", color=colour, markersize=3.5, label=label)
            ax.plot([anew], shares[:1], "s", color=colour, markersize=4)
        crystals = int(content["crystals"])
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    ax.set_xscale("log")
    ax.set_xticks([anew, *sizes], ["described\nanew", *(f"{size:g}" for size in sizes)])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("displacement of every atom / Å")
    ax.set_ylabel("meshes that change / %")
    ax.set_ylim(-3, 103)
    legend_above(figure, handles)
    return Drawing(
        "stability",
        figure,
        f"Share of {count(crystals)} crystals whose mesh changes: when the crystal is described "
        "anew (rotated, its origin shifted, its sites permuted: squares), and when every atom "
        "moves by a small distance in a random direction.",
        "Line plot of the share of changed meshes against the displacement of the atoms.",
    )
