"""`train plan.only=true`: tells what a run or a sweep will take, and starts nothing."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from autoscale_exp.base.multirun import jobs_of, runs_at_a_time
from autoscale_exp.reporting.tables import open_console
from autoscale_exp.training.forecast import Forecaster, check_plan, describe
from autoscale_exp.training.other_designs import remark_on_other_designs
from autoscale_exp.training.plan import RunPlan, is_finished, plan_run, store_of


def tell_sweep(config: DictConfig) -> None:
    """Tells what the unfinished runs of a sweep will take.

    Raises:
        UserError: the config of a run is invalid, or the run does not fit the memory.
    """
    runs = Path(config.hydra.sweep.dir) / "runs"
    plans = [plan_run(conf, store_of(conf, overrides)) for overrides, conf in jobs_of(config)]
    if remark := remark_on_other_designs(plans[0].conf, plans[0].store.domains):
        open_console().print(remark, markup=False)
    tell(
        [plan for plan in plans if not is_finished(plan, runs / plan.conf.run_name)],
        runs_at_a_time(config.hydra.launcher),
    )


def tell(plans: Sequence[RunPlan], parallel: int | None = 1) -> None:
    """Tells what runs will take.

    Args:
        plans: the plans of the runs.
        parallel: runs at a time on this machine; None if a launcher decides.

    Raises:
        UserError: a run does not fit the memory.
    """
    console = open_console()
    if not plans:
        console.print("nothing to do: all runs are finished")
        return
    first = plans[0]
    check_plan(first.conf.plan)
    forecaster = Forecaster(first.conf.plan, first.store, Path(first.conf.output_dir))
    tokens = [plan.sampler.num_rows * plan.store.seq_len for plan in plans]
    forecast = forecaster.of_runs([plan.conf for plan in plans], tokens, parallel or 1)
    console.print(f"to do: {describe(forecast, first.conf.plan, first.store.num_bytes, parallel)}", markup=False)
