"""One network from its first weights to those that are published."""

import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Restart, Run, Training
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import read_note, read_tensors, write_tensors
from crystalmesh.learn.batches import Part, Sample
from crystalmesh.learn.distillation import SoftLabels
from crystalmesh.learn.learner import Averaging, EpochLine, Learner
from crystalmesh.models import classical, network
from crystalmesh.models.distributed import rank
from crystalmesh.models.heads import Head


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


class Clock:
    """Seconds of the clock and of the processor since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


@dataclass(frozen=True)
class Fitted:
    """One network of a run: its weights as they are published, and how they came about.

    Attributes:
        tensors: name -> array.
        rows: the history: epoch, training loss, validation metric, learning rate.
        facts: what its predictions need and what is reported of its training: `moments` (mean and
            deviation of each target), sizes of the parts, epochs, parameters.
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
        """Keep a finished network for when the run's next one is interrupted."""
        note = {key: value for key, value in vars(self).items() if key != "tensors"}
        write_tensors(path, self.tensors, json.dumps(note))

    @classmethod
    def load(cls, path: Path) -> "Fitted | None":
        """What was kept, or None."""
        if not path.exists():
            return None
        note = json.loads(read_note(path))
        note["rows"] = [tuple(row) for row in note["rows"]]
        return cls(read_tensors(path), **note)


@dataclass(frozen=True)
class Fit:
    """The training of one network by gradients.

    Attributes:
        project, run: what is trained.
        sample: what it learns from.
        seed: of first weights, batches and dropout.
        devices: it is trained on.
        soft: what other networks teach, if it is distilled.
        start: weights that it starts from, by name; empty where it starts anew.
        label: its name in the log.
    """

    project: Project
    run: Run
    sample: Sample
    seed: int
    devices: Devices
    soft: SoftLabels | None
    start: Mapping[str, Tensor]
    label: str

    def twice(self, scratch: Path) -> Fitted:
        """The training; with `restart`, a second one from the weights that the first one left."""
        model, training = (
            self.project.params.models[self.run.model],
            self.project.params.training(self.run),
        )
        restart = training.restart
        if restart is None:
            return self.once(model.network, training, scratch)
        changed = model.network | restart.network
        self._check(restart, changed)
        kept = scratch / "first.safetensors"
        first = Fitted.load(kept)
        if first is None:
            first = self.once(model.network, training, scratch)
            if rank() == 0:
                first.save(kept)
        weights = {key: torch.from_numpy(value) for key, value in first.tensors.items()}
        again = training.model_copy(update={"epochs": restart.epochs, "lr": restart.lr})
        then = replace(self, start=weights, label=f"{self.label} again")
        second = then.once(changed, again, scratch / "restart")
        done = len(first.rows)
        facts = {"epochs": done + len(second.rows), "best_epoch": done + second.facts["best_epoch"]}
        return replace(
            second,
            rows=first.rows + [(done + row[0], *row[1:]) for row in second.rows],
            facts=second.facts | facts,
            seconds=first.seconds + second.seconds,
            cpu_seconds=first.cpu_seconds + second.cpu_seconds,
        )

    def _check(self, restart: Restart, changed: Mapping[str, Any]) -> None:
        """A restart may change only settings that no weight's size hangs on."""
        model, outputs = (
            self.project.params.models[self.run.model],
            self.project.params.outputs(self.run),
        )
        before, after = (
            {key: value.shape for key, value in net.state_dict().items()}
            for net in (network(model.architecture, n, outputs) for n in (model.network, changed))
        )
        if before != after or "stacking" in restart.network:
            raise CrystalmeshError(
                f"models.{self.run.model}.training.restart.network: changes the sizes of weights;"
                " leave only what has none, as `dropout`"
            )

    def once(self, settings: Mapping[str, Any], training: Training, scratch: Path) -> Fitted:
        """Train a network of these settings, from the weights of `start` where there are any."""
        params, run, sample = self.project.params, self.run, self.sample
        model = params.models[run.model]
        fewest = min(training.batch_size, len(sample.train.ids), len(sample.val.ids))
        if self.devices.processes > 1 and fewest < self.devices.processes:
            raise CrystalmeshError(
                f"{self.label}: {self.devices.processes} processes for {fewest} crystals; use fewer"
                " devices"
            )
        torch.manual_seed(self.seed)
        net = network(model.architecture, settings, params.outputs(run))
        transfer(net, self.start)
        head = Head({name: params.targets[name] for name in run.targets})
        weights = params.weights(run)
        learner = Learner(net, head, training, sample, self.seed, self.soft, weights)
        trainer, best = self._trainer(training, scratch)
        _run(trainer, learner, scratch, self.label)
        path = best.best_model_path
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        trainer.strategy.barrier()  # the first process removes the file when all have read it
        tensors = {
            key.removeprefix("net."): publish(value, model.checkpoint).numpy()
            for key, value in state.items()
        }
        values = [row[2] for row in learner.rows]
        top = int(np.argmax(values) if best.mode == "max" else np.argmin(values))
        top = len(values) - 1 if run.refit else top
        facts: dict[str, Any] = {
            "moments": dict(zip(run.targets, map(list, learner.moments), strict=True)),
            "n_train": len(sample.train.ids),
            "n_val": 0 if run.refit else len(sample.val.ids),
            "epochs": len(learner.rows),
            "best_epoch": learner.rows[top][0] + 1,
            "parameters": sum(p.numel() for p in net.parameters()),
        }
        if any(learner.references):
            facts["references"] = dict(zip(run.targets, learner.references, strict=True))
        device = str(trainer.strategy.root_device)
        return Fitted(tensors, learner.rows, facts, learner.seconds, learner.cpu_seconds, device)

    def _trainer(self, training: Training, scratch: Path) -> tuple[pl.Trainer, ModelCheckpoint]:
        """Lightning's trainer, and what keeps the epoch that is published."""
        target = self.project.params.targets[self.run.target]
        best = ModelCheckpoint(
            scratch,
            filename="best",
            monitor=None if self.run.refit else "val_metric",  # without: the last epoch
            mode="max" if target.kind == "classification" else "min",
            save_last=True,
            enable_version_counter=False,
        )
        patience = None if self.run.refit else training.patience
        on_terminal = sys.stderr.isatty()
        # Lightning takes every job of Slurm for one in which srun has started the processes.
        devices, tasks = self.devices, int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
        started = devices.processes > 1 and tasks > 1
        stopping = EarlyStopping(
            "val_metric",
            mode=best.mode,
            patience=patience or training.epochs,
            check_finite=False,
        )
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
                    stopping,
                    RichProgressBar() if on_terminal else EpochLine(self.label),
                    *([Averaging(decay=training.ema)] if training.ema else []),
                ],
            )
        except (MisconfigurationException, RuntimeError, ValueError) as error:  # what it has not
            raise CrystalmeshError(f"{self.label}: {error}") from error
        return trainer, best


