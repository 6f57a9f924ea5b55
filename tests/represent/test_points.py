"""Point clouds: how many points, what they do not depend on, and what they do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent.points import MOST, Points
from tests.represent.prototypes import FCC, RUTILE

PRIMITIVE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2


def crystal(lattice: Any, numbers: list[int], frac: Any) -> Crystal:
    return Crystal("x", "X", np.asarray(lattice, float), np.array(numbers), np.array(frac, float))


def points(cell: str, copies: int = 1) -> Points:
    return Points({"cell": cell, "copies": copies, "symprec": 0.01})


CU = crystal(PRIMITIVE * 3.61, [29], [[0, 0, 0]])
NACL = crystal(PRIMITIVE * 5.64, [11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])
ROCK_SALT = crystal(np.eye(3) * 5.64, [11] * 4 + [17] * 4, [*FCC, *(np.array(FCC) + 0.5)])
TIO2 = crystal(np.diag([4.594, 4.594, 2.959]), [22] * 2 + [8] * 4, RUTILE)
COUNTS = {  # in the cell as it is given, in the primitive and in the conventional one
    "Cu": (CU, 1, 1, 4),
    "NaCl": (NACL, 2, 2, 8),
    "NaCl, cube": (ROCK_SALT, 8, 2, 8),
    "rutile": (TIO2, 6, 6, 6),
}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_points(name: str) -> None:
    one, *expected = COUNTS[name]
    found = [len(points(c).build(one)["frac"]) for c in ("input", "primitive", "conventional")]
    assert found == expected
    for copies in (2, 3):
        maker = points("primitive", copies)
        batch = maker.collate([maker.build(one)])
        assert batch["pointer"].tolist() == [0, copies**3 * expected[1]]
        assert len(batch["numbers"]) == len(batch["position"]) == batch["pointer"][-1]


def test_arrays_are_of_one_cell_and_copies_are_made_when_joined() -> None:
    maker = points("input", 2)
    built = maker.build(NACL)
    assert {k: (v.dtype.name, v.shape) for k, v in built.items()} == {
        "lattice": ("float64", (3, 3)),
        "numbers": ("uint8", (2,)),
        "frac": ("float64", (2, 3)),
    }
    batch = maker.collate([built, maker.build(TIO2)])
    assert batch["pointer"].tolist() == [0, 16, 64]
    assert batch["numbers"].tolist() == np.repeat([11, 17, *TIO2.numbers], 8).tolist()
    for part, one in zip(batch["position"].split([16, 48]), (NACL, TIO2), strict=True):
        expected = np.array(
            [
                (place + [i, j, k]) @ one.lattice
                for place in one.frac
                for i in range(2)
                for j in range(2)
                for k in range(2)
            ]
        )
        np.testing.assert_allclose(part, expected - expected.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(part.mean(dim=0), 0, atol=1e-5)


def test_one_atom_is_one_point_at_the_origin() -> None:
    maker = points("primitive")
    batch = maker.collate([maker.build(CU)])
    assert batch["position"].tolist() == [[0, 0, 0]]


def cloud(maker: Points, one: Crystal) -> NDArray[np.float64]:
    """Rows of atomic number and position, sorted."""
    batch = maker.collate([maker.build(one)])
    rows = np.concatenate([batch["numbers"][:, None], batch["position"]], axis=1).astype(float)
    ordered: NDArray[np.float64] = rows[np.lexsort(rows.round(3).T)]
    return ordered


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), copies=st.integers(1, 3))
def test_origin_and_order_of_the_cell_as_given_do_not_matter(seed: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    one = crystal(
        np.eye(3) * 4 + rng.normal(scale=0.4, size=(3, 3)), [8, 22, 38], rng.random((3, 3))
    )
    order = rng.permutation(3)
    other = crystal(one.lattice, one.numbers[order].tolist(), one.frac[order] + rng.normal(size=3))
    maker = points("input", copies)
    np.testing.assert_allclose(cloud(maker, other), cloud(maker, one), atol=1e-4)


def same_but_for_the_origin(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    """Whether some shift moves the periodic crystal of one cell onto that of the other."""
    for start in b["frac"][b["numbers"] == a["numbers"][0]]:
        gap = (a["frac"] - a["frac"][0])[:, None] - (b["frac"] - start)[None]
        gap -= gap.round()
        alike = np.linalg.norm(gap, axis=2) < 1e-3
        alike &= a["numbers"][:, None] == b["numbers"]
        if (alike.sum(axis=0) == 1).all() and (alike.sum(axis=1) == 1).all():
            return True
    return False


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(sorted(COUNTS)),
    cell=st.sampled_from(["primitive", "conventional"]),
)
def test_standard_cells_are_the_same_from_any_cell_but_for_the_origin(
    seed: int, name: str, cell: str
) -> None:
    rng = np.random.default_rng(seed)
    one = COUNTS[name][0]
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    times = rng.permutation([1, 1, 2])
    shifts = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), -1).reshape(-1, 3)
    frac = ((one.frac + rng.random(3))[None] + shifts[:, None]).reshape(-1, 3) / times
    order = rng.permutation(len(frac))
    other = crystal(
        times[:, None] * one.lattice @ turn, np.tile(one.numbers, 2)[order].tolist(), frac[order]
    )
    first, second = points(cell).build(one), points(cell).build(other)
    np.testing.assert_allclose(first["lattice"], second["lattice"], atol=1e-4)
    assert sorted(first["numbers"]) == sorted(second["numbers"])
    assert same_but_for_the_origin(first, second)
    for found in (first, second):
        assert (found["frac"] > -1e-5).all()
        assert (found["frac"] < 1).all()


def test_the_origin_of_a_standard_cell_is_not_fixed() -> None:
    """What the module says: either kind of atom may be the one at the corner."""
    maker = points("primitive")
    swapped = crystal(NACL.lattice, [17, 11], NACL.frac)
    corners = [maker.build(c)["numbers"][0] for c in (NACL, swapped)]
    assert corners == [11, 17]


def test_what_cannot_be_made_is_refused_in_one_line() -> None:
    clash = crystal(np.eye(3) * 4, [11, 11], [[0, 0, 0], [0, 0, 1e-4]])
    for cell in ("primitive", "conventional"):
        with pytest.raises(CrystalmeshError, match=f"^x: spglib finds no {cell} cell$"):
            points(cell).build(clash)
    with pytest.raises(CrystalmeshError, match=f"^x: 10648 points are more than {MOST}; take"):
        points("primitive", 22).build(CU)
    assert len(points("primitive", 21).build(CU)["numbers"]) == 1
