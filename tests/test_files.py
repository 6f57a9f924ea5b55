"""crystalmesh.files: complete or absent, and equal content gives equal bytes."""

import errno
import gzip
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmesh import files
from crystalmesh.errors import CrystalmeshError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    files.write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o644
    assert listing(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_unfinished_file_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with files.writing(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    host, mine = platform.node(), os.getpid()
    gone = [f".file.{host}-{ended.pid}-abc.part", f".folder.{host}-{ended.pid}-abc.part"]
    kept = [
        f".file.{host}-1-abc.part",  # of a process that lives
        f".file.{host}-{mine}-abc.part",
        f".file.elsewhere-{ended.pid}-abc.part",  # of another machine: nobody knows here
        f".file2.{host}-{ended.pid}-abc.part",
        ".file.part",
    ]
    for name in [gone[0], *kept]:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / gone[1]).mkdir()
    files.write_bytes(tmp_path / "file", b"whole")
    with files.writing_folder(tmp_path / "folder"):
        pass
    assert listing(tmp_path) == sorted([*kept, "file", "folder"])


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_bytes(tmp_path / "file", b"")
        with files.writing_folder(tmp_path / "folder") as folder:
            (folder / "copy").write_bytes(b"")
    finally:
        os.umask(before)
    for name in ("file", "folder/copy"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_a_full_disk_when_the_bytes_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_json(tmp_path / "file", {})
    assert caught.value.filename == str(tmp_path / "file")
    assert listing(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with files.writing_folder(path) as folder:
            (folder / content).write_text(content)
            assert content not in (listing(path) if path.exists() else [])
        assert listing(path) == [content]
    assert listing(tmp_path) == ["folder"]


def test_an_unfinished_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with files.writing_folder(path) as folder:
        (folder / "old").touch()

    def interrupted() -> None:
        with files.writing_folder(path) as folder:
            (folder / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert listing(path) == ["old"]
    assert listing(tmp_path) == ["folder"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(VALUES)
def test_canonical_json_reads_back_equal(value: object) -> None:
    assert json.loads(files.canonical_json(value)) == value


def test_canonical_json_does_not_depend_on_order() -> None:
    assert files.canonical_json({"b": 1, "a": 2}) == files.canonical_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.canonical_json(float("nan"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_broken_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    with pytest.raises(CrystalmeshError, match=r"broken.json: missing"):
        files.read_json(path)
    path.write_bytes(content)
    with pytest.raises(CrystalmeshError, match=r"broken.json: not valid JSON"):
        files.read_json(path)


def test_gzip_bytes_hold_neither_time_nor_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_gzip_json(tmp_path / name, {"x": 1.5})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads(gzip.decompress((tmp_path / "a").read_bytes())) == {"x": 1.5}


@given(st.lists(st.floats(allow_nan=False), max_size=5))
def test_csv_floats_read_back_equal(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        files.write_csv(path, ["x", "none"], [(value, None) for value in values])
        rows = files.read_csv(path)
    assert [float(row["x"]) for row in rows] == values
    assert all(row["none"] == "" for row in rows)


def test_tensors_read_back_equal_and_in_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.array([1, 2], dtype=np.uint8)}
    files.write_tensors(tmp_path / "one", tensors, "a note")
    files.write_tensors(tmp_path / "two", dict(reversed(tensors.items())), "a note")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = files.read_tensors(tmp_path / "one")
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    (tmp_path / "one").write_bytes((tmp_path / "one").read_bytes()[:-1])
    with pytest.raises(CrystalmeshError, match="one: damaged"):
        files.read_tensors(tmp_path / "one")
    with pytest.raises(CrystalmeshError, match="none: missing"):
        files.read_tensors(tmp_path / "none")


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * files.CHUNK)
    assert len(files.sha256(path)) == 64
    path.write_bytes(b"")
    # FIPS 180-4, the empty message
    assert files.sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(CrystalmeshError, match="none: missing"):
        files.sha256(tmp_path / "none")
