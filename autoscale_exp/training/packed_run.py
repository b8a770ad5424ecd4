"""One run of a pack: its optimiser, rows, curve, log and resume point."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.base.loggers import open_logger
from autoscale_exp.data.datamodule import Batch, MixtureBatches
from autoscale_exp.lm.language_model import build_optimizer
from autoscale_exp.lm.stack import Stack
from autoscale_exp.training.callbacks import check_losses, check_training_loss, validation_steps
from autoscale_exp.training.plan import RESUME_POINT, RunPlan
from autoscale_exp.training.progress_file import RunProgress, write_progress
from autoscale_exp.training.run import describe_plan
from autoscale_exp.training.run_log import RunLog, log_every_steps, logged_run


class PackedRun:
    """One run of a pack.

    Args:
        plan: the plan of the run.
        folder: the folder of the run.

    Attributes:
        step: optimiser steps done.
        points: points of the validation curve.
        rows: (K,) rows trained on, by domain.
        seconds: the run's share of the time that its packs took.
    """

    def __init__(self, plan: RunPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._logging = ExitStack()
        logger = self._logging.enter_context(open_logger(plan.conf.logger, folder, logged_run(plan, folder)))
        self.log = RunLog(logger, plan)
        self.log.start(describe_plan(plan))
        self.step = 0
        self.points: list[dict[str, Any]] = []
        self.rows = [0] * len(plan.store.domains)
        self.seconds = 0.0
        self.validations = validation_steps(plan.conf.num_validations, plan.num_steps)
        self.log_every = log_every_steps(plan.num_steps)

    def start(self, stack: Stack, index: int) -> None:
        """Takes its place in the stack, with the weights put there or, if it has one, those of its resume point.

        Raises:
            UserError: the resume point is damaged, or from a run that was trained alone.
        """
        self.parameters = [block[index] for block in stack.blocks]
        decayed = [own for own, decays in zip(self.parameters, stack.decays, strict=True) if decays]
        others = [own for own, decays in zip(self.parameters, stack.decays, strict=True) if not decays]
        conf = self.plan.conf.model.optimizer
        self.optimizer, self.schedule = build_optimizer(conf, decayed, others, self.plan.num_steps)
        if (self.folder / RESUME_POINT).exists():
            self._resume()
        self._first_step, self._started = self.step, time.perf_counter()
        self.log.begin_part(sum(self.tokens.values()))
        batches = MixtureBatches(
            self.plan.store,
            self.plan.sampler,
            step_rows=conf.batch_rows,
            micro_batch_rows=conf.batch_rows,
            rank=0,
            world_size=1,
        )
        self.batches: Iterator[Batch] = batches.batches_from(self.step)

    def move(self, stack: Stack, index: int) -> None:
        """Takes another place in the stack."""
        for own, block, grad in zip(self.parameters, stack.blocks, stack.grads, strict=True):
            own.data, own.grad = block[index], grad[index]

    def count(self, batch: Batch) -> None:
        """Counts a step that is done, and its rows."""
        self.step += 1
        self.rows = [rows + more for rows, more in zip(self.rows, batch.domain_rows.tolist(), strict=True)]

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens trained on, by domain."""
        seq_len = self.plan.store.seq_len
        return {domain: rows * seq_len for domain, rows in zip(self.plan.store.domains, self.rows, strict=True)}

    @property
    def logs_now(self) -> bool:
        """Whether the training loss of the last step is to be logged."""
        last = self.step == self.plan.num_steps
        return self.log.logger is not None and (last or (self.step - 1) % self.log_every == 0)

    def add_point(self, losses: dict[str, float]) -> None:
        """Adds a point to the validation curve.

        Raises:
            DivergedError: a loss is not finite.
        """
        tokens = sum(self.tokens.values())
        check_losses(losses, tokens)
        self.points.append({"tokens": tokens, "losses": losses})
        self.log.validation(self.step, tokens, losses)

    def tell(self, loss: float) -> None:
        """Checks the training loss and writes the run's progress.

        Raises:
            DivergedError: the training loss is not finite.
        """
        check_training_loss(loss, self.step)
        tokens = sum(self.tokens.values())
        step_tokens = self.plan.conf.model.optimizer.batch_rows * self.plan.store.seq_len
        rate = (tokens - self._first_step * step_tokens) / (time.perf_counter() - self._started)
        total = self.plan.sampler.num_rows * self.plan.store.seq_len
        write_progress(self.folder, RunProgress(tokens, total, rate, loss))

    def save(self) -> None:
        """Writes the run's resume point.

        Raises:
            DivergedError: a weight is not finite; the resume point before stays.
            UserError: the resume point cannot be written.
        """
        if not all(bool(own.isfinite().all()) for own in self.parameters):
            raise DivergedError(f"the weights are not finite after step {self.step}; lower the learning rate")
        state = {
            "packed": True,
            "step": self.step,
            "parameters": [own.detach().clone() for own in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "points": self.points,
            "rows": self.rows,
            "seconds": self.seconds,
        }
        path = self.folder / RESUME_POINT
        content = io.BytesIO()  # as torch does not tell why a file cannot be written
        torch.save(state, content)
        with atomic.refusals_named(path), atomic.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def close(self, error: BaseException | None = None) -> None:
        """Closes the run's logger, which marks the run as failed if there is an error."""
        with suppress(DivergedError), self._logging:
            if error:
                raise error

    def _resume(self) -> None:
        path = self.folder / RESUME_POINT
        if not zipfile.is_zipfile(path):
            raise UserError(f"'{path}' is damaged; delete it to start the run over")
        state = torch.load(path, map_location=self.parameters[0].device, weights_only=True)
        if not state.get("packed"):
            raise UserError(
                f"'{path}' is from a run that was trained alone; finish the run with trainer=default, or delete the "
                "file to start it over"
            )
        for own, saved in zip(self.parameters, state["parameters"], strict=True):
            own.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.points, self.rows = state["step"], state["points"], state["rows"]
        self.seconds = state["seconds"]
