"""The graphs: pymatgen's neighbours, filling up, what is merged, invariances."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.graph import EQUAL, SHELL, Cgcnn, Radius, _nearest, pairs

GRAPH = Cgcnn({"neighbours": 12, "cutoff": 8.0})


def random_crystal(seed: int, atoms: int, edge: float = 4.0) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) * edge + rng.normal(scale=0.4, size=(3, 3))
    return Crystal("x", "X", lattice, rng.integers(1, 90, atoms), rng.random((atoms, 3)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6))
def test_distances_are_those_of_pymatgens_nearest_neighbours(seed: int, atoms: int) -> None:
    one = random_crystal(seed, atoms)
    distance = GRAPH.collate([GRAPH.build(one)])["distance"].numpy()
    structure = Structure(Lattice(one.lattice), one.numbers.tolist(), one.frac)
    for row, neighbours in zip(distance, structure.get_all_neighbors(8.0), strict=True):
        expected = sorted(n.nn_distance for n in neighbours)[:12]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-4)


def test_neighbours_are_where_the_shifts_say() -> None:
    one = random_crystal(3, 5)
    graph = GRAPH.build(one)
    step = one.frac[graph["neighbour"]] + graph["shift"] - one.frac[:, None]
    expected = np.linalg.norm(step @ one.lattice, axis=2)
    batch = GRAPH.collate([graph])
    np.testing.assert_allclose(batch["distance"].numpy(), expected, atol=1e-5)
    assert (np.diff(expected, axis=1) > -1e-3).all()


def test_a_tie_in_the_last_shell_goes_to_the_lighter_element() -> None:
    # Simple cubic host of 6 + 8 neighbours in two shells: places 7 to 12 straddle the second.
    lattice = np.eye(3) * 3.0
    one = Crystal("x", "X", lattice * 2, np.array([3] * 4 + [87] * 4), _corners())
    graph = GRAPH.build(one)
    numbers = one.numbers[graph["neighbour"]]
    distance = GRAPH.collate([graph])["distance"].numpy()
    for row, z in zip(distance, numbers, strict=True):
        last = np.isclose(row, row[-1], atol=1e-3)
        assert (np.diff(z[last]) >= 0).all()


def by_the_rule(one: Crystal, places: int = 12, cutoff: float = 8.0) -> list[list[tuple[int, ...]]]:
    """pymatgen's neighbours in the order that `Cgcnn` states: site and shift of each."""
    structure = Structure(Lattice(one.lattice), one.numbers.tolist(), one.frac)
    rows = []
    for found in structure.get_all_neighbors(cutoff):
        found = sorted(found, key=lambda n: n.nn_distance)
        shells, before = [0], found[0].nn_distance
        for neighbour in found[1:]:
            shells.append(shells[-1] + (neighbour.nn_distance - before > SHELL))
            before = neighbour.nn_distance
        keys = [
            (shell, int(one.numbers[n.index]), n.index, *map(int, n.image))
            for shell, n in zip(shells, found, strict=True)
        ]
        rows.append([key[2:] for key in sorted(keys)[:places]])
    return rows


PROTOTYPES: dict[str, tuple[float, list[int], list[list[float]]]] = {
    "fcc: 12 in the first shell": (
        3.6, [29] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    ),
    "bcc: 8 and 6 neighbours": (2.9, [26] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "CsCl: 8 and 6 neighbours": (4.1, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "perovskite": (
        3.9, [38, 22, 8, 8, 8],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ),
}  # fmt: skip
ANY: dict[str, Any] = {
    "name": st.sampled_from(sorted(PROTOTYPES)),
    "seed": st.integers(0, 10_000),
    "scale": st.floats(0.8, 1.6),
}


@settings(max_examples=25, deadline=None)
@given(noise=st.sampled_from([0.0, 1e-9, 1e-6]), **ANY)
def test_the_twelve_are_pymatgens_ties_included(
    name: str, seed: int, scale: float, noise: float
) -> None:
    """Wherever the distances fall: no shell is cut by rounding, whatever the scale."""
    edge, numbers, frac = PROTOTYPES[name]
    rng = np.random.default_rng(seed)
    moved = np.array(frac) + rng.normal(scale=noise / edge, size=(len(frac), 3))
    one = Crystal("x", "X", np.eye(3) * edge * scale, np.array(numbers), moved)
    graph = GRAPH.build(one)
    rows = [
        [(int(j), *map(int, s)) for j, s in zip(*row, strict=True)]
        for row in zip(graph["neighbour"], graph["shift"], strict=True)
    ]
    assert rows == by_the_rule(one)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6), edge=st.floats(2.5, 6.0))
