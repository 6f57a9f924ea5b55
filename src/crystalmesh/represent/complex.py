"""The periodic Delaunay complex of a crystal as lists of parts and of who borders whom.

Atoms, edges, faces and cells of one period with invariant measures of each: no coordinates, no
cutoff, no number of neighbours. `orbits` holds one representative of each symmetry orbit (the
asymmetric unit) with how many it stands for: parts that are the same by symmetry have the same
features in every layer of a network, so that it need not compute them twice. `whole` holds them
all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from vesin import NeighborList

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Count, Length, atoms, geometry
from crystalmesh.represent.delaunay import Complex, tessellate
from crystalmesh.represent.elastic import NAMES, OTHERS, Descriptors, standard, truss
from crystalmesh.represent.mesh import primitive_cell, primitive_complex

SAME = 1.0  # solid angle, and area of the dual face, of an edge to a nearest neighbour
EQUAL = 1e-3  # radian: borders between the same parts at angles nearer than this are joined


class Settings(BaseModel):
    """Settings of a complex."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib's search for the primitive cell and for orbits
    tolerance: Length  # Angstrom within which atoms count as co-spherical


class Full:
    """All parts of the complex of a primitive cell.

    Args:
        settings: `representations.complex.full` (or `.reduced`, ...) of config/.
    """

    block = "full"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(Settings, settings, f"representations.complex.{self.block}")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """Parts and borders.

        Returns:
            See `describe`.

        Raises:
            CrystalmeshError: spglib finds no primitive cell, an element has no features, or see
                `tessellate`.
        """
        found, numbers = self._complex(crystal)
        parts = describe(found, numbers, self._orbits(found, numbers))
        return parts | self._more(crystal, found, numbers)

    def _complex(self, crystal: Crystal) -> tuple[Complex, Int[NDArray[Any], " n"]]:
        return primitive_complex(crystal, self.settings.symprec, self.settings.tolerance)

    def _orbits(self, found: Complex, numbers: Int[NDArray[Any], " n"]) -> geometry.Orbits:  # noqa: ARG002
        return geometry.Orbits(
            _alone(found.n_vertices),
            _alone(found.n_edges),
            _alone(found.n_faces),
            _alone(found.n_cells),
            operations=1,
            broken=0,
        )

    def _more(
        self,
        crystal: Crystal,  # noqa: ARG002
        found: Complex,  # noqa: ARG002
        numbers: Int[NDArray[Any], " n"],  # noqa: ARG002
    ) -> dict[str, NDArray[Any]]:
        return {}

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join complexes: see the function `collate`."""
        return collate(items)

    def rows(self, key: str) -> str:
        """See the function `rows`."""
        return rows(key)

    def padded(self, batch: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See the function `padded`."""
        return padded(batch, sizes)


class Sites(Full):
    """As `Full`, but of the cell as it stands: a row for each site, for targets of atoms."""

    block = "sites"

    def _complex(self, crystal: Crystal) -> tuple[Complex, Int[NDArray[Any], " n"]]:
        atoms.vectors(crystal.numbers)  # refuses elements without features
        frac = crystal.frac - np.floor(crystal.frac)
        return tessellate(crystal.lattice, frac, self.settings.tolerance), crystal.numbers


class Reduced(Full):
    """One part of each orbit under the space group, with its multiplicity."""

    block = "reduced"

    def _orbits(self, found: Complex, numbers: Int[NDArray[Any], " n"]) -> geometry.Orbits:
        return geometry.orbits(found, numbers, self.settings.symprec)


class Elastic(Reduced):
    """`Reduced`, and beside it what the elastic network of its edges is like.

    Adds truss [1, t], one row a crystal: see `represent.elastic.standard`.
    """

    block = "elastic"

    def _more(
        self,
        crystal: Crystal,  # noqa: ARG002
        found: Complex,
        numbers: Int[NDArray[Any], " n"],
    ) -> dict[str, NDArray[Any]]:
        return {"truss": _f32(standard(truss(found, numbers), NAMES)[None])}


