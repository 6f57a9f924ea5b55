"""A tiny project with made-up results in every format that the report reads."""

import gzip
import importlib
import json
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from crystalmesh import files
from crystalmesh.config import plan
from crystalmesh.config import project as folder
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.data import splits
from crystalmesh.data.crystals import Crystal, Crystals, save
from crystalmesh.learn import published
from crystalmesh.learn.predict import FORMAT
from crystalmesh.models import network
from crystalmesh.report import document, metrics, tables
from crystalmesh.represent.mesh import Canonical, tessellate_supercell

ROOT = Path(__file__).parents[2]
STUDY = "toy"
Maker = Callable[..., Project]
Runs = dict[str, dict[str, Any]]


def run(target: str, model: str, size: Any, **more: Any) -> dict[str, Any]:
    """A block of study.yaml; several targets of one network are parted by commas."""
    targets = target.split(",")
    key = {"target": target} if len(targets) == 1 else {"targets": targets}
    return key | {"model": model, "size": size} | more


CANONICAL: dict[str, Any] = {"representation": "mesh.canonical"}
REPEATED: dict[str, Any] = {"split": "repeated", "fold": "all"}
DEFAULT: Runs = {
    "log_k-cgcnn-all": run("log_k", "cgcnn", "all"),
    "log_k-cgcnn-60": run("log_k", "cgcnn", 60),
    "log_k-mesh_release-60": run("log_k", "mesh_release", 60),
    "space_group-cgcnn-80": run("space_group", "cgcnn", 80),
    "space_group-mesh_release-80": run("space_group", "mesh_release", 80),
    "log_k-mesh_release-canonical-60": run("log_k", "mesh_release", 60, **CANONICAL),
    "log_k-random_forest-60": run("log_k", "random_forest", 60, members=3),
    "log_k-cgcnn-bench": run("log_k", "cgcnn", "all", split="bench_log_k", fold="all"),
    "log_k-cgcnn-repeated-50": run("log_k", "cgcnn", 50, **REPEATED),
    "log_k-cgcnn-pretrained-50": run(
        "log_k", "cgcnn", 50, start=f"{STUDY}/log_k-cgcnn-all", **REPEATED
    ),
}
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
REPORT: dict[str, Any] = {
    "mesh_picture": NACL.id,
    "stability": {
        "representations": ["mesh.published", "mesh.canonical"],
        "systems": 3,
        "displacements": [0.0001, 0.01],
    },
}


def write_settings(
    root: Path, runs: Runs, report: Mapping[str, Any], like: str | None, digest: str | None
) -> Project:
    """config/ with the real targets, models and representations, and one study; the plans.

    Args:
        root: an empty folder.
        runs: of the study, by name.
        report: of the study.
        like: a real study, whose own tables, figures, text and published values it gets.
        digest: of the benchmark's file; None: there is no benchmark.
    """
    config = root / "config"
    if not config.exists():
        shutil.copytree(ROOT / "config" / "models", config / "models")
        shutil.copy(ROOT / "config" / "targets.yaml", config)
        shutil.copy(ROOT / "config" / "none", config)
        own = root / "studies" / STUDY
        own.mkdir(parents=True)
        for path in sorted((ROOT / "studies" / like).glob("*")) if like else ():
            if path.suffix in (".py", ".typ") or path.name == "published.yaml":
                shutil.copy(path, own)
    real = yaml.safe_load((ROOT / "config" / "representations.yaml").read_text())
    names = [f"{m}.{v}" for m, variants in real["representations"].items() for v in variants]
    split = {"title": "60/20/20", "ratio": [3, 1, 1], "seed": 0}
    bench = {"dataset": STUDY, "target": "log_k", "source": "made up", "sha256": digest}
    content = {
        "datasets": {STUDY: {"title": "Toy crystals", "source": "made up", "sha256": "0" * 64}},
        "validation": {"min_distance": 0.5, "symprec": 0.01},
        "representations": real["representations"],
        "features": {STUDY: {"all": names}},
        "benchmarks": {"bench_log_k": bench} if digest else {},
        "splits": {
            STUDY: {
                "60-20-20": split,
                "repeated": split
                | {"title": "repeated", "seed": 7, "repeats": 3, "targets": ["log_k"]},
            }
        },
    }
    (config / "toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    blocks = [{"name": name, "split": "60-20-20"} | block for name, block in runs.items()]
    study = {
        "title": "A toy report", "dataset": STUDY, "numerics": "native", "runs": blocks,
        "report": dict(report),
    }  # fmt: skip
    path = root / "studies" / STUDY / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    plan.write(root)
    return folder.load(root)


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
        dataset=STUDY,
        entries=n + 2,
        ids=[f"x-{i}" for i in range(n)],
        formulas=["NaCl"] * n,
        lattices=np.stack([NACL.lattice] * n),
        pointer=8 * np.arange(n + 1),
        numbers=np.tile(NACL.numbers, n),
        coordinates=np.tile(NACL.frac, (n, 1)),
        labels=labels,
    )
    folder = project.crystals(STUDY)
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
        folder = project.features(STUDY, name)
        tensors = dict(arrays)
        tensors |= {f"{key}.pointer": np.array([0, len(a)]) for key, a in arrays.items()}
        shard = folder / "shard-0000.safetensors"
        files.write_tensors(shard, tensors)
        index = {"ids": [NACL.id], "rejected": {}, "shards": {shard.name: files.sha256(shard)}}
        files.write_json(folder / "index.json", index)


