"""crystalmesh.integrity: what no stage wrote is not read."""

from pathlib import Path

import pytest

from crystalmesh import files, integrity
from crystalmesh.errors import CrystalmeshError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(integrity, "_root", None)
    integrity.watch(tmp_path)
    return tmp_path


def test_what_was_written_is_read_and_nothing_else(root: Path) -> None:
    path = root / "results" / "demo" / "predictions" / "x.csv"
    files.write_csv(path, ["id", "prediction"], [("a", 1.5)])
    assert files.read_csv(path) == [{"id": "a", "prediction": "1.5"}]
    path.write_text(path.read_text().replace("1.5", "1.4"))
    for read in (files.read_csv, files.read_bytes, files.verified):
        with pytest.raises(CrystalmeshError, match=r"x.csv: changed since it was written"):
            read(path)
    # written again by a stage, it is good; and so is what was there before it
    files.write_csv(path, ["id", "prediction"], [("a", 1.4)])
    files.read_csv(path)
    path.write_text(path.read_text().replace("1.4", "1.5"))
    files.read_csv(path)


def test_folders_tensors_and_notes(root: Path) -> None:
    import numpy as np

    folder = root / "data" / "features" / "x"
    with files.writing_folder(folder) as temporary:
        files.write_tensors(temporary / "shard.safetensors", {"a": np.arange(3.0)}, "note")
    path = folder / "shard.safetensors"
    assert files.read_tensors(path)["a"].tolist() == [0, 1, 2]
    assert files.read_note(path) == "note"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # still a whole file of its kind
    path.write_bytes(content)
    for read in (files.read_tensors, files.read_note):
        with pytest.raises(CrystalmeshError, match="changed since"):
            read(path)


def test_the_ledger_vouches_for_what_came_with_it(root: Path) -> None:
    """In a clone there is no journal; a file that its ledger does not know is somebody's own."""
    folder = root / "results" / "demo"
    path = folder / "metrics" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text("[1]")
    assert files.read_json(path) == [1]
    ledger = '{"outputs": {"metrics/x.json": "' + files.sha256(path) + '"}}'
    (folder / "ledger.json").write_text(ledger)
    assert files.read_json(path) == [1]
    path.write_text("[2]")
    with pytest.raises(CrystalmeshError, match="changed since"):
        files.read_json(path)
    (folder / "ledger.json").write_text("broken")
    assert files.read_json(path) == [2]


def test_scratch_and_files_elsewhere_are_nobodys_business(root: Path, tmp_path: Path) -> None:
    for path in (root / ".crystalmesh" / "x.json", root / "paper" / "x.json"):
        files.write_json(path, 1)
        path.write_text("2")
        assert files.read_json(path) == 2
    assert not (tmp_path / ".crystalmesh" / "journal").exists()


def test_without_a_project_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_root", None)
    files.write_json(tmp_path / "results" / "x.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_kill_between_journal_and_file_harms_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "results" / "x.json"
    files.write_json(path, 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_json(path, 2)
    assert files.read_json(path) == 1
    files.write_json(path, 2)
    assert files.read_json(path) == 2
