"""Meshes of crystals: triangles between atoms.

`published` is the mesh of the study (Tsuruta, Katsura, Kumagai 2022; DeepCrysTet, arXiv
2310.06852): the Delaunay tessellation of a supercell of the conventional cell, cut around the
central cell. It is not a function of the crystal: atoms of high-symmetry crystals are co-spherical,
and Qhull cuts those cells in an order that depends on the order and rounding of its points.

`canonical` is ours: the faces of the periodic Delaunay complex, one period of them, with
co-spherical cells kept whole. See `crystalmesh.represent.delaunay`.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import spglib
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pymatgen.core import Element
from scipy.spatial import Delaunay, QhullError
from torch import Tensor

from crystalmesh.config.read import parse
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import Count, Length, atoms, geometry
from crystalmesh.represent.delaunay import Complex, tessellate

__all__ = ["Canonical", "Complex", "Published", "collate", "tessellate", "tessellate_supercell"]

LEVEL = 1e-3  # of a unit vector: a component below this is zero but for rounding
EDGE = 1e-6  # cells: a centre this near below the cell's upper boundary counts as on it


class PublishedSettings(BaseModel):
    """Settings of the published mesh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib's refinement
    supercell: Count  # repetitions along each axis; odd, so that there is a central cell
    tolerance: Length  # Angstrom by which a vertex may lie outside the central cell's closed box


class Triangles:
    """What all meshes have in common: triangles, as indices and shifts (see `Published.build`)."""

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The mesh of a crystal."""
        raise NotImplementedError

    def polygons(self, crystal: Crystal) -> Int[NDArray[np.int32], " f"] | None:
        """Which face each triangle of `build` is a part of; None where each is a face itself."""
        del crystal
        return None

    def collate(self, items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Join meshes: see the function `collate`."""
        return collate(items)


class Published(Triangles):
    """The study's mesh: refined cell, supercell, Delaunay, tetrahedra at the central cell.

    Args:
        settings: `representations.mesh.published` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(PublishedSettings, settings, "representations.mesh.published")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The mesh as indices and shifts.

        Returns:
            lattice [3, 3] (Angstrom, rows), numbers [s] and frac [s, 3] of the refined conventional
            cell; vertex_site [v] and vertex_shift [v, 3] (in cells); faces [f, 3] vertices of each
            face in increasing order, faces sorted. Vertex position: (frac[site] + shift) @ lattice.

        Raises:
            CrystalmeshError: spglib finds no symmetry, or all atoms lie in one plane.
        """
        lattice, frac, numbers = conventional_cell(crystal, self.settings.symprec)
        # pymatgen's refined structure comes sorted by electronegativity, and the original code
        # starts from it: see the remark on order in `tessellate_supercell`.
        order = np.argsort(_electronegativity()[numbers], kind="stable")
        frac, numbers = frac[order], numbers[order]
        return tessellate_supercell(
            lattice, frac, numbers, self.settings.supercell, self.settings.tolerance
        )


class CanonicalSettings(BaseModel):
    """Settings of the canonical mesh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symprec: Length  # Angstrom, of spglib's refinement
    tolerance: Length  # Angstrom within which atoms count as co-spherical


class Canonical(Triangles):
    """The faces of one period of the periodic Delaunay complex of the conventional cell.

    The complex itself does not depend on the cell; the conventional one gives the network its frame
    (the features have directions) and as many faces as the published mesh is made from. A face with
    n > 3 corners enters as all of its n (n - 1) (n - 2) / 6 triangles, so that no diagonal is
    preferred. Of the copies of a face the one whose centre lies inside the cell is taken, and of
    its two normals the one that points up (or, if it is level, along b or a).

    Args:
        settings: `representations.mesh.canonical` of config/.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = parse(CanonicalSettings, settings, "representations.mesh.canonical")

    def build(self, crystal: Crystal) -> dict[str, NDArray[Any]]:
        """The mesh as indices and shifts.

        Returns:
            lattice, numbers, frac, vertex_site, vertex_shift and faces as of `Published.build`, but
            for the corners of a face, which run around its normal.

        Raises:
            CrystalmeshError: spglib finds no symmetry, or see `tessellate`.
        """
        lattice, frac, numbers, found = self._complex(crystal)
        sites, shifts, face = geometry.face_triangles(found)
        place = found.frac_coords[found.face_sites] + found.face_shift
        centre = (
            np.add.reduceat(place, found.face_pointer[:-1]) / np.diff(found.face_pointer)[:, None]
        )
        # A centre on the boundary but for rounding counts as on its lower side.
        shifts = shifts - np.floor(centre + EDGE).astype(np.int32)[face][:, None]
        # Which cell is on which side of a face is nothing that a network should learn.
        corners = geometry.positions(found, sites, shifts)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        turned = _downwards(normal)
        sites[turned], shifts[turned] = sites[turned][:, [0, 2, 1]], shifts[turned][:, [0, 2, 1]]
        # One number a vertex sorts faster than rows do.
        low = shifts.min(axis=(0, 1))
        box = (len(frac), *(shifts.max(axis=(0, 1)) - low + 1))
        places = np.ravel_multi_index((sites, *np.moveaxis(shifts - low, 2, 0)), box)
        vertices, local = np.unique(places, return_inverse=True)
        vertex_site, *vertex_shift = np.unravel_index(vertices, box)
        return {
            "lattice": np.asarray(lattice, dtype=np.float64),
            "numbers": numbers.astype(np.uint8),
            "frac": frac.astype(np.float64),
            "vertex_site": vertex_site.astype(np.int32),
            "vertex_shift": (np.stack(vertex_shift, axis=1) + low).astype(np.int16),
            "faces": local.reshape(-1, 3).astype(np.int32),
        }

    def polygons(self, crystal: Crystal) -> Int[NDArray[np.int32], " f"]:
        """Which face of the complex each triangle of `build` belongs to, in increasing order."""
        return geometry.face_triangles(self._complex(crystal)[3])[2]

    def _complex(
        self, crystal: Crystal
    ) -> tuple[
        Float[NDArray[Any], "3 3"], Float[NDArray[Any], "s 3"], Int[NDArray[Any], " s"], Complex
    ]:
        """Lattice, coordinates in [0, 1) and atomic numbers of the cell, and its complex."""
        lattice, frac, numbers = conventional_cell(crystal, self.settings.symprec)
        frac = frac - np.floor(frac)
        return lattice, frac, numbers, tessellate(lattice, frac, self.settings.tolerance)


