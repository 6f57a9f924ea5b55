"""Every stage of a tiny report, one after the other in this process, and what bytes came out.

    python -m tests.workflow.chain FOLDER [NAME=VALUE ...]

Some seconds where the engines take a minute: for tests that make the same report many times, each
time under other circumstances, and for CPUs that are emulated. Prints the SHA-256 and the file
mode of each output as JSON. The project is that of tests/conftest.py with one more run, so that
CGCNN and a mesh network are in it on each representation they read.

    tier=native         numerics tier (portable unless told)
    models=kinds        models of config/models, small: some for each setting that they can have;
                        ensembles, repeated splits, transfer, distillation
    models=each         of them the first of each architecture
    jobs=2              processes of the stages that start some
    shard=8             crystals a shard of features
    order=reverse       stages that do not depend on each other in the opposite order
    stages=...          comma-separated: only these (train,predictions)
    resume=1            each training is stopped in its second epoch, and resumed
    umask=077           of the process
    clock=86400         the clock is so many seconds ahead
    listing=backwards   folders are listed in the opposite order of names, or `forwards`
    off=...             a function of safeguards.py: that safeguard is switched off
"""

import copy
import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystalmesh import numerics
from crystalmesh.config.project import Params, Project, dump, load
from crystalmesh.config.schema import Model, Run
from tests.conftest import TREE, write_project
from tests.workflow import safeguards
from tests.workflow.conftest import ROOT, copy_engines

SPLIT = "60-20-20"
WIDEST = 64  # no count in a network's settings is larger: widths; Muon needs as much
FEWEST = 16  # of models that are fitted in one step: trees, components (of 18 crystals)
SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 5}


def settings(tier: str, models: str = "") -> dict[str, Any]:
    """The tiny project's settings with the mesh networks and CGCNN, or with all there is."""
    tree = copy.deepcopy(TREE)
    study = tree["studies"]["demo"]
    study["numerics"] = tier
    meshes = ["mesh.published", "mesh.canonical"]
    study["report"] |= {"features": meshes, "embeddings": ["log_k-cgcnn", "log_k-mesh"]}
    study["report"]["stability"] = {
        "representations": meshes, "systems": 4, "displacements": [1.0e-4, 1.0e-2],
    }  # fmt: skip
    adamw = {"optimizer": "adamw", "weight_decay": 0.1}
    tree["models"]["cgcnn"]["training"] |= adamw
    study["runs"]["log_k-canonical"] = {
        "target": "log_k", "model": "mesh_release", "split": SPLIT,
        "representation": "mesh.canonical",
    }  # fmt: skip
    if models:
        add_the_rest(tree, models)
    return tree


def add_the_rest(tree: dict[str, Any], models: str) -> None:
    """Models of config/models on what they read; an ensemble, repeated splits, transfer.

    A model is added when it is something that no model before it was: see `kinds`. So a new
    architecture, or a new setting of one, is in all of these tests without a word here. With
    `models` "each" only the first of each architecture: enough for CPUs that are emulated.
    """
    seen: set[tuple[str, str]] = set()
    params = load(ROOT).params
    runs = tree["studies"]["demo"]["runs"]
    shown = [run for study in params.studies.values() for run in study.runs.values()]
    for name, model in params.models.items():
        if model.variant_of:  # an ablation: the same code
            continue
        own = kinds(model)
        if models == "each":
            own = {(name, kind) for name, kind in own if name in ("architecture", "estimator")}
        if own <= seen:
            continue
        seen |= own
        targets = [one for run in shown if run.model == name for one in run.targets]
        target = next((one for one in targets if one in tree["targets"]), "log_k")
        tree["models"].setdefault(name, small(dump(model)))
        runs[f"{target}-{name}-small"] = {"target": target, "model": name, "split": SPLIT}
        add_features(tree, params, model.representation)
    for run in shown if models == "kinds" else ():
        if add_features(tree, params, run.representation):
            name = params.models[run.model].variant_of or run.model
            tree["models"].setdefault(name, small(dump(params.models[name])))
            runs[f"log_k-{run.representation.replace('.', '-')}"] = {
                "target": "log_k", "split": SPLIT, "model": name,
                "representation": run.representation,
            }  # fmt: skip
    tree["splits"]["tiny"]["repeated"] = {
        "title": "repeated", "ratio": [3, 1, 1], "seed": 0, "repeats": 2,
    }  # fmt: skip
    cgcnn = {"target": "log_k", "model": "cgcnn", "split": SPLIT}
    repeated = cgcnn | {"split": "repeated", "fold": "all"}
    two = {"targets": ["log_k", "e_form"], "model": "delaunay", "split": SPLIT}
    runs |= {
        "log_k-members": cgcnn | {"members": 2},
        "log_k-precision": cgcnn | {"precision": "double"},
        "log_k-repeated": repeated,
        "log_k-refit": repeated | {"refit": True},
        "log_k-transfer": repeated | {"start": "demo/log_k-cgcnn"},
        "both": two | {"weights": {"e_form": 2.0}},
    }
    if models == "kinds":
        add_distillation(tree, shown)


