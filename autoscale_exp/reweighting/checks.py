"""Checks of the `reweighting` section against a run, before it starts. Imports no torch."""

import math
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.checkpoint import Checkpoint, open_checkpoint
from autoscale_exp.reweighting.conf import AdoConf, DogeConf, DoremiConf
from autoscale_exp.runs.record import is_recorded

LEAST_INTERVAL_STEPS = 5  # for smoothing by a cubic


def check_ado(conf: AdoConf, *, num_steps: int, num_workers: int) -> None:
    """Checks the section against a run of `num_steps` optimiser steps with `num_workers` loader processes.

    Raises:
        UserError: a value is out of range, intervals are too short, or the loader would read ahead.
    """
    shares = ("policy_rate", "history_rate", "credit_exponent", "least_weight")
    check_range({f"reweighting.{key}": getattr(conf, key) for key in shares}, 0, 1)
    check_range({"reweighting.ignored_intervals": conf.ignored_intervals}, 0)
    check_range({"reweighting.num_intervals": conf.num_intervals}, conf.ignored_intervals + 2)
    if num_steps < LEAST_INTERVAL_STEPS * conf.num_intervals:
        raise UserError(
            f"reweighting.num_intervals is {conf.num_intervals}, but the run has {num_steps} optimiser steps, and an "
            f"interval needs {LEAST_INTERVAL_STEPS}; lower reweighting.num_intervals or raise token_budget"
        )
    if num_workers:
        raise UserError(
            f"num_workers is {num_workers}, but with reweighting=ado the rows are chosen as the run goes, and loader "
            "processes read ahead; set num_workers=0"
        )


def check_doge(conf: DogeConf, *, precision: str, strategy: str) -> None:
    """Checks the section against the precision and the strategy of a run.

    Raises:
        UserError: a value is out of range, or gradients might vanish in fp16, or no device has whole gradients.
    """
    check_range({"reweighting.largest_score": conf.largest_score}, 0)
    if not 0 < conf.mu < math.inf:
        raise UserError(f"reweighting.mu is {conf.mu}; it must be positive and finite")
    if precision.startswith("16"):
        raise UserError(
            f"trainer.precision is {precision}, in which the gradients that reweighting=doge compares may vanish; give "
            "trainer=bf16 or trainer=default"
        )
    if strategy == "fsdp":
        raise UserError(
            "trainer.strategy is fsdp, under which no device has the whole gradients that reweighting=doge compares; "
            "give trainer.strategy=ddp"
        )


def check_doremi(conf: DoremiConf, store: TokenStore, *, family: str, command: str) -> Checkpoint:
    """Checks the section and opens the model of the reference run.

    Args:
        conf: the section.
        store: token store of the run.
        family: family of the run's model.
        command: the command that trains a reference run.

    Raises:
        UserError: a value is out of range, or there is no reference run with a comparable model.
    """
    check_range({"reweighting.step_size": conf.step_size}, 0)
    check_range({"reweighting.smoothing": conf.smoothing}, 0, 1)
    remedy = f"train one with `{command}` and give its folder"
    if conf.reference is None:
        raise UserError(f"reweighting.reference is not set; DoReMi compares losses with a reference run: {remedy}")
    folder = Path(conf.reference).expanduser()
    if not is_recorded(folder):
        raise UserError(f"reweighting.reference is '{folder}', which holds no finished run; {remedy}")
    if not (folder / "model").is_dir():
        raise UserError(f"reweighting.reference is '{folder}', a run without save_model=true; {remedy}")
    reference = open_checkpoint(folder / "model", "reweighting.reference")
    if reference.family != family:
        raise UserError(
            f"reweighting.reference is '{folder}', a {reference.family} model, but model.family is '{family}', whose "
            f"losses are of other tokens; {remedy}"
        )
    reference.require_store(store, "reweighting.reference")
    if store.seq_len > reference.positions:
        raise UserError(
            f"reweighting.reference is '{folder}', whose rows have {reference.positions} tokens, but those of the "
            f"store '{store.folder}' have {store.seq_len}; {remedy}"
        )
    return reference
