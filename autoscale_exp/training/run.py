"""Trains one planned run and writes its result."""

import logging
import platform
import subprocess
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy

from autoscale_exp.base import atomic
from autoscale_exp.base.config_errors import describe
from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.loggers import open_logger
from autoscale_exp.base.stopping import StopRequest
from autoscale_exp.config import TrainConf
from autoscale_exp.data.datamodule import MixtureDataModule
from autoscale_exp.data.tokenizer import load_tokenizer
from autoscale_exp.reweighting.ado import Ado
from autoscale_exp.runs.record import CurvePoint, RunRecord, StageRecord, write_record
from autoscale_exp.training.building import (
    as_realised,
    begin_folder,
    build_module,
    build_reweighting,
    keep_model,
    make_fast,
    weights_curve_of,
    write_mixture,
)
from autoscale_exp.training.callbacks import ProgressFile, RealisedTokens, ResumePoint, ValidationCurve, check_counts
from autoscale_exp.training.parallelism import is_first_process, is_started_elsewhere, micro_batch, num_devices
from autoscale_exp.training.plan import RESUME_POINT, RunPlan
from autoscale_exp.training.run_log import LogProgress, RunLog, logged_run

OWN_KEYS = ("compile", "checkpoint_activations")  # keys of the trainer section that Lightning's Trainer does not know
VALIDATION_TOKENS = 4096  # tokens of a validation batch, unless the rows of a training batch are more


def train(plan: RunPlan, folder: Path) -> None:
    """Trains one run in `folder`, from its resume point if there is one. Writes result.json last, then ends the log.

    Raises:
        DivergedError: a loss is not finite.
        Stopped: a signal came; the resume point is that of the step just done.
        UserError: the resume point cannot be used, or memory or disk are too small.
    """
    with StopRequest() as request:
        _train(plan, folder, request)


def _train(plan: RunPlan, folder: Path, request: StopRequest) -> None:
    conf, store = plan.conf, plan.store
    begin_folder(folder, plan)
    _silence()
    if conf.num_threads is not None:
        torch.set_num_threads(conf.num_threads)
    torch.manual_seed(plan.seed)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    module = build_module(plan, tokenizer)
    make_fast(module.model, conf)
    reweighting = build_reweighting(plan, tokenizer)
    module.batch_loss = None if reweighting is None else reweighting.batch_loss
    step_rows, total_rows = conf.model.optimizer.batch_rows, plan.sampler.num_rows
    micro_batch_rows, accumulation = micro_batch(step_rows, conf.micro_batch_rows, num_devices(conf))
    curve = ValidationCurve(
        store,
        num_points=conf.num_validations,
        num_steps=plan.num_steps,
        step_rows=step_rows,
        total_rows=total_rows,
        batch_rows=max(micro_batch_rows, VALIDATION_TOKENS // store.seq_len),
    )
    realised = RealisedTokens(store.domains, store.seq_len)
    resume_point = ResumePoint(folder / RESUME_POINT, conf.checkpoint_minutes, request)
    progress = ProgressFile(folder, step_rows=step_rows, total_rows=total_rows, seq_len=store.seq_len)
    sampler = reweighting.sampler if isinstance(reweighting, Ado) else plan.sampler
    datamodule = MixtureDataModule(
        store, sampler, step_rows=step_rows, micro_batch_rows=micro_batch_rows, num_workers=conf.num_workers
    )
    logger_conf = conf.logger if is_first_process(conf) else None
    with open_logger(logger_conf, folder, logged_run(plan, folder)) as logger:
        log = RunLog(logger, plan)
        logs = LogProgress(log, realised, curve, logs=conf.logger is not None)
        trainer = build_trainer(
            conf,
            max_steps=plan.num_steps,
            max_epochs=1,
            accumulate_grad_batches=accumulation,
            gradient_clip_val=conf.model.optimizer.clip_norm,
            callbacks=[realised, *filter(None, [reweighting]), curve, logs, progress, resume_point],
            logger=False,
            default_root_dir=str(folder),
            enable_checkpointing=False,
            limit_val_batches=0,
        )
        log.start(describe_plan(plan))
        checkpoint = resume_point.path if resume_point.path.exists() else None
        if checkpoint:
            check_resume_point(checkpoint, conf)
        with _refusals_told(folder, micro_batch_rows):
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        assert trainer.global_step == plan.num_steps, (trainer.global_step, plan.num_steps)
        plan = as_realised(plan, reweighting)
        check_counts(store.domains, realised.rows, plan.sampler.row_counts.tolist())
        params = sum(p.numel() for p in module.model.parameters())
        record = record_of(plan, params, realised.tokens, curve.points, resume_point.seconds)
        record = replace(record, weights_curve=weights_curve_of(plan, reweighting))
        weights = trainer.strategy.lightning_module_state_dict() if conf.save_model else {}  # gathered by all devices
        if trainer.is_global_zero:
            if conf.save_model:
                names = [name for name, _ in module.model.named_parameters()]  # each of shared weights once
                keep_model(folder, module.model, {name: weights[f"model.{name}"] for name in names}, tokenizer)
            write_mixture(folder, plan, reweighting)
            write_record(folder, record)
            resume_point.path.unlink(missing_ok=True)
        log.finish(describe_plan(plan), folder)  # with the stages that reweighting has made


def build_trainer(conf: TrainConf, **options: Any) -> Any:
    """Builds Lightning's Trainer from the `trainer` section and the arguments that a run sets.

    Raises:
        UserError: Lightning refuses the section.
    """
    section = {key: value for key, value in conf.trainer.items() if key not in OWN_KEYS}
    try:
        return instantiate(section, **device_options(conf), **options)
    except InstantiationException as error:
        raise UserError(describe(error)) from error


def _silence() -> None:
    """Silences what Lightning would say of every run of a sweep."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*LeafSpec", module="pytorch_lightning")  # Lightning 2.6.6, torch 2.13
    warnings.filterwarnings("ignore", message="The `srun` command")  # wherever Slurm is installed
    warnings.filterwarnings("ignore", message=r".*does not have many workers")  # more would not pay: see GROUP_TOKENS


@contextmanager
def _refusals_told(folder: Path, micro_batch_rows: int) -> Iterator[None]:
    """Turns a full memory and a full disk into a `UserError`."""
    try:
        with atomic.full_disk_named(folder):
            yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{micro_batch_rows} rows at a time are too many for the device's memory "
            f"({first_line(error)}); lower micro_batch_rows"
        ) from error


def device_options(conf: TrainConf) -> dict[str, Any]:
    """Arguments of Lightning's Trainer for the devices of a run.

    We start the processes, however many tasks Slurm allots. `fsdp` is FSDP2, since Lightning's own strategy of that
    name does not clip by norm, decays all weights, and does not run on a CPU.
    """
    options: dict[str, Any] = {}
    if (not is_started_elsewhere(conf) or num_devices(conf) == 1) and not conf.trainer.get("plugins"):
        options["plugins"] = LightningEnvironment()
    if conf.trainer.get("strategy") == "fsdp":
        options["strategy"] = ModelParallelStrategy(num_devices(conf), 1, save_distributed_checkpoint=False)
    return options


def check_resume_point(path: Path, conf: TrainConf) -> None:
    """Checks that a run can resume from a checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or from a pack, or was sharded otherwise.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"'{path}' is damaged; delete it to start the run over")
    stored = torch.load(path, "cpu", weights_only=True, mmap=True)
    if stored.get("packed"):
        raise UserError(
            f"'{path}' is from a run in a pack; finish the run with trainer=packed, or delete the file to start it over"
        )
    sharded = stored.get("sharded", False)
    if sharded != (conf.trainer.get("strategy") == "fsdp"):
        raise UserError(
            f"'{path}' is from a run {'with' if sharded else 'without'} trainer.strategy=fsdp; finish it that way, or "
            "delete the file to start the run over"
        )