def test_a_near_cutoff_finds_what_a_far_one_does(seed: int, atoms: int, edge: float) -> None:
    one = random_crystal(seed, atoms, edge)
    graph = GRAPH.build(one)
    far = _nearest(one, 12, 8.0, all_there_are=True)
    assert far is not None
    for site in range(atoms):
        mine = far[0] == site
        kept = graph["neighbour"][site] >= 0
        assert graph["neighbour"][site][kept].tolist() == far[1][mine][:12].tolist()
        np.testing.assert_array_equal(graph["shift"][site][kept], far[2][mine][:12])


def _corners() -> np.ndarray:
    grid = np.stack(np.meshgrid([0, 0.5], [0, 0.5], [0, 0.5], indexing="ij"), -1)
    return grid.reshape(-1, 3)


def test_lonely_atoms_are_filled_up_with_themselves() -> None:
    one = Crystal("x", "X", np.eye(3) * 9.0, np.array([2, 10]), np.array([[0, 0, 0], [0, 0, 0.2]]))
    batch = GRAPH.collate([GRAPH.build(one), GRAPH.build(one)])
    assert batch["neighbour"][:, 0].tolist() == [1, 0, 3, 2]
    filled = batch["distance"] > 8.0
    assert filled.any()
    own = np.arange(4)[:, None].repeat(12, axis=1)
    assert (batch["neighbour"].numpy()[filled.numpy()] == own[filled.numpy()]).all()
    assert set(batch["distance"][filled].tolist()) == {9.0}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_sites_does_not_matter_where_no_shell_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = random_crystal(seed, 3)
    order = rng.permutation(3)
    other = Crystal("x", "X", one.lattice, one.numbers[order], one.frac[order])
    a, b = (GRAPH.collate([GRAPH.build(c)])["distance"].numpy() for c in (one, other))
    np.testing.assert_allclose(a[order], b, atol=1e-4)


FCC = 3.6 * np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def shells(graph: dict[str, Any]) -> list[tuple[int, int, float, int]]:
    """(number of the atom, of the neighbour, distance, how many), of each edge."""
    return [
        (int(graph["numbers"][i]), int(graph["numbers"][j]), round(float(d), 4), int(count))
        for i, j, d, count in zip(
            graph["target"], graph["source"], graph["distance"][graph["group"]], graph["count"],
            strict=True,
        )
    ]  # fmt: skip


def test_shells_of_fcc() -> None:
    """12, 6, 24, 12 and 24 neighbours; the fifth shell is exactly at the cutoff."""
    one = Crystal("x", "Cu", FCC, np.array([29]), np.zeros((1, 3)))
    cutoff = 3.6 * 2.5**0.5
    graph = Radius({"cutoff": cutoff}).build(one)
    expected = [
        (29, 29, round(3.6 * (k / 2) ** 0.5, 4), c) for k, c in enumerate((12, 6, 24, 12, 24), 1)
    ]
    assert shells(graph) == expected
    assert graph["sites"].tolist() == [1]
    assert len(shells(Radius({"cutoff": cutoff - 1e-3}).build(one))) == 4


@pytest.mark.parametrize("primitive", [True, False])
def test_shells_of_rock_salt(primitive: bool) -> None:
    """6 of the other, 12 of the same, 8 of the other kind; four equal sites are one node."""
    base = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
    )
    structure = base.get_primitive_structure() if primitive else base
    one = Crystal(
        "x",
        "NaCl",
        structure.lattice.matrix,
        np.array(structure.atomic_numbers),
        structure.frac_coords,
    )
    graph = Radius({"cutoff": 5.0}).build(one)
    a, b, c = round(2.82, 4), round(2.82 * 2**0.5, 4), round(2.82 * 3**0.5, 4)
    assert sorted(shells(graph)) == sorted(
        [(x, x, b, 12) for x in (11, 17)]
        + [(x, 28 - x, d, n) for x in (11, 17) for d, n in ((a, 6), (c, 8))]
    )
    assert graph["sites"].tolist() == [1 if primitive else 4] * 2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 6), cutoff=st.floats(1.0, 7.0))
def test_pairs_are_those_of_ase(seed: int, atoms: int, cutoff: float) -> None:
    one = random_crystal(seed, atoms)
    source, target, group, distance = pairs(one, cutoff)
    image = Atoms(numbers=one.numbers, cell=one.lattice, scaled_positions=one.frac, pbc=True)
    i, j, d = neighbor_list("ijd", image, cutoff + 2 * EQUAL)  # type: ignore[no-untyped-call]
    assume((np.abs(d - cutoff) > EQUAL).all())  # a shell at the cutoff is ours and not theirs
    i, j, d = i[d < cutoff], j[d < cutoff], d[d < cutoff]
    assert Counter(zip(i.tolist(), j.tolist(), strict=True)) == Counter(
        zip(target.tolist(), source.tolist(), strict=True)
    )
    np.testing.assert_allclose(np.sort(d), np.sort(distance[group]), atol=2e-5)
    assert (np.diff(distance) > 1e-5).all()


