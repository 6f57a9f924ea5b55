"""Both raw shapes, read as a stream; broken files are named, and never half-read in silence."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmesh.data.entries import Entry, chosen
from crystalmesh.data.sources import mpjson
from crystalmesh.errors import CrystalmeshError
from tests.data.conftest import dataframe, documents, many, packed, row, structure


def read(path: Path, raw: bytes) -> list[Entry]:
    path.write_bytes(raw)
    return [chosen(entry, mpjson.LABELS, ("formula",)) for entry in mpjson.read(path)]


def same(first: list[Entry], second: list[Entry]) -> None:
    assert [(e.position, e.id, e.species, e.labels, e.fault) for e in first] == [
        (e.position, e.id, e.species, e.labels, e.fault) for e in second
    ]
    for one, other in zip(first, second, strict=True):
        assert one.lattice is not None
        assert other.lattice is not None
        np.testing.assert_array_equal(one.lattice, other.lattice)
        np.testing.assert_array_equal(one.coordinates, other.coordinates)


def test_both_shapes_packed_or_plain_give_equal_entries(tmp_path: Path) -> None:
    rows = many(5)
    found = read(tmp_path / "a", packed(dataframe(rows)))
    same(found, read(tmp_path / "b", json.dumps(dataframe(rows), indent=2).encode()))
    same(found, read(tmp_path / "c", packed(documents(rows))))
    same(found, read(tmp_path / "d", json.dumps(documents(rows)).encode()))
    first = found[2]
    assert (first.position, first.id, first.fault) == (2, "mp-3", "")
    assert first.species == ((("Na", 1.0),), (("Cl", 1.0),))
    assert first.labels == {"e_form": -0.03, "gap": 2.0, "mu_b": 0.5, "k_vrh": 13.0, "g_vrh": 20.0}
    np.testing.assert_array_equal(first.coordinates, [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert first.lattice is not None
    np.testing.assert_array_equal(first.lattice, np.diag([3.5, 3.5, 3.8]))


def test_columns_may_follow_the_data_and_may_be_few(tmp_path: Path) -> None:
    content = {"data": [[structure(), "mp-1", 7]], "columns": ["structure", "mpid", "other"]}
    (entry,) = read(tmp_path / "raw", packed(content))
    assert entry.id == "mp-1"
    assert entry.labels == {}


def test_older_documents_nest_the_moduli_otherwise(tmp_path: Path) -> None:
    moduli: list[dict[str, Any]] = [
        {"bulk_modulus": {"k_vrh": 5.0}, "shear_modulus": {"g_vrh": 3.0}},
        {"k_vrh": 5.0, "g_vrh": 3.0},
        {"bulk_modulus": 5.0, "shear_modulus": 3.0},
        {"bulk_modulus": {"vrh": 5.0}, "shear_modulus": {"vrh": 3.0}},
        {"bulk_modulus": None},
    ]
    content = [{"material_id": "a", "structure": structure()} | one for one in moduli]
    found = [entry.labels for entry in read(tmp_path / "raw", packed(content))]
    assert found == [{"k_vrh": 5.0, "g_vrh": 3.0}] * 4 + [{}]


@settings(max_examples=40, deadline=None)
@given(
    block=st.integers(1, 40),
    values=st.lists(st.sampled_from(["NaN", "Infinity", "-Infinity", "1", '"NaN"'])),
)
def test_non_finite_numbers_are_found_wherever_a_block_ends(block: int, values: list[str]) -> None:
    class Source:
        def __init__(self, text: bytes) -> None:
            self.text = text

        def read(self, _: int) -> bytes:
            piece, self.text = self.text[:block], self.text[block:]
            return piece

    text = ('{"NaN3": [' + ", ".join(values) + '], "a":NaN\n}').encode()
    stream = mpjson._Json(Source(text))
    found = json.loads(b"".join(iter(lambda: stream.read(7), b"")))
    plain = [1 if value == "1" else value.strip('"') for value in values]
    assert found == {"NaN3": plain, "a": "NaN"}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (None, "null"),
        ({"sites": []}, "KeyError: 'lattice'"),
        (structure(lattice=((1, 0), (0, 1))), "ValueError"),
        (structure(frac=((0, 0), (0, 0))), "ValueError"),
        ({"lattice": {"matrix": np.eye(3).tolist()}, "sites": [{"abc": [0, 0, 0]}]}, "species"),
        ("Fe", "TypeError"),
    ],
)
def test_a_structure_that_cannot_be_read_is_the_entrys_fault(
    tmp_path: Path, broken: Any, said: str
) -> None:
    entries = read(tmp_path / "raw", packed(dataframe([row("mp-1", broken), *many(1)])))
    assert said in entries[0].fault
    assert entries[1].fault == ""


GOOD = packed(dataframe(many(40)))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not a JSON object or list"),
        (b"mpid,formula\n", "not a JSON object or list"),
        (b"[]", "holds no entries"),
        (packed(dataframe([])), "holds no entries"),
        (b'{"columns": ["mpid", "structure"]}', "holds no entries"),
        (b'{"data": [[1, 2]]}', "without `columns`"),
        (b'{"columns": ["mpid", "e_form"], "data": []}', "no column 'structure'"),
        (b'{"columns": ["id", "structure"], "data": []}', "no column 'mpid' among its columns: id"),
        (b'{"columns": ["mpid", "structure"], "data": [["mp-1"]]}', "entry 0 (from 0): not a row"),
        (b'{"columns": ["mpid", "structure"], "data": [{}]}', "entry 0 (from 0): not a row"),
        (b'[{"structure": null}]', "entry 0 (from 0): not a Materials Project document"),
        (b'[{"material_id": 1}]', "document with 'structure'"),
        (b"[1]", "not a Materials Project document"),
        (json.dumps(dataframe(many(3))).encode()[:-100], "broken JSON after 2 whole entries"),
        (json.dumps(documents(many(3))).encode()[:-2], "broken JSON after 2 whole entries"),
        (json.dumps(documents(many(3))).encode() + b"]", "broken JSON after 3 whole entries"),
        (b"[nope]", "broken JSON after 0 whole entries"),
        (b'["\xff"]', "broken JSON after 0 whole entries"),
        (GOOD[:-20], "broken gzip"),
        (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "broken gzip"),
        (GOOD[:200] + b"\xff\xff\xff" + GOOD[203:], "broken"),
        (GOOD[:5], "broken gzip after 0 whole entries"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_says_what_and_where(
    tmp_path: Path, raw: bytes, said: str
) -> None:
    path = tmp_path / "raw.json.gz"
    with pytest.raises(CrystalmeshError) as caught:
        read(path, raw)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrystalmeshError, match="missing"):
        list(mpjson.read(tmp_path / "raw"))


def test_watch_hears_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    for raw in (GOOD, gzip.decompress(GOOD)):
        path.write_bytes(raw)
        heard: list[int] = []
        assert len(list(mpjson.read(path, heard.append))) == 40
        assert sum(heard) == len(raw)


def test_a_small_file_that_unpacks_to_more_than_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would fill the memory is refused before it does; many short entries are not."""
    monkeypatch.setattr(mpjson, "LONGEST", 4 << 20)
    rows = many(3)
    bomb = documents(rows)
    bomb[1]["structure"]["charge"] = "0," * (8 << 20)
    with pytest.raises(CrystalmeshError, match=r"entry 1 \(from 0\) is longer than 4 MiB"):
        read(tmp_path / "bomb", packed(bomb))
    with pytest.raises(CrystalmeshError, match="entry 0"):
        read(tmp_path / "nothing", gzip.compress(b"[" + b" " * (64 << 20)))
    long = [document | {"material_id": f"mp-{i}"} for i in range(12000) for document in bomb[:1]]
    content = json.dumps(long).encode()
    assert len(content) > mpjson.LONGEST
    assert len(read(tmp_path / "long", content)) == len(long)


@pytest.mark.parametrize("shape", ["list", "object"])
def test_nesting_that_would_overflow_the_parser_is_refused(tmp_path: Path, shape: str) -> None:
    deep = "[" * 200_000 if shape == "list" else '{"a":' * 200_000
    text = json.dumps([{"material_id": "mp-1", "structure": "@"}]).replace('"@"', deep)
    with pytest.raises(CrystalmeshError, match=r"entry 0 \(from 0\) is nested more than 1000 deep"):
        read(tmp_path / "deep", text.encode())
    columns = '{"columns": ' + deep
    with pytest.raises(CrystalmeshError, match="nested"):
        read(tmp_path / "columns", columns.encode())
