"""Gift wrapping of a crystal: from lattice and coordinates to the arrays of a `Complex`, compiled.

Read `crystalmesh.represent.tessellation` first: it says what is made here, and calls only `wrap`.

A vertex is one integer: 28 bits of site, then three times 12 bits of shift + 2048. So vertices sort
by site and shift, and a lattice translation is one addition. Sites are those inside the reduced
cell until `_given`. Floats have 64 bits and no operation is fused or reordered, so that the bits do
not depend on the processor. What is filled and returned often is an argument: to allocate it would
cost more than the arithmetic.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Near = tuple[Ints, Ints, Floats, Floats]  # the first four that `_neighbours` returns

ROUNDING = 1e-6  # Angstrom: co-spherical but for rounding
NOISE = 2e-5  # Angstrom: far above rounding, far below the tolerance
FLAT = 5  # tolerances of thickness, below which a cell is flat
CLOSE = 30  # tolerances from a sphere within which an atom may turn out to be on it
PLANAR = 1e-7  # Angstrom: vertices of a cell this near to a plane lie in it, whatever the tolerance
VOLUME = 1e-9  # relative error allowed to the sum of the cell volumes
COINCIDENT = 1e-2  # Angstrom: two sites this near are one site given twice

MOST_CELLS = 500  # lattice vectors that an empty sphere may span: shifts have 12 bits

MOST_SKEW = 10_000  # lattice vectors between the cells given and reduced: shifts return as int32

DONE, FULL, SHORT, INCONSISTENT, COLLISION, THIN, SKEWED = range(7)  # how `wrap` may end


def _compiled(function: F) -> F:
    """With a cache on disk beside this file; without checks of bounds and divisors."""
    compiled: Any = njit(cache=True, error_model="numpy")(function)
    return compiled


HALF = 2048
HOME = (HALF << 24) + (HALF << 12) + HALF  # shift zero
SHIFTS = (1 << 36) - 1


@_compiled
def _shift(vertex: int, k: int) -> int:
    """Component k of a vertex's shift."""
    return ((vertex >> (24 - 12 * k)) & 4095) - HALF


@_compiled
def volume_of(lattice: Floats) -> float:
    a, b, c = lattice[0], lattice[1], lattice[2]
    return abs(
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )


@_compiled
def _dot(a: Floats, b: Floats) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_compiled
def _cross(a: Floats, b: Floats, out: Floats) -> None:
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@_compiled
def _reduce(lattice: Floats) -> tuple[Floats, Ints]:
    """A reduced basis (greedy, Semaev 2001) and the integers T with reduced = T @ lattice."""
    basis = lattice.copy()
    change = np.eye(3, dtype=np.int64)
    for _ in range(1000):
        # Longest vector last.
        for i, j in ((0, 1), (1, 2), (0, 1)):
            if _dot(basis[i], basis[i]) > _dot(basis[j], basis[j]):
                for k in range(3):
                    basis[i, k], basis[j, k] = basis[j, k], basis[i, k]
                    change[i, k], change[j, k] = change[j, k], change[i, k]
        a, b, c = basis[0], basis[1], basis[2]
        aa, bb, ab = _dot(a, a), _dot(b, b), _dot(a, b)
        x = np.round(ab / aa)
        if x != 0.0 and _shorter(b, a, x):
            _subtract(basis, change, 1, 0, int(x))
            continue
        # Of the lattice points in the plane of a and b, the nearest to the third vector.
        det = aa * bb - ab * ab
        ac, bc = _dot(a, c), _dot(b, c)
        p, q = (ac * bb - bc * ab) / det, (bc * aa - ac * ab) / det
        best, shift = _dot(c, c) * (1 - 1e-12), (0, 0)
        for i in range(2):
            for j in range(2):
                u, v = np.floor(p) + i, np.floor(q) + j
                length = 0.0
                for k in range(3):
                    length += (c[k] - u * a[k] - v * b[k]) ** 2
                if length < best:
                    best, shift = length, (int(u), int(v))
        if shift == (0, 0):
            break
        _subtract(basis, change, 2, 0, shift[0])
        _subtract(basis, change, 2, 1, shift[1])
    # Rounding adds up over the steps, the integers are exact.
    for i in range(3):
        for k in range(3):
            basis[i, k] = 0.0
            for j in range(3):
                basis[i, k] += change[i, j] * lattice[j, k]
    return basis, change


@_compiled
def _shorter(b: Floats, a: Floats, x: float) -> bool:
    """Whether b - x a is shorter than b, by more than rounding."""
    length = 0.0
    for k in range(3):
        length += (b[k] - x * a[k]) ** 2
    return length < _dot(b, b) * (1 - 1e-12)


@_compiled
def _subtract(basis: Floats, change: Ints, i: int, j: int, times: int) -> None:
    for k in range(3):
        basis[i, k] -= times * basis[j, k]
        change[i, k] -= times * change[j, k]