def kinds(model: Model) -> set[tuple[str, str]]:
    """What a model is an example of: its architecture or estimator, its options, its training."""
    if model.training is None:
        return {("estimator", model.network["estimator"])}
    options = {
        key for key, value in model.network.items() if isinstance(value, (bool, dict)) and value
    }
    training = {key: getattr(model.training, key) for key in ("optimizer", "loss", "schedule")}
    return (
        {("architecture", model.architecture)}
        | {("option", f"{model.architecture}.{key}") for key in options}
        | {(key, str(value)) for key, value in training.items()}
        | {("set", key) for key in ("ema", "restart") if getattr(model.training, key)}
    )


def add_features(tree: dict[str, Any], params: Params, representation: str) -> bool:
    """Declare a representation and its features; whether they were not there."""
    module, _, variant = representation.partition(".")
    variants = tree["representations"].setdefault(module, {})
    if variant in variants:
        return False
    variants[variant] = params.representation(representation)
    tree["features"]["tiny"][representation] = {}
    return True


def add_distillation(tree: dict[str, Any], shown: list[Run]) -> None:
    """A teacher, and a network that it is asked for: of crystals that have no label of theirs."""
    first = next(run for run in shown if run.distillation and run.distillation.classical)
    settings = _small(dump(first)["distillation"], FEWEST)
    add_features(tree, load(ROOT).params, settings["classical"]["representation"])
    tree["targets"]["log_g"] = {
        "title": "shear modulus", "label": "g_vrh", "transform": "log10", "unit": "log10(GPa)",
        "range": [0.001, 24.0],
    }  # fmt: skip
    tree["splits"]["tiny"]["some"] = tree["splits"]["tiny"][SPLIT] | {"by": "log_g"}
    some = {"target": "log_g", "split": "some", "model": first.model}
    tree["studies"]["demo"]["runs"] |= {
        "log_g-teacher": some,
        "log_g-distilled": some | {"distillation": settings | {"run": "demo/log_g-teacher"}},
    }


def small(model: dict[str, Any]) -> dict[str, Any]:
    """A model's settings with narrow layers and a short training."""
    widest = WIDEST if "training" in model else FEWEST
    model = model | {"network": _small(model["network"], widest)}
    model.pop("variant_of", None)
    if "training" in model:
        model["training"] = model["training"] | SHORT
        if "restart" in model["training"]:
            model["training"]["restart"] = model["training"]["restart"] | {"epochs": 2}
    return model


def _small(value: Any, widest: int) -> Any:
    if isinstance(value, dict):
        return {key: _small(one, widest) for key, one in value.items()}
    if isinstance(value, list):
        return [_small(one, widest) for one in value]
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return min(value, widest) if is_count else value


def commands(project: Project, backwards: bool) -> Iterator[list[str]]:
    """The stages in an order in which they can run; `backwards` turns what may be turned."""
    turn = -1 if backwards else 1
    params = project.params
    yield ["fetch", "tiny"]
    yield ["crystals", "tiny"]
    yield from (["split", "tiny", name] for name in list(params.splits["tiny"])[::turn])
    yield from (["represent", "tiny", name] for name in list(params.features["tiny"])[::turn])
    if backwards:
        yield ["stability", "demo"]
    runs = list(params.study("demo").runs.values())
    first = [run.reference for run in runs if not run.before][::turn]
    then = [run.reference for run in runs if run.before]  # these start from the others' checkpoints
    # forwards run by run, backwards stage by stage
    three = ("train", "predictions", "evaluate")
    pairs = (
        [(stage, name) for stage in three for name in first]
        if backwards
        else [(stage, name) for name in first for stage in three]
    )
    yield from ([*one] for one in pairs)
    yield from ([stage, name] for stage in three for name in then)
    if not backwards:
        yield ["stability", "demo"]
    yield ["embeddings", "demo"]
    yield from ([stage, "demo"] for stage in ["tables", "figures"][::turn])
    yield from ([stage, "demo"] for stage in ("document", "metrics", "ledger", "crate"))


