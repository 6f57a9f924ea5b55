"""The pages that say how to extend the project, followed word by word in a copy of it.

The blocks of docs/new-*.md are applied in their order: one with a file's name is that file, a YAML
block is added to it where it is there already (lists are made longer), and shell blocks are run.
Whole studies are made once by Snakemake, in the end, and not on each page; DVC makes one as its
page says.
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

from crystalmesh.config import plan
from tests.workflow.conftest import BIN, ROOT, copy_project, mini
from tests.workflow.forks import Forks

# By page, the study that it makes.
PAGES = {
    "new-study.md": "alloys",
    "new-dataset.md": "halides",
    "new-target.md": "halides",
    "new-model.md": "halides",
}
RUNS = {"log_k-cgcnn": "cgcnn", "k_hard-cgcnn": "cgcnn", "log_k-deepsets": "deepsets"}
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
        elif isinstance(value, list) and isinstance(tree.get(key), list):
            tree[key] = tree[key] + value
        else:
            tree[key] = value


def shell(root: Path, text: str, path: str = f"{BIN}{os.pathsep}{os.environ['PATH']}") -> str:
    """Run commands in the project, with its own copy of the package; what they print."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "CRYSTALMESH"))}
    environment |= {
        "PATH": path,
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


def put(root: Path, block: Block) -> None:
    """Write the file of a block, or add the block to it."""
    path = root / block.title
    if block.language == "yaml" and path.exists():
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        add(tree, yaml.safe_load(block.text))
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def whole(study: str) -> str:
    return f"snakemake --cores 2 {study}"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = mini(tmp_path_factory.mktemp("extend") / "project")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    forks = Forks(root / "src")
    for page, study in PAGES.items():
        assert any(whole(study) in block.text for block in blocks(page))
        for block in blocks(page):
            if block.title:
                put(root, block)
                if block.title.startswith("src/"):  # to be imported anew
                    forks.close()
                    forks = Forks(root / "src")
                continue
            assert block.language == "sh"
            lines = [line for line in block.text.splitlines() if line != whole(study)]
            shell(root, "\n".join(lines), forks.path)
    shell(root, whole("alloys halides"), forks.path)
    forks.close()
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_dataset_a_target_and_a_model_come_to_metrics_and_into_the_report(extended: Path) -> None:
    results = extended / "results" / "halides"
    records = {one["run"]: one for one in json.loads((results / "metrics.json").read_text())}
    assert {name: one["model"] for name, one in records.items()} == RUNS
    assert {one["dataset"] for one in records.values()} == {"halides"}
    assert records["k_hard-cgcnn"]["unit"] == "GPa"
    assert all(one["metric"] == "MAE" and one["n_test"] >= 2 for one in records.values())

    printed = {row["run"]: row["target"] for row in rows(results / "tables/runs.csv")}
    assert printed == {name: name.partition("-")[0] for name in RUNS}
    entries = {row["what"]: row["entries"] for row in rows(results / "tables/entries.csv")}
    assert entries == {"read": "16", "accepted": "16"}
    assert (results / "paper.pdf").read_bytes()[:5] == b"%PDF-"
    ledger = json.loads((results / "ledger.json").read_text())
    assert {f"checkpoints/{name}.safetensors" for name in RUNS} <= set(ledger["outputs"])
    assert list(json.loads((results / "embeddings.json").read_text())) != []


def test_a_study_is_a_folder_with_its_own_table_and_text(extended: Path) -> None:
    results = extended / "results" / "alloys"
    worst = {row["run"]: float(row["error"]) for row in rows(results / "tables/worst.csv")}
    for name, error in worst.items():
        target = name.partition("-")[0]
        predicted = rows(results / "predictions" / name / f"{target}.csv")
        errors = [abs(float(row["prediction"]) - float(row["target"])) for row in predicted]
        assert error == pytest.approx(max(errors))
    assert set(worst) == {"e_form-cgcnn", "log_k-cgcnn"}
    assert (results / "paper.pdf").read_bytes()[:5] == b"%PDF-"


def test_the_target_has_only_the_crystals_it_asks_for(extended: Path) -> None:
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
from crystalmesh.config.project import load
from crystalmesh.data.entries import chosen
from crystalmesh.data.sources import mpjson
from crystalmesh.data.validation import labels_of
labels = labels_of(load(Path.cwd()).params.datasets["halides"])
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
    """Beside all models, targets and studies of the project, none of which they change."""
    root = copy_project(tmp_path / "project")
    before = plan.fresh(root).params
    for page in PAGES:
        for block in blocks(page):
            if block.title:
                put(root, block)
    params = plan.fresh(root).params
    assert set(params.study("halides").runs) == set(RUNS)
    assert set(params.study("alloys").runs) == {"e_form-cgcnn", "log_k-cgcnn"}
    assert {name: params.studies[name] for name in before.studies} == before.studies
    assert {name: params.models[name] for name in before.models} == before.models
