import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.preparation import workers
from autoscale_exp.data.preparation.corpus import Part
from autoscale_exp.data.preparation.workers import ProgressDisplay, run_parts

ROOT = Path(__file__).parents[2]
MANY = 100_000  # reports, more than a pipe holds
PARTS = [Part(index, (), (), num_bytes=3 - index) for index in range(3)]


def fail_first(part, report, threads):
    """The first part fails while the others are at work."""
    report("web", 1)
    if part.index == 0:
        raise UserError("line at byte 7")
    for _ in range(MANY):
        report("web", 1)
    return True


def run_until_the_error() -> None:
    with pytest.raises(UserError, match="line at byte 7"), ProgressDisplay() as progress:
        run_parts(fail_first, PARTS, 2, progress)


def test_when_a_part_fails_the_others_are_left_and_the_job_ends():
    code = f"from {__name__} import run_until_the_error; run_until_the_error()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def test_parts_that_another_process_is_at_are_asked_for_again_ever_later(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr(workers.time, "sleep", waits.append)
    with ProgressDisplay() as progress:
        run_parts(lambda part, report, threads: part.index == 1 or len(waits) == 8, PARTS[:2], 1, progress)
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10]


def kill_first(part, report, threads):
    """The first part's process is killed, as by a machine that runs out of memory."""
    if part.index == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def test_a_worker_that_is_killed_is_told_with_the_way_out():
    remedy = "run the same command again with fewer num_workers: it goes on where it stopped"
    with pytest.raises(UserError, match=f"a worker process was killed, .*; {remedy}"), ProgressDisplay() as progress:
        run_parts(kill_first, PARTS, 2, progress)
