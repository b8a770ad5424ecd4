"""Two commands that are to train the same runs train each of them once."""

import os
import signal
from pathlib import Path

import pytest

from tests.training.processes import LOCAL, Start, ended, parts_of, table_of, wait_for

pytestmark = pytest.mark.slow

SWEEP = ["token_budget=64_000", "max_epochs=100_000", "seed=0,1", "checkpoint_minutes=0.002"]  # 500 steps each
ONE = [*SWEEP[:2], "seed=0", SWEEP[3]]


class Waiting:
    """A sweep that stands still in its first run, and the commands that wait for that run."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.start, self.folder = start, folder
        self.first = start(folder, *SWEEP)
        held = wait_for(self.first, lambda: list(folder.glob("runs/*/resume.ckpt")))
        os.killpg(self.first.pid, signal.SIGSTOP)
        self.names = {path.parent.name for path in held}

    def second(self, *overrides: str, mode: str = "MULTIRUN"):
        """Starts another command; returns it once it has said whom it waits for."""
        process = self.start(self.folder, *overrides, mode=mode)
        assert process.stdout is not None
        process.stdout.readline()
        return process, process.stdout.readline()


@pytest.fixture(scope="module")
def once(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep by itself."""
    folder = tmp_path_factory.mktemp("once") / "out"
    assert ended(start(folder, *SWEEP)).returncode == 0
    return folder


def test_the_second_says_whom_it_waits_for_and_nothing_is_trained_twice(once: Path, start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    waiting = Waiting(start, folder)
    sweep, told = waiting.second(*SWEEP, *LOCAL)
    assert f"uniform_64K_seed0 is being trained by process {waiting.first.pid} on " in told
    assert told.endswith("; waiting for the result\n")
    run, told = waiting.second(*ONE, mode="RUN")
    assert f"uniform_64K_seed0 is being trained by process {waiting.first.pid} on " in told
    refused = ended(start(folder, *SWEEP, "model.optimizer.lr=1e-3"))
    assert refused.returncode == 2
    assert "with another config (model.optimizer.lr: 0.002, not 0.001)" in refused.stderr
    os.killpg(waiting.first.pid, signal.SIGCONT)
    assert [ended(process).returncode for process in (waiting.first, sweep, run)] == [0, 0, 0]
    assert parts_of(folder) == dict.fromkeys(parts_of(once), 1)
    assert table_of(folder) == table_of(once)


def test_the_second_goes_on_with_what_a_killed_one_has_left(once: Path, start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    waiting = Waiting(start, folder)
    sweep, told = waiting.second(*SWEEP)
    assert "is being trained by" in told
    os.killpg(waiting.first.pid, signal.SIGKILL)
    assert ended(sweep).returncode == 0
    assert parts_of(folder) == dict.fromkeys(parts_of(once), 1) | dict.fromkeys(waiting.names, 2)
    assert table_of(folder) == table_of(once)


def test_a_run_that_failed_for_the_first_is_not_tried_again_by_the_second(start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    diverging = [*ONE, "model.optimizer.lr=1e12"]
    first = start(folder, *diverging, mode="RUN")
    wait_for(first, lambda: list(folder.glob("runs/*/.holder.json")))
    os.killpg(first.pid, signal.SIGSTOP)
    second = start(folder, *diverging, mode="RUN")
    assert second.stdout is not None
    second.stdout.readline()
    assert "is being trained by process" in second.stdout.readline()
    os.killpg(first.pid, signal.SIGCONT)
    assert ended(first).returncode == 2
    done = ended(second)
    assert done.returncode == 2
    assert "error: another process trained uniform_64K_seed0, which failed: DivergedError: the " in done.stderr
    assert parts_of(folder) == {"uniform_64K_seed0": 1}
