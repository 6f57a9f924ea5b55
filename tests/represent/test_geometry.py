"""Measures of the complex: sums that must come out, scipy's Voronoi diagram, orbits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Voronoi

from crystalmesh.represent import geometry
from crystalmesh.represent.mesh import tessellate
from tests.represent.delaunay.test_tessellate import KNOWN, random_crystal, some_crystal

NAMES = list(KNOWN)


def known(name: str) -> Any:
    lattice, frac, _, _ = KNOWN[next(n for n in NAMES if n.startswith(name))]
    return tessellate(np.array(lattice), np.array(frac, float))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_must_add_up(seed: int) -> None:
    found = tessellate(*some_crystal(seed))
    volume = abs(np.linalg.det(found.lattice))
    np.testing.assert_allclose(geometry.voronoi_volumes(found).sum(), volume, rtol=1e-3)
    around = np.bincount(found.edge_sites.ravel(), geometry.solid_angles(found).ravel())
    np.testing.assert_allclose(around, 4 * np.pi, rtol=1e-9)
    dihedrals = geometry.dihedral_angles(found)
    np.testing.assert_allclose(np.bincount(dihedrals.edges, dihedrals.angles), 2 * np.pi, atol=0.05)
    assert (geometry.dual_areas(found) > -1e-9).all()
    assert (geometry.face_areas(found) > 0).all()
    assert (geometry.face_circumradii(found) > 0).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), sites=st.integers(2, 6))
def test_dual_areas_and_volumes_are_those_of_scipys_voronoi_diagram(seed: int, sites: int) -> None:
    lattice, frac = random_crystal(seed, sites)
    found = tessellate(lattice, frac, tolerance=1e-8)
    block = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    home = len(block) // 2  # shift zero
    points = ((frac[:, None] + block) @ lattice).reshape(-1, 3)
    diagram = Voronoi(points)
    areas: list[float] = []
    for (p, q), ridge in zip(diagram.ridge_points, diagram.ridge_vertices, strict=True):
        ends = [(int(x) // len(block), int(x) % len(block) == home) for x in (p, q)]
        if any(at_home for _, at_home in ends):
            corner = diagram.vertices[ridge]
            fan = np.cross(corner[1:-1] - corner[0], corner[2:] - corner[0])
            area = 0.5 * np.linalg.norm(fan.sum(axis=0))
            areas += [float(area)] * sum(at_home for _, at_home in ends)
    ours = np.sort(np.repeat(geometry.dual_areas(found), 2))
    np.testing.assert_allclose(ours, np.sort(areas), rtol=1e-6, atol=1e-7)
    for site, volume in enumerate(geometry.voronoi_volumes(found)):
        region = diagram.regions[diagram.point_region[site * len(block) + home]]
        np.testing.assert_allclose(volume, ConvexHull(diagram.vertices[region]).volume, rtol=1e-7)


def test_a_cube() -> None:
    found = known("simple cubic")  # edge 3
    np.testing.assert_allclose(geometry.edge_lengths(found), 3.0)
    np.testing.assert_allclose(geometry.face_areas(found), 9.0)
    np.testing.assert_allclose(geometry.face_circumradii(found), 3 / np.sqrt(2))
    np.testing.assert_allclose(geometry.dual_areas(found), 9.0)
    np.testing.assert_allclose(geometry.solid_angles(found), 4 * np.pi / 6)
    np.testing.assert_allclose(found.cell_radii, 1.5 * np.sqrt(3))
    dihedrals = geometry.dihedral_angles(found)
    assert len(dihedrals.angles) == 12
    np.testing.assert_allclose(dihedrals.angles, np.pi / 2)


def test_dihedral_angles_of_tetrahedron_and_octahedron() -> None:
    found = known("fcc")
    dihedrals = geometry.dihedral_angles(found)
    size = np.diff(found.cell_pointer)[dihedrals.cells]
    np.testing.assert_allclose(dihedrals.angles[size == 4], np.arccos(1 / 3))
    np.testing.assert_allclose(dihedrals.angles[size == 6], np.arccos(-1 / 3))


def test_triangles_of_faces() -> None:
    squares, triangles = known("NaCl"), known("fcc")
    sites, shifts, face = geometry.face_triangles(squares)
    assert np.bincount(face).tolist() == [4] * squares.n_faces
    corners = geometry.positions(squares, sites, shifts)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # the order around the face is kept: every triangle has the face's own normal
    own = geometry.face_normals(squares)[face]
    np.testing.assert_allclose(normal / np.linalg.norm(normal, axis=1)[:, None], own, atol=1e-9)
    assert len(geometry.face_triangles(triangles)[2]) == triangles.n_faces


@pytest.mark.parametrize(
    ("name", "numbers", "operations", "expected"),
    [
        # multiplicities of the orbits of atoms, edges, faces, cells
        ("simple cubic", [84], 48, ([1], [3], [3], [1])),
        ("NaCl", [11] * 4 + [17] * 4, 192, ([4, 4], [24], [24], [8])),
        ("fcc", [29] * 4, 192, ([4], [24], [32], [4, 8])),
        ("CsCl", [55, 17], 48, ([1, 1], [3, 3, 8], [12, 12], [12])),
        ("diamond", [6] * 8, 192, ([8], [16, 48], [32, 48], [8, 16])),
        ("hcp", [12, 12], 24, ([2], [6, 6], [2, 2, 12], [2, 4])),
    ],
)
def test_orbits_of_known_crystals(
    name: str, numbers: list[int], operations: int, expected: tuple[list[int], ...]
) -> None:
    found = geometry.orbits(known(name), np.array(numbers))
    assert (found.operations, found.broken) == (operations, 0)
    parts = (found.atoms, found.edges, found.faces, found.cells)
    assert tuple(sorted(part.multiplicity.tolist()) for part in parts) == expected


def test_parts_of_an_orbit_measure_the_same_and_weights_count_all() -> None:
    found = known("perovskite")
    orbits = geometry.orbits(found, np.array([38, 22, 8, 8, 8]))
    for orbit, values in (
        (orbits.edges, geometry.edge_lengths(found)),
        (orbits.edges, geometry.dual_areas(found)),
        (orbits.faces, geometry.face_areas(found)),
        (orbits.cells, found.cell_volumes),
    ):
        chosen = values[orbit.representative]
        np.testing.assert_allclose(values, chosen[orbit.label], rtol=1e-9)
        np.testing.assert_allclose((chosen * orbit.multiplicity).sum(), values.sum(), rtol=1e-9)


def test_without_symmetry_every_part_is_its_own_orbit() -> None:
    found = tessellate(*random_crystal(3, 5))
    orbits = geometry.orbits(found, np.arange(1, 6))
    assert orbits.operations == 1
    for orbit in (orbits.atoms, orbits.edges, orbits.faces, orbits.cells):
        assert (orbit.multiplicity == 1).all()
        assert (orbit.label == np.arange(len(orbit.label))).all()


def test_an_operation_that_breaks_the_complex_is_counted_and_left_out() -> None:
    # Within symprec 0.1 a rock salt, but with sites far enough off that its cubes are cut.
    lattice, frac, _, _ = KNOWN["NaCl: eight cubes"]
    step = np.random.default_rng(0).normal(scale=0.003, size=(8, 3))
    found = tessellate(np.array(lattice), np.array(frac) + step)
    orbits = geometry.orbits(found, np.array([11] * 4 + [17] * 4), symprec=0.1)
    assert orbits.broken > 100
    assert orbits.operations >= 1
    assert orbits.cells.multiplicity.sum() == found.n_cells
