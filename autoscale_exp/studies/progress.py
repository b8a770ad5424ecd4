"""Carries out the stages of a study, each in a process of its own, and keeps account of what is finished."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import Stopped
from autoscale_exp.reporting.next_steps import IN_STUDY
from autoscale_exp.runs.study_file import StudyFile, read_study, write_study
from autoscale_exp.studies.commands import Command
from autoscale_exp.studies.stages import Stage


class StudyProgress:
    """The account of the stages of a study.

    Args:
        folder: folder of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = read_study(folder)

    def unfinished(self, stages: Collection[Stage]) -> list[Stage]:
        """The stages to carry out: not finished by the same command and code, or reading the result of such a stage."""
        open_stages: dict[str, Stage] = {}
        for stage in stages:
            same = self._file.finished.get(stage.name) == stage.account
            if not same or not stage.result.exists() or any(read in open_stages for read in stage.reads):
                open_stages[stage.name] = stage
        return list(open_stages.values())

    def expect(self, searches: dict[str, list[str]]) -> None:
        """Notes which folders hold the runs that each rival's mixture is found with."""
        self._write(replace(self._file, searches=searches))

    def carry_out(self, stage: Stage) -> None:
        """Runs a stage and notes that it is finished.

        Raises:
            UserError: the stage failed.
            Stopped: a signal came, which the stage also got.
        """
        self._write(replace(self._file, finished={k: v for k, v in self._file.finished.items() if k != stage.name}))
        code = run_command(stage.command)
        if code or not stage.result.exists():
            raise UserError(
                f"the stage '{stage.name}' ended with exit code {code}, see above; once that is put right, the study's "
                f"command goes on from here (this stage alone: {stage.command.text})"
            )
        self._write(replace(self._file, finished={**self._file.finished, stage.name: stage.account}))

    def _write(self, file: StudyFile) -> None:
        if file != self._file:
            write_study(self.folder, file)
            self._file = file


def run_command(command: Command) -> int:
    """Runs a command to its end and returns its exit code.

    The command is not in the terminal's foreground job, so that it gets a signal only once, from here.

    Raises:
        Stopped: a signal came; the command has ended.
    """
    environment = os.environ | {IN_STUDY: "1"} if command.job != "report" else None  # its next step is also the study's
    process = subprocess.Popen([sys.executable, *command.arguments], env=environment, start_new_session=True)
    try:
        return process.wait()
    except Stopped as stopped:
        process.send_signal(stopped.code - 128 if isinstance(stopped.code, int) else signal.SIGTERM)
        process.wait()
        raise
