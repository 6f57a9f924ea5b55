"""Version 0.1's names and checkpoints, until the next release: then this file goes, and its table.

results/version-0.1.json maps each run to what it was called, to the SHA-256 of the checkpoint file
that version 0.1 published, and to the settings that stood in it. A checkpoint that is trained again
is written as version 0.1 wrote it, and its checksum compared: equal means equal tensors, bit for
bit, also where the old file is not at hand.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.errors import CrystalmeshError

TABLE = Path("results") / "version-0.1.json"
FORMAT = 2  # of the checkpoints that `convert` writes
KEPT = ("n_train", "n_val", "epochs", "best_epoch", "parameters")


@cache
def _table(root: Path) -> dict[str, Any]:
    path = root / TABLE
    content: dict[str, Any] = {}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    return content


def checksum(root: Path, run: Run) -> str | None:
    """The SHA-256 of the checkpoint that version 0.1 published of a run; None: it had none."""
    digest: str | None = _table(root).get(run.reference, {}).get("checkpoint")
    return digest


def written(
    root: Path, run: Run, tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> str:
    """The SHA-256 of a checkpoint as version 0.1 would have written it.

    Args:
        root: of the project.
        run: whose checkpoint it is.
        tensors: its tensors.
        facts: its note.
    """
    known = _table(root)[run.reference]
    settings = known["settings"]
    before = known.get("epochs_before", 0)  # of a run that was two, one after the other
    old = (
        {"runs": {place: _facts(one, run, before) for place, one in facts["runs"].items()}}
        if "runs" in facts
        else _facts(facts, run, before)
    )
    note = json.dumps(settings | old, sort_keys=True)
    arrays = {name: np.require(tensors[name], requirements="C") for name in sorted(tensors)}
    return hashlib.sha256(save(arrays, {"note": note})).hexdigest()


def convert(project: Project, run: Run, path: Path) -> None:
    """Take a checkpoint file of version 0.1 as the checkpoint of a run.

    Raises:
        CrystalmeshError: it is not the file that version 0.1 published of this run.
    """
    known = _table(project.root).get(run.reference)
    if known is None or files.sha256(path) != known["checkpoint"]:
        raise CrystalmeshError(f"{path}: not version 0.1's checkpoint of {run.reference}")
    old = json.loads(files.read_note(path))
    before = known.get("epochs_before", 0)
    facts: dict[str, Any] = (
        {"runs": {place: _converted(one, run, before) for place, one in old["runs"].items()}}
        if "runs" in old
        else _converted(old, run, before)
    )
    note = project.params.settings(run) | {"format": FORMAT} | facts
    files.write_tensors(
        project.checkpoint(run), files.read_tensors(path), json.dumps(note, sort_keys=True)
    )


def _converted(old: Mapping[str, Any], run: Run, before: int) -> dict[str, Any]:
    """The facts of a network as they are noted now."""
    moments = {run.target: [old["mean"], old["std"]]} | old.get("moments", {})
    new = {key: old[key] for key in KEPT} | {"moments": moments}
    return new | {key: old[key] + before for key in ("epochs", "best_epoch")}


def _facts(new: Mapping[str, Any], run: Run, before: int) -> dict[str, Any]:
    mean, std = new["moments"][run.target]
    old: dict[str, Any] = {"mean": mean, "std": std} | {key: new[key] for key in KEPT}
    old |= {key: new[key] - before for key in ("epochs", "best_epoch")}
    if len(run.targets) > 1:
        old["moments"] = {target: new["moments"][target] for target in run.targets[1:]}
    return old
