"""A tiny project that every stage can run on: thirty made-up crystals, two small networks."""

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crystalmesh.config import plan
from crystalmesh.config.project import Project, load
from crystalmesh.config.schema import Run
from crystalmesh.files import sha256

Tree = dict[str, Any]
SYMBOLS = ["Na", "Cl", "Cu", "O", "Ti", "Fe"]
TRAINING = {
    "optimizer": "adam",
    "lr": 0.01,
    "batch_size": 5,
    "epochs": 3,
    "patience": 3,
    "loss": "l1",
    "standardise": True,
}
# Blocks of config/all.yaml; `models` has a file for each, and `studies` a folder for each.
TREE: Tree = {
    "validation": {"min_distance": 0.5, "symprec": 0.01},
    "datasets": {"tiny": {"title": "tiny", "source": "made up", "file": "tiny.json.gz"}},
    "targets": {
        "e_form": {"title": "energy", "label": "e_form", "unit": "eV/atom", "range": [-10, 10]},
        "log_k": {
            "title": "bulk modulus",
            "label": "k_vrh",
            "transform": "log10",
            "unit": "log10(GPa)",
            "range": [0.001, 10000.0],
        },
        "space_group": {
            "title": "space group",
            "label": "space_group",
            "kind": "classification",
            "classes": 230,
            "unit": "class",
            "range": [1, 230],
        },
    },
    "splits": {"tiny": {"60-20-20": {"title": "60/20/20", "ratio": [3, 1, 1], "seed": 0}}},
    "representations": {
        "mesh": {
            "published": {"symprec": 0.01, "supercell": 5, "tolerance": 0.05},
            "canonical": {"symprec": 0.01, "tolerance": 0.001},
        },
        "graph": {"cgcnn": {"neighbours": 12, "cutoff": 8.0}},
    },
    "features": {"tiny": {"mesh.published": {}, "mesh.canonical": {}, "graph.cgcnn": {}}},
    "models": {
        "cgcnn": {
            "title": "CGCNN",
            "representation": "graph.cgcnn",
            "network": {
                "atom": 8,
                "convolutions": 2,
                "hidden": 8,
                "hidden_layers": 1,
                "gaussian_max": 8.0,
                "gaussian_step": 0.5,
            },
            "training": TRAINING | {"loss": "mse"},
        },
        "mesh_release": {
            "title": "mesh network",
            "architecture": "mesh",
            "representation": "mesh.published",
            "network": {
                "geometry": "edges",
                "atoms": [8, 8],
                "shared": [16, 24],
                "last_activation": False,
                "head": [8],
                "dropout": 0.2,
            },
            "training": TRAINING | {"standardise": False},
        },
    },
    "studies": {
        "demo": {
            "title": "Tiny",
            "dataset": "tiny",
            "numerics": "native",
            # by name; in study.yaml each is a block with its `name`
            "runs": {
                "log_k-cgcnn": {
                    "target": "log_k", "model": "cgcnn", "split": "60-20-20", "seed": 1,
                },
                "log_k-mesh": {
                    "target": "log_k", "model": "mesh_release", "split": "60-20-20", "seed": 1,
                },
                "space_group-cgcnn": {
                    "target": "space_group", "model": "cgcnn", "split": "60-20-20", "seed": 1,
                },
            },
            "report": {"mesh_picture": "mp-1"},
        }
    },
}  # fmt: skip


def documents(count: int = 30) -> dict[str, Any]:
    """Raw MP JSON in matminer's shape: cells of one to three atoms, labels a smooth function."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        atoms = 1 + i % 3
        edge = 3.0 + 0.05 * i
        matrix = np.eye(3) * edge * [1, 1, 1 + 0.1 * (i % 2)]
        frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0]])[:atoms]
        symbols = rng.choice(SYMBOLS, size=atoms).tolist()
        sites = [
            {
                "species": [{"element": symbol, "occu": 1}],
                "abc": place.tolist(),
                "xyz": (place @ matrix).tolist(),
                "label": symbol,
            }
            for symbol, place in zip(symbols, frac, strict=True)
        ]
        structure = {"lattice": {"matrix": matrix.tolist()}, "sites": sites}
        modulus = 400.0 / edge**2 + 10 * atoms
        rows.append(
            [
                f"mp-{i + 1}",
                "".join(symbols),
                -edge / 5,
                None,
                None,
                modulus,
                0.5 * modulus,
                structure,
            ]
        )
    columns = [
        "mpid",
        "formula",
        "e_form",
        "gap pbe",
        "mu_b",
        "bulk modulus",
        "shear modulus",
        "structure",
    ]
    return {"index": list(range(count)), "columns": columns, "data": rows}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The workflow's tests first: files of minutes, of which none should be left for the end."""
    items.sort(key=lambda item: "workflow" not in item.path.parts)