class Described(Elastic):
    """`Elastic`, and beside it all else that `represent.elastic.Descriptors` tells.

    Adds described [1, d], one row a crystal.
    """

    block = "described"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._descriptors = Descriptors(self.settings.model_dump())

    def _more(
        self, crystal: Crystal, found: Complex, numbers: Int[NDArray[Any], " n"]
    ) -> dict[str, NDArray[Any]]:
        others = standard(self._descriptors.others(crystal, numbers), OTHERS)
        return super()._more(crystal, found, numbers) | {"described": _f32(others[None])}


class NearestSettings(BaseModel):
    """Settings of a graph of nearest neighbours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib's search for the primitive cell
    neighbours: Count  # of each atom; an edge is one of either end's
    cutoff: Length  # Angstrom within which they are looked for


class Nearest:
    """Edges to nearest neighbours in place of Delaunay's: to tell what the complex is good for.

    The rest is as in `Full`, without faces and cells, and each edge has the same solid angle.

    Args:
        settings: `representations.complex.nearest` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(NearestSettings, settings, "representations.complex.nearest")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """Parts and borders as `describe` gives them; an atom's volume is its share of the cell.

        Raises:
            CrystalmeshError: spglib finds no primitive cell, or an atom has fewer neighbours than
                wanted within the cutoff.
        """
        s = self.settings
        lattice, frac, numbers = primitive_cell(crystal, s.symprec)
        first, second, shift, length = NeighborList(cutoff=s.cutoff, full_list=True).compute(
            points=frac @ lattice, box=lattice, periodic=True, quantities="ijSd"
        )
        order = np.lexsort((length, first))
        first, second, shift, length = (a[order] for a in (first, second, shift, length))
        rank = np.arange(len(first)) - np.searchsorted(first, first)
        near = rank < s.neighbours
        n = len(numbers)
        if near.sum() < s.neighbours * n:
            raise CrystalmeshError(
                f"{crystal.id}: an atom has fewer than {s.neighbours} neighbours within"
                f" {s.cutoff} Angstrom; raise `cutoff`"
            )
        # An edge from either end is one: written from the end, and in the sense, that comes first.
        rows = np.column_stack([first, second, shift])[near].astype(np.int64)
        other = np.column_stack([rows[:, 1], rows[:, 0], -rows[:, 2:]])
        turned = [tuple(b) < tuple(a) for a, b in zip(rows.tolist(), other.tolist(), strict=True)]
        rows = np.where(np.array(turned)[:, None], other, rows)
        _, one = np.unique(rows, axis=0, return_index=True)
        edges = len(one)
        size = np.column_stack([length[near][one], np.full((edges, 2), SAME)])
        empty = np.zeros(0, dtype=np.int32)
        result: dict[str, NDArray[Any]] = {
            "numbers": numbers.astype(np.uint8),
            "atoms_many": np.ones(n, dtype=np.int32),
            "atoms_size": _f32(np.full(n, abs(np.linalg.det(lattice)) / n)),
            "edges_many": np.ones(edges, dtype=np.int32),
            "edges_ends": rows[one, :2].astype(np.int32),
            "edges_size": _f32(size),
        }
        for part in ("faces", "cells"):
            result |= {f"{part}_many": empty, f"{part}_size": _f32(np.zeros((0, 2)))}
        for border, parts in BORDERS.items():
            if border != "edges_ends":
                result |= {border: np.zeros((0, len(parts)), np.int32), f"{border}_count": empty}
        return result | {"corners_angle": _f32(np.zeros(0)), "hinges_angle": _f32(np.zeros(0))}

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join graphs: see the function `collate`."""
        return collate(items)


def describe(
    found: Complex, numbers: Int[NDArray[Any], " n"], orbits: geometry.Orbits
) -> dict[str, NDArray[Any]]:
    """The parts that stand for their orbits, and how they border on each other.

    Args:
        found: the complex.
        numbers: atomic number of each site.
        orbits: which parts are the same.

    Returns:
        One row an orbit, with `*_many`, how many parts of the primitive cell it stands for:
        numbers, atoms_many [n], atoms_size [n] (Voronoi volume, Angstrom^3);
        edges_many, edges_ends [e, 2] (its two atoms), edges_size [e, 3] (length in Angstrom, solid
        angle of the dual face in radian as the mean of both ends, area of that face in Angstrom^2);
        faces_many [f], faces_size [f, 2] (area, circumradius; Angstrom^2, Angstrom);
        cells_many [c], cells_size [c, 2] (volume, circumradius; Angstrom^3, Angstrom).
        One row a border, with `*_count`, how often the first part has such a border:
        sides [s, 2] (face, edge); walls [w, 2] (cell, face);
        corners [k, 3] (face, and two edges that meet at a corner of it) and corners_angle [k];
        hinges [h, 2] (cell, edge) and hinges_angle [h], the dihedral angle inside the cell.
    """
    return _parts(found, numbers, orbits) | _borders(found, orbits)


def _parts(
    found: Complex, numbers: Int[NDArray[Any], " n"], orbits: geometry.Orbits
) -> dict[str, NDArray[Any]]:
    """Of `describe` what has one row an orbit."""
    atom, edge, face, cell = orbits.atoms, orbits.edges, orbits.faces, orbits.cells
    r = edge.representative
    solid = geometry.solid_angles(found)[r].mean(axis=1)
    return {
        "numbers": numbers[atom.representative].astype(np.uint8),
        "atoms_many": atom.multiplicity.astype(np.int32),
        "atoms_size": _f32(geometry.voronoi_volumes(found)[atom.representative]),
        "edges_many": edge.multiplicity.astype(np.int32),
        "edges_ends": atom.label[found.edge_sites[r]].astype(np.int32),
        "edges_size": _f32(
            np.stack([geometry.edge_lengths(found)[r], solid, geometry.dual_areas(found)[r]], 1)
        ),
        "faces_many": face.multiplicity.astype(np.int32),
        "faces_size": _f32(
            np.stack([geometry.face_areas(found), geometry.face_circumradii(found)], 1)[
                face.representative
            ]
        ),
        "cells_many": cell.multiplicity.astype(np.int32),
        "cells_size": _f32(
            np.stack([found.cell_volumes, found.cell_radii], 1)[cell.representative]
        ),
    }


def _borders(found: Complex, orbits: geometry.Orbits) -> dict[str, NDArray[Any]]:
    """Of `describe` what has one row a border."""
    edge, face, cell = orbits.edges, orbits.faces, orbits.cells
    # Corners of the faces: each between the side that comes in and the side that goes out.
    of_face = np.repeat(np.arange(found.n_faces), np.diff(found.face_pointer))
    before, angle = geometry.corner_angles(found)
    chosen = _chosen(face, of_face)
    around = edge.label[found.face_edges]
    pairs = np.sort(np.stack([around[before], around], axis=1), axis=1)
    faces = face.label[of_face]
    rows, count, _ = _joined(np.stack([faces, around], axis=1)[chosen])
    result: dict[str, NDArray[Any]] = {"sides": rows, "sides_count": count}
    rows, count, angles = _joined(np.column_stack([faces, pairs])[chosen], angle[chosen])
    result |= {"corners": rows, "corners_count": count, "corners_angle": _f32(angles)}
    of_cell = np.repeat(np.arange(found.n_cells), np.diff(found.cell_face_pointer))
    chosen = _chosen(cell, of_cell)
    rows, count, _ = _joined(
        np.stack([cell.label[of_cell], face.label[found.cell_faces]], axis=1)[chosen]
    )
    result |= {"walls": rows, "walls_count": count}
    hinges = geometry.dihedral_angles(found)
    chosen = _chosen(cell, hinges.cells)
    rows, count, angles = _joined(
        np.stack([cell.label[hinges.cells], edge.label[hinges.edges]], axis=1)[chosen],
        hinges.angles[chosen],
    )
    return result | {"hinges": rows, "hinges_count": count, "hinges_angle": _f32(angles)}


PARTS = {"atoms": "numbers", "edges": "edges_many", "faces": "faces_many", "cells": "cells_many"}
BORDERS = {  # which parts the columns name
    "edges_ends": ("atoms", "atoms"),
    "sides": ("faces", "edges"),
    "corners": ("faces", "edges", "edges"),
    "walls": ("cells", "faces"),
    "hinges": ("cells", "edges"),
}


def collate(items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Join complexes: the arrays of `describe` one after the other, and where each crystal's start.

    Returns:
        atoms_pointer [c + 1]: atoms of crystal i are rows pointer[i] to pointer[i + 1]; so edges_,
        faces_ and cells_pointer; the arrays of `describe`, numbers of parts counted over the batch,
        `many` and `count` as f32, integers as i64.
    """
    pointers = {
        part: np.concatenate([[0], np.cumsum([len(item[key]) for item in items])]).astype(np.int64)
        for part, key in PARTS.items()
    }
    batch: dict[str, NDArray[Any]] = {f"{part}_pointer": p for part, p in pointers.items()}
    for key in items[0]:
        joined = np.concatenate([item[key] for item in items])
        if key in BORDERS:
            counts = [len(item[key]) for item in items]
            first = np.stack([pointers[part][:-1] for part in BORDERS[key]], axis=1)
            joined = joined + np.repeat(first, counts, axis=0)
        elif key == "numbers":
            joined = joined.astype(np.int64)
        elif joined.dtype == np.int32:
            joined = joined.astype(np.float32)
        batch[key] = joined
    return {key: torch.from_numpy(array) for key, array in batch.items()}