@_compiled
def _neighbours(
    basis: Floats, frac: Floats, home: Floats, reach: float
) -> tuple[Ints, Ints, Floats, Floats, bool]:
    """All neighbours of each site within `reach`, by distance.

    Returns:
        pointer [n + 1], others [.] (vertices, as seen from the site at shift zero), steps [., 3]
        (to them, Angstrom), squares [.] (of the distance), whether two sites lie at one place.
    """
    n = len(frac)
    bins, span = np.empty(3, np.int64), np.empty(3, np.int64)
    per = max(1.0, (n / 4.0) ** (1 / 3))  # bins an axis of a cube with 4 atoms a bin
    volume, side = volume_of(basis), np.empty(3)
    for k in range(3):
        _cross(basis[(k + 1) % 3], basis[(k + 2) % 3], side)
        height = volume / np.sqrt(_dot(side, side))  # between opposite faces of the cell
        bins[k] = max(1, int(per * height / volume ** (1 / 3)))
        span[k] = int(np.ceil(reach / (height / bins[k])))
    place = np.empty((n, 3), np.int64)
    bin_of = np.empty(n, np.int64)
    count = np.zeros(bins[0] * bins[1] * bins[2] + 1, np.int64)
    for i in range(n):
        for k in range(3):
            place[i, k] = min(int(frac[i, k] * bins[k]), bins[k] - 1)
        bin_of[i] = (place[i, 0] * bins[1] + place[i, 1]) * bins[2] + place[i, 2]
        count[bin_of[i] + 1] += 1
    for b in range(len(count) - 1):
        count[b + 1] += count[b]
    members, fill = np.empty(n, np.int64), count.copy()
    for i in range(n):
        members[fill[bin_of[i]]] = i
        fill[bin_of[i]] += 1

    room = 96 * n
    others, steps, squares = np.empty(room, np.int64), np.empty((room, 3)), np.empty(room)
    pointer = np.zeros(n + 1, np.int64)
    used = 0
    limit = reach * reach
    collision = False
    for i in range(n):
        start = used
        for bx in range(place[i, 0] - span[0], place[i, 0] + span[0] + 1):
            sx = bx // bins[0]
            for by in range(place[i, 1] - span[1], place[i, 1] + span[1] + 1):
                sy = by // bins[1]
                for bz in range(place[i, 2] - span[2], place[i, 2] + span[2] + 1):
                    sz = bz // bins[2]
                    b = ((bx - sx * bins[0]) * bins[1] + by - sy * bins[1]) * bins[2]
                    b += bz - sz * bins[2]
                    if count[b] == count[b + 1]:
                        continue
                    tx = sx * basis[0, 0] + sy * basis[1, 0] + sz * basis[2, 0] - home[i, 0]
                    ty = sx * basis[0, 1] + sy * basis[1, 1] + sz * basis[2, 1] - home[i, 1]
                    tz = sx * basis[0, 2] + sy * basis[1, 2] + sz * basis[2, 2] - home[i, 2]
                    for m in range(count[b], count[b + 1]):
                        j = members[m]
                        x, y, z = home[j, 0] + tx, home[j, 1] + ty, home[j, 2] + tz
                        square = x * x + y * y + z * z
                        if square > limit:
                            continue
                        if square < COINCIDENT * COINCIDENT:
                            collision |= i != j or sx != 0 or sy != 0 or sz != 0
                            continue
                        if used == room:
                            room *= 2
                            grown, grown_steps = np.empty(room, np.int64), np.empty((room, 3))
                            grown_squares = np.empty(room)
                            grown[:used], grown_steps[:used] = others[:used], steps[:used]
                            grown_squares[:used] = squares[:used]
                            others, steps, squares = grown, grown_steps, grown_squares
                        others[used] = (j << 36) + HOME + (sx << 24) + (sy << 12) + sz
                        steps[used, 0], steps[used, 1], steps[used, 2] = x, y, z
                        squares[used] = square
                        used += 1
        ranks = np.argsort(squares[start:used])
        others[start:used] = others[start:used][ranks]
        steps[start:used] = steps[start:used][ranks]
        squares[start:used] = squares[start:used][ranks]
        pointer[i + 1] = used
    return pointer, others, steps, squares, collision


@_compiled
def _sort(vertices: Ints, m: int) -> int:
    """Sort vertices and move them so that the first has shift zero; returns by how much."""
    for i in range(1, m):
        vertex, j = vertices[i], i
        while j > 0 and vertices[j - 1] > vertex:
            vertices[j] = vertices[j - 1]
            j -= 1
        vertices[j] = vertex
    translation = (vertices[0] & SHIFTS) - HOME
    for i in range(m):
        vertices[i] -= translation
    return translation


