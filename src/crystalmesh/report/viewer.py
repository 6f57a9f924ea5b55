"""A crystal's meshes to look at: turned with the mouse (HTML, plotly), or as a picture (PNG).

A face is coloured by its share of the max pooling: of the numbers that the network's head reads,
how many are from this face. The others may have any value: the prediction stays the same.
"""

import copy
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import matplotlib
import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, PowerNorm, to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs
from torch import Tensor

from crystalmesh.config.project import Project
from crystalmesh.data.crystals import Crystal
from crystalmesh.data.structures import read
from crystalmesh.data.validation import Rules
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import write_bytes
from crystalmesh.inference.predictor import Predictor
from crystalmesh.report.figures.scene import (
    RADIUS,
    VIEW,
    camera,
    cell_box,
    draw_scene,
    mesh_title,
    meshes,
)
from crystalmesh.report.tables.table import shown, unit
from crystalmesh.represent.mesh import Triangles

SCALE = "YlOrRd"  # of the shares; one hue, darker for more, so that all readers see the order
LOWEST = 0.12  # of the scale: what is below can hardly be told from the paper
PLAIN = "#8DB4D9"  # faces without a network
# A face that decides hides what is behind it, one that does not decide hides nothing.
OPACITY = (0.04, 0.25, 0.4, 0.55, 0.7, 0.85)
WITHOUT = 0.15  # opacity where there is no network
SMALLER = 2.2  # atoms outside the cell are drawn so many times smaller
NO_TARGET = "none"
LIKELY = 3  # classes that are named with their probabilities
DIGITS = 3  # of lengths in Angstrom, of areas and of shares
PNG_WIDTH, PNG_HEIGHT, PNG_DPI = 8.0, 4.3, 140  # inches and dots an inch


