"""What happens to sweeps: each fault is tried for real, then the sweep's command is given again.

python benchmarks/faults.py [FAULT ...]    # some minutes on two CPU cores; as root, for the faults that need a mount

A sweep of three small runs is disturbed, and continued by the same command until it ends. Its run table must be that
of the undisturbed sweep, bit for bit, and no finished run may be trained again. benchmarks/faults.json has what came
of it; docs/clusters.md shows it.
"""

import contextlib
import csv
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import autoscale_exp.training.run  # noqa: F401  torch, once for all processes that are forked here
from autoscale_exp import prepare, train
from autoscale_exp.lm.causal import CausalLanguageModel

HERE = Path(__file__).parent
NUM_KILLS = 50
DATA = ["data=local", "data.domains=[sums,words]", "data.seq_len=16", "data.validation_fraction=0.1"]
DATA += ["data.validation_rows=24", "data.tokenizer.vocab_size=300"]
MODEL = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.optimizer.batch_rows=8", "num_threads=1"]
SWEEP = ["token_budget=16_000", "max_epochs=1000", "checkpoint_minutes=0.002", "seed=0,1,2", "trainer.accelerator=cpu"]
LOCAL = ["hydra/launcher=local", "hydra.launcher.n_jobs=2", "retries=1"]
CLONE_NEWUTS = 0x04000000


