"""Systems without a cell, labels of atoms and spectra, further labels by id, tables."""

import gzip
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.data import registry, splits, validation
from crystalmesh.data.closest import nearest_free
from crystalmesh.data.crystals import Crystal, Crystals
from crystalmesh.data.entries import Entry
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_csv, read_json, read_tensors
from tests.data.conftest import TARGETS as USUAL
from tests.data.conftest import dataframe, many, packed, row, structure
from tests.data.test_sources import frames, npz, table

Declare = Callable[..., Project]
TARGETS = USUAL | {
    "energy": {"title": "energy", "label": "energy", "unit": "eV", "range": [-100, 100]},
    "forces": {
        "title": "force", "label": "forces", "unit": "eV/Angstrom", "range": [-999, 999], "size": 3,
        "level": "atom",
    },
    "dipole": {"title": "dipole", "label": "dipole", "unit": "D", "range": [-999, 999], "size": 3},
}  # fmt: skip


def made(
    declare: Declare, files: dict[str, tuple[bytes, dict[str, Any]]], **blocks: Any
) -> Project:
    """A project with these datasets: file and further settings of each; all fetched."""
    datasets = {
        name: {
            "title": name,
            "source": "made up",
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        | more
        for name, (content, more) in files.items()
    }
    project = declare(b"", datasets=datasets, targets=TARGETS, **blocks)
    for name, (content, _) in files.items():
        (registry.mirror(project) / name).write_bytes(content)
        registry.fetch(project, name, 1)
    return project


def built(project: Project, name: str, jobs: int = 1) -> tuple[Crystals, list[dict[str, str]]]:
    validation.build(project, name, jobs)
    folder = project.crystals(name)
    return Crystals.load(folder), read_csv(folder / "rejected.csv")


FRAMES = {
    "format": "extxyz",
    "labels": {"energy": "energy", "forces": "forces", "dipole": "dipole"},
    "columns": ["split"],
}


def test_crystals_and_molecules_in_one_store(declare: Declare) -> None:
    project = made(declare, {"mixed": (frames(12).encode(), FRAMES)})
    found, rejected = built(project, "mixed")
    assert rejected == []
    assert found.ids == [f"x-{k}" for k in range(12)]
    assert found.periodic.tolist() == [False, True] * 6
    molecule, crystal = found[2], found[1]
    assert molecule.cell is None
    np.testing.assert_array_equal(molecule.positions, [[0, 0, 0.125], [1.25, 0, 0]])
    np.testing.assert_allclose(crystal.positions, [[0, 0, 0.0625], [1.25, 0, 0]], atol=1e-15)
    assert crystal.lattice[0, 0] == 4
    for name in ("lattice", "frac"):
        with pytest.raises(CrystalmeshError, match="x-2: no cell"):
            getattr(molecule, name)
    assert molecule.columns == {"split": "train"}
    assert molecule.formula == "CO"
    assert found.labels["energy"].tolist() == [-k / 8 for k in range(12)]
    assert found.labels["dipole"].shape == (12, 3)
    assert found.atom_labels["forces"].shape == (24, 3)
    np.testing.assert_array_equal(found.atom_labels["forces"][5], [-0.5, 0, 2])
    groups = found.labels["space_group"]
    assert np.isnan(groups[::2]).all()
    assert np.isfinite(groups[1::2]).all()
    assert np.isnan(found.labels["gap"]).all()
    assert not found.known("gap").any()
    tensors = read_tensors(project.crystals("mixed") / "crystals.safetensors")
    assert "coordinates" in tensors
    assert "frac" not in tensors


def test_processes_and_order_do_not_matter(declare: Declare) -> None:
    text = frames(150)
    pieces = [f"2\nid={rest}" for rest in text.split("2\nid=")[1:]]
    seen = []
    for content, jobs in ((text, 1), (text, 2), ("".join(pieces[::-1]), 1)):
        project = made(declare, {"mixed": (content.encode(), FRAMES)})
        built(project, "mixed", jobs)
        seen.append({p.name: p.read_bytes() for p in project.crystals("mixed").iterdir()})
    assert seen[0] == seen[1] == seen[2]


def entry(**values: Any) -> Entry:
    base: dict[str, Any] = {
        "position": 0, "id": "m", "lattice": None, "species": ((("C", 1.0),), (("O", 1.0),)),
        "coordinates": np.array([[0, 0, 0], [1.2, 0, 0]]), "labels": {},
    }  # fmt: skip
    return Entry(**(base | values))


RULES = validation.Rules(
    0.5,
    0.01,
    (
        validation.Scope("force", "forces", -20, 20, False, 3),
        validation.Scope("charge", "charges", -5, 5, False),
        validation.Scope("dos", "dos", 0, 10, True, 4),
        validation.Scope("energy", "energy", -9, 9, False),
    ),
)
FORCES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("values", "reason", "detail"),
    [
        ({"species": (), "coordinates": np.empty((0, 3))}, "no atoms", ""),
        ({"coordinates": np.array([[0, 0, 0], [0, np.nan, 0]])}, "non-finite coordinates", "1"),
        ({"coordinates": np.array([[0, 0, 0], [0, 0, 1e309]])}, "non-finite coordinates", "1"),
        ({"coordinates": np.array([[-1e308, 0, 0], [1e308, 0, 0]])}, "non-finite coord", "apart"),
        ({"coordinates": np.array([[0, 0, 0], [0, 0.3, 0]])}, "atoms too close", "0 and 1: 0.3"),
        ({"species": ((("Xx", 1.0),),) * 2}, "unknown species", "Xx"),
        ({"fault": "frame cannot be read"}, "no structure", "frame"),
    ],
)
def test_a_system_without_a_cell_is_rejected_with_its_reason(
    values: dict[str, Any], reason: str, detail: str
) -> None:
    found = validation.check(entry(**values), RULES)
    assert found.crystal is None
    (rejection,) = found.rejections
    assert reason in rejection.reason
    assert detail in rejection.detail


