"""A tiny project with made-up results in every format that the report reads."""

import gzip
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crystalmesh import config, files
from crystalmesh.config import Project
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystal, Crystals, save
from crystalmesh.report import figures, ledger, metrics, paper, published, tables
from crystalmesh.represent.mesh import Canonical, tessellate_supercell

ROOT = Path(__file__).parents[2]
Maker = Callable[..., Project]
DEFAULT = {
    "log_k-cgcnn-all": ("log_k", "cgcnn", "all"),
    "log_k-cgcnn-60": ("log_k", "cgcnn", 60),
    "log_k-mesh_release-60": ("log_k", "mesh_release", 60),
    "space_group-cgcnn-80": ("space_group", "cgcnn", 80),
    "space_group-mesh_release-80": ("space_group", "mesh_release", 80),
    "log_k-mesh_release-canonical-60": ("log_k", "mesh_release", 60),
}
NACL = Crystal(
    id="x-7",
    formula="NaCl",
    lattice=5.64 * np.eye(3),
    numbers=np.array([11, 11, 11, 11, 17, 17, 17, 17]),
    frac=np.array(
        [
            [0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0],
            [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5],
        ]
    ),
)  # fmt: skip


def tree(experiments: dict[str, tuple[str, str, Any]], benchmark: bool) -> dict[str, Any]:
    """params.yaml of the project, with tasks, models and representations of the real one."""
    real = yaml.safe_load((ROOT / "params.yaml").read_text())
    kept = ("validation", "tasks", "representations", "models")
    representation = {"cgcnn": "graph.cgcnn"}
    return {key: real[key] for key in kept} | {
        "datasets": {"toy": {"title": "Toy crystals", "source": "made up", "sha256": "0" * 64}},
        "catalogue": {},
        "benchmarks": {
            "bench_log_k": {
                "dataset": "toy", "task": "log_k", "source": "made up", "sha256": "1" * 64,
            }
        } if benchmark else {},
        "splits": {
            "toy-60-20-20": {
                "dataset": "toy", "split": "60-20-20", "title": "60/20/20",
                "ratio": [3, 1, 1], "seed": 0,
            }
        },
        "features": {},
        "reports": {
            "toy": {
                "title": "A toy report", "dataset": "toy", "numerics": "native",
                "mesh_picture": NACL.id,
                "stability": {"crystals": 3, "displacements": [0.0001, 0.01]},
            }
        },
        "experiments": {
            "toy": {
                name: {
                    "dataset": "toy", "task": task, "split": "60-20-20", "size": size,
                    "representation": "mesh.canonical" if "canonical" in name
                    else representation.get(model, "mesh.published"),
                    "model": model,
                }
                for name, (task, model, size) in experiments.items()
            }
        },
    }  # fmt: skip


def write_crystals(project: Project, n: int) -> None:
    """n crystals that all look like rock salt, with labels at random, and two rejected entries."""
    random = np.random.default_rng(1)
    group = random.choice([225, 221, 62, 2, 139], n, p=[0.5, 0.2, 0.15, 0.1, 0.05]).astype(float)
    modulus = 10 ** random.normal(1.8, 0.4, n)
    modulus[:5] = np.nan
    labels = {name: np.full(n, np.nan) for name in ("mu_b", "gap")}
    labels |= {"k_vrh": modulus, "g_vrh": modulus / 2, "space_group": group}
    labels |= {"e_form": random.normal(-1, 0.5, n)}
    crystals = Crystals(
        dataset="toy",
        entries=n + 2,
        ids=[f"x-{i}" for i in range(n)],
        formulas=["NaCl"] * n,
        lattices=np.stack([NACL.lattice] * n),
        pointer=8 * np.arange(n + 1),
        numbers=np.tile(NACL.numbers, n),
        frac=np.tile(NACL.frac, (n, 1)),
        labels=labels,
    )
    folder = project.crystals("toy")
    folder.mkdir(parents=True)
    save(crystals, folder)
    files.write_csv(
        folder / "rejected.csv",
        ["position", "id", "scope", "reason", "detail"],
        [
            [3, "y-1", "crystal", "no atoms", ""],
            [4, "y-2", "crystal", "duplicate id", "first at position 1"],
            [5, "x-1", "log_k", "outside range", "-3"],
        ],
    )


def write_meshes(project: Project) -> None:
    """The meshes of NaCl in the format of the feature store."""
    canonical = Canonical(project.params.representation("mesh.canonical"))
    for name, arrays in (
        ("mesh.published", tessellate_supercell(NACL.lattice, NACL.frac, NACL.numbers, 5, 0.05)),
        ("mesh.canonical", canonical.build(NACL)),
    ):
        folder = project.features("toy", name)
        tensors = dict(arrays)
        tensors |= {f"{key}.pointer": np.array([0, len(a)]) for key, a in arrays.items()}
        shard = folder / "shard-0000.safetensors"
        files.write_tensors(shard, tensors)
        index = {"ids": [NACL.id], "rejected": {}, "shards": {shard.name: files.sha256(shard)}}
        files.write_json(folder / "index.json", index)


