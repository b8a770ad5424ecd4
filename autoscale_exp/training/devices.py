"""A run on several devices, with a process for each, unless torchrun or srun has started them.

Lightning would start the job's command again for every device, which in a sweep is the whole sweep. Here a new process
calls `train` for each device. The process that starts them trains nothing: it holds the run, passes signals on, and
ends all of them when one dies.
"""

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.processes import ProcessDied, WorkProcess, wait_for_any
from autoscale_exp.base.stopping import Stopped, StopRequest
from autoscale_exp.training.parallelism import num_devices
from autoscale_exp.training.plan import RunPlan

PRELOAD = "autoscale_exp.training.run"
LOOK_SECONDS = 0.2
LAST_WORDS_SECONDS = 5.0  # after one process has ended with an error, for others to report theirs


def train_on_devices(plan: RunPlan, folder: Path) -> None:
    """Trains a run with a process for each device of this machine; returns once all have ended.

    Raises:
        UserError: one of the processes reports that the run cannot go on.
        ProcessDied: one of them was killed.
        Stopped: a signal came; the resume point is that of the step just done.
    """
    nodes = int(plan.conf.trainer.get("num_nodes", 1))
    environment = {**os.environ, **_meeting_point(nodes), "WORLD_SIZE": str(num_devices(plan.conf))}
    # A plain dict, as Hydra's own config has classes that it imported twice, which cannot be pickled.
    hydra_conf = HydraConfig.get() if HydraConfig.initialized() else None
    job_logging = hydra_conf and OmegaConf.to_container(hydra_conf.job_logging, resolve=True)
    processes = []
    with StopRequest() as request:
        try:
            for rank in range(num_devices(plan.conf) // nodes):
                arguments = plan, folder, job_logging if rank == 0 else None
                of_rank = {**environment, "LOCAL_RANK": str(rank)}
                processes.append(WorkProcess(_train_rank, arguments, environment=of_rank, preload=PRELOAD))
            _follow(processes, request)
        finally:
            for process in processes:
                process.kill()


def _meeting_point(nodes: int) -> dict[str, str]:
    """Variables by which the processes find each other: the user's for several machines, else a free port here."""
    if nodes > 1:
        if missing := [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise UserError(
                f"trainer.num_nodes is {nodes}, but {', '.join(missing)} are not set; start the run with torchrun or "
                "srun, or set these variables on every machine"
            )
        return {}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1])}


def _follow(processes: list[WorkProcess], request: StopRequest) -> None:
    """Waits for all processes to end. Once one has ended with an error, it waits only a while for the others."""
    errors: list[BaseException] = []
    told, patience = False, float("inf")
    running = list(processes)
    while running and time.monotonic() < patience:
        for process in wait_for_any(running, LOOK_SECONDS):
            running.remove(process)
            try:
                process.result()
            except (Exception, Stopped) as error:
                errors.append(error)
                if not isinstance(error, Stopped):  # a stopped run writes its checkpoint, however long that takes
                    patience = min(patience, time.monotonic() + LAST_WORDS_SECONDS)
        if request.signum is not None and not told:
            told = True
            for process in running:
                process.signal(signal.SIGTERM)
    if errors:  # the first of these kinds is the cause; other errors only follow from a lost process
        raise next((e for kind in (UserError, Stopped, ProcessDied) for e in errors if isinstance(e, kind)), errors[0])


def _train_rank(plan: RunPlan, folder: Path, job_logging: Any) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    from autoscale_exp.training.run import train

    first = os.environ["LOCAL_RANK"] == os.environ["NODE_RANK"] == "0"
    setattr(rank_zero_only, "rank", 0 if first else 1)  # noqa: B010  for loggers, until Lightning knows better
    if job_logging is not None:
        configure_log(OmegaConf.create(job_logging))
    else:
        logging.disable(logging.WARNING)  # the first process logs for all
    train(plan, folder)
