"""A sweep: checks all its runs before the first starts, watches them, and sums up at the end."""

import atexit
import logging
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import user_errors
from autoscale_exp.base.multirun import is_elsewhere, jobs_of, runs_at_a_time
from autoscale_exp.base.stopping import SIGNALS, Stopped, handle_signals, signals_blocked, stop_at
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.reporting.next_steps import after_sweep, tell_next
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure
from autoscale_exp.runs.sweep_file import plan_runs
from autoscale_exp.runs.table import TABLE, write_run_table
from autoscale_exp.training.claim import SWEEP, end_workers, holder, this_process
from autoscale_exp.training.other_designs import remark_on_other_designs
from autoscale_exp.training.packed_trainer import Planned, check_packing, is_packed
from autoscale_exp.training.parallelism import check_devices, num_devices
from autoscale_exp.training.plan import is_finished, plan_run, store_of
from autoscale_exp.training.plan_only import tell
from autoscale_exp.training.watch import PlannedRun, SweepWatch

_runs_told: list[Planned] = []  # in a worker: the runs that its sweep told it


class SweepCallback(Callback):
    """Hydra callback of the `train` job. It does nothing in single runs.

    Args:
        packed: in a worker, the runs of its sweep that are trained in packs.
    """

    def __init__(self, packed: Sequence[Planned] = ()) -> None:
        self._packed = packed
        self._watch: SweepWatch | None = None
        self._watching = ExitStack()
        self._folder = Path()
        self._stopping = False

    def __reduce__(self) -> tuple[Any, ...]:
        runs = [] if self._watch is None else self._watch.runs
        packed = [(run.plan, run.folder) for run in runs if is_packed(run.plan.conf)]
        return SweepCallback, (packed,)  # launchers pickle callbacks for their workers; the watch stays here

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """In a worker, keeps the runs that its sweep told it."""
        _runs_told[:] = self._packed

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks every run of the sweep, then starts to watch.

        SystemExit ends the job here, because Hydra turns an exception in a callback into a warning.
        """
        self._folder = Path(config.hydra.sweep.dir)
        try:
            with user_errors():
                runs = plan_sweep(config)
                if config.plan.only:
                    tell(runs, runs_at_a_time(config.hydra.launcher))
                    raise SystemExit(0)
                plan_runs(self._folder, {run.name: run.num_tokens for run in runs})
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None
        logging.getLogger("submitit").setLevel(logging.ERROR)  # what it tells on its way to Slurm
        os.environ[SWEEP] = this_process()
        for run in runs:
            if not holder(run.folder):
                (run.folder / FAILURE).unlink(missing_ok=True)  # so that any failure found later is new
        self._watch = SweepWatch(runs, fail_fast=config.fail_fast)
        self._watching.enter_context(self._watch)
        first = runs[0].plan
        if remark := remark_on_other_designs(first.conf, first.store.domains, [run.name for run in runs]):
            self._watch.say(remark)
        atexit.register(self._watching.close)  # a sweep that is stopped gives the terminal its cursor back
        handle_signals(self._stop)
        if "joblib" in config.hydra.launcher._target_:  # the watch's thread still receives them
            self._watching.enter_context(signals_blocked(*SIGNALS))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        """Ends the sweep once its workers have left their runs. A second Ctrl-C does not wait for them."""
        assert self._watch is not None
        if self._stopping and signum != signal.SIGINT:
            return
        if not self._stopping:
            self._stopping = True
            end_workers(run.folder for run in self._watch.runs if not is_recorded(run.folder))
        if self._watch.failed:
            raise Stopped(1)
        stop_at(signum, frame)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the run table. If runs failed, lists them with the commands to repeat them, and exits with 1."""
        assert self._watch is not None
        watch, runs = self._watch, self._watch.runs
        self._watching.close()
        failed = [run for run in runs if not is_recorded(run.folder)]
        for run in failed:
            watch.say(f"{run.name} failed: {read_failure(run.folder)}\n  again: {run.command}")
        if failed:
            watch.say(f"{len(failed)} of {len(runs)} runs failed; the sweep's command starts only these again")
        if len(failed) < len(runs):
            try:
                write_run_table(self._folder)
            except UserError as error:  # runs of another experiment lie in the same folder
                watch.say(f"no table is written: {error}")
                raise SystemExit(1) from None
        if failed:
            raise SystemExit(1)
        watch.say(f"{len(runs)} runs are finished; their table is '{self._folder / TABLE}'")
        is_design = OmegaConf.get_type(config.design) is not SingleConf
        # The mixture file of the runs. A sweep over mixtures, or over what their path depends on, has no single one.
        mixture_file = OmegaConf.select(config, "mixture.path", throw_on_resolution_failure=False)
        line = after_sweep(self._folder, is_design=is_design, search=config.search, mixture_file=mixture_file)
        tell_next(watch.say, line)