@settings(max_examples=20, deadline=None)
@given(noise=st.sampled_from([0.0, 1e-9, 1e-7]), cutoff=st.floats(3.0, 6.0), **ANY)
def test_pairs_ties_and_all_are_pymatgens(
    name: str, seed: int, scale: float, noise: float, cutoff: float
) -> None:
    """No shell is cut by rounding: the same neighbours as of the ideal crystal."""
    edge, numbers, frac = PROTOTYPES[name]
    lattice = np.eye(3) * edge * scale
    rng = np.random.default_rng(seed)
    moved = np.array(frac) + rng.normal(scale=noise / edge, size=(len(frac), 3))
    one = Crystal("x", "X", lattice, np.array(numbers), moved)
    ideal = Structure(Lattice(lattice), one.numbers.tolist(), frac)
    found = [n.nn_distance for ns in ideal.get_all_neighbors(cutoff + 5e-6) for n in ns]
    _, _, group, distance = pairs(one, cutoff)
    np.testing.assert_allclose(np.sort(distance[group]), np.sort(found), atol=1e-5)
    assert len(distance) == int((np.diff(np.sort(found), prepend=0) > 1e-5).sum())


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from([*sorted(PROTOTYPES), "random"]), seed=st.integers(0, 10_000))
def test_nothing_is_lost_where_equal_things_are_merged(name: str, seed: int) -> None:
    """Each site sees as many neighbours of each element at each distance as its node says."""
    one = random_crystal(seed, 4)
    if name != "random":
        edge, numbers, frac = PROTOTYPES[name]
        one = Crystal("x", "X", np.eye(3) * edge, np.array(numbers), np.array(frac))
    graph = Radius({"cutoff": 5.0}).build(one)
    source, target, group, distance = pairs(one, 5.0)
    assert graph["sites"].sum() == len(one.numbers)
    assert graph["sites"][graph["target"]] @ graph["count"] == len(source)
    np.testing.assert_array_equal(graph["distance"], distance.astype(np.float32))
    full = Counter(
        zip(one.numbers[target].tolist(), one.numbers[source].tolist(), group.tolist(), strict=True)
    )
    merged: Counter[tuple[int, int, int]] = Counter()
    kinds = graph["numbers"].astype(int)
    for i, j, g, count in zip(
        graph["target"], graph["source"], graph["group"], graph["count"], strict=True
    ):
        merged[kinds[i], kinds[j], int(g)] += int(graph["sites"][i]) * int(count)
    assert merged == full
    assert (np.diff(graph["target"]) >= 0).all()


def test_sites_alike_in_the_near_but_not_in_the_far_are_different_nodes() -> None:
    """A chain He Ne Ne Ne He: all Ne at equal distances, but not with equal neighbours."""
    frac = np.array([[0.0, 0, 0.1 * k] for k in range(5)])
    one = Crystal("x", "X", np.diag([20.0, 20, 20]), np.array([2, 10, 10, 10, 2]), frac)
    graph = Radius({"cutoff": 2.5}).build(one)
    assert graph["numbers"].tolist() == [2, 10, 10]
    assert graph["sites"].tolist() == [2, 2, 1]
    assert list(zip(graph["target"], graph["source"], graph["count"], strict=True)) == [
        (0, 1, 1), (1, 0, 1), (1, 2, 1), (2, 1, 2),
    ]  # fmt: skip


def test_atoms_out_of_reach_have_no_edges() -> None:
    far = Crystal("x", "X", np.eye(3) * 20.0, np.array([2, 10]), np.array([[0, 0, 0], [0, 0, 0.5]]))
    near = Crystal("x", "X", np.eye(3) * 4.0, np.array([3]), np.zeros((1, 3)))
    maker = Radius({"cutoff": 5.0})
    batch = maker.collate([maker.build(c) for c in (far, near, far)])
    assert batch["pointer"].tolist() == [0, 2, 3, 5]
    assert batch["numbers"].tolist() == [2, 10, 3, 2, 10]
    assert batch["source"].tolist() == batch["target"].tolist() == [2]
    assert batch["count"].tolist() == [6]
    np.testing.assert_allclose(batch["distance"], [4.0])
    empty = maker.collate([maker.build(far)])
    assert len(empty["source"]) == len(empty["distance"]) == 0


def test_the_radius_graph_refuses_what_it_does_not_hold() -> None:
    # A supercell of 32,768 equal sites.
    grid = np.stack(np.meshgrid(*[np.arange(32) / 32] * 3, indexing="ij"), -1).reshape(-1, 3)
    many = Crystal("x", "X", np.eye(3) * 96.0, np.full(len(grid), 3), grid)
    with pytest.raises(CrystalmeshError, match="32768 equal sites: more than int16 holds"):
        Radius({"cutoff": 3.1}).build(many)
