"""One trainer for all networks."""

import gc
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    RichProgressBar,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh import numerics, provenance
from crystalmesh.config import Experiment, Project, Task, Training
from crystalmesh.data import splits
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import (
    canonical_json,
    read_note,
    read_tensors,
    sha256,
    write_csv,
    write_json,
    write_tensors,
)
from crystalmesh.learn import muon
from crystalmesh.learn.batches import (
    EVALUATION_BATCH,
    Batches,
    Part,
    Sample,
    place,
    samples,
    scale,
    unscale,
)
from crystalmesh.learn.kriging import informed
from crystalmesh.learn.lessons import Lessons
from crystalmesh.learn.predict import Checkpoint, finished, forward, inputs
from crystalmesh.learn.replay import Replay
from crystalmesh.models import classical, network
from crystalmesh.models.processes import counted, gathered, rank, several


@dataclass(frozen=True)
class Devices:
    """What trains a network. Several devices share each batch, a process a device.

    Attributes:
        accelerator: of lightning: auto, cpu, gpu, ...
        count: devices of a node.
        nodes: of a cluster.
        strategy: of lightning: auto, ddp, ...
    """

    accelerator: str = "auto"
    count: int = 1
    nodes: int = 1
    strategy: str = "auto"

    @property
    def processes(self) -> int:
        return self.count * self.nodes


ONE = Devices()


