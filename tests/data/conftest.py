"""Raw files of a few crystals, and a project whose settings declare what a test needs."""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from crystalmesh.config import plan
from crystalmesh.config.project import Project, load
from tests.conftest import write_settings

Tree = dict[str, Any]
COLUMNS = [
    "mpid", "formula", "e_form", "gap pbe", "mu_b", "bulk modulus", "shear modulus", "structure",
]  # fmt: skip
TARGETS: Tree = {
    "e_form": {"title": "energy", "label": "e_form", "unit": "eV/atom", "range": [-10.0, 10.0]},
    "gap": {"title": "gap", "label": "gap", "unit": "eV", "range": [0.0, 20.0]},
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
}
SPLIT: Tree = {"title": "60/20/20", "ratio": [3, 1, 1], "seed": 0}


def structure(
    species: Sequence[Any] = ("Na", "Cl"),
    frac: Sequence[Sequence[Any]] = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
    lattice: Any = ((3.5, 0.0, 0.0), (0.0, 3.5, 0.0), (0.0, 0.0, 3.5)),
) -> Tree:
    """A pymatgen dictionary; a species is a name, or the whole list of a site's species."""
    sites = [
        {"species": [{"element": s, "occu": 1}] if isinstance(s, str) else s, "abc": list(place)}
        for s, place in zip(species, frac, strict=True)
    ]
    return {"lattice": {"matrix": [list(row) for row in lattice]}, "sites": sites}


def row(
    name: Any, structure: Any, *, e_form: Any = -1.0, gap: Any = 2.0, k: Any = 50.0
) -> list[Any]:
    """One row of matminer's dataframe."""
    return [name, "?", e_form, gap, 0.5, k, 20.0, structure]


def dataframe(rows: Sequence[list[Any]]) -> Tree:
    """matminer's dataframe JSON."""
    return {"index": list(range(len(rows))), "columns": COLUMNS, "data": list(rows)}


def documents(rows: Sequence[list[Any]]) -> list[Tree]:
    """The same entries as summary documents of the Materials Project API."""
    return [
        {
            "material_id": name,
            "formula_pretty": formula,
            "formation_energy_per_atom": e_form,
            "band_gap": gap,
            "total_magnetization": mu_b,
            "bulk_modulus": None if k is None else {"voigt": k, "reuss": k, "vrh": k},
            "shear_modulus": {"vrh": g},
            "symmetry": {"number": 1},
            "structure": crystal,
        }
        for name, formula, e_form, gap, mu_b, k, g, crystal in rows
    ]


def many(count: int) -> list[list[Any]]:
    """Rows of tetragonal NaCl-like cells that differ in their height; every third has a modulus."""
    return [
        row(
            f"mp-{i}",
            structure(lattice=((3.5, 0, 0), (0, 3.5, 0), (0, 0, 3.5 + i / 10))),
            e_form=-i / 100,
            k=10.0 + i if i % 3 == 0 else None,
        )
        for i in range(1, count + 1)
    ]


def packed(content: Any) -> bytes:
    """JSON, gzip-compressed without a time in it."""
    return gzip.compress(json.dumps(content).encode(), mtime=0)


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    """A project with one dataset `tiny` of these bytes in its mirror, and more blocks if given."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("CRYSTALMESH_MIRROR", str(mirror))

    def make(raw: bytes, **blocks: Tree) -> Project:
        (mirror / "tiny.json.gz").write_bytes(raw)
        tiny = {
            "title": "tiny",
            "source": "made up",
            "file": "tiny.json.gz",
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        tree: Tree = {
            "datasets": {"tiny": tiny},
            "validation": {"min_distance": 0.5, "symprec": 0.01},
            "targets": TARGETS,
            "splits": {"tiny": {"60-20-20": SPLIT}},
            "representations": {"graph": {"cgcnn": {}}},
            "features": {},
            "models": {},
            "studies": {},
        }
        for block, values in blocks.items():
            tree[block] = tree.get(block, {}) | values
        root = tmp_path / "project"
        write_settings(root, tree)
        plan.write(root)
        return load(root)

    return make
