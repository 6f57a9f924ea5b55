"""What holds for every format: streams, equal entries twice, broken files in one line."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalmesh.data import sources
from crystalmesh.data.entries import Entry, chosen, fractional
from crystalmesh.errors import CrystalmeshError
from tests.data.conftest import dataframe, documents, many, packed

COUNT = 30


def frames(count: int = COUNT) -> str:
    """Crystals and molecules of two atoms, each with an energy and forces."""
    texts = []
    for k in range(count):
        cell = 'Lattice="4 0 0 1 4 0 0 0 4" pbc="T T T"' if k % 2 else 'pbc="F F F"'
        texts.append(
            f'2\nid=x-{k} energy={-k / 8} split=train same=T dipole="1 2 {k}" U0={k} {cell}'
            " Properties=species:S:1:pos:R:3:forces:R:3\n"
            f"C 0 0 {k / 16} 0.5 0 -{k}\nO 1.25 0 0 -0.5 0 {k}\n"
        )
    return "".join(texts)


def npz(count: int = COUNT, **more: Any) -> bytes:
    """Geometries of water."""
    rows = np.arange(count)
    place = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + rows[:, None, None] / 1000
    arrays = {
        "Z": np.array([8, 1, 1], dtype=np.uint8),
        "R": place.astype(np.float32),
        "E": -rows / 8.0,
        "F": np.stack([np.eye(3) * k for k in rows]).astype(np.float32),
        "old_index": rows * 10,
        "train_01": rows[::2],
        "test_01": rows[1::4],
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **(arrays | more))  # type: ignore[arg-type]
    return stream.getvalue()


def table(count: int = COUNT) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["name", "smiles", "formula", "gap", "gap"])
    for k in range(count):
        writer.writerow([f"m-{k}", "C" * (k + 1), f"C{k + 1}H{2 * k + 4}", k / 8 if k else "", k])
    return stream.getvalue()


Whole = tuple[bytes, dict[str, Any], set[str]]
FILES: dict[str, Whole] = {  # by format: a whole file, settings, and labels that it must have
    "mpjson": (packed(dataframe(many(COUNT))), {}, {"e_form", "gap"}),
    "extxyz": (gzip.compress(frames().encode(), mtime=0), {}, {"energy", "forces"}),
    "sgdml": (npz(), {}, {"energy", "forces"}),
    "table": (
        gzip.compress(table().encode(), mtime=0),
        {"id": "name", "formula": "formula"},
        set(),
    ),
}


def plain(entry: Entry) -> Any:
    """All of an entry, to be compared."""
    return json.dumps(
        [getattr(entry, name) for name in Entry.__slots__],
        default=lambda value: value.tolist(),
        sort_keys=True,
    )


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes | str], Path]:
    def write(content: bytes | str) -> Path:
        path = tmp_path / "raw"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


Put = Callable[[bytes | str], Path]


def test_every_format_has_a_file_here() -> None:
    assert sources.known() == sorted(FILES)


@pytest.mark.parametrize("format", sorted(FILES))
def test_entries_come_in_order_twice_the_same_and_every_byte_is_told(put: Put, format: str) -> None:
    content, settings, labels = FILES[format]
    path = put(content)
    heard: list[int] = []
    found = list(sources.read(format, path, heard.append, settings))
    assert [entry.position for entry in found] == list(range(COUNT))
    assert len({entry.id for entry in found}) == COUNT
    assert not any(entry.fault for entry in found)
    assert [plain(e) for e in found] == [
        plain(e) for e in sources.read(format, path, settings=settings)
    ]
    assert sum(heard) == len(content)
    last = chosen(found[-1], sources.source(format).LABELS, ())
    assert labels <= {*last.labels, *last.atoms}
    for entry in found:
        assert entry.coordinates.shape == (len(entry.species), 3)
        assert all(len(values) == len(entry.species) for values in entry.atoms.values())


LARGE: dict[str, bytes] = {  # some MB, unpacked where a packed one would be a block or less
    "mpjson": json.dumps(dataframe(many(9000))).encode(),
    "extxyz": frames(12000).encode(),
    "sgdml": npz(2000),
    "table": table(2500).encode(),
}


@pytest.mark.parametrize("format", sorted(FILES))
def test_the_first_entry_comes_before_the_whole_file_is_read(put: Put, format: str) -> None:
    heard: list[int] = []
    entries = sources.read(format, put(LARGE[format]), heard.append, FILES[format][1])
    assert next(entries).position == 0
    assert sum(heard) <= 1 << 20 < len(LARGE[format]) or not heard
    entries.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", sorted(FILES))
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, -1.0])
def test_a_file_that_breaks_off_is_refused_in_one_line(put: Put, format: str, kept: float) -> None:
    content, settings, _ = FILES[format]
    path = put(content[: int(kept * len(content)) if kept >= 0 else -9])
    with pytest.raises(CrystalmeshError) as caught:
        list(sources.read(format, path, settings=settings))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("format", sorted(FILES))
def test_a_missing_file_and_an_unknown_setting_are_named(tmp_path: Path, format: str) -> None:
    with pytest.raises(CrystalmeshError, match="missing"):
        list(sources.read(format, tmp_path / "raw", settings=FILES[format][1]))
    with pytest.raises(CrystalmeshError, match="no setting 'colour'"):
        sources.read(format, tmp_path / "raw", settings={"colour": 1})


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(CrystalmeshError, match=r"no format 'cif'; known: extxyz, mpjson"):
        sources.read("cif", Path("raw"))


def test_plain_and_packed_are_the_same(put: Put) -> None:
    for format, text in (("extxyz", frames()), ("table", table())):
        settings = FILES[format][1]
        first = [plain(e) for e in sources.read(format, put(text), settings=settings)]
        again = [plain(e) for e in sources.read(format, put(FILES[format][0]), settings=settings)]
        assert first == again


def test_a_frame_of_extended_xyz(put: Put) -> None:
    free, crystal, *_ = sources.read("extxyz", put(frames()))
    assert (free.id, free.lattice) == ("x-0", None)
    assert free.species == ((("C", 1.0),), (("O", 1.0),))
    np.testing.assert_array_equal(free.coordinates, [[0, 0, 0], [1.25, 0, 0]])
    assert crystal.lattice is not None
    np.testing.assert_array_equal(crystal.lattice, [[4, 0, 0], [1, 4, 0], [0, 0, 4]])
    np.testing.assert_allclose(
        crystal.coordinates @ crystal.lattice, [[0, 0, 1 / 16], [1.25, 0, 0]], atol=1e-15
    )
    assert (crystal.labels["energy"], crystal.labels["U0"]) == (-0.125, 1)
    np.testing.assert_array_equal(crystal.labels["dipole"], [1, 2, 1])
    np.testing.assert_array_equal(crystal.atoms["forces"], [[0.5, 0, -1], [-0.5, 0, 1]])
    kept = chosen(crystal, {"u0": ("U0",)}, ("split", "same"))
    assert (kept.labels, kept.columns) == ({"u0": 1}, {"split": "train", "same": "T"})


def test_ids_of_frames_are_their_places_without_a_key(put: Put) -> None:
    assert [e.id for e in sources.read("extxyz", put(frames(3)), settings={"id": "no"})] == [
        "0", "1", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1\nProperties=species:S:1:pos:R:3\nQq 0 0 0\n", "cannot be read"),
        ("1\n\nC zero 0 0\n", "cannot be read"),
        ('1\nLattice="3 0 0 0 3 0 0 0 9" pbc="T T F"\nC 0 0 0\n', "some directions only"),
    ],
)
def test_a_frame_that_makes_no_sense_stops_no_other(put: Put, text: str, fault: str) -> None:
    found = list(sources.read("extxyz", put(text + frames(1))))
    assert fault in found[0].fault
    assert found[1].fault == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (frames(2) + "many\n", "frame 2 (from 0) begins with 'many'"),
        (frames(1)[:-1] + "\n" + frames(1).rsplit("\n", 2)[0] + "\n", "frame 1 (from 0)"),
        (frames(1).rsplit(" ", 4)[0], "frame 0 (from 0): the file breaks off in it"),
        ("99999999999\n", "begins with"),
        ("1" * 5000 + "\n", "begins with '1111"),
        ("1\n" + "x" * (1 << 20) + "\n", "line 2 is too long"),
        ("\n\n", "holds no frame"),
    ],
)
def test_broken_extended_xyz_is_named(put: Put, text: str, said: str) -> None:
    with pytest.raises(CrystalmeshError) as caught:
        list(sources.read("extxyz", put(text)))
    assert said in str(caught.value)


FORCE = "1\nProperties=species:S:1:pos:R:3:forces:R:3\nC 0 0 0 1.25 0 -12.375\n"


@pytest.mark.parametrize("cut", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("pack", [bytes, lambda text: gzip.compress(text, mtime=0)])
def test_half_a_number_at_the_end_is_none(
    put: Put, cut: int, pack: Callable[[bytes], bytes]
) -> None:
    (whole,) = sources.read("extxyz", put(pack(FORCE.encode())))
    np.testing.assert_array_equal(whole.atoms["forces"], [[1.25, 0, -12.375]])
    path = put(pack((FORCE + FORCE).encode()[:-cut]))
    with pytest.raises(CrystalmeshError) as caught:
        list(sources.read("extxyz", path))
    assert str(caught.value) == (
        f"{path}: frame 1 (from 0): the file breaks off in it, in its line 3; get the file again"
    )


@pytest.mark.parametrize("cut", [1, 8, 9, 20])
def test_a_packed_file_that_breaks_off_yields_no_error_but_one_line(put: Put, cut: int) -> None:
    path = put(gzip.compress((FORCE * 2).encode(), mtime=0)[:-cut])
    with pytest.raises(CrystalmeshError, match="broken gzip after"):
        list(sources.read("extxyz", path))


def test_blanks_at_the_end_are_no_frame(put: Put) -> None:
    assert len(list(sources.read("extxyz", put(FORCE + "\n  ")))) == 1


def test_a_geometry_of_sgdml(put: Put) -> None:
    found = list(sources.read("sgdml", put(npz())))
    third = found[2]
    assert (third.id, third.lattice) == ("2", None)
    assert third.species == ((("O", 1.0),), (("H", 1.0),), (("H", 1.0),))
    assert third.labels == {"E": -0.25, "old_index": 20}
    np.testing.assert_array_equal(third.atoms["F"], 2 * np.eye(3))
    assert third.coordinates.dtype == np.float64
    assert [entry.columns["split_01"] for entry in found[:5]] == [
        "train", "test", "train", "", "train",
    ]  # fmt: skip
    dipoles = next(
        sources.read("sgdml", put(npz(D=np.ones((COUNT, 3)))))
    )  # or charges: targets tell
    both = chosen(dipoles, {"mu": ("D",)}, ())
    assert (both.labels["mu"].tolist(), both.atoms["mu"].tolist()) == ([1, 1, 1], [1, 1, 1])
    again = list(sources.read("sgdml", put(npz(600))))  # more than are read at once
    assert [entry.labels["E"] for entry in again] == [-k / 8 for k in range(600)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"E": np.array([None] * COUNT)}, "E holds Python objects"),
        ({"Z": np.array([8, 1])}, "Z is int64 [2] and must be integer [3]"),
        ({"Z": np.array([8.0, 1.0, 1.0])}, "Z is float64 [3] and must be integer [3]"),
        ({"Z": np.array(["O", "H", "H"])}, "Z is str32 [3] and must be integer [3]"),
        ({"Z": np.array(8)}, "Z is int64 [] and must be integer [3]"),
        ({"R": np.array(1.0)}, "R is float64 [] and must be float [frames, atoms, 3]"),
        ({"R": np.ones((COUNT, 3))}, "R is float64 [30, 3] and must be"),
        ({"R": np.ones((0, 3, 3))}, "R is float64 [0, 3, 3] and must be"),
        ({"R": np.ones((COUNT, 3, 2))}, "R is float64 [30, 3, 2] and must be float [30, 3, 3]"),
        ({"R": np.ones((COUNT, 3, 3), complex)}, "R is complex128 [30, 3, 3] and must be float"),
        ({"E": np.array(["1"] * COUNT)}, "E is str32 [30] and must be float [30] or [30, 1]"),
        ({"E": np.ones(COUNT, complex)}, "E is complex128 [30] and must be float"),
        ({"E": np.ones((COUNT, 2))}, "E is float64 [30, 2] and must be float [30] or [30, 1]"),
        ({"F": np.full((COUNT, 3, 3), "1")}, "F is str32 [30, 3, 3] and must be float [30, 3, 3]"),
        ({"F": np.ones((COUNT - 1, 3, 3))}, "F is float64 [29, 3, 3] and must be"),
        ({"F": np.ones((COUNT, 9))}, "F is float64 [30, 9] and must be float [30, 3, 3]"),
        ({"D": np.ones((COUNT, 3), complex)}, "D is complex128 [30, 3] and must be numbers"),
        ({"D": np.full((COUNT, 3), "1")}, "D is str32 [30, 3] and must be numbers"),
        ({"train_01": np.array(1)}, "train_01 is int64 [] and must be integer [rows]"),
        ({"train_01": np.array([1.0])}, "train_01 is float64 [1] and must be integer [rows]"),
        ({"Z": np.array([8, 1, 0])}, "no element's"),
        ({"train_01": np.array([COUNT])}, "train_01 has a row that R has not"),
        ({"val_01": np.array([0])}, "val_01 has a row that another part has too"),
        ({"r_unit": np.array("Bohr")}, "not in Angstrom"),
        ({"F": np.asfortranarray(np.ones((COUNT, 3, 3)))}, "Fortran"),
    ],
)
def test_broken_geometries_are_named(put: Put, more: dict[str, Any], said: str) -> None:
    path = put(npz(**more))
    with pytest.raises(CrystalmeshError) as caught:
        list(sources.read("sgdml", path))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_npz_under_a_password_is_named(put: Put) -> None:
    content = bytearray(npz())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the first file of the directory is encrypted
    with pytest.raises(CrystalmeshError, match="broken npz file"):
        list(sources.read("sgdml", put(bytes(content))))


def test_other_arrays_may_be_of_any_kind_that_is_read_as_it_stands(put: Put) -> None:
    usual = [plain(entry) for entry in sources.read("sgdml", put(npz()))]
    more: dict[str, Any] = {"theory": np.array("PBE"), "perms": np.ones((2, 3), complex)}
    assert [plain(entry) for entry in sources.read("sgdml", put(npz(**more)))] == usual
    texts = np.array([f"g-{k}" for k in range(COUNT)])
    named = list(sources.read("sgdml", put(npz(name=texts, E=np.arange(COUNT)[:, None]))))
    assert [entry.labels["name"] for entry in named] == texts.tolist()
    assert [entry.labels["E"] for entry in named] == list(range(COUNT))


def test_a_row_of_a_table(put: Put) -> None:
    found = list(sources.read("table", put(table()), settings=FILES["table"][1]))
    assert (found[0].bare, found[0].id, found[0].formula) == (True, "m-0", "C1H4")
    assert "gap" not in found[0].labels  # empty
    assert (found[1].labels["gap"], found[1].labels["gap.1"]) == (0.125, 1.0)
    assert chosen(found[1], {"gap": ("gap.1",)}, ("smiles",)).columns == {"smiles": "CC"}
    assert [entry.id for entry in sources.read("table", put(table(2)))] == ["0", "1"]
    (several,) = sources.read("table", put("a,b\n1 2.5 -3,1 b\n"))
    assert several.labels == {"a": [1.0, 2.5, -3.0], "b": "1 b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'name'"),
        ("name\n", "without a row"),
        ("id,gap\na,1\n", "no column 'name' among its columns: id, gap"),
        ("name,gap\na\n", "line 2: 1 values for 2 columns"),
        ('name,gap\n"a,1\n', "broken table after 0 whole rows"),
        (b"name\n\xff\n", "broken table"),
    ],
)
def test_broken_tables_are_named(put: Put, text: str | bytes, said: str) -> None:
    with pytest.raises(CrystalmeshError) as caught:
        list(sources.read("table", put(text), settings={"id": "name"}))
    assert said in str(caught.value)


def test_both_shapes_of_mp_json_have_the_same_labels(put: Put) -> None:
    labels = sources.source("mpjson").LABELS
    both = [
        [chosen(e, labels, ()).labels for e in sources.read("mpjson", put(packed(content)))]
        for content in (dataframe(many(5)), documents(many(5)))
    ]
    assert both[0] == both[1]


def test_another_column_may_hold_the_ids(put: Put) -> None:
    content = json.loads(gzip.decompress(FILES["mpjson"][0]))
    content["columns"][0] = "material_id"
    (first, *_) = sources.read("mpjson", put(packed(content)), settings={"id": "material_id"})
    assert first.id == "mp-1"


def test_fractional_coordinates_are_those_of_the_positions() -> None:
    rng = np.random.default_rng(0)
    lattice, positions = rng.normal(size=(3, 3)), rng.normal(size=(7, 3))
    np.testing.assert_allclose(fractional(lattice, positions) @ lattice, positions, atol=1e-12)
    assert not fractional(np.zeros((3, 3)), positions).any()