@dataclass
class Sweep:
    """A sweep in a folder of its own, and what has come of it so far.

    Attributes:
        folder: of its runs.
        data: overrides that lead to the token store.
        said: the last line of each command that ended with an error.
        again: finished runs that were trained again.
    """

    folder: Path
    data: list[str]
    said: list[str] = field(default_factory=list)
    again: int = 0

    def start(self, *overrides: str, before: Callable[[], object] = lambda: None) -> int:
        """Forks a process that gives the sweep's command; returns its id."""
        self.before = self.checkpoints()
        self.results = {path: path.stat().st_mtime_ns for path in self.folder.glob("runs/*/result.json")}
        sys.argv = ["train", *self.data, *MODEL, *SWEEP, f"output_dir={self.folder}", "hydra.mode=MULTIRUN", *overrides]
        if pid := os.fork():
            return pid
        os.setsid()
        log = os.open(f"{self.folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 0
        try:
            before()
            train.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException as error:
            print(f"TRACEBACK {error!r}", flush=True)
            code = 1
        sys.stdout.flush()
        os._exit(code)

    def end(self, pid: int) -> int:
        """Waits for a process; notes what it said, and which finished runs it trained again."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.again += sum(path.stat().st_mtime_ns != before for path, before in self.results.items())
        lines = Path(f"{self.folder}.log").read_text().splitlines()
        if code > 0:
            told = [
                line for line in lines if line.startswith(("error:", "stopped:", "TRACEBACK")) or " failed: " in line
            ]
            self.said.append((told or lines)[-1].replace(str(self.folder), "FOLDER"))
        return code

    def go(self, *overrides: str, **options: Callable[[], object]) -> int:
        """Gives the sweep's command and waits for its end."""
        return self.end(self.start(*overrides, **options))

    def table(self) -> list[str]:
        """The run table without what depends on the clock."""
        with (self.folder / "runs.csv").open() as file:
            rows = list(csv.DictReader(file))
        return sorted(str({key: value for key, value in row.items() if key != "seconds"}) for row in rows)

    def checkpoints(self) -> set[tuple[Path, int]]:
        """Those that there are: each one written has an inode of its own."""
        found = set()
        for path in self.folder.glob("runs/*/resume.ckpt"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path, path.stat().st_ino))
        return found

    def new_checkpoint(self) -> Path:
        """The first one that the last command writes."""
        while not (new := self.checkpoints() - self.before):
            time.sleep(0.01)
        return new.pop()[0]

    def holder(self) -> int:
        """The process that holds a run which has a checkpoint."""
        path = self.new_checkpoint().parent / ".holder.json"
        return int(json.loads(path.read_text())["process"].split("@")[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def cpu_seconds(pid: int) -> float | None:
    """That a process has used, so that it does not matter how busy the machine is; None once it has ended."""
    state, *values = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return None if state == "Z" else sum(map(int, values[10:12])) / os.sysconf("SC_CLK_TCK")


def killed_at_random(sweep: Sweep) -> None:
    """SIGKILL at fifty random points"""
    rng, parts = random.Random(0), 0
    while parts < NUM_KILLS:
        pid, moment = sweep.start(), rng.uniform(0, 4)
        while (spent := cpu_seconds(pid)) is not None and spent < moment:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
        parts += sweep.end(pid) < 0
        if len(list(sweep.folder.glob("runs/*/result.json"))) == 3 and parts < NUM_KILLS:
            check(sweep)
            subprocess.run(["rm", "-r", sweep.folder], check=True)


def told_to_end(sweep: Sweep) -> None:
    """SIGTERM"""
    pid = sweep.start()
    sweep.new_checkpoint()
    os.kill(pid, signal.SIGTERM)
    sweep.end(pid)


def worker_killed(sweep: Sweep) -> None:
    """the process of a run is killed"""
    pid = sweep.start(*LOCAL)
    os.kill(sweep.holder(), signal.SIGKILL)
    sweep.end(pid)


def joblib_worker_killed(sweep: Sweep) -> None:
    """the process of a run is killed, joblib"""
    pid = sweep.start("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    os.kill(sweep.holder(), signal.SIGKILL)
    sweep.end(pid)


def worker_hangs(sweep: Sweep) -> None:
    """the process of a run hangs"""
    pid = sweep.start(*LOCAL, "hydra.launcher.hang_minutes=0.2")
    os.kill(sweep.holder(), signal.SIGSTOP)
    sweep.end(pid)


def node_dies(sweep: Sweep) -> None:
    """a node dies"""

    def on_another_node() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0
        socket.sethostname("another-node")

    pid = sweep.start(before=on_another_node)
    sweep.new_checkpoint()
    kill(pid)
    sweep.end(pid)


@contextmanager
def small_disk(sweep: Sweep, size: str):
    sweep.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", sweep.folder], check=True)
    try:
        yield
        continued(sweep)
        check(sweep)
    finally:
        subprocess.run(["umount", sweep.folder], check=True)


def disk_full(sweep: Sweep) -> None:
    """the disk is full"""
    with small_disk(sweep, "200k"):
        sweep.go()
        subprocess.run(["mount", "-o", "remount,size=100m", sweep.folder], check=True)


def unwritable(sweep: Sweep) -> None:
    """the folder cannot be written"""
    with small_disk(sweep, "100m"):
        pid = sweep.start()
        sweep.new_checkpoint()
        kill(pid)
        sweep.end(pid)
        subprocess.run(["mount", "-o", "remount,ro", sweep.folder], check=True)
        sweep.go()
        subprocess.run(["mount", "-o", "remount,rw", sweep.folder], check=True)


def checkpoint_damaged(sweep: Sweep) -> None:
    """a checkpoint is damaged; it is deleted, as the message says"""
    pid = sweep.start()
    checkpoint = sweep.new_checkpoint()
    kill(pid)
    sweep.end(pid)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    sweep.go()
    checkpoint.unlink()


def clock_jumps(sweep: Sweep) -> None:
    """the clock jumps by days, forth and back, while runs train"""
    real, rng = time.time, random.Random(0)

    def jumping() -> None:
        time.time = lambda: real() + rng.uniform(-1e6, 1e6)

    for _ in range(3):
        pid = sweep.start(before=jumping)
        sweep.new_checkpoint()
        for path in sweep.folder.rglob("*"):
            moved = real() + rng.uniform(-1e6, 1e6)
            if path.name != "result.json":
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path, (moved, moved))
        kill(pid)
        sweep.end(pid)


def two_sweeps(sweep: Sweep) -> None:
    """two sweeps at once in one folder"""
    other = Sweep(sweep.folder, sweep.data)
    pids = sweep.start(), other.start()
    sweep.end(pids[0])
    other.end(pids[1])
    sweep.said += other.said
    parts = [len(list(run.glob("metrics/version_*"))) for run in sweep.folder.glob("runs/*")]
    sweep.again += sum(parts) - len(parts)


def loss_is_nan(sweep: Sweep) -> None:
    """the loss of one run becomes NaN"""
    losses = CausalLanguageModel.token_losses

    def broken() -> None:
        CausalLanguageModel.token_losses = lambda self, *args: (
            losses(self, *args) * (float("nan") if self.seed == 1 and self.trainer.global_step > 50 else 1)
        )

    sweep.go(before=broken)


FAULTS = [
    killed_at_random,
    told_to_end,
    worker_killed,
    joblib_worker_killed,
    worker_hangs,
    node_dies,
    disk_full,
    unwritable,
    checkpoint_damaged,
    clock_jumps,
    two_sweeps,
    loss_is_nan,
]
EXPECTED: list[str] = []


def continued(sweep: Sweep) -> None:
    """Gives the sweep's command again, which must end it."""
    assert sweep.go() == 0, Path(f"{sweep.folder}.log").read_text()


def check(sweep: Sweep) -> None:
    assert sweep.table() == EXPECTED, (sweep.table(), EXPECTED)


def prepared(folder: Path) -> list[str]:
    """A token store of two domains of random text."""
    rng = np.random.default_rng(0)
    for domain, words in {"sums": "0 1 2 3 4 5 plus minus times gives", "words": "a be see dee eat off gee"}.items():
        texts = (" ".join(rng.choice(words.split(), size=40)) for _ in range(400))
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = [*DATA, f"data.path={folder}", f"data.store={folder}/store"]
    sys.argv = ["prepare", *data]
    prepare.main()
    return data


def main() -> None:
    asked = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepared(folder)
        undisturbed = Sweep(folder / "undisturbed", data)
        assert undisturbed.go() == 0
        EXPECTED.extend(undisturbed.table())
        for fault in FAULTS:
            if asked and fault.__name__ not in asked:
                continue
            sweep = Sweep(folder / fault.__name__, data)
            fault(sweep)
            if fault not in (disk_full, unwritable):  # they have ended theirs on a disk of their own
                continued(sweep)
                check(sweep)
            assert sweep.again == 0, (fault, sweep.again)
            note(fault, sweep.said[0] if sweep.said else "")


def note(fault: Callable[[Sweep], None], said: str) -> None:
    """Adds what came of a fault to the results: that the table was equal, and no run trained again, is checked here."""
    path, name = HERE / "faults.json", str(fault.__doc__)
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = {"said": re.sub(r"process \d+", "process N", said), "equal": True, "trained_again": 0}
    path.write_text(
        json.dumps({f.__doc__: results[f.__doc__] for f in FAULTS if f.__doc__ in results}, indent=1) + "\n"
    )
    print(f"| {name} | {said} |", flush=True)


if __name__ == "__main__":
    main()
