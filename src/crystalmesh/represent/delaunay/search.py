"""Gift wrapping: every empty sphere with the atoms on it, one found from the other."""

import numpy as np

from crystalmesh.represent.delaunay.common import (
    CLOSE,
    DONE,
    FULL,
    INCONSISTENT,
    ROUNDING,
    SHORT,
    Floats,
    Ints,
    compiled,
    inlined,
)  # fmt: skip
from crystalmesh.represent.delaunay.hulls import find_facets, hull_room, thickness_of, within_any
from crystalmesh.represent.delaunay.neighbours import Near
from crystalmesh.represent.delaunay.vectors import circle_through, dot, fit_sphere, sides_of
from crystalmesh.represent.delaunay.vertices import (
    HOME,
    SHIFTS,
    Sites,
    Store,
    corners_of,
    empty_store,
    has,
    intern,
    place_vertex,
    shift_of,
    sort_vertices,
)  # fmt: skip


@compiled
def _seed(near: Near, reach: float, circle: Floats, normal: Floats) -> float:
    """A triangle of the tessellation at site 0: an atom, its nearest, the smallest circumcircle.

    Returns:
        Squared radius (-1: beyond `reach`).
    """
    pointer, _, steps, squares = near
    if pointer[1] == 0:
        return -1.0
    best = np.inf
    centre, direction = np.empty(3), np.empty(3)
    for k in range(1, pointer[1]):
        if squares[k] > 4.0 * best:
            break
        square = circle_through(steps[0], steps[k], centre, direction)
        if 0.0 < square < best:
            best = square
            circle[:] = centre
            normal[:] = direction
    return best if 4.0 * best < reach * reach else -1.0


@inlined
def _first_met(
    corner: int,
    circle: Floats,
    normal: Floats,
    square: float,
    known: Ints,
    m: int,
    rounding: float,
    pointer: Ints,
    others: Ints,
    steps: Floats,
    squares: Floats,
) -> float:
    """How far along the normal a sphere through the circle has moved when it meets an atom.

    Args: as of `_next_cell`; atoms on the circle within `rounding`, Angstrom, do not count.

    Returns:
        Angstrom; infinity if it meets none of those that are near.
    """
    site, translation = corner >> 36, (corner & SHIFTS) - HOME
    best, radius2 = np.inf, np.inf
    for k in range(pointer[site], pointer[site + 1]):
        if squares[k] > 4.0 * radius2:
            break
        q = steps[k]
        height = dot(normal, q)
        if height <= 1e-9:
            continue
        # Where along the normal the centre is when the sphere meets this atom.
        along = (squares[k] - 2.0 * dot(q, circle)) / (2.0 * height)
        if along >= best:
            continue
        if height < rounding:
            # On the circle: on every sphere through the face, and so of the face.
            flat = 0.0
            for j in range(3):
                flat += (q[j] - height * normal[j] - circle[j]) ** 2
            if (np.sqrt(flat) - np.sqrt(square)) ** 2 + height**2 < rounding**2:
                continue
        if has(known, 0, m, others[k] + translation):
            continue
        best, radius2 = along, square + along * along
    return best


@inlined
def _atoms_on(
    corner: int,
    radius: float,
    diameter: float,
    rounding: float,
    pointer: Ints,
    others: Ints,
    steps: Floats,
    squares: Floats,
    found: Ints,
    points: Floats,
    centre: Floats,
    sphere: Floats,
) -> tuple[int, int]:
    """All atoms on a sphere through a corner, but for rounding, or in it.

    Args: as of `_next_cell`, with the radius and how far from the corner to look, Angstrom.

    Returns:
        Number of atoms (-1: no room), and a number that is another one for other atoms.
    """
    site, translation = corner >> 36, (corner & SHIFTS) - HOME
    sphere[0], sphere[1] = radius, np.inf
    found[0] = corner
    points[0] = 0.0
    mark, count = 0, 1
    for k in range(pointer[site], pointer[site + 1]):
        if squares[k] > diameter * diameter:
            break
        distance = 0.0
        for j in range(3):
            distance += (steps[k, j] - centre[j]) ** 2
        distance = np.sqrt(distance) - radius
        if distance > rounding:
            sphere[1] = min(sphere[1], distance)
            continue
        if count == len(found):
            return -1, 0
        found[count] = others[k] + translation
        for j in range(3):
            points[count, j] = steps[k, j]
        mark += k
        count += 1
    return count, mark


