import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import Stopped, handle_signals, stop_at
from autoscale_exp.reporting.next_steps import IN_STUDY
from autoscale_exp.runs.study_file import STUDY
from autoscale_exp.studies import progress as progress_module
from autoscale_exp.studies.commands import Command
from autoscale_exp.studies.progress import StudyProgress
from autoscale_exp.studies.stages import Stage


class Script(Command):
    """A Python script in the place of a job."""

    @property
    def arguments(self) -> list[str]:
        return ["-c", *self.overrides]


def writing(path: Path, text: str = "") -> Script:
    return Script("script", [f"import sys; open({str(path)!r}, 'a').write('x'); {text}"])


@pytest.fixture
def stages(tmp_path: Path) -> list[Stage]:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    return [
        Stage("first", writing(first), first),
        Stage("second", writing(second), second, ["first"]),
        Stage("third", writing(third), third),
    ]


def carried_out(folder: Path, stages: list[Stage]) -> list[str]:
    progress = StudyProgress(folder)
    left = progress.unfinished(stages)
    for stage in left:
        progress.carry_out(stage)
    return [stage.name for stage in left]


def test_a_finished_stage_is_skipped(tmp_path: Path, stages: list[Stage]):
    assert carried_out(tmp_path, stages) == ["first", "second", "third"]
    assert carried_out(tmp_path, stages) == []


def test_another_command_is_carried_out_with_all_that_reads_its_result(tmp_path: Path, stages: list[Stage]):
    carried_out(tmp_path, stages)
    changed = replace(stages[0], command=writing(stages[0].result, "pass"))
    assert carried_out(tmp_path, [changed, *stages[1:]]) == ["first", "second"]


def test_other_code_makes_a_result_anew_with_all_that_reads_it(tmp_path: Path, stages: list[Stage]):
    carried_out(tmp_path, stages)
    changed = replace(stages[0], code="another version")
    assert carried_out(tmp_path, [changed, *stages[1:]]) == ["first", "second"]
    assert carried_out(tmp_path, [changed, *stages[1:]]) == []


def test_stages_are_not_told_what_comes_next_but_the_report_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(IN_STUDY, raising=False)
    for job in ("fit", "report"):
        told = f"from autoscale_exp.reporting.next_steps import tell_next; tell_next(print, 'next: {job}')"
        command = Script(job, [f"import sys; sys.stdout = open({str(tmp_path / job)!r}, 'w'); {told}"])
        progress_module.run_command(command)
    assert (tmp_path / "fit").read_text() == ""
    assert (tmp_path / "report").read_text() == "next: report\n"


def test_a_result_that_is_gone_is_made_again(tmp_path: Path, stages: list[Stage]):
    carried_out(tmp_path, stages)
    stages[2].result.unlink()
    assert carried_out(tmp_path, stages) == ["third"]


def test_a_stage_that_fails_ends_the_study_and_is_done_again(tmp_path: Path, stages: list[Stage]):
    failing = replace(stages[1], command=writing(stages[1].result, "sys.exit(3)"))
    with pytest.raises(UserError, match="the stage 'second' ended with exit code 3"):
        carried_out(tmp_path, [stages[0], failing, stages[2]])
    assert carried_out(tmp_path, [stages[0], failing.__class__(**vars(stages[1])), stages[2]]) == ["second", "third"]


def test_a_stage_that_leaves_no_result_has_failed(tmp_path: Path):
    with pytest.raises(UserError, match="ended with exit code 0"):
        carried_out(tmp_path, [Stage("empty", Script("script", ["pass"]), tmp_path / "nothing")])


def test_a_stage_that_is_done_again_is_not_finished_meanwhile(tmp_path: Path, stages: list[Stage]):
    carried_out(tmp_path, stages)
    look = f"print(open({str(tmp_path / STUDY)!r}).read())"
    looking = replace(
        stages[2], command=Script("script", [f"open({str(tmp_path / 'seen')!r}, 'w').write({look[6:-1]})"])
    )
    carried_out(tmp_path, [*stages[:2], looking])
    assert "third" not in json.loads((tmp_path / "seen").read_text())["finished"]


def test_a_signal_reaches_the_stage_once_and_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ended = tmp_path / "ended"
    text = f"""
import signal, time
def end(signum, frame):
    time.sleep(.3)
    open({str(ended)!r}, "a").write(f"{{signum}} ")
    raise SystemExit(143)
signal.signal(signal.SIGTERM, end)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(60)
"""
    sender = f"""
import os, signal, time
while not os.path.exists({str(tmp_path / "ready")!r}):
    time.sleep(.05)
os.kill({os.getpid()}, signal.SIGTERM)
"""
    before = signal.getsignal(signal.SIGTERM)
    handle_signals(stop_at)
    try:
        with subprocess.Popen([sys.executable, "-c", sender]), pytest.raises(Stopped) as stopped:
            progress_module.run_command(Script("script", [text]))
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert stopped.value.code == 143
    assert ended.read_text() == f"{signal.SIGTERM.value} "
