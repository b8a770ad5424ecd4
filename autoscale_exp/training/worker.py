"""A worker, a process that trains runs for a sweep. It ends with the sweep, and never on its own."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from typing import NoReturn

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


def leave_to_sweep() -> NoReturn:
    """Tells the sweep that this worker was told to end, and waits until the sweep ends all its workers.

    If this worker ended on its own, the others would be ended before they have written their checkpoints.
    """
    with suppress(ProcessLookupError):
        os.kill(int(this_command().split("@")[0]), signal.SIGTERM)
    while True:
        time.sleep(LOOK_SECONDS)
