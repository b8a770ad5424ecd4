"""A process that trains for another one, and when it ends: a worker of a sweep, or one of several of a run."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from autoscale_exp.runs.record import is_recorded
from autoscale_exp.training.claim import this_command

LOOK_SECONDS = 0.5


def is_worker() -> bool:
    """Whether the sweep's process started this one, on this machine."""
    return this_command() == f"{_parent()}@{socket.gethostname()}"


def _parent() -> int:
    """The process that started this one. With a fork server, that is not its parent in the system."""
    parent = multiprocessing.parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


@cache
def end_with_sweep() -> None:
    """Makes a worker end when the process of its sweep ends, so that it does not train on for no one."""
    if not is_worker():
        return  # this is the sweep's own process, or one on another machine, where the launcher looks after it
    sweep = _parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while there is nothing to save, the sweep ends its workers
    if os.getppid() != sweep:
        return  # this is a `WorkProcess`, which ends with its parent anyway

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_once_finished(folder: Path) -> None:
    """Makes this process end once the run in a folder is finished.

    The processes of a run on several devices wait for each other before the first step, for half an hour. If the first
    one finds that another command has finished the run, it never comes.
    """

    def watch() -> None:
        while not is_recorded(folder):
            time.sleep(LOOK_SECONDS)
        os._exit(0)  # the first process writes the result when the others have nothing left to do

    threading.Thread(target=watch, daemon=True).start()


def leave_to_sweep() -> NoReturn:
    """Tells the sweep that this worker was told to end, and waits until the sweep ends all its workers.

    If this worker ended on its own, the others would be ended before they have written their checkpoints.
    """
    with suppress(ProcessLookupError):
        os.kill(int(this_command().split("@")[0]), signal.SIGTERM)
    while True:
        time.sleep(LOOK_SECONDS)