def _run(trainer: pl.Trainer, learner: Learner, scratch: Path, label: str) -> None:
    """Train, from the last whole epoch of a training that was interrupted."""
    try:
        trainer.fit(learner, ckpt_path=_resumable(scratch / "last.ckpt", label), weights_only=True)
    except SystemExit as stop:  # lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    except RuntimeError as error:  # or, between two epochs, its stumbling over what is half made
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise


def starting_weights(project: Project, run: Run) -> dict[str, Tensor]:
    """The weights that the run's training starts from; none, where it starts anew.

    Raises:
        CrystalmeshError: the checkpoint of the other run is missing or damaged.
    """
    if run.start is None:
        return {}
    tensors = read_tensors(project.checkpoint(project.params.run(run.start)))
    return {key: torch.from_numpy(value) for key, value in tensors.items()}


def transfer(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Start a network from the weights of another, those of the last layer too.

    Weights of another shape (a last layer with another number of outputs) are left as drawn.
    """
    state = net.state_dict()
    fitting = {k: v for k, v in weights.items() if k in state and state[k].shape == v.shape}
    net.load_state_dict(state | fitting)


def at_once(project: Project, run: Run, sample: Sample, seed: int) -> Fitted:
    """Fit one of the classical models, which see all training crystals at once."""
    model, target = project.params.models[run.model], project.params.targets[run.target]
    clock = Clock()
    classes = target.classes if target.kind == "classification" else None
    inputs, targets = sample.descriptors(sample.train), sample.train.targets
    tensors = classical.fit(model.network, inputs, targets, seed, classes)

    def metric(part: Part) -> float:
        values = classical.apply(model.network, tensors, sample.descriptors(part))
        if classes is not None:
            return 100.0 * float((values.argmax(axis=1) == part.targets).mean())
        return float(np.abs(values - part.targets).mean())

    facts = {
        "moments": {run.target: [0.0, 1.0]},
        "n_train": len(sample.train.ids),
        "n_val": len(sample.val.ids),
        "epochs": 1,
        "best_epoch": 1,
        "parameters": sum(array.size for array in tensors.values()),
    }
    rows = [(1, metric(sample.train), metric(sample.val), 0.0)]
    return Fitted(tensors, rows, facts, *clock.read(), "cpu")


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


def quiet() -> None:
    """Silence lightning's advertisements and what does not concern the reader of a log."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Of torch's deprecated names that lightning uses, and of a resumed training's own files.
    # The metric that is logged is the same in each process; of Slurm, see `Fit.once`.
    other = (".*sync_dist=True.*", ".*`srun` command is available.*")
    for message in (".*LeafSpec.*", ".*exists and is not empty.*", *other):
        warnings.filterwarnings("ignore", message=message)
