"""The picture of one crystal: its cell, its meshes, and the features of one face."""

from crystalmesh.errors import CrystalmeshError
from crystalmesh.report.figures.scene import draw_mesh, mesh_title, meshes
from crystalmesh.report.figures.style import Drawing
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import count
from crystalmesh.represent.store import Features


def draw(context: Context) -> Drawing | None:
    """The meshes that runs of the study read, of the system that `mesh_picture` names."""
    project, name = context.project, context.report.mesh_picture
    used = {r.run.representation for r in context.found if r.run.dataset == context.study.dataset}
    kinds = [kind for kind in meshes(project.params) if kind in used]
    if name is None or not kinds:
        return None
    crystals = context.crystals[context.study.dataset]
    formula = crystals.formulas[crystals.position(name)]
    drawn = {}
    for kind in kinds:
        folder = project.features(context.study.dataset, kind)
        features = Features(folder)
        if name not in features:
            raise CrystalmeshError(
                f"{folder}: no mesh of {name}; name another system in"
                f" studies/{context.name}/study.yaml (report.mesh_picture), or run represent again"
            )
        drawn[mesh_title(kind)] = features[name]
    caption = f"Meshes of {formula} ({name}). (a) The refined conventional cell. "
    for letter, (title, arrays) in zip("bcdefg", drawn.items(), strict=False):
        caption += (
            f"({letter}) The {title}: {count(len(arrays['faces']))} triangles on "
            f"{count(len(arrays['vertex_site']))} vertices. "
        )
    caption += "Atoms outside the cell are drawn small. Last: what the network reads of each face."
    return Drawing(
        "mesh",
        draw_mesh(drawn),
        caption,
        f"Drawings of the unit cell of {formula}, its meshes, and one face with its vectors.",
    )
