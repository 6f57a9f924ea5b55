"""The plan: what both workflow engines read, written by `crystalmesh plan`.

studies/<study>/plan.json holds for each run all its settings, the paths that it reads and writes,
and a digest of every setting that can change its bits; config/plan.json the same for the data.
A changed learning rate changes one digest, and one run is stale in both engines. A plan says of
what files it was made: one that is older than its study stops every command, and so both engines.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from crystalmesh.config import read
from crystalmesh.config.project import Project, config, dump
from crystalmesh.config.schema import KEY, Dataset, Run, Study
from crystalmesh.config.study import expand
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import canonical_json, write_bytes

NONE = "config/none"  # stands in a plan where a run or features need no such file
REMEDY = "run `crystalmesh plan`"
# No study may be named so: rules of the Snakefile, as which it has each study too, and folders.
RESERVED = {
    "all", "calibrate", "crate", "crystals", "document", "dvc", "embeddings", "evaluate", "fetch",
    "figures", "folds", "ledger", "metrics", "predictions", "published", "represent", "site",
    "split", "stability", "tables", "train",
    "benchmarks", "config", "data", "results", "rules", "studies",
}  # fmt: skip


def digest(*values: Any) -> str:
    """Sixteen hexadecimal digits that tell settings apart."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def path(root: Path, study: str | None) -> Path:
    """The plan of a study; without a name, of the data."""
    folder = root / "studies" / study if study else root / "config"
    return folder / "plan.json"


def names(root: Path) -> list[str]:
    """The studies, by name."""
    return sorted(one.parent.name for one in (root / "studies").glob("*/study.yaml"))


def studies(project: Project) -> dict[str, Study]:
    """Every study, from its plan.

    Raises:
        CrystalmeshError: a plan is missing, broken, or older than what it was made of.
    """
    found = {}
    for name in names(project.root):
        one = stored(project.root, name)
        runs = {run: fact["settings"] for run, fact in one["runs"].items()}
        tree = one["settings"] | {"runs": runs}
        found[name] = read.parse(Study, tree, f"studies/{name}/plan.json")
    return found


def stored(root: Path, study: str | None) -> dict[str, Any]:
    """A plan as it stands in its file; see `studies` for the errors."""
    file = path(root, study)
    name = file.relative_to(root).as_posix()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{name}: missing; {REMEDY}") from error
    except (ValueError, RecursionError, OSError) as error:
        raise CrystalmeshError(f"{name}: not valid JSON ({error}); {REMEDY}") from error
    if not isinstance(content, dict):
        raise CrystalmeshError(f"{name}: not a plan; {REMEDY}")
    if content.get("sources") != sources(root, study):
        older = f"studies/{study}/study.yaml or config/" if study else "config/"
        raise CrystalmeshError(f"{name}: older than {older}; {REMEDY}")
    if digest({k: v for k, v in content.items() if k != "checksum"}) != content.get("checksum"):
        raise CrystalmeshError(f"{name}: damaged; {REMEDY}")
    return content


def sources(root: Path, study: str | None) -> str:
    """A digest of the files that a plan is made of."""
    files = sorted((root / "config").rglob("*.yaml"))
    files += [root / "studies" / study / "study.yaml"] if study else []
    return digest(*(one.read_text(encoding="utf-8", errors="replace") for one in files))


def expanded(project: Project) -> dict[str, Study]:
    """Every study, from its study.yaml."""
    found = {}
    _check_folders(project.root)
    for name in names(project.root):
        where = f"studies/{name}/study.yaml"
        tree = read.yaml(project.root / where, where)
        runs = expand(name, tree, project.params.models, where)
        found[name] = read.parse(
            Study, {**tree, "runs": {k: dump(r) for k, r in runs.items()}}, where
        )
    return found


