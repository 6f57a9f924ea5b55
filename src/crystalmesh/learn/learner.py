"""A network with its loss, optimiser and validation metric, for lightning's trainer."""

import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from numpy.typing import NDArray
from torch import Tensor, nn

from crystalmesh.config.schema import Target, Training
from crystalmesh.errors import CrystalmeshError
from crystalmesh.learn import muon
from crystalmesh.learn.batches import EVALUATION_BATCH, Batch, Batches, Part, Sample, scale, unscale
from crystalmesh.learn.cuda_graphs import Recorder
from crystalmesh.learn.distillation import SoftLabels
from crystalmesh.models.distributed import counted, gathered, several
from crystalmesh.models.heads import Head


class Learner(pl.LightningModule):
    """A network with its loss, optimiser and whole-set validation metric.

    Args:
        net: the network.
        head: what stands on it: its targets, in their order.
        training: how it is trained.
        sample: what it learns from.
        soft: what other networks say of unlabelled crystals, if it is distilled.
        seed: of the order of batches and of dropout; both are drawn anew from (seed, epoch) each
            epoch, so that a resumed training goes on as if it had not stopped.
        weights: of the targets in the loss; None: all alike.

    Attributes:
        references: of each target what the labels are taken less for each atom: see `references`.
        moments: mean and deviation of each target, which it is scaled by. The gradient of another
            target is scaled by the deviation of that one, and has no mean: a constant for each
            atom or system does not change a gradient.
    """

    def __init__(
        self,
        net: nn.Module,
        head: Head,
        training: Training,
        sample: Sample,
        seed: int,
        soft: SoftLabels | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.head, self.training_settings = net, head, training
        self.targets, self.weights = list(head.targets.values()), weights
        self.seed, self.soft = seed, soft
        self._soft_order = np.zeros(0, dtype=np.int64)
        scaled = bool(training.standardise) and self.targets[0].kind == "regression"
        self.references = references(sample.train, self.targets, scaled)
        train, val = (one.relative(self.references) for one in (sample.train, sample.val))
        self.sample = replace(sample, train=train, val=val) if any(self.references) else sample
        own = self.sample.train
        self.moments = moments([own.of(k) for k in range(len(self.targets))], scaled)
        for k, target in enumerate(self.targets):
            if target.gradient_of:
                self.moments[k] = 0.0, self.moments[list(head.targets).index(target.gradient_of)][1]
            elif self.references[k]:
                self.moments[k] = 0.0, self.moments[k][1]
        self.rows: list[tuple[int, float, float, float]] = []  # the history
        self.seconds = 0.0  # of the clock, and of the processor: both also of the runs before this
        self.cpu_seconds = 0.0
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()
        self._losses: list[tuple[Tensor, int]] = []
        self._recorder: Recorder | None = None
        self._outputs: list[Tensor] = []

    def loss(
        self,
        outputs: Float[Tensor, "c o"] | Sequence[Tensor],
        labels: Float[Tensor, "c t"],
        *wide: Float[Tensor, "r k"],
    ) -> Tensor:
        """L1 or squared error on (standardised) targets, cross entropy for classes.

        Of several targets the (weighted) mean, each over the crystals of the batch that have its
        label; of a wide target over all numbers that are known.

        Args:
            outputs: of the network, or of the head.
            labels: of crystals.
            wide: labels of each wide target, in their order.
        """
        each = self.head.columns(outputs) if isinstance(outputs, Tensor) else outputs
        error = F.l1_loss if self.training_settings.loss == "l1" else F.mse_loss
        total, rest = each[0].new_zeros(()), iter(wide)
        for k, (target, said) in enumerate(zip(self.targets, each, strict=True)):
            own = next(rest) if target.wide else labels[:, k]
            if target.kind == "classification":
                loss = F.cross_entropy(said, own.long())
            else:
                scaled = scale(own, *self.moments[k], self.training_settings).to(said.dtype)
                if k or target.wide:  # all crystals have the first target
                    known = own.isfinite()
                    said, scaled = said[known], scaled[known]
                loss = error(said, scaled) if len(scaled) else said.new_zeros(())
            loss = loss * self.weights[k] if self.weights else loss
            total = total + loss if k else loss
        whole = sum(self.weights) if self.weights else len(self.targets)
        return total / whole if whole != 1 else total

    def metric(self, outputs: Float[Tensor, "c o"], targets: NDArray[np.float64]) -> float:
        """MAE in the unit of the first target, or accuracy in per cent, over the whole set."""
        first = self.targets[0]
        if first.kind == "classification":
            classes = outputs[:, : first.outputs].argmax(dim=1).numpy()
            return 100.0 * float((classes == targets).mean())
        values = unscale(outputs[:, 0], *self.moments[0], self.training_settings)
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
        size = EVALUATION_BATCH * (8 if self._recorder else 1)  # small complexes, and a GPU
        return Batches(self.sample, self.sample.val, size, share=share)

    def on_train_epoch_start(self) -> None:
        seed = self.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed + 1_000_000_007 * self.global_rank)
        self._losses.clear()
        if self.soft:
            place = (self.seed, self.current_epoch, 1 + self.global_rank)
            self._soft_order = self.soft.order(place)

    def on_fit_start(self) -> None:
        size = self.training_settings.batch_size
        if self.head.plain:
            self._recorder = Recorder.of(self.net, self.sample, size, self.device)

    def on_fit_end(self) -> None:
        if self._recorder is not None:  # what is recorded holds the GPU's memory, in circles
            self._recorder = None
            gc.collect()

    def on_before_batch_transfer(self, batch: Batch, _: int) -> Batch:
        if self._recorder is None or not self.trainer.training:
            return batch
        return self._recorder.padded(batch[0]), *batch[1:]

    def training_step(self, batch: Batch, step: int) -> Tensor:
        crystals, labels, *wide = batch
        if self.head.plain:
            outputs = (self._recorder or self.net)(crystals)[: len(labels)]
        else:
            outputs = self.head(self.net, crystals)
        loss = self.loss(outputs, labels, *wide)
        self._losses.append((loss.detach(), len(labels)))
        if self.soft:
            loss = loss + self.soft.loss(self.net, self._soft_order, step)
        if several():  # gradients are averaged over processes, of which some have a crystal more
            loss = loss * (len(labels) * self.trainer.world_size / counted(labels))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._outputs.clear()

    def validation_step(self, batch: Batch, _: int) -> None:
        if self.targets[0].wide:  # all in one column
            outputs = self.head(self.net, batch[0])[0].reshape(-1, 1)
        else:
            outputs = self.net(batch[0])
        self._outputs.append(outputs.cpu())

    def on_validation_epoch_end(self) -> None:
        # of each batch, the share of each process
        outputs = [share for batch in zip(*gathered(self._outputs), strict=True) for share in batch]
        value = self.metric(torch.cat(outputs), self.sample.val.targets)
        if not math.isfinite(value):
            value = math.inf if self.targets[0].kind == "regression" else 0.0
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


