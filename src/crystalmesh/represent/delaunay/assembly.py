"""Faces, edges and volumes of cells known by their corners: the arrays of a `Complex`."""

# Length: the loop of `assemble` keeps its arrays as local variables. Handed on for every face, in
# tuples or one by one, each costs a count of references: a third of the time of the loop.

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystalmesh.represent.delaunay.checks import is_ball, is_sound
from crystalmesh.represent.delaunay.common import (
    DONE,
    FULL,
    INCONSISTENT,
    Flags,
    Floats,
    Ints,
    compiled,
    inlined,
)
from crystalmesh.represent.delaunay.hulls import (
    cone_volume,
    find_facets,
    hull_room,
    sort_around,
    within_any,
)  # fmt: skip
from crystalmesh.represent.delaunay.vectors import dot
from crystalmesh.represent.delaunay.vertices import (
    HOME,
    Sites,
    Store,
    corners_of,
    empty_store,
    has,
    incidence_of,
    intern,
    shift_of,
    sort_vertices,
)  # fmt: skip


class _Parts(NamedTuple):
    """Faces and edges as they are found: as in `Complex`, with translations in the vertices."""

    face_pointer: NDArray[np.int64]  # [f + 1]
    edge_ends: NDArray[np.int64]  # [2 e]
    face_cells: NDArray[np.int64]  # [f, 2] the two cells
    face_moves: NDArray[np.int64]  # [f, 2] their translations
    cycles: NDArray[np.int64]  # [.] corners in order around each face
    cycle_edges: NDArray[np.int64]  # [., 3] edge, its translation, sign
    cell_face_pointer: NDArray[np.int64]  # [c + 1]
    cell_faces: NDArray[np.int64]  # [., 3] face, its translation, sign
    volumes: NDArray[np.float64]  # [c] Angstrom^3


@inlined
def _other_cell(
    cells: Store,
    cell: int,
    known: Ints,
    m: int,
    members: Flags,
    vertex: int,
    pointer: Ints,
    places: Ints,
    shared: Flags,
) -> int:
    """The other cell that has all corners of a facet; -1: none.

    Args:
        known, m: corners of the cell.
        members [m], vertex: which of them are the facet's, and one of these.
        pointer, places: as `incidence_of` returns them.
        shared [m]: filled with which of the corners the other cell has.
    """
    starts, items = cells.pointer, cells.items
    for e in range(pointer[vertex >> 36], pointer[(vertex >> 36) + 1]):
        c = places[e, 0]
        move = vertex - items[places[e, 1]]
        if c == cell and move == 0:
            continue
        begin, end = starts[c], starts[c + 1]
        every = True
        for i in range(m):
            if members[i] and not has(items, begin, end, known[i] - move):
                every = False
                break
        if every:
            for i in range(m):
                shared[i] = has(items, begin, end, known[i] - move)
            return c
    return -1


