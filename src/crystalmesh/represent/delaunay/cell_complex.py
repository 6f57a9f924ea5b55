"""The periodic cell complex as arrays: vertices, edges, faces, cells, and what bounds what."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


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