@compiled
def _next_cell(
    corner: int,
    circle: Floats,
    normal: Floats,
    square: float,
    known: Ints,
    m: int,
    tolerance: float,
    reach: float,
    near: Near,
    found: Ints,
    points: Floats,
    centre: Floats,
    sphere: Floats,
) -> tuple[int, int]:
    """The empty sphere beyond a face: all atoms on it, but for rounding.

    Args:
        corner: the face's first vertex; all positions here are relative to it.
        circle, normal, square: the face's circumcircle and the direction to search.
        known, m: corners of the cell that the face belongs to, which lies behind it.
        near: as `find_neighbours` returns it.
        found, points [., 3], centre: filled with the new cell's corners, positions, and centre.
        sphere [2]: filled with the radius, and how far from the sphere the next atom is.

    Returns:
        Status, number of atoms. If SHORT, sphere[0] is the reach that is needed.
    """
    rounding = min(ROUNDING, 0.1 * tolerance)
    pointer, others, steps, squares = near
    best = _first_met(
        corner, circle, normal, square, known, m, rounding, pointer, others, steps, squares
    )
    if best == np.inf:
        sphere[0] = 2.0 * reach
        return SHORT, 0
    radius = np.sqrt(square + best * best)
    for j in range(3):
        centre[j] = circle[j] + best * normal[j]
    before, mark_before, count = -1, -1, 0
    for _ in range(8):
        diameter = 2.0 * radius + CLOSE * tolerance
        if diameter > reach:
            sphere[0] = diameter
            return SHORT, 0
        count, mark = _atoms_on(
            corner, radius, diameter, rounding, pointer, others, steps, squares, found, points,
            centre, sphere,
        )  # fmt: skip
        if count < 0:
            return FULL, 0
        if (count == before and mark == mark_before) or (count == 4 and before < 0):
            break
        before, mark_before = count, mark
        fitted = fit_sphere(points, count, centre)
        if fitted < 0:
            break
        radius = fitted
    sphere[0] = radius
    return (DONE if count >= 4 else INCONSISTENT), count


@inlined
def _first_look(known: Ints, triple: Ints, explored: Store, key: Ints) -> int:
    """1 for a facet not looked at before, 0 for one that was, from its other side; -1: no room.

    Args:
        known, triple [3]: corners of the cell, and three of them that span the facet.
        explored: facets so far, by three corners.
        key [3]: for use.
    """
    for k in range(3):
        key[k] = known[triple[k]]
    sort_vertices(key, 3)
    before = explored.used[0]
    number = intern(key, 3, explored)
    if number < 0:
        return -1
    return 1 if number == before else 0


@inlined
def _sphere_at(
    start: Floats, centre: Floats, translation: int, sites: Sites, sphere: Floats, out: Floats
) -> None:
    """Fill in a cell's sphere as `find_cells` returns it.

    Args:
        start, centre: the corner that the centre is relative to, and the centre, Angstrom.
        translation: what was taken off the cell's corners as found, to store them.
        sphere [2], out [5].
    """
    for k in range(3):
        out[k] = start[k] + centre[k]
        for j in range(3):
            out[k] -= shift_of(translation + HOME, j) * sites.basis[j, k]
    out[3:] = sphere


@compiled
def find_cells(
    sites: Sites, near: Near, tolerance: float, reach: float, room: int
) -> tuple[int, float, Store, Floats, Floats]:
    """All empty spheres with the atoms on them, one found from the other.

    Returns:
        Status, the reach that is needed if SHORT, cells, spheres [c, 5] (centre in Angstrom,
        radius, distance of the next atom), thickness [c].
    """
    n = len(sites.home)
    cells = empty_store(8 * room * n + 32, 48 * room * n + 192)
    spheres, thickness = np.zeros((len(cells.pointer), 5)), np.zeros(len(cells.pointer))
    most = 64 * room  # corners of a cell
    known, found, key = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(3, np.int64)
    points, offsets, sphere = np.empty((most, 3)), np.empty((most, 3)), np.empty(2)
    triples, normals, members, shared = hull_room(most)
    a, b, circle, normal, centre = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    explored = empty_store(16 * room * n + 64, 48 * room * n + 192)  # facets, by three corners
    square = _seed(near, reach, circle, normal)
    if square < 0:
        return SHORT, 2.0 * reach, cells, spheres, thickness
    cell, facets, m = -1, 1, 0  # the seed is the one facet of no cell
    known[0], triples[0], normals[0] = HOME, 0, normal
    place_vertex(known[0], sites, points[0])
    while cell < cells.used[0]:
        if cell >= 0:
            m = corners_of(cells, cell, sites, known, points)
            facets = find_facets(points, m, triples, normals, members)
        for f in range(facets):
            first, second, third = triples[f]
            if cell >= 0:
                done = within_any(members[f], shared, f, m)
                shared[f, :m] = False
                if done:
                    continue
                look = _first_look(known, triples[f], explored, key)
                if look < 0:
                    return FULL, 0.0, cells, spheres, thickness
                if look == 0:
                    continue
                sides_of(points, first, second, third, a, b)
                square = circle_through(a, b, circle, normal)
                normal[:] = normals[f]
            status, count = _next_cell(
                known[first], circle, normal, square, known, m, tolerance, reach, near,
                found, offsets, centre, sphere,
            )  # fmt: skip
            if status != DONE:
                return status, sphere[0], cells, spheres, thickness
            for i in range(m):
                shared[f, i] = has(found, 0, count, known[i])
            translation = sort_vertices(found, count)
            before, other = cells.used[0], intern(found, count, cells)
            if other < 0:
                return FULL, 0.0, cells, spheres, thickness
            if other == before:
                _sphere_at(points[first], centre, translation, sites, sphere, spheres[other])
                thickness[other] = thickness_of(offsets, count)
        cell += 1
    return DONE, 0.0, cells, spheres, thickness