def write_measured(project: Project) -> None:
    """What the stages `stability` and `embed` and the benchmark leave for the figures."""
    kinds = ("mesh.published", "mesh.canonical")
    files.write_json(
        project.results(STUDY) / "stability.json",
        {
            "crystals": 3,
            "displacements": [0.0001, 0.01],
            "described anew": dict.fromkeys(kinds, 0.5),
            "displaced": {kind: [0.25, 1.0] for kind in kinds},
        },
    )
    # two clouds of points
    random = np.random.default_rng(2)
    runs = project.params.study(STUDY).runs
    files.write_json(
        project.results(STUDY) / "embeddings.json",
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
            for name in list(runs)[:2]
        } if "log_k-cgcnn-60" in runs else {},
    )  # fmt: skip
    (project.root / "benchmarks").mkdir()
    speeds = {"train_crystals_per_s": 100.0, "predict_crystals_per_s": 1000.0}
    methods = {f"{one.model} {one.representation}" for one in runs.values()}
    files.write_json(
        project.root / "benchmarks" / "models.json",
        {
            "machine": {"processor": "a CPU"},
            "tiers": {"native": {"models": dict.fromkeys(sorted(methods), speeds)}},
        },
    )
    shutil.copy(ROOT / "benchmarks" / "representations.json", project.root / "benchmarks")


def write_predictions(project: Project, run: Run, name: str, spread: float) -> dict[str, Any]:
    """Predictions of one target with errors of about `spread`; their block of the metrics."""
    target = project.params.targets[name]
    crystals = Crystals.load(project.crystals(run.dataset))
    random = np.random.default_rng(zlib.crc32(f"{run.name} {name}".encode()))
    label = dict(zip(crystals.ids, crystals.labels[target.label], strict=True))
    folds = splits.folds(project, run)
    where = [(f, i) for f in folds for i in splits.select(project, run, f, name).test]
    true = np.array([label[i] for _, i in where])
    table: dict[str, Any] = {
        "id": [i for _, i in where],
        "p_value": random.random(len(true)).tolist(),
    }
    if run.fold == "all":
        table["fold"] = [f for f, _ in where]
    else:
        table["formula"] = ["NaCl"] * len(true)
    if target.kind == "classification":
        guess = np.where(random.random(len(true)) < spread, true[0], true)
        table |= {"target": true.astype(int).tolist(), "prediction": guess.astype(int).tolist()}
        table |= {"probability": [0.5] * len(true), "set": [f"2 {int(g)}" for g in guess]}
        value, unit = 100 * float((guess == true).mean()), "%"
    else:
        true = np.log10(true) if target.transform == "log10" else true
        guess = true + random.normal(0, spread, len(true))
        table |= {"target": true.tolist(), "prediction": guess.tolist()}
        table |= {"lower": (guess - spread).tolist(), "upper": (guess + spread).tolist()}
        for k in range(run.members or 0):
            table[f"member_{k}"] = (guess + 0.01 * k).tolist()
        value, unit = float(np.abs(guess - true).mean()), target.unit
    rows = list(zip(*table.values(), strict=True))
    files.write_csv(project.predictions(run, name), list(table), rows)
    return {"metric": target.metric, "value": value, "unit": unit, "n_test": len(true)}


