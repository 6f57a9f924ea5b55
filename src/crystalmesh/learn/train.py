"""The stage `train`: one trainer for all models."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from crystalmesh import numerics
from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import canonical_json, sha256, write_csv, write_json, write_tensors
from crystalmesh.learn.batches import Sample, place, samples
from crystalmesh.learn.distillation import SoftLabels
from crystalmesh.learn.fit import (
    ONE,
    Clock,
    Devices,
    Fit,
    Fitted,
    at_once,
    quiet,
    starting_weights,
)
from crystalmesh.learn.predict import FORMAT, Checkpoint
from crystalmesh.learn.stacking import stacked
from crystalmesh.models.distributed import gathered, rank
from crystalmesh.provenance import software

HISTORY = ("epoch", "train_loss", "val_metric", "lr")


def train(project: Project, run: Run, devices: Devices = ONE) -> None:
    """Fit the run's networks, each of the epoch that validates best.

    With `refit` of the last epoch; the history then says how well validation crystals are fitted.

    Writes the checkpoint, the history (no times: it must come out the same again) and the card
    (data, settings, numerics, device, times). An interrupted training continues from its last
    whole epoch. Of several processes, each runs this, and the first one writes.

    Raises:
        CrystalmeshError: missing or damaged inputs, no training crystals, devices that are not
            there.
    """
    tier = project.params.numerics(run)
    numerics.enforce(tier)
    quiet()
    settings, read = project.params.settings(run), _inputs(project, run)
    parallel = {"parallel": vars(devices)} if devices.processes > 1 else {}
    identity = canonical_json([settings, read, tier, *([parallel] if parallel else [])])
    scratch = project.scratch / "train" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    fitted = _networks(project, run, devices, scratch)
    if rank() > 0:
        return
    facts: dict[str, Any] = next(iter(fitted.values())).facts
    if run.several:
        facts = {"runs": {prefix.rstrip("."): one.facts for prefix, one in fitted.items()}}
    facts = {"format": FORMAT} | facts
    device = next(iter(fitted.values())).device
    _write_history(project.history(run), run, fitted)
    write_json(
        project.card(run),
        facts
        | {
            "study": run.study,
            "name": run.name,
            "settings": settings,
            "data": read,
            "numerics": numerics.describe(tier, device),
            "device": _device_name(device),
            **parallel,
            "train_seconds": round(sum(one.seconds for one in fitted.values()), 1),
            "cpu_seconds": round(sum(one.cpu_seconds for one in fitted.values()), 1),
            "code": software.code(),
        },
    )
    tensors = {
        prefix + key: value for prefix, one in fitted.items() for key, value in one.tensors.items()
    }
    write_tensors(project.checkpoint(run), tensors, json.dumps(settings | facts, sort_keys=True))
    shutil.rmtree(scratch, ignore_errors=True)


def _networks(project: Project, run: Run, devices: Devices, scratch: Path) -> dict[str, Fitted]:
    """Every network of the run by its place; a finished one is kept in `scratch` for the next."""
    teachers = None
    if run.distillation:
        teachers = Checkpoint.load(project, project.params.run(run.distillation.run))
    start = starting_weights(project, run)
    gradients = project.params.models[run.model].training is not None
    described: dict[str, Any] = {}  # folds are taught on the same crystals
    found: dict[str, Fitted] = {}
    for fold, sample in samples(project, run):
        shared = cache(partial(Shared.of, project, run, sample, teachers, fold, described))
        for member in range(run.members or 1):
            prefix = place(run, fold, member)
            label = f"{run.name} fold {fold} member {member}" if run.several else run.name
            own = scratch / prefix.rstrip(".") if run.several else scratch
            one = Fitted.load(own / "done.safetensors")
            if one is None:
                seed = run.seed + member
                with _reading(project, run):
                    if gradients:
                        whole, soft = shared().sample, shared().soft
                        fit = Fit(project, run, whole, seed, devices, soft, start, label)
                        one = shared().added(fit.twice(own), first=member == 0)
                    else:
                        one = at_once(project, run, sample, seed)
                if run.several and rank() == 0:
                    for path in own.rglob("*.ckpt"):
                        path.unlink()
                    one.save(own / "done.safetensors")
            found[prefix] = one
    return found


@contextmanager
def _reading(project: Project, run: Run) -> Iterator[None]:
    """Say in one line what a model reads that a representation, not its own, has not."""
    model = project.params.models[run.model]
    try:
        yield
    except KeyError as error:
        if run.representation == model.representation:
            raise
        raise CrystalmeshError(
            f"{run.reference}: {run.model} reads {error}, which {run.representation} has not; give"
            f" it the representation {model.representation}"
        ) from error


@dataclass(frozen=True)
class Shared:
    """What the networks of a fold share.

    Attributes:
        sample: with what Gaussian processes say, if the networks are stacked on them.
        processes: arrays of these, by their names in the network; else none.
        soft: what other networks teach, if they do.
        seconds, cpu_seconds: that it took.
    """

    sample: Sample
    processes: dict[str, NDArray[Any]]
    soft: SoftLabels | None
    seconds: float
    cpu_seconds: float

    @classmethod
    def of(
        cls,
        project: Project,
        run: Run,
        sample: Sample,
        teachers: Checkpoint | None,
        fold: str,
        described: dict[str, Any],
    ) -> "Shared":
        """Fit processes and ask the teachers; for `described` see `SoftLabels.of`.

        Raises:
            CrystalmeshError: the network is stacked, and its target is not a number of a crystal.
        """
        clock = Clock()
        soft = SoftLabels.of(project, run, sample, teachers, fold, described)
        processes: dict[str, NDArray[Any]] = {}
        if settings := project.params.models[run.model].network.get("stacking"):
            targets = [project.params.targets[one] for one in run.targets]
            if any(one.kind == "classification" or one.wide for one in targets):
                raise CrystalmeshError(
                    f"models.{run.model}.network.stacking: not of classes, nor of more than one"
                    " number a system"
                )
            # Not before the teachers have spoken: they ask processes of their own.
            sample, processes = stacked(sample, settings)
            soft = soft and replace(soft, sample=sample)
        return cls(sample, processes, soft, *clock.read())

    def added(self, one: Fitted, first: bool) -> Fitted:
        """A fitted network with the processes; the first one of a fold has all the time in it."""
        return replace(
            one,
            tensors=one.tensors | self.processes,
            seconds=one.seconds + first * self.seconds,
            cpu_seconds=one.cpu_seconds + first * sum(gathered(self.cpu_seconds)),
        )


def _write_history(path: Path, run: Run, fitted: dict[str, Fitted]) -> None:
    rows: list[Sequence[Any]] = [
        [*([prefix.rstrip(".")] if run.several else []), *row]
        for prefix, one in fitted.items()
        for row in one.rows
    ]
    write_csv(path, ["run", *HISTORY] if run.several else HISTORY, rows)


def _inputs(project: Project, run: Run) -> dict[str, str]:
    """Checksums of what the run reads; an index holds those of its shards."""
    dataset = run.dataset
    paths = [
        *project.raws(dataset),
        project.crystals(dataset) / "index.json",
        project.crystals(dataset) / "crystals.safetensors",
        project.split(dataset, run.split),
        project.features(dataset, run.representation) / "index.json",
    ]
    if run.before:
        paths.append(project.checkpoint(project.params.run(run.before)))
    return {project.relative(path): sha256(path) for path in paths}


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return "cpu"
