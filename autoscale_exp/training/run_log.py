"""The log of a training run: its config, its curves against tokens, and the artifacts that it used and made."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from autoscale_exp.base.loggers import LoggedRun, errors_told
from autoscale_exp.base.wandb_runs import X_AXIS, log_artifact, mixture_artifact, use_artifact
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.identity import logged_id
from autoscale_exp.runs.record import RECORD, RunRecord, read_record
from autoscale_exp.runs.sweep_folder import group_of
from autoscale_exp.training.callbacks import RealisedTokens, ValidationCurve
from autoscale_exp.training.plan import RunPlan


def logged_run(plan: RunPlan, folder: Path) -> LoggedRun:
    """The name, group, type and id of a run where it is logged. A resumed run keeps its id."""
    conf = plan.conf
    job_type = "target" if isinstance(conf.design, SingleConf) else "search"
    id = logged_id(plan.identity.fingerprint, conf.name, conf.run_name)
    return LoggedRun(conf.run_name, group_of(folder.parent.parent, conf.name), job_type, id)


def log_every_steps(num_steps: int) -> int:
    """Optimiser steps between two logged training losses."""
    return max(1, min(50, num_steps // 20))


class RunLog:
    """The log of one run.

    Args:
        logger: one of Lightning's loggers; None to log nothing.
        plan: the plan of the run.
    """

    def __init__(self, logger: Any, plan: RunPlan) -> None:
        self.logger = logger
        self.plan = plan
        self._tokens: int | None = None  # tokens at the last measurement of throughput
        self._seconds = 0.0

    def start(self, config: Mapping[str, Any]) -> None:
        """Logs the run's config and the mixture file that it uses."""
        if self.logger is None:
            return
        self.logger.log_hyperparams(dict(config))
        mixture = self.plan.conf.mixture
        if mixture.kind == "file" and mixture.path is not None:
            path = Path(mixture.path)
            use_artifact(self.logger, mixture_artifact(path), "mixture", [path])

    def begin_part(self, tokens: int) -> None:
        """Starts the clock of a part of the run that begins after `tokens` tokens."""
        self._tokens, self._seconds = tokens, time.perf_counter()

    def training(self, step: int, tokens: Mapping[str, int], loss: float) -> None:
        """Logs the training loss, the mixture so far and the throughput.

        Args:
            step: optimiser steps done.
            tokens: tokens trained on so far, by domain.
            loss: loss of the last batch, in nats per token.
        """
        total, now = sum(tokens.values()), time.perf_counter()
        metrics = {"train/loss": loss} | {f"mixture/{domain}": count / total for domain, count in tokens.items()}
        if self._tokens is not None and total > self._tokens:
            metrics["throughput/tokens_per_second"] = (total - self._tokens) / (now - self._seconds)
        self._tokens, self._seconds = total, now
        self._tell(metrics, step, total)

    def validation(self, step: int, tokens: int, losses: Mapping[str, float]) -> None:
        """Logs a point of the validation curve: losses by validation domain, in nats per token."""
        self._tell(self._validation_metrics(losses), step, tokens)

    def finish(self, config: Mapping[str, Any], folder: Path) -> None:
        """Logs the result in the run's folder and the final config. An error of the logger is only a warning."""
        if self.logger is None:
            return
        record = read_record(folder)
        with errors_told(record.run):
            if isinstance(self.logger, TensorBoardLogger):  # writes a row of its page HParams, once
                metrics = self._validation_metrics(record.losses)
                self.logger.log_hyperparams(_settings(self.plan, record), metrics, step=record.steps)
            else:
                self.logger.log_hyperparams({**config, "params": record.params})
            id = logged_id(record.fingerprint, record.experiment, record.run)
            log_artifact(self.logger, f"run-{id}", "run", [folder / RECORD])

    def _validation_metrics(self, losses: Mapping[str, float]) -> dict[str, float]:
        metrics = {f"val/loss/{domain}": loss for domain, loss in losses.items()}
        metrics |= {f"val/perplexity/{domain}": math.exp(loss) for domain, loss in losses.items()}
        return metrics | {"val/objective": float(self.plan.objective(np.array(list(losses.values()))))}

    def _tell(self, metrics: Mapping[str, float], step: int, tokens: int) -> None:
        if self.logger is not None:
            self.logger.log_metrics({X_AXIS: tokens, **metrics}, step=step)
            self.logger.save()


def _settings(plan: RunPlan, record: RunRecord) -> dict[str, Any]:
    """The settings in which the runs of a sweep may differ."""
    optimizer = {f"optimizer/{k}": v for k, v in asdict(plan.conf.model.optimizer).items() if not isinstance(v, list)}
    shares = {f"weight/{domain}": weight for domain, weight in record.requested_weights.items()}
    named = {"mixture": record.mixture, "scale": record.scale, "model": record.model}
    return named | {"token_budget": record.token_budget, "seed": record.seed} | shares | optimizer


class LogProgress(Callback):
    """Logs what the callbacks `realised` and `curve` found. It must come after them.

    Args:
        log: the log of the run; without a logger on all devices but the first.
        realised: counts the tokens trained on.
        curve: measures validation losses.
        logs: whether the run has a logger on the first device, for which all devices gather their counts.
    """

    def __init__(self, log: RunLog, realised: RealisedTokens, curve: ValidationCurve, *, logs: bool) -> None:
        self.run_log = log
        self.realised = realised
        self.curve = curve
        self.logs = logs
        self.every_steps = log_every_steps(log.plan.num_steps)
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Notes where this part of the run begins."""
        self._last_step = trainer.global_step
        self.run_log.begin_part(sum(self.realised.tokens.values()))

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Logs after the first step, then every `every_steps` steps, and after the last step."""
        step = trainer.global_step
        if not self.logs or step == self._last_step:
            return
        self._last_step = step
        if (step - 1) % self.every_steps == 0 or step == trainer.max_steps:
            self.realised.gather(trainer)
            self.run_log.training(step, self.realised.tokens, float(module.last_loss))
        if step in self.curve.steps:
            self.run_log.validation(step, **self.curve.points[-1])
