"""The ledger: every output, and nothing that changes from run to run."""

import hashlib
import shutil
from pathlib import Path

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project, load
from crystalmesh.errors import CrystalmeshError
from crystalmesh.provenance import ledger, software
from tests.conftest import run_of
from tests.workflow.conftest import first, forks

__all__ = ["first", "forks"]


@pytest.fixture
def made(first: Path, tmp_path: Path) -> Project:
    """A copy of the tiny report, with all that its stages made."""
    root = tmp_path / "project"
    shutil.copytree(first, root)
    return load(root)


def test_ledger_holds_every_compared_file(made: Project) -> None:
    folder = made.results("demo")
    content = files.read_json(folder / "ledger.json")
    assert (content["study"], content["numerics"]) == ("demo", "portable")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    skipped = content["not_compared"]
    assert set(content["outputs"]) == {p for p in there if p.split("/")[0] not in skipped}
    for name, digest in content["outputs"].items():
        if not name.startswith("checkpoints/"):
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    for name, digest in content["data"].items():
        assert hashlib.sha256((made.root / name).read_bytes()).hexdigest() == digest
    kinds = {name.split("/")[1] for name in content["data"]}
    assert kinds == {"raw", "crystals", "splits", "features"}
    runs = made.params.study("demo").runs
    assert set(content["settings"]) == {*runs, "report"}
    assert set(content["runs"]) == set(runs)


def test_of_a_checkpoint_the_content_counts_and_not_its_note(made: Project) -> None:
    path = made.checkpoint(run_of(made, "log_k-cgcnn"))
    tensors, before = files.read_tensors(path), ledger.checksum(path)
    name = min(tensors)
    files.write_tensors(path, tensors, "another note")
    assert ledger.checksum(path) == before
    files.write_tensors(path, tensors | {name: tensors[name] + 1})
    assert ledger.checksum(path) != before


def test_other_wall_times_and_leftovers_change_nothing(made: Project) -> None:
    book = made.results("demo") / "ledger.json"
    before = book.read_bytes()
    card = made.card(run_of(made, "log_k-cgcnn"))
    files.write_json(card, files.read_json(card) | {"train_seconds": 99.0})
    (made.results("demo") / "history" / "old.csv").write_text("epoch\n")
    ledger.build(made, "demo")
    assert book.read_bytes() == before


def test_a_missing_output_is_one_line(made: Project) -> None:
    made.history(run_of(made, "log_k-mesh")).unlink()
    with pytest.raises(CrystalmeshError, match=r"log_k-mesh\.csv: missing"):
        ledger.build(made, "demo")


def test_a_checkpoint_that_is_not_published_keeps_its_checksum(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing else of its run has changed; a published one must be there."""
    run = run_of(made, "log_k-mesh")
    path, book = made.checkpoint(run), made.results("demo") / "ledger.json"
    monkeypatch.setattr(software, "ignored", lambda one: one == path)
    ledger.build(made, "demo")
    before, place = book.read_bytes(), "checkpoints/log_k-mesh.safetensors"
    assert place in files.read_json(book)["outputs"]
    assert place not in files.read_json(book)["files"]
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(software, "ignored", lambda one: False)  # noqa: ARG005
        with pytest.raises(CrystalmeshError, match=r"log_k-mesh.*missing"):
            ledger.build(made, "demo")
    ledger.build(made, "demo")
    assert book.read_bytes() == before
    # with another history nothing is known of it, and the ledger says nothing
    history = made.history(run)
    history.write_bytes(history.read_bytes() + b"9,0.1,0.1,0.1\n")
    ledger.build(made, "demo")
    assert place not in files.read_json(book)["outputs"]