def describe_plan(plan: RunPlan) -> dict[str, Any]:
    """The run's config for its logger, with all that import_runs needs to make a run table from runs at W&B."""
    tokens = dict(zip(plan.store.domains, (plan.sampler.row_counts * plan.store.seq_len).tolist(), strict=True))
    of_run = {"run": plan.spec.run, "scale": plan.spec.scale, "seed": plan.seed, "tokens": tokens}
    of_run["mixture_name"] = plan.conf.mixture_name
    conf = {key: value for key, value in asdict(plan.conf).items() if key != "logger"}
    return conf | of_run | {"store": plan.store.fingerprint, "git_commit": git_commit()}


def record_of(
    plan: RunPlan, params: int, tokens: dict[str, int], points: list[dict[str, Any]], seconds: float
) -> RunRecord:
    """Makes the record of a run that has just ended.

    Args:
        plan: the run, as realised.
        params: parameters of the model.
        tokens: tokens trained on, by domain.
        points: the validation curve.
        seconds: training time.
    """
    domains, seq_len = plan.store.domains, plan.store.seq_len
    requested = plan.requested_tokens.sum(axis=0)

    def named(values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(domains, values, strict=True))

    return RunRecord(
        run=plan.conf.run_name,
        experiment=plan.conf.name,
        mixture=plan.conf.mixture_name,
        scale=plan.spec.scale,
        token_budget=plan.spec.token_budget,
        seed=plan.seed,
        model=plan.conf.model.name,
        params=params,
        steps=plan.num_steps,
        requested_weights=named((requested / requested.sum()).tolist()),
        requested_tokens=named(requested.tolist()),
        tokens=tokens,
        unique_tokens=named(plan.store.num_rows("train", domain) * seq_len for domain in domains),
        pool_tokens=named((plan.sampler.pool_rows * seq_len).tolist()),
        epochs=named(plan.sampler.epochs()),
        losses=points[-1]["losses"],
        validation_curve=[CurvePoint(**point) for point in points],
        seconds=round(seconds, 3),
        tokens_per_second=round(sum(tokens.values()) / seconds, 1),
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={name: version(name) for name in ("autoscale_exp", "torch", "pytorch-lightning", "transformers")}
        | {"python": platform.python_version()},
        git_commit=git_commit(),
        store=str(plan.store.folder),
        fingerprint=plan.identity.fingerprint,
        stages=stages_of(plan) if len(plan.requested_tokens) > 1 else None,
    )


def stages_of(plan: RunPlan) -> list[StageRecord]:
    """The stages of a run: where each starts, in tokens, and its tokens by domain, as requested and as planned."""
    domains = plan.store.domains
    planned = plan.sampler.stage_counts * plan.store.seq_len
    starts = np.cumsum(planned.sum(axis=1)) - planned.sum(axis=1)
    return [
        StageRecord(start, dict(zip(domains, asked, strict=True)), dict(zip(domains, rows, strict=True)))
        for start, asked, rows in zip(starts.tolist(), plan.requested_tokens.tolist(), planned.tolist(), strict=True)
    ]


@cache
def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with '+' if it has changes; None without a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
