"""Launches each run in a process of its own, as many at a time as the user says, or one on each GPU."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:  # Hydra imports every plugin whenever a job starts
    from autoscale_exp.base.processes import WorkProcess

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


@dataclass
class Job:
    """A run that waits or is in progress.

    Attributes:
        index: index in the sweep.
        overrides: overrides of its config.
        folder: folder that it writes to.
        num_places: number of places that it takes.
        retries: retries left if its process is killed; None for jobs other than `train`, which do not record
            failures.
    """

    index: int
    overrides: list[str]
    folder: Path
    num_places: int
    retries: int | None


@dataclass
class Running:
    """A run in progress.

    Attributes:
        job: the job of the run.
        places: the places that it has.
        progress: time of the last change of its progress file, by the file system.
        since: when this change was first seen, by our own clock.
        hung: whether the run was ended because it made no progress.
    """

    job: Job
    places: list[str]
    progress: int | None
    since: float
    hung: bool = False


class ProcessLauncher(Launcher):
    """A queue of runs for a number of places.

    A run that is killed, hangs or runs out of memory does not affect the others.

    Args:
        n_jobs: runs at a time, as joblib counts them: -1 for as many as there are CPU cores.
        devices: indices of GPUs, as in CUDA_VISIBLE_DEVICES, for one run at a time on each; `n_jobs` is then ignored.
        hang_minutes: minutes without progress after which a run is ended; None for never.
    """

    def __init__(
        self,
        n_jobs: int | None = None,
        devices: Sequence[int | str] | None = None,
        hang_minutes: float | None = None,
    ) -> None:
        self.n_jobs = n_jobs
        self.devices = None if devices is None else [str(device) for device in devices]
        self.hang_minutes = hang_minutes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Stores what every run needs; see Hydra's Launcher."""
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains all runs, and returns once all have ended. Their results are in their folders.

        Raises:
            ProcessDied: a run of a job other than `train` has ended without a result.
        """
        from autoscale_exp.base.processes import WorkProcess, wait_for_any

        waiting = [self._job(index, overrides) for index, overrides in enumerate(job_overrides, initial_job_idx)]
        free, returns = self._places(), {}
        running: dict[WorkProcess, Running] = {}
        try:
            while waiting or running:
                while waiting and len(free) >= (count := waiting[0].num_places):
                    job, places, free = waiting.pop(0), free[:count], free[count:]
                    running[self._start(job, places)] = Running(job, places, _progress_of(job), time.monotonic())
                for process in wait_for_any(list(running), LOOK_SECONDS):
                    ended = running.pop(process)
                    free += ended.places
                    if returned := self._return_of(process, ended):
                        returns[ended.job.index] = returned
                    else:
                        waiting.insert(0, replace(ended.job, retries=(ended.job.retries or 0) - 1))
                for process, run in running.items():
                    if self._hangs(run):
                        process.abort()
        finally:
            for process in running:
                process.kill()
        return [returns[index] for index in sorted(returns)]

    def _places(self) -> list[str]:
        from joblib import effective_n_jobs

        return list(self.devices) if self.devices is not None else [""] * effective_n_jobs(self.n_jobs)

    def _job(self, index: int, overrides: Sequence[str]) -> Job:
        from autoscale_exp.base.composing import compose

        of_sweep = self.config.hydra
        conf = compose(of_sweep.job.config_name, [*of_sweep.overrides.hydra, *overrides], with_hydra=True)
        OmegaConf.copy_cache(from_config=self.config, to_config=conf)  # the time in a folder's name is the sweep's
        with open_dict(conf):
            conf.hydra.job.num = index  # the folder's name may depend on it
        count = 1
        if self.devices is not None:
            asked = OmegaConf.select(conf, "trainer.devices", default=1)
            count = asked if isinstance(asked, int) and asked > 0 else len(self.devices)
        folder = Path(conf.hydra.sweep.dir) / conf.hydra.sweep.subdir
        return Job(index, list(overrides), folder, count, OmegaConf.select(conf, "retries"))

    def _start(self, job: Job, places: Sequence[str]) -> "WorkProcess":
        from autoscale_exp.base.processes import WorkProcess

        state = Singleton.get_state()
        work = (job.index, job.overrides, self.context, self.config, self.function, state)
        visible = {} if self.devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(places)}
        return WorkProcess(
            _run_job,
            [cloudpickle.dumps(work)],
            environment={**os.environ, **visible},
            preload="autoscale_exp.training.run",
        )

    def _hangs(self, run: Running) -> bool:
        """Whether a run has made no progress for too long."""
        if self.hang_minutes is None:
            return False
        if (progress := _progress_of(run.job)) != run.progress:
            run.progress, run.since = progress, time.monotonic()
        run.hung = time.monotonic() - run.since > 60 * self.hang_minutes
        return run.hung

    def _return_of(self, process: "WorkProcess", run: Running) -> JobReturn | None:
        """The outcome of a run whose process has ended; None if the run is tried again."""
        from autoscale_exp.base.processes import ProcessDied
        from autoscale_exp.runs.record import write_failure

        job = run.job
        try:
            process.result()
        except ProcessDied as died:
            idle = f"it made no progress for {self.hang_minutes:g} min, and was ended" if run.hung else None
            error = ProcessDied(idle) if idle else died
            if job.retries is None:
                raise error from None
            if job.retries:
                log.warning("%s is tried again: %s", job.folder.name, error)
                return None
            write_failure(job.folder, job.folder.name, error)
        return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)


def _progress_of(job: Job) -> int | None:
    from autoscale_exp.runs.record import PROGRESS

    try:
        return (job.folder / PROGRESS).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _run_job(work: bytes) -> None:
    import faulthandler

    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    faulthandler.enable()  # so that a run that crashes, or hangs and is ended, prints its stack
    execute_job(*cloudpickle.loads(work)).return_value  # noqa: B018  raises the error of the job