class _Sites(NamedTuple):
    """Sites in the reduced cell."""

    home: NDArray[np.float64]  # [n, 3] positions inside the cell, Angstrom
    wrap: NDArray[np.int64]  # [n, 3] whole cells from there to the site as given
    basis: NDArray[np.float64]  # [3, 3] reduced lattice vectors, Angstrom
    change: NDArray[np.int64]  # [3, 3] basis = change @ lattice


class _Store(NamedTuple):
    """Sorted lists of vertices, each once: list i is items[pointer[i] : pointer[i + 1]]."""

    pointer: NDArray[np.int64]
    items: NDArray[np.int64]
    used: NDArray[np.int64]  # [1] how many lists there are
    table: NDArray[np.int64]  # by hash: number of a list, or -1


@_compiled
def _store(lists: int, entries: int) -> _Store:
    """An empty store for so many lists with so many vertices in all."""
    size = 16
    while size < 2 * lists:
        size *= 2
    pointer, items = np.zeros(lists + 1, np.int64), np.empty(entries, np.int64)
    return _Store(pointer, items, np.zeros(1, np.int64), np.full(size, -1, np.int64))


@_compiled
def _intern(vertices: Ints, m: int, store: _Store) -> int:
    """The number of this sorted list in the store, where it is put if it is new; -1: no room."""
    code = np.uint64(14695981039346656037)
    for i in range(m):
        code = (code ^ np.uint64(vertices[i])) * np.uint64(1099511628211)
        code ^= code >> np.uint64(29)
    mask = np.uint64(len(store.table) - 1)
    slot = code & mask
    while store.table[slot] >= 0:
        index = store.table[slot]
        start = store.pointer[index]
        if store.pointer[index + 1] - start == m:
            same = True
            for i in range(m):
                same &= store.items[start + i] == vertices[i]
            if same:
                return index
        slot = (slot + np.uint64(1)) & mask
    index = store.used[0]
    start = store.pointer[index]
    if index + 1 >= len(store.pointer) or start + m > len(store.items):
        return -1
    for i in range(m):
        store.items[start + i] = vertices[i]
    store.pointer[index + 1] = start + m
    store.table[slot] = index
    store.used[0] += 1
    return index


@_compiled
def _has(vertices: Ints, start: int, stop: int, vertex: int) -> bool:
    """Whether a vertex is one of vertices[start:stop]."""
    for i in range(start, stop):
        if vertices[i] == vertex:
            return True
    return False


@_compiled
def _sides(points: Floats, i: int, j: int, k: int, a: Floats, b: Floats) -> None:
    """From point i to j and to k."""
    for x in range(3):
        a[x] = points[j, x] - points[i, x]
        b[x] = points[k, x] - points[i, x]


@_compiled
def _circle(a: Floats, b: Floats, centre: Floats, normal: Floats) -> float:
    """Circle through 0, a and b: its centre, the unit normal a x b; returns its squared radius.

    Returns -1 where the three lie on a line.
    """
    _cross(a, b, normal)
    twice = _dot(normal, normal)
    aa, bb, ab = _dot(a, a), _dot(b, b), _dot(a, b)
    if twice < 1e-12 * aa * bb:
        return -1.0
    u, v = bb * (aa - ab) / (2.0 * twice), aa * (bb - ab) / (2.0 * twice)
    length = np.sqrt(twice)
    for k in range(3):
        centre[k] = u * a[k] + v * b[k]
        normal[k] /= length
    return _dot(centre, centre)


@_compiled
def _fit(points: Floats, m: int, centre: Floats) -> float:
    """Sphere through m points by linear least squares; returns its radius, -1 for a flat set."""
    mean = np.zeros(3)
    for i in range(m):
        for k in range(3):
            mean[k] += points[i, k] / m
    M, right, q = np.zeros((3, 3)), np.zeros(3), np.empty(3)
    for i in range(m):
        for k in range(3):
            q[k] = points[i, k] - mean[k]
        square = _dot(q, q)
        for k in range(3):
            right[k] += 0.5 * square * q[k]
            for j in range(3):
                M[k, j] += q[k] * q[j]
    c = np.empty((3, 3))
    for k in range(3):
        _cross(M[(k + 1) % 3], M[(k + 2) % 3], c[k])
    det = _dot(M[0], c[0])
    if det < 1e-12 * (M[0, 0] + M[1, 1] + M[2, 2]) ** 3:
        return -1.0
    for k in range(3):
        # M is symmetric, and so are its cofactors.
        centre[k] = mean[k] + _dot(c[k], right) / det
    square = 0.0
    for i in range(m):
        for k in range(3):
            square += (points[i, k] - centre[k]) ** 2 / m
    return np.sqrt(square)


