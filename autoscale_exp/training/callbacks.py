"""Callbacks of a run: the validation curve, the count of tokens, the resume point and the progress file."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.distributed.tensor import DTensor

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import DivergedError
from autoscale_exp.base.stopping import StopRequest
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.masking import row_keys
from autoscale_exp.training.progress_file import RunProgress, write_progress

PROGRESS_SECONDS = 1.0  # between two writes of progress.json
LARGEST_LOSS = math.log(sys.float_info.max)  # nats per token


def validation_steps(num_points: int, num_steps: int) -> set[int]:
    """The optimiser steps after which the validation curve has a point."""
    return {round(num_steps * point / num_points) for point in range(1, num_points + 1)} - {0}


def validation_batches(
    store: TokenStore, domain: str, batch_rows: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Yields a rank's batches of validation rows, with the keys of the rows, and whether the batch counts.

    The keys, and so the masks, are the same in all runs. All ranks have equally many batches, as ranks of a sharded
    model must: a rank with no row left repeats the last row in a batch that does not count.
    """
    rows = store.rows("validation", domain)
    for start in range(0, len(rows), batch_rows * world_size):
        stop = min(start + batch_rows * world_size, len(rows))
        numbers = torch.arange(min(start + rank, stop - 1), stop, world_size)
        tokens = torch.from_numpy(rows[numbers.numpy()].astype("int64"))
        yield tokens, row_keys(numbers, "validation", domain), start + rank < stop


def check_losses(losses: dict[str, float], tokens: int) -> None:
    """Checks a run's validation losses by domain after `tokens` tokens.

    Raises:
        DivergedError: a loss is not finite, or too large to have a perplexity.
    """
    for domain, loss in losses.items():
        if not loss < LARGEST_LOSS:
            raise DivergedError(
                f"the validation loss of '{domain}' is {loss} after {tokens} tokens; lower the learning rate"
            )


def check_training_loss(loss: float, step: int) -> None:
    """Checks the training loss of an optimiser step.

    Raises:
        DivergedError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss} at step {step}; lower the learning rate")


def check_counts(domains: Sequence[str], rows: Sequence[int], planned_rows: Sequence[int]) -> None:
    """Checks that the (K,) rows that a run was trained on are the planned ones.

    Raises:
        RuntimeError: they differ; the message names the domains.
    """
    counts = zip(domains, rows, planned_rows, strict=True)
    if wrong := [f"{domain}: {number}, not {planned}" for domain, number, planned in counts if number != planned]:
        raise RuntimeError(
            f"the rows in the batches trained on are not those of the mixture ({'; '.join(wrong)}); the run has no "
            "result"
        )


class ValidationCurve(Callback):
    """Measures the losses of all validation domains at evenly spaced numbers of tokens, last at the end of the run.

    Args:
        store: the token store, with the validation rows.
        num_points: points of the curve.
        num_steps: optimiser steps of the run.
        step_rows: rows per step.
        total_rows: rows of the run.
        batch_rows: rows per forward pass.

    Attributes:
        points: [{"tokens": ..., "losses": {domain: nats per token}}]
    """

    def __init__(
        self, store: TokenStore, *, num_points: int, num_steps: int, step_rows: int, total_rows: int, batch_rows: int
    ) -> None:
        self.store = store
        self.steps = validation_steps(num_points, num_steps)
        self.step_rows = step_rows
        self.total_rows = total_rows
        self.batch_rows = batch_rows
        self.points: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Measures a point after its step."""
        tokens = min(trainer.global_step * self.step_rows, self.total_rows) * self.store.seq_len
        if trainer.global_step not in self.steps or (self.points and self.points[-1]["tokens"] == tokens):
            return
        rank, world_size = trainer.global_rank, trainer.world_size
        losses = {
            domain: module.mean_loss(validation_batches(self.store, domain, self.batch_rows, rank, world_size))
            for domain in self.store.validation_domains
        }
        check_losses(losses, tokens)
        self.points.append({"tokens": tokens, "losses": losses})

    def state_dict(self) -> dict[str, Any]:
        """The points so far."""
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the points of an interrupted run."""
        self.points = state["points"]


class RealisedTokens(Callback):
    """Counts the rows of each domain in the batches trained on, over all devices and all parts of a run.

    It must come before `ResumePoint`, whose checkpoint includes the batch just done.

    Args:
        domains: (K,) names.
        seq_len: tokens per row.

    Attributes:
        rows: (K,) rows that all devices trained on, up to the last `gather`.
    """

    def __init__(self, domains: Sequence[str], seq_len: int) -> None:
        self.domains = list(domains)
        self.seq_len = seq_len
        self.rows = [0] * len(domains)
        self._own_rows = torch.zeros(len(domains), dtype=torch.int64)  # rows of this device, not yet in `rows`

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Moves the count to the device, so that no batch has to wait for it."""
        self._own_rows = self._own_rows.to(module.device)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Counts the batch on this device."""
        self._own_rows += batch.domain_rows

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        """Adds what was counted since the last log or checkpoint."""
        self.gather(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Stores the count of all devices, which `state_dict` could not gather."""
        self.gather(trainer)
        checkpoint["domain_rows"] = self.rows

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Restores the count of an interrupted run."""
        self.rows = checkpoint["domain_rows"]

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of `rows` by domain."""
        return {domain: rows * self.seq_len for domain, rows in zip(self.domains, self.rows, strict=True)}

    def gather(self, trainer: Trainer) -> None:
        """Adds up the counts of all devices. Every device must call it."""
        gathered = trainer.strategy.reduce(self._own_rows, reduce_op="sum").tolist()
        self.rows = [rows + more for rows, more in zip(self.rows, gathered, strict=True)]
        self._own_rows.zero_()