def _check_folders(root: Path) -> None:
    """Every folder in studies/ is a study that both engines and all file systems can tell apart.

    One without study.yaml is told, but not what Python and Git leave of a study that was removed.
    """
    for folder in sorted((root / "studies").glob("[!._]*/")):
        inside = [one.name for one in folder.iterdir()]
        left = inside and all(name.startswith((".", "_")) for name in inside)
        if not (folder / "study.yaml").exists() and not left:
            where = f"studies/{folder.name}"
            raise CrystalmeshError(f"{where}: no study.yaml; write one, or remove the folder")
    known: dict[str, str] = {}  # by what they are in small letters
    for name in names(root):
        if not re.fullmatch(KEY, name):
            raise CrystalmeshError(f"studies/{name}: {read.allowed(name, KEY)}")
        if name.casefold() in RESERVED:
            raise CrystalmeshError(
                f"studies/{name}: the workflow has a rule or folder of that name; choose another"
            )
        other = known.setdefault(name.casefold(), name)
        if other != name:
            raise CrystalmeshError(
                f"studies/{name}: differs from studies/{other} in case only; choose another name"
            )


def of_study(project: Project, name: str) -> dict[str, Any]:
    """The plan of a study."""
    study = project.params.study(name)
    return {
        "study": name,
        "sources": sources(project.root, name),
        "settings": dump(study.model_copy(update={"runs": {}})) | {"runs": {}},
        "runs": {run.name: _of_run(project, run) for run in study.runs.values()},
        "report": report_digest(project, name),
        "stability": _stability(project, study),
        "served": {
            f"{run.study}-{run.name}-{target}": _served(project, run, target)
            for run, target in project.served()
        }
        if name == project.serving
        else {},
    }


def of_data(project: Project) -> dict[str, Any]:
    """The plan of the data: raw files, datasets, benchmarks, splits and features."""
    p = project.params
    relative = project.relative

    def targets(dataset: str) -> dict[str, Any]:
        return {name: dump(one) | {"title": ""} for name, one in p.targets_of(dataset).items()}

    return {
        "sources": sources(project.root, None),
        "raw": {
            name: {"path": relative(project.raw(name)), "digest": digest(_bare(one))}
            for name, one in p.raw.items()
        },
        "datasets": {
            name: {
                "raw": relative(project.raw(name)),
                "join": next((relative(project.raw(table)) for table in one.join), NONE),
                "digest": digest(_read(one), dump(p.validation), targets(name)),
            }
            for name, one in p.datasets.items()
            if not one.catalogue
        },
        "benchmarks": {
            name: {
                "dataset": one.dataset,
                "raw": relative(project.raw(name)),
                "digest": digest(one.dataset, one.target, targets(one.dataset)),
            }
            for name, one in p.benchmarks.items()
        },
        "splits": {
            f"{dataset}-{name}": {
                "dataset": dataset,
                "split": name,
                "digest": digest(_bare(one), targets(dataset)),
            }
            for dataset, own in p.splits.items()
            for name, one in own.items()
        },
        "features": {
            f"{dataset}-{name.replace('.', '_')}": {
                "dataset": dataset,
                "representation": name,
                "split": relative(project.split(dataset, one.split)) if one.split else NONE,
                "digest": digest(dump(one), p.representation(name)),
            }
            for dataset, own in p.features.items()
            for name, one in own.items()
        },
    }


def _bare(block: BaseModel) -> dict[str, Any]:
    """A block without what is only shown."""
    return {key: value for key, value in dump(block).items() if key not in ("title", "source")}


def _read(dataset: Dataset) -> dict[str, Any]:
    """What decides how a dataset's file is read, wherever it comes from."""
    kept = ("format", "reader", "labels", "columns", "only", "join")
    return {key: value for key, value in dump(dataset).items() if key in kept}


def _of_run(project: Project, run: Run) -> dict[str, Any]:
    before = project.params.run(run.before) if run.before else None
    relative = project.relative
    crystals = relative(project.crystals(run.dataset))
    split = relative(project.split(run.dataset, run.split))
    features = relative(project.features(run.dataset, run.representation))
    start = relative(project.checkpoint(before)) if before else NONE
    return {
        "settings": dump(run),
        "digest": digest(project.params.settings(run), project.params.numerics(run)),
        "crystals": crystals,
        "split": split,
        "features": features,
        "start": start,
        "inputs": [crystals, split, features, *([start] if before else [])],
        "outputs": [
            relative(one)
            for one in (
                project.checkpoint(run), project.history(run), project.card(run),
                project.predictions(run, run.target).parent, project.metrics(run),
            )
        ],
    }  # fmt: skip