def write_run(project: Project, run: Run, spread: float) -> None:
    """Predictions with errors of about `spread`, and the metrics, history, card and checkpoint."""
    parts = splits.select(project, run)
    random = np.random.default_rng(zlib.crc32(run.name.encode()))
    blocks = {name: write_predictions(project, run, name, spread) for name in run.targets}
    decay = spread + np.exp(-np.arange(12) / 3) * (1 + 0.1 * random.normal(size=12))
    classes = project.params.targets[run.target].kind == "classification"
    shown = 100 * (1 - decay / 2.5) if classes else decay
    files.write_csv(
        project.history(run),
        ["epoch", "train_loss", "val_metric", "lr"],
        [[i, float(x), float(y), 0.01] for i, (x, y) in enumerate(zip(decay, shown, strict=True))],
    )
    facts = run.model_dump(include={"study", "dataset", "model", "representation", "size"})
    files.write_json(
        project.metrics(run),
        facts
        | {
            "run": run.name, "fold": run.fold, "seed": 0, "split": "60/20/20", "targets": blocks,
            "parameters": 12345, "epochs": 12, "best_epoch": 12,
            "n_train": len(parts.train), "n_val": len(parts.val),
        },
    )  # fmt: skip
    card = {"device": "cpu", "train_seconds": 1.5, "cpu_seconds": 1.5}
    numerics = {"tier": "native", "device": "cpu"}
    files.write_json(project.card(run), card | {"numerics": numerics})
    files.write_bytes(project.checkpoint(run), b"weights")


def write_network(project: Project, name: str) -> None:
    """The checkpoint of a network that has learned nothing."""
    run = project.params.run(f"{STUDY}/{name}")
    settings = project.params.settings(run)
    torch.manual_seed(zlib.crc32(name.encode()))
    model = settings["model"]
    net = network(model["architecture"], model["network"], project.params.outputs(run))
    tensors = {key: value.numpy() for key, value in net.state_dict().items()}
    note = json.dumps(
        settings | {"format": FORMAT, "moments": {one: [1.8, 0.4] for one in run.targets}}
    )
    files.write_tensors(project.checkpoint(run), tensors, note)


def write_benchmark(project: Project) -> None:
    """A benchmark of every other crystal with a bulk modulus, and two algorithms."""
    crystals = Crystals.load(project.crystals(STUDY))
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
    runs: Runs | None = None,
    benchmark: bool = True,
    n: int = 160,
    report: Mapping[str, Any] = REPORT,
    like: str | None = "mesh",
) -> Project:
    """Write the whole project below `root` and load it; see `write_settings`."""
    chosen = DEFAULT if runs is None else runs
    shutil.copytree(ROOT / "paper", root / "paper")
    (root / "env").mkdir()
    (root / "env" / "requirements.lock").write_text("numpy==2.4.6\nother==1\n")
    (root / "env" / "torch.txt").write_text("torch==2.13.0+cpu\n")
    project = write_settings(root, chosen, report, like, "1" * 64 if benchmark else None)
    files.write_bytes(project.raw(STUDY), b"raw")
    write_crystals(project, n)
    write_measured(project)
    for split in project.params.splits[STUDY]:
        splits.build(project, STUDY, split)
    own = project.params.study(STUDY).runs.values()
    if any(one.representation.startswith("mesh.") for one in own):
        write_meshes(project)
    if benchmark:
        write_benchmark(project)
        digest = files.sha256(project.raw("bench_log_k"))
        project = write_settings(root, chosen, report, like, digest)
        splits.build_folds(project, "bench_log_k")
        published.evaluate(project, "bench_log_k")
    for one in project.params.study(STUDY).runs.values():
        write_run(project, one, 0.1 if one.model == "cgcnn" else 0.3)
    return project


def draw(project: Project) -> None:
    """The figures; without them an empty list of figures, where the drawing is not there yet."""
    try:
        importlib.import_module("crystalmesh.report.figures").build(project, STUDY)
    except ImportError:
        files.write_json(project.results(STUDY) / "figures" / "figures.json", {})


def finish(project: Project) -> None:
    """Every stage of the report."""
    tables.build(project, STUDY)
    draw(project)
    metrics.build(project, STUDY)
    document.build(project, STUDY)


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Make a project in this test's folder: `make(runs=..., benchmark=..., n=...)`."""
    return lambda **choices: build_project(tmp_path, **choices)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default project with every stage of its report done; tests leave it as they find it."""
    project = build_project(tmp_path_factory.mktemp("finished"))
    finish(project)
    return project


def finished_site(root: Path) -> Project:
    """A project with two crystals in its viewer, its tables and its site."""
    pair = ("log_k-mesh_release-60", "log_k-mesh_release-canonical-60")
    site = {"systems": ["x-7", "x-3"], "networks": [f"{STUDY}/{name}" for name in pair]}
    root.mkdir()
    project = build_project(root, report=REPORT | {"site": site})
    for name in pair:
        write_network(project, name)
    for name in ("paper.pdf", "metrics.json", "ledger.json"):  # that the pages lead to
        (project.results(STUDY) / name).touch()
    for stage in ("tables", "site"):
        importlib.import_module(f"crystalmesh.report.{stage}").build(project, STUDY)
    return project
