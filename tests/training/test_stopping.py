"""A run, or a sweep, that a signal ends keeps what it has and says so in one line."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from autoscale_exp.base.stopping import Stopped
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.runs.record import read_record
from autoscale_exp.training import sweep
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train
from tests.training.processes import LOCAL, LONG, Start, ended, wait_for

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def send(process, signum: int, to: str) -> None:
    if to == "group":  # as a terminal does with Ctrl-C, and a scheduler with SIGTERM
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)


def running(folder: Path, count: int = 1) -> list[Path]:
    """The folders of the runs in progress, once there are `count`."""
    found = [path.parent for path in folder.glob("out/runs/*/progress.json")]
    return found if len(found) == count else []


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("moment", ["on_train_batch_start", "on_train_batch_end"])
def test_a_run_is_stopped_at_any_moment_of_a_step_and_ends_as_if_it_had_not(
    moment, accumulation, signum, code, compose_train, store: TokenStore, tmp_path: Path, monkeypatch
):
    plan = plan_run(compose_train(f"micro_batch_rows={8 // accumulation}", "num_validations=4"), store)
    train(plan, tmp_path / "whole")

    def stop(module, *_) -> None:
        if module.trainer.global_step == 5:
            monkeypatch.undo()
            signal.raise_signal(signum)

    # Called after all callbacks, so the end of a batch is after the last look at the signal and before Lightning's own.
    monkeypatch.setattr(CausalLanguageModel, moment, stop)
    with pytest.raises(Stopped) as stopped:
        train(plan, tmp_path / "parts")
    assert stopped.value.code == code
    assert (tmp_path / "parts" / "resume.ckpt").exists()
    assert not (tmp_path / "parts" / "result.json").exists()
    train(plan, tmp_path / "parts")
    whole, parts = (read_record(tmp_path / name) for name in ("whole", "parts"))
    assert parts.validation_curve == whole.validation_curve
    assert parts.tokens == whole.tokens


def test_a_run_that_is_stopped_in_its_last_step_is_finished(compose_train, store: TokenStore, tmp_path, monkeypatch):
    def stop(module, *_) -> None:
        if module.trainer.global_step == 11:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(CausalLanguageModel, "on_train_batch_start", stop)
    with pytest.raises(Stopped):
        train(plan_run(compose_train(), store), tmp_path)
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / "resume.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code", "to"), [(signal.SIGINT, 130, "process"), (signal.SIGTERM, 143, "group")])
def test_a_run_that_is_told_to_end_says_that_it_has_a_checkpoint(signum, code, to, start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "num_workers=1", mode="RUN")
    (folder,) = wait_for(process, lambda: running(tmp_path))
    send(process, signum, to)
    done = ended(process)
    assert done.returncode == code
    assert re.fullmatch(
        rf"stopped: {folder.name} has a checkpoint of [0-9:]{{8}}; the same command goes on from there\n", done.stderr
    )
    assert "Traceback" not in done.stdout
    assert (folder / "resume.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_told_to_end_has_a_checkpoint_of_every_run_in_progress(
    signum, code, start: Start, tmp_path: Path
):
    process = start(tmp_path / "out", *LONG, "seed=0,1,2", *LOCAL)
    wait_for(process, lambda: running(tmp_path, 2))
    send(process, signum, "group")
    done = ended(process)  # all of its processes have let go of the pipe
    assert done.returncode == code
    assert done.stderr == (
        "stopped: 0 of 3 runs are finished and 2 have a checkpoint (uniform_4M_seed0, uniform_4M_seed1); "
        "the same command goes on from there\n"
    )
    assert "Traceback" not in done.stdout
    assert len(list(tmp_path.glob("out/runs/*/resume.ckpt"))) == 2


@pytest.mark.slow
def test_a_sweep_in_one_process_ends_with_the_run_that_is_told_to(start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "seed=0,1")
    wait_for(process, lambda: running(tmp_path))
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.returncode == 130
    assert done.stderr == (
        "stopped: 0 of 2 runs are finished and 1 has a checkpoint (uniform_4M_seed0); "
        "the same command goes on from there\n"
    )


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_ends_its_sweep(start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "seed=0,1", *LOCAL)
    folder = wait_for(process, lambda: running(tmp_path, 2))[0]
    found = sweep.holder(folder)
    assert found is not None
    os.kill(int(found.process.split("@")[0]), signal.SIGTERM)
    done = ended(process)
    assert done.returncode == 143
    assert "0 of 2 runs are finished and 2 have a checkpoint" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_that_is_stopped_before_its_first_run_says_that_nothing_is_there(start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "seed=0,1", *LOCAL)
    assert process.stdout is not None
    assert process.stdout.readline() == "2 runs; 8.00M tokens to train on\n"
    os.killpg(process.pid, signal.SIGINT)
    done = ended(process)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == (
        "stopped: 0 of 2 runs are finished and no other has a checkpoint; the same command goes on from there\n"
    )


def test_a_second_ctrl_c_does_not_wait_for_the_workers(monkeypatch):
    callback = sweep.SweepCallback()
    callback._watch = sweep.SweepWatch([])
    waited = []

    def wait(_) -> None:
        callback._stop(signal.SIGTERM, None)  # from a worker that ends
        waited.append("for a while")
        callback._stop(signal.SIGINT, None)
        waited.append("to the end")

    monkeypatch.setattr(sweep, "end_workers", wait)
    with pytest.raises(Stopped) as stopped:
        callback._stop(signal.SIGTERM, None)
    assert waited == ["for a while"]
    assert stopped.value.code == 130


@pytest.mark.slow
def test_workers_end_with_a_sweep_that_is_killed(start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "seed=0,1", *LOCAL)
    (progress,) = wait_for(process, lambda: list(tmp_path.glob("out/runs/*/progress.json"))[:1])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # until the last of its workers has let go of the pipe
    before = progress.stat().st_mtime_ns
    time.sleep(2)
    assert progress.stat().st_mtime_ns == before