class Learner(pl.LightningModule):
    """A network with its loss, optimiser and whole-set validation metric.

    Args:
        net: the network.
        task: what it predicts.
        training: how it is trained.
        sample: what it learns from.
        lessons: what it is taught by other networks, if it is.
        seed: of the order of batches and of dropout; both are drawn anew from (seed, epoch) each
            epoch, so that a resumed training goes on as if it had not stopped.
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        training: Training,
        sample: Sample,
        seed: int,
        lessons: Lessons | None = None,
    ) -> None:
        super().__init__()
        self.net, self.task, self.training_settings = net, task, training
        self.sample, self.seed, self.lessons = sample, seed, lessons
        self._lesson_order = np.zeros(0, dtype=np.int64)
        targets = sample.train.targets
        scaled = training.standardise and task.kind == "regression"
        self.mean = float(targets.mean()) if scaled else 0.0
        self.std = float(targets.std()) if scaled and targets.std() > 0 else 1.0
        self.beside_mean, self.beside_std = _moments(sample.train.beside)
        self.rows: list[tuple[int, float, float, float]] = []  # the history
        self.seconds = 0.0  # of the clock, and of the processor: both also of the runs before this
        self.cpu_seconds = 0.0
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()
        self._losses: list[tuple[Tensor, int]] = []
        self._replay: Replay | None = None
        self._outputs: list[Tensor] = []

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L1 or squared error on (standardised) targets, cross entropy for classes.

        With tasks beside it, the mean of its loss and of theirs, these standardised and over the
        crystals of the batch that have the label.
        """
        error = F.l1_loss if self.training_settings.loss == "l1" else F.mse_loss
        count = self.task.outputs
        own = targets if targets.ndim == 1 else targets[:, 0]
        if self.task.kind == "classification":
            loss = F.cross_entropy(outputs[:, :count], own.long())
        else:
            scaled = scale(own, self.mean, self.std, self.training_settings).to(outputs.dtype)
            loss = error(outputs[:, 0], scaled)
        if targets.ndim == 1:
            return loss
        others = (targets[:, 1:] - self.beside_mean.to(own)) / self.beside_std.to(own)
        known = others.isfinite().any(dim=0)
        for k in known.nonzero().flatten().tolist():
            has = others[:, k].isfinite()
            loss = loss + error(outputs[has, count + k], others[has, k].to(outputs.dtype))
        return loss / (1 + others.shape[1])

    def metric(self, outputs: Tensor, targets: np.ndarray[Any, Any]) -> float:
        """MAE in the task's unit, or accuracy in per cent, over the whole set at once."""
        if self.task.kind == "classification":
            classes = outputs[:, : self.task.outputs].argmax(dim=1).numpy()
            return 100.0 * float((classes == targets).mean())
        values = unscale(outputs, self.mean, self.std, self.training_settings)
        return float(np.abs(values - targets).mean())

    def train_dataloader(self) -> Batches:
        return Batches(
            self.sample,
            self.sample.train,
            self.training_settings.batch_size,
            shuffle=(self.seed, self.current_epoch),
            share=(self.global_rank, self.trainer.world_size),
        )

    def val_dataloader(self) -> Batches:
        share = (self.global_rank, self.trainer.world_size)
        size = EVALUATION_BATCH * (8 if self._replay else 1)  # small complexes, and a GPU
        return Batches(self.sample, self.sample.val, size, share=share)

    def on_train_epoch_start(self) -> None:
        seed = self.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed + 1_000_000_007 * self.global_rank)
        self._losses.clear()
        if self.lessons:
            place = (self.seed, self.current_epoch, 1 + self.global_rank)
            self._lesson_order = self.lessons.order(place)

    def on_fit_start(self) -> None:
        size = self.training_settings.batch_size
        self._replay = Replay.of(self.net, self.sample, size, self.device)

    def on_fit_end(self) -> None:
        if self._replay is not None:  # what is recorded holds the GPU's memory, in circles
            self._replay = None
            gc.collect()

    def on_before_batch_transfer(
        self, batch: tuple[dict[str, Tensor], Tensor], _: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        if self._replay is None or not self.trainer.training:
            return batch
        return self._replay.padded(batch[0]), batch[1]

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor], step: int) -> Tensor:
        crystals, targets = batch
        loss = self.loss((self._replay or self.net)(crystals)[: len(targets)], targets)
        self._losses.append((loss.detach(), len(targets)))
        if self.lessons:
            loss = loss + self.lessons.loss(self.net, self._lesson_order, step)
        if several():  # gradients are averaged over processes, of which some have a crystal more
            loss = loss * (len(targets) * self.trainer.world_size / counted(targets))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._outputs.clear()

    def validation_step(self, batch: tuple[Mapping[str, Tensor], Tensor], _: int) -> None:
        self._outputs.append(self.net(batch[0]).cpu())

    def on_validation_epoch_end(self) -> None:
        # of each batch, the share of each process
        outputs = [share for batch in zip(*gathered(self._outputs), strict=True) for share in batch]
        value = self.metric(torch.cat(outputs), self.sample.val.targets)
        if not math.isfinite(value):
            value = math.inf if self.task.kind == "regression" else 0.0
        self.log("val_metric", torch.tensor(value, dtype=torch.float64))
        own = [(loss.item(), n) for loss, n in self._losses]  # not step by step: a GPU would wait
        losses = [pair for process in gathered(own) for pair in process]
        weights = [n for _, n in losses]
        train_loss = float(np.average([loss for loss, _ in losses], weights=weights))
        lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append((self.current_epoch, train_loss, value, lr))
        now = time.perf_counter()
        self.seconds, self._started = self.seconds + now - self._started, now
        now = time.process_time()
        self.cpu_seconds += sum(gathered(now - self._cpu_started))
        self._cpu_started = now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = list(self.rows)
        checkpoint["seconds"] = [self.seconds, self.cpu_seconds]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rows = [tuple(row) for row in checkpoint["history"]]
        self.seconds, self.cpu_seconds = checkpoint["seconds"]

    def configure_optimizers(self) -> Any:
        s = self.training_settings
        parameters = list(self.net.parameters())
        if s.optimizer == "muon" and not any(map(muon.is_matrix, parameters)):
            raise CrystalmeshError(
                f"training.optimizer: muon: the network has no matrix of {muon.SIDE} x {muon.SIDE}"
                " or more; set adamw, or a larger width"
            )
        optimizer: torch.optim.Optimizer
        if s.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                parameters, s.lr, momentum=s.momentum, weight_decay=s.weight_decay
            )
        else:
            kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": muon.Muon}
            optimizer = kinds[s.optimizer](parameters, s.lr, weight_decay=s.weight_decay)
        if s.schedule == "constant":
            return optimizer
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if s.schedule == "step":
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(s.milestones))
            return {"optimizer": optimizer, "lr_scheduler": scheduler}
        steps = s.epochs * len(self.train_dataloader())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.lr, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class EpochLine(Callback):
    """One line an epoch, for logs and pipes where a progress bar would only make noise."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        if not trainer.is_global_zero:
            return
        epoch, loss, value, _ = pl_module.rows[-1]
        print(
            f"{self.name}: epoch {epoch + 1}/{trainer.max_epochs}"
            f" loss {loss:.4f} validation {value:.4f} ({pl_module.seconds:.0f} s)",
            file=sys.stderr,
            flush=True,
        )


class Averaging(EMAWeightAveraging):
    """The running mean of the weights, kept where these are: lightning keeps it on the CPU."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        if self._average_model is not None:
            self._average_model.to(pl_module.device)


