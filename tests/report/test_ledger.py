"""The ledger: every output, and nothing that changes from run to run."""

import hashlib
import json

import pytest

from crystalmesh import files, provenance
from crystalmesh.config import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import ledger


def test_ledger_holds_every_compared_file(finished: Project) -> None:
    folder = finished.results("toy")
    content = files.read_json(folder / "ledger.json")
    assert (content["report"], content["numerics"]) == ("toy", "native")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    skipped = content["not_compared"]
    assert set(content["outputs"]) == {p for p in there if p.split("/")[0] not in skipped}
    for name, digest in content["outputs"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    for name, digest in content["data"].items():
        assert hashlib.sha256((finished.root / name).read_bytes()).hexdigest() == digest
    assert {name.split("/")[1] for name in content["data"]} == {"raw", "crystals", "splits"}
    assert content["settings"]["tasks"] == ledger.checksum(finished, "tasks")
    assert "experiments.toy.log_k-cgcnn-all" in content["settings"]
    assert content["experiments"]["log_k-cgcnn-all"] == {"tier": "native", "device": "cpu"}


def test_other_wall_times_and_leftovers_change_nothing(finished: Project) -> None:
    folder = finished.results("toy")
    before = (folder / "ledger.json").read_bytes()
    card, leftover = finished.card("toy", "log_k-cgcnn-all"), folder / "history" / "old.csv"
    content = files.read_json(card)
    files.write_json(card, content | {"train_seconds": 99.0})
    leftover.write_text("epoch\n")
    ledger.build(finished, "toy")
    leftover.unlink()
    files.write_json(card, content)
    assert (folder / "ledger.json").read_bytes() == before


def test_a_missing_output_is_one_line(finished: Project) -> None:
    path = finished.history("toy", "log_k-cgcnn-60")
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(CrystalmeshError, match=r"log_k-cgcnn-60\.csv: missing"):
        ledger.build(finished, "toy")
    path.write_bytes(content)


def test_a_checkpoint_that_is_not_published_keeps_its_checksum(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing else of its experiment has changed; a published one must be there."""
    name = "log_k-mesh_release-60"
    path = finished.checkpoint("toy", name)
    book = finished.results("toy") / "ledger.json"
    before, weights = book.read_bytes(), path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(CrystalmeshError, match=f"{name}.*missing"):
            ledger.build(finished, "toy")
        monkeypatch.setattr(provenance, "ignored", lambda one: one == path)
        ledger.build(finished, "toy")
        assert book.read_bytes() == before
        history = finished.history("toy", name)
        rows = history.read_bytes()
        history.write_bytes(rows + b"9,0.1,0.1,0.1\n")
        try:
            with pytest.raises(CrystalmeshError, match=f"{name}.*missing"):
                ledger.build(finished, "toy")
        finally:
            history.write_bytes(rows)
        content = files.read_json(book)
        content["settings"][f"experiments.toy.{name}"] = "0" * 64
        book.write_text(json.dumps(content))
        with pytest.raises(CrystalmeshError, match=f"{name}.*missing"):
            ledger.build(finished, "toy")
    finally:
        path.write_bytes(weights)
        book.write_bytes(before)