def _downwards(vectors: Float[NDArray[Any], "t 3"]) -> NDArray[np.bool_]:
    """Whether the last component of a vector that is not zero but for rounding is negative."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit[np.abs(unit) < LEVEL] = 0.0
    down: NDArray[np.bool_] = unit @ [1.0, 2.0 / LEVEL, 4.0 / LEVEL**2] < 0
    return down


def conventional_cell(
    crystal: Crystal, symprec: float
) -> tuple[Float[NDArray[Any], "3 3"], Float[NDArray[Any], "s 3"], Int[NDArray[Any], " s"]]:
    """Lattice, coordinates and atomic numbers of spglib's refined conventional cell.

    Raises:
        CrystalmeshError: spglib finds none, or an element has no features.
    """
    problem = f"{crystal.id}: spglib finds no conventional cell"
    return _found_cell(crystal, symprec, spglib.refine_cell, problem)


def primitive_cell(
    crystal: Crystal, symprec: float
) -> tuple[Float[NDArray[Any], "3 3"], Float[NDArray[Any], "s 3"], Int[NDArray[Any], " s"]]:
    """Lattice, coordinates and atomic numbers of spglib's primitive cell, not idealised.

    Raises:
        CrystalmeshError: spglib finds none, or an element has no features.
    """
    problem = f"{crystal.id}: spglib finds no primitive cell"
    return _found_cell(crystal, symprec, spglib.find_primitive, problem)


def primitive_complex(
    crystal: Crystal, symprec: float, tolerance: float
) -> tuple[Complex, Int[NDArray[Any], " n"]]:
    """The complex of the primitive cell, and the atomic number of each of its sites.

    Raises:
        CrystalmeshError: see `primitive_cell` and `tessellate`.
    """
    lattice, frac, numbers = primitive_cell(crystal, symprec)
    return tessellate(lattice, frac - np.floor(frac), tolerance), numbers


def _found_cell(
    crystal: Crystal, symprec: float, search: Callable[..., Any], problem: str
) -> tuple[Float[NDArray[Any], "3 3"], Float[NDArray[Any], "s 3"], Int[NDArray[Any], " s"]]:
    atoms.vectors(crystal.numbers)  # refuses elements without features
    cell: Any = (crystal.lattice, crystal.frac, crystal.numbers)
    try:
        found = search(cell, symprec=symprec)
    except spglib.SpglibError as error:
        raise CrystalmeshError(problem) from error
    if found is None:
        raise CrystalmeshError(problem)
    lattice, frac, numbers = found
    return lattice, frac, numbers


@functools.cache
def _electronegativity() -> NDArray[np.float64]:
    """Pauling electronegativity by atomic number as pymatgen sorts by it; none counts as last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each noble gas
        values = [0.0, *(Element.from_Z(z).X for z in range(1, 119))]
    table: NDArray[np.float64] = np.nan_to_num(np.array(values), nan=np.inf)
    return table


