"""crystalmesh.provenance.crate: the results described for machines and people."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from crystalmesh.config.project import load
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_json, sha256
from crystalmesh.provenance import crate
from tests.workflow.conftest import first, forks

__all__ = ["first", "forks"]


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(first, root)
    (root / ".gitignore").unlink(missing_ok=True)  # ours leaves checkpoints out
    crate.build(load(root), "demo")
    return root


def test_a_maintained_reader_finds_files_and_trainings(root: Path) -> None:
    folder = root / "results" / "demo"
    read = ROCrate(str(folder))
    ledger, cards = read_json(folder / "ledger.json"), list((folder / "cards").iterdir())
    files = {one.id: one["sha256"] for one in read.data_entities if "File" in str(one.type)}
    assert set(files) == set(ledger["outputs"])
    assert all(digest == sha256(folder / name) for name, digest in files.items())
    actions = [one for one in read.contextual_entities if one.type == "CreateAction"]
    assert len(actions) == len(cards) == 4
    for action in actions:
        name = action["name"].removeprefix("training of ")
        assert f"checkpoints/{name}.safetensors" in {one.id for one in action["result"]}
        known = {*ledger["data"].values(), *files.values()}  # of a transfer's source
        assert {one["sha256"] for one in action["object"]} <= known
        settings = json.loads(action["description"])
        assert settings == read_json(folder / "cards" / f"{name}.json")["settings"]
        assert action["instrument"]["name"] == "crystalmesh"
    assert read.root_dataset["datePublished"].startswith("20")


def test_what_git_leaves_out_is_no_part_of_it(root: Path) -> None:
    """Whether the file is here or not, so that all who make the report get the same crate."""
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    folder = root / "results" / "demo"
    left = min(f"checkpoints/{path.name}" for path in (folder / "checkpoints").iterdir())
    (root / ".gitignore").write_text(f"/results/*/{left}\n")
    for present in (True, False):
        if not present:
            (folder / left).unlink()
        crate.build(load(root), "demo")
        graph = json.loads((folder / crate.METADATA).read_text())["@graph"]
        assert left not in json.dumps(graph)
        expected = set(read_json(folder / "ledger.json")["outputs"]) - {left}
        assert {one["@id"] for one in graph if one["@type"] == "File"} == expected


def test_made_again_it_is_the_same(root: Path) -> None:
    folder = root / "results" / "demo"
    before = {name: (folder / name).read_bytes() for name in (crate.METADATA, crate.README)}
    crate.build(load(root), "demo")
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_the_page_has_a_line_a_run(root: Path) -> None:
    text = (root / "results" / "demo" / "README.md").read_text()
    metrics = read_json(root / "results" / "demo" / "metrics.json")
    for one in metrics:
        (line,) = [line for line in text.splitlines() if f"cards/{one['run']}.json" in line]
        assert f"{one['value']:.4g} {one['unit']}" in line


def test_a_card_without_its_facts_is_named(root: Path) -> None:
    path = next((root / "results" / "demo" / "cards").iterdir())
    path.write_text("{}")
    with pytest.raises(CrystalmeshError, match="has no"):
        crate.build(load(root), "demo")
    (root / "CITATION.cff").write_text("title: x")
    with pytest.raises(CrystalmeshError, match="no authors or date-released"):
        crate._citation(root)