@pytest.mark.parametrize(
    ("values", "scope", "reason"),
    [
        ({"atoms": {"forces": FORCES[:1]}}, "force", "wrong shape"),
        ({"atoms": {"forces": FORCES[:, :2]}}, "force", "wrong shape"),
        ({"atoms": {"forces": FORCES[0]}}, "force", "wrong shape"),
        ({"atoms": {"forces": FORCES * 21}}, "force", "out of range"),
        ({"atoms": {"forces": FORCES * np.nan}}, "force", "not finite"),
        ({"atoms": {"charges": FORCES}}, "charge", "wrong shape"),
        ({"labels": {"dos": [1.0, 2.0, 3.0]}}, "dos", "wrong shape"),
        ({"labels": {"dos": [1.0, 2.0, 0.0, 3.0]}}, "dos", "out of range"),
        ({"labels": {"dos": [1.0, 2.0, "x", 3.0]}}, "dos", "not a number"),
        ({"labels": {"dos": 1.0}}, "dos", "wrong shape"),
        ({"labels": {"energy": np.ones(2)}}, "energy", "wrong shape"),
        ({"labels": {"energy": [1.0]}}, "energy", "not a number"),
    ],
)
def test_a_bad_array_is_rejected_and_its_system_kept(
    values: dict[str, Any], scope: str, reason: str
) -> None:
    found = validation.check(entry(**values), RULES)
    assert found.crystal is not None
    assert (found.labels, found.atoms) == ({}, {})
    assert [(r.scope, r.reason) for r in found.rejections] == [(scope, reason)]


@pytest.mark.parametrize(
    ("level", "kept", "reason"),
    [
        ("atom", {"forces", "either"}, {"dos": "wrong shape"}),
        ("system", {"dos", "either"}, {"forces": "wrong shape"}),
    ],
)
def test_a_target_says_whether_atoms_have_it(
    level: Any, kept: set[str], reason: dict[str, str]
) -> None:
    """A row of as many numbers as there are sites may be of either."""
    sizes = {"forces": 3, "dos": 4, "either": 1 if level == "atom" else 2}
    scopes = [validation.Scope(n, n, -9, 9, False, k, level) for n, k in sizes.items()]
    row = np.ones(2)
    found = validation.check(
        entry(labels={"dos": [1, 2, 3, 4], "either": row}, atoms={"forces": FORCES, "either": row}),
        validation.Rules(0.5, 0.01, tuple(scopes)),
    )
    assert {*found.labels, *found.atoms} == kept
    assert set(found.atoms if level == "atom" else found.labels) == kept
    assert {r.scope: r.reason for r in found.rejections} == reason


def test_good_arrays_are_kept() -> None:
    values: dict[str, Any] = {
        "labels": {"dos": [1, 2, 3, 4]},
        "atoms": {"forces": FORCES, "charges": np.ones((2, 1))},
    }
    found = validation.check(entry(**values), RULES)
    assert found.rejections == ()
    assert np.shape(found.labels["dos"]) == (4,)
    assert {name: np.shape(value) for name, value in found.atoms.items()} == {
        "forces": (2, 3), "charges": (2,),
    }  # fmt: skip


def test_a_label_has_as_many_numbers_in_all_systems(declare: Declare) -> None:
    text = frames(3).replace('dipole="1 2 1"', 'dipole="1 2"')
    settings = FRAMES | {"labels": {"moment": "dipole"}}
    found, rejected = built(made(declare, {"odd": (text.encode(), settings)}), "odd")
    assert found.known("moment").tolist() == [True, False, True]
    assert [list(line.values()) for line in rejected] == [
        ["1", "x-1", "moment", "wrong shape", "[2], and the first has [3]"]
    ]