@runtime_checkable
class Deciding(Protocol):
    """A network that can tell which faces of a mesh decide."""

    def deciding(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Each face's share of the pooled vector."""
        ...


@dataclass(frozen=True)
class Mesh:
    """A mesh of a crystal with its faces as polygons, and what a network takes from each.

    Attributes:
        title: its name in words.
        lattice: rows are lattice vectors of the conventional cell, Angstrom.
        numbers, frac: atomic number and fractional coordinates of each site.
        vertex_site, vertex_shift: site of each vertex, and the cell it is in.
        polygons: vertices of each face in order around it.
        triangles: in how many triangles the network reads each face.
        area: Angstrom^2.
        share: per cent of the network's pooled channels that are from this face, summed over its
            triangles; None without a network.
    """

    title: str
    lattice: Float[NDArray[np.float64], "3 3"]
    numbers: Int[NDArray[np.int64], " s"]
    frac: Float[NDArray[np.float64], "s 3"]
    vertex_site: Int[NDArray[np.int64], " v"]
    vertex_shift: Int[NDArray[np.int64], "v 3"]
    polygons: Sequence[Sequence[int]]
    triangles: Int[NDArray[np.int64], " f"]
    area: Float[NDArray[np.float64], " f"]
    share: Float[NDArray[np.float64], " f"] | None

    @property
    def place(self) -> Float[NDArray[np.float64], "v 3"]:
        """Fractional coordinates of each vertex, those of its cell added."""
        return self.frac[self.vertex_site] + self.vertex_shift

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which vertices are in the closed cell."""
        place = self.place
        inside: NDArray[np.bool_] = np.all((place > -1e-3) & (place < 1 + 1e-3), axis=1)
        return inside


def build(
    crystal: Crystal, name: str, maker: Triangles, net: torch.nn.Module | None = None
) -> Mesh:
    """A mesh of a crystal and, with a network of that mesh, the share of each face.

    Args:
        crystal: the crystal.
        name: of the representation.
        maker: what makes it, as `represent.representation` gives it.
        net: a network that reads it.

    Raises:
        CrystalmeshError: the crystal has no such mesh; see the maker's `build`.
    """
    arrays = maker.build(crystal)
    site, shift = arrays["vertex_site"].astype(np.int64), arrays["vertex_shift"].astype(np.int64)
    position = (arrays["frac"][site] + shift) @ arrays["lattice"]
    whole = maker.polygons(crystal)
    face = np.arange(len(arrays["faces"])) if whole is None else whole.astype(np.int64)
    starts = np.flatnonzero(np.diff(face, prepend=-1))
    polygons = [
        _around(position, np.unique(rows)) for rows in np.split(arrays["faces"], starts[1:])
    ]
    share: NDArray[np.float64] | None = None
    if net is not None:
        # In double precision: the last bits of single ones would decide between like faces.
        exact = copy.deepcopy(net).double().cpu().eval()
        assert isinstance(exact, Deciding)
        batch = maker.collate([arrays])
        with torch.inference_mode():
            parts = exact.deciding(
                {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
            ).numpy()
        share = 100.0 * np.bincount(face, parts).astype(np.float64)
    return Mesh(
        title=mesh_title(name),
        lattice=arrays["lattice"],
        numbers=arrays["numbers"].astype(np.int64),
        frac=arrays["frac"],
        vertex_site=site,
        vertex_shift=shift,
        polygons=polygons,
        triangles=np.bincount(face),
        area=np.array([_area(position[p]) for p in polygons]),
        share=share,
    )


def prediction(network: Predictor, crystal: Crystal) -> dict[str, str]:
    """A row of the viewer's table: what the network predicts for the crystal, without interval."""
    target, run = network.quantity, network.run
    batch = network.maker.collate([network.maker.build(crystal)])
    members = network.members([batch], np.array([len(crystal.numbers)]))
    if target.kind == "classification":
        share = members.mean(axis=0)[0]
        best = np.argsort(-share, kind="stable")[:LIKELY].tolist()
        value = ", ".join(f"{k + 1} ({100 * share[k]:.0f} %)" for k in best)
    else:
        value = f"{shown(float(members.mean()), target)} {unit(target)}"
    model = network.project.params.models[run.model].title
    said = f"{model}, {mesh_title(run.representation)}"
    return {"network": said, "predicts": target.title, "value": value}


def _around(position: Float[NDArray[Any], "v 3"], corners: Int[NDArray[Any], " n"]) -> list[int]:
    """The corners of a convex polygon in order around it."""
    offset = position[corners] - position[corners].mean(axis=0)
    right, up, _ = np.linalg.svd(offset)[2]  # two directions in the polygon's plane
    turn = np.arctan2(offset @ up, offset @ right)
    ordered: list[int] = corners[np.argsort(turn, kind="stable")].tolist()
    start = ordered.index(min(ordered))
    return ordered[start:] + ordered[:start]


def _area(corners: Float[NDArray[Any], "n 3"]) -> float:
    spokes = corners[1:] - corners[0]
    return float(np.linalg.norm(np.cross(spokes[:-1], spokes[1:]).sum(axis=0)) / 2)


def highest(meshes: Sequence[Mesh]) -> float:
    """The upper end of the colours: the largest share of any face, per cent."""
    return max((float(m.share.max()) for m in meshes if m.share is not None), default=0.0)


def levels(mesh: Mesh, top: float) -> Int[NDArray[np.int64], " f"]:
    """Which of the opacities each face has: 0 for a share of nothing."""
    if mesh.share is None:
        return np.zeros(len(mesh.polygons), dtype=np.int64)
    steps: NDArray[np.float64] = np.ceil((len(OPACITY) - 1) * np.sqrt(mesh.share / top))
    return np.array(steps, dtype=np.int64)


def colours() -> list[str]:
    """The colours of the shares from 0 to the highest, by their square root, as #rrggbb."""
    scale = matplotlib.colormaps[SCALE]
    return [to_hex(scale(x)) for x in np.linspace(LOWEST, 1, 33)]


def content(
    crystal: Crystal, meshes: Sequence[Mesh], predictions: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """What the page needs to draw a crystal; see `draw` in web/viewer.js.

    Args:
        crystal: the crystal.
        meshes: its meshes, from left to right.
        predictions: rows of a small table: `network`, `predicts`, `value` and perhaps `true`.
    """
    top = highest(meshes)
    elements = sorted({int(z) for mesh in meshes for z in mesh.numbers})
    return {
        "id": crystal.id,
        "formula": crystal.formula,
        "top": round(top, DIGITS),
        "colours": colours(),
        "plain": PLAIN,
        "opacity": OPACITY,
        "without": WITHOUT,
        "smaller": SMALLER,
        "view": VIEW,
        "elements": {
            chemical_symbols[z]: {
                "colour": to_hex(jmol_colors[z]),
                "radius": round(RADIUS * float(covalent_radii[z]), DIGITS),
            }
            for z in elements
        },
        "meshes": [_content(mesh, top) for mesh in meshes],
        "predictions": list(predictions),
    }


def _content(mesh: Mesh, top: float) -> dict[str, Any]:
    return {
        "title": mesh.title,
        "lattice": np.round(mesh.lattice, 5).tolist(),
        "symbols": [chemical_symbols[z] for z in mesh.numbers],
        "frac": np.round(mesh.frac, 5).tolist(),
        "vertices": np.column_stack([mesh.vertex_site, mesh.vertex_shift]).tolist(),
        "inside": mesh.inside.astype(int).tolist(),
        "faces": [list(polygon) for polygon in mesh.polygons],
        "triangles": mesh.triangles.tolist(),
        "area": np.round(mesh.area, DIGITS).tolist(),
        "share": None if mesh.share is None else np.round(mesh.share, DIGITS).tolist(),
        "level": levels(mesh, top).tolist(),
    }


def web(name: str) -> str:
    """A file of report/web/."""
    return (resources("crystalmesh.report") / "web" / name).read_text(encoding="utf-8")


def plotly() -> str:
    """The source of plotly.js, as its Python package brings it."""
    source: str = get_plotlyjs()
    return source


def script(value: Any) -> str:
    """A value as JavaScript that may stand inside a script element."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def panel() -> str:
    """The elements that `crystalmesh.draw` of web/viewer.js fills."""
    return web("viewer.html")


def named(formula: str, name: str) -> str:
    """A crystal in a heading: its id too, where that says more."""
    return formula if name == formula else f"{formula} ({name})"


def document(shown: Mapping[str, Any]) -> str:
    """One HTML file with all that it needs, for what `content` returns."""
    title = f"{named(shown['formula'], shown['id'])}: meshes"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{web('site.css')}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{panel()}</main>\n"
        f"<script>{plotly()}</script>\n<script>{web('site.js')}</script>\n"
        f"<script>{web('viewer.js')}</script>\n"
        f"<script>crystalmesh.draw({script(shown)});</script>\n</body>\n</html>\n"
    )


def picture(crystal: Crystal, meshes: Sequence[Mesh]) -> Figure:
    """The meshes beside each other in parallel projection, in the colours of the page."""
    top = highest(meshes)
    scale = ScalarMappable(PowerNorm(0.5, 0, top or 1), ListedColormap(colours()))
    figure = Figure(figsize=(PNG_WIDTH, PNG_HEIGHT), facecolor="white")
    axes = figure.subplots(1, len(meshes), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.16, top=0.86, wspace=0.02)
    figure.suptitle(named(crystal.formula, crystal.id), fontsize=11)
    for ax, mesh in zip(axes, meshes, strict=True):
        ax.set_axis_off()
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_title(f"{mesh.title}, {len(mesh.polygons):,} faces", fontsize=9)
        if mesh.share is None:
            shades = np.tile(to_rgba(PLAIN, WITHOUT), (len(mesh.polygons), 1))
        else:
            shades = np.array(scale.to_rgba(mesh.share))
            shades[:, 3] = np.array(OPACITY)[levels(mesh, top)]
        points = (mesh.place @ mesh.lattice - mesh.lattice.sum(axis=0) / 2) @ camera(*VIEW)
        kinds = mesh.numbers[mesh.vertex_site]
        radius = RADIUS * covalent_radii[kinds]
        draw_scene(
            ax,
            points,
            kinds,
            np.where(mesh.inside, radius, radius / SMALLER),
            cell_box(mesh.lattice),
            [points[list(polygon)] for polygon in mesh.polygons],
            shades,
        )
    present = sorted({int(z) for mesh in meshes for z in mesh.numbers})
    figure.legend(
        handles=[
            Line2D(
                [], [], marker="o", linestyle="", markersize=7, markeredgewidth=0.5,
                markeredgecolor="0.3", markerfacecolor=jmol_colors[z], label=chemical_symbols[z],
            )
            for z in present
        ],
        loc="lower left", ncols=len(present), handletextpad=0.1, fontsize=9, frameon=False,
    )  # fmt: skip
    if top:
        bar = figure.add_axes((0.3, 0.1, 0.4, 0.025))
        figure.colorbar(scale, cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=8)
        bar.set_xlabel("share of the max pooling / % of channels", fontsize=8)
    return figure


def png(figure: Figure) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return stream.getvalue()


def show(project: Project, file: str, out: Path, picture_at: Path | None, target: str) -> str:
    """The meshes of the one crystal in a file, as a page and, if asked for, as a picture.

    Args:
        project: where the networks and the settings are.
        file: see `data.structures.read`.
        out: the page, one HTML file.
        picture_at: a PNG file.
        target: whose served networks tell which faces decide; NO_TARGET: none.

    Returns:
        What is to say about the crystal: one line a note.

    Raises:
        CrystalmeshError: the file holds no crystal or several, the crystal has no mesh, or no
            network on meshes predicts the target.
    """
    items = list(itertools.islice(read([file], Rules.of(project.params)), 2))
    if len(items) != 1:
        found = "several structures; give a file with one" if items else "no structure"
        raise CrystalmeshError(f"{file}: holds {found}")
    crystal = items[0].crystal
    if crystal is None:
        raise CrystalmeshError(f"{file}: {items[0].problem}")
    drawn, predictions = draw(project, crystal, _networks(project, target))
    write_bytes(out, document(content(crystal, drawn, predictions)).encode())
    if picture_at is not None:
        write_bytes(picture_at, png(picture(crystal, drawn)))
    return "\n".join(items[0].notes)


def draw(
    project: Project, crystal: Crystal, networks: Mapping[str, Predictor]
) -> tuple[list[Mesh], list[dict[str, str]]]:
    """Every mesh of a crystal, and what the networks predict.

    Args:
        project: whose representations are meshes.
        crystal: the crystal.
        networks: by the mesh that each reads; the other meshes are drawn without shares.
    """
    drawn, predictions = [], []
    for name, maker in meshes(project.params).items():
        network = networks.get(name)
        drawn.append(build(crystal, name, maker, network.networks[0] if network else None))
        if network:
            predictions.append(prediction(network, crystal))
    return drawn, predictions


def _networks(project: Project, target: str) -> dict[str, Predictor]:
    """By mesh, the first served network that reads it and predicts a target."""
    if target == NO_TARGET:
        return {}
    known = meshes(project.params)
    served = [(run, one) for run, one in project.served() if run.representation in known]
    found = {run.representation: run for run, one in reversed(served) if one == target}
    if not found:
        names = ", ".join([*dict.fromkeys(one for _, one in served), NO_TARGET])
        raise CrystalmeshError(
            f"target '{target}': no network on meshes predicts it; known: {names}"
        )
    return {
        name: Predictor(project, found[name], target, known=None) for name in known if name in found
    }