def write_measured(project: Project) -> None:
    """What the stage `stability` and the benchmark leave for the figures."""
    kinds = ("mesh.published", "mesh.canonical")
    files.write_json(
        project.results("toy") / "stability.json",
        {
            "crystals": 3,
            "displacements": [0.0001, 0.01],
            "described anew": dict.fromkeys(kinds, 0.5),
            "displaced": {kind: [0.25, 1.0] for kind in kinds},
        },
    )
    (project.root / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "representations.json", project.root / "benchmarks")


def write_experiment(project: Project, report: str, name: str, spread: float) -> None:
    """Predictions with errors of about `spread`, and the metrics, history, card and checkpoint."""
    experiment = project.params.experiments[report][name]
    task = project.params.tasks[experiment.task]
    crystals = Crystals.load(project.crystals(experiment.dataset))
    parts = splits.select(project, experiment)
    random = np.random.default_rng(len(name))
    label = dict(zip(crystals.ids, crystals.labels[task.label], strict=True))
    true = np.array([label[i] for i in parts.test])
    if task.kind == "classification":
        guess = np.where(random.random(len(true)) < spread, true[0], true)
        rows = [
            [i, "NaCl", int(t), int(p), 0.5]
            for i, t, p in zip(parts.test, true, guess, strict=True)
        ]
        value, metric, unit = 100 * float((guess == true).mean()), "accuracy", "%"
    else:
        true = np.log10(true) if task.transform == "log10" else true
        guess = true + random.normal(0, spread, len(true))
        rows = [
            [i, "NaCl", float(t), float(p)] for i, t, p in zip(parts.test, true, guess, strict=True)
        ]
        value, metric, unit = float(np.abs(guess - true).mean()), "MAE", task.unit
    columns = ["id", "formula", "target", "prediction"]
    columns += ["probability"] if task.kind == "classification" else []
    files.write_csv(project.predictions(report, name), columns, rows)
    decay = spread + np.exp(-np.arange(12) / 3) * (1 + 0.1 * random.normal(size=12))
    shown = 100 * (1 - decay / 2.5) if task.kind == "classification" else decay
    files.write_csv(
        project.history(report, name),
        ["epoch", "train_loss", "val_metric", "lr"],
        [[i, float(x), float(y), 0.01] for i, (x, y) in enumerate(zip(decay, shown, strict=True))],
    )
    counts = {f"n_{k}": len(v) for k, v in vars(parts).items()}
    files.write_json(
        project.metrics(report, name),
        {
            "experiment": name, "dataset": experiment.dataset, "task": experiment.task,
            "fold": 0, "seed": 0,
            "representation": experiment.representation, "model": experiment.model,
            "split": "60/20/20", "size": experiment.size, "metric": metric, "value": value,
            "unit": unit, "parameters": 12345, "epochs": 12, **counts,
        },
    )  # fmt: skip
    files.write_json(
        project.card(report, name),
        {"device": "cpu", "train_seconds": 1.5, "numerics": {"tier": "native", "device": "cpu"}},
    )
    files.write_bytes(project.checkpoint(report, name), b"weights")


def write_benchmark(project: Project) -> None:
    """A benchmark of every other crystal with a bulk modulus, and two algorithms."""
    crystals = Crystals.load(project.crystals("toy"))
    lines = ["mbid,mp_id,fold,target,close,dummy"]
    for i, modulus in zip(crystals.ids, crystals.labels["k_vrh"].tolist(), strict=True):
        if np.isfinite(modulus) and int(i[2:]) % 2:
            lines.append(f"mb-{i},{i},0,{math.log10(modulus)!r},{math.log10(modulus) + 0.25!r},2.0")
    path = project.raw("bench_log_k")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def build_project(
    root: Path,
    experiments: dict[str, tuple[str, str, Any]] | None = None,
    benchmark: bool = True,
    n: int = 160,
) -> Project:
    """Write the whole project below `root` and load it."""
    content = tree(DEFAULT if experiments is None else experiments, benchmark)
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copytree(ROOT / "paper", root / "paper")
    (root / "env").mkdir()
    (root / "env" / "requirements.lock").write_text("numpy==2.4.6\nother==1\ntorch==2.13.0+cpu\n")
    project = config.load(root)
    files.write_bytes(project.raw("toy"), b"raw")
    write_crystals(project, n)
    write_measured(project)
    splits.build(project, "toy-60-20-20")
    names = project.params.experiments["toy"]
    if any(e.representation.startswith("mesh.") for e in names.values()):
        write_meshes(project)
    for name, experiment in names.items():
        write_experiment(project, "toy", name, 0.1 if experiment.model == "cgcnn" else 0.3)
    if benchmark:
        write_benchmark(project)
        content["benchmarks"]["bench_log_k"]["sha256"] = files.sha256(project.raw("bench_log_k"))
        (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        project = config.load(root)
    return project


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Make a project in this test's folder: `make(experiments=..., benchmark=..., n=...)`."""
    return lambda **choices: build_project(tmp_path, **choices)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default project with every stage of its report done; tests leave it as they find it."""
    project = build_project(tmp_path_factory.mktemp("finished"))
    splits.build_folds(project, "bench_log_k")
    published.evaluate(project, "toy", "bench_log_k")
    for stage in (tables, figures, metrics, paper, ledger):
        stage.build(project, "toy")
    return project
