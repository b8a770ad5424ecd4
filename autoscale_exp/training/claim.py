"""Who trains a run: a lock on its folder, and beside it the name of the process that holds it.

The lock goes with its process, however that ends. On a file system of several machines it holds between them too, as
far as that file system passes locks on; NFS and Lustre do if they are mounted so.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from autoscale_exp.base import atomic

LOCK = ".lock"
HOLDER = ".holder.json"
LOOK_SECONDS = 0.1  # between two looks at a run that another process trains
# Environment variables that a sweep gives to its workers.
SWEEP = "AUTOSCALE_EXP_SWEEP"  # its process, as <pid>@<host>
SWEEP_STARTED = "AUTOSCALE_EXP_SWEEP_STARTED"  # seconds since 1970
_IMPORTED = time.time()


@dataclass(frozen=True)
class Holder:
    """The process that trains a run.

    Attributes:
        process: as <pid>@<host>.
        command: the process that the user started, which is the sweep's if there is one.
        since: local time.
    """

    process: str
    command: str
    since: str

    def __str__(self) -> str:
        pid, host = self.command.split("@", 1)
        return f"process {pid} on {host} since {self.since}"


def this_process() -> str:
    """<pid>@<host>."""
    return f"{os.getpid()}@{socket.gethostname()}"


def this_command() -> str:
    """The process that the user started: this one, or the one whose sweep it works for."""
    return os.environ.get(SWEEP) or this_process()


def command_started() -> float:
    """When the user started this command, or the sweep that it works for; seconds since 1970."""
    return float(os.environ.get(SWEEP_STARTED, _IMPORTED))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a run while it is trained; waits as long as another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK).acquire(poll_interval=LOOK_SECONDS):
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        atomic.write_json(folder / HOLDER, asdict(Holder(this_process(), this_command(), now)))
        try:
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)


def holder(folder: Path) -> Holder | None:
    """The process that trains the run in a folder now, if there is one."""
    try:
        named = Holder(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if named.process == this_process():
        return named
    try:
        with FileLock(folder / LOCK, blocking=False):
            (folder / HOLDER).unlink(missing_ok=True)  # its process was killed
    except Timeout:
        return named
    return None


def end_workers(folders: Iterable[Path]) -> None:
    """Tells the workers of this process to end, and waits until each has left its run."""
    folders = list(folders)
    while True:
        holders = [found for folder in folders if (found := holder(folder)) and found.command == this_process()]
        workers = [found.process.split("@") for found in holders if found.process != this_process()]
        pids = [int(pid) for pid, host in workers if host == socket.gethostname()]
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(LOOK_SECONDS)
