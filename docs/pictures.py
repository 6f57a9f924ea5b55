"""The pictures of mesh.md, drawn from the complexes that the code itself finds.

    python docs/pictures.py [FOLDER]

writes docs/images/*.svg, or the same files into FOLDER: a test compares them with what is
committed. The bytes depend on the code and the locked packages alone.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from crystalmesh import numerics

numerics.prepare("native")  # before NumPy and numba read the environment

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Circle, Polygon  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.spatial import ConvexHull, Delaunay  # noqa: E402

from crystalmesh.data.crystals import Crystal  # noqa: E402
from crystalmesh.represent import geometry, representation  # noqa: E402
from crystalmesh.represent.mesh import Complex, tessellate  # noqa: E402

Floats = NDArray[np.float64]

PIECES = 3  # of a line
FOLDER = Path(__file__).parent / "images"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"
STYLE: Any = {
    "svg.hashsalt": "crystalmesh",  # else the ids in the file are random
    "svg.fonttype": "path",  # the picture looks alike where the font is missing
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Prototype(NamedTuple):
    """A crystal by its conventional cell."""

    name: str
    edge: float  # Angstrom, of the cubic cell
    sites: Sequence[tuple[float, float, float]]
    numbers: Sequence[int]


_FCC = [(0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0)]
_HALF = [(x + 0.5, y, z) for x, y, z in _FCC]
_QUARTER = [(x + 0.25, y + 0.25, z + 0.25) for x, y, z in _FCC]
BCC = Prototype("bcc", 2.87, [(0, 0, 0), (0.5, 0.5, 0.5)], [26, 26])
FCC = Prototype("fcc", 3.61, _FCC, [29] * 4)
ROCK_SALT = Prototype("NaCl", 5.64, [*_FCC, *_HALF], [11] * 4 + [17] * 4)
DIAMOND = Prototype("diamond", 3.57, [*_FCC, *_QUARTER], [6] * 8)
PEROVSKITE = Prototype(
    "SrTiO3",
    3.905,
    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
    [38, 22, 8, 8, 8],
)


def complex_of(one: Prototype) -> Complex:
    return tessellate(one.edge * np.eye(3), np.array(one.sites, dtype=float) % 1.0)


# Drawing in space: parallel projection, things painted from the back to the front ----------------


def camera(azimuth: float, elevation: float) -> Floats:
    """Columns: the directions right, up, and towards the reader; angles in degrees."""
    a, e = np.radians([azimuth, elevation])
    right = [-np.sin(a), np.cos(a), 0.0]
    up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
    towards = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    return np.array([right, up, towards]).T


VIEW = camera(-65, 18)


@dataclass
class Scene:
    """What is to be painted on an axes, and how far in front each of it is."""

    axes: Axes
    view: Floats

    def __post_init__(self) -> None:
        self.axes.set_aspect("equal")
        self.axes.set_axis_off()
        self._painted: list[tuple[float, Any]] = []
        self._seen: list[Floats] = []

    def _flat(self, points: Floats) -> tuple[Floats, float]:
        seen = np.atleast_2d(points) @ self.view
        self._seen.append(seen[:, :2])
        return seen[:, :2], float(seen[:, 2].mean())

    def polygon(self, corners: Floats, colour: str, alpha: float, width: float = 1.0) -> None:
        flat, depth = self._flat(corners)
        face = (*to_rgb(colour), alpha)
        line = (*(0.6 * np.array(to_rgb(colour))), 0.9)
        patch = Polygon(flat, facecolor=face, edgecolor=line, linewidth=width, joinstyle="round")
        self._painted.append((depth, patch))

    def line(self, one: Floats, two: Floats, colour: str, width: float) -> None:
        """In short pieces, so that a thing between its ends hides only what is behind it."""
        steps = np.linspace(0.0, 1.0, PIECES + 1)[:, None]
        points = one + steps * (two - one)
        for a, b in pairwise(points):
            flat, depth = self._flat(np.array([a, b]))
            patch = Polygon(
                flat, closed=False, fill=False, edgecolor=colour, linewidth=width, capstyle="round"
            )
            self._painted.append((depth - 1e-6, patch))

    def sphere(self, centre: Floats, radius: float) -> None:
        """Its outline."""
        flat, depth = self._flat(centre)
        self._seen += [flat - radius, flat + radius]
        outline = Circle((flat[0, 0], flat[0, 1]), radius, fill=False, color="#333333", lw=0.9)
        self._painted.append((depth, outline))

    def ball(self, centre: Floats, radius: float, colour: str) -> None:
        flat, depth = self._flat(centre)
        self._painted.append((depth, Ball(flat[0], radius, colour)))

    def finish(self, margin: float) -> None:
        seen = np.concatenate(self._seen)
        (left, low), (right, high) = seen.min(axis=0) - margin, seen.max(axis=0) + margin
        self.axes.set_xlim(left, right)
        self.axes.set_ylim(low, high)
        figure, box = self.axes.get_figure(), self.axes.get_position()
        assert isinstance(figure, Figure)
        inches = figure.get_size_inches() * (box.width, box.height)
        points = 72 * min(inches / (right - left, high - low))  # of one Angstrom
        for order, (_, thing) in enumerate(sorted(self._painted, key=lambda pair: pair[0])):
            if isinstance(thing, Ball):
                thing.paint(self.axes, points, order)
            else:
                thing.set_zorder(order)
                self.axes.add_patch(thing)


class Ball(NamedTuple):
    """Circles that shrink towards a highlight and grow lighter: they look like a sphere."""

    place: Floats
    radius: float
    colour: str

    def paint(self, axes: Axes, points: float, order: int) -> None:
        base = np.array(to_rgb(self.colour))
        for step in np.linspace(0.0, 1.0, 4):
            shade = (1 - step) * 0.6 * base + step * (base + 0.7 * (1 - base))
            x, y = self.place + self.radius * step * np.array([-0.28, 0.3])
            size = 2 * points * self.radius * (1 - 0.85 * step)
            # a marker: the file has its outline once, and not once a ball
            axes.plot(
                [x], [y], "o", color=tuple(shade), markersize=size, markeredgewidth=0, zorder=order
            )


COLOURS = {6: "#555555", 8: "#D62728", 11: "#9467BD", 17: "#2CA02C", 22: "#9A9A9A", 26: "#E07B39",
           29: "#C88033", 38: "#3CB371"}  # fmt: skip


def cell_faces(found: Complex, cell: int, offset: Floats) -> list[Floats]:
    """The polygons around a cell, moved by whole lattice vectors (in cells)."""
    faces = []
    for k in range(found.cell_face_pointer[cell], found.cell_face_pointer[cell + 1]):
        face = found.cell_faces[k]
        rows = slice(found.face_pointer[face], found.face_pointer[face + 1])
        shift = found.face_shift[rows] + found.cell_faces_shift[k] + offset
        faces.append(geometry.positions(found, found.face_sites[rows], shift.astype(np.int32)))
    return faces


def draw_box(scene: Scene, edge: float) -> None:
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    for i in range(8):
        for j in range(i):
            if (i ^ j).bit_count() == 1:
                scene.line(edge * corners[i], edge * corners[j], "#333333", 0.8)


def draw_atoms(scene: Scene, one: Prototype, corners: Sequence[Floats], radius: float) -> None:
    """The atoms of the closed cell, and those at some corners."""
    for site, number in zip(one.sites, one.numbers, strict=True):
        for cell in np.ndindex(4, 4, 4):
            place = np.array(site) % 1.0 + cell - 1.0
            inside = bool(((place >= 0.0) & (place <= 1.0)).all())
            if inside or any(abs(one.edge * place - corner).max() < 1e-6 for corner in corners):
                scene.ball(one.edge * place, radius, COLOURS[number])


# The pictures ------------------------------------------------------------------------------------


CELLS = {4: "tetrahedra", 5: "bipyramids", 6: "octahedra", 8: "cubes"}  # by their corners


def cells() -> Figure:
    """One cell of each kind, as many kinds as the crystal has."""
    figure = Figure(figsize=(7.6, 2.35))
    shown = (FCC, BCC, ROCK_SALT, PEROVSKITE)
    axes = figure.subplots(1, len(shown))
    figure.subplots_adjust(left=0.005, right=0.995, top=0.88, bottom=0.13, wspace=0.04)
    for ax, one in zip(axes, shown, strict=True):
        found = complex_of(one)
        orbits = geometry.orbits(found, np.array(one.numbers)).cells
        scene = Scene(ax, VIEW)
        draw_box(scene, one.edge)
        words: list[str] = []
        taken: list[Floats] = []
        corners: list[Floats] = []
        for orbit, count in enumerate(orbits.multiplicity):
            cell, offset = _inside(found, np.flatnonzero(orbits.label == orbit), taken)
            size = int(found.cell_pointer[cell + 1] - found.cell_pointer[cell])
            words.append(f"{count} {CELLS[size]}")
            taken.append(found.cell_centres[cell] + offset @ found.lattice)
            for face in cell_faces(found, cell, offset):
                scene.polygon(face, (BLUE, ORANGE)[orbit], 0.34, 1.1)
                corners += [*face]
        draw_atoms(scene, one, corners, 0.055 * one.edge)
        scene.finish(0.08 * one.edge)
        ax.set_title(one.name.replace("SrTiO3", "SrTiO$_3$"), pad=2)
        ax.text(
            0.5, -0.06, ", ".join(words), ha="center", va="top", transform=ax.transAxes, fontsize=8
        )
    return figure


def _inside(found: Complex, cells: NDArray[Any], taken: list[Floats]) -> tuple[int, Floats]:
    """Of some cells and their copies the one that is most inside the box and far from others."""
    best: tuple[tuple[float, ...], int, Floats] | None = None
    box = np.linalg.inv(found.lattice)
    for cell in cells.tolist():
        for offset in np.ndindex(3, 3, 3):
            shift = np.array(offset, dtype=float) - 1
            corners = np.concatenate(cell_faces(found, cell, shift))
            place = corners @ box
            outside = float(np.clip(np.maximum(-place, place - 1), 0, None).sum())
            centre = corners.mean(axis=0)
            apart = [np.linalg.norm((centre - other) @ VIEW[:, :2]) for other in taken]
            near = float(min(apart, default=0.0))
            front = float(centre @ VIEW[:, 2])
            key = (round(outside, 6), -round(near, 6), -round(front, 6))
            if best is None or key < best[0]:
                best = key, cell, shift
    assert best is not None
    return best[1], best[2]


def diagonals() -> Figure:
    """A square layer: Qhull's triangles of two roundings, and the faces of the complex."""
    figure = Figure(figsize=(7.6, 2.75))
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.89, bottom=0.01, wspace=0.05)
    size = 4
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1)
    points = grid.reshape(-1, 2).astype(float)
    for ax, seed in zip(axes[:2], (0, 1), strict=True):
        noise = np.random.default_rng(seed).normal(size=points.shape)
        for triangle in Delaunay(points + 1e-9 * noise).simplices:
            corners = points[triangle]
            patch = Polygon(corners, facecolor="#FBE6D9", edgecolor=ORANGE, linewidth=1.1)
            ax.add_patch(patch)
        ax.set_title(f"atoms moved by 10$^{{-9}}$ Å, {('once', 'and again')[seed]}")
    axes[2].set_title("co-spherical cells kept whole")
    found = tessellate(np.eye(3), np.zeros((1, 3)))
    for face in range(found.n_faces):
        rows = slice(found.face_pointer[face], found.face_pointer[face + 1])
        corners = geometry.positions(found, found.face_sites[rows], found.face_shift[rows])
        if np.ptp(corners[:, 2]) > 0.5:  # not of a layer
            continue
        corners = corners[:, :2] - corners[:, :2].min(axis=0)
        for i, j in np.ndindex(size - 1, size - 1):
            patch = Polygon(corners + [i, j], facecolor="#D6E8F5", edgecolor=BLUE, linewidth=1.3)
            axes[2].add_patch(patch)
    for ax in axes:
        circle = Circle(
            (1.5, 1.5), np.sqrt(0.5), fill=False, color="#333333", lw=1.0, ls=(0, (4, 3))
        )
        ax.add_patch(circle)
        ax.plot(*points.T, "o", color="#333333", markersize=5)
        ax.set_aspect("equal")
        ax.set_axis_off()
        ax.set_xlim(-0.25, size - 0.75)
        ax.set_ylim(-0.25, size - 0.75)
    return figure


