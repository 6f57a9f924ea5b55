"""The periodic Delaunay complex of a crystal, with co-spherical cells kept whole.

A cell is the polyhedron of all atoms on one empty sphere. Cells are found one from the other: the
sphere through a face of a known cell is moved outwards until it meets the next atom (gift wrapping;
Tanemura, Ogawa, Ogita, J. Comput. Phys. 51, 191, 1983, here with lattice shifts and with all atoms
that the sphere meets at once). No supercell is built: every face is looked at from the one copy of
its first atom in the home cell, whose neighbours are known by distance. The work is done in the
reduced cell and in 64-bit floats by functions that numba compiles.

`cell_complex` is the result; `build` calls, in this order, `reduction`, `neighbours`, `search`,
`joining` and `assembly`, which calls `checks`. These stand on `hulls`, `vectors`, `vertices` and
`common`.
"""

from crystalmesh.represent.delaunay.build import TOLERANCE, InconsistentComplex, tessellate
from crystalmesh.represent.delaunay.cell_complex import Complex
from crystalmesh.represent.delaunay.common import VOLUME

__all__ = ["TOLERANCE", "VOLUME", "Complex", "InconsistentComplex", "tessellate"]
