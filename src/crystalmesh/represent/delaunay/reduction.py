"""The reduced cell of a lattice, and sites moved into it."""

import numpy as np

from crystalmesh.represent.delaunay.common import Floats, Ints, compiled
from crystalmesh.represent.delaunay.vectors import cross, dot


@compiled
def reduce_lattice(lattice: Floats) -> tuple[Floats, Ints]:
    """A reduced basis (greedy, Semaev 2001) and the integers T with reduced = T @ lattice."""
    basis = lattice.copy()
    change = np.eye(3, dtype=np.int64)
    for _ in range(1000):
        # Longest vector last.
        for i, j in ((0, 1), (1, 2), (0, 1)):
            if dot(basis[i], basis[i]) > dot(basis[j], basis[j]):
                for k in range(3):
                    basis[i, k], basis[j, k] = basis[j, k], basis[i, k]
                    change[i, k], change[j, k] = change[j, k], change[i, k]
        a, b, c = basis[0], basis[1], basis[2]
        aa, bb, ab = dot(a, a), dot(b, b), dot(a, b)
        x = np.round(ab / aa)
        if x != 0.0 and _shorter(b, a, x):
            _subtract(basis, change, 1, 0, int(x))
            continue
        # Of the lattice points in the plane of a and b, the nearest to the third vector.
        det = aa * bb - ab * ab
        ac, bc = dot(a, c), dot(b, c)
        p, q = (ac * bb - bc * ab) / det, (bc * aa - ac * ab) / det
        best, shift = dot(c, c) * (1 - 1e-12), (0, 0)
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


@compiled
def _shorter(b: Floats, a: Floats, x: float) -> bool:
    """Whether b - x a is shorter than b, by more than rounding."""
    length = 0.0
    for k in range(3):
        length += (b[k] - x * a[k]) ** 2
    return length < dot(b, b) * (1 - 1e-12)


@compiled
def _subtract(basis: Floats, change: Ints, i: int, j: int, times: int) -> None:
    for k in range(3):
        basis[i, k] -= times * basis[j, k]
        change[i, k] -= times * change[j, k]


@compiled
def into_cell(frac: Floats, change: Ints) -> tuple[Floats, Ints]:
    """Coordinates in the basis change @ lattice, in [0, 1), and the whole cells taken off."""
    n = len(frac)
    ints, cofactor = change.astype(np.float64), np.empty((3, 3))
    for k in range(3):
        cross(ints[(k + 1) % 3], ints[(k + 2) % 3], cofactor[k])
    determinant = dot(ints[0], cofactor[0])  # 1 or -1
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
