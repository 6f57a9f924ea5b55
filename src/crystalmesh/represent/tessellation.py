"""The periodic Delaunay tessellation of a crystal, with co-spherical cells kept whole.

A cell is the polyhedron of all atoms on one empty sphere. Cells are found one from the other: the
sphere through a face of a known cell is moved outwards until it meets the next atom (gift wrapping;
Tanemura, Ogawa, Ogita, J. Comput. Phys. 51, 191, 1983, here with lattice shifts and with all atoms
that the sphere meets at once). No supercell is built: every face is looked at from the one copy of
its first atom in the home cell, whose neighbours are known by distance.

The work is done in the reduced cell and in 64-bit floats by functions that numba compiles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import giftwrap

# Angstrom; docs/mesh.md says how it was chosen.
TOLERANCE = 1e-3
SMALLEST, LARGEST = 1e-9, 0.3  # Angstrom: tolerances that make sense; bonds begin at 0.7


MOST_ROOM = 64  # with less, no complex has been seen to fail


class InconsistentComplex(CrystalmeshError):  # noqa: N818
    """No tolerance gives a complex that passes the checks."""


@dataclass(frozen=True)
class Complex:
    """A periodic cell complex: everything once, up to lattice translations.

    A shift is a lattice translation in whole cells. Vertex (site i, shift s) lies at
    (frac_coords[i] + s) @ lattice. Lists of different length are stored one after the other, list k
    from pointer[k] to pointer[k + 1].

    Attributes:
        lattice: rows are lattice vectors, Angstrom.
        frac_coords: fractional coordinates, as given.
        edge_sites [e, 2], edge_shift [e, 3]: an edge joins (edge_sites[0], 0) to (edge_sites[1],
            edge_shift).
        face_pointer [f + 1], face_sites [.], face_shift [., 3]: corners of each polygon, in order
            around it, by the right hand about the outward normal of face_cells[:, 0].
        face_cells [f, 2], face_cells_shift [f, 2, 3]: the two cells that a face parts, the second
            on the side to which its normal points.
        face_edges [.], face_edges_shift [., 3], face_edges_sign [.]: like the corners: the edge
            from each corner to the next one; sign -1 where that is from its second end.
        cell_pointer [c + 1], cell_sites [.], cell_shift [., 3]: corners of each polyhedron.
        cell_face_pointer [c + 1], cell_faces [.], cell_faces_shift [., 3], cell_faces_sign [.]:
            faces of each cell; sign +1 where the face's normal points out of the cell.
        cell_centres [c, 3], cell_radii [c]: the empty sphere through its corners, Angstrom (least
            squares where they are not exactly co-spherical).
        cell_volumes [c]: Angstrom^3; they add up to the volume of the lattice's cell.
        tolerance: Angstrom, with which co-spherical atoms were told; smaller than what was asked
            for where that gave no consistent complex.
        reach: Angstrom, how far from an atom its neighbours were looked for.
    """

    lattice: Float[NDArray[np.float64], "3 3"]
    frac_coords: Float[NDArray[np.float64], "n 3"]
    edge_sites: Int[NDArray[np.int32], "e 2"]
    edge_shift: Int[NDArray[np.int32], "e 3"]
    face_pointer: Int[NDArray[np.int32], " f+1"]
    face_sites: Int[NDArray[np.int32], " fc"]
    face_shift: Int[NDArray[np.int32], "fc 3"]
    face_cells: Int[NDArray[np.int32], "f 2"]
    face_cells_shift: Int[NDArray[np.int32], "f 2 3"]
    face_edges: Int[NDArray[np.int32], " fc"]
    face_edges_shift: Int[NDArray[np.int32], "fc 3"]
    face_edges_sign: Int[NDArray[np.int8], " fc"]
    cell_pointer: Int[NDArray[np.int32], " c+1"]
    cell_sites: Int[NDArray[np.int32], " cc"]
    cell_shift: Int[NDArray[np.int32], "cc 3"]
    cell_face_pointer: Int[NDArray[np.int32], " c+1"]
    cell_faces: Int[NDArray[np.int32], " cf"]
    cell_faces_shift: Int[NDArray[np.int32], "cf 3"]
    cell_faces_sign: Int[NDArray[np.int8], " cf"]
    cell_centres: Float[NDArray[np.float64], "c 3"]
    cell_radii: Float[NDArray[np.float64], " c"]
    cell_volumes: Float[NDArray[np.float64], " c"]
    tolerance: float
    reach: float

    @property
    def n_vertices(self) -> int:
        return len(self.frac_coords)

    @property
    def n_edges(self) -> int:
        return len(self.edge_sites)

    @property
    def n_faces(self) -> int:
        return len(self.face_cells)

    @property
    def n_cells(self) -> int:
        return len(self.cell_volumes)


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
    lattice = np.ascontiguousarray(lattice, dtype=np.float64)
    frac = np.ascontiguousarray(frac_coords, dtype=np.float64)
    if lattice.shape != (3, 3) or frac.ndim != 2 or frac.shape[1] != 3 or not len(frac):
        raise CrystalmeshError(
            f"a lattice [3, 3] and at least one site [n, 3] are needed, not {lattice.shape} and"
            f" {frac.shape}"
        )
    if not (np.isfinite(lattice).all() and np.isfinite(frac).all()):
        raise CrystalmeshError("lattice and coordinates must be finite numbers")
    if np.abs(frac).max() > giftwrap.MOST_SKEW:
        raise CrystalmeshError(
            f"a site lies more than {giftwrap.MOST_SKEW} cells away: wrap the coordinates"
        )
    if not SMALLEST < tolerance <= LARGEST:
        raise CrystalmeshError(
            f"the tolerance must lie between {SMALLEST} and {LARGEST} Angstrom, not {tolerance}"
        )
    if not giftwrap.volume_of(lattice) > 1e-12 * np.prod(np.linalg.norm(lattice, axis=1)):
        raise CrystalmeshError("the lattice vectors are linearly dependent")
    # 56 neighbours an atom are enough for most crystals; a run that needs more says how far.
    reach = (56 / len(frac) * giftwrap.volume_of(lattice) * 3 / (4 * np.pi)) ** (1 / 3)
    room, asked = 1, tolerance
    found: Any
    while tolerance > SMALLEST:
        status, needed, found = giftwrap.wrap(lattice, frac, tolerance, reach, room)
        if status == giftwrap.DONE:
            return Complex(lattice, frac, *found, tolerance, reach)  # type: ignore[call-arg]
        if status == giftwrap.FULL and room < MOST_ROOM:
            room *= 2
        elif status == giftwrap.SHORT:
            # What is needed is an upper bound, and a wild one while the next atom is out of sight.
            reach *= min(max(1.02 * needed / reach, 1.1), 1.5)
        elif status == giftwrap.COLLISION:
            raise CrystalmeshError(
                f"two sites lie within {giftwrap.COINCIDENT} Angstrom of each other"
            )
        elif status == giftwrap.SKEWED:
            raise CrystalmeshError(
                f"the reduced cell takes more than {giftwrap.MOST_SKEW} lattice vectors: reduce it"
            )
        elif status == giftwrap.THIN:
            raise CrystalmeshError(
                f"an empty sphere wider than {giftwrap.MOST_CELLS} cells: are sites missing?"
            )
        else:
            tolerance /= 2
    raise InconsistentComplex(f"no consistent complex at any tolerance up to {asked} Angstrom")
