"""The closest two atoms of a system."""

import itertools
import math

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce
from jaxtyping import Float

PAIRS = 1 << 20  # pairs of sites measured at once


def nearest_free(
    positions: Float[np.ndarray, "sites 3"], within: float
) -> tuple[int, int, float] | None:
    """As `nearest` for a system without a cell; its positions in Angstrom."""
    # In a box so large that no image is near, whatever side of it a difference is taken on.
    box = np.ptp(positions, axis=0) + 2 * within + 1.0
    return nearest(np.diag(box), positions / box, within)


def nearest(
    lattice: Float[np.ndarray, "3 3"], frac: Float[np.ndarray, "sites 3"], within: float
) -> tuple[int, int, float] | None:
    """The closest two sites nearer than `within` Angstrom, periodic images and own ones included.

    Exact for any cell, however skewed. The lattice must have a volume.

    Returns:
        Both sites and their distance in Angstrom, or None when all are `within` or more apart.
    """
    volume = abs(float(np.linalg.det(lattice)))
    # No lattice of this volume has a shortest vector longer than the face-centred cubic one.
    shortest = (math.sqrt(2.0) * volume) ** (1 / 3)
    if shortest < within:
        return 0, 0, shortest
    heights = _heights(lattice)
    if heights.min() < within:
        # Thin cells need many images: the reduced cell has no height far below its shortest edge.
        lattice, change = minkowski_reduce(lattice)  # type: ignore[no-untyped-call]
        frac = frac @ np.linalg.inv(change)
        heights = _heights(lattice)
        shortest = float(np.linalg.norm(lattice, axis=1).min())
        if shortest < within:
            return 0, 0, shortest
    # A difference of at most half a cell, and `within` spans so many cells beside it.
    reach = np.floor(within / heights + 0.5).astype(int).tolist()
    shifts = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    found = (within, 0, 0)
    rows = 1 + PAIRS // len(frac)
    for start in range(0, len(frac), rows):
        gaps = frac[start : start + rows, None] - frac[None, :]  # [rows, sites, 3]
        gaps -= np.round(gaps)
        for shift in shifts:
            distances = np.linalg.norm((gaps + shift).reshape(-1, 3) @ lattice, axis=1)
            if not any(shift):
                distances[start :: len(frac) + 1] = np.inf  # a site from itself
            best = int(distances.argmin())
            i, j = sorted((start + best // len(frac), best % len(frac)))
            found = min(found, (float(distances[best]), i, j))
    return (found[1], found[2], found[0]) if found[0] < within else None


def _heights(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distances between the opposite faces of the cell."""
    sides = np.cross(np.roll(lattice, -1, axis=0), np.roll(lattice, -2, axis=0))
    heights: Float[np.ndarray, "3"] = abs(np.linalg.det(lattice)) / np.linalg.norm(sides, axis=1)
    return heights
