"""The drawing of one crystal: its cell, its meshes, and the features of one face."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from crystalmesh.config.project import Params
from crystalmesh.report.figures.style import WIDTH
from crystalmesh.represent import representation
from crystalmesh.represent.mesh import Triangles

VIEW = (-68, 16)  # azimuth and elevation of crystals, degrees
RADIUS = 0.42  # of an atom as drawn, of its covalent radius


def meshes(params: Params) -> dict[str, Triangles]:
    """The representations of config/ that are meshes, by name and in that order."""
    found = {}
    for module, variants in params.representations.items():
        for variant, settings in variants.items():
            maker = representation(f"{module}.{variant}", settings)
            if isinstance(maker, Triangles):
                found[f"{module}.{variant}"] = maker
    return found


def mesh_title(name: str) -> str:
    """A mesh's name in words: the variant, then the module."""
    module, _, variant = name.partition(".")
    return f"{variant} {module}"


Scene = tuple[
    Float[NDArray[Any], "v 3"], NDArray[np.int64], Float[NDArray[Any], " v"], NDArray[np.bool_]
]


def _scene(arrays: Mapping[str, NDArray[Any]]) -> Scene:
    """Points (right, up, towards the reader), kinds and radii of the atoms; which are inside."""
    site, lattice = arrays["vertex_site"], arrays["lattice"]
    place = arrays["frac"][site] + arrays["vertex_shift"]
    inside = ((place > -1e-3) & (place < 1 + 1e-3)).all(axis=1)
    kinds = arrays["numbers"].astype(int)[site]
    points = (place @ lattice - lattice.sum(axis=0) / 2) @ camera(*VIEW)
    return points, kinds, RADIUS * covalent_radii[kinds], inside


def draw_mesh(drawn: Mapping[str, Mapping[str, NDArray[Any]]]) -> Figure:
    """Cell, meshes and one face of the first, in parallel projection, the nearer things in front.

    Drawn here rather than by mplot3d, which sorts whole collections and so cannot put an atom
    between two faces.

    Args:
        drawn: by title, the arrays of each mesh of one crystal.
    """
    first = next(iter(drawn.values()))
    faces = first["faces"]
    points, kinds, radius, inside = _scene(first)
    box = cell_box(first["lattice"])

    figure = Figure(figsize=(WIDTH, 2.5 if len(drawn) == 1 else 2.1))
    ratios = [0.85, 1.2, *([1.0] * len(drawn))]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.88, wspace=0.03)
    titles = ["conventional cell", *drawn, "features of a face"]
    for ax, letter, words in zip(axes, "abcdefgh", titles, strict=False):
        ax.set_axis_off()
        ax.set_aspect("equal", adjustable="datalim")  # keeps the titles on one line
        ax.set_title(f"({letter}) {words}")
    draw_scene(axes[0], points[inside], kinds[inside], radius[inside], box, [])
    for ax, arrays in zip(axes[1:], drawn.values(), strict=False):
        own, own_kinds, size, within = _scene(arrays)
        size = np.where(within, size, size / 2.2)
        draw_scene(ax, own, own_kinds, size, box, list(own[arrays["faces"]]))
    _draw_face(axes[-1], points, kinds, faces)
    present = dict.fromkeys(sorted(set(kinds.tolist())))
    figure.legend(
        handles=[
            Line2D(
                [], [], marker="o", linestyle="", markersize=5, markeredgewidth=0.4,
                markeredgecolor="0.3", markerfacecolor=jmol_colors[z], label=chemical_symbols[z],
            )
            for z in present
        ],
        loc="lower left",
        ncols=len(present),
        handletextpad=0.1,
    )  # fmt: skip
    return figure


