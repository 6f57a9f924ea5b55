"""The figures of a study as SVG files whose bytes depend on nothing but their data."""

import matplotlib

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.report import own
from crystalmesh.report.figures import (
    accuracy,
    calibration,
    embeddings,
    learning,
    mesh,
    parity,
    space_groups,
    stability,
)
from crystalmesh.report.figures.style import STYLE, Drawing
from crystalmesh.report.own import Context

COMMON = (
    mesh.draw,
    stability.draw,
    accuracy.draw,
    calibration.draw,
    embeddings.draw,
    parity.draw,
    learning.curves,
    learning.training,
    space_groups.draw,
)


def build(project: Project, study: str) -> None:
    """Write results/<study>/figures/: an SVG file a figure, and figures.json with their captions.

    Raises:
        CrystalmeshError: the study has no report; what an earlier stage makes is missing or
            damaged.
    """
    context = Context.load(project, study)
    with (
        matplotlib.rc_context(STYLE),
        files.writing_folder(project.results(study) / "figures") as folder,
    ):
        drawn = drawings(context)
        for drawing in drawn:
            drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None})
        files.write_json(
            folder / "figures.json",
            {d.name: {"caption": d.caption, "alt": d.alt} for d in drawn},
        )


def drawings(context: Context) -> list[Drawing]:
    """The common figures that the study has something to show for, and its own after them."""
    special = own.functions(context.project, context.name, "figures", "FIGURES")
    found = [draw(context) for draw in (*COMMON, *special)]
    return [drawing for drawing in found if drawing is not None]