@pytest.fixture
def tree() -> Tree:
    """The settings of the tiny project, to change at will."""
    return copy.deepcopy(TREE)


def write_settings(root: Path, tree: Tree) -> None:
    """Write config/ and studies/ of a tree as it is laid out in TREE, but no plans."""
    (root / "config" / "models").mkdir(parents=True, exist_ok=True)
    shared = {key: block for key, block in tree.items() if key not in ("models", "studies")}
    files = {"config/all.yaml": shared}
    files |= {f"config/models/{name}.yaml": model for name, model in tree["models"].items()}
    for name, study in tree["studies"].items():
        runs = study["runs"]
        if isinstance(runs, dict):
            runs = [block | {"name": run} for run, block in runs.items()]
        files[f"studies/{name}/study.yaml"] = {**study, "runs": runs}
    for place, content in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(copy.deepcopy(content), sort_keys=False), encoding="utf-8")
    (root / "config" / "none").touch()
    (root / "paper").mkdir(exist_ok=True)  # whose files every report reads


def write_project(root: Path, tree: Tree) -> Project:
    """Write the settings, their plans and the raw file under `root` (which is the mirror too).

    Written once more with a changed tree, the project has the new settings.
    """
    root.mkdir(parents=True, exist_ok=True)
    raw = root / "tiny.json.gz"
    raw.write_bytes(gzip.compress(json.dumps(documents()).encode(), mtime=0))
    tree["datasets"]["tiny"]["sha256"] = sha256(raw)
    write_settings(root, tree)
    plan.write(root)
    return load(root)


def run_of(project: Project, name: str) -> Run:
    """A run of the study `demo`."""
    return project.params.run(f"demo/{name}")


@pytest.fixture
def project(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny project with raw data, crystals and splits, features still to be made."""
    from crystalmesh.data import registry, splits, validation

    root = tmp_path / "project"
    monkeypatch.setenv("CRYSTALMESH_MIRROR", str(root))
    made = write_project(root, tree)
    registry.fetch(made, "tiny", 1)
    validation.build(made, "tiny", 1)
    splits.build(made, "tiny", "60-20-20")
    return made


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Tree], Path]:
    """The data of a tree (crystals, splits, all features), made once for each kind of tree."""
    from crystalmesh.data import registry, splits, validation
    from crystalmesh.represent import store

    known: dict[str, Path] = {}

    def make(tree: Tree) -> Path:
        blocks = {key: block for key, block in tree.items() if key not in ("models", "studies")}
        key = json.dumps(blocks, sort_keys=True)
        if key not in known:
            root = tmp_path_factory.mktemp("built")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CRYSTALMESH_MIRROR", str(root))
                project = write_project(root, blocks | {"models": {}, "studies": {}})
                registry.fetch(project, "tiny", 1)
                validation.build(project, "tiny", 1)
                for name in project.params.splits["tiny"]:
                    splits.build(project, "tiny", name)
                for name in project.params.features["tiny"]:
                    store.build(project, "tiny", name, 1)
            known[key] = project.data
        return known[key]

    return make


@pytest.fixture
def renew(tmp_path: Path, built: Callable[[Tree], Path]) -> Callable[[Tree], Project]:
    """Write a tree as the settings of the project, and the data that belong to it."""

    def write(tree: Tree) -> Project:
        project = write_project(tmp_path / "project", tree)
        shutil.copytree(built(tree), project.data, dirs_exist_ok=True)
        return project

    return write


@pytest.fixture
def ready(tree: Tree, renew: Callable[[Tree], Project]) -> Project:
    """The tiny project with all its features."""
    return renew(tree)