def planned_runs() -> Sequence[Planned]:
    """The runs of the sweep that this process works for, or the single run of a command without a sweep."""
    if SweepWatch.current is None:
        return _runs_told
    return [(run.plan, run.folder) for run in SweepWatch.current.runs]


def plan_sweep(config: DictConfig) -> list[PlannedRun]:
    """Composes and checks every run of a sweep, in the order in which they are launched.

    Raises:
        UserError: the config of a run is invalid, or two runs have one name.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError(
            "torchrun would start this sweep once per device; start it without torchrun, as a sweep starts the "
            "processes of every run itself"
        )
    runs: dict[str, PlannedRun] = {}
    stores: dict[str, TokenStore] = {}  # by folder, as most sweeps have one
    trains_here = not config.plan.only and not is_elsewhere(config.hydra.launcher)
    for overrides, conf in jobs_of(config):
        assert isinstance(conf, TrainConf)
        if conf.store_folder not in stores:
            stores[conf.store_folder] = store_of(conf, overrides)
        check_launcher(config.hydra.launcher, conf)
        plan = plan_run(conf, stores[conf.store_folder])
        folder = Path(config.hydra.sweep.dir) / "runs" / conf.run_name
        if conf.run_name in runs:
            raise UserError(f"two runs of the sweep have the name '{conf.run_name}'; set run_name so that they differ")
        runs[conf.run_name] = PlannedRun(plan, folder, overrides, is_finished(plan, folder))
        first = next(iter(runs.values())).plan.conf
        if conf.output_dir != first.output_dir:
            raise UserError(
                f"runs '{first.run_name}' and '{conf.run_name}' have different folders ('{first.output_dir}' and "
                f"'{conf.output_dir}'), but a sweep has one; give output_dir and name one value each"
            )
        check_packing(conf, first)
        if trains_here and not runs[conf.run_name].finished:
            check_devices(conf)
    return list(runs.values())


def check_launcher(launcher: DictConfig, conf: TrainConf) -> None:
    """Checks that a launcher can train a run.

    Raises:
        UserError: a key of the launcher is invalid, or it has too few devices for the run.
    """
    runs_at_a_time(launcher)
    hang_minutes = launcher.get("hang_minutes")
    if hang_minutes is not None and not (isinstance(hang_minutes, int | float) and hang_minutes > 0):
        raise UserError(
            f"hydra.launcher.hang_minutes is {hang_minutes}; it must be a positive number of minutes without progress, "
            "or null for any"
        )
    devices = launcher.get("devices")
    if devices is not None and len(devices) < (count := num_devices(conf)):
        raise UserError(
            f"hydra.launcher.devices is {[*map(str, devices)]}, but run '{conf.run_name}' asks for {count}; name more "
            "of them (GPUs that nvidia-smi lists), lower trainer.devices, or use hydra/launcher=local"
        )
    if conf.trainer.get("num_nodes", 1) > 1 and not is_elsewhere(launcher):
        raise UserError(
            f"trainer.num_nodes is {conf.trainer['num_nodes']} in a sweep, whose launcher starts runs on this machine "
            "alone; use hydra/launcher=slurm, or start the runs one by one with design.index=<k> hydra.mode=RUN"
        )
