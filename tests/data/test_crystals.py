"""What validation accepts, in which order, and the reason it gives for the rest."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spglib
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.data import closest, registry, validation
from crystalmesh.data.closest import nearest
from crystalmesh.data.crystals import Crystals, natural, reduced_formula
from crystalmesh.data.sources import mpjson
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, sha256, write_json
from tests.data.conftest import TARGETS, dataframe, documents, many, packed, row, structure

Declare = Callable[..., Project]
NAN, INF = math.nan, math.inf


def built(project: Project, jobs: int = 1) -> tuple[Crystals, list[dict[str, str]]]:
    registry.fetch(project, "tiny", 1)
    validation.build(project, "tiny", jobs)
    folder = project.crystals("tiny")
    return Crystals.load(folder), read_csv(folder / "rejected.csv")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


def test_frozen_numbers_of_a_tiny_dataset(declare: Declare, capsys: Any) -> None:
    fcc = ((0, 2.0, 2.0), (2.0, 0, 2.0), (2.0, 2.0, 0))
    rows = [
        row("mp-10", structure(["Cu"], [(0, 0, 0)], fcc), e_form=0.0, gap=None, k=140.0),
        row("mp-2", structure(["Fe2+", "O2-"]), k=-3.0),
        row("mp-1", structure(["Cl", "Na"]), e_form=None),
        row("mp-7", None),
    ]
    found, rejected = built(declare(packed(dataframe(rows))))
    assert found.ids == ["mp-1", "mp-2", "mp-10"]
    assert found.formulas == ["NaCl", "FeO", "Cu"]
    assert (found.dataset, found.entries, len(found)) == ("tiny", 4, 3)
    assert found.labels["space_group"].tolist() == [221, 221, 225]
    np.testing.assert_array_equal(found.labels["e_form"], [NAN, -1.0, 0.0])
    np.testing.assert_array_equal(found.labels["gap"], [2.0, 2.0, NAN])
    np.testing.assert_array_equal(found.labels["k_vrh"], [50.0, NAN, 140.0])
    np.testing.assert_array_equal(found.labels["g_vrh"], [20.0, 20.0, 20.0])
    np.testing.assert_array_equal(found.labels["mu_b"], [0.5, 0.5, 0.5])
    assert found.position("mp-10") == 2
    crystal = found[1]
    assert (crystal.id, crystal.formula, crystal.numbers.tolist()) == ("mp-2", "FeO", [26, 8])
    np.testing.assert_array_equal(crystal.frac, [[0, 0, 0], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(crystal.lattice, np.eye(3) * 3.5)
    assert [list(line.values()) for line in rejected] == [
        ["1", "mp-2", "log_k", "out of range", "-3.0 outside 0.001 to 10000.0"],
        ["3", "mp-7", "crystal", "no structure", "null"],
    ]
    said = capsys.readouterr().err.strip()
    assert said == (
        "crystals tiny: 4 entries, 3 accepted; rejected: crystal: no structure 1, "
        "log_k: out of range 1"
    )


CELL = np.eye(3) * 3.5
ONE = [(0, 0, 0)]


def site(**occupancies: float) -> list[dict[str, Any]]:
    return [{"element": name, "occu": value} for name, value in occupancies.items()]


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ({"lattice": 1, "sites": []}, "no structure", "TypeError"),
        (structure([], []), "no atoms", ""),
        (structure(["Na", "Xx"]), "unknown species", "site 1: Xx"),
        (structure(["Na", "X0+"]), "unknown species", "site 1: X0+"),
        (structure(["Na", "na"]), "unknown species", "site 1: na"),
        (structure(["Na", site(Cl=0.5)]), "partial occupancy", "site 1: Cl 0.5"),
        (structure(["Na", site(Cl=NAN)]), "partial occupancy", "site 1: Cl nan"),
        (structure([site(Cl=0.5, F=0.5), "K"]), "partial occupancy", "site 0: Cl 0.5, F 0.5"),
        (structure(["K", []]), "partial occupancy", "site 1: empty"),
        (structure(lattice=((NAN, 0, 0), *CELL[1:])), "non-finite lattice", "nan"),
        (structure(lattice=((INF, 0, 0), *CELL[1:])), "non-finite lattice", "inf"),
        (structure(lattice=CELL * 1e200), "non-finite lattice", "e+200"),
        (structure(lattice=CELL * [[0], [1], [1]]), "zero-volume lattice", "0.0"),
        (structure(lattice=((1, 2, 3), (4, 5, 6), (7, 8, 9))), "zero-volume lattice", "7.0"),
        (structure(frac=((0, 0, 0), (0, NAN, 0))), "non-finite coordinates", "site 1"),
        (structure(frac=((0, 0, 0), (0, 0, 0))), "atoms too close", "sites 0 and 1: 0.0000"),
        (structure(frac=((0, 0, 0.05), (0, 3, 0.95))), "atoms too close", "0 and 1: 0.3500"),
        (structure(["K"], ONE, CELL * [[1], [1], [0.1]]), "atoms too close", "0 and 0: 0.3500"),
        (structure(["K"], ONE, np.eye(3) * 1e-3), "atoms too close", "sites 0 and 0"),
    ],
)
def test_an_entry_is_rejected_with_its_reason(
    declare: Declare, bad: Any, reason: str, detail: str
) -> None:
    rows = [row("mp-1", structure()), row("mp-9", bad)]
    found, rejected = built(declare(packed(dataframe(rows))))
    assert (found.ids, found.formulas, found.entries) == (["mp-1"], ["NaCl"], 2)
    (line,) = rejected
    assert (line["position"], line["id"]) == ("1", "mp-9")
    assert (line["scope"], line["reason"]) == ("crystal", reason)
    assert detail in line["detail"]


def test_an_id_is_needed_and_used_once(declare: Declare) -> None:
    rows = [row("mp-1", structure()), row(None, structure()), row("mp-1", structure(["K", "Br"]))]
    found, rejected = built(declare(packed(dataframe(rows))))
    assert (found.ids, found.formulas) == (["mp-1"], ["NaCl"])
    assert [list(line.values()) for line in rejected] == [
        ["1", "", "crystal", "no id", ""],
        ["2", "mp-1", "crystal", "duplicate id", "first at position 0"],
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (NAN, "not finite"),
        (-INF, "not finite"),
        ("high", "not a number"),
        (True, "not a number"),
        ([1.0], "not a number"),
        (-10.5, "out of range"),
        (11, "out of range"),
    ],
)
def test_a_bad_label_is_rejected_and_its_crystal_kept(
    declare: Declare, value: Any, reason: str
) -> None:
    rows = [row("mp-1", structure(), e_form=value), row("mp-2", structure(), e_form=-10.0)]
    found, rejected = built(declare(packed(dataframe(rows))))
    assert found.ids == ["mp-1", "mp-2"]
    np.testing.assert_array_equal(found.labels["e_form"], [NAN, -10.0])
    np.testing.assert_array_equal(found.labels["k_vrh"], [50.0, 50.0])
    (line,) = rejected
    assert [line[key] for key in ("position", "id", "scope", "reason")] == [
        "0", "mp-1", "e_form", reason,
    ]  # fmt: skip


def test_a_logarithm_needs_a_positive_label_and_all_targets_of_a_label_must_agree(
    declare: Declare,
) -> None:
    wide = TARGETS["log_k"] | {"range": [-100.0, 100.0]}
    narrow = TARGETS["log_k"] | {"transform": "none", "range": [0.0, 60.0]}
    rows = [row(f"mp-{i}", structure(), k=k) for i, k in enumerate((0.0, -1.0, 55.0, 70.0))]
    project = declare(packed(dataframe(rows)), targets={"log_k": wide, "k": narrow})
    found, rejected = built(project)
    np.testing.assert_array_equal(found.labels["k_vrh"], [NAN, NAN, 55.0, NAN])
    assert [(line["id"], line["scope"]) for line in rejected] == [
        ("mp-0", "log_k"), ("mp-1", "k"), ("mp-1", "log_k"), ("mp-3", "k"),
    ]  # fmt: skip


def test_a_label_no_target_uses_must_still_be_finite(declare: Declare) -> None:
    bad = row("mp-1", structure())
    bad[4] = "NaN"
    found, rejected = built(declare(packed(dataframe([bad, row("mp-2", structure())]))))
    np.testing.assert_array_equal(found.labels["mu_b"], [NAN, 0.5])
    assert [(line["scope"], line["reason"]) for line in rejected] == [("mu_b", "not finite")]


def test_a_crystal_without_a_space_group_stays(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise spglib.SpglibError("no symmetry")

    monkeypatch.setattr(spglib, "get_symmetry_dataset", fail)
    found, rejected = built(declare(packed(dataframe([row("mp-1", structure())]))))
    np.testing.assert_array_equal(found.labels["space_group"], [NAN])
    assert [(line["scope"], line["reason"]) for line in rejected] == [
        ("space_group", "no space group")
    ]


def test_an_id_rejected_earlier_is_no_duplicate(declare: Declare) -> None:
    rows = [row("mp-1", structure([], [])), row("mp-1", structure()), row("mp-1", structure())]
    found, rejected = built(declare(packed(dataframe(rows))))
    assert found.ids == ["mp-1"]
    assert [line["reason"] for line in rejected] == ["no atoms", "duplicate id"]
    assert rejected[1]["detail"] == "first at position 1"


def test_isotopes_and_charges_are_elements(declare: Declare) -> None:
    species = ["D", "T", "Fe2.5+", "O-", "Cl0+"]
    frac = [(i / 5, 0, 0) for i in range(5)]
    raw = packed(dataframe([row("mp-1", structure(species, frac))]))
    found, _ = built(declare(raw))
    assert found[0].numbers.tolist() == [1, 1, 26, 8, 17]


def test_shape_order_and_processes_do_not_matter(declare: Declare) -> None:
    rows = many(150)
    declare(packed(dataframe(rows)))
    outcomes = [
        (packed(dataframe(rows)), 1),
        (packed(documents(rows)), 1),
        (packed(dataframe(rows[::-1])), 1),
        (packed(dataframe(rows)), 2),
    ]
    found = []
    for raw, jobs in outcomes:
        project = declare(raw)
        built(project, jobs)
        found.append(hashes(project.crystals("tiny")))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("rows", [[], [row("mp-1", None)]])
def test_without_a_valid_crystal_nothing_is_written(declare: Declare, rows: list[Any]) -> None:
    project = declare(packed(dataframe(rows)))
    with pytest.raises(CrystalmeshError):
        built(project)
    assert not project.crystals("tiny").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_breaks_off_leaves_nothing(declare: Declare, jobs: int) -> None:
    project = declare(packed(dataframe(many(100)))[:-30])
    with pytest.raises(CrystalmeshError, match="broken gzip"):
        built(project, jobs)
    assert not project.crystals("tiny").parent.exists()


def test_a_damaged_store_is_named(declare: Declare) -> None:
    project = declare(packed(dataframe(many(3))))
    found, _ = built(project)
    with pytest.raises(CrystalmeshError, match="no crystal 'mp-99'"):
        found.position("mp-99")
    folder = project.crystals("tiny")
    index = read_json(folder / "index.json")
    write_json(folder / "index.json", index | {"ids": ["mp-1"]})
    with pytest.raises(CrystalmeshError, match="damaged"):
        Crystals.load(folder)
    write_json(folder / "index.json", index)
    tensors = folder / "crystals.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # still a whole file to read
    with pytest.raises(CrystalmeshError, match="disagree"):
        Crystals.load(folder)
    write_json(folder / "index.json", {})
    with pytest.raises(CrystalmeshError, match="damaged"):
        Crystals.load(folder)
    (folder / "crystals.safetensors").unlink()
    with pytest.raises(CrystalmeshError, match="missing"):
        Crystals.load(folder)


def test_natural_order() -> None:
    names = ["mvc-1", "mp-10", "mp-2", "mp-02", "7", "mp-", "emt-B2-AuCu"]
    assert sorted(names, key=natural) == [
        "7",
        "emt-B2-AuCu",
        "mp-",
        "mp-02",
        "mp-2",
        "mp-10",
        "mvc-1",
    ]


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([3] * 6 + [26] * 4 + [15] * 6 + [8] * 24, "Li3Fe2(PO4)3"),
        ([8] * 4, "O2"),
        ([54, 18], "XeAr"),
        ([79, 29, 29, 29], "Cu3Au"),
    ],
)
def test_reduced_formula(numbers: list[int], formula: str) -> None:
    assert reduced_formula(np.array(numbers)) == formula


def brute(lattice: NDArray[Any], frac: NDArray[Any], reach: int) -> float:
    """The least distance between two different sites among so many images."""
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    gaps = frac[:, None, None] - frac[None, :, None] + shifts
    distances = np.linalg.norm(gaps @ lattice, axis=-1)
    home = int(np.flatnonzero((shifts == 0).all(axis=1))[0])
    distances[np.arange(len(frac)), np.arange(len(frac)), home] = np.inf
    return float(distances.min())


@settings(max_examples=100, deadline=None)
@given(
    edges=st.lists(st.floats(0.3, 4.0), min_size=3, max_size=3),
    shear=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    frac=st.lists(st.lists(st.floats(-2, 2), min_size=3, max_size=3), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.permutations(range(3)), st.integers(-30, 30)), max_size=4),
)
def test_distances_are_exact_in_skewed_cells(
    edges: list[float], shear: list[float], frac: list[list[float]], steps: Any
) -> None:
    """The same crystal in a cell with vectors replaced by long sums of them."""
    plain = np.diag(edges)
    plain[1, 0], plain[2, 0], plain[2, 1] = (s * edges[0] for s in shear)
    sites = np.array(frac) % 1.0
    change = np.eye(3)
    for (i, j, _), times in steps:
        change[i] += times * change[j]
    truth = brute(plain, sites, 3)
    assume(abs(truth - 0.5) > 1e-6)
    found = nearest(change @ plain, sites @ np.linalg.inv(change), 0.5)
    if truth > 0.5:
        assert found is None
    else:
        assert found is not None
        i, j, distance = found
        assert i <= j
        # A cell too small for any spacing is turned down by a bound, and not by the distance.
        assert distance == pytest.approx(truth, abs=1e-6) or truth <= distance < 0.5


def test_an_extreme_cell_is_quick() -> None:
    sheared = np.array([[1.0, 0, 0], [1e5, 1, 0], [1e5, 1e5, 1]])
    assert nearest(sheared, np.zeros((1, 3)), 0.5) is None
    assert nearest(np.eye(3) * 1e5, np.zeros((2, 3)), 0.5) == (0, 1, 0.0)


def test_large_cells_are_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    frac = np.random.default_rng(0).random((23, 3))
    lattice = np.array([[5.0, 0, 0], [1, 4, 0], [-1, 2, 6]])
    whole = nearest(lattice, frac, 2.0)
    assert whole is not None
    assert whole[2] == pytest.approx(brute(lattice, frac, 2))
    for pairs in (1, 50, 100):
        monkeypatch.setattr(closest, "PAIRS", pairs)
        assert nearest(lattice, frac, 2.0) == whole


def test_rules_cover_every_label(declare: Declare) -> None:
    rules = validation.Rules.of(declare(b"").params, "tiny", mpjson.LABELS)
    assert {scope.label for scope in rules.scopes} == {*mpjson.LABELS, "space_group"}
