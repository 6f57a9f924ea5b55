"""Vectors in space, and the circle and the sphere through given points."""

import numpy as np

from crystalmesh.represent.delaunay.common import Floats, compiled


@compiled
def dot(a: Floats, b: Floats) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def cross(a: Floats, b: Floats, out: Floats) -> None:
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@compiled
def volume_of(lattice: Floats) -> float:
    a, b, c = lattice[0], lattice[1], lattice[2]
    return abs(
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )


@compiled
def distance_between(a: Floats, b: Floats) -> float:
    return np.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@compiled
def sides_of(points: Floats, i: int, j: int, k: int, a: Floats, b: Floats) -> None:
    """From point i to j and to k."""
    for x in range(3):
        a[x] = points[j, x] - points[i, x]
        b[x] = points[k, x] - points[i, x]


@compiled
def circle_through(a: Floats, b: Floats, centre: Floats, normal: Floats) -> float:
    """Circle through 0, a and b: its centre, the unit normal a x b; returns its squared radius.

    Returns -1 where the three lie on a line.
    """
    cross(a, b, normal)
    twice = dot(normal, normal)
    aa, bb, ab = dot(a, a), dot(b, b), dot(a, b)
    if twice < 1e-12 * aa * bb:
        return -1.0
    u, v = bb * (aa - ab) / (2.0 * twice), aa * (bb - ab) / (2.0 * twice)
    length = np.sqrt(twice)
    for k in range(3):
        centre[k] = u * a[k] + v * b[k]
        normal[k] /= length
    return dot(centre, centre)


@compiled
def fit_sphere(points: Floats, m: int, centre: Floats) -> float:
    """Sphere through m points by linear least squares; returns its radius, -1 for a flat set."""
    mean = np.zeros(3)
    for i in range(m):
        for k in range(3):
            mean[k] += points[i, k] / m
    M, right, q = np.zeros((3, 3)), np.zeros(3), np.empty(3)
    for i in range(m):
        for k in range(3):
            q[k] = points[i, k] - mean[k]
        square = dot(q, q)
        for k in range(3):
            right[k] += 0.5 * square * q[k]
            for j in range(3):
                M[k, j] += q[k] * q[j]
    c = np.empty((3, 3))
    for k in range(3):
        cross(M[(k + 1) % 3], M[(k + 2) % 3], c[k])
    det = dot(M[0], c[0])
    if det < 1e-12 * (M[0, 0] + M[1, 1] + M[2, 2]) ** 3:
        return -1.0
    for k in range(3):
        # M is symmetric, and so are its cofactors.
        centre[k] = mean[k] + dot(c[k], right) / det
    square = 0.0
    for i in range(m):
        for k in range(3):
            square += (points[i, k] - centre[k]) ** 2 / m
    return np.sqrt(square)
