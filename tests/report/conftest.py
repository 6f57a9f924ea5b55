"""A tiny project with made-up results in every format that the report reads."""

import gzip
import json
import math
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from crystalmesh import config, files
from crystalmesh.config import Project
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystal, Crystals, save
from crystalmesh.models import network
from crystalmesh.report import figures, ledger, metrics, paper, published, site, tables
from crystalmesh.represent.mesh import Canonical, tessellate_supercell

ROOT = Path(__file__).parents[2]
Maker = Callable[..., Project]
REPEATED = {"split": "repeated", "fold": "all"}
DEFAULT: dict[str, tuple[Any, ...]] = {
    "log_k-cgcnn-all": ("log_k", "cgcnn", "all"),
    "log_k-cgcnn-60": ("log_k", "cgcnn", 60),
    "log_k-mesh_release-60": ("log_k", "mesh_release", 60),
    "space_group-cgcnn-80": ("space_group", "cgcnn", 80),
    "space_group-mesh_release-80": ("space_group", "mesh_release", 80),
    "log_k-mesh_release-canonical-60": ("log_k", "mesh_release", 60),
    "log_k-forest-60": ("log_k", "forest", 60, {"members": 3}),
    "log_k-cgcnn-bench": ("log_k", "cgcnn", "all", {"split": "bench_log_k", "fold": "all"}),
    "log_k-cgcnn-repeated-50": ("log_k", "cgcnn", 50, REPEATED),
    "log_k-cgcnn-transfer-50": (
        "log_k", "cgcnn", 50,
        REPEATED | {"pretrained": {"group": "toy", "name": "log_k-cgcnn-all"}},
    ),
}  # fmt: skip
NACL = Crystal(
    id="x-7",
    formula="NaCl",
    cell=5.64 * np.eye(3),
    numbers=np.array([11, 11, 11, 11, 17, 17, 17, 17]),
    coordinates=np.array(
        [
            [0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0],
            [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5],
        ]
    ),
)  # fmt: skip


def tree(
    experiments: dict[str, tuple[Any, ...]],
    benchmark: bool,
    predictors: dict[str, tuple[Any, ...]],
) -> dict[str, Any]:
    """params.yaml of the project, with tasks, models and representations of the real one."""
    real = yaml.safe_load((ROOT / "params.yaml").read_text())
    kept = ("validation", "tasks", "representations", "models")
    representation = {"cgcnn": "graph.cgcnn", "forest": "descriptors.structure"}
    blocks = {
        name: {
            "dataset": "toy", "task": task, "split": "60-20-20", "size": size,
            "representation": "mesh.canonical" if "canonical" in name
            else representation.get(model, "mesh.published"),
            "model": model,
        } | (more[0] if more else {})
        for name, (task, model, size, *more) in (experiments | predictors).items()
    }  # fmt: skip
    shipped = {name: blocks.pop(name) for name in predictors}
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
            },
            "toy-repeated": {
                "dataset": "toy", "split": "repeated", "title": "repeated",
                "ratio": [3, 1, 1], "seed": 7, "repeats": 3, "tasks": ["log_k"],
            },
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
            "toy": {k: b for k, b in blocks.items() if "pretrained" not in b},
            "predictors": shipped,
        },
        "transfer": {"toy": {k: b for k, b in blocks.items() if "pretrained" in b}},
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
        coordinates=np.tile(NACL.frac, (n, 1)),
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
    # two clouds of points, as the stage `maps` leaves them
    random = np.random.default_rng(2)
    group = project.params.group("toy")
    files.write_json(
        project.results("toy") / "maps.json",
        {
            name: {
                "ids": [f"x-{i}" for i in range(20)],
                "system": random.integers(0, 7, 20).tolist(),
                "target": random.random(20).tolist(),
                "pca": random.normal(size=(20, 2)).tolist(),
                "tsne": random.normal(size=(20, 2)).tolist(),
                "pca_share": 0.5, "system_accuracy": 60.0, "system_most_frequent": 30.0,
                "target_r2": 0.4,
            }
            for name in list(group)[:2]
        } if "log_k-cgcnn-60" in group else {},
    )  # fmt: skip
    (project.root / "benchmarks").mkdir()
    speeds = {"train_crystals_per_s": 100.0, "predict_crystals_per_s": 1000.0}
    methods = {f"{e.model} {e.representation}" for e in group.values()}
    files.write_json(
        project.root / "benchmarks" / "models.json",
        {
            "machine": {"processor": "a CPU"},
            "tiers": {"native": {"models": dict.fromkeys(sorted(methods), speeds)}},
        },
    )
    shutil.copy(ROOT / "benchmarks" / "representations.json", project.root / "benchmarks")