class ResumePoint(Callback):
    """Replaces the run's checkpoint every few minutes, between optimiser steps.

    A run that is told to end writes a last checkpoint here, and stops.

    Args:
        path: path of the checkpoint.
        minutes: minutes between two checkpoints.
        request: says whether the run is told to end.
    """

    def __init__(self, path: Path, minutes: float, request: StopRequest) -> None:
        self.path = path
        self.request = request
        self.seconds_between = minutes * 60
        self.seconds_before = 0.0
        self._started = self._saved = time.perf_counter()
        self._last_step = 0

    @property
    def seconds(self) -> float:
        """Wall time of the run, with the earlier parts of a resumed run up to their checkpoints."""
        return self.seconds_before + time.perf_counter() - self._started

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Starts the clock."""
        self.request.listen()  # Lightning's own handler would end the run without a checkpoint
        self._started = self._saved = time.perf_counter()
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Saves after an optimiser step if it is time, or if the run is told to end.

        Raises:
            Stopped: the run is told to end, on any device.
            DivergedError: a weight is not finite; the checkpoint before stays.
            UserError: the checkpoint cannot be written.
        """
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        ending = self.request.signum is not None
        due = ending or time.perf_counter() - self._saved >= self.seconds_between
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer, module)
            self._saved = time.perf_counter()
            ending = trainer.strategy.reduce_boolean_decision(ending, all=False)
            if ending and trainer.global_step < trainer.max_steps:  # after the last step the result comes at once
                self.request.stop()

    def _save(self, trainer: Trainer, module: Any) -> None:
        own = (of.to_local() if isinstance(of, DTensor) else of for of in module.parameters())
        finite = all(bool(weights.isfinite().all()) for weights in own)
        if not trainer.strategy.reduce_boolean_decision(finite):
            raise DivergedError(  # a run that resumed here would diverge again and again
                f"the weights are not finite after step {trainer.global_step}; lower the learning rate"
            )
        temporary = self.path.with_name(f".{self.path.name}.tmp")  # the same on all ranks
        try:
            with atomic.refusals_named(self.path):
                trainer.save_checkpoint(temporary)  # on all ranks; the first one writes
                if trainer.is_global_zero:
                    atomic.put_in_place(temporary, self.path)
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """The time spent so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the clock of an interrupted run."""
        self.seconds_before = state["seconds"]


class ProgressFile(Callback):
    """Keeps progress.json fresh for those who watch the run, and stops a run whose loss is not finite."""

    def __init__(self, folder: Path, *, step_rows: int, total_rows: int, seq_len: int) -> None:
        self.folder = folder
        self.step_rows = step_rows
        self.total_rows = total_rows
        self.seq_len = seq_len
        self._told = self._started = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Notes where this part of the run begins."""
        self._started = time.perf_counter()
        self._first_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Checks the loss and writes progress, once a second."""
        now = time.perf_counter()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        loss = float(module.last_loss)
        check_training_loss(loss, trainer.global_step)
        if trainer.is_global_zero:
            rows = min(trainer.global_step * self.step_rows, self.total_rows)
            rate = (rows - self._first_step * self.step_rows) * self.seq_len / (now - self._started)
            progress = RunProgress(rows * self.seq_len, self.total_rows * self.seq_len, rate, loss)
            write_progress(self.folder, progress)
