"""What the folder of a sweep tells of its runs, and how `status` shows it."""

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autoscale_exp import status
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.record import write_failure, write_record
from autoscale_exp.runs.sweep_file import plan_runs
from autoscale_exp.training import claim
from autoscale_exp.training.claim import Holder, claimed, holder
from autoscale_exp.training.registry import State, states_of
from tests.runs.records import make_record

HERE = socket.gethostname()
PROGRESS = {"tokens": 250, "total_tokens": 1000, "tokens_per_second": 50.0, "train_loss": 3.5}


def hold(folder: Path, process: str, **beats: int) -> Holder:
    """Writes what the holder of a run has told last."""
    folder.mkdir(parents=True, exist_ok=True)
    told = Holder(process, process, "2026-01-01 00:00:00", **beats)
    (folder / ".holder.json").write_text(json.dumps(asdict(told)))
    return told


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    write_record(runs / "done", make_record("done", store="store"))
    hold(runs / "killed", f"1@{HERE}")
    (runs / "killed" / "resume.ckpt").touch()
    write_failure(runs / "broken", "broken", UserError("no text\nat all"))
    (runs / "told_to_end").mkdir()
    (runs / "told_to_end" / "identity.json").touch()
    plan_runs(tmp_path, {"never": 1000, "done": 900, "killed": 1000})
    return tmp_path


def test_each_run_has_its_state_in_the_order_of_the_sweep(sweep: Path):
    with claimed(sweep / "runs" / "here"):
        (sweep / "runs" / "here" / "progress.json").write_text(json.dumps(PROGRESS))
        states = {run.name: run for run in states_of(sweep)}
    assert {name: run.state for name, run in states.items()} == {
        "never": State.MISSING,
        "done": State.FINISHED,
        "killed": State.DIED,
        "broken": State.FAILED,
        "here": State.RUNNING,
        "told_to_end": State.STOPPED,
    }
    assert list(states)[:3] == ["never", "done", "killed"]
    assert states["killed"].note == f"process 1 on {HERE}; has a checkpoint"
    assert states["broken"].note == "UserError: no text"
    assert states["here"].note == f"process {os.getpid()} on {HERE}"
    assert (states["here"].tokens, states["here"].total_tokens, states["here"].seconds_left) == (250, 1000, 15.0)
    assert (states["never"].tokens, states["never"].total_tokens) == (0, 1000)


def test_clocks_that_jump_change_no_state(sweep: Path):
    before = states_of(sweep)
    for years in (-30, 30):
        for path in sweep.rglob("*"):
            os.utime(path, (1.7e9 + years * 3e7, 1.7e9 + years * 3e7))
        assert states_of(sweep) == before


@pytest.mark.parametrize(("beats", "state"), [(True, State.RUNNING), (False, State.DIED)])
def test_a_run_on_another_machine_is_running_as_long_as_its_heart_beats(beats, state, tmp_path: Path, monkeypatch):
    folder = tmp_path / "runs" / "far"
    told = hold(folder, "7@elsewhere", beat=3)
    monkeypatch.setattr(claim, "SILENT_SECONDS", 0.5)
    ended = threading.Event()

    def beat() -> None:
        number = told.beat
        while not ended.wait(0.05):
            number += beats
            with suppress(OSError):
                claim.atomic.write_json(folder / ".holder.json", asdict(replace(told, beat=number)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        (run,) = states_of(tmp_path)
        assert (run.state, run.note.partition(";")[0]) == (state, "process 7 on elsewhere")
    finally:
        ended.set()
        thread.join()


def test_a_run_whose_machine_has_died_is_taken_over(tmp_path: Path, monkeypatch):
    hold(tmp_path, "7@elsewhere", beat=3)
    monkeypatch.setattr(claim, "SILENT_SECONDS", 0.3)
    with claimed(tmp_path):
        found = holder(tmp_path)
        assert found is not None
        assert found.is_here


def test_the_heart_of_a_run_beats_and_counts_the_beats_without_progress(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.02)
    with claimed(tmp_path):
        while (found := holder(tmp_path)) is None or found.beat < 4:
            pass
        assert found.idle_beats == found.beat
        (tmp_path / "progress.json").touch()
        while found.idle_beats >= found.beat:
            found = holder(tmp_path) or found
    assert holder(tmp_path) is None


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    monkeypatch.setattr(sys, "argv", ["status", *overrides])
    status.main()
    return capsys.readouterr().out


def test_status_shows_a_study_sweep_by_sweep(sweep: Path, capsys, monkeypatch):
    write_record(sweep / "targets" / "runs" / "uniform", make_record("uniform", store="store"))
    before = sorted(sweep.rglob("*"))
    lines = shown(capsys, monkeypatch, f"sweep={sweep}").splitlines()
    assert lines[0] == f"{sweep}: 5 runs, 1 finished, 1 failed, 1 died, 1 stopped, 1 missing"
    assert lines[1].split() == ["run", "state", "of", "tokens", "tokens/s", "loss", "left"]
    assert lines[2].split() == ["never", "missing", "0%", "of", "1K"]
    assert lines[-3] == f"{sweep / 'targets'}: 1 runs, 1 finished"
    assert sorted(set(sweep.rglob("*")) - set(before)) in ([], [sweep / "runs" / "killed" / ".lock"])


def test_status_watches_until_all_is_finished(tmp_path: Path, capsys, monkeypatch):
    write_record(tmp_path / "runs" / "done", make_record("done", store="store"))
    plan_runs(tmp_path, {"last": 900})
    finish = threading.Timer(0.3, lambda: write_record(tmp_path / "runs" / "last", make_record("last", store="store")))
    finish.start()
    told = shown(capsys, monkeypatch, f"sweep={tmp_path}", "watch=true", "seconds=0.1")
    assert "2 runs, 2 finished" in told


def test_status_of_a_folder_without_runs_is_refused(refused, tmp_path: Path):
    assert refused("status", f"sweep={tmp_path}") == (
        f"sweep is '{tmp_path}', which has no runs; give the folder of a sweep or of a study"
    )


def test_a_damaged_sweep_file_is_named(tmp_path: Path):
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep.json' is damaged .*; delete it; the sweep's command writes it anew"):
        states_of(tmp_path)