MESHES = {
    "mesh.published": {"symprec": 0.01, "supercell": 5, "tolerance": 0.05},
    "mesh.canonical": {"symprec": 0.01, "tolerance": 0.001},
}
DESCRIPTIONS = 20


def descriptions(one: Prototype, count: int = DESCRIPTIONS) -> list[Crystal]:
    """One crystal as written down in several ways: turned, shifted, its sites permuted."""
    rng = np.random.default_rng(0)
    lattice, frac, numbers = one.edge * np.eye(3), np.array(one.sites), np.array(one.numbers)
    ways = []
    for _ in range(count):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        order = rng.permutation(len(numbers))
        turned = lattice @ (turn * np.sign(np.linalg.det(turn)))
        ways.append(
            Crystal(one.name, one.name, turned, numbers[order], ((frac + rng.random(3)) % 1)[order])
        )
    return ways


def faces(kind: str, crystal: Crystal) -> int:
    return len(representation(kind, MESHES[kind]).build(crystal)["faces"])


def descriptions_counted() -> Figure:
    """Faces of both meshes, for many descriptions of the same crystals."""
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    ax = figure.add_subplot()
    shown = (BCC, FCC, ROCK_SALT, DIAMOND, PEROVSKITE)
    for row, one in enumerate(shown):
        for kind, colour, place in (
            ("mesh.published", ORANGE, 0.14),
            ("mesh.canonical", BLUE, -0.14),
        ):
            counts = np.array([faces(kind, way) for way in descriptions(one)])
            values, times = np.unique(counts, return_counts=True)
            height = len(shown) - 1 - row + place
            ax.plot([counts.min(), counts.max()], [height] * 2, "-", color=colour, lw=0.8)
            ax.scatter(
                values, [height] * len(values), s=9 + 5 * times, color=colour, lw=0, alpha=0.75
            )
            low, high = counts.min(), counts.max()
            text = f"{low} to {high}" if low < high else f"{low}"
            ax.annotate(
                text, (high, height), (9, 0), textcoords="offset points", va="center",
                color=colour, fontsize=8,
            )  # fmt: skip
    names = [one.name.replace("SrTiO3", "SrTiO$_3$") for one in reversed(shown)]
    ax.set_yticks(range(len(shown)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"triangles of the mesh, {DESCRIPTIONS} descriptions of each crystal")
    ax.set_ylim(-0.5, len(shown) - 0.45)
    ax.set_xlim(0, 1130)
    ax.plot([], [], "o", color=ORANGE, label="published mesh")
    ax.plot([], [], "o", color=BLUE, label="canonical mesh")
    ax.legend(loc="upper right", handletextpad=0.1)
    return figure


def dual() -> Figure:
    """Voronoi cells with one edge and the face dual to it, and a cell with its sphere."""
    figure = Figure(figsize=(7.6, 3.0))
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.9, bottom=0.02, wspace=0.03)
    for ax, one in zip(axes[:2], (FCC, BCC), strict=True):
        found = complex_of(one)
        scene = Scene(ax, camera(-62, 16))
        ends, polygons = voronoi_cell(found)
        front = np.array([p.mean(axis=0) @ scene.view @ [0.5, 0.1, 1.0] for p in polygons])
        chosen = int(np.argmax(np.round(front, 6)))
        for k, (end, polygon) in enumerate(zip(ends, polygons, strict=True)):
            marked = k == chosen
            scene.polygon(polygon, ORANGE if marked else BLUE, 0.55 if marked else 0.16, 1.0)
            scene.line(np.zeros(3), end, ORANGE if marked else GREY, 2.2 if marked else 0.9)
            scene.ball(end, 0.055 * one.edge, COLOURS[one.numbers[0]])
        scene.ball(np.zeros(3), 0.055 * one.edge, COLOURS[one.numbers[0]])
        scene.finish(0.08 * one.edge)
    found = complex_of(BCC)
    scene = Scene(axes[2], camera(-50, 14))
    centre = found.cell_centres[0]
    for face in cell_faces(found, 0, np.zeros(3)):
        scene.polygon(face, BLUE, 0.16, 1.1)
        for corner in face:
            scene.ball(corner, 0.045 * BCC.edge, COLOURS[26])
            scene.line(centre, corner, GREY, 0.9)
    scene.sphere(centre, float(found.cell_radii[0]))
    scene.ball(centre, 0.03 * BCC.edge, ORANGE)
    scene.finish(0.06 * BCC.edge)
    titles = ("fcc: rhombic dodecahedron", "bcc: truncated octahedron", "bcc: a cell, its sphere")
    for ax, words in zip(axes, titles, strict=True):
        box = ax.get_position(original=True)
        figure.text((box.x0 + box.x1) / 2, 0.94, words, ha="center", fontsize=9.5)
    return figure


