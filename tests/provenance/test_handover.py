"""crystalmesh.provenance.handover: what each engine keeps of the other's work."""

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from crystalmesh.provenance import handover


def snakemake_made(root: Path, name: str, content: str) -> Path:
    """An output with the record that Snakemake keeps of it."""
    (root / name).write_text(content)
    folder = root / ".snakemake" / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / urlsafe_b64encode(name.encode()).decode()
    record.write_text(json.dumps({"endtime": (root / name).stat().st_mtime}))
    return record


def test_forget_only_what_was_made_again(tmp_path: Path) -> None:
    handover.forget(tmp_path)  # nothing there yet
    kept, newer, gone, broken = (
        snakemake_made(tmp_path, name, name) for name in ("kept", "newer", "gone", "broken")
    )
    os.utime(tmp_path / "newer", (1, 1))
    (tmp_path / "gone").unlink()
    broken.write_text("{")
    handover.forget(tmp_path)
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
    handover.forget(tmp_path)
    assert record.exists()
    (tmp_path / "folder" / ".snakemake_timestamp").unlink()  # as a new folder has none
    handover.forget(tmp_path)
    assert not record.exists()


def test_record_without_dvc_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it tell the DVC of a project around this folder (as `verify` has one)."""
    assert handover.record(tmp_path, {"crystalmesh fetch emt"}) == []
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "x").write_text("1")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {x: {cmd: crystalmesh fetch emt, outs: [{x: {cache: false}}]}}"
    )
    assert handover.record(inner, {"crystalmesh fetch emt"}) == []
    assert not (tmp_path / "dvc.lock").exists()
    (told,) = handover.record(tmp_path, {"crystalmesh fetch emt"})
    assert told.endswith("x")
    assert (tmp_path / "dvc.lock").exists()
    assert capsys.readouterr().err == ""


def test_record_where_dvc_is_broken_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    assert handover.record(tmp_path, {"crystalmesh fetch emt"}) == []
    assert capsys.readouterr().err.startswith("DVC was not told of this run: ")


def test_each_file_of_stages_gets_the_lock_of_its_own_stages(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
        stage = f"{{cmd: crystalmesh fetch {name}, outs: [{{x: {{cache: false}}}}]}}"
        (tmp_path / name / "dvc.yaml").write_text(f"stages: {{{name}: {stage}}}")
    # in a process of its own: DVC logs to the stream that it was first loaded with
    record = """
from pathlib import Path
from crystalmesh.provenance.handover import record
commands = {"crystalmesh fetch one", "crystalmesh fetch other"}
print(*(len(record(Path.cwd(), commands)) for _ in "12"))
"""
    ended = subprocess.run(
        [sys.executable, "-c", record], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[-1] == "2 0"
    for name in ("one", "other"):
        lock = (tmp_path / name / "dvc.lock").read_text()
        assert [line.strip() for line in lock.splitlines() if "fetch" in line] == [
            f"cmd: crystalmesh fetch {name}"
        ]
