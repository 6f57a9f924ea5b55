"""The published mesh: counts of known crystals, the original procedure, the face features."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from scipy.spatial import Delaunay

from crystalmesh.data.crystals import Crystal
from crystalmesh.represent.mesh import Canonical, Published, collate
from tests.represent.prototypes import FCC, PEROVSKITE, ROCK_SALT, RUTILE

MESH = Published({"symprec": 0.01, "supercell": 5, "tolerance": 0.05})
CANONICAL = Canonical({"symprec": 0.01, "tolerance": 0.001})


def crystal(lattice: Any, numbers: list[int], frac: Any) -> Crystal:
    return Crystal("x", "X", np.asarray(lattice, float), np.array(numbers), np.array(frac, float))


PRIMITIVE = 5.64 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
KNOWN = {
    "CsCl": (crystal(np.eye(3) * 4.12, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]), 336, 59),
    "Cu": (crystal(np.eye(3) * 3.61, [29] * 4, FCC), 433, 69),
    "SrTiO3": (crystal(np.eye(3) * 3.905, [38, 22, 8, 8, 8], PEROVSKITE), 565, 88),
    "rutile": (crystal(np.diag([4.594, 4.594, 2.959]), [22] * 2 + [8] * 4, RUTILE), 470, 75),
    "NaCl primitive": (crystal(PRIMITIVE, [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]), 799, 106),
}


@pytest.mark.parametrize("name", KNOWN)
def test_counts_of_known_crystals(name: str) -> None:
    one, faces, vertices = KNOWN[name]
    mesh = MESH.build(one)
    assert (len(mesh["faces"]), len(mesh["vertex_site"])) == (faces, vertices)


def test_it_is_not_a_function_of_the_crystal() -> None:
    """Why a canonical mesh is needed: one crystal from two cells, two meshes."""
    conventional = crystal(np.eye(3) * 5.64, [11] * 4 + [17] * 4, ROCK_SALT)
    counts = {len(MESH.build(c)["faces"]) for c in (conventional, KNOWN["NaCl primitive"][0])}
    assert len(counts) == 2


def original(one: Crystal) -> int:
    """Number of faces by the original code's own steps, in pymatgen.

    Without pymatgen's angle tolerance of 5 degrees, with which spglib takes some triclinic cells
    for orthorhombic ones (it changes the refined cell of 4 in 600 crystals of mp_pbe).
    """
    structure = Structure(Lattice(one.lattice), one.numbers.tolist(), one.frac)
    analyzer = SpacegroupAnalyzer(structure, symprec=0.01, angle_tolerance=-1.0)
    refined = analyzer.get_refined_structure()
    points = (refined * (5, 5, 5)).cart_coords
    cell = refined.lattice
    frac = cell.get_fractional_coords(points)
    slack = 0.05 / np.array(cell.abc)
    inside: NDArray[np.bool_] = np.all((frac >= 2 - slack) & (frac <= 3 + slack), axis=1)
    simplices = Delaunay(points).simplices
    kept = np.sort(simplices[inside[simplices].any(axis=1)], axis=1)
    triples = kept[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3)
    return len(np.unique(triples, axis=0))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 4))
def test_it_is_the_original_procedure(seed: int, atoms: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * 4 + rng.normal(scale=0.5, size=(3, 3))
    numbers = rng.choice([8, 22, 38], size=atoms).tolist()
    one = crystal(lattice, numbers, rng.random((atoms, 3)))
    assert len(MESH.build(one)["faces"]) == original(one)


def positions(mesh: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    place: NDArray[np.float64] = mesh["frac"][mesh["vertex_site"]] + mesh["vertex_shift"]
    cartesian: NDArray[np.float64] = place @ mesh["lattice"]
    return cartesian


def test_vertices_are_all_used_and_faces_are_distinct() -> None:
    mesh = MESH.build(KNOWN["rutile"][0])
    faces = mesh["faces"]
    assert (np.diff(faces, axis=1) > 0).all()
    assert len(np.unique(faces, axis=0)) == len(faces)
    assert (np.unique(faces) == np.arange(len(mesh["vertex_site"]))).all()
    assert len(np.unique(positions(mesh).round(6), axis=0)) == len(mesh["vertex_site"])


def test_face_features() -> None:
    meshes = [MESH.build(KNOWN[name][0]) for name in ("CsCl", "rutile")]
    batch = {k: v.numpy() for k, v in collate(meshes).items()}
    assert batch["pointer"].tolist() == [0, 336, 336 + 470]
    for mesh, start, stop in zip(meshes, (0, 336), (336, 806), strict=True):
        corners = positions(mesh)[mesh["faces"]]  # [f, 3, 3]
        centre = corners.mean(axis=1)
        rows = {k: v[start:stop] for k, v in batch.items() if k != "pointer"}
        np.testing.assert_allclose(rows["centre"], centre - centre.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(rows["centre"].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(
            rows["corner"].reshape(-1, 3, 3) + centre[:, None], corners, atol=1e-5
        )
        sides = corners[:, [1, 2, 0]] - corners
        np.testing.assert_allclose(np.linalg.norm(rows["normal"], axis=1), 1, atol=1e-5)
        across = np.einsum("fi,fsi->fs", rows["normal"], sides)
        np.testing.assert_allclose(across, 0, atol=1e-4)
        turn = np.einsum("fi,fi->f", rows["normal"], np.cross(sides[:, 0], sides[:, 1]))
        assert (turn > 0).all()
        lengths = np.sort(np.linalg.norm(sides, axis=2), axis=1)
        np.testing.assert_allclose(rows["edges"], lengths, atol=1e-5)
        expected = mesh["numbers"][mesh["vertex_site"]][mesh["faces"]]
        assert (rows["numbers"] == expected).all()


def edges(mesh: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Edge lengths of all triangles, sorted: what does not depend on frame and order."""
    lengths = collate([mesh])["edges"].numpy()
    ordered: NDArray[np.float64] = lengths[np.lexsort(np.round(lengths, 3).T)]
    return ordered