def voronoi_cell(found: Complex) -> tuple[list[Floats], list[Floats]]:
    """Of site 0, which is at the origin: its edges' other ends, and the face dual to each edge."""
    centres = []  # of all cells at the site, with the corners of each
    for cell in range(found.n_cells):
        rows = slice(found.cell_pointer[cell], found.cell_pointer[cell + 1])
        sites, shifts = found.cell_sites[rows], found.cell_shift[rows]
        for shift in shifts[sites == 0]:
            corners = geometry.positions(found, sites, shifts - shift)
            centres.append((found.cell_centres[cell] - shift @ found.lattice, corners))
    hull = ConvexHull(np.array([centre for centre, _ in centres]))
    assert abs(hull.volume - geometry.voronoi_volumes(found)[0]) < 1e-9
    vectors = geometry.edge_vectors(found)
    i, j = found.edge_sites.T
    ends = [*vectors[i == 0], *(-vectors[j == 0])]
    areas = [*geometry.dual_areas(found)[i == 0], *geometry.dual_areas(found)[j == 0]]
    polygons = []
    for end, area in zip(ends, areas, strict=True):
        ring = np.array(
            [centre for centre, corners in centres if (abs(corners - end).max(axis=1) < 1e-6).any()]
        )
        polygons.append(_around(ring, end))
        assert abs(_area(polygons[-1]) - area) < 1e-9
    return ends, polygons


def _around(points: Floats, axis: Floats) -> Floats:
    """The points in order around an axis through their mean."""
    first = points[0] - points.mean(axis=0)
    second = np.cross(axis, first) / np.linalg.norm(axis)
    from_mean = points - points.mean(axis=0)
    angle = np.arctan2(from_mean @ second, from_mean @ first)
    ordered: Floats = points[np.argsort(np.round(angle, 6), kind="stable")]
    return ordered


def _area(polygon: Floats) -> float:
    cross = np.cross(polygon, np.roll(polygon, -1, axis=0))
    return float(np.linalg.norm(cross.sum(axis=0)) / 2)


PICTURES = {
    "cells": cells,
    "diagonals": diagonals,
    "descriptions": descriptions_counted,
    "dual": dual,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, draw in PICTURES.items():
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
