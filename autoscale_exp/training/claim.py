"""Which process trains a run: a lock on the run's folder, and a file that names the holder, with a heartbeat.

On the holder's machine the lock tells whether the holder lives, as a lock ends with its process, however that ends. On
other machines the heartbeat tells: a number that the holder raises. No two clocks are compared.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

from filelock import FileLock

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.record import PROGRESS

LOCK = ".lock"
HOLDER = ".holder.json"
LOOK_SECONDS = 0.1  # between two looks at a run that another process trains
BEAT_SECONDS = 2.0
SILENT_SECONDS = 5 * BEAT_SECONDS  # a holder on another machine that is silent for longer counts as dead
SWEEP = "AUTOSCALE_EXP_SWEEP"  # environment variable in which a sweep's workers find its process, as <pid>@<host>


@dataclass(frozen=True)
class Holder:
    """The process that trains a run.

    Attributes:
        process: the process, as <pid>@<host>.
        command: the process that the user started: that of the sweep if there is one.
        since: local time of the holder.
        beat: grows by one every `BEAT_SECONDS`.
        idle_beats: beats since training last told of its progress.
    """

    process: str
    command: str
    since: str
    beat: int = 0
    idle_beats: int = 0

    def __str__(self) -> str:
        pid, host = self.command.split("@", 1)
        return f"process {pid} on {host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.process.split("@", 1)[1] == socket.gethostname()

    @property
    def idle_seconds(self) -> float:
        """How long training has not told of its progress."""
        return self.idle_beats * BEAT_SECONDS


def this_process() -> str:
    """This process, as <pid>@<host>."""
    return f"{os.getpid()}@{socket.gethostname()}"


def this_command() -> str:
    """The process that the user started: this one, or the one whose sweep it works for."""
    return os.environ.get(SWEEP) or this_process()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a run while it is trained; first waits until no other process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK).acquire(poll_interval=LOOK_SECONDS):
        while (other := holder(folder)) and not other.is_here:  # this file system may share no locks between machines
            time.sleep(LOOK_SECONDS)
        with _heartbeat(folder):
            yield


@contextmanager
def _heartbeat(folder: Path) -> Iterator[None]:
    """Keeps the holder's file fresh from a thread of its own, however long a step or a validation takes."""
    own = Holder(this_process(), this_command(), time.strftime("%Y-%m-%d %H:%M:%S"))
    ended = threading.Event()

    def beat() -> None:
        told, last = None, 0
        for number in count(1):
            if ended.wait(BEAT_SECONDS):
                return
            with suppress(OSError, UserError):  # a full disk is reported where results are written
                stamp = (folder / PROGRESS).stat().st_mtime_ns if (folder / PROGRESS).exists() else None
                told, last = (told, last) if stamp == told else (stamp, number)
                content = replace(own, beat=number, idle_beats=number - last)
                atomic.write_json(folder / HOLDER, asdict(content))

    thread = threading.Thread(target=beat, daemon=True)
    atomic.write_json(folder / HOLDER, asdict(own))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        (folder / HOLDER).unlink(missing_ok=True)


@contextmanager
def claimed_if_free(folder: Path) -> Iterator[bool]:
    """Holds a run while it is trained if no other process does; yields whether it holds the run."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        yield False
        return
    try:
        if (other := holder(folder)) and not other.is_here:
            yield False
            return
        with _heartbeat(folder):
            yield True
    finally:
        lock.release()


def read_holder(folder: Path) -> Holder | None:
    """The last process that held a run, alive or dead; None if it has ended as it should."""
    try:
        return Holder(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def holder(folder: Path) -> Holder | None:
    """The process that trains the run in a folder now, if there is one.

    A process on another machine counts as alive until this one has seen no beat of it for `SILENT_SECONDS`.
    """
    named = read_holder(folder)
    if named is None or named.process == this_process():
        return named
    if named.is_here:
        with suppress(PermissionError):  # in someone else's folder only the heartbeat can tell
            return named if _is_locked(folder) else None
    return None if _silent_seconds(folder, named) > SILENT_SECONDS else named


def wait_to_hear(folders: Iterable[Path]) -> None:
    """Waits until it is known of every run with a holder whether that is alive: some seconds at most."""
    unknown = {folder: found.beat for folder in folders if (found := holder(folder))}
    while unknown:
        for folder, beat in list(unknown.items()):
            found = holder(folder)
            if found is None or found.is_here or found.beat != beat:
                del unknown[folder]
        time.sleep(LOOK_SECONDS if unknown else 0)


def _is_locked(folder: Path) -> bool:
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        return True
    lock.release()
    return False


_heard: dict[Path, tuple[Holder, float]] = {}  # by folder: the holder's last beat, and when we saw it, by our own clock


def _silent_seconds(folder: Path, named: Holder) -> float:
    if folder not in _heard or _heard[folder][0] != named:
        _heard[folder] = named, time.monotonic()
    return time.monotonic() - _heard[folder][1]


def end_workers(folders: Iterable[Path]) -> None:
    """Tells the workers of this sweep to end, and waits until each has left its run."""
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
