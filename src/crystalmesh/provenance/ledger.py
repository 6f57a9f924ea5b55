"""ledger.json: the checksum of every output of a study, and what the bits were made with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config import engines, plan
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.errors import CrystalmeshError
from crystalmesh.provenance import software

# Wall times and machines differ from one making to the next: these are kept, but never compared.
NOT_COMPARED = (
    "cards", "ledger.json", "metrics.json", "ro-crate-metadata.json", "README.md", "site",
    "verified.csv",
)  # fmt: skip


def build(project: Project, study: str) -> None:
    """Write results/<study>/ledger.json.

    `outputs`: path below results/<study> -> sha256; of a checkpoint that of its content (see
    `content`); equal for equal code, data and tier.
    `files`: the same of the checkpoint files that Git holds, with their notes: what is read here
    must be one of them. It is not compared.
    `data`: path below the project -> sha256, of what the outputs were made from (of features the
    index, which holds the checksums of its shards).
    `settings`: run, or `report` -> digest of its settings, as the plan has it.
    `runs`: run -> the numerics block of its card (device, CPU, package versions); it explains a
    difference and is not compared.

    What Git leaves out and is not here (checkpoints, features) keeps the checksum of the ledger
    before, as long as the run's settings, history and predictions are those of that ledger: one run
    more does not ask for all others to be trained again. Where no checksum is known, there is none.

    Raises:
        CrystalmeshError: an output is missing, or has changed since a stage wrote it.
    """
    folder = project.results(study)
    path = folder / "ledger.json"
    before = files.read_json(path) if path.exists() else {}
    found = {one.relative_to(folder).as_posix(): one for one in outputs(project, study)}
    kept = {
        project.checkpoint(run): _kept(project, run, before)
        for run in project.params.study(study).runs.values()
    }
    digests = {name: kept.get(one) or _digest(one) for name, one in found.items()}
    files.write_json(
        path,
        {
            "study": study,
            "numerics": project.params.study(study).numerics,
            "outputs": {name: digest for name, digest in digests.items() if digest},
            "files": {
                name: files.sha256(one)
                for name, one in found.items()
                if one in kept and one.exists() and not software.ignored(one)
            },
            "data": _data(project, study, before.get("data", {})),
            "settings": settings(project, study),
            "not_compared": list(NOT_COMPARED),
            "runs": {
                name: files.read_json(project.card(run))["numerics"]
                for name, run in project.params.study(study).runs.items()
            },
        },
    )


def content(tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of a checkpoint's tensors by name: types, shapes and numbers, without its note."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file; of a checkpoint of its content."""
    if path.parent.name == "checkpoints":
        return content(files.read_tensors(path))
    return files.verified(path)


def _digest(path: Path) -> str | None:
    """The checksum of an output; None of a checkpoint that is neither here nor in Git."""
    if path.parent.name == "checkpoints" and not path.exists() and software.ignored(path):
        return None
    return checksum(path)


def _kept(project: Project, run: Run, before: Mapping[str, Any]) -> str | None:
    """The checksum that a checkpoint keeps, which is neither here nor in Git; else None."""
    path = project.checkpoint(run)
    if path.exists() or not software.ignored(path):
        return None
    folder, known = project.results(run.study), before.get("outputs", {})
    made = [project.history(run), *(project.predictions(run, one) for one in run.targets)]
    same = before.get("settings", {}).get(run.name) == settings(project, run.study)[run.name]
    for one in made:
        same = same and known.get(one.relative_to(folder).as_posix()) == files.verified(one)
    digest: str | None = known.get(path.relative_to(folder).as_posix())
    return digest if same else None


def declared(project: Project, study: str) -> list[Path]:
    """Every file that the settings say a study has, but for those in tables/ and figures/."""
    folder = project.results(study)
    stages = engines.report(project, study)
    paths = [
        folder / name
        for stage in stages.values()
        for name in stage.outputs
        if name not in ("tables", "figures", *NOT_COMPARED)
    ]
    for run in project.params.study(study).runs.values():
        paths += [project.checkpoint(run), project.history(run), project.metrics(run)]
        paths += [project.predictions(run, target) for target in run.targets]
    if study == project.serving:
        paths += [project.calibration(run, target) for run, target in project.served()]
    return paths


def outputs(project: Project, study: str) -> list[Path]:
    """Every file of a study that is compared; what an old setting left is not one."""
    paths = declared(project, study)
    for stage in ("tables", "figures"):
        if stage not in engines.report(project, study):
            continue
        folder = project.results(study) / stage
        if not folder.is_dir():
            raise CrystalmeshError(f"{folder}: missing; run the stage that makes it")
        paths += [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(paths)


def _data(project: Project, study: str, before: Mapping[str, str]) -> dict[str, str]:
    """The data that a study's runs are made from, with checksums."""
    paths = engines.report(project, study)["ledger"].files
    found = {}
    for name in (one for one in paths if one.startswith("data/")):
        path = project.root / name
        if name.startswith("data/features/"):
            path /= "index.json"
        place = project.relative(path)
        if path.exists() or not name.startswith("data/features/"):
            found[place] = files.verified(path)
        elif place in before:
            found[place] = before[place]
    return found


def settings(project: Project, study: str) -> dict[str, str]:
    """The digest of each run and of the report, as the plan has them."""
    stored = plan.stored(project.root, study)
    return {name: facts["digest"] for name, facts in stored["runs"].items()} | {
        "report": stored["report"]
    }
