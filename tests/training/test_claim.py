"""A run is trained by one process at a time."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.record import write_failure
from autoscale_exp.train import train_once
from autoscale_exp.training.claim import SWEEP, claimed, end_workers, holder
from autoscale_exp.training.plan import plan_run

CLAIM = """
import sys
from pathlib import Path

from autoscale_exp.training.claim import claimed

with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works for no sweep, whatever a test before has swept in it."""
    monkeypatch.delenv(SWEEP, raising=False)


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has claimed a run, until its input ends."""
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_no_one_trains_has_no_holder(tmp_path: Path):
    assert holder(tmp_path / "nowhere") is None
    with claimed(tmp_path / "run"):
        pass
    assert holder(tmp_path / "run") is None


def test_the_holder_is_named_with_its_host_and_its_time(other, tmp_path: Path):
    found = holder(tmp_path)
    assert found is not None
    assert found.process == f"{other.pid}@{socket.gethostname()}"
    assert str(found) == f"process {other.pid} on {socket.gethostname()} since {found.since}"


@pytest.mark.parametrize("ending", ["as it should", "killed"])
def test_a_claim_waits_for_the_one_before_however_that_ends(ending, other, tmp_path: Path):
    got = threading.Event()

    def claim() -> None:
        with claimed(tmp_path):
            got.set()

    waiting = threading.Thread(target=claim, daemon=True)
    waiting.start()
    assert not got.wait(0.3)
    if ending == "killed":
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    else:
        other.communicate()
    assert got.wait(60)
    waiting.join()
    assert holder(tmp_path) is None


def test_the_name_of_a_killed_holder_does_not_count(other, tmp_path: Path):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert list(tmp_path.glob(".holder.json"))
    assert holder(tmp_path) is None


def test_a_holder_of_another_command_is_not_told_to_end(other, tmp_path: Path):
    end_workers([tmp_path])
    assert other.poll() is None
    assert holder(tmp_path) is not None


def test_a_worker_is_told_to_end_and_waited_for(tmp_path: Path):
    environment = os.environ | {"AUTOSCALE_EXP_SWEEP": f"{os.getpid()}@{socket.gethostname()}"}
    worker = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "claimed\n"
    end_workers([tmp_path])
    assert holder(tmp_path) is None
    worker.communicate()
    assert worker.returncode == -signal.SIGTERM


def test_a_run_that_failed_in_another_process_meanwhile_is_not_tried_again(compose_train, store, tmp_path: Path):
    folder = tmp_path / "runs" / "run"
    write_failure(folder, "run", UserError("no text"))
    with pytest.raises(UserError, match=r"another process trained run, which failed: UserError: no text"):
        train_once(plan_run(compose_train(), store), folder)
