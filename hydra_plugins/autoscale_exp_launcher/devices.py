"""Launches each run in a process of its own that sees only its own GPUs, as many at a time as there are GPUs."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:  # Hydra imports every plugin whenever a job starts
    from autoscale_exp.base.processes import WorkProcess

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


@dataclass
class Job:
    """A run that waits or is trained.

    Attributes:
        index: in the sweep.
        overrides: of its config.
        folder: where it writes.
        num_devices: that it asks for.
        retries: that it has left, should its process be killed.
    """

    index: int
    overrides: list[str]
    folder: Path
    num_devices: int
    retries: int


class DeviceLauncher(Launcher):
    """A queue of runs before a list of devices.

    A run that is killed, or that its device's memory does not hold, leaves the others alone.

    Args:
        devices: indices of GPUs, as in CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, devices: Sequence[int | str]) -> None:
        self.devices = [str(device) for device in devices]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what every run needs."""
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains all runs; returns once all have ended. What has become of them stands in their folders."""
        from autoscale_exp.base.processes import WorkProcess, wait_for_any

        waiting = [self._job(index, overrides) for index, overrides in enumerate(job_overrides, initial_job_idx)]
        free, returns = list(self.devices), {}
        running: dict[WorkProcess, tuple[Job, list[str]]] = {}
        try:
            while waiting or running:
                while waiting and len(free) >= (count := waiting[0].num_devices):
                    job, devices, free = waiting.pop(0), free[:count], free[count:]
                    running[self._start(job, devices)] = job, devices
                for process in wait_for_any(list(running), LOOK_SECONDS):
                    job, devices = running.pop(process)
                    free += devices
                    if returned := self._return_of(process, job):
                        returns[job.index] = returned
                    else:
                        waiting.insert(0, replace(job, retries=job.retries - 1))
        finally:
            for process in running:
                process.kill()
        return [returns[index] for index in sorted(returns)]

    def _job(self, index: int, overrides: Sequence[str]) -> Job:
        conf = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        asked = OmegaConf.select(conf, "trainer.devices", default=1)
        count = asked if isinstance(asked, int) and asked > 0 else len(self.devices)
        folder = Path(conf.hydra.sweep.dir) / conf.hydra.sweep.subdir
        return Job(index, list(overrides), folder, count, OmegaConf.select(conf, "retries", default=0))

    def _start(self, job: Job, devices: Sequence[str]) -> "WorkProcess":
        from autoscale_exp.base.processes import WorkProcess

        state = Singleton.get_state()
        work = (job.index, job.overrides, self.context, self.config, self.function, state)
        return WorkProcess(
            _run_job,
            [cloudpickle.dumps(work)],
            environment={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)},
            preload="autoscale_exp.training.run",
        )

    def _return_of(self, process: "WorkProcess", job: Job) -> JobReturn | None:
        """What comes of a run whose process has ended; None if it is tried again."""
        from autoscale_exp.base.processes import ProcessDied
        from autoscale_exp.runs.record import write_failure

        try:
            process.result()
        except ProcessDied as error:
            if job.retries:
                log.warning("%s is tried again: %s", job.folder.name, error)
                return None
            write_failure(job.folder, job.folder.name, error)
        return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)


def _run_job(work: bytes) -> None:
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    execute_job(*cloudpickle.loads(work)).return_value  # noqa: B018  raises what the job has raised