def _served(project: Project, run: Run, target: str) -> dict[str, Any]:
    facts = _of_run(project, run)
    return {key: facts[key] for key in ("crystals", "split", "features")} | {
        "run": run.reference,
        "target": target,
        "checkpoint": project.relative(project.checkpoint(run)),
        "calibration": project.relative(project.calibration(run, target)),
    }


def _stability(project: Project, study: Study) -> str:
    """Of what the stage `stability` goes by: it does not read the runs."""
    shown = study.report.stability if study.report else None
    names = shown.representations if shown else ()
    settings = {name: project.params.representation(name) for name in names}
    return digest(dump(shown) if shown else None, study.dataset, settings)


def report_digest(project: Project, name: str) -> str:
    """Of all settings that a study's report shows, titles too."""
    p = project.params
    shown = p.shown(name)
    models = {run.model: dump(p.models[run.model]) for run in shown}
    return digest(
        dump(p.study(name).model_copy(update={"runs": {}})),
        [dump(run) for run in shown],
        models,
        {key: dump(target) for key, target in p.targets.items()},
        {key: dump(p.datasets[key]) for key in p.datasets_of(name)},
        {key: dump(one) for key, one in p.benchmarks.items()},
        {key: dump(one) for own in p.splits.values() for key, one in own.items()},
        p.representations,
        dump(p.validation),
    )


def write(root: Path, check: bool = False) -> list[str]:
    """Write every plan, or with `check` only look; the files that were not up to date.

    Raises:
        CrystalmeshError: a setting is wrong; see `project.load`.
    """
    project = fresh(root)
    from crystalmesh.config import engines

    files: dict[str, str] = {"config/plan.json": _text(of_data(project))}
    for name in project.params.studies:
        files[f"studies/{name}/plan.json"] = _text(of_study(project, name))
        files[f"studies/{name}/dvc.yaml"] = engines.dvc(project, name)
    changed = []
    for name, text in files.items():
        file = root / name
        if not file.exists() or file.read_bytes() != text.encode():
            changed.append(name)
            if not check:
                write_bytes(file, text.encode())
    return changed


def _text(content: Mapping[str, Any]) -> str:
    """A plan as JSON with a checksum of its own; runs stay in the order of their study."""
    whole = {"checksum": digest(content), **content}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def fresh(root: Path) -> Project:
    """The project as its settings are now, whatever the plans say."""
    from crystalmesh.config import check

    params = config(root)
    bare = Project(root, params)
    whole = Project(root, params.model_copy(update={"studies": expanded(bare)}))
    check.check(whole.params)
    return whole


def digests(root: Path) -> Iterator[tuple[str, str]]:
    """Every digest of every plan, as (key, digest): what a stage depends on beside its files."""
    data = stored(root, None)
    for block in ("raw", "datasets", "benchmarks", "splits", "features"):
        for name, facts in data[block].items():
            yield f"{block}.{name}.digest", facts["digest"]
    for study in names(root):
        plan: Mapping[str, Any] = stored(root, study)
        for name, facts in plan["runs"].items():
            yield f"{study}.{name}", facts["digest"]
        yield f"{study}.report", plan["report"]
        yield f"{study}.stability", plan["stability"]


def stamp(root: Path, key: str) -> Path:
    """The file that holds a digest: see `restamp`."""
    return root / ".crystalmesh" / "plan" / key


def restamp(root: Path) -> None:
    """Write every digest to a file of its own, where it changed.

    Snakemake decides by file times: such a file is younger than an output exactly when that output
    was made with other settings, whichever engine made it.
    """
    for key, value in digests(root):
        file = stamp(root, key)
        if not file.exists() or file.read_bytes() != value.encode():
            write_bytes(file, value.encode())
