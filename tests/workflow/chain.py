"""Every stage of a tiny report, one after the other in this process, and what bytes came out.

    python -m tests.workflow.chain FOLDER [NAME=VALUE ...]

Some seconds where the engines take a minute: for tests that make the same report many times, each
time under other circumstances, and for CPUs that are emulated. Prints the SHA-256 and the file
mode of each output as JSON. The project is that of tests/conftest.py with one more experiment, so
that CGCNN and a mesh network are in it on each representation they read.

    tier=native         numerics tier (portable unless told)
    models=all          every model, with ensembles, repeated splits and transfer
    jobs=2              processes of the stages that start some
    shard=8             crystals a shard of features
    order=reverse       stages that do not depend on each other in the opposite order
    stages=...          comma-separated: only these (train,predict)
    resume=1            each training is stopped in its second epoch, and resumed
    umask=077           of the process
    listing=backwards   folders are listed in the opposite order of names, or `forwards`
    off=...             a function of safeguards.py: that safeguard is switched off
"""

import copy
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystalmesh import numerics
from tests.conftest import SOME, TRAINING, TREE, write_project
from tests.workflow import safeguards
from tests.workflow.conftest import copy_project


def settings(tier: str, everything: bool = False) -> dict[str, Any]:
    """The tiny project's params.yaml with the mesh networks and CGCNN, or with all there is."""
    tree = copy.deepcopy(TREE)
    tree["reports"]["demo"] |= {"numerics": tier, "maps": ["log_k-cgcnn", "log_k-mesh"]}
    talk = copy.deepcopy(tree["models"]["mesh_release"])
    talk["network"] |= {"geometry": "normal", "last_activation": True, "dropout": 0.0}
    tree["models"]["mesh_talk"] = talk | {"checkpoint": "float16"}
    adamw = {"optimizer": "adamw", "weight_decay": 0.1}
    tree["models"]["cgcnn"]["training"] = tree["models"]["cgcnn"]["training"] | adamw
    mesh = SOME | {"task": "log_k", "representation": "mesh.canonical"}
    tree["experiments"]["demo"]["log_k-canonical"] = mesh | {"model": "mesh_release"}
    if everything:
        tree["experiments"]["demo"] |= {
            "log_k-talk": mesh | {"model": "mesh_talk", "representation": "mesh.published"},
            "space_group-talk": mesh | {"model": "mesh_talk", "task": "space_group"},
        }
    tree["transfer"] = {"demo": {}, "paper": {}, "predictors": {}}
    tree["experiments"] |= {"paper": {}, "predictors": {}}  # dvc.yaml asks for all
    tree["site"] = {}
    if everything:
        add_the_rest(tree)
    return tree


def add_the_rest(tree: dict[str, Any]) -> None:
    """The other models, each on what it reads; ensembles, repeated splits, transfer."""
    tree["models"] |= {
        "schnet": {
            "title": "SchNet",
            "architecture": "schnet",
            "network": {
                "embedding": "features", "atom": 8, "filters": 8, "interactions": 2,
                "gaussians": 10, "gaussian_max": 4.0, "cutoff": 4.0, "readout": "mean",
            },
            "training": TRAINING | {"schedule": "one_cycle", "standardise": "tanh"},
        },
        "pointnet": {
            "title": "PointNet",
            "architecture": "pointnet",
            "network": {
                "input_transform": True, "atoms": [8], "shared": [8, 16], "head": [8],
                "dropout": 0.2,
            },
            "training": TRAINING,
        },
        "complex": {
            "title": "complex",
            "architecture": "complex",
            "network": {"width": 8, "layers": 1, "parts": "cells"},
            "training": TRAINING | {"ema": 0.9},
        },
        "automorphisms": {
            "title": "automorphisms",
            "architecture": "automorphisms",
            "network": {"width": 8},
            "training": TRAINING,
        },
        "forest": {
            "title": "forest",
            "architecture": "classical",
            "network": {
                "estimator": "random_forest", "trees": 5, "max_features": 0.3, "min_leaf": 1,
            },
        },
        "svr": {
            "title": "support vectors",
            "architecture": "classical",
            "network": {"estimator": "svr", "c": 10.0, "epsilon": 0.05, "gamma": 0.35},
        },
    }  # fmt: skip
    more = {
        "graph.radius": {"cutoff": 4.0},
        "points.conventional": {"cell": "conventional", "copies": 1, "symprec": 0.01},
        "complex.orbits": {"symprec": 0.01, "tolerance": 0.001},
        "automorphisms.complex": {"symprec": 0.01, "tolerance": 0.001, "meet": 0.01},
        "descriptors.composition": {},
        "descriptors.structure": {"symprec": 0.01},
    }
    for name, representation in more.items():
        module, _, variant = name.partition(".")
        tree["representations"].setdefault(module, {})[variant] = representation
        tree["features"][f"tiny-{module}_{variant}"] = tree["features"]["tiny-graph_cgcnn"] | {
            "representation": name
        }
    split = tree["splits"]["tiny-60-20-20"]
    tree["splits"]["tiny-repeated"] = split | {"split": "repeated", "repeats": 2}
    log_k = SOME | {"task": "log_k"}
    described = log_k | {"representation": "descriptors.structure"}
    repeated = log_k | {
        "split": "repeated", "fold": "all", "representation": "graph.cgcnn", "model": "cgcnn",
    }  # fmt: skip
    on_complex = log_k | {"representation": "complex.orbits", "model": "complex"}
    tree["experiments"]["demo"] |= {
        "log_k-schnet": log_k | {"representation": "graph.radius", "model": "schnet", "members": 2},
        "log_k-pointnet": log_k | {"representation": "points.conventional", "model": "pointnet"},
        "log_k-complex": on_complex | {"beside": ["e_form"]},
        "space_group-automorphisms": log_k
        | {
            "task": "space_group",
            "representation": "automorphisms.complex",
            "model": "automorphisms",
        },
        "log_k-svr": described | {"model": "svr"},
        "space_group-forest": described
        | {
            "model": "forest",
            "task": "space_group",
            "members": 2,
            "representation": "descriptors.composition",
        },
        "log_k-cgcnn-repeated": repeated,
    }
    start = {"group": "demo", "name": "log_k-cgcnn"}
    tree["transfer"]["demo"]["log_k-cgcnn-transfer"] = repeated | {"pretrained": start}
    source = {"pretrained": {"group": "demo", "name": "log_k-complex"}, "as_is": True}
    tree["transfer"]["demo"]["e_form-complex"] = (
        on_complex | {"task": "e_form", "beside": ["log_k"]} | source
    )
    tree["reports"]["demo"]["maps"] += ["log_k-schnet", "log_k-pointnet"]


