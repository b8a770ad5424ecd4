"""How a signal ends a job: Ctrl-C (SIGINT), or SIGTERM as `kill` or a scheduler sends it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REQUEUE = signal.SIGUSR2  # Slurm sends it before a time limit or pre-emption; submitit has a handler for it


class Stopped(SystemExit):
    """A signal has ended the job. The exit code is the one that shells use for it: 130 or 143."""


def stop_at(signum: int, _: FrameType | None = None) -> None:
    """Signal handler that ends the job where it is.

    Raises:
        Stopped: always.
    """
    raise Stopped(128 + signum)


def handle_signals(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    """Installs a handler for both signals. If the shell made us ignore SIGINT, as with `&`, it stays ignored."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            if signum != signal.SIGINT or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, handler)


def restore_signals(handlers: Mapping[signal.Signals, Any]) -> None:
    """Restores earlier handlers."""
    if threading.current_thread() is threading.main_thread():
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def leave_to_scheduler(stopped: Stopped) -> None:
    """Under submitit, lets Slurm end the job and start it again. Returns if there is no scheduler.

    `REQUEUE` goes on to submitit, whose handler has the job started again. SIGTERM announces pre-emption or `scancel`,
    after which Slurm ends the job itself. A job that ended earlier would count as failed, and not be started again.
    """
    if not callable(signal.getsignal(REQUEUE)):
        return
    if stopped.code == 128 + REQUEUE:
        signal.raise_signal(REQUEUE)
    while True:
        time.sleep(1)


@contextmanager
def signals_blocked(*signums: int) -> Iterator[None]:
    """Blocks signals in this thread, and permanently in threads and processes that start meanwhile.

    A terminal sends Ctrl-C to every process of a job. Workers must not see it, as the first process ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Notes a signal instead of ending at once, for work that can end without loss only at some points.

    The work looks at `signum` now and then and raises `Stopped`, as the end of the block does at the latest. A second
    Ctrl-C ends the work wherever it is.

    If a scheduler's launcher, such as submitit, handles `REQUEUE`, that is noted, too; see `leave_to_scheduler`.

    Attributes:
        signum: the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def __enter__(self) -> Self:
        self._handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        if callable(signal.getsignal(REQUEUE)):
            self._handlers[REQUEUE] = signal.getsignal(REQUEUE)
        self.listen()
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # blocked in new workers
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        restore_signals(self._handlers)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if self.signum is not None and (error is None or isinstance(error, SystemExit)):
            self.stop()

    def listen(self) -> None:
        """Installs the handlers, if need be again, after a library has installed its own."""
        handle_signals(self._note)
        if REQUEUE in self._handlers and threading.current_thread() is threading.main_thread():
            signal.signal(REQUEUE, self._note)

    def stop(self) -> None:
        """Ends the work.

        Raises:
            Stopped: always.
        """
        raise Stopped(128 + (self.signum or signal.SIGTERM)) from None

    def _note(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum is not None:
            stop_at(signum)
        self.signum = self.signum or signum