@pytest.mark.parametrize(
    ("name", "triangles"),
    # 24 faces of tetrahedra; 32 of tetrahedra and octahedra; 36 triangles; 24 squares
    [("CsCl", 24), ("Cu", 32), ("SrTiO3", 36), ("NaCl primitive", 24 * 4)],
)
def test_canonical_counts(name: str, triangles: int) -> None:
    assert len(CANONICAL.build(KNOWN[name][0])["faces"]) == triangles


def test_canonical_mesh_of_both_cells_is_the_same() -> None:
    conventional = crystal(np.eye(3) * 5.64, [11] * 4 + [17] * 4, ROCK_SALT)
    one, other = (CANONICAL.build(c) for c in (conventional, KNOWN["NaCl primitive"][0]))
    np.testing.assert_allclose(edges(one), edges(other), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(KNOWN)))
def test_canonical_mesh_is_a_function_of_the_crystal(seed: int, name: str) -> None:
    one = KNOWN[name][0]
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(one.numbers))
    other = Crystal(
        "x", "X", one.lattice @ turn, one.numbers[order], (one.frac + rng.random(3))[order]
    )
    first, second = CANONICAL.build(one), CANONICAL.build(other)
    assert len(first["faces"]) == len(second["faces"])
    np.testing.assert_allclose(edges(first), edges(second), atol=1e-3)


def test_canonical_faces_have_their_centre_in_the_cell() -> None:
    mesh = CANONICAL.build(KNOWN["rutile"][0])
    place = mesh["frac"][mesh["vertex_site"]] + mesh["vertex_shift"]
    assert len(mesh["vertex_site"]) == len(np.unique(mesh["faces"]))
    sites = mesh["vertex_site"][mesh["faces"]]
    assert sites.max() < len(mesh["numbers"])
    centre = place[mesh["faces"]].mean(axis=1)
    # of triangles; those of a polygon lie around its centre, which is inside
    assert ((centre > -0.5) & (centre < 1.5)).all()
    batch = CANONICAL.collate([mesh, mesh])
    assert (batch["normal"][:, 2] > -1e-3).all()  # whichever cell is on which side
    assert batch["pointer"].tolist() == [0, len(sites), 2 * len(sites)]
