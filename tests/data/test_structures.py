"""Every odd file has its documented outcome, and nothing in a file stops the others."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import ase
import ase.io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystalmesh.data import structures
from crystalmesh.data.validation import Rules
from crystalmesh.errors import CrystalmeshError
from tests.data import odd

RULES = Rules(min_distance=0.5, symprec=0.01, scopes=())


@pytest.mark.parametrize("file", odd.FILES, ids=lambda file: file.name)
def test_odd_files_come_out_as_documented(file: odd.Odd, tmp_path: Path) -> None:
    (tmp_path / file.name).write_bytes(file.content)
    items = list(structures.read([str(tmp_path / file.name)], RULES))
    accepted = [item for item in items if item.crystal is not None]
    refused = [item for item in items if item.crystal is None]
    assert len(accepted) == file.accepted
    assert len(refused) == len(file.refused)
    assert all(part in item.problem for part, item in zip(file.refused, refused, strict=True))
    assert all(file.note in "; ".join(item.notes) for item in accepted)
    assert all(item.file == str(tmp_path / file.name) for item in items)
    assert len({item.id for item in items}) == len(items)
    assert "\n" not in "".join(item.problem for item in items)


def test_a_folder_is_read_in_order_and_to_its_end(tmp_path: Path) -> None:
    odd.write(tmp_path)
    (tmp_path / "notes.txt").write_text("not a crystal")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "last.cif").write_text(odd.cif())
    items = list(structures.read([str(tmp_path)], RULES))
    assert sum(item.crystal is not None for item in items) == sum(f.accepted for f in odd.FILES) + 1
    assert not any("notes.txt" in item.file for item in items)
    files = list(dict.fromkeys(item.file for item in items))
    assert files == list(dict.fromkeys(i.file for i in structures.read([str(tmp_path)], RULES)))
    assert len(files) == len(odd.FILES) + 1


def test_patterns_missing_files_and_empty_folders(tmp_path: Path) -> None:
    for number in (10, 9):
        (tmp_path / f"a{number}.cif").write_text(odd.cif())
    (tmp_path / "[1].cif").write_text(odd.cif())  # a name that is a pattern as well
    found = list(structures.read([str(tmp_path / "a*.cif"), str(tmp_path / "[1].cif")], RULES))
    assert [item.id for item in found] == ["a9", "a10", "[1]"]
    (tmp_path / "none").mkdir()
    problems = [
        (tmp_path / "b*.cif", "no file matches"),
        (tmp_path / "absent.cif", "no such file"),
        (tmp_path / "none", "no file of a known kind"),
    ]
    for path, said in problems:
        (item,) = structures.read([str(path)], RULES)
        assert item.crystal is None
        assert said in item.problem


def test_standard_input_is_told_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (odd.cif(), odd.poscar(), odd.xyz(), odd.JSON.decode()):
        stdin = SimpleNamespace(buffer=io.BytesIO(text.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        (item,) = structures.read(["-"], RULES)
        assert item.crystal is not None
        assert item.crystal.formula == "NaCl"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello\nworld\n")))
    (item,) = structures.read(["-"], RULES)
    assert "of no known kind" in item.problem


def test_all_formats_give_the_same_crystal(tmp_path: Path) -> None:
    lattice = Lattice.from_parameters(3.1, 4.2, 5.3, 91, 95, 100)
    made = Structure(
        lattice, ["Ti", "O", "O"], [[0.0, 0.0, 0.0], [0.31, 0.29, 0.4], [0.7, 0.68, 0.61]]
    )
    made.to(filename=str(tmp_path / "a.cif"))
    made.to(filename=str(tmp_path / "a.vasp"), fmt="poscar")
    made.to(filename=str(tmp_path / "a.json"))
    ase.io.write(tmp_path / "a.xyz", made.to_ase_atoms(), format="extxyz")
    items = list(structures.read([str(tmp_path)], RULES))
    items += [structures.of_object(one, "x", RULES) for one in (made, made.to_ase_atoms())]
    assert len(items) == 6
    for item in items:
        assert item.crystal is not None
        assert item.crystal.formula == "TiO2"
        again = Structure(item.crystal.lattice, item.crystal.numbers.tolist(), item.crystal.frac)
        np.testing.assert_allclose(again.distance_matrix, made.distance_matrix, atol=2e-6)


def test_thirds_are_moved_only_where_digits_are_few(tmp_path: Path) -> None:
    for name, third in (("short", "0.3333"), ("long", "0.33331000")):
        (tmp_path / f"{name}.cif").write_text(odd.cif(f"Mg Mg {third} 0 0 1"))
    short, long = structures.read([str(tmp_path / f"{n}.cif") for n in ("short", "long")], RULES)
    assert short.crystal is not None
    assert long.crystal is not None
    assert short.crystal.frac[0, 0] == pytest.approx(1 / 3, abs=1e-12)
    assert long.crystal.frac[0, 0] == 0.33331


def test_objects_that_are_no_crystal_are_refused() -> None:
    with pytest.raises(CrystalmeshError, match="a str is no crystal"):
        structures.of_object("NaCl", "structure 3", RULES)
    assert "no lattice" in structures.of_object(ase.Atoms("H2"), "x", RULES).problem


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_never_raises(data: st.DataObject) -> None:
    """Bytes of each kind of file changed, dropped or doubled: a structure or a reason, always."""
    whole = data.draw(st.sampled_from([odd.cif(), odd.poscar(), odd.xyz(), odd.JSON.decode()]))
    content = bytearray(whole.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(max_size=4))
        content[at : at + data.draw(st.integers(0, 20))] = piece
        content = content or bytearray(b" ")
    stdin = SimpleNamespace(buffer=io.BytesIO(bytes(content)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        for item in structures.read(["-"], RULES):
            assert (item.crystal is None) == bool(item.problem)


def test_documentation_lists_the_outcomes() -> None:
    page = Path(__file__).parents[2] / "docs" / "predict.md"
    assert odd.markdown() in page.read_text(encoding="utf-8")