def run(root: Path, stages: list[str], backwards: bool) -> None:
    """Run the stages in `root` as the command line does."""
    from crystalmesh import cli

    os.chdir(root)
    for command in commands(load(root), backwards):
        if not stages or command[0] in stages:
            cli.app(command, prog_name="crystalmesh", standalone_mode=False)


def read_once() -> None:
    """Let the stages of this process read and check the settings once."""
    from crystalmesh.config import project
    from crystalmesh.provenance import software

    project.load = functools.cache(project.load)
    software.check_lock = functools.cache(software.check_lock)


def stopped_once() -> None:
    """Let every training stop in its second epoch the first time it gets there."""
    from crystalmesh.learn import fit, train
    from crystalmesh.learn.learner import Learner

    whole, step, stopped = train.train, Learner.training_step, set[str]()
    running = ""

    def dying(self: Learner, *arguments: Any) -> Any:
        if self.current_epoch == 1 and running not in stopped:
            stopped.add(running)
            raise KeyboardInterrupt
        return step(self, *arguments)

    def twice(project: Any, run: Any, devices: Any = fit.ONE) -> None:
        nonlocal running
        running = run.name
        try:
            whole(project, run, devices)
        except KeyboardInterrupt:
            whole(project, run, devices)

    Learner.training_step = dying  # type: ignore[assignment, method-assign]
    train.train = twice


def listed(backwards: bool) -> None:
    """Let the file system list folders in the order of names, or in the opposite one."""
    listdir, scandir = os.listdir, os.scandir

    class Scanned(list[Any]):
        def __enter__(self) -> "Scanned":
            return self

        def __exit__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    os.listdir = lambda *path: sorted(listdir(*path), reverse=backwards)  # type: ignore[assignment]

    def scan(*path: Any) -> Scanned:
        with scandir(*path) as entries:
            return Scanned(sorted(entries, key=lambda entry: entry.name, reverse=backwards))

    os.scandir = scan  # type: ignore[assignment]


def outputs(root: Path) -> dict[str, list[Any]]:
    """Path -> [sha256, file mode] of what the stages left, as far as it must come out the same."""
    from crystalmesh.files import sha256
    from crystalmesh.provenance.ledger import NOT_COMPARED

    found = {}
    for folder in ("data", "results/demo"):
        for path in sorted((root / folder).rglob("*")):
            inner = path.relative_to(root / folder).as_posix()
            if path.is_file() and not inner.startswith(NOT_COMPARED):
                name = path.relative_to(root).as_posix()
                found[name] = [sha256(path), path.stat().st_mode & 0o777]
    return found


def main(arguments: list[str]) -> None:
    root = Path(arguments[0]).absolute()
    options = dict(argument.split("=", 1) for argument in arguments[1:])
    tree = settings(options.get("tier", "portable"), options.get("models", ""))
    numerics.prepare(tree["studies"]["demo"]["numerics"])  # all stages share one process here
    os.environ |= {
        "CRYSTALMESH_JOBS": options.get("jobs", "1"),
        "CRYSTALMESH_MIRROR": str(root),
    }
    if not (root / "config").exists():
        copy_engines(root)
        write_project(root, tree)
    if "umask" in options:
        os.umask(int(options["umask"], 8))
    if "clock" in options:
        now, ahead = time.time, int(options["clock"])
        time.time = lambda: now() + ahead
    if "listing" in options:
        listed(backwards=options["listing"] == "backwards")
    if "shard" in options:
        from crystalmesh.represent import store

        store.SHARD = int(options["shard"])
    if options.get("resume"):
        stopped_once()
    if "off" in options:
        getattr(safeguards, options["off"])()
    read_once()
    stages = options["stages"].split(",") if "stages" in options else []
    run(root, stages, options.get("order") == "reverse")
    print(json.dumps(outputs(root), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
