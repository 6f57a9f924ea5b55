"""The pages that say how to extend the project, followed word by word in a copy of it.

The blocks of docs/new-*.md are applied in their order: one with a file's name is that file, one
named params.yaml is added to it, one named src/crystalmesh is a change of that folder, and shell
blocks are run. Only the whole report is made once, in the end, and not after each page.
"""

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from crystalmesh import config
from tests.workflow.conftest import BIN, ROOT, mini

PAGES = ("new-dataset.md", "new-task.md", "new-model.md")
REPORT = "snakemake --cores 2 halides"
EXPERIMENTS = {"log_k-cgcnn": "cgcnn", "k_hard-cgcnn": "cgcnn", "log_k-deepsets": "deepsets"}
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    yield from (Block(*found) for found in BLOCK.findall(text))


def add(tree: dict[str, Any], more: dict[str, Any]) -> None:
    """Put the keys of a block under those that are there already."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            add(tree[key], value)
        else:
            tree[key] = value


def change(folder: Path, diff: str) -> None:
    """Apply hunks, each of which must fit at exactly one place of its file."""
    for file in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@\n|\n@@\n", file)
        path = folder / name.strip()
        text = path.read_text(encoding="utf-8")
        for hunk in hunks:
            lines = hunk.rstrip("\n").split("\n")
            old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
            new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
            assert text.count(old) == 1, f"{path.name}: {old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def shell(root: Path, text: str) -> str:
    """Run commands in the project, with its own copy of the package; what they print."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "CRYSTALMESH"))}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "CRYSTALMESH_MIRROR": str(root / "mirror"),
    }
    ended = subprocess.run(
        ["bash", "-euc", text],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def apply(root: Path, block: Block) -> None:
    if block.title == "params.yaml":
        path = root / "params.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        add(tree, yaml.safe_load(block.text))
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    elif block.language == "diff":
        change(root / block.title, block.text)
    elif block.title:
        (root / block.title).write_text(block.text, encoding="utf-8")
    else:
        assert block.language == "sh"
        commands = [line for line in block.text.splitlines() if line != REPORT]
        shell(root, "\n".join(commands))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = mini(tmp_path_factory.mktemp("extend") / "project")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for page in PAGES:
        assert any(REPORT in block.text for block in blocks(page))
        for block in blocks(page):
            apply(root, block)
    shell(root, REPORT)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_dataset_a_task_and_a_model_come_to_metrics_and_into_the_report(extended: Path) -> None:
    results = extended / "results" / "halides"
    records = {one["experiment"]: one for one in json.loads((results / "metrics.json").read_text())}
    assert {name: one["model"] for name, one in records.items()} == EXPERIMENTS
    assert {one["dataset"] for one in records.values()} == {"halides"}
    assert records["k_hard-cgcnn"]["unit"] == "GPa"
    assert all(one["metric"] == "MAE" and one["n_test"] >= 2 for one in records.values())

    printed = {row["experiment"]: row["task"] for row in rows(results / "tables/experiments.csv")}
    assert printed == {name: name.partition("-")[0] for name in EXPERIMENTS}
    entries = {row["what"]: row["entries"] for row in rows(results / "tables/entries.csv")}
    assert entries == {"read": "16", "accepted": "16"}
    assert (results / "paper.pdf").read_bytes()[:5] == b"%PDF-"
    ledger = json.loads((results / "ledger.json").read_text())
    assert {f"checkpoints/{name}.safetensors" for name in EXPERIMENTS} <= set(ledger["outputs"])
    assert list(json.loads((results / "maps.json").read_text())) != []


def test_the_task_has_only_the_crystals_it_asks_for(extended: Path) -> None:
    content = json.loads((extended / "data/splits/halides/hard.json").read_text())
    ids = [one for part in content["k_hard"]["0"].values() for one in part]
    documents = json.loads((extended / "halides.json").read_text())
    moduli = {one["material_id"]: one["bulk_modulus"]["vrh"] for one in documents}
    assert sorted(ids) == sorted(one for one, modulus in moduli.items() if modulus > 12)
    assert len(ids) < len(moduli)


def test_the_new_label_is_read(extended: Path) -> None:
    said = shell(
        extended,
        """python - <<'END'
import json
from pathlib import Path
from crystalmesh import config
from crystalmesh.config import Task
from crystalmesh.data.entries import chosen
from crystalmesh.data.sources import mpjson
from crystalmesh.data.validation import labels_of
labels = labels_of(config.load(Path.cwd()).params.datasets["halides"])
Task(title="hull", label="e_hull", unit="eV/atom", range=(0, 10))
first = json.loads(Path("halides.json").read_text())[0] | {"energy_above_hull": 0.25}
Path("one.json").write_text(json.dumps([first]))
print(chosen(next(mpjson.read(Path("one.json"))), labels, ()).labels)
END""",
    )
    assert said.splitlines() == ["{'k_vrh': 108.69, 'e_hull': 0.25}"]


def test_the_network_does_not_depend_on_the_order_of_atoms(extended: Path) -> None:
    shell(
        extended,
        """python - <<'END'
import torch
from crystalmesh.models import network
net = network("deepsets", {"shells": 8, "atoms": [32, 32], "head": [16]}, 1).eval()
numbers, distance = torch.tensor([11, 17, 17]), torch.rand(3, 12) * 4 + 2
pointer = torch.tensor([0, 3])
batch = {"pointer": pointer, "numbers": numbers, "distance": distance}
turned = {"pointer": pointer, "numbers": numbers.flip(0), "distance": distance.flip(0)}
torch.testing.assert_close(net(batch), net(turned))
END""",
    )


def test_the_blocks_fit_the_real_settings(tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for page in PAGES:
        for block in blocks(page):
            if block.title == "params.yaml":
                add(tree, yaml.safe_load(block.text))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    params = config.load(tmp_path).params
    assert set(params.group("halides")) == set(EXPERIMENTS)
