"""The convex hull of a cell's corners: its facets, their polygons, volume and thickness."""

import numpy as np

from crystalmesh.represent.delaunay.common import PLANAR, Flags, Floats, Ints, compiled, inlined
from crystalmesh.represent.delaunay.vectors import circle_through, cross, dot, sides_of


@compiled
def hull_room(most: int) -> tuple[Ints, Floats, Flags, Flags]:
    """What `find_facets` fills, for cells of so many corners, and one more table like `members`."""
    # The hull of m points has at most 2 m - 4 facets, but for rounding, and one more is tried.
    triples, normals = np.empty((2 * most, 3), np.int64), np.empty((2 * most, 3))
    members, shared = np.zeros((2 * most, most), np.bool_), np.zeros((2 * most, most), np.bool_)
    return triples, normals, members, shared


@compiled
def find_facets(points: Floats, m: int, triples: Ints, normals: Floats, members: Flags) -> int:
    """Facets of the convex hull of a cell's corners: three corners, outward normal, all corners.

    Returns:
        Their number; -1 if the points lie in one plane, or too nearly for the room there is.
    """
    count = 0
    a, b, centre, normal = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(m - 2):
        for j in range(i + 1, m - 1):
            for k in range(j + 1, m):
                sides_of(points, i, j, k, a, b)
                if circle_through(a, b, centre, normal) < 0:
                    continue
                if count == len(triples):
                    return -1
                above, below, first = False, False, True
                for n in range(m):
                    height = 0.0
                    for x in range(3):
                        height += (points[n, x] - points[i, x]) * normal[x]
                    members[count, n] = abs(height) <= PLANAR or n in (i, j, k)
                    if not members[count, n]:
                        above |= height > 0
                        below |= height < 0
                        if above and below:
                            break
                    elif n < k and n not in (i, j):
                        first = False  # this facet has come with an earlier triple
                        break
                if (above and below) or not first:
                    continue
                if not (above or below):
                    return -1
                triples[count, 0], triples[count, 1], triples[count, 2] = i, j, k
                for x in range(3):
                    normals[count, x] = -normal[x] if above else normal[x]
                count += 1
    return count


@compiled
def _within(members: Flags, others: Flags, m: int) -> bool:
    """Whether all members are among the others."""
    for i in range(m):
        if members[i] and not others[i]:
            return False
    return True


@inlined
def within_any(members: Flags, sets: Flags, count: int, m: int) -> bool:
    """Whether all members are in one of sets[:count]; m: how many points there are."""
    for i in range(count):
        if _within(members, sets[i], m):
            return True
    return False


@compiled
def thickness_of(points: Floats, m: int) -> float:
    """Largest distance of the points from the plane of the largest triangle between them."""
    best, at = 0.0, (0, 1, 2)
    a, b, normal = np.empty(3), np.empty(3), np.empty(3)
    for i in range(m - 2):
        for j in range(i + 1, m - 1):
            for k in range(j + 1, m):
                sides_of(points, i, j, k, a, b)
                cross(a, b, normal)
                area = dot(normal, normal)
                if area > best:
                    best, at = area, (i, j, k)
    i, j, k = at
    sides_of(points, i, j, k, a, b)
    cross(a, b, normal)
    thickest = 0.0
    for n in range(m):
        height = 0.0
        for x in range(3):
            height += (points[n, x] - points[i, x]) * normal[x]
        thickest = max(thickest, abs(height) / np.sqrt(best))
    return thickest


@compiled
def _determinant(
    points: Floats, i: int, j: int, k: int, axis: Floats | tuple[float, float, float]
) -> float:
    """(p_j - p_i) x (p_k - p_i) . axis: without arrays, as it is called for every face."""
    ax, ay, az = points[i, 0], points[i, 1], points[i, 2]
    bx, by, bz = points[j, 0] - ax, points[j, 1] - ay, points[j, 2] - az
    cx, cy, cz = points[k, 0] - ax, points[k, 1] - ay, points[k, 2] - az
    return (
        (by * cz - bz * cy) * axis[0]
        + (bz * cx - bx * cz) * axis[1]
        + (bx * cy - by * cx) * axis[2]
    )


@compiled
def sort_around(points: Floats, members: Ints, m: int, normal: Floats, cycle: Ints) -> None:
    """Sort `members` of points around their mean, by the right hand about the normal."""
    if m == 3:  # most are: no need for angles
        ahead = _determinant(points, members[0], members[1], members[2], normal)
        turn = 1 if ahead > 0 else 2
        cycle[0], cycle[turn], cycle[3 - turn] = members[0], members[1], members[2]
        return
    x, y, q, mean, angle = np.empty(3), np.empty(3), np.empty(3), np.zeros(3), np.empty(m)
    for i in range(m):
        for k in range(3):
            mean[k] += points[members[i], k] / m
    for k in range(3):
        x[k] = points[members[0], k] - mean[k]
    cross(normal, x, y)
    for i in range(m):
        for k in range(3):
            q[k] = points[members[i], k] - mean[k]
        angle[i] = np.arctan2(dot(q, y), dot(q, x))
    order = np.argsort(angle)
    for i in range(m):
        cycle[i] = members[order[i]]


@compiled
def cone_volume(points: Floats, cycle: Ints, m: int, apex: Floats) -> float:
    """Volume between a polygon and an apex behind it; its surface is a fan around its mean.

    The fan is the same from both sides, so that the volumes of all cells add up exactly, also where
    the corners of a face do not quite lie in a plane.
    """
    a = points[cycle[0]]
    if m == 3:
        axis = (a[0] - apex[0], a[1] - apex[1], a[2] - apex[2])
        return _determinant(points, cycle[0], cycle[1], cycle[2], axis) / 6.0
    u, v, w, x = np.zeros(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(m):
        for k in range(3):
            u[k] += (points[cycle[i], k] - apex[k]) / m
    total = 0.0
    for i in range(m):
        for k in range(3):
            v[k] = points[cycle[i], k] - apex[k]
            w[k] = points[cycle[(i + 1) % m], k] - apex[k]
        cross(v, w, x)
        total += dot(u, x) / 6.0
    return total