def tessellate_supercell(
    lattice: Float[NDArray[Any], "3 3"],
    frac: Float[NDArray[Any], "s 3"],
    numbers: Int[NDArray[Any], " s"],
    supercell: int,
    tolerance: float,
) -> dict[str, NDArray[Any]]:
    """Delaunay tessellation of a supercell, cut to the tetrahedra that touch its central cell.

    Args:
        lattice: rows are lattice vectors, Angstrom.
        frac: fractional coordinates, wrapped into [0, 1) here.
        numbers: atomic numbers.
        supercell: repetitions along each axis.
        tolerance: Angstrom, of "inside the closed box".

    Returns:
        The arrays of `Published.build`.
    """
    # A coordinate of 1 - 1e-12 is a site at the origin, not one at the far side.
    frac = frac - np.floor(frac)
    frac[frac > 1 - 1e-8] = 0.0
    cells = np.stack(np.meshgrid(*[np.arange(supercell)] * 3, indexing="ij"), -1).reshape(-1, 3)
    # Site after site, each with all its copies, and summed as pymatgen's supercell sums: order and
    # last bits decide how Qhull cuts co-spherical atoms, so the published counts depend on both.
    site = np.repeat(np.arange(len(frac)), len(cells))
    shift = np.tile(cells, (len(frac), 1)) - supercell // 2
    large = lattice * supercell
    copies = (cells @ np.linalg.inv(np.eye(3) * supercell)) @ large
    points = ((frac @ lattice)[:, None] + copies).reshape(-1, 3)
    points = np.mod(points @ np.linalg.inv(large), 1.0) @ large
    try:
        simplices = Delaunay(points).simplices  # [t, 4]
    except QhullError as error:
        raise CrystalmeshError(f"Qhull fails: {str(error).splitlines()[0]}") from error

    slack = tolerance / np.linalg.norm(lattice, axis=1)
    place = frac[site] + shift
    inside = ((place >= -slack) & (place <= 1 + slack)).all(axis=1)
    kept = np.sort(simplices[inside[simplices].any(axis=1)], axis=1).astype(np.int64)
    triples = kept[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3)
    n = len(points)
    keys = np.unique((triples[:, 0] * n + triples[:, 1]) * n + triples[:, 2])
    faces = np.stack([keys // (n * n), keys // n % n, keys % n], axis=1)
    vertices, local = np.unique(faces, return_inverse=True)
    return {
        "lattice": np.asarray(lattice, dtype=np.float64),
        "numbers": numbers.astype(np.uint8),
        "frac": frac.astype(np.float64),
        "vertex_site": site[vertices].astype(np.int32),
        "vertex_shift": shift[vertices].astype(np.int8),
        "faces": local.reshape(-1, 3).astype(np.int32),
    }


def collate(items: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Join meshes and form the face features of both published sets.

    Args:
        items: arrays as `Published.build` returns them.

    Returns:
        pointer [c + 1]: faces of crystal i are rows pointer[i] to pointer[i + 1]; and a row a face:
        centre [f, 3] (Angstrom; the centres of a crystal have mean zero), normal [f, 3] (unit, by
        the right hand from the first vertex to the third), edges [f, 3] (lengths, increasing,
        Angstrom), corner [f, 9] (from the centre to each vertex, Angstrom), numbers [f, 3]
        (atomic numbers of the vertices).
    """
    rows: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("centre", "normal", "edges", "corner", "numbers")
    }
    pointer = [0]
    for item in items:
        site = item["vertex_site"]
        position = (item["frac"][site] + item["vertex_shift"]) @ item["lattice"]
        faces = item["faces"]
        corners = position[faces]  # [f, 3 vertices, 3]
        centre = corners.mean(axis=1)
        sides = corners[:, [1, 2, 0]] - corners  # [f, 3 sides, 3]
        normal = np.cross(sides[:, 0], -sides[:, 2])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        rows["normal"].append(normal / np.maximum(length, 1e-12))
        rows["edges"].append(np.sort(np.linalg.norm(sides, axis=2), axis=1))
        rows["corner"].append((corners - centre[:, None]).reshape(-1, 9))
        rows["centre"].append(centre - centre.mean(axis=0))
        rows["numbers"].append(item["numbers"][site][faces].astype(np.int64))
        pointer.append(pointer[-1] + len(faces))
    batch = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in rows.items()}
    batch = {k: v if k == "numbers" else v.to(torch.float32) for k, v in batch.items()}
    return batch | {"pointer": torch.tensor(pointer)}


VARIANTS = {"published": Published, "canonical": Canonical}
NOT_INVARIANT = {
    "published": ("sites", "origin", "rotation", "reflection", "translation", "basis", "supercell"),
    "canonical": ("origin", "reflection", "basis", "supercell"),  # of spglib's conventional cell
}
