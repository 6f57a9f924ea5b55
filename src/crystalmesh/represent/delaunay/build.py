"""From lattice and coordinates to a `Complex`: the steps in their order, again with more room."""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.delaunay.assembly import assemble
from crystalmesh.represent.delaunay.cell_complex import Complex
from crystalmesh.represent.delaunay.common import (
    COINCIDENT,
    COLLISION,
    DONE,
    FULL,
    MOST_CELLS,
    MOST_SKEW,
    NOISE,
    SHORT,
    SKEWED,
    THIN,
    Floats,
    compiled,
)  # fmt: skip
from crystalmesh.represent.delaunay.joining import join
from crystalmesh.represent.delaunay.neighbours import find_neighbours
from crystalmesh.represent.delaunay.reduction import into_cell, reduce_lattice
from crystalmesh.represent.delaunay.search import find_cells
from crystalmesh.represent.delaunay.vectors import dot, volume_of
from crystalmesh.represent.delaunay.vertices import Sites, empty_store

# Angstrom; docs/mesh.md says how it was chosen.
TOLERANCE = 1e-3
SMALLEST, LARGEST = 1e-9, 0.3  # Angstrom: tolerances that make sense; bonds begin at 0.7

MOST_ROOM = 64  # with less, no complex has been seen to fail


class InconsistentComplex(CrystalmeshError):  # noqa: N818
    """No tolerance gives a complex that passes the checks."""


def tessellate(
    lattice: Float[NDArray[np.float64], "3 3"],
    frac_coords: Float[NDArray[np.float64], "n 3"],
    tolerance: float = TOLERANCE,
) -> Complex:
    """The periodic Delaunay complex of a crystal, unique up to the order of its parts.

    Every complex returned is complete and consistent: its cell volumes are positive and add up to
    the volume of the lattice's cell within 1e-9, every face parts exactly two cells,
    vertices - edges + faces - cells = 0, and so for every cell (2 for a ball). Where the tolerance
    cuts through a cluster of nearly co-spherical atoms so that this fails, it is halved until it
    holds (`Complex.tolerance` says to what).

    Args:
        lattice: rows are lattice vectors, Angstrom; of any handedness and skewness.
        frac_coords: fractional coordinates of the sites, wrapped or not.
        tolerance: Angstrom; atoms this near to an empty sphere lie on it.

    Raises:
        CrystalmeshError: no site, numbers not finite or absurd, a flat lattice, two sites at one
            place, empty space hundreds of cells wide, or (never seen) no tolerance for which the
            checks hold.
    """
    lattice, frac = _checked(lattice, frac_coords, tolerance)
    # 56 neighbours an atom are enough for most crystals; a run that needs more says how far.
    reach = (56 / len(frac) * volume_of(lattice) * 3 / (4 * np.pi)) ** (1 / 3)
    room, asked = 1, tolerance
    found: Any
    while tolerance > SMALLEST:
        status, needed, found = wrap(lattice, frac, tolerance, reach, room)
        if status == DONE:
            return Complex(lattice, frac, *found, tolerance, reach)  # type: ignore[call-arg]
        if status == FULL and room < MOST_ROOM:
            room *= 2
        elif status == SHORT:
            # What is needed is an upper bound, and a wild one while the next atom is out of sight.
            reach *= min(max(1.02 * needed / reach, 1.1), 1.5)
        elif status == COLLISION:
            raise CrystalmeshError(f"two sites lie within {COINCIDENT} Angstrom of each other")
        elif status == SKEWED:
            raise CrystalmeshError(
                f"the reduced cell takes more than {MOST_SKEW} lattice vectors: reduce it"
            )
        elif status == THIN:
            raise CrystalmeshError(
                f"an empty sphere wider than {MOST_CELLS} cells: are sites missing?"
            )
        else:
            tolerance /= 2
    raise InconsistentComplex(f"no consistent complex at any tolerance up to {asked} Angstrom")


def _checked(
    lattice: NDArray[Any], frac_coords: NDArray[Any], tolerance: float
) -> tuple[Floats, Floats]:
    """What `tessellate` is given, as arrays that the compiled functions read, or an error."""
    lattice = np.ascontiguousarray(lattice, dtype=np.float64)
    frac = np.ascontiguousarray(frac_coords, dtype=np.float64)
    if lattice.shape != (3, 3) or frac.ndim != 2 or frac.shape[1] != 3 or not len(frac):
        raise CrystalmeshError(
            f"a lattice [3, 3] and at least one site [n, 3] are needed, not {lattice.shape} and"
            f" {frac.shape}"
        )
    if not (np.isfinite(lattice).all() and np.isfinite(frac).all()):
        raise CrystalmeshError("lattice and coordinates must be finite numbers")
    if np.abs(frac).max() > MOST_SKEW:
        raise CrystalmeshError(
            f"a site lies more than {MOST_SKEW} cells away: wrap the coordinates"
        )
    if not SMALLEST < tolerance <= LARGEST:
        raise CrystalmeshError(
            f"the tolerance must lie between {SMALLEST} and {LARGEST} Angstrom, not {tolerance}"
        )
    if not volume_of(lattice) > 1e-12 * np.prod(np.linalg.norm(lattice, axis=1)):
        raise CrystalmeshError("the lattice vectors are linearly dependent")
    return lattice, frac


@compiled
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
    basis, change = reduce_lattice(lattice)
    frac, wraps = into_cell(frac_given, change)
    home = np.zeros((len(frac), 3))
    for i in range(len(frac)):
        for k in range(3):
            for j in range(3):
                home[i, k] += frac[i, j] * basis[j, k]
    sites = Sites(home, wraps, basis, change)
    status, needed = DONE, 0.0
    if reach * reach > MOST_CELLS * MOST_CELLS * dot(basis[0], basis[0]):
        status, reach = THIN, 0.0
    pointer, others, steps, squares, collision = find_neighbours(basis, frac, home, reach)
    near = (pointer, others, steps, squares)
    if collision:
        status = COLLISION
    if np.abs(change).max() > MOST_SKEW:
        status = SKEWED
    cells, spheres, thickness = empty_store(1, 1), np.zeros((1, 5)), np.zeros(1)
    if status == DONE:
        status, needed, cells, spheres, thickness = find_cells(sites, near, tolerance, reach, room)
    # First what only noise and rounding part: the search may find any part of such a cell.
    for step in (min(NOISE, 0.1 * tolerance), tolerance):
        if status == DONE:
            status, cells, spheres, thickness = join(sites, cells, spheres, thickness, step, room)
    centres = spheres[:, :4].copy()
    if status != DONE:
        cells.used[0] = 0
    # Also of no cells: the compiler wants one type of result.
    assembled, arrays = assemble(
        sites, cells, centres, volume_of(lattice), room if status == DONE else 0
    )
    return assembled if status == DONE else status, needed, arrays
