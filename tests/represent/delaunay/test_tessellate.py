"""The periodic Delaunay complex: known crystals, Qhull, invariances, odd cells, errors."""

import itertools
from typing import Any

import numpy as np
import pytest
from ase.geometry.minkowski_reduction import minkowski_reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.delaunay.reduction import reduce_lattice
from crystalmesh.represent.geometry import positions
from crystalmesh.represent.mesh import Complex, tessellate
from tests.represent.prototypes import DIAMOND, FCC, PEROVSKITE, ROCK_SALT

HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])
HCP = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
WURTZITE = [[1 / 3, 2 / 3, z] for z in (0, 3 / 8)] + [[2 / 3, 1 / 3, z] for z in (1 / 2, 7 / 8)]
# Lattice, sites; vertices, edges, faces, cells; number of cells by their number of corners.
KNOWN: dict[str, Any] = {
    "simple cubic: one cube": (3.0 * np.eye(3), [[0, 0, 0]], (1, 3, 3, 1), {8: 1}),
    "NaCl: eight cubes": (5.64 * np.eye(3), ROCK_SALT, (8, 24, 24, 8), {8: 8}),
    "fcc: 8 tetrahedra, 4 octahedra": (3.6 * np.eye(3), FCC, (4, 24, 32, 12), {4: 8, 6: 4}),
    "CsCl: 12 tetrahedra": (
        4.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], (2, 14, 24, 12), {4: 12},
    ),
    "hcp: 4 tetrahedra, 2 octahedra": (3.2 * HEXAGONAL, HCP, (2, 12, 16, 6), {4: 4, 6: 2}),
    # Tetrahedral holes, and one cell around each of the 16 six-rings.
    "diamond: 8 tetrahedra, 16 rings": (3.57 * np.eye(3), DIAMOND, (8, 64, 80, 24), {4: 8, 6: 16}),
    # Octahedra of 2 A and 4 O on the 12 edges (a quarter each); bipyramids of A, 3 O and B.
    "perovskite: 3 octahedra, 8 bipyramids": (
        3.9 * np.eye(3), PEROVSKITE, (5, 30, 36, 11), {5: 8, 6: 3},
    ),
    # Two octahedra in the chair rings, six prisms at the boats, two larger prisms on the axis.
    "wurtzite (ideal): 2 octahedra, 8 prisms": (
        3.2 * HEXAGONAL, WURTZITE, (4, 22, 28, 10), {6: 10},
    ),
}  # fmt: skip


def counts(found: Complex) -> NDArray[np.int64]:
    return np.array([found.n_vertices, found.n_edges, found.n_faces, found.n_cells])


def corners(found: Complex) -> dict[int, int]:
    sizes, number = np.unique(np.diff(found.cell_pointer), return_counts=True)
    return dict(zip(sizes.tolist(), number.tolist(), strict=True))