@dataclass(frozen=True)
class Run:
    """One network of an experiment: its weights as they are published, and how they came about.

    Attributes:
        tensors: name -> array.
        rows: the history: epoch, training loss, validation metric, learning rate.
        facts: what its predictions need and what is reported of its training.
        seconds, cpu_seconds: of the training.
        device: it ran on.
    """

    tensors: dict[str, NDArray[Any]]
    rows: list[tuple[int, float, float, float]]
    facts: dict[str, Any]
    seconds: float
    cpu_seconds: float
    device: str

    def save(self, path: Path) -> None:
        """Keep a finished run for when the experiment's next one is interrupted."""
        note = {key: value for key, value in vars(self).items() if key != "tensors"}
        write_tensors(path, self.tensors, json.dumps(note))

    @classmethod
    def load(cls, path: Path) -> "Run | None":
        """The run that was kept, or None."""
        if not path.exists():
            return None
        note = json.loads(read_note(path))
        note["rows"] = [tuple(row) for row in note["rows"]]
        return cls(read_tensors(path), **note)


def train(project: Project, group: str, name: str, devices: Devices = ONE) -> None:
    """The stage `train`: fit the experiment's networks, each of the epoch that validates best.

    With `refit` of the last epoch; the history then says how well validation crystals are fitted.

    Writes the checkpoint, the history (no times: it must come out the same again) and the card
    (data, settings, numerics, device, times). An interrupted training continues from its last
    whole epoch. Of several processes, each runs this, and the first one writes.

    Raises:
        CrystalmeshError: unknown experiment, missing or damaged inputs, no training crystals,
            devices that are not there.
    """
    experiment = project.params.experiment(group, name)
    model, tier = project.params.models[experiment.model], project.params.numerics(group)
    numerics.enforce(tier)
    _quiet()
    settings = project.params.settings(experiment)
    read = _inputs(project, experiment)
    parallel = {"parallel": vars(devices)} if devices.processes > 1 else {}
    identity = canonical_json([settings, read, tier, *([parallel] if parallel else [])])
    scratch = project.scratch / "train" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    multiple = experiment.several
    known = _known(project, experiment)
    start = {} if known else pretrained(project, experiment)
    runs: dict[str, Run] = {}
    described: dict[str, NDArray[np.float64]] = {}  # folds teach on the same crystals
    for fold, sample in samples(project, experiment):
        shared = cache(partial(Shared.of, project, experiment, sample, known, fold, described))
        for member in range(experiment.members or 1):
            prefix = place(experiment, fold, member)
            label = f"{name} fold {fold} member {member}" if multiple else name
            own = scratch / prefix.rstrip(".") if multiple else scratch
            run = Run.load(own / "done.safetensors")
            if run is None:
                seed = experiment.seed + member
                if known and experiment.as_is:
                    run = _taken(project, experiment, sample, known, prefix)
                elif model.training is None:
                    run = _fit_at_once(project, experiment, sample, seed)
                else:
                    run = _fit(
                        project,
                        experiment,
                        shared().sample,
                        seed,
                        own,
                        label,
                        start,
                        devices,
                        shared().lessons,
                    )
                    run = shared().added(run, first=member == 0)
                if multiple and rank() == 0:
                    for path in own.rglob("*.ckpt"):
                        path.unlink()
                    run.save(own / "done.safetensors")
            runs[prefix] = run
    if rank() > 0:
        return
    tensors = {
        prefix + key: value for prefix, run in runs.items() for key, value in run.tensors.items()
    }
    facts: dict[str, Any] = next(iter(runs.values())).facts
    if multiple:
        facts = {"runs": {prefix.rstrip("."): run.facts for prefix, run in runs.items()}}
    header = ["epoch", "train_loss", "val_metric", "lr"]
    rows: list[Sequence[Any]] = [
        [*([prefix.rstrip(".")] if multiple else []), *row]
        for prefix, run in runs.items()
        for row in run.rows
    ]
    write_csv(project.history(group, name), ["run", *header] if multiple else header, rows)
    device = next(iter(runs.values())).device
    write_json(
        project.card(group, name),
        facts
        | {
            "name": name,
            "settings": settings,
            "data": read,
            "numerics": numerics.describe(tier, device),
            "device": _device_name(device),
            **parallel,
            "train_seconds": round(sum(run.seconds for run in runs.values()), 1),
            "cpu_seconds": round(sum(run.cpu_seconds for run in runs.values()), 1),
            "code": provenance.code(),
        },
    )
    note = json.dumps(settings | facts, sort_keys=True)
    write_tensors(project.checkpoint(group, name), tensors, note)
    shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class Shared:
    """What the networks of a fold share.

    Attributes:
        sample: with what processes say, if the networks read it.
        processes: arrays of these, by their names in the network; else none.
        lessons: what other networks teach, if they do.
        seconds, cpu_seconds: that it took.
    """

    sample: Sample
    processes: dict[str, NDArray[Any]]
    lessons: Lessons | None
    seconds: float
    cpu_seconds: float

    @classmethod
    def of(
        cls,
        project: Project,
        experiment: Experiment,
        sample: Sample,
        known: Checkpoint | None,
        fold: str,
        described: dict[str, NDArray[np.float64]],
    ) -> "Shared":
        """Fit processes and hear the teachers; for `described` see `Lessons.of`."""
        began = time.perf_counter(), time.process_time()
        lessons = Lessons.of(project, experiment, sample, known, fold, described)
        processes: dict[str, NDArray[Any]] = {}
        if settings := project.params.models[experiment.model].network.get("process"):
            # Not before the teachers have spoken: they ask processes of their own.
            sample, processes = informed(sample, settings)
            lessons = lessons and replace(lessons, sample=sample)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        return cls(sample, processes, lessons, *took)

    def added(self, run: Run, first: bool) -> Run:
        """A network's run with the processes; the first one of a fold has all the time in it."""
        return replace(
            run,
            tensors=run.tensors | self.processes,
            seconds=run.seconds + first * self.seconds,
            cpu_seconds=run.cpu_seconds + first * sum(gathered(self.cpu_seconds)),
        )


