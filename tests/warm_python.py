"""A Python that has imported what the jobs import, and forks for each command: it spares each of them some seconds.

The first fork server that such a fork starts is forked, too, as if it had been started and had imported all that.
"""

import gc
import importlib
import json
import multiprocessing.util
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]


class WarmProcess:
    """A process of a `WarmPython`, with what tests use of a `subprocess.Popen`. It leads a process group of its own."""

    def __init__(self, args: list[str], pid: int, stdout: int, stderr: int, status: int) -> None:
        self.args, self.pid = args, pid
        self.stdout, self.stderr, self._status = os.fdopen(stdout), os.fdopen(stderr), os.fdopen(status)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.read())
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What was written, once all that could write has ended. The process group is killed after `timeout` s."""
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(self.stderr.read()))
        reader.start()
        written = self.stdout.read()
        reader.join()
        if self.returncode is None:
            self.returncode = int(self._status.read())
        timer.cancel()
        return written, errors[0]

    def send_signal(self, signum: int) -> None:
        """Sends a signal to the process alone."""
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """Ends the process group."""
        os.killpg(self.pid, signal.SIGKILL)


class WarmPython:
    """Starts modules as `python -m` does."""

    def __init__(self, *imports: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.warm_python", str(theirs.fileno()), *imports]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)

    def start(self, module: str, args: list[str], cwd: Path) -> WarmProcess:
        """Starts a module in a folder, with the environment of the caller."""
        pipes = [os.pipe() for _ in range(3)]
        message = json.dumps({"module": module, "args": args, "cwd": str(cwd), "environment": dict(os.environ)})
        socket.send_fds(self._socket, [message.encode()], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        pid = int(self._socket.recv(100))
        return WarmProcess([module, *args], pid, *(read for read, _ in pipes))

    def run(self, module: str, args: list[str], cwd: Path) -> str:
        """Runs a module that has to end well; returns what it wrote to its output."""
        process = self.start(module, args, cwd)
        output, errors = process.communicate()
        assert process.returncode == 0, f"{module} {args}\n{output[-2000:]}\n{errors[-2000:]}"
        return output

    def close(self) -> None:
        """Ends the process that forks."""
        self._socket.close()
        self._process.wait()


def fork(requests: socket.socket, stdout: int, stderr: int, status: int) -> bool:
    """Forks twice: a child that tells the exit code, and its child, which returns true here."""
    if os.fork():
        for fd in (stdout, stderr, status):
            os.close(fd)
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(stdout)
        os.close(stderr)
        requests.send(str(pid).encode())
        os.write(status, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for fd in (stdout, stderr, status, requests.detach()):
        os.close(fd)
    return True


def keep_fork_server() -> None:
    """Forks a process that becomes multiprocessing's fork server once one is to be started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        become_fork_server(theirs)
    theirs.close()
    start = multiprocessing.util.spawnv_passfds

    def start_or_fork(path: bytes, args: list[str], fds: list[int]) -> int:
        if "multiprocessing.forkserver" not in args[-1]:
            return start(path, args, fds)
        multiprocessing.util.spawnv_passfds = start  # there is one
        ignored = [signum for signum in signal.valid_signals() if signal.getsignal(signum) == signal.SIG_IGN]
        signals = {"blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])], "ignored": ignored}
        socket.send_fds(ours, [json.dumps({"code": args[-1], **signals}).encode()], fds)
        return pid

    multiprocessing.util.spawnv_passfds = start_or_fork


def become_fork_server(requests: socket.socket) -> NoReturn:
    """Waits for the code that a new Python would run, and runs it with the signals and files that it would have."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a fork server does
    message, fds, *_ = socket.recv_fds(requests, 1 << 20, 2)
    if not message:
        os._exit(0)
    requests.close()
    request = json.loads(message)
    for signum in request["ignored"]:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    try:
        exec(re.sub(r"main\(\d+, \d+", "main({}, {}".format(*fds), request["code"]))
    finally:
        os._exit(0)


def main(requests: socket.socket) -> None:
    """Forks for each request until there is none, and runs the module in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell the exit code
    while True:
        message, fds, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return
        if fork(requests, *fds):
            break
    keep_fork_server()
    request = json.loads(message)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["args"]
    sys.path[0] = request["cwd"]  # as `python -m` has it
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # or each fork would copy the memory of all of it to collect garbage as it ends
    main(socket.socket(fileno=int(sys.argv[1])))
