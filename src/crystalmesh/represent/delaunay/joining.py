"""Joining of cells that are co-spherical within the tolerance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crystalmesh.represent.delaunay.common import (
    CLOSE,
    DONE,
    FLAT,
    FULL,
    INCONSISTENT,
    Floats,
    Ints,
    compiled,
)
from crystalmesh.represent.delaunay.hulls import thickness_of
from crystalmesh.represent.delaunay.vectors import distance_between, fit_sphere
from crystalmesh.represent.delaunay.vertices import (
    Sites,
    Store,
    empty_store,
    has,
    incidence_of,
    intern,
    place_vertex,
    sort_vertices,
)  # fmt: skip


class _Links(NamedTuple):
    """Pairs of cells that lie on one sphere; the entries of a cell hang together as a chain."""

    entries: NDArray[np.int64]  # [., 3] the cell's entry before or -1, other cell, its translation
    last: NDArray[np.int64]  # [c] the last entry of each cell, or -1
    used: NDArray[np.int64]  # [1] how many entries there are


@compiled
def _link(links: _Links, cell: int, other: int, move: int) -> bool:
    """Keep a pair, both ways; False: no room."""
    entry = links.used[0]
    if entry + 2 > len(links.entries):
        return False
    links.entries[entry] = (links.last[cell], other, move)
    links.last[cell] = entry
    links.entries[entry + 1] = (links.last[other], cell, -move)
    links.last[other] = entry + 1
    links.used[0] += 2
    return True


@compiled
def _meets_first(cells: Store, cell: int, i: int, other: int, move: int) -> bool:
    """Whether two cells have an edge in common, and corner i is the first that they share."""
    start, stop = cells.pointer[cell], cells.pointer[cell + 1]
    begin, end = cells.pointer[other], cells.pointer[other + 1]
    common = 0
    for j in range(start, stop):
        if has(cells.items, begin, end, cells.items[j] - move):
            if j < start + i:
                return False
            common += 1
    return common >= 2


@compiled
def _common_sphere(points: Floats, m: int, tolerance: float, centre: Floats) -> float:
    """The least-squares sphere of points that lie on it; returns its radius, -1 if one does not."""
    radius = fit_sphere(points, m, centre)
    alike = radius > 0
    for j in range(m):
        alike &= abs(distance_between(points[j], centre) - radius) <= tolerance
    return radius if alike else -1.0


@compiled
def _alike(
    sites: Sites,
    cells: Store,
    cell: int,
    other: int,
    move: int,
    sphere: Floats,
    tolerance: float,
    union: Ints,
    points: Floats,
    centre: Floats,
) -> bool:
    """Whether the corners of two cells lie on one sphere.

    Args:
        move: translation of the other cell.
        sphere [5]: of the first cell; what lies far from it is not looked at closer.
        union [.], points [., 3], centre [3]: for use.
    """
    start = cells.pointer[cell]
    m = cells.pointer[cell + 1] - start
    for j in range(m):
        union[j] = cells.items[start + j]
    total = m
    for j in range(cells.pointer[other], cells.pointer[other + 1]):
        vertex = cells.items[j] + move
        if has(union, 0, m, vertex):
            continue
        union[total] = vertex
        place_vertex(vertex, sites, points[total])
        if not abs(distance_between(points[total], sphere) - sphere[3]) <= CLOSE * tolerance:
            return False
        total += 1
    for j in range(m):
        place_vertex(union[j], sites, points[j])
    return _common_sphere(points, total, tolerance, centre) > 0


@compiled
def _find_links(
    sites: Sites, cells: Store, spheres: Floats, thickness: Floats, tolerance: float, room: int
) -> tuple[int, _Links]:
    """All pairs of cells with an edge in common whose corners lie on one sphere.

    Returns:
        Status, links.
    """
    count, most = cells.used[0], 64 * room
    entries = np.empty(((64 + 12 * count) * room, 3), np.int64)
    links = _Links(entries, np.full(count, -1), np.zeros(1, np.int64))
    union, points, centre = np.empty(2 * most, np.int64), np.empty((2 * most, 3)), np.empty(3)
    pointer, places = incidence_of(cells, len(sites.home))
    for cell in range(count):
        if thickness[cell] < FLAT * tolerance or spheres[cell, 4] > CLOSE * tolerance:
            continue
        start = cells.pointer[cell]
        for i in range(cells.pointer[cell + 1] - start):
            own = cells.items[start + i]
            for e in range(pointer[own >> 36], pointer[(own >> 36) + 1]):
                c = places[e, 0]
                move = own - cells.items[places[e, 1]]
                if thickness[c] < FLAT * tolerance or (c == cell and move == 0):
                    continue
                # Once for all corners that they share: at the first.
                if not _meets_first(cells, cell, i, c, move):
                    continue
                if not _alike(
                    sites, cells, cell, c, move, spheres[cell], tolerance, union, points, centre
                ):
                    continue
                if not _link(links, cell, c, move):
                    return FULL, links
    return DONE, links


@compiled
def _cluster(
    start: int,
    cells: Store,
    links: _Links,
    label: Ints,
    place: Ints,
    queue: Ints,
    union: Ints,
    most: int,
) -> tuple[int, int, int]:
    """The cells that hang together by links, from one of them on.

    Args:
        label [c], place [c]: filled with the start and the translation of each cell reached.
        queue [c]: filled with the cells.
        union [.]: filled with their corners, of which there may be `most`.

    Returns:
        Status, number of cells, number of corners.
    """
    label[start] = start
    queue[0], head, tail, total = start, 0, 1, 0
    while head < tail:
        cell = queue[head]
        head += 1
        for j in range(cells.pointer[cell], cells.pointer[cell + 1]):
            vertex = cells.items[j] + place[cell]
            if not has(union, 0, total, vertex):
                if total == most:
                    return FULL, tail, total
                union[total] = vertex
                total += 1
        e = links.last[cell]
        while e >= 0:
            c, at = links.entries[e, 1], place[cell] + links.entries[e, 2]
            if label[c] < 0:
                label[c], place[c] = start, at
                queue[tail] = c
                tail += 1
            elif at != place[c]:
                return INCONSISTENT, tail, total  # joined to its own image
            e = links.entries[e, 0]
    return DONE, tail, total


@compiled
def _is_part(cells: Store, cell: int, pointer: Ints, places: Ints) -> bool:
    """Whether a cell with more corners has all corners of this one."""
    start, stop = cells.pointer[cell], cells.pointer[cell + 1]
    own = cells.items[start]
    for e in range(pointer[own >> 36], pointer[(own >> 36) + 1]):
        begin, end = cells.pointer[places[e, 0]], cells.pointer[places[e, 0] + 1]
        if end - begin <= stop - start:
            continue
        move = own - cells.items[places[e, 1]]
        every = True
        for j in range(start + 1, stop):
            every = every and has(cells.items, begin, end, cells.items[j] - move)
        if every:
            return True
    return False


@compiled
def _without_parts(cells: Store, spheres: Floats, thickness: Floats, n: int) -> Store:
    """The cells that are no part of another one; their spheres and thickness move up in place."""
    largest = empty_store(len(cells.pointer) - 1, cells.pointer[cells.used[0]] + 1)
    pointer, places = incidence_of(cells, n)
    for cell in range(cells.used[0]):
        if not _is_part(cells, cell, pointer, places):
            spheres[largest.used[0]] = spheres[cell]
            thickness[largest.used[0]] = thickness[cell]
            begin, end = cells.pointer[cell], cells.pointer[cell + 1]
            intern(cells.items[begin:end], end - begin, largest)
    return largest


@compiled
def join(
    sites: Sites, cells: Store, spheres: Floats, thickness: Floats, tolerance: float, room: int
) -> tuple[int, Store, Floats, Floats]:
    """Join cells whose corners lie on one sphere within the tolerance.

    Two cells with an edge in common are linked if all corners of both lie within the tolerance of
    their common least-squares sphere; cells that hang together by links are joined if that is true
    of all their corners, and else stay as they are. These are symmetric questions, so that the
    answer does not depend on where the search began. Flat cells join
    nothing: four atoms nearly on one circle are near to every sphere through it, also to the two
    different ones whose common face they are. A flat cell, or any other, whose corners a joined
    cell has is a part of that.

    Returns:
        Status, and of the cells after that: corners, spheres, thickness.
    """
    count, most = cells.used[0], 64 * room
    merged = empty_store(count + 1, cells.pointer[count] + 1)
    merged_spheres, flatness = np.zeros((count + 1, 5)), np.zeros(count + 1)
    status, links = _find_links(sites, cells, spheres, thickness, tolerance, room)
    if status != DONE:
        return status, merged, merged_spheres, flatness
    union, points, centre = np.empty(most, np.int64), np.empty((most, 3)), np.empty(3)
    label, place = np.full(count, -1), np.zeros(count, np.int64)
    queue = np.empty(count, np.int64)
    for start in range(count):
        if label[start] >= 0:
            continue
        status, tail, total = _cluster(start, cells, links, label, place, queue, union, most)
        if status != DONE:
            return status, merged, merged_spheres, flatness
        index, radius = merged.used[0], -1.0
        if tail > 1:
            sort_vertices(union, total)
            for j in range(total):
                place_vertex(union[j], sites, points[j])
            radius = _common_sphere(points, total, tolerance, centre)
        if radius > 0:
            merged_spheres[index, :3] = centre
            merged_spheres[index, 3], merged_spheres[index, 4] = radius, 0.0
            flatness[index] = thickness_of(points, total)
            intern(union, total, merged)
            continue
        for k in range(tail):
            cell = queue[k]
            merged_spheres[merged.used[0]] = spheres[cell]
            flatness[merged.used[0]] = thickness[cell]
            begin, end = cells.pointer[cell], cells.pointer[cell + 1]
            intern(cells.items[begin:end], end - begin, merged)
    largest = _without_parts(merged, merged_spheres, flatness, len(sites.home))
    return DONE, largest, merged_spheres, flatness