def pretrained(project: Project, experiment: Experiment) -> dict[str, Tensor]:
    """The weights that the experiment's training starts from; none, where it starts anew.

    Raises:
        CrystalmeshError: the checkpoint of the other experiment is missing or damaged.
    """
    source = experiment.pretrained
    if source is None:
        return {}
    tensors = read_tensors(project.checkpoint(source.group, source.name))
    return {key: torch.from_numpy(value) for key, value in tensors.items()}


def transfer(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Start a network from the weights of another, those of the last layer too.

    Weights of another shape (a last layer with another number of outputs) are left as drawn.
    """
    state = net.state_dict()
    fitting = {k: v for k, v in weights.items() if k in state and state[k].shape == v.shape}
    net.load_state_dict(state | fitting)


def _fit(
    project: Project,
    experiment: Experiment,
    sample: Sample,
    seed: int,
    scratch: Path,
    label: str,
    start: Mapping[str, Tensor],
    devices: Devices,
    lessons: Lessons | None,
) -> Run:
    """Train one network by gradients, twice with `restart`."""
    model, training = project.params.models[experiment.model], project.params.training(experiment)
    fit = partial(_fit_once, project, experiment, sample, seed, devices, lessons)
    restart = training.restart
    if restart is None:
        return fit(model.network, training, scratch, label, start)
    changed, outputs = model.network | restart.network, project.params.outputs(experiment)
    before, after = (
        {key: value.shape for key, value in net.state_dict().items()}
        for net in (network(model.architecture, one, outputs) for one in (model.network, changed))
    )
    if before != after or "process" in restart.network:
        raise CrystalmeshError(
            f"params.yaml: models.{experiment.model}.training.restart.network: changes the sizes of"
            " weights; leave only what has none, as `dropout`"
        )
    kept = scratch / "first.safetensors"
    first = Run.load(kept)
    if first is None:
        first = fit(model.network, training, scratch, label, start)
        if rank() == 0:
            first.save(kept)
    weights = {key: torch.from_numpy(value) for key, value in first.tensors.items()}
    again = training.model_copy(update={"epochs": restart.epochs, "lr": restart.lr})
    second = fit(changed, again, scratch / "restart", f"{label} again", weights)
    done = len(first.rows)
    facts = {"epochs": done + len(second.rows), "best_epoch": done + second.facts["best_epoch"]}
    return replace(
        second,
        rows=first.rows + [(done + row[0], *row[1:]) for row in second.rows],
        facts=second.facts | facts,
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
    )


def _fit_once(
    project: Project,
    experiment: Experiment,
    sample: Sample,
    seed: int,
    devices: Devices,
    lessons: Lessons | None,
    settings: Mapping[str, Any],
    training: Training,
    scratch: Path,
    label: str,
    start: Mapping[str, Tensor],
) -> Run:
    """Train a network of these settings once, from the weights of `start` where there are any."""
    model, task = project.params.models[experiment.model], project.params.tasks[experiment.task]
    fewest = min(training.batch_size, len(sample.train.ids), len(sample.val.ids))
    if devices.processes > 1 and fewest < devices.processes:
        raise CrystalmeshError(
            f"{label}: {devices.processes} processes for {fewest} crystals; use fewer devices"
        )
    torch.manual_seed(seed)
    net = network(model.architecture, settings, project.params.outputs(experiment))
    transfer(net, start)
    learner = Learner(net, task, training, sample, seed, lessons)
    best = ModelCheckpoint(
        scratch,
        filename="best",
        monitor=None if experiment.refit else "val_metric",  # without: the last epoch
        mode="max" if task.kind == "classification" else "min",
        save_last=True,
        enable_version_counter=False,
    )
    on_terminal = sys.stderr.isatty()
    # Lightning would take every job of Slurm for one in which srun has started the processes.
    started = devices.processes > 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    try:
        trainer = pl.Trainer(
            accelerator=devices.accelerator,
            devices=devices.count,
            num_nodes=devices.nodes,
            strategy=devices.strategy,
            plugins=None if started else LightningEnvironment(),
            use_distributed_sampler=False,  # batches are shared out by `Batches`
            max_epochs=training.epochs,
            deterministic=True,
            logger=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            callbacks=[
                best,
                EarlyStopping(
                    "val_metric",
                    mode=best.mode,
                    patience=training.epochs if experiment.refit else training.patience,
                    check_finite=False,
                ),
                RichProgressBar() if on_terminal else EpochLine(label),
                *([Averaging(decay=training.ema)] if training.ema else []),
            ],
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:  # what it has not
        raise CrystalmeshError(f"{label}: {error}") from error
    try:
        trainer.fit(learner, ckpt_path=_resumable(scratch / "last.ckpt", label), weights_only=True)
    except SystemExit as stop:  # lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    except RuntimeError as error:  # or, between two epochs, its stumbling over what is half made
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    trainer.strategy.barrier()  # the first process removes the file when all have read it
    tensors = {
        key.removeprefix("net."): publish(value, model.checkpoint).numpy()
        for key, value in state.items()
    }
    values = [row[2] for row in learner.rows]
    top = int(np.argmax(values) if best.mode == "max" else np.argmin(values))
    top = len(values) - 1 if experiment.refit else top
    facts: dict[str, Any] = {
        "mean": learner.mean,
        "std": learner.std,
        "n_train": len(sample.train.ids),
        "n_val": 0 if experiment.refit else len(sample.val.ids),
        "epochs": len(learner.rows),
        "best_epoch": learner.rows[top][0] + 1,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    if experiment.beside:
        pairs = zip(learner.beside_mean.tolist(), learner.beside_std.tolist(), strict=True)
        facts["moments"] = dict(zip(experiment.beside, map(list, pairs), strict=True))
    device = str(trainer.strategy.root_device)
    return Run(tensors, learner.rows, facts, learner.seconds, learner.cpu_seconds, device)


def _fit_at_once(project: Project, experiment: Experiment, sample: Sample, seed: int) -> Run:
    """Fit one of the classical models, which see all training crystals at once."""
    model, task = project.params.models[experiment.model], project.params.tasks[experiment.task]
    began = time.perf_counter(), time.process_time()
    classes = task.classes if task.kind == "classification" else None
    inputs, targets = sample.descriptors(sample.train), sample.train.targets
    tensors = classical.fit(model.network, inputs, targets, seed, classes)

    def metric(part: Part) -> float:
        values = classical.apply(model.network, tensors, sample.descriptors(part))
        if classes is not None:
            return 100.0 * float((values.argmax(axis=1) == part.targets).mean())
        return float(np.abs(values - part.targets).mean())

    facts = {
        "mean": 0.0,
        "std": 1.0,
        "n_train": len(sample.train.ids),
        "n_val": len(sample.val.ids),
        "epochs": 1,
        "best_epoch": 1,
        "parameters": sum(array.size for array in tensors.values()),
    }
    rows = [(1, metric(sample.train), metric(sample.val), 0.0)]
    seconds, cpu_seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    return Run(tensors, rows, facts, seconds, cpu_seconds, "cpu")


def _known(project: Project, experiment: Experiment) -> Checkpoint | None:
    """The networks that an experiment takes or is taught by; None for all others."""
    if experiment.pretrained is None or experiment.transferred:
        return None
    return Checkpoint.load(project, experiment.pretrained.group, experiment.pretrained.name)


def _taken(
    project: Project, experiment: Experiment, sample: Sample, known: Checkpoint, prefix: str
) -> Run:
    """A network of another experiment whose first output is now that for our task.

    Raises:
        CrystalmeshError: it was trained on crystals that this experiment tests on.
    """
    began = time.perf_counter(), time.process_time()
    assert experiment.pretrained is not None
    source = project.params.experiment(experiment.pretrained.group, experiment.pretrained.name)
    name, fold = experiment.pretrained.name, prefix.partition(".")[0].removeprefix("fold")
    parts = splits.select(project, source, fold or str(source.fold))
    seen = {*parts.train, *parts.val}
    if common := [one for one in sample.test.ids if one in seen]:
        raise CrystalmeshError(
            f"{name} has learned {len(common)} crystals that its networks would be tested on"
            f" ({common[0]} first); with `as_is` both splits must have the same test crystals"
        )
    facts, tensors = known.run(prefix)
    net = known.network(prefix, project.params.outputs(source))
    last = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    order = [source.learned.index(task) for task in experiment.learned]
    for key in (f"{last}.weight", f"{last}.bias"):
        tensors[key] = tensors[key][order]
    net.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
    moments = facts.get("moments", {}) | {source.task: [facts["mean"], facts["std"]]}
    mean, std = moments[experiment.task]
    kept = ("n_train", "n_val", "epochs", "best_epoch", "parameters")
    own: dict[str, Any] = {"mean": mean, "std": std} | {key: facts[key] for key in kept}
    own["moments"] = {task: moments[task] for task in experiment.beside or ()}

    def metric(part: Part) -> float:
        values = finished(forward(net, inputs(sample, part)), own, project, experiment)
        return float(np.abs(values - part.targets).mean())

    # Where a network asks its processes, which know these labels: how well crystals are fitted.
    rows = [(own["best_epoch"], metric(sample.train), metric(sample.val), 0.0)]
    seconds, cpu_seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    return Run(tensors, rows, own, seconds, cpu_seconds, "cpu")


def _moments(labels: NDArray[np.float64] | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column over its known labels; 0 and 1 where there are none."""
    if labels is None:
        return torch.zeros(0), torch.ones(0)
    columns = [column[np.isfinite(column)] for column in labels.T]
    mean = [float(column.mean()) if len(column) else 0.0 for column in columns]
    std = [float(column.std()) if len(column) else 0.0 for column in columns]
    return torch.tensor(mean), torch.tensor([s if s > 0 else 1.0 for s in std])


def _resumable(last: Path, name: str) -> Path | None:
    """The state to go on from; None, after a word, where a kill has cut it short.

    Read as tensors and plain values only: a pickle that would run code is refused with it.
    """
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # torch and zipfile raise many kinds
        print(
            f"{name}: {last} is damaged ({type(error).__name__}): from the start", file=sys.stderr
        )
        shutil.rmtree(last.parent)
        return None
    return last


def publish(tensor: Tensor, precision: str) -> Tensor:
    """A tensor of a checkpoint as it is published: weight matrices in the model's precision.

    Vectors (biases, statistics of normalisations) stay as they are, and so does a matrix with
    numbers that half precision does not reach.
    """
    if precision == "float16" and tensor.is_floating_point() and tensor.ndim > 1:
        half = tensor.half()
        if bool(half.isfinite().all()):
            return half
    return tensor


def _quiet() -> None:
    """Silence lightning's advertisements and what does not concern the reader of a log."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Of torch's deprecated names that lightning uses, and of a resumed training's own files.
    # The metric that is logged is the same in each process; of Slurm, see `_fit_once`.
    other = (".*sync_dist=True.*", ".*`srun` command is available.*")
    for message in (".*LeafSpec.*", ".*exists and is not empty.*", *other):
        warnings.filterwarnings("ignore", message=message)


def _inputs(project: Project, experiment: Experiment) -> dict[str, str]:
    """Checksums of what the experiment reads; an index holds those of its shards."""
    dataset = experiment.dataset
    paths = [
        project.raw(dataset),
        project.crystals(dataset) / "index.json",
        project.crystals(dataset) / "crystals.safetensors",
        project.split(dataset, experiment.split),
        project.features(dataset, experiment.representation) / "index.json",
    ]
    if source := experiment.pretrained:
        paths.append(project.checkpoint(source.group, source.name))
    return {path.relative_to(project.root).as_posix(): sha256(path) for path in paths}


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return "cpu"