@compiled
def assemble(
    sites: Sites, cells: Store, spheres: Floats, volume: float, room: int
) -> tuple[int, Any]:
    """Faces, edges and volumes of cells that are known by their corners; all checks.

    A face is what the corners of two cells have in common: it needs no tolerance, and is the same
    from both sides.

    Returns:
        Status and the arrays of `Complex`.
    """
    n, most_cells = len(sites.home), len(cells.pointer)
    faces = empty_store(16 * room * n + 64, 64 * room * n + 192)
    edges = empty_store(10 * room * n + 64, 20 * room * n + 128)
    most_faces = len(faces.pointer)
    volumes = np.zeros(most_cells)
    face_cells, face_moves = np.full((most_faces, 2), -1), np.zeros((most_faces, 2), np.int64)
    beyond = np.full((most_faces, 2), -1)  # the cell found on the other side
    face_normals = np.zeros((most_faces, 3))
    cycles = np.empty(len(faces.items), np.int64)
    cycle_edges = np.empty((len(faces.items), 3), np.int64)  # edge, its translation, sign
    cell_face_pointer = np.zeros(most_cells + 1, np.int64)
    cell_faces = np.empty((2 * most_faces, 3), np.int64)  # face, its translation, sign
    most = 64 * max(room, 1)
    known, key, points = np.empty(most, np.int64), np.empty(most, np.int64), np.empty((most, 3))
    triples, normals, members, shared = hull_room(most)
    cycle, corners, pair = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(2, np.int64)
    pointer, places = incidence_of(cells, n)
    status, cell = DONE, 0
    while status == DONE and cell < cells.used[0]:
        m = corners_of(cells, cell, sites, known, points)
        facets = find_facets(points, m, triples, normals, members)
        if facets < 0:
            status = INCONSISTENT
            break
        own, sides = 0, 0  # faces of this cell so far, and their corners
        for f in range(facets):
            if within_any(members[f], shared, own, m):
                continue
            vertex = known[triples[f, 0]]
            other = _other_cell(
                cells, cell, known, m, members[f], vertex, pointer, places, shared[own]
            )
            if other < 0:
                status = INCONSISTENT
                break
            size = 0
            for i in range(m):
                if shared[own, i]:
                    corners[size] = i
                    size += 1
            normal = normals[f]
            sort_around(points, corners, size, normal, cycle)
            volumes[cell] += cone_volume(points, cycle, size, points[0])
            for i in range(size):
                key[i] = known[corners[i]]
            translation = sort_vertices(key, size)
            known_before = faces.used[0]
            face = intern(key, size, faces)
            if face < 0 or cell_face_pointer[cell] + own >= len(cell_faces):
                status = FULL
                break
            side = 0 if face == known_before else 1
            if face_cells[face, side] >= 0:
                status = INCONSISTENT  # a third cell at one face
                break
            if side == 0:
                face_normals[face] = normal
                begin = faces.pointer[face]
                for i in range(size):
                    cycles[begin + i] = known[cycle[i]] - translation
                for i in range(size):
                    pair[0], pair[1] = cycles[begin + i], cycles[begin + (i + 1) % size]
                    cycle_edges[begin + i, 2] = 1 if pair[0] < pair[1] else -1
                    cycle_edges[begin + i, 1] = sort_vertices(pair, 2)
                    cycle_edges[begin + i, 0] = intern(pair, 2, edges)
                    if cycle_edges[begin + i, 0] < 0:
                        status = FULL
                        break
                if status != DONE:
                    break
            elif dot(normal, face_normals[face]) > 0:
                status = INCONSISTENT  # both cells on one side
                break
            face_cells[face, side], beyond[face, side] = cell, other
            entry = cell_face_pointer[cell] + own
            cell_faces[entry, 0], cell_faces[entry, 1] = face, translation
            cell_faces[entry, 2], face_moves[face, side] = 1 - 2 * side, -translation
            own += 1
            sides += size
        cell_face_pointer[cell + 1] = cell_face_pointer[cell] + own
        if status == DONE and not is_ball(volumes[cell], m, own, sides):
            status = INCONSISTENT
        cell += 1

    c, f, e = cells.used[0], faces.used[0], edges.used[0]
    if status != DONE:
        c, f, e = 0, 0, 0  # what is half made is not to be read
    elif not is_sound(volumes[:c], volume, n - e + f - c, face_cells[:f], beyond[:f]):
        status = INCONSISTENT
    parts = _Parts(
        faces.pointer[: f + 1],
        edges.items[: 2 * e],
        face_cells[:f],
        face_moves[:f],
        cycles[: faces.pointer[f]],
        cycle_edges[: faces.pointer[f]],
        cell_face_pointer[: c + 1],
        cell_faces[: cell_face_pointer[c]],
        volumes[:c],
    )
    return status, _arrays(sites, cells, spheres, parts)


@compiled
def _arrays(sites: Sites, cells: Store, spheres: Floats, parts: _Parts) -> Any:
    """The arrays of `Complex`, in their order."""
    face_pointer, edge_ends, face_cells, face_moves, cycles, cycle_edges = parts[:6]
    cell_face_pointer, cell_faces, volumes = parts[6:]
    c = len(volumes)
    # Edges start at shift zero of the sites as given.
    edge_corners = np.arange(0, len(edge_ends), 2)
    edge_sites = (edge_ends >> 36).astype(np.int32).reshape(-1, 2)
    edge_shift = _given(edge_ends, sites, True)
    start_shift = edge_shift[edge_corners]
    edge_shift = edge_shift[edge_corners + 1] - start_shift
    corners = cells.items[: cells.pointer[c]]
    return (
        edge_sites,
        edge_shift,
        face_pointer.astype(np.int32),
        (cycles >> 36).astype(np.int32),
        _given(cycles, sites, True),
        face_cells.astype(np.int32),
        _given(face_moves.copy().reshape(-1) + HOME, sites, False).reshape(-1, 2, 3),
        cycle_edges[:, 0].astype(np.int32),
        _given(cycle_edges[:, 1] + HOME, sites, False) + start_shift[cycle_edges[:, 0]],
        cycle_edges[:, 2].astype(np.int8),
        cells.pointer[: c + 1].astype(np.int32),
        (corners >> 36).astype(np.int32),
        _given(corners, sites, True),
        cell_face_pointer.astype(np.int32),
        cell_faces[:, 0].astype(np.int32),
        _given(cell_faces[:, 1] + HOME, sites, False),
        cell_faces[:, 2].astype(np.int8),
        spheres[:c, :3].copy(),
        spheres[:c, 3].copy(),
        volumes.copy(),
    )


@compiled
def _given(vertices: Ints, sites: Sites, wrapped: bool) -> NDArray[np.int32]:
    """Shifts as the caller counts them: between the sites as given, in the lattice as given."""
    out = np.zeros((len(vertices), 3), np.int32)
    for i in range(len(vertices)):
        for j in range(3):
            shift = shift_of(vertices[i], j)
            if wrapped:
                shift -= sites.wrap[vertices[i] >> 36, j]
            for k in range(3):
                out[i, k] += shift * sites.change[j, k]
    return out