def rows(key: str) -> str:
    """What a row of this array of a batch is: atoms, edges, ..., sides, ..., or crystals."""
    kind = "atoms" if key == "numbers" else key.partition("_")[0]
    return kind if kind in PARTS or kind in BORDERS else "crystals"


def padded(batch: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The batch with rows that no crystal of it has, so that its arrays have these sizes.

    The new parts border on each other only, and make up crystals behind the others: what is
    computed for these is the same.

    Args:
        batch: of `collate`.
        sizes: number of rows by what a row is (see `rows`), each larger than the batch's.
    """
    had = {part: int(batch[f"{part}_pointer"][-1]) for part in PARTS}
    result = {}
    for key, value in batch.items():
        if key.endswith("_pointer"):
            part = key.removesuffix("_pointer")
            more = value.new_full((sizes["crystals"] + 1 - len(value),), had[part])
            more[-1] = sizes[part]
        elif key in BORDERS:
            turn = torch.arange(sizes[rows(key)] - len(value))
            ends = [had[part] + turn % (sizes[part] - had[part]) for part in BORDERS[key]]
            more = torch.stack(ends, dim=1)
        else:
            more = value.new_ones((sizes[rows(key)] - len(value), *value.shape[1:]))
        result[key] = torch.cat([value, more])
    return result


def _alone(count: int) -> geometry.Orbit:
    """Every part an orbit of its own."""
    each = np.arange(count, dtype=np.int32)
    return geometry.Orbit(each, each, np.ones(count, dtype=np.int32))


def _chosen(orbit: geometry.Orbit, part: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose part stands for its orbit."""
    stands = np.zeros(len(orbit.label), dtype=bool)
    stands[orbit.representative] = True
    chosen: NDArray[np.bool_] = stands[part]
    return chosen


def _joined(
    rows: NDArray[Any], values: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Equal rows (with values that are equal but for rounding) as one: it, how many, mean value."""
    values = np.zeros(len(rows)) if values is None else values
    order = np.lexsort((values, *rows.T[::-1]))
    rows, values = rows[order], values[order]
    new = (rows[1:] != rows[:-1]).any(axis=1) | (np.diff(values) > EQUAL)
    first = np.flatnonzero(np.concatenate([[True], new]))
    count = np.diff(np.append(first, len(rows)))
    mean = np.add.reduceat(values, first) / count
    return rows[first].astype(np.int32), count.astype(np.int32), mean


def _f32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)


VARIANTS: dict[str, type[Full] | type[Nearest]] = {
    "reduced": Reduced,
    "full": Full,
    "sites": Sites,
    "nearest": Nearest,
    "elastic": Elastic,
    "described": Described,
}
NOT_INVARIANT = {
    "sites": ("supercell",),  # how many sites are alike
    # Which of a shell are kept at the last place, rounding decides.
    "nearest": ("sites", "origin", "rotation", "reflection", "basis", "supercell"),
}
