"""All neighbours of each site within a distance, found through bins that fill the cell."""

import numpy as np

from crystalmesh.represent.delaunay.common import COINCIDENT, Floats, Ints, compiled
from crystalmesh.represent.delaunay.vectors import cross, dot, volume_of
from crystalmesh.represent.delaunay.vertices import HOME

Near = tuple[Ints, Ints, Floats, Floats]  # the first four that `find_neighbours` returns


@compiled
def _into_bins(basis: Floats, frac: Floats, reach: float) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Sort the sites into equal bins that fill the cell.

    Returns:
        bins [3] along each axis, span [3] (how many of them `reach` is), place [n, 3] (bin of each
        site), pointer [b + 1], members [n]: bin i holds members[pointer[i] : pointer[i + 1]].
    """
    n = len(frac)
    bins, span = np.empty(3, np.int64), np.empty(3, np.int64)
    per = max(1.0, (n / 4.0) ** (1 / 3))  # bins an axis of a cube with 4 atoms a bin
    volume, side = volume_of(basis), np.empty(3)
    for k in range(3):
        cross(basis[(k + 1) % 3], basis[(k + 2) % 3], side)
        height = volume / np.sqrt(dot(side, side))  # between opposite faces of the cell
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
    return bins, span, place, count, members


@compiled
def _doubled(others: Ints, steps: Floats, squares: Floats) -> tuple[Ints, Floats, Floats]:
    """The same with room for twice as many."""
    used = len(others)
    grown, grown_steps = np.empty(2 * used, np.int64), np.empty((2 * used, 3))
    grown_squares = np.empty(2 * used)
    grown[:used], grown_steps[:used], grown_squares[:used] = others, steps, squares
    return grown, grown_steps, grown_squares


@compiled
def find_neighbours(
    basis: Floats, frac: Floats, home: Floats, reach: float
) -> tuple[Ints, Ints, Floats, Floats, bool]:
    """All neighbours of each site within `reach`, by distance.

    Returns:
        pointer [n + 1], others [.] (vertices, as seen from the site at shift zero), steps [., 3]
        (to them, Angstrom), squares [.] (of the distance), whether two sites lie at one place.
    """
    n = len(frac)
    bins, span, place, count, members = _into_bins(basis, frac, reach)
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
                        if used == len(others):
                            others, steps, squares = _doubled(others, steps, squares)
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