@_compiled
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
        near: as `_neighbours` returns it.
        found, points [., 3], centre: filled with the new cell's corners, positions, and centre.
        sphere [2]: filled with the radius, and how far from the sphere the next atom is.

    Returns:
        Status, number of atoms. If SHORT, sphere[0] is the reach that is needed.
    """
    pointer, others, steps, squares = near
    site = corner >> 36
    translation = (corner & SHIFTS) - HOME
    rounding = min(ROUNDING, 0.1 * tolerance)
    best, radius2 = np.inf, np.inf
    for k in range(pointer[site], pointer[site + 1]):
        if squares[k] > 4.0 * radius2:
            break
        q = steps[k]
        height = _dot(normal, q)
        if height <= 1e-9:
            continue
        # Where along the normal the centre is when the sphere meets this atom.
        along = (squares[k] - 2.0 * _dot(q, circle)) / (2.0 * height)
        if along >= best:
            continue
        if height < rounding:
            # On the circle: on every sphere through the face, and so of the face.
            flat = 0.0
            for j in range(3):
                flat += (q[j] - height * normal[j] - circle[j]) ** 2
            if (np.sqrt(flat) - np.sqrt(square)) ** 2 + height**2 < rounding**2:
                continue
        if _has(known, 0, m, others[k] + translation):
            continue
        best, radius2 = along, square + along * along
    if best == np.inf:
        sphere[0] = 2.0 * reach
        return SHORT, 0
    radius = np.sqrt(radius2)
    for j in range(3):
        centre[j] = circle[j] + best * normal[j]
    before, mark_before, count = -1, -1, 0
    for _ in range(8):
        diameter = 2.0 * radius + CLOSE * tolerance
        if diameter > reach:
            sphere[0] = diameter
            return SHORT, 0
        mark, sphere[0], sphere[1] = 0, radius, np.inf
        found[0] = corner
        points[0] = 0.0
        count = 1
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
                return FULL, 0
            found[count] = others[k] + translation
            for j in range(3):
                points[count, j] = steps[k, j]
            mark += k
            count += 1
        if (count == before and mark == mark_before) or (count == 4 and before < 0):
            break
        before, mark_before = count, mark
        fitted = _fit(points, count, centre)
        if fitted < 0:
            break
        radius = fitted
    sphere[0] = radius
    return (DONE if count >= 4 else INCONSISTENT), count


@_compiled
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
        square = _circle(steps[0], steps[k], centre, direction)
        if 0.0 < square < best:
            best = square
            circle[:] = centre
            normal[:] = direction
    return best if 4.0 * best < reach * reach else -1.0


@_compiled
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


@_compiled
def _polygon(points: Floats, members: Ints, m: int, normal: Floats, cycle: Ints) -> None:
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
    _cross(normal, x, y)
    for i in range(m):
        for k in range(3):
            q[k] = points[members[i], k] - mean[k]
        angle[i] = np.arctan2(_dot(q, y), _dot(q, x))
    order = np.argsort(angle)
    for i in range(m):
        cycle[i] = members[order[i]]


@_compiled
def _facets(points: Floats, m: int, triples: Ints, normals: Floats, members: Flags) -> int:
    """Facets of the convex hull of a cell's corners: three corners, outward normal, all corners.

    Returns:
        Their number; -1 if the points lie in one plane, or too nearly for the room there is.
    """
    count = 0
    a, b, centre, normal = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(m - 2):
        for j in range(i + 1, m - 1):
            for k in range(j + 1, m):
                _sides(points, i, j, k, a, b)
                if _circle(a, b, centre, normal) < 0:
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


@_compiled
def _within(members: Flags, others: Flags, m: int) -> bool:
    """Whether all members are among the others."""
    for i in range(m):
        if members[i] and not others[i]:
            return False
    return True


@_compiled
def _place(vertex: int, sites: _Sites, out: Floats) -> None:
    """Position of a vertex in Angstrom."""
    site = vertex >> 36
    for k in range(3):
        out[k] = sites.home[site, k]
        for j in range(3):
            out[k] += _shift(vertex, j) * sites.basis[j, k]


@_compiled
def _cone(points: Floats, cycle: Ints, m: int, apex: Floats) -> float:
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
        _cross(v, w, x)
        total += _dot(u, x) / 6.0
    return total


@_compiled
def _wrapped(frac: Floats, change: Ints) -> tuple[Floats, Ints]:
    """Coordinates in the basis change @ lattice, in [0, 1), and the whole cells taken off."""
    n = len(frac)
    ints, cofactor = change.astype(np.float64), np.empty((3, 3))
    for k in range(3):
        _cross(ints[(k + 1) % 3], ints[(k + 2) % 3], cofactor[k])
    determinant = _dot(ints[0], cofactor[0])  # 1 or -1
    inside, wrap = np.empty((n, 3)), np.empty((n, 3), np.int64)
    for i in range(n):
        for k in range(3):
            # Whole cells first: what is left keeps all its digits.
            x = 0.0
            for j in range(3):
                x += (frac[i, j] - np.floor(frac[i, j])) * cofactor[k, j] / determinant
            cells = np.floor(x)
            inside[i, k] = min(x - cells, np.nextafter(1.0, 0.0))
            for j in range(3):
                cells += np.floor(frac[i, j]) * cofactor[k, j] / determinant
            wrap[i, k] = int(cells)
    return inside, wrap


@_compiled
def _thickness(points: Floats, m: int) -> float:
    """Largest distance of the points from the plane of the largest triangle between them."""
    best, at = 0.0, (0, 1, 2)
    a, b, normal = np.empty(3), np.empty(3), np.empty(3)
    for i in range(m - 2):
        for j in range(i + 1, m - 1):
            for k in range(j + 1, m):
                _sides(points, i, j, k, a, b)
                _cross(a, b, normal)
                area = _dot(normal, normal)
                if area > best:
                    best, at = area, (i, j, k)
    i, j, k = at
    _sides(points, i, j, k, a, b)
    _cross(a, b, normal)
    thickest = 0.0
    for n in range(m):
        height = 0.0
        for x in range(3):
            height += (points[n, x] - points[i, x]) * normal[x]
        thickest = max(thickest, abs(height) / np.sqrt(best))
    return thickest


@_compiled
def _discover(
    sites: _Sites, near: Near, tolerance: float, reach: float, room: int
) -> tuple[int, float, _Store, Floats, Floats]:
    """All empty spheres with the atoms on them, one found from the other.

    Returns:
        Status, the reach that is needed if SHORT, cells, spheres [c, 5] (centre in Angstrom,
        radius, distance of the next atom), thickness [c].
    """
    n = len(sites.home)
    cells = _store(8 * room * n + 32, 48 * room * n + 192)
    spheres, thickness = np.zeros((len(cells.pointer), 5)), np.zeros(len(cells.pointer))
    most = 64 * room  # corners of a cell
    known, found = np.empty(most, np.int64), np.empty(most, np.int64)
    points, offsets = np.empty((most, 3)), np.empty((most, 3))
    triples, normals, members, shared = _hull_room(most)
    a, b, circle, normal, centre = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    sphere, key = np.empty(2), np.empty(3, np.int64)
    explored = _store(16 * room * n + 64, 48 * room * n + 192)  # facets, by three corners

    square = _seed(near, reach, circle, normal)
    if square < 0:
        return SHORT, 2.0 * reach, cells, spheres, thickness
    cell, facets, m = -1, 1, 0  # the seed is the one facet of no cell
    known[0], triples[0], normals[0] = HOME, 0, normal
    _place(known[0], sites, points[0])
    while cell < cells.used[0]:
        if cell >= 0:
            start = cells.pointer[cell]
            m = cells.pointer[cell + 1] - start
            for i in range(m):
                known[i] = cells.items[start + i]
                _place(known[i], sites, points[i])
            facets = _facets(points, m, triples, normals, members)
        for f in range(facets):
            first, second, third = triples[f]
            if cell >= 0:
                done = False
                for g in range(f):
                    done = done or _within(members[f], shared[g], m)
                shared[f, :m] = False
                if done:
                    continue
                # Not if it was looked at from the other side.
                key[0], key[1], key[2] = known[first], known[second], known[third]
                _sort(key, 3)
                before = explored.used[0]
                number = _intern(key, 3, explored)
                if number < 0:
                    return FULL, 0.0, cells, spheres, thickness
                if number < before:
                    continue
                _sides(points, first, second, third, a, b)
                square = _circle(a, b, circle, normal)
                normal[:] = normals[f]
            status, count = _next_cell(
                known[first], circle, normal, square, known, m, tolerance, reach, near,
                found, offsets, centre, sphere,
            )  # fmt: skip
            if status != DONE:
                return status, sphere[0], cells, spheres, thickness
            for i in range(m):
                shared[f, i] = _has(found, 0, count, known[i])
            translation = _sort(found, count)
            before = cells.used[0]
            other = _intern(found, count, cells)
            if other < 0:
                return FULL, 0.0, cells, spheres, thickness
            if other == before:
                for k in range(3):
                    spheres[other, k] = points[first, k] + centre[k]
                    for j in range(3):
                        spheres[other, k] -= _shift(translation + HOME, j) * sites.basis[j, k]
                spheres[other, 3:] = sphere
                thickness[other] = _thickness(offsets, count)
        cell += 1
    return DONE, 0.0, cells, spheres, thickness


@_compiled
def _incidence(cells: _Store, n: int) -> tuple[Ints, Ints]:
    """Where each site is a corner: pointer [n + 1], cell and place in the store of each."""
    count = cells.used[0]
    entries = cells.pointer[count]
    pointer = np.zeros(n + 1, np.int64)
    for e in range(entries):
        pointer[(cells.items[e] >> 36) + 1] += 1
    for i in range(n):
        pointer[i + 1] += pointer[i]
    fill, places = pointer.copy(), np.empty((entries, 2), np.int64)
    for c in range(count):
        for e in range(cells.pointer[c], cells.pointer[c + 1]):
            site = cells.items[e] >> 36
            places[fill[site], 0], places[fill[site], 1] = c, e
            fill[site] += 1
    return pointer, places


@_compiled
def _merge(
    sites: _Sites, cells: _Store, spheres: Floats, thickness: Floats, tolerance: float, room: int
) -> tuple[int, _Store, Floats, Floats]:
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
    count, n = cells.used[0], len(sites.home)
    merged = _store(count + 1, cells.pointer[count] + 1)
    merged_spheres, flatness = np.zeros((count + 1, 5)), np.zeros(count + 1)
    most = 64 * room
    union, points, centre = np.empty(2 * most, np.int64), np.empty((2 * most, 3)), np.empty(3)
    pointer, places = _incidence(cells, n)
    # Links between cells, both ways: the link before of the same cell, the other, its translation.
    links, used = np.empty(((64 + 12 * count) * room, 3), np.int64), 0
    last = np.full(count, -1)
    for cell in range(count):
        if thickness[cell] < FLAT * tolerance or spheres[cell, 4] > CLOSE * tolerance:
            continue
        start = cells.pointer[cell]
        m = cells.pointer[cell + 1] - start
        for i in range(m):
            own = cells.items[start + i]
            for e in range(pointer[own >> 36], pointer[(own >> 36) + 1]):
                c = places[e, 0]
                move = own - cells.items[places[e, 1]]
                if thickness[c] < FLAT * tolerance or (c == cell and move == 0):
                    continue
                # Once for all corners that they share: at the first.
                begin, end = cells.pointer[c], cells.pointer[c + 1]
                common, again = 0, False
                for j in range(m):
                    if _has(cells.items, begin, end, cells.items[start + j] - move):
                        common += 1
                        again |= j < i
                if again or common < 2:
                    continue
                for j in range(m):
                    union[j] = cells.items[start + j]
                total, alike = m, True
                for j in range(begin, end):
                    vertex = cells.items[j] + move
                    if _has(union, 0, m, vertex):
                        continue
                    union[total] = vertex
                    _place(vertex, sites, points[total])
                    distance = _distance(points[total], spheres[cell])
                    alike &= abs(distance - spheres[cell, 3]) <= CLOSE * tolerance
                    total += 1
                if not alike:
                    continue
                for j in range(m):
                    _place(union[j], sites, points[j])
                radius = _fit(points, total, centre)
                alike = radius > 0
                for j in range(total):
                    alike &= abs(_distance(points[j], centre) - radius) <= tolerance
                if not alike:
                    continue
                if used + 2 > len(links):
                    return FULL, merged, merged_spheres, flatness
                links[used, 0], links[used, 1], links[used, 2] = last[cell], c, move
                last[cell] = used
                links[used + 1, 0], links[used + 1, 1], links[used + 1, 2] = last[c], cell, -move
                last[c] = used + 1
                used += 2

    label, place = np.full(count, -1), np.zeros(count, np.int64)
    queue = np.empty(count, np.int64)
    for start in range(count):
        if label[start] >= 0:
            continue
        label[start] = start
        queue[0], head, tail, total = start, 0, 1, 0
        while head < tail:
            cell = queue[head]
            head += 1
            for j in range(cells.pointer[cell], cells.pointer[cell + 1]):
                vertex = cells.items[j] + place[cell]
                if not _has(union, 0, total, vertex):
                    if total == most:
                        return FULL, merged, merged_spheres, flatness
                    union[total] = vertex
                    total += 1
            e = last[cell]
            while e >= 0:
                c, at = links[e, 1], place[cell] + links[e, 2]
                if label[c] < 0:
                    label[c], place[c] = start, at
                    queue[tail] = c
                    tail += 1
                elif at != place[c]:
                    return INCONSISTENT, merged, merged_spheres, flatness  # joined to its own image
                e = links[e, 0]
        index = merged.used[0]
        _sort(union, total)
        alike = tail > 1
        if alike:
            for j in range(total):
                _place(union[j], sites, points[j])
            radius = _fit(points, total, centre)
            alike = radius > 0
            for j in range(total):
                alike &= abs(_distance(points[j], centre) - radius) <= tolerance
        if alike:
            merged_spheres[index, :3] = centre
            merged_spheres[index, 3], merged_spheres[index, 4] = radius, 0.0
            flatness[index] = _thickness(points, total)
            _intern(union, total, merged)
            continue
        for k in range(tail):
            cell = queue[k]
            merged_spheres[merged.used[0]] = spheres[cell]
            flatness[merged.used[0]] = thickness[cell]
            begin, end = cells.pointer[cell], cells.pointer[cell + 1]
            _intern(cells.items[begin:end], end - begin, merged)

    # Cells all of whose corners another one has.
    largest = _store(count + 1, merged.pointer[merged.used[0]] + 1)
    pointer, places = _incidence(merged, n)
    for cell in range(merged.used[0]):
        start, m = merged.pointer[cell], merged.pointer[cell + 1] - merged.pointer[cell]
        own = merged.items[start]
        part = False
        for e in range(pointer[own >> 36], pointer[(own >> 36) + 1]):
            c = places[e, 0]
            move = own - merged.items[places[e, 1]]
            if merged.pointer[c + 1] - merged.pointer[c] > m:
                every = True
                for j in range(start + 1, start + m):
                    every = every and _has(
                        merged.items,
                        merged.pointer[c],
                        merged.pointer[c + 1],
                        merged.items[j] - move,
                    )
                part |= every
        if not part:
            merged_spheres[largest.used[0]] = merged_spheres[cell]
            flatness[largest.used[0]] = flatness[cell]
            _intern(merged.items[start : start + m], m, largest)
    return DONE, largest, merged_spheres, flatness


@_compiled
def _distance(a: Floats, b: Floats) -> float:
    return np.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@_compiled
def _hull_room(most: int) -> tuple[Ints, Floats, Flags, Flags]:
    """What `_facets` fills, for cells of so many corners, and one more table like `members`."""
    # The hull of m points has at most 2 m - 4 facets, but for rounding, and one more is tried.
    triples, normals = np.empty((2 * most, 3), np.int64), np.empty((2 * most, 3))
    members, shared = np.zeros((2 * most, most), np.bool_), np.zeros((2 * most, most), np.bool_)
    return triples, normals, members, shared


@_compiled
def _assemble(
    sites: _Sites, cells: _Store, spheres: Floats, volume: float, room: int
) -> tuple[int, Any]:
    """Faces, edges and volumes of cells that are known by their corners; all checks.

    A face is what the corners of two cells have in common: it needs no tolerance, and is the same
    from both sides.

    Returns:
        Status and the arrays of `Complex`.
    """
    n, most_cells = len(sites.home), len(cells.pointer)
    faces = _store(16 * room * n + 64, 64 * room * n + 192)
    edges = _store(10 * room * n + 64, 20 * room * n + 128)
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
    triples, normals, members, shared = _hull_room(most)
    cycle, corners, pair = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(2, np.int64)
    pointer, places = _incidence(cells, n)
    status, cell = DONE, 0
    while status == DONE and cell < cells.used[0]:
        start = cells.pointer[cell]
        m = cells.pointer[cell + 1] - start
        for i in range(m):
            known[i] = cells.items[start + i]
            _place(known[i], sites, points[i])
        facets = _facets(points, m, triples, normals, members)
        if facets < 0:
            status = INCONSISTENT
            break
        own, sides = 0, 0  # faces of this cell so far, and their corners
        for f in range(facets):
            done = False
            for g in range(own):
                done = done or _within(members[f], shared[g], m)
            if done:
                continue
            # The other cell that has the facet's corners too.
            other, vertex = -1, known[triples[f, 0]]
            for e in range(pointer[vertex >> 36], pointer[(vertex >> 36) + 1]):
                c = places[e, 0]
                move = vertex - cells.items[places[e, 1]]
                if c == cell and move == 0:
                    continue
                begin, end = cells.pointer[c], cells.pointer[c + 1]
                every = True
                for i in range(m):
                    if members[f, i] and not _has(cells.items, begin, end, known[i] - move):
                        every = False
                        break
                if every:
                    other = c
                    for i in range(m):
                        shared[own, i] = _has(cells.items, begin, end, known[i] - move)
                    break
            if other < 0:
                status = INCONSISTENT
                break
            size = 0
            for i in range(m):
                if shared[own, i]:
                    corners[size] = i
                    size += 1
            normal = normals[f]
            _polygon(points, corners, size, normal, cycle)
            volumes[cell] += _cone(points, cycle, size, points[0])
            for i in range(size):
                key[i] = known[corners[i]]
            translation = _sort(key, size)
            known_before = faces.used[0]
            face = _intern(key, size, faces)
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
                    cycle_edges[begin + i, 1] = _sort(pair, 2)
                    cycle_edges[begin + i, 0] = _intern(pair, 2, edges)
                    if cycle_edges[begin + i, 0] < 0:
                        status = FULL
                        break
                if status != DONE:
                    break
            elif _dot(normal, face_normals[face]) > 0:
                status = INCONSISTENT  # both cells on one side
                break
            face_cells[face, side], beyond[face, side] = cell, other
            entry = cell_face_pointer[cell] + own
            cell_faces[entry, 0], cell_faces[entry, 1] = face, translation
            cell_faces[entry, 2], face_moves[face, side] = 1 - 2 * side, -translation
            own += 1
            sides += size
        cell_face_pointer[cell + 1] = cell_face_pointer[cell] + own
        # Euler: a topological ball.
        if status == DONE and (volumes[cell] <= 0 or 2 * (m + own - 2) != sides):
            status = INCONSISTENT
        cell += 1

    c, f, e = cells.used[0], faces.used[0], edges.used[0]
    if status != DONE:
        c, f, e = 0, 0, 0  # what is half made is not to be read
    if status == DONE:
        total = 0.0
        for i in range(c):
            total += volumes[i]
        sound = abs(total - volume) <= VOLUME * volume and n - e + f - c == 0
        for i in range(f):
            sound &= face_cells[i, 0] == beyond[i, 1] and face_cells[i, 1] == beyond[i, 0]
        if not sound:
            status = INCONSISTENT
    # Edges start at shift zero of the sites as given.
    edge_ends, edge_corners = edges.items[: 2 * e], np.arange(0, 2 * e, 2)
    edge_sites = (edge_ends >> 36).astype(np.int32).reshape(-1, 2)
    edge_shift = _given(edge_ends, sites, True)
    start_shift = edge_shift[edge_corners]
    edge_shift = edge_shift[edge_corners + 1] - start_shift
    cycles, cycle_edges = cycles[: faces.pointer[f]], cycle_edges[: faces.pointer[f]]
    cell_faces = cell_faces[: cell_face_pointer[c]]
    corners_of_cells = cells.items[: cells.pointer[c]]
    return status, (
        edge_sites,
        edge_shift,
        faces.pointer[: f + 1].astype(np.int32),
        (cycles >> 36).astype(np.int32),
        _given(cycles, sites, True),
        face_cells[:f].astype(np.int32),
        _given(face_moves[:f].copy().reshape(-1) + HOME, sites, False).reshape(-1, 2, 3),
        cycle_edges[:, 0].astype(np.int32),
        _given(cycle_edges[:, 1] + HOME, sites, False) + start_shift[cycle_edges[:, 0]],
        cycle_edges[:, 2].astype(np.int8),
        cells.pointer[: c + 1].astype(np.int32),
        (corners_of_cells >> 36).astype(np.int32),
        _given(corners_of_cells, sites, True),
        cell_face_pointer[: c + 1].astype(np.int32),
        cell_faces[:, 0].astype(np.int32),
        _given(cell_faces[:, 1] + HOME, sites, False),
        cell_faces[:, 2].astype(np.int8),
        spheres[:c, :3].copy(),
        spheres[:c, 3].copy(),
        volumes[:c].copy(),
    )


@_compiled
def _given(vertices: Ints, sites: _Sites, wrapped: bool) -> NDArray[np.int32]:
    """Shifts as the caller counts them: between the sites as given, in the lattice as given."""
    out = np.zeros((len(vertices), 3), np.int32)
    for i in range(len(vertices)):
        for j in range(3):
            shift = _shift(vertices[i], j)
            if wrapped:
                shift -= sites.wrap[vertices[i] >> 36, j]
            for k in range(3):
                out[i, k] += shift * sites.change[j, k]
    return out


@_compiled
def wrap(
    lattice: Floats, frac_given: Floats, tolerance: float, reach: float, room: int
) -> tuple[int, float, Any]:
    """Neighbours, cells, co-spherical cells joined, the complex.

    Args:
        lattice, frac_given, tolerance: see `tessellate`.
        reach: Angstrom, how far from a site its neighbours are looked for.
        room: how much to allocate, in units that are enough for most crystals.

    Returns:
        Status, the reach that is needed if SHORT, and the arrays of `Complex` in their order (empty
        unless DONE).
    """
    basis, change = _reduce(lattice)
    frac, wraps = _wrapped(frac_given, change)
    home = np.zeros((len(frac), 3))
    for i in range(len(frac)):
        for k in range(3):
            for j in range(3):
                home[i, k] += frac[i, j] * basis[j, k]
    sites = _Sites(home, wraps, basis, change)
    status, needed = DONE, 0.0
    if reach * reach > MOST_CELLS * MOST_CELLS * _dot(basis[0], basis[0]):
        status, reach = THIN, 0.0
    pointer, others, steps, squares, collision = _neighbours(basis, frac, home, reach)
    near = (pointer, others, steps, squares)
    if collision:
        status = COLLISION
    if np.abs(change).max() > MOST_SKEW:
        status = SKEWED
    cells, spheres, thickness = _store(1, 1), np.zeros((1, 5)), np.zeros(1)
    if status == DONE:
        status, needed, cells, spheres, thickness = _discover(sites, near, tolerance, reach, room)
    # First what only noise and rounding part: the search may find any part of such a cell.
    for step in (min(NOISE, 0.1 * tolerance), tolerance):
        if status == DONE:
            status, cells, spheres, thickness = _merge(sites, cells, spheres, thickness, step, room)
    centres = spheres[:, :4].copy()
    if status != DONE:
        cells.used[0] = 0
    # Also of no cells: the compiler wants one type of result.
    assembled, arrays = _assemble(
        sites, cells, centres, volume_of(lattice), room if status == DONE else 0
    )
    return assembled if status == DONE else status, needed, arrays
