"""Measures of a periodic Delaunay complex: lengths, dual areas, angles, triangles, orbits.

Every function takes a `Complex` as `crystalmesh.represent.delaunay.tessellate` returns it; lengths
are in Angstrom, angles in radian. The dual of the complex is the Voronoi diagram: its vertices are
the centres of the cells, and the face dual to an edge is the polygon of the centres of the cells
around that edge (Okabe, Boots, Sugihara, Chiu, Spatial Tessellations, 2nd ed., 2000, ch. 2).
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import spglib
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.delaunay import Complex

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

# spglib 2.8 warns on every call unless it may raise.
spglib.error.OLD_ERROR_HANDLING = False


def positions(
    found: Complex, sites: Int[Ints, "..."], shifts: Int[Ints, "... 3"]
) -> Float[Floats, "... 3"]:
    """Where vertices lie, Angstrom."""
    place: Floats = (found.frac_coords[sites] + shifts) @ found.lattice
    return place


def edge_vectors(found: Complex) -> Float[Floats, "e 3"]:
    """From the first to the second end of each edge, Angstrom."""
    i, j = found.edge_sites.T
    steps: Floats = (found.frac_coords[j] + found.edge_shift - found.frac_coords[i]) @ found.lattice
    return steps


def edge_lengths(found: Complex) -> Float[Floats, " e"]:
    """Angstrom."""
    return _norm(edge_vectors(found))


def face_triangles(
    found: Complex,
) -> tuple[Int[Ints, "t 3"], Int[Ints, "t 3 3"], Int[Ints, " t"]]:
    """All triples of corners of every face: one of a triangle, four of a quadrilateral.

    Returns:
        sites [t, 3] and shifts [t, 3, 3] of the corners, in order around the face (by the right
        hand about its normal), and the face [t] of each triangle; faces in order.
    """
    sizes = np.diff(found.face_pointer)
    corners, faces = [], []
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        triples = np.array(list(itertools.combinations(range(size), 3)))
        corners.append((found.face_pointer[of_size][:, None, None] + triples).reshape(-1, 3))
        faces.append(np.repeat(of_size, len(triples)))
    order = np.argsort(np.concatenate(faces), kind="stable")
    rows = np.concatenate(corners)[order]
    face = np.concatenate(faces)[order].astype(np.int32)
    return found.face_sites[rows], found.face_shift[rows], face


def face_areas(found: Complex) -> Float[Floats, " f"]:
    """Areas of the polygons, Angstrom^2."""
    return _norm(_face_area_vectors(found))


def face_normals(found: Complex) -> Float[Floats, "f 3"]:
    """Unit normals, out of the first cell of each face and into the second."""
    vectors = _face_area_vectors(found)
    unit: Floats = vectors / _norm(vectors)[:, None]
    return unit


def face_circumradii(found: Complex) -> Float[Floats, " f"]:
    """Radius of the circle through the corners of each face, Angstrom (mean over its triangles)."""
    sites, shifts, face = face_triangles(found)
    corners = positions(found, sites, shifts)
    sides = corners[:, [1, 2, 0]] - corners
    double_area = _norm(np.cross(sides[:, 0], sides[:, 1]))
    radii = np.linalg.norm(sides, axis=2).prod(axis=1) / (2 * double_area)
    mean: Floats = np.bincount(face, radii) / np.bincount(face)
    return mean


def corner_angles(found: Complex) -> tuple[Int[NDArray[Any], " fc"], Float[Floats, " fc"]]:
    """At each corner of each face: the corner before it, and the angle inside the face, radian."""
    before = np.arange(len(found.face_sites)) - 1
    before[found.face_pointer[:-1]] = found.face_pointer[1:] - 1
    steps = edge_vectors(found)[found.face_edges] * found.face_edges_sign[:, None]
    cosine = -_dot(steps[before], steps) / (_norm(steps) * _norm(steps[before]))
    return before, np.arccos(np.clip(cosine, -1.0, 1.0))


def dual_areas(found: Complex) -> Float[Floats, " e"]:
    """Area of the Voronoi face between the two ends of each edge, Angstrom^2.

    Each face around the edge gives the triangle of the edge's middle and the centres of the face's
    two cells, signed, as the middle may lie outside of the Voronoi face.
    """
    edge, _, middle, one, two = _around_edges(found)
    axis = edge_vectors(found)
    axis /= _norm(axis)[:, None]
    parts = 0.5 * np.einsum("ij,ij->i", axis[edge], np.cross(one - middle, two - middle))
    return _sums(edge, parts, found.n_edges)


def solid_angles(found: Complex) -> Float[Floats, "e 2"]:
    """Solid angle of each edge's Voronoi face, seen from the edge's first and second end.

    The two are the same but for corners of cells that are co-spherical only within the tolerance.
    The solid angles at a site add up to 4 pi. Each triangle by Van Oosterom and Strackee, IEEE
    Trans. Biomed. Eng. 30, 125 (1983).
    """
    edge, start, middle, one, two = _around_edges(found)
    angles = np.empty((found.n_edges, 2))
    for end, (site, turn) in enumerate(((start, 1.0), (2 * middle - start, -1.0))):
        a, b, c = middle - site, one - site, two - site
        x, y, z = _norm(a), _norm(b), _norm(c)
        up = turn * np.einsum("ij,ij->i", a, np.cross(b, c))
        down = x * y * z + _dot(a, b) * z + _dot(b, c) * x + _dot(c, a) * y
        angles[:, end] = _sums(edge, 2 * np.arctan2(up, down), found.n_edges)
    return angles


def voronoi_volumes(found: Complex) -> Float[Floats, " n"]:
    """Volume of each site's Voronoi cell, Angstrom^3; they add up to the lattice's volume."""
    cones = np.repeat(dual_areas(found) * edge_lengths(found) / 6, 2)
    return _sums(found.edge_sites.ravel(), cones, found.n_vertices)


@dataclass(frozen=True)
class Dihedrals:
    """Where two faces of a cell meet.

    Attributes:
        cells [d], edges [d], shifts [d, 3]: the edge, moved by the shift, is one of the cell's.
        angles [d]: inside the cell between the two faces; around an edge they add up to 2 pi.
    """

    cells: Int[Ints, " d"]
    edges: Int[Ints, " d"]
    shifts: Int[Ints, "d 3"]
    angles: Float[Floats, " d"]


def dihedral_angles(found: Complex) -> Dihedrals:
    """The angle inside each cell at each of its edges."""
    cell = np.repeat(np.arange(found.n_cells), np.diff(found.cell_face_pointer))
    size = np.diff(found.face_pointer)[found.cell_faces]
    row = np.repeat(np.arange(len(cell)), size)  # of the incidence of cell and face
    corner = _ranges(found.face_pointer[found.cell_faces], size)
    shift = found.face_edges_shift[corner] + found.cell_faces_shift[row]
    key = np.column_stack([cell[row], found.face_edges[corner], shift])
    order = np.lexsort(key.T[::-1])
    key, row = key[order], row[order]
    # Every edge of a polyhedron is one of exactly two faces.
    normal = face_normals(found)[found.cell_faces] * found.cell_faces_sign[:, None]
    a, b = normal[row[0::2]], normal[row[1::2]]
    angle = np.pi - np.arctan2(_norm(np.cross(a, b)), _dot(a, b))
    key = key[0::2].astype(np.int32)
    return Dihedrals(key[:, 0], key[:, 1], key[:, 2:], angle)


@dataclass(frozen=True)
class Orbit:
    """Symmetry orbits of one kind of parts (atoms, edges, faces or cells).

    Attributes:
        label [k]: number of the orbit of each part.
        representative [o]: the first part of each orbit.
        multiplicity [o]: how many parts the orbit has: the weight of its representative.
    """

    label: Int[Ints, " k"]
    representative: Int[Ints, " o"]
    multiplicity: Int[Ints, " o"]


@dataclass(frozen=True)
class Orbits:
    """Orbits of atoms, edges, faces and cells under the space group.

    Attributes:
        operations: how many symmetry operations (translations of a centred cell included) map the
            complex onto itself.
        broken: how many operations of spglib's do not (a crystal that is symmetric only within
            symprec may have a complex that is not).
    """

    atoms: Orbit
    edges: Orbit
    faces: Orbit
    cells: Orbit
    operations: int
    broken: int


def orbits(found: Complex, numbers: Int[NDArray[Any], " n"], symprec: float = 0.01) -> Orbits:
    """Which atoms, edges, faces and cells are the same by symmetry.

    Args:
        numbers: atomic number of each site.
        symprec: Angstrom, of spglib's search.

    Raises:
        CrystalmeshError: spglib finds no symmetry at all.
    """
    cell: Any = (found.lattice, found.frac_coords, numbers)
    try:
        data = spglib.get_symmetry_dataset(cell, symprec=symprec)
    except spglib.SpglibError:
        data = None
    if data is None:
        raise CrystalmeshError(f"spglib finds no space group at symprec {symprec}")
    n = found.n_vertices
    corners: Any = (
        (np.arange(n + 1), np.arange(n), np.zeros((n, 3), dtype=np.int64)),
        (
            np.arange(0, 2 * found.n_edges + 1, 2),
            found.edge_sites.ravel(),
            np.stack([np.zeros_like(found.edge_shift), found.edge_shift], axis=1).reshape(-1, 3),
        ),
        (found.face_pointer, found.face_sites, found.face_shift),
        (found.cell_pointer, found.cell_sites, found.cell_shift),
    )
    known = [
        {key: k for k, key in enumerate(_keys(pointer, sites, shifts))}
        for pointer, sites, shifts in corners
    ]
    joined: list[list[NDArray[np.int64]]] = [[] for _ in corners]
    broken = 0
    for rotation, translation in zip(data.rotations, data.translations, strict=True):
        moved = found.frac_coords @ rotation.T + translation
        gap = moved[:, None] - found.frac_coords
        gap -= np.round(gap)
        image = np.linalg.norm(gap @ found.lattice, axis=2).argmin(axis=1)
        offset = np.round(moved - found.frac_coords[image]).astype(np.int64)
        images = []
        for (pointer, sites, shifts), index in zip(corners, known, strict=True):
            keys = _keys(pointer, image[sites], shifts @ rotation.T + offset[sites])
            images.append(np.array([index.get(key, -1) for key in keys]))
        if any((ids < 0).any() for ids in images):
            broken += 1
            continue
        for ids, maps in zip(images, joined, strict=True):
            maps.append(ids)
    atoms, edges, faces, cells = map(_orbit, joined)
    return Orbits(atoms, edges, faces, cells, len(joined[0]), broken)


def _orbit(maps: list[NDArray[np.int64]]) -> Orbit:
    count = len(maps[0])
    start = np.tile(np.arange(count), len(maps))
    graph = coo_array((np.ones(len(start)), (start, np.concatenate(maps))), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    _, first, inverse, size = np.unique(
        label, return_index=True, return_inverse=True, return_counts=True
    )
    # Orbits in the order of their first parts.
    rank = np.argsort(np.argsort(first))
    order = np.argsort(first)
    return Orbit(
        rank[inverse].astype(np.int32),
        first[order].astype(np.int32),
        size[order].astype(np.int32),
    )


def _keys(
    pointer: Int[NDArray[Any], " k+1"],
    sites: Int[NDArray[Any], " c"],
    shifts: Int[NDArray[Any], "c 3"],
) -> list[bytes]:
    """A name of each part that does not depend on the order of its corners or on translations."""
    part = np.repeat(np.arange(len(pointer) - 1), np.diff(pointer))
    rows = np.column_stack([part, sites, shifts]).astype(np.int32)
    rows = rows[np.lexsort(rows.T[::-1])]
    rows[:, 2:] -= rows[pointer[:-1]][part][:, 2:]
    plain = np.ascontiguousarray(rows[:, 1:])
    return [plain[a:b].tobytes() for a, b in itertools.pairwise(pointer.tolist())]


def _face_area_vectors(found: Complex) -> Float[Floats, "f 3"]:
    """Area times normal: half the sum of corner x next corner, from the first corner."""
    face = np.repeat(np.arange(found.n_faces), np.diff(found.face_pointer))
    corner = positions(found, found.face_sites, found.face_shift)
    corner = corner - corner[found.face_pointer[:-1]][face]
    after = np.arange(1, len(corner) + 1)
    after[found.face_pointer[1:] - 1] = found.face_pointer[:-1]
    vectors: Floats = 0.5 * np.add.reduceat(
        np.cross(corner, corner[after]), found.face_pointer[:-1]
    )
    return vectors


def _around_edges(
    found: Complex,
) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Each face at each of its edges: edge, its start and middle, centres of the face's two cells.

    The two centres are in the order of the right hand about the edge.
    """
    face = np.repeat(np.arange(found.n_faces), np.diff(found.face_pointer))
    edge = found.face_edges
    start = positions(found, found.edge_sites[edge, 0], found.face_edges_shift)
    middle = start + 0.5 * edge_vectors(found)[edge]
    centres = found.cell_centres[found.face_cells] + found.face_cells_shift @ found.lattice
    # The face's normal points from its first cell to its second, and its corners run about it.
    ahead = found.face_edges_sign[:, None] > 0
    one, two = centres[face, 0], centres[face, 1]
    return edge, start, middle, np.where(ahead, one, two), np.where(ahead, two, one)


def _ranges(start: NDArray[Any], size: NDArray[Any]) -> NDArray[np.int64]:
    """start[0] ... start[0] + size[0] - 1, start[1] ..."""
    first = np.cumsum(size) - size
    ranges: NDArray[np.int64] = np.arange(size.sum()) + np.repeat(start - first, size)
    return ranges


def _sums(places: NDArray[Any], values: Floats, size: int) -> Floats:
    """Sum of the values at each place."""
    sums: Floats = np.bincount(places, values, size).astype(np.float64)
    return sums


def _norm(vectors: Floats) -> Floats:
    length: Floats = np.linalg.norm(vectors, axis=-1)
    return length


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.einsum("ij,ij->i", a, b)
    return product
