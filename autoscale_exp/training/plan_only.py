"""`train plan.only=true`: tells what a run or a sweep will take, and starts nothing."""

from collections.abc import Sequence
from pathlib import Path

from autoscale_exp.reporting.tables import open_console
from autoscale_exp.training.forecast import Forecaster, Upcoming, check_plan, describe
from autoscale_exp.training.other_designs import remark_on_other_designs
from autoscale_exp.training.watch import PlannedRun


def tell(runs: Sequence[PlannedRun], parallel: int | None = 1) -> None:
    """Tells what the unfinished ones of some runs will take.

    Args:
        runs: a single run, or all runs of a sweep.
        parallel: runs at a time on this machine; None if a launcher decides.

    Raises:
        UserError: the `plan` section is invalid, or a run does not fit the memory.
    """
    console, first = open_console(), runs[0].plan
    check_plan(first.conf.plan)
    names = [run.name for run in runs]
    if len(runs) > 1 and (remark := remark_on_other_designs(first.conf, first.store.domains, names)):
        console.print(remark)
    upcoming = [Upcoming(run.plan.conf, run.plan.store, run.num_tokens) for run in runs if not run.finished]
    if not upcoming:
        console.print("nothing to do: all runs are finished")
        return
    forecast = Forecaster(first.conf.plan, Path(first.conf.output_dir)).of_runs(upcoming, parallel or 1)
    store_bytes = sum({run.store.folder: run.store.num_bytes for run in upcoming}.values())
    console.print(f"to do: {describe(forecast, first.conf.plan, store_bytes, parallel)}")
