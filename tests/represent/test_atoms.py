"""The frozen atom features: published positions, completeness, errors."""

import sys

import numpy as np
import pytest

from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import atoms

# Positions of the ones in the published vectors (atom_init.json of txie-93/cgcnn).
PUBLISHED = {
    1: [1, 19, 30, 36, 46, 64, 73, 78, 86],
    8: [16, 20, 34, 37, 51, 64, 74, 79, 86],
    14: [14, 21, 29, 40, 49, 61, 74, 79, 85],
    22: [4, 22, 28, 40, 49, 61, 72, 80, 85],
    26: [8, 22, 29, 40, 53, 61, 72, 80, 83],
    58: [0, 24, 27, 42, 47, 60, 73, 81, 87],
    79: [11, 24, 31, 40, 56, 62, 75, 80, 84],
    94: [0, 25, 28, 42, 47, 60, 81],
}


def test_blocks_tile_the_features() -> None:
    starts = [place.start for place in atoms.BLOCKS.values()]
    stops = [place.stop for place in atoms.BLOCKS.values()]
    assert starts == [0, 19, 26, 36, 46, 58, 68, 78, 82]
    assert stops == [*starts[1:], atoms.FEATURES]
    assert atoms.FEATURES == 92


def test_table_is_zeros_and_ones_at_most_one_a_block() -> None:
    rows = atoms.table()
    assert rows.shape == (101, 92)
    assert rows.dtype == np.float32
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert not rows[0].any()
    for name, place in atoms.BLOCKS.items():
        filled = rows[1:, place].sum(axis=1)
        assert filled.max() == 1, name
        if name not in ("electronegativity", "electron_affinity", "atomic_volume"):
            assert filled.min() == 1, name


@pytest.mark.parametrize("number", PUBLISHED)
def test_published_positions(number: int) -> None:
    assert np.flatnonzero(atoms.table()[number]).tolist() == PUBLISHED[number]


def test_all_elements_equal_the_published_vectors() -> None:
    # The digest is that of the published file, taken when the table was built.
    found = atoms.summary()
    assert found["reference"]["same_now"]
    assert found["reference"]["elements_equal"] == 100
    changed = atoms.table()[1:]
    changed[45, 57] = 0.0
    assert atoms.digest(changed) != found["reference"]["sha256"]


def test_frozen_positions_follow_from_frozen_properties() -> None:
    elements = atoms.frozen()["elements"]
    assert [row["number"] for row in elements] == list(range(1, 101))
    for row in elements:
        assert atoms.ones(row) == row["ones"], row["symbol"]


def test_continuous_bins_are_numpy_digitize_with_the_upper_edge_included() -> None:
    for row in atoms.frozen()["elements"]:
        for name, (low, high) in atoms.RANGES.items():
            value = row[name]
            if value is None:
                assert atoms.bin_of(name, value) is None
                continue
            value = np.log(value) if name in atoms.LOGARITHMIC else value
            step = (low + (high - low) / 10) - low
            inner = low + np.arange(1, 10) * step  # as numpy.arange(low, high, width) has them
            expected = int(np.digitize(value, inner, right=True))
            assert atoms.bin_of(name, row[name]) == (expected if low <= value <= high else None)


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("electronegativity", 0.5, 0),
        ("electronegativity", 4.0, 9),
        ("electronegativity", 4.01, None),
        ("electronegativity", 1.9, 3),  # on an edge: Si, Cu, Re, Hg, Bi
        ("electron_affinity", 0.35, 5),  # on an edge: Ac
        ("electron_affinity", -19.7, None),  # He: unbound, below the range
        ("electron_affinity", 3.7, 9),
        ("covalent_radius", 25.0, 0),
        ("valence_electrons", 1, 0),
        ("valence_electrons", 12, 11),
        ("valence_electrons", 13, None),
        ("group", 0, 0),
        ("group", 18, 18),
        ("period", 7, 6),
        ("block", "f", 3),
        ("atomic_volume", None, None),
    ],
)
def test_bin_of(name: str, value: float | str | None, place: int | None) -> None:
    assert atoms.bin_of(name, value) == place


def test_summary_counts() -> None:
    found = atoms.summary()
    rows = atoms.table()[1:]
    empty = sum(9 - int(row.sum()) for row in rows)
    assert sum(len(symbols) for symbols in found["missing"].values()) == empty
    assert found["complete"] == 69
    assert {name: len(symbols) for name, symbols in found["missing"].items() if symbols} == {
        "electronegativity": 15,
        "electron_affinity": 26,
        "atomic_volume": 9,
    }
    assert "Pu" in found["missing"]["electron_affinity"]
    assert "Pu" in found["missing"]["atomic_volume"]
    second = found["second_source"]
    assert second["elements_confirmed"] == 47
    for counts in second["blocks"].values():
        others = counts["different"] + counts["only_here"] + counts["only_there"]
        assert counts["same"] + len(others) == 100


def test_report_prints_the_counts() -> None:
    text = atoms._report()
    assert "100 of 100 elements equal in all blocks; digest of the table equal" in text
    assert "electron_affinity: 26 (He Ne" in text


def test_vectors_are_rows_of_the_table_and_new_each_time() -> None:
    numbers = np.array([26, 8, 8])
    found = atoms.vectors(numbers)
    assert found.shape == (3, 92)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, atoms.table()[numbers])
    found[:] = 7.0
    assert atoms.vectors(numbers).max() == 1.0
    changed = atoms.table()
    changed[:] = 7.0
    assert atoms.table().max() == 1.0
    assert atoms.vectors(np.zeros(0, dtype=np.int64)).shape == (0, 92)
    small = np.array([26], dtype=np.uint8)
    np.testing.assert_array_equal(atoms.vectors(small)[0], atoms.table()[26])


@pytest.mark.parametrize(
    ("number", "named"), [(101, r"101 \(Md\)"), (118, r"118 \(Og\)"), (0, "0"), (-1, "-1")]
)
def test_elements_outside_the_table_are_named(number: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: .*elements 1-100") as error:
        atoms.vectors(np.array([1, number]))
    assert isinstance(error.value, CrystalmeshError)
    assert "\n" not in str(error.value)


def test_numbers_must_be_integers() -> None:
    with pytest.raises(atoms.UnknownElementError, match="integers, not float64"):
        atoms.vectors(np.array([1.0]))


def test_reading_needs_no_property_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("mendeleev", "pymatgen"):
        monkeypatch.setitem(sys.modules, library, None)
    atoms._table.cache_clear()
    assert atoms.table().any()
