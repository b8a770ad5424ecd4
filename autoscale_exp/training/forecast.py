"""Forecasts what runs will take: tokens, FLOPs, time, memory and disk, here or on an accelerator."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import plural, short_duration, short_label
from autoscale_exp.base.machine import has_gpu
from autoscale_exp.base.ranges import check_range
from autoscale_exp.config import PlanConf, TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.size import ModelSize, size_of
from autoscale_exp.reweighting.conf import DoremiConf
from autoscale_exp.training.accelerators import accelerator_of, tokens_per_second
from autoscale_exp.training.calibration import VALIDATION_WORTH, Pace, calibrated, validation_tokens
from autoscale_exp.training.packed_trainer import is_packed
from autoscale_exp.training.parallelism import lacking_device, micro_batch, num_devices

PROCESS_BYTES = 0.7e9  # memory of torch and the libraries on a CPU; a CUDA context takes about as much
RESUME_BYTES = 12  # of a parameter in a checkpoint: the weight and AdamW's two moments
MODEL_BYTES = 4  # of a parameter in a model that is kept
REFERENCE_WORTH = 4 / 3  # cost of a token of DoReMi's proxy run, which a reference model sees too, over other tokens
MOST_FLOPS = {"cpu": 2e12, "gpu": 5e15}  # of one measured step; more would take half a minute
FEWEST_FLOPS = {"cpu": 1e12, "gpu": 1e15}  # of runs that are worth ten seconds of measuring


@dataclass(frozen=True)
class Forecast:
    """What runs will take.

    Attributes:
        runs: number of runs.
        tokens: tokens to train on.
        flops: FLOPs of their matrix products, with validation.
        seconds: time; None if unknown.
        memory: bytes that the largest run takes on a device.
        resume_bytes: size of the largest checkpoint of a run in progress.
        kept_bytes: size of all models that are kept.
    """

    runs: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float | None = 0.0
    memory: float = 0.0
    resume_bytes: int = 0
    kept_bytes: int = 0

    def __add__(self, other: "Forecast") -> "Forecast":
        """The forecast of the runs of both, one after the other."""
        known = self.seconds is not None and other.seconds is not None
        return Forecast(
            self.runs + other.runs,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.seconds + other.seconds if known else None,  # type: ignore[operator]
            max(self.memory, other.memory),
            max(self.resume_bytes, other.resume_bytes),
            self.kept_bytes + other.kept_bytes,
        )


@dataclass(frozen=True)
class Upcoming:
    """A run to come.

    Attributes:
        conf: its config.
        store: its token store.
        tokens: tokens that it trains on.
    """

    conf: TrainConf
    store: TokenStore
    tokens: int

    @property
    def size(self) -> ModelSize:
        """The size of its model."""
        half = "16" in str(self.conf.trainer.get("precision", "32-true"))
        return size_of(self.conf.model, self.store.vocab_size, self.store.seq_len, half=half)


@dataclass(frozen=True)
class Forecaster:
    """Forecasts runs.

    Attributes:
        plan: the `plan` section, which says where the runs will train.
        folder: folder of the study or sweep, which keeps what is measured.
        measure: whether this machine's pace may be measured; if not, the time is unknown.
    """

    plan: PlanConf
    folder: Path
    measure: bool = True

    def of_runs(self, runs: Sequence[Upcoming], parallel: int = 1) -> Forecast:
        """Forecasts what runs will take.

        Args:
            runs: the runs.
            parallel: runs at a time on this machine.

        Raises:
            UserError: a run does not fit the memory, or the `plan` section is invalid.
        """
        total = Forecast()
        for run in runs:
            total += self._of_run(run, parallel)
        pace = self._pace(runs[0], parallel) if runs else None
        if total.seconds is None or pace is None or self.plan.accelerator is not None:
            return total
        return replace(total, seconds=total.seconds / min(parallel, len(runs)) + pace.start_seconds)

    def unless_tiny(self, runs: Sequence[Upcoming]) -> "Forecaster":
        """Returns a forecaster that measures nothing if that might take longer than the runs; not with plan.only."""
        unmeasured = replace(self, measure=False)
        flops = unmeasured.of_runs(runs).flops
        fewest = FEWEST_FLOPS["gpu" if any(_on_gpu(run.conf) for run in runs) else "cpu"]
        return self if self.plan.only or flops >= fewest else unmeasured

    def _of_run(self, run: Upcoming, parallel: int) -> Forecast:
        conf, size = run.conf, run.size
        memory = self._check_memory(conf, size, parallel)
        worth = REFERENCE_WORTH if isinstance(conf.reweighting, DoremiConf) else 1.0
        steps = -(-run.tokens // (conf.model.optimizer.batch_rows * run.store.seq_len))
        validations = min(conf.num_validations, steps)
        of_training = run.tokens * worth + validations * validation_tokens(run.store) * VALIDATION_WORTH
        pace = self._pace(run, parallel)
        return Forecast(
            runs=1,
            tokens=run.tokens,
            flops=of_training * size.flops_per_token,
            seconds=None if pace is None else of_training / pace.tokens_per_second + pace.run_seconds,
            memory=memory,
            resume_bytes=RESUME_BYTES * size.params,
            kept_bytes=MODEL_BYTES * size.params * conf.save_model,
        )

    def _pace(self, run: Upcoming, parallel: int) -> Pace | None:
        conf, store = run.conf, run.store
        if self.plan.accelerator is not None:
            return Pace(tokens_per_second(accelerator_of(self.plan.accelerator), run.size))
        if not self.measure or num_devices(conf) > 1 or is_packed(conf):  # a pack has another pace than its runs alone
            return None
        least = conf.model.optimizer.batch_rows * store.seq_len + validation_tokens(store) * VALIDATION_WORTH
        if least * run.size.flops_per_token > MOST_FLOPS["gpu" if _on_gpu(conf) else "cpu"] or lacking_device(conf):
            return None
        return calibrated(conf, store, self.folder, parallel)

    def _check_memory(self, conf: TrainConf, size: ModelSize, parallel: int) -> float:
        """Returns the bytes that a run takes on a device.

        Raises:
            UserError: the device has less; the message says how many rows at a time fit, or what else to change.
        """
        step_rows, devices = conf.model.optimizer.batch_rows, num_devices(conf)
        rows, _ = micro_batch(step_rows, conf.micro_batch_rows, devices)
        shards = devices if conf.trainer.get("strategy") == "fsdp" else 1
        place, memory = self._device(conf, parallel)
        available, needed = memory - PROCESS_BYTES, size.memory(rows, shards)
        if needed <= available:
            return PROCESS_BYTES + needed
        told = (
            f"micro_batch_rows is {conf.micro_batch_rows or f'null, which takes {rows} rows at a time'}: model "
            f"'{conf.model.name}' then takes about {_gigabytes(PROCESS_BYTES + needed)}, but {place} has "
            f"{_gigabytes(memory)}"
        )
        of_step = step_rows // devices
        if fitting := [n for n in range(1, of_step + 1) if of_step % n == 0 and size.memory(n, shards) <= available]:
            raise UserError(f"{told}; micro_batch_rows={fitting[-1]} fits")
        fewer = ", fewer runs at a time (hydra.launcher.n_jobs)" if parallel > 1 else ""
        sharded = ", trainer.strategy=fsdp" if shards < devices else ""
        raise UserError(
            f"{told}, and its weights, gradients and optimiser alone take {_gigabytes(size.memory(0, shards))}; choose "
            f"a smaller model{fewer}{sharded} or a device with more memory"
        )

    def _device(self, conf: TrainConf, parallel: int) -> tuple[str, float]:
        """The device of a run, in words, and the memory that the run may use there, in bytes."""
        if self.plan.accelerator is not None:
            return f"one {self.plan.accelerator}", accelerator_of(self.plan.accelerator).memory
        if _on_gpu(conf) and (of_gpu := _gpu_memory()):
            return "the GPU", of_gpu / parallel
        of_all = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"each of {parallel} runs at a time" if parallel > 1 else "this machine", of_all / parallel


def _on_gpu(conf: TrainConf) -> bool:
    return has_gpu() and conf.trainer.get("accelerator", "auto") != "cpu"


@cache
def _gpu_memory() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0  # of a torch for CPUs


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.2g} MB"


def check_plan(conf: PlanConf) -> None:
    """Checks the `plan` section.

    Raises:
        UserError: the accelerator is unknown, or the price is below 0 or is given without an accelerator.
    """
    if conf.accelerator is not None:
        accelerator_of(conf.accelerator)
    check_range({"plan.price": conf.price}, 0)
    if conf.price is not None and conf.accelerator is None:
        raise UserError(
            f"plan.price is {conf.price:g}, which is of an hour of an accelerator, but plan.accelerator is null; name "
            "it, as in plan.accelerator=h200, or leave the price away"
        )


def describe(forecast: Forecast, plan: PlanConf, store_bytes: int | None, parallel: int | None) -> str:
    """Describes what is to be done, in a sentence.

    Args:
        forecast: the forecast of all runs.
        plan: the `plan` section.
        store_bytes: size of the token store's rows; None if unknown.
        parallel: runs at a time on this machine; None if a launcher decides.
    """
    if not forecast.runs:
        return "no runs"
    parts = [f"{plural(forecast.runs, 'run')}, {short_label(forecast.tokens)} tokens, {forecast.flops:.2g} FLOPs"]
    if forecast.seconds is None and forecast.flops < min(FEWEST_FLOPS.values()) and not plan.only:
        parts.append("no time, as that of so little is measured only with plan.only=true")
    elif forecast.seconds is None:
        parts.append("no time, as it is not measured here; plan.accelerator=h200 tells that of another device")
    elif plan.accelerator is not None:
        cost = f", which cost {_price(forecast.seconds / 3600 * plan.price)}" if plan.price is not None else ""
        parts.append(f"about {short_duration(forecast.seconds)} of one {plan.accelerator}{cost}")
    else:
        how = {None: ", if they were trained here, one at a time", 1: ""}.get(parallel, f", {parallel} runs at a time")
        parts.append(f"about {short_duration(forecast.seconds)} of training on this machine{how}")
    kept = forecast.kept_bytes + forecast.resume_bytes * (parallel or 1)
    rows = "" if store_bytes is None else f"{_gigabytes(store_bytes)} of rows, "
    parts.append(f"{_gigabytes(forecast.memory)} of memory a run")
    parts.append(f"on disk {rows}{_gigabytes(kept)} of checkpoints and models")
    return "; ".join(parts)


def _price(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 10 else f"{amount:.2g}"