def write_experiment(project: Project, report: str, name: str, spread: float) -> None:
    """Predictions with errors of about `spread`, and the metrics, history, card and checkpoint."""
    experiment = project.params.experiment(report, name)
    task = project.params.tasks[experiment.task]
    crystals = Crystals.load(project.crystals(experiment.dataset))
    folds = {f: splits.select(project, experiment, f) for f in splits.folds(project, experiment)}
    parts = next(iter(folds.values()))
    random = np.random.default_rng(zlib.crc32(name.encode()))
    label = dict(zip(crystals.ids, crystals.labels[task.label], strict=True))
    where = [(f, i) for f, part in folds.items() for i in part.test]
    true = np.array([label[i] for _, i in where])
    table: dict[str, Any] = {
        "id": [i for _, i in where],
        "p_value": random.random(len(true)).tolist(),
    }
    if experiment.fold == "all":
        table["fold"] = [f for f, _ in where]
    else:
        table["formula"] = ["NaCl"] * len(true)
    if task.kind == "classification":
        guess = np.where(random.random(len(true)) < spread, true[0], true)
        table |= {"target": true.astype(int).tolist(), "prediction": guess.astype(int).tolist()}
        table |= {"probability": [0.5] * len(true), "set": [f"2 {int(g)}" for g in guess]}
        value, metric, unit = 100 * float((guess == true).mean()), "accuracy", "%"
    else:
        true = np.log10(true) if task.transform == "log10" else true
        guess = true + random.normal(0, spread, len(true))
        table |= {"target": true.tolist(), "prediction": guess.tolist()}
        table |= {"lower": (guess - spread).tolist(), "upper": (guess + spread).tolist()}
        for k in range(experiment.members or 0):
            table[f"member_{k}"] = (guess + 0.01 * k).tolist()
        value, metric, unit = float(np.abs(guess - true).mean()), "MAE", task.unit
    rows = list(zip(*table.values(), strict=True))
    files.write_csv(project.predictions(report, name), list(table), rows)
    decay = spread + np.exp(-np.arange(12) / 3) * (1 + 0.1 * random.normal(size=12))
    shown = 100 * (1 - decay / 2.5) if task.kind == "classification" else decay
    files.write_csv(
        project.history(report, name),
        ["epoch", "train_loss", "val_metric", "lr"],
        [[i, float(x), float(y), 0.01] for i, (x, y) in enumerate(zip(decay, shown, strict=True))],
    )
    counts = {f"n_{k}": len(v) for k, v in vars(parts).items() if k != "calibration"}
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


def write_network(project: Project, group: str, name: str) -> None:
    """The checkpoint of a network that has learned nothing."""
    experiment = project.params.experiment(group, name)
    settings = project.params.settings(experiment)
    torch.manual_seed(zlib.crc32(name.encode()))
    outputs = project.params.tasks[experiment.task].outputs
    net = network(settings["model"]["architecture"], settings["model"]["network"], outputs)
    tensors = {key: value.numpy() for key, value in net.state_dict().items()}
    note = json.dumps(settings | {"mean": 1.8, "std": 0.4})
    files.write_tensors(project.checkpoint(group, name), tensors, note)


def write_benchmark(project: Project) -> None:
    """A benchmark of every other crystal with a bulk modulus, and two algorithms."""
    crystals = Crystals.load(project.crystals("toy"))
    lines = ["mbid,mp_id,fold,target,close,dummy"]
    for i, modulus in zip(crystals.ids, crystals.labels["k_vrh"].tolist(), strict=True):
        if np.isfinite(modulus) and (number := int(i[2:])) % 2:
            fold = number // 2 % 3
            lines.append(
                f"mb-{i},{i},{fold},{math.log10(modulus)!r},{math.log10(modulus) + 0.25!r},2.0"
            )
    path = project.raw("bench_log_k")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def build_project(
    root: Path,
    experiments: dict[str, tuple[Any, ...]] | None = None,
    benchmark: bool = True,
    n: int = 160,
    predictors: dict[str, tuple[Any, ...]] | None = None,
) -> Project:
    """Write the whole project below `root` and load it."""
    content = tree(DEFAULT if experiments is None else experiments, benchmark, predictors or {})
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copytree(ROOT / "paper", root / "paper")
    (root / "env").mkdir()
    (root / "env" / "requirements.lock").write_text("numpy==2.4.6\nother==1\n")
    (root / "env" / "torch.txt").write_text("torch==2.13.0+cpu\n")
    project = config.load(root)
    files.write_bytes(project.raw("toy"), b"raw")
    write_crystals(project, n)
    write_measured(project)
    for key in project.params.splits:
        splits.build(project, key)
    names = project.params.group("toy")
    if any(e.representation.startswith("mesh.") for e in names.values()):
        write_meshes(project)
    if benchmark:
        write_benchmark(project)
        content["benchmarks"]["bench_log_k"]["sha256"] = files.sha256(project.raw("bench_log_k"))
        (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        project = config.load(root)
        splits.build_folds(project, "bench_log_k")
    for name, experiment in names.items():
        write_experiment(project, "toy", name, 0.1 if experiment.model == "cgcnn" else 0.3)
    return project


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Make a project in this test's folder: `make(experiments=..., benchmark=..., n=...)`."""
    return lambda **choices: build_project(tmp_path, **choices)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default project with every stage of its report done; tests leave it as they find it."""
    project = build_project(tmp_path_factory.mktemp("finished"))
    published.evaluate(project, "toy", "bench_log_k")
    for stage in (tables, figures, metrics, paper, ledger):
        stage.build(project, "toy")
    return project


def finished_site(finished: Project, root: Path) -> Project:
    """A copy of the finished project with two crystals in its viewer, and its site made."""
    shutil.copytree(finished.root, root)
    pair = ("log_k-mesh_release-60", "log_k-mesh_release-canonical-60")
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["site"] = {
        "toy": {
            "dataset": "toy",
            "crystals": ["x-7", "x-3"],
            "networks": [{"group": "toy", "name": name} for name in pair],
        }
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    project = config.load(root)
    for name in pair:
        write_network(project, "toy", name)
    site.build(project, "toy")
    return project