def random_crystal(seed: int, sites: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * 2.6 * sites ** (1 / 3) + rng.normal(scale=0.5, size=(3, 3))
    return lattice, rng.random((sites, 3))


def special_crystal(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One of the known crystals: full of co-spherical atoms."""
    lattice, frac, _, _ = list(KNOWN.values())[seed % len(KNOWN)]
    return np.array(lattice, float), np.array(frac, float)


def some_crystal(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return special_crystal(seed // 2) if seed % 2 else random_crystal(seed, 1 + seed // 2 % 12)


def unimodular(rng: np.random.Generator, steps: int = 5) -> NDArray[np.int64]:
    change = np.eye(3, dtype=np.int64)
    for _ in range(steps):
        i, j = rng.permutation(3)[:2]
        step = np.eye(3, dtype=np.int64)
        step[i, j] = rng.integers(-2, 3)
        change = step @ change
    return change


def named(
    pointer: NDArray[Any], sites: NDArray[Any], shifts: NDArray[Any]
) -> set[tuple[tuple[int, ...], ...]]:
    """Parts by their corners, up to order and translation; all different."""
    parts = []
    for a, b in itertools.pairwise(pointer):
        rows = sorted((int(i), *map(int, s)) for i, s in zip(sites[a:b], shifts[a:b], strict=True))
        parts.append(tuple((i, *np.subtract(s, rows[0][1:]).tolist()) for i, *s in rows))
    assert len(set(parts)) == len(parts)
    return set(parts)


def named_cells(found: Complex) -> set[tuple[tuple[int, ...], ...]]:
    return named(found.cell_pointer, found.cell_sites, found.cell_shift)


def check(found: Complex) -> None:
    """All that makes a complex complete and consistent, computed here from its arrays."""
    n, e, f, c = counts(found)
    assert n - e + f - c == 0
    volume = abs(np.linalg.det(found.lattice))
    assert (found.cell_volumes > 0).all()
    assert abs(found.cell_volumes.sum() - volume) <= 1e-9 * volume
    # each face is once the outside of one cell and once that of another (or of its image)
    assert np.bincount(found.cell_faces, minlength=f).tolist() == [2] * f
    assert np.bincount(found.cell_faces, found.cell_faces_sign, f).tolist() == [0] * f
    cell = np.repeat(np.arange(c), np.diff(found.cell_face_pointer))
    side = np.where(found.cell_faces_sign > 0, 0, 1)
    assert (found.face_cells[found.cell_faces, side] == cell).all()
    assert (found.face_cells_shift[found.cell_faces, side] == -found.cell_faces_shift).all()
    # edges lie where their faces say
    after = np.arange(1, len(found.face_sites) + 1)
    after[found.face_pointer[1:] - 1] = found.face_pointer[:-1]
    ahead = found.face_edges_sign > 0
    start = np.where(ahead, np.arange(len(after)), after)
    end = np.where(ahead, after, np.arange(len(after)))
    edge = found.face_edges
    assert (found.edge_sites[edge, 0] == found.face_sites[start]).all()
    assert (found.edge_sites[edge, 1] == found.face_sites[end]).all()
    assert (found.face_edges_shift == found.face_shift[start]).all()
    assert (found.face_shift[end] - found.face_shift[start] == found.edge_shift[edge]).all()
    # every sphere is empty, and all corners lie on it
    cells = np.repeat(np.arange(c), np.diff(found.cell_pointer))
    gap = positions(found, found.cell_sites, found.cell_shift) - found.cell_centres[cells]
    off = np.linalg.norm(gap, axis=1) - found.cell_radii[cells]
    assert np.abs(off).max() < 3 * found.tolerance
    place = found.cell_centres @ np.linalg.inv(found.lattice)
    away = place[:, None] - found.frac_coords[None]
    away -= np.round(away)
    block = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 1, 1, 3)
    near = np.linalg.norm((away + block) @ found.lattice, axis=3).min(axis=(0, 2))
    assert (near > found.cell_radii - 3 * found.tolerance).all()


@pytest.mark.parametrize("name", KNOWN)
def test_known_complexes(name: str) -> None:
    lattice, frac, expected, sizes = KNOWN[name]
    found = tessellate(np.array(lattice), np.array(frac, float))
    assert tuple(counts(found).tolist()) == expected
    assert corners(found) == sizes
    assert found.tolerance == 1e-3
    check(found)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_complex_is_complete(seed: int) -> None:
    check(tessellate(*some_crystal(seed)))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), sites=st.integers(2, 8))
def test_generic_crystals_have_qhulls_tetrahedra(seed: int, sites: int) -> None:
    lattice, frac = random_crystal(seed, sites)
    found = tessellate(lattice, frac, tolerance=1e-6)
    block = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    site, shift = np.repeat(np.arange(sites), len(block)), np.tile(block, (sites, 1))
    simplices = Delaunay((frac[site] + shift) @ lattice).simplices
    own = {
        tuple(sorted((int(site[v]), *map(int, shift[v])) for v in simplex)) for simplex in simplices
    }
    for a, b in zip(found.cell_pointer[:-1], found.cell_pointer[1:], strict=True):
        middle = np.round(found.cell_shift[a:b].mean(axis=0)).astype(int)
        rows = zip(found.cell_sites[a:b], found.cell_shift[a:b] - middle, strict=True)
        assert tuple(sorted((int(i), *map(int, s)) for i, s in rows)) in own


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_same_complex_whatever_the_description(seed: int) -> None:
    """Rotation or reflection, origin, order of sites, unwrapped sites and cell, all at once."""
    lattice, frac = some_crystal(seed)
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # of either handedness
    change, order = unimodular(rng), rng.permutation(len(frac))
    back = np.round(np.linalg.inv(change)).astype(int)
    offset = rng.integers(-2, 3, frac.shape)
    one = tessellate(lattice, frac)
    moved = (frac + offset + rng.random(3)) @ back
    other = tessellate(change @ lattice @ turn, moved[order])
    check(other)
    # Vertex (site i, shift s) is there (rank of i, (s - offset of i) @ back).
    rank = np.argsort(order)
    for pointer, sites, shifts in (
        (one.cell_pointer, one.cell_sites, one.cell_shift),
        (one.face_pointer, one.face_sites, one.face_shift),
    ):
        translated = named(pointer, rank[sites], (shifts - offset[sites]) @ back)
        cells = pointer is one.cell_pointer
        expected = (
            named_cells(other)
            if cells
            else named(other.face_pointer, other.face_sites, other.face_shift)
        )
        assert translated == expected
    np.testing.assert_allclose(
        np.sort(one.cell_volumes), np.sort(other.cell_volumes), rtol=1e-8, atol=1e-8
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.tuples(*[st.integers(1, 3)] * 3))
def test_a_supercell_has_as_many_times_more(seed: int, n: tuple[int, int, int]) -> None:
    lattice, frac = some_crystal(seed)
    cells = np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), -1).reshape(-1, 3)
    large = ((frac[:, None] + cells) / n).reshape(-1, 3)
    one, other = tessellate(lattice, frac), tessellate(lattice * np.array(n)[:, None], large)
    assert (counts(other) == np.prod(n) * counts(one)).all()
    np.testing.assert_allclose(
        np.sort(other.cell_volumes), np.sort(np.repeat(one.cell_volumes, np.prod(n))), rtol=1e-8
    )


@pytest.mark.parametrize(
    "sites", [[[0, 0, 0]], [[0, 0, 0], [0.5, 0.5, 0.5]], [[0, 0, 0], [0.25] * 3]]
)
def test_primitive_and_conventional_cells_agree(sites: list[list[float]]) -> None:
    primitive = 2.0 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.0]])
    inside = np.array(sites) @ primitive / 4.0
    conventional = (inside[:, None] + np.array(FCC)).reshape(-1, 3)
    one = tessellate(primitive, np.array(sites, float))
    assert (counts(tessellate(4.0 * np.eye(3), conventional)) == 4 * counts(one)).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.tuples(*[st.sampled_from([1.5, 3.0, 9.0, 40.0])] * 3),
    sites=st.integers(1, 5),
)
def test_needles_and_plates(seed: int, lengths: tuple[float, ...], sites: int) -> None:
    """A 3x3x3 block is not enough for these."""
    rng = np.random.default_rng(seed)
    lattice = np.diag(lengths) @ (np.eye(3) + rng.normal(scale=0.1, size=(3, 3)))
    found = tessellate(lattice, rng.random((sites, 3)) + 0.5 * np.arange(sites)[:, None] / sites)
    assert counts(found) @ [1, -1, 1, -1] == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1e-8, 1e-6, 1e-5, 1e-4]))
def test_small_displacements_change_nothing_of_a_symmetric_crystal(seed: int, size: float) -> None:
    lattice, frac = special_crystal(seed)
    step = np.random.default_rng(seed).normal(size=frac.shape)
    step *= size / np.linalg.norm(step, axis=1, keepdims=True)
    moved = tessellate(lattice, frac + step @ np.linalg.inv(lattice))
    assert named_cells(moved) == named_cells(tessellate(lattice, frac))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([3e-4, 1e-3, 3e-3, 1e-2]))
def test_displacements_as_large_as_the_tolerance_give_some_consistent_complex(
    seed: int, size: float
) -> None:
    lattice, frac = special_crystal(seed)
    step = np.random.default_rng(seed).normal(scale=size, size=frac.shape)
    found = tessellate(lattice, frac + step @ np.linalg.inv(lattice))
    assert counts(found) @ [1, -1, 1, -1] == 0
    assert found.tolerance <= 1e-3


def test_large_displacements_cut_the_cubes() -> None:
    frac = np.array(ROCK_SALT) + np.random.default_rng(0).normal(scale=0.02, size=(8, 3))
    assert max(corners(tessellate(5.64 * np.eye(3), frac))) < 6


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_cell_is_reduced(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = rng.normal(size=(3, 3)) * rng.choice([0.1, 1, 10], 3)[:, None]
    basis, change = reduce_lattice(lattice)
    assert abs(round(np.linalg.det(change))) == 1
    np.testing.assert_allclose(basis, change @ lattice, atol=1e-9)
    reduced, _ = minkowski_reduce(lattice)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(basis, axis=1)), np.sort(np.linalg.norm(reduced, axis=1)), rtol=1e-9
    )


def test_order_of_the_arrays_is_fixed() -> None:
    """What is stored must not change with the version or the run."""
    found = tessellate(3.6 * np.eye(3), np.array(FCC, float))
    assert found.face_sites[:6].tolist() == [0, 1, 2, 0, 3, 1]
    assert found.cell_volumes[:3].tolist() == pytest.approx([1.944, 7.776, 7.776], rel=1e-12)


@pytest.mark.parametrize(
    ("lattice", "frac", "tolerance", "said"),
    [
        (np.eye(3), np.empty((0, 3)), 1e-3, "at least one site"),
        (np.eye(2), np.zeros((1, 3)), 1e-3, r"lattice \[3, 3\]"),
        (np.eye(3), np.full((1, 3), np.nan), 1e-3, "finite"),
        (np.diag([1.0, 1.0, 0.0]), np.zeros((1, 3)), 1e-3, "linearly dependent"),
        (np.eye(3), np.zeros((2, 3)), 1e-3, "two sites lie within"),
        (np.eye(3), np.array([[0, 0, 0], [0.999, 1.0, -1.0]]), 1e-3, "two sites lie within"),
        (np.eye(3), np.zeros((1, 3)), 0.0, "must lie between"),
        (np.eye(3), np.zeros((1, 3)), np.inf, "must lie between"),
        (3 * np.eye(3), np.array([[5e9, 0, 0]]), 1e-3, "wrap the coordinates"),
        (
            np.array([[3, 0, 0], [3e10, 3, 0], [0, 0, 3]]),
            np.zeros((1, 3)),
            1e-3,
            "dependent|reduce",
        ),
        (np.diag([0.5, 0.5, 3000.0]), np.zeros((1, 3)), 1e-3, "wider than"),
    ],
)
def test_bad_input_gets_one_clear_line(
    lattice: Any, frac: Any, tolerance: float, said: str
) -> None:
    with pytest.raises(CrystalmeshError, match=said) as error:
        tessellate(lattice, frac, tolerance)
    assert "\n" not in str(error.value)
