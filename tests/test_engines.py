"""crystalmesh.engines: what each engine keeps of the other's work; see also tests/workflow."""

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from crystalmesh import engines


def snakemake_made(root: Path, name: str, content: str) -> Path:
    """An output with the record that Snakemake keeps of it."""
    (root / name).write_text(content)
    folder = root / ".snakemake" / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / urlsafe_b64encode(name.encode()).decode()
    record.write_text(json.dumps({"endtime": (root / name).stat().st_mtime}))
    return record


def test_forget_only_what_was_made_again(tmp_path: Path) -> None:
    engines.forget(tmp_path)  # nothing there yet
    kept, newer, gone, broken = (
        snakemake_made(tmp_path, name, name) for name in ("kept", "newer", "gone", "broken")
    )
    os.utime(tmp_path / "newer", (1, 1))
    (tmp_path / "gone").unlink()
    broken.write_text("{")
    engines.forget(tmp_path)
    assert [record.exists() for record in (kept, newer, gone, broken)] == [
        True,
        False,
        False,
        False,
    ]


def test_forget_a_folder_that_was_made_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    snakemake_made(tmp_path, "folder/.snakemake_timestamp", "")
    record = snakemake_made(tmp_path, "of-folder", "")
    record = record.rename(record.with_name(urlsafe_b64encode(b"folder").decode()))
    written = (tmp_path / "folder" / ".snakemake_timestamp").stat().st_mtime
    record.write_text(json.dumps({"endtime": written}))
    os.utime(tmp_path / "folder", (1, 1))  # the folder's own time does not count
    engines.forget(tmp_path)
    assert record.exists()
    (tmp_path / "folder" / ".snakemake_timestamp").unlink()  # as a new folder has none
    engines.forget(tmp_path)
    assert not record.exists()


def test_record_without_dvc_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it tell the DVC of a project around this folder (as `verify` has one)."""
    assert engines.record(tmp_path, {"crystalmesh fetch emt"}) == []
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "x").write_text("1")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {x: {cmd: crystalmesh fetch emt, outs: [{x: {cache: false}}]}}"
    )
    assert engines.record(inner, {"crystalmesh fetch emt"}) == []
    assert not (tmp_path / "dvc.lock").exists()
    (told,) = engines.record(tmp_path, {"crystalmesh fetch emt"})
    assert told.endswith("x")
    assert (tmp_path / "dvc.lock").exists()
    assert capsys.readouterr().err == ""


def test_record_where_dvc_is_broken_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    assert engines.record(tmp_path, {"crystalmesh fetch emt"}) == []
    assert capsys.readouterr().err.startswith("DVC was not told of this run: ")