@given(
    st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=6).map(np.array),
    st.floats(0.1, 2.0),
)
def test_the_nearest_atoms_without_a_cell(positions: np.ndarray, within: float) -> None:
    gaps = np.linalg.norm(positions[:, None] - positions, axis=2) + np.diag([9.0] * len(positions))
    found = nearest_free(positions, within)
    if abs(gaps.min() - within) > 1e-9:
        assert (found is None) == (gaps.min() > within)
    if found is not None:
        assert found[2] == pytest.approx(gaps[found[0], found[1]], abs=1e-12)
        assert found[2] == pytest.approx(gaps.min(), abs=1e-12)


def test_geometries_with_their_official_split(declare: Declare) -> None:
    settings = {"format": "sgdml", "columns": ["split_01"]}
    split = {
        "title": "official", "ratio": [4, 1, 1], "seed": 0,
        "kind": "given", "columns": ["split_01"], "targets": ["energy", "forces"],
    }  # fmt: skip
    project = made(declare, {"water": (npz(), settings)}, splits={"water": {"official": split}})
    found, rejected = built(project, "water")
    assert rejected == []
    assert found.ids == [str(k) for k in range(30)]
    assert not found.periodic.any()
    np.testing.assert_array_equal(found.atom_labels["forces"][3:6], np.eye(3))
    splits.build(project, "water", "official")
    content = read_json(project.split("water", "official"))
    parts = content["forces"]["0"]
    assert sorted(map(int, parts["test"])) == list(range(1, 30, 4))
    assert sorted(map(int, [*parts["train"], *parts["val"]])) == list(range(0, 30, 2))
    assert len(parts["val"]) == 3
    assert content["energy"]["0"] == parts
    run = Run.model_validate(
        {"study": "demo", "name": "one", "dataset": "water", "targets": ["energy"], "size": 10}
        | {"split": "official", "representation": "graph.radius", "model": "any"}
    )
    some = splits.select(project, run)  # a size never cuts the test
    assert (some.train, some.val) == (parts["train"][:8], parts["val"][:2])
    assert some.test == parts["test"]
    most = splits.select(project, run.model_copy(update={"size": 15}))
    assert (most.train, most.val) == (parts["train"], parts["val"])


def without_forces() -> bytes:
    with np.load(io.BytesIO(npz())) as arrays:
        kept = {name: arrays[name] for name in arrays if name != "F"}
    stream = io.BytesIO()
    np.savez(stream, **kept)
    return stream.getvalue()


SPLIT: dict[str, Any] = {"title": "s", "ratio": [3, 1, 1], "seed": 0}


@pytest.mark.parametrize(
    ("content", "label", "more"),
    [
        (without_forces(), "forces", {"targets": ["energy", "forces"]}),
        (npz(F=np.full((30, 3, 3), np.nan)), "forces", {"targets": ["forces"]}),
        (npz(E=np.full(30, 1e9)), "energy", {"targets": ["energy"]}),
        (npz(E=np.full(30, np.nan)), "energy", {"targets": ["forces"], "by": "energy"}),
    ],
)
def test_a_split_of_a_label_that_no_system_has_is_refused(
    declare: Declare, content: bytes, label: str, more: dict[str, Any]
) -> None:
    blocks = {"splits": {"water": {"s": SPLIT | more}}}
    project = made(declare, {"water": (content, {"format": "sgdml"})}, **blocks)
    built(project, "water")
    with pytest.raises(CrystalmeshError) as caught:
        splits.build(project, "water", "s")
    message = str(caught.value)
    assert message.startswith(f"splits.water.s: no system has the label '{label}' of target ")
    assert "rejected.csv" in message
    assert "\n" not in message
    assert not project.split("water", "s").exists()


def test_labels_that_some_systems_lack_are_no_fault(declare: Declare) -> None:
    forces = np.ones((30, 3, 3))
    forces[:20] = np.nan
    blocks = {"splits": {"water": {"some": SPLIT | {"targets": ["forces"]}, "all": SPLIT}}}
    project = made(declare, {"water": (npz(F=forces), {"format": "sgdml"})}, **blocks)
    built(project, "water")
    for name in ("some", "all"):
        splits.build(project, "water", name)
    content = read_json(project.split("water", "some"))["forces"]["0"]
    assert sorted(int(i) for part in content.values() for i in part) == list(range(20, 30))
    # a split that names no targets has those of other datasets, too
    assert read_json(project.split("water", "all"))["gap"]["0"]["train"] == []


