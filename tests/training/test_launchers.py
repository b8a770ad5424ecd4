"""Runs that fail, are killed, or wait for a device."""

import json
import os
import signal
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from autoscale_exp import train as job
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.processes import ProcessDied, WorkProcess
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.record import read_failure
from autoscale_exp.training.plan import plan_run
from hydra_plugins.autoscale_exp_launcher.processes import Job, ProcessLauncher
from tests.training.fake_runs import die_once, hang_once, use
from tests.training.processes import LOCAL, LONG, Start, ended, parts_of, wait_for


class FakeRuns(ProcessLauncher):
    """The launcher with other work than training: overrides are those of no config."""

    folder: Path

    def _job(self, index, overrides):
        what, number = overrides
        return Job(index, [what], self.folder / str(index), number if what == "use" else 1, number)

    def _start(self, job, devices):
        function, arguments = {
            "use": (use, [devices, self.folder, 0.05]),
            "die": (die_once, [self.folder]),
            "hang": (hang_once, [job.folder]),
        }[job.overrides[0]]
        return WorkProcess(function, arguments, environment=os.environ, preload="json")


def launched(folder: Path, *jobs: tuple[str, int | None], hang_minutes: float | None = None) -> list[JobStatus]:
    launcher = FakeRuns(devices=[0, 1, "GPU-5"], hang_minutes=hang_minutes)
    launcher.folder = folder
    return [returned.status for returned in launcher.launch(jobs, 0)]


def test_no_two_runs_have_the_same_device_at_a_time(tmp_path: Path):
    sizes = (1, 2, 3, 1, 2)
    assert launched(tmp_path, *(("use", size) for size in sizes)) == [JobStatus.COMPLETED] * 5
    assert not list(tmp_path.rglob("failed.json"))


def test_a_run_that_is_killed_is_tried_again_if_it_has_a_try_left(tmp_path: Path):
    (tmp_path / "a").mkdir()
    launched(tmp_path / "a", ("die", 1))
    assert not (tmp_path / "a" / "0" / "failed.json").exists()
    (tmp_path / "b").mkdir()
    launched(tmp_path / "b", ("die", 0), ("use", 1))
    assert "was killed by SIGKILL, as the system does when memory is short" in read_failure(tmp_path / "b" / "0")
    assert not (tmp_path / "b" / "1" / "failed.json").exists()


def test_a_job_that_keeps_no_word_of_its_failures_ends_the_others(tmp_path: Path):
    with pytest.raises(ProcessDied, match="was killed by SIGKILL"):
        launched(tmp_path, ("die", None))


def test_a_run_that_hangs_is_ended_and_tried_again_if_it_has_a_try_left(tmp_path: Path):
    launched(tmp_path, ("hang", 9), ("hang", 0), hang_minutes=0.05)
    assert not (tmp_path / "0" / "failed.json").exists()
    assert "it made no progress for 0.05 min, and was ended" in read_failure(tmp_path / "1")


@pytest.mark.parametrize(
    ("retries", "errors", "attempts", "raised"),
    [
        (2, [OSError("stale"), OSError("stale")], 3, None),
        (1, [OSError("stale"), OSError("gone")], 2, "gone"),
        (2, [UserError("no text")], 1, "no text"),
        (0, [OSError("stale")], 1, "stale"),
    ],
)
def test_a_run_is_tried_again_after_errors_that_are_not_the_configs(
    retries, errors, attempts, raised, compose_train, store: TokenStore, tmp_path: Path, monkeypatch
):
    done = []

    def attempt(*_) -> None:
        done.append(1)
        if len(done) <= len(errors):
            raise errors[len(done) - 1]

    monkeypatch.setattr(job, "train_here", attempt)
    monkeypatch.setattr(job, "refresh_run_table", lambda *_: None)
    plan = plan_run(compose_train(f"retries={retries}"), store)
    if raised:
        with pytest.raises(type(errors[-1]), match=raised):
            job.train_once(plan, tmp_path)
        assert raised in read_failure(tmp_path)
    else:
        job.train_once(plan, tmp_path)
    assert len(done) == attempts


@pytest.mark.slow
def test_a_sweep_that_fails_fast_ends_the_other_runs_with_their_checkpoints(start: Start, tmp_path: Path):
    runs = ["model.optimizer.lr=1e12,1e-3", "run_name=lr_${model.optimizer.lr}", "fail_fast=true"]
    done = ended(start(tmp_path / "out", *LONG, *runs))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "stopped: lr_1000000000000.0 failed, and fail_fast is true; 0 of 2 runs are finished and"
    )
    assert not list(tmp_path.glob("out/runs/*/result.json"))


@pytest.mark.slow
def test_a_sweep_goes_on_after_the_process_of_a_run_is_killed(start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    of_runs = ["token_budget=64_000", "max_epochs=100_000", "seed=0,1", "checkpoint_minutes=0.002"]
    process = start(folder, *LOCAL, "retries=1", *of_runs)
    (checkpoint,) = wait_for(process, lambda: list(folder.glob("runs/*seed0/resume.ckpt")))
    holder = json.loads((checkpoint.parent / ".holder.json").read_text())["process"]
    os.kill(int(holder.split("@")[0]), signal.SIGKILL)
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert parts_of(folder) == {"uniform_64K_seed0": 2, "uniform_64K_seed1": 1}
