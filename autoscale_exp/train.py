"""The `train` job: a single run, or one of a design; in a multirun, all of a design."""

import logging
from contextlib import nullcontext, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.job import job
from autoscale_exp.base.stopping import Stopped, leave_to_scheduler
from autoscale_exp.config import TrainConf
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.reporting.next_steps import after_run, tell_next
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.identity import IDENTITY
from autoscale_exp.runs.record import FAILURE, read_failure, write_failure
from autoscale_exp.runs.table import refresh_run_table
from autoscale_exp.training.claim import claimed, holder
from autoscale_exp.training.devices import train_on_devices
from autoscale_exp.training.packed_trainer import check_packing, is_packed
from autoscale_exp.training.packing import train_in_packs
from autoscale_exp.training.parallelism import check_devices, is_first_process, is_started_elsewhere, num_devices
from autoscale_exp.training.plan import RunPlan, is_finished, plan_run, store_of
from autoscale_exp.training.plan_only import tell
from autoscale_exp.training.sweep import planned_runs
from autoscale_exp.training.watch import PlannedRun, SweepWatch, what_is_kept
from autoscale_exp.training.worker import end_once_finished, end_with_sweep, is_worker, leave_to_sweep

log = logging.getLogger(__name__)


@job("train", what_is_kept)
def main(conf: TrainConf) -> None:
    """Trains, unless the same run is finished already."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    end_with_sweep()
    try:
        plan = plan_run(conf, store_of(conf, hydra.overrides.task))
        run = PlannedRun(plan, folder, [], is_finished(plan, folder))
        if conf.plan.only:
            tell([run])
            return
        check_packing(plan.conf, plan.conf)
        if not run.finished:
            check_devices(conf)
        if hydra.mode != RunMode.MULTIRUN and not any(o.startswith("design.index=") for o in hydra.overrides.task):
            tell_of_other_runs(plan.conf)
        tell_of_other_budget(conf)
        watch = None if hydra.mode == RunMode.MULTIRUN else SweepWatch([run])  # a sweep has a watch of its own
        if watch and not holder(folder):
            (folder / FAILURE).unlink(missing_ok=True)  # so that any failure found later is new
        with watch if watch and is_first_process(conf) else nullcontext():
            if not run.finished and is_packed(conf):
                train_in_packs((plan, folder), planned_runs())
            elif not run.finished:
                train_once(plan, folder)
        if watch and is_first_process(conf):
            is_design = not isinstance(conf.design, SingleConf)
            line = after_run(folder, is_design=is_design, search=conf.search, mixture_file=conf.mixture.path)
            tell_next(watch.say, line)
    except Stopped as stopped:
        if is_worker():
            leave_to_sweep()
        leave_to_scheduler(stopped)
        if SweepWatch.current and SweepWatch.current.failed:
            raise Stopped(1) from None
        raise
    except Exception as error:
        if hydra.mode != RunMode.MULTIRUN:
            raise
        if not isinstance(error, UserError):
            log.exception("%s failed", conf.run_name)
        elif not (folder / FAILURE).exists():  # the sweep reports failures
            log.error("%s failed: %s", conf.run_name, error)
            if not (folder / IDENTITY).exists():  # else it may be the folder of another run
                with suppress(UserError):  # the disk is full
                    write_failure(folder, conf.run_name, error)


def train_once(plan: RunPlan, folder: Path) -> None:
    """Trains a run. If another process has trained it, or trains it now, takes the result of that.

    Raises:
        UserError: the run failed, here or there.
        Exception: it failed again `retries` times, for other reasons than the config.
    """
    if not is_first_process(plan.conf):
        end_once_finished(folder)
        train_here(plan, folder)
        return
    with claimed(folder):
        if is_finished(plan, folder):
            return
        if (folder / FAILURE).exists():
            raise UserError(f"another process trained {plan.conf.run_name}, which failed: {read_failure(folder)}")
        is_alone = num_devices(plan.conf) == 1 or not is_started_elsewhere(plan.conf)
        retries = plan.conf.retries if is_alone else 0  # the other processes would not begin again with this one
        for retries_left in reversed(range(retries + 1)):
            try:
                train_here(plan, folder)
                break
            except Exception as error:
                write_failure(folder, plan.conf.run_name, error)
                if isinstance(error, UserError) or not retries_left:
                    raise
                log.warning("%s is tried again, as it failed: %s", plan.conf.run_name, first_line(error))
        refresh_run_table(folder.parent.parent)


def train_here(plan: RunPlan, folder: Path) -> None:
    """Trains a run in this process or, on several devices, in a process for each."""
    if num_devices(plan.conf) > 1 and not is_started_elsewhere(plan.conf):
        train_on_devices(plan, folder)
        return
    from autoscale_exp.training.run import train  # imports torch, which takes seconds, after all checks

    train(plan, folder)


def tell_of_other_runs(conf: TrainConf) -> None:
    """Logs if the design has more runs than the one that is trained."""
    count = len(
        design_runs(conf.design, RunRequest(conf.data.domains, conf.token_budget, conf.mixture_name, conf.seed))
    )
    if count > 1:
        remedy = f"hydra.mode=MULTIRUN 'design.index=range(0,{count})'"
        log.warning("this is the first of %d runs of the design; for all of them add %s", count, remedy)


def tell_of_other_budget(conf: TrainConf) -> None:
    """Logs if a mixture file is for another token budget than that of the run."""
    if conf.mixture.kind != "file" or conf.token_budget is None:
        return
    meant = read_mixture_file(Path(str(conf.mixture.path))).token_budget
    if meant not in (None, conf.token_budget):
        log.warning("'%s' is meant for %s tokens, not %s", conf.mixture.path, f"{meant:,}", f"{conf.token_budget:,}")


if __name__ == "__main__":
    main()