def commands(tree: dict[str, Any], backwards: bool) -> Iterator[list[str]]:
    """The stages in an order in which they can run; `backwards` turns what may be turned."""
    turn = -1 if backwards else 1
    experiments = list(tree["experiments"]["demo"])[::turn]
    yield ["fetch", "tiny"]
    yield ["crystals", "tiny"]
    yield from (["split", key] for key in list(tree["splits"])[::turn])
    yield from (["represent", key] for key in list(tree["features"])[::turn])
    if backwards:
        yield ["stability", "demo"]
    # forwards experiment by experiment, backwards stage by stage
    three = ("train", "predictions", "evaluate")
    pairs = (
        [(stage, name) for stage in three for name in experiments]
        if backwards
        else [(stage, name) for name in experiments for stage in three]
    )
    # these start from the others' checkpoints
    pairs += [(stage, name) for stage in three for name in tree["transfer"]["demo"]]
    yield from ([stage, "demo", name] for stage, name in pairs)
    if not backwards:
        yield ["stability", "demo"]
    yield ["maps", "demo"]
    yield from ([stage, "demo"] for stage in ["tables", "figures"][::turn])
    yield from ([stage, "demo"] for stage in ("paper", "metrics", "ledger", "crate"))


def run(root: Path, tree: dict[str, Any], stages: list[str], backwards: bool) -> None:
    """Run the stages in `root` as the command line does."""
    from crystalmesh import cli

    os.chdir(root)
    for command in commands(tree, backwards):
        if not stages or command[0] in stages:
            cli.app(command, prog_name="crystalmesh", standalone_mode=False)


def stopped_once() -> None:
    """Let every training stop in its second epoch the first time it gets there."""
    from crystalmesh.learn import train
    from crystalmesh.learn.train import Learner

    whole, step, stopped = train.train, Learner.training_step, set[str]()
    running = ""

    def dying(self: Learner, *arguments: Any) -> Any:
        if self.current_epoch == 1 and running not in stopped:
            stopped.add(running)
            raise KeyboardInterrupt
        return step(self, *arguments)

    def twice(project: Any, group: str, name: str, devices: Any = train.ONE) -> None:
        nonlocal running
        running = name
        try:
            whole(project, group, name, devices)
        except KeyboardInterrupt:
            whole(project, group, name, devices)

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
    from crystalmesh.report.ledger import NOT_COMPARED

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
    tree = settings(options.get("tier", "portable"), options.get("models") == "all")
    numerics.prepare(tree["reports"]["demo"]["numerics"])  # all stages share one process here
    os.environ |= {
        "CRYSTALMESH_JOBS": options.get("jobs", "1"),
        "CRYSTALMESH_MIRROR": str(root),
    }
    if not (root / "params.yaml").exists():
        copy_project(root)
        write_project(root, tree)
    if "umask" in options:
        os.umask(int(options["umask"], 8))
    if "listing" in options:
        listed(backwards=options["listing"] == "backwards")
    if "shard" in options:
        from crystalmesh.represent import store

        store.SHARD = int(options["shard"])
    if options.get("resume"):
        stopped_once()
    if "off" in options:
        getattr(safeguards, options["off"])()
    stages = options["stages"].split(",") if "stages" in options else []
    run(root, tree, stages, options.get("order") == "reverse")
    print(json.dumps(outputs(root), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