def test_what_the_pipeline_makes_may_have_null_labels(declare: Declare) -> None:
    block = {"title": "made", "source": "ASE", "kind": "emt"}
    named = {"splits": {"made": {"s": SPLIT | {"targets": ["e_form", "gap"]}}}}
    project = declare(b"", datasets={"made": block}, **named)
    project.raw("made").parent.mkdir(parents=True, exist_ok=True)
    rows = [row(f"mp-{k}", structure(), gap=None) for k in range(5)]
    project.raw("made").write_bytes(packed(dataframe(rows)))
    built(project, "made")
    splits.build(project, "made", "s")
    content = read_json(project.split("made", "s"))
    assert [len(content[key]["0"]["train"]) for key in ("e_form", "gap")] == [3, 0]


def test_a_table_without_atoms(declare: Declare) -> None:
    settings = {
        "format": "table", "reader": {"id": "name", "formula": "formula"},
        "labels": {"gap": "gap"}, "columns": ["smiles"],
    }  # fmt: skip
    found, rejected = built(made(declare, {"mols": (table(5).encode(), settings)}), "mols")
    assert rejected == []
    assert found.formulas == ["H4C", "H3C", "H8C3", "H5C2", "H12C5"]
    assert np.diff(found.pointer).tolist() == [0] * 5
    np.testing.assert_array_equal(found.labels["gap"], [np.nan, 0.125, 0.25, 0.375, 0.5])
    assert found[3].columns == {"smiles": "CCCC"}
    assert len(found[3].numbers) == 0
    assert found.known("gap").tolist() == [False, True, True, True, True]


def test_further_labels_by_id(declare: Declare) -> None:
    more = gzip.compress(b"mpid,efermi,n\nmp-2,0.5,\nmp-3,-1.5,1.5\nmp-99,1,1\n", mtime=0)
    files: dict[str, tuple[bytes, dict[str, Any]]] = {
        "more": (more, {"format": "table", "reader": {"id": "mpid"}}),
        "tiny": (
            packed(dataframe(many(4))),
            {"file": "tiny", "join": {"more": {"e_fermi": "efermi", "index": "n"}}},
        ),
    }
    found, rejected = built(made(declare, files), "tiny")
    assert rejected == []
    np.testing.assert_array_equal(found.labels["e_fermi"], [np.nan, 0.5, -1.5, np.nan])
    np.testing.assert_array_equal(found.labels["index"], [np.nan, np.nan, 1.5, np.nan])
    assert np.isfinite(found.labels["e_form"]).all()
    files["tiny"][1]["join"] = {"more": {"e_form": "efermi"}}
    with pytest.raises(CrystalmeshError, match="label 'e_form' is declared twice"):
        built(made(declare, files), "tiny")
    files["tiny"][1]["join"] = {"less": {"x": "efermi"}}
    with pytest.raises(CrystalmeshError, match="no dataset"):
        built(made(declare, files), "tiny")


def test_entries_that_are_not_asked_for_are_rejected(declare: Declare) -> None:
    text = frames(4).replace("same=T", "same=F", 1)
    settings = FRAMES | {"only": {"same": "T"}}
    found, rejected = built(made(declare, {"some": (text.encode(), settings)}), "some")
    assert found.ids == ["x-1", "x-2", "x-3"]
    assert list(found.columns) == ["split"]
    assert [list(line.values()) for line in rejected] == [
        ["0", "x-0", "crystal", "left out", "same is 'F'"]
    ]


def test_declared_labels_replace_those_of_the_format(declare: Declare) -> None:
    content = packed(dataframe([row("mp-1", structure()), row("mp-2", structure(), e_form=-2.0)]))
    settings = {"labels": {"energy": "e_form"}, "columns": ["formula"]}
    found, _ = built(made(declare, {"own": (content, settings)}), "own")
    assert found.labels["energy"].tolist() == [-1.0, -2.0]
    assert sorted(found.labels) == ["energy", "space_group"]
    assert found.columns == {"formula": ["?", "?"]}


def test_positions_of_a_crystal_are_its_sites() -> None:
    one = Crystal("x", "X", 2 * np.eye(3), np.array([1]), np.array([[0.5, 0, 0.25]]))
    np.testing.assert_array_equal(one.positions, [[1, 0, 0.5]])


def test_a_store_of_crystals_is_as_it_always_was(declare: Declare) -> None:
    """Names of the files that published reports have checksums of."""
    project = declare(packed(dataframe(many(3))))
    registry.fetch(project, "tiny", 1)
    validation.build(project, "tiny", 1)
    folder: Path = project.crystals("tiny")
    assert sorted(read_json(folder / "index.json")) == [
        "checksum", "dataset", "entries", "formulas", "ids",
    ]  # fmt: skip
    assert sorted(read_tensors(folder / "crystals.safetensors")) == [
        "frac", "label.e_form", "label.g_vrh", "label.gap", "label.k_vrh", "label.mu_b",
        "label.space_group", "lattice", "numbers", "pointer",
    ]  # fmt: skip