def references(part: Part, targets: Sequence[Target], first: bool) -> list[float]:
    """Mean label of an atom of each extensive target: all known labels over all atoms of these.

    Systems of different size differ by this much for each atom before a network has learned
    anything. Of the first target 0 unless `first`, as for its moments; of other targets 0.
    """
    found = []
    for k, (target, column) in enumerate(zip(targets, part.labels.T, strict=True)):
        known = np.isfinite(column)
        used = target.extensive and (k or first) and known.any()
        found.append(float(column[known].sum() / part.sizes[known].sum()) if used else 0.0)
    return found


def moments(
    labels: Sequence[Float[NDArray[np.float64], " c"]], first: bool
) -> list[tuple[float, float]]:
    """Mean and deviation of each target over its known labels; 0 and 1 where there are none.

    Of a wide target over all numbers of all crystals alike.

    The first target is left as it is unless `first`; the further ones are always standardised,
    with moments in single precision.
    """
    found = []
    for k, column in enumerate(labels):
        known = column[np.isfinite(column)]
        if not len(known) or not (k or first):
            found.append((0.0, 1.0))
            continue
        mean, std = float(known.mean()), float(known.std())
        if k:
            mean, std = float(np.float32(mean)), float(np.float32(std))
        found.append((mean, std if std > 0 else 1.0))
    return found


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
    """The running mean of the weights, kept where these are: lightning keeps it on the CPU.

    The mean is taken of buffers too, and rounds their constants a little with every step. Those
    that are in no state dict are kept with the resume state here: what validates after a training
    was interrupted is then what would have validated without that, bit for bit.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None:
            checkpoint["averaged_buffers"] = dict(self._average_model.named_buffers())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None:
            for name, buffer in self._average_model.named_buffers():
                buffer.copy_(checkpoint["averaged_buffers"][name])
