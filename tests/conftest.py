"""A tiny project that every stage can run on: thirty made-up crystals, two small networks."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crystalmesh import config
from crystalmesh.config import Project
from crystalmesh.files import sha256

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
SOME = {"dataset": "tiny", "split": "60-20-20", "fold": 0, "size": "all", "seed": 1}
TREE: dict[str, Any] = {
    "datasets": {"tiny": {"title": "tiny", "source": "made up", "file": "tiny.json.gz"}},
    "catalogue": {},
    "benchmarks": {},
    "validation": {"min_distance": 0.5, "symprec": 0.01},
    "tasks": {
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
    "splits": {
        "tiny-60-20-20": {
            "dataset": "tiny",
            "split": "60-20-20",
            "title": "60/20/20",
            "ratio": [3, 1, 1],
            "seed": 0,
        }
    },
    "representations": {
        "mesh": {
            "published": {"symprec": 0.01, "supercell": 5, "tolerance": 0.05},
            "canonical": {"symprec": 0.01, "tolerance": 0.001},
        },
        "graph": {"cgcnn": {"neighbours": 12, "cutoff": 8.0}},
    },
    "features": {
        f"tiny-{name.replace('.', '_')}": {
            "dataset": "tiny",
            "representation": name,
            "split": "60-20-20",
            "sizes": "all",
        }
        for name in ("mesh.published", "mesh.canonical", "graph.cgcnn")
    },
    "models": {
        "cgcnn": {
            "title": "CGCNN",
            "architecture": "cgcnn",
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
    "reports": {
        "demo": {
            "title": "Tiny",
            "dataset": "tiny",
            "numerics": "native",
            "mesh_picture": "mp-1",
            "stability": {"crystals": 4, "displacements": [1.0e-4, 1.0e-2]},
        }
    },
    "experiments": {
        "demo": {
            "log_k-cgcnn": SOME
            | {"task": "log_k", "representation": "graph.cgcnn", "model": "cgcnn"},
            "log_k-mesh": SOME
            | {"task": "log_k", "representation": "mesh.published", "model": "mesh_release"},
            "space_group-cgcnn": SOME
            | {"task": "space_group", "representation": "graph.cgcnn", "model": "cgcnn"},
        }
    },
}


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
def tree() -> dict[str, Any]:
    """The params.yaml of the tiny project, to change at will."""
    return copy.deepcopy(TREE)


def write_project(root: Path, tree: dict[str, Any]) -> Project:
    """Write params.yaml and the raw file under `root` (the mirror is the folder itself)."""
    root.mkdir(parents=True, exist_ok=True)
    raw = root / "tiny.json.gz"
    raw.write_bytes(gzip.compress(json.dumps(documents()).encode(), mtime=0))
    tree["datasets"]["tiny"]["sha256"] = sha256(raw)
    (root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return config.load(root)


@pytest.fixture
def project(tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny project with raw data, crystals and splits, features still to be made."""
    from crystalmesh.data import registry, splits, validation

    root = tmp_path / "project"
    monkeypatch.setenv("CRYSTALMESH_MIRROR", str(root))
    made = write_project(root, tree)
    registry.fetch(made, "tiny", 1)
    validation.build(made, "tiny", 1)
    splits.build(made, "tiny-60-20-20")
    return made
