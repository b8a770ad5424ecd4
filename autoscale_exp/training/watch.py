"""The display of a sweep, or of a single run, while it is trained.

Runs are watched through the files in their folders. So a launcher may put them into any process, on any machine with
the same file system.
"""

import math
import os
import shlex
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from autoscale_exp.base.labels import short_duration
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure, read_record
from autoscale_exp.training.claim import holder, this_command
from autoscale_exp.training.plan import RESUME_POINT, RunPlan
from autoscale_exp.training.progress_file import RunProgress, read_progress

LOOK_SECONDS = 0.5
MOST_NAMES = 4  # names of runs in a line


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        plan: the plan of the run.
        folder: where the run writes.
        overrides: overrides with which `train` trains this run.
        finished: whether its result was there when the sweep started.
    """

    plan: RunPlan
    folder: Path
    overrides: list[str]
    finished: bool

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.plan.conf.run_name

    @property
    def num_tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.plan.sampler.num_rows * self.plan.store.seq_len

    @property
    def command(self) -> str:
        """The command that trains this run alone."""
        return shlex.join(["python", "-m", "autoscale_exp.train", *self.overrides, "hydra.mode=RUN"])


class SweepWatch:
    """Follows the runs of a sweep from a thread of its own: a line per finished run, and on a terminal a live table.

    Args:
        runs: the runs to follow.
        fail_fast: whether the first run that fails ends this process, as SIGTERM does.

    Attributes:
        current: the watch of this process; None if it has none.
        failed: name of the run whose failure ended this process; else None.
    """

    current: ClassVar["SweepWatch | None"] = None

    def __init__(self, runs: list[PlannedRun], *, fail_fast: bool = False) -> None:
        self.runs = runs
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._training: tuple[float, int] | None = None  # since when a run trains, and tokens that were done then
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._ended = {run.name for run in runs if run.finished}
        self._width = max([24, *(len(run.name) for run in runs)])
        self._num_tokens = sum(run.num_tokens for run in runs if not run.finished)
        self._done_tokens = 0
        self._known_commands = {this_command()}
        self._fail_fast = fail_fast
        self.failed: str | None = None
        SweepWatch.current = self

    def __enter__(self) -> Self:
        """Says what is to be done, and begins to watch."""
        skipped = f", {len(self._ended)} finished before" if self._ended else ""
        count = f"{len(self.runs)} runs" if len(self.runs) > 1 else self.runs[0].name
        self.say(f"{count}{skipped}; {self._num_tokens / 1e6:.2f}M tokens to train on")
        self._tell_of_others()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Looks a last time, and ends the watch."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False)

    def kept(self) -> str:
        """Says what is there of the runs once they are stopped."""
        return f"{self.failed} failed, and fail_fast is true; {self._kept()}" if self.failed else self._kept()

    def _kept(self) -> str:
        finished = [run for run in self.runs if is_recorded(run.folder)]
        begun = [run for run in self.runs if run not in finished and (run.folder / RESUME_POINT).exists()]
        if len(self.runs) == 1 and begun:
            written = time.localtime((begun[0].folder / RESUME_POINT).stat().st_mtime)
            return (
                f"{begun[0].name} has a checkpoint of {time.strftime('%H:%M:%S', written)}; "
                "the same command goes on from there"
            )
        if len(self.runs) == 1:
            state = "is finished" if finished else "has no checkpoint; the same command starts it anew"
            return f"{self.runs[0].name} {state}"
        names = [run.name for run in begun[:MOST_NAMES]] + ["..."] * (len(begun) > MOST_NAMES)
        have = "has" if len(begun) == 1 else "have"
        checkpoints = f"{len(begun)} {have} a checkpoint ({', '.join(names)})" if begun else "no other has a checkpoint"
        return (
            f"{len(finished)} of {len(self.runs)} runs are finished and {checkpoints}; "
            "the same command goes on from there"
        )

    def _follow(self) -> None:
        if not self._console.is_terminal:
            while not self._stopping.wait(LOOK_SECONDS):
                self._report_ended()
                self._tell_of_others()
            self._report_ended()
            return
        with Live(console=self._console, refresh_per_second=2, transient=True) as live:
            while not self._stopping.wait(LOOK_SECONDS):
                self._report_ended()
                self._tell_of_others()
                live.update(self._table())
            self._report_ended()

    def _tell_of_others(self) -> None:
        """Says a line for each other command that trains some of the runs."""
        waiting = [run for run in self.runs if run.name not in self._ended]
        held = [(found, run.name) for run in waiting if (found := holder(run.folder))]
        for command in {found.command for found, _ in held} - self._known_commands:
            self._known_commands.add(command)
            names = [name for found, name in held if found.command == command]
            other = next(found for found, _ in held if found.command == command)
            subject = f"{names[0]} is" if len(names) == 1 else f"{len(names)} of the runs are"
            self.say(f"{subject} being trained by {other}; waiting for the result")

    def _report_ended(self) -> None:
        if self._training is None and (running := self._running()):
            self._training = time.monotonic(), sum(progress.tokens for _, progress in running)
        for run in self.runs:
            if run.name in self._ended:
                continue
            if is_recorded(run.folder):
                self._ended.add(run.name)
                self._done_tokens += run.num_tokens
                record = read_record(run.folder)
                loss = sum(record.losses.values()) / len(record.losses)
                self._say_ended(run, f"mean loss {loss:.4f} nats  {record.tokens_per_second:>9,.0f} tokens/s")
            elif (run.folder / FAILURE).exists() and not holder(run.folder):  # else it is tried again
                self._ended.add(run.name)
                self._num_tokens -= run.num_tokens
                self._say_ended(run, f"failed: {read_failure(run.folder).splitlines()[0]} ")
                if self._fail_fast and not self.failed:
                    self.failed = run.name
                    os.kill(os.getpid(), signal.SIGTERM)

    def _say_ended(self, run: PlannedRun, what: str) -> None:
        count = f"[{len(self._ended):>{len(str(len(self.runs)))}}/{len(self.runs)}]"
        times = f"{short_duration(time.monotonic() - self._started)} gone, {short_duration(self._seconds_left())} left"
        self._console.print(f"{count} {run.name:<{self._width}} {what}  {times}", markup=False)

    def _running(self) -> list[tuple[PlannedRun, RunProgress]]:
        """The runs in progress, each with its progress."""
        trained = [run for run in self.runs if run.name not in self._ended and holder(run.folder)]
        return [(run, progress) for run in trained if (progress := read_progress(run.folder))]

    def _seconds_left(self) -> float:
        """Seconds until all runs are finished, at the pace since the first began to train; NaN before."""
        tokens = self._done_tokens + sum(progress.tokens for _, progress in self._running())
        started, before = self._training or (math.nan, 0)
        if tokens <= before:
            return math.nan
        return (time.monotonic() - started) * (self._num_tokens - tokens) / (tokens - before)

    def _table(self) -> Table:
        """The live table: the runs in progress, and their total."""
        table = Table.grid("", "", "", "", padding=(0, 2))
        rate, tokens = 0.0, self._done_tokens
        for run, progress in self._running():
            rate, tokens = rate + progress.tokens_per_second, tokens + progress.tokens
            bar = ProgressBar(progress.total_tokens, progress.tokens, width=24)
            pace = f"{progress.tokens_per_second:,.0f} tokens/s"
            table.add_row(run.name, bar, pace, f"loss {progress.train_loss:.3f}")
        left = short_duration(self._seconds_left())
        whole = ProgressBar(self._num_tokens, tokens, width=24)
        table.add_row(f"{len(self._ended)} of {len(self.runs)} runs", whole, f"{rate:,.0f} tokens/s", f"{left} left")
        return table


def what_is_kept() -> str:
    """Says what this process leaves behind when it is stopped."""
    if SweepWatch.current is None:
        return "nothing was begun; the same command starts anew"
    SweepWatch.current.close()
    return SweepWatch.current.kept()
