"""Work in a process of its own, which starts fast, fails alone, and ends with the process that started it."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from autoscale_exp.base.stopping import REQUEUE, SIGNALS, Stopped, signals_blocked

LOOK_SECONDS = 0.2  # between two looks at a process
EXIT_SECONDS = 10.0  # for a process to end after it has sent its outcome
ABORT_SECONDS = 2.0  # for a process to print its stack
_CONTEXT = multiprocessing.get_context("forkserver")


class ProcessDied(RuntimeError):
    """A process ended without a result: it was killed, or crashed."""


class _Elsewhere(Exception):
    """The traceback of an error in the other process, shown with the error here."""


class WorkProcess:
    """A process that calls a function.

    Args:
        function: the function to call. It and the types of its arguments must be importable from a module.
        arguments: arguments of the function.
        environment: all environment variables of the process.
        preload: module that all such processes need; it is imported once for all of them.

    Attributes:
        pid: id of the process.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[Any], *, environment: Mapping[str, str], preload: str
    ) -> None:
        _CONTEXT.set_forkserver_preload([preload])  # only the first call counts
        self._receiving, sending = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_work, args=(function, arguments, dict(environment), sending))
        resource_tracker.ensure_running()  # unblocks SIGTERM as it starts; the forkserver would die of one
        # A signal from a terminal or Slurm to all processes of a job is for the starting process, which passes it on.
        with signals_blocked(*SIGNALS, REQUEUE):
            self._process.start()
        sending.close()
        self._outcome: tuple[Any, str] | None = None
        self.pid = int(self._process.pid or 0)

    def ended(self) -> bool:
        """Whether the process has ended, or has at least sent its outcome."""
        with suppress(EOFError):  # it has sent nothing
            if self._outcome is None and self._receiving.poll():
                self._outcome = self._receiving.recv()
                self._process.join(EXIT_SECONDS)
                self.kill()  # a library may hold it up at its end
        return self._process.exitcode is not None

    def result(self) -> Any:
        """Waits for the function, and returns its result.

        Raises:
            ProcessDied: the process ended without a result.
            Stopped: the process stopped at a signal.
            Exception: the error that the function raised.
        """
        while not self.ended():
            wait_for_any([self], LOOK_SECONDS)
        if self._outcome is None:
            code = self._process.exitcode or 0
            if code >= 128:
                raise Stopped(code)
            reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
            hint = ", as the system does when memory is short" if code == -signal.SIGKILL else ""
            raise ProcessDied(f"process {self.pid} {reason}{hint}")
        value, told = self._outcome
        if isinstance(value, Exception):
            raise value from _Elsewhere(told)
        return value

    def signal(self, signum: int) -> None:
        """Sends the process a signal."""
        if self._process.is_alive():
            os.kill(self.pid, signum)

    def abort(self) -> None:
        """Ends the process with SIGABRT, at which `faulthandler` prints its stack; kills it if it does not end soon."""
        self.signal(signal.SIGABRT)
        self._process.join(ABORT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()


def wait_for_any(processes: Sequence[WorkProcess], seconds: float) -> list[WorkProcess]:
    """Returns the processes that have ended, as soon as one has or `seconds` have passed."""
    wait([process._process.sentinel for process in processes], timeout=seconds)
    return [process for process in processes if process.ended()]


def _work(
    function: Callable[..., Any], arguments: Sequence[Any], environment: Mapping[str, str], sending: Connection
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    value, told = None, ""
    try:
        value = function(*arguments)
    except Exception as error:
        value, told = _sendable(error), f"\n{traceback.format_exc()}"
    sending.send((value, told))


def _sendable(error: Exception) -> Exception:
    """The error, or one with its type and message if it does not come out of a pipe as it went in."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