def cell_box(lattice: Float[NDArray[Any], "3 3"]) -> Float[NDArray[np.float64], "8 3"]:
    """The corners of the cell around its middle (right, up, towards the reader)."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    box: Float[NDArray[np.float64], "8 3"] = ((corners - 0.5) @ lattice) @ camera(*VIEW)
    return box


def camera(azimuth: float, elevation: float) -> Float[NDArray[np.float64], "3 3"]:
    """Columns: the directions right, up, and towards the reader; angles in degrees."""
    a, e = np.radians([azimuth, elevation])
    right = [-np.sin(a), np.cos(a), 0]
    up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
    towards = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    return np.array([right, up, towards]).T


def draw_scene(
    ax: Axes,
    points: Float[NDArray[Any], "v 3"],
    kinds: NDArray[np.int64],
    radius: Float[NDArray[Any], " v"],
    box: Float[NDArray[Any], "8 3"],
    faces: Sequence[Float[NDArray[Any], "n 3"]],
    shades: Float[NDArray[Any], "f 4"] | None = None,
) -> None:
    """Atoms, cell edges and translucent faces, painted slab after slab from the back.

    Faces are polygons, all of one blue unless `shades` says red, green, blue and opacity of each.
    """
    pairs = [(i, j) for i in range(8) for j in range(i) if (i ^ j).bit_count() == 1]
    steps = np.linspace(0, 1, 41)[:, None]
    edges = np.concatenate(
        [
            np.stack([line[:-1], line[1:]], axis=1)
            for line in (box[i] + steps * (box[j] - box[i]) for i, j in pairs)
        ]
    )  # [segments, 2, 3]
    # A piece of an edge inside an atom would be painted over it where it leaves towards the reader.
    middle = edges.mean(axis=1)[:, None]
    edges = edges[(np.linalg.norm(middle - points, axis=2) > radius).all(axis=1)]
    depth = np.concatenate([points[:, 2], box[:, 2]])
    slabs = np.linspace(depth.min() - 1e-6, depth.max() + 1e-6, 25)

    def slab(z: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(slabs, z)

    face_slab = slab(np.array([face[:, 2].mean() for face in faces]))
    edge_slab = slab(edges[..., 2].mean(axis=1))
    atom_slab = slab(points[:, 2])
    for number in range(len(slabs) + 1):
        near = number / len(slabs)  # 0 at the back, 1 at the front
        drawn = np.flatnonzero(face_slab == number)
        if len(drawn):
            ax.add_collection(
                PolyCollection(
                    [faces[i][:, :2] for i in drawn.tolist()],
                    facecolors=[(*to_rgb("#4C86B8"), 0.045)] if shades is None else shades[drawn],
                    edgecolors=[(*to_rgb("#1F4E79"), 0.10 + 0.22 * near)],
                    linewidths=0.35,
                    zorder=number,
                )
            )
        lines = edges[edge_slab == number]
        if len(lines):
            ax.add_collection(
                LineCollection(
                    list(lines[..., :2]),
                    colors="0.1",
                    linewidths=0.9,
                    capstyle="round",
                    zorder=number + 0.3,
                )
            )
        _draw_spheres(ax, points, kinds, radius, np.flatnonzero(atom_slab == number), number + 0.6)
    margin = 1.1 * radius.max()
    _frame(ax, np.concatenate([points + margin, points - margin, box]))


def _frame(ax: Axes, points: Float[NDArray[Any], "n 3"]) -> None:
    """Let the panel show all these points, whatever its shape."""
    ax.dataLim.update_from_data_xy(points[:, :2], ignore=True)
    ax.margins(0)
    ax.autoscale_view()


def _draw_spheres(
    ax: Axes,
    points: Float[NDArray[Any], "v 3"],
    kinds: NDArray[np.int64],
    radius: Float[NDArray[Any], " v"],
    chosen: NDArray[np.int64],
    zorder: float,
) -> None:
    """Circles that shrink towards a highlight and grow lighter: they look like spheres."""
    offsets, widths, colours = [], [], []
    for i in chosen[np.argsort(points[chosen, 2], kind="stable")]:
        base = jmol_colors[kinds[i]]
        for step in np.linspace(0, 1, 9 if radius[i] > 0.3 * radius.max() else 5):
            dark, light = 0.55 * base, base + 0.75 * (1 - base)
            colours.append((1 - step) * dark + step * light if step else 0.35 * base)
            widths.append(2 * radius[i] * (1 - 0.85 * step) if step else 2.08 * radius[i])
            offsets.append(points[i, :2] + radius[i] * step * np.array([-0.3, 0.32]))
    if len(chosen):
        ax.add_collection(
            EllipseCollection(
                widths, widths, np.zeros(len(widths)), units="xy", offsets=np.array(offsets),
                offset_transform=ax.transData, facecolors=colours, edgecolors="none", zorder=zorder,
            )
        )  # fmt: skip


def _draw_face(
    ax: Axes,
    points: Float[NDArray[Any], "v 3"],
    kinds: NDArray[np.int64],
    faces: NDArray[Any],
) -> None:
    """One face, laid flat and seen from aside, with its centre, normal, edges and corners."""
    triangles = points[faces]  # [f, 3, 3]
    sides = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2)
    # The face with most kinds of atoms, and among those the one nearest to equal sides.
    variety = np.array([len(set(row)) for row in kinds[faces].tolist()])
    best = np.lexsort((sides.max(axis=1) / sides.min(axis=1), -variety))[0]
    corner = triangles[best] - triangles[best].mean(axis=0)
    first = corner[0] / np.linalg.norm(corner[0])
    normal = np.cross(corner[1] - corner[0], corner[2] - corner[0])
    normal /= np.linalg.norm(normal)
    flat = corner @ np.stack([first, np.cross(normal, first), normal], axis=1)
    flat = flat / np.linalg.norm(flat, axis=1).max()
    turn = camera(azimuth=-60, elevation=42)
    vertices = flat @ turn
    tip = np.array([0, 0, 0.95]) @ turn
    ax.add_collection(
        PolyCollection(
            [vertices[:, :2]],
            facecolors=[(*to_rgb("#4C86B8"), 0.25)],
            edgecolors="#1F4E79",
            linewidths=1.2,
        )
    )
    for vertex in vertices:
        short = vertex * (1 - 0.24 / np.linalg.norm(vertex[:2]))
        _arrow(ax, short, "#D55E00")
    _arrow(ax, tip, "#009E73")
    size = np.full(3, 0.15)
    _draw_spheres(ax, vertices, kinds[faces[best]], size, np.arange(3), 5)
    ax.plot([0], [0], "o", color="black", markersize=3.5, zorder=6)
    ax.legend(
        handles=[
            Line2D([], [], linestyle="", marker="o", color="black", markersize=3.5, label="centre"),
            Line2D([], [], color="#009E73", label="unit normal, or"),
            Line2D([], [], color="#1F4E79", label="lengths of the edges"),
            Line2D([], [], color="#D55E00", label="vectors to the corners"),
            Line2D(
                [], [], linestyle="", marker="o", color="0.6", markersize=6,
                label="features of the atoms",
            ),
        ],
        loc="lower center",
        handlelength=1.2,
        labelspacing=0.25,
    )  # fmt: skip
    below = np.array([0, vertices[:, 1].min() - 1.05, 0])  # room for the legend
    _frame(ax, np.concatenate([vertices + 0.18, vertices - 0.18, [tip + 0.1, below]]))


def _arrow(ax: Axes, end: NDArray[Any], colour: str) -> None:
    ax.annotate(
        "",
        (end[0], end[1]),
        (0, 0),
        arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0,
            "mutation_scale": 7,
        },
        zorder=4,
    )  # fmt: skip
