"""The state of every run in a sweep's folder, read from the files of the runs, on any machine."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autoscale_exp.runs.identity import IDENTITY
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure, read_record
from autoscale_exp.runs.sweep_file import SWEEP_FILE, read_sweep_file
from autoscale_exp.training.claim import holder, read_holder, wait_to_hear
from autoscale_exp.training.plan import RESUME_POINT
from autoscale_exp.training.progress_file import read_progress

IDLE_SECONDS = 60  # without progress, after which a run's note says so


class State(StrEnum):
    """The state of a run."""

    FINISHED = "finished"
    RUNNING = "running"
    FAILED = "failed"  # it ended with an error
    DIED = "died"  # its process has gone without a word
    STOPPED = "stopped"  # it was told to end
    MISSING = "missing"  # nobody has begun it


@dataclass(frozen=True)
class RunState:
    """A run as it is now.

    Attributes:
        name: name of the run.
        state: its state.
        tokens: tokens trained on so far.
        total_tokens: tokens to train on; None if unknown.
        tokens_per_second: pace of a run that is finished or running; else None.
        loss: nats per token; the mean over validation domains of a finished run, else that of the last training batch.
        note: a sentence on the run, or ''.
    """

    name: str
    state: State
    tokens: int
    total_tokens: int | None
    tokens_per_second: float | None = None
    loss: float | None = None
    note: str = ""

    @property
    def seconds_left(self) -> float:
        """Seconds until a run in progress is finished, at its pace so far; NaN for other runs."""
        if self.state != State.RUNNING or not self.tokens_per_second or self.total_tokens is None:
            return math.nan
        return (self.total_tokens - self.tokens) / self.tokens_per_second


def sweeps_in(folder: Path) -> Iterator[Path]:
    """Yields the folders of sweeps: this one if it is one, and those below, as a study has them."""
    for place, names, files in os.walk(folder):
        if "runs" in names or SWEEP_FILE in files:
            yield Path(place)
        names[:] = sorted(name for name in names if name != "runs" and not name.startswith("."))


def states_of(sweep: Path) -> list[RunState]:
    """Returns the state of every run that a sweep has or will have, in the order in which they are launched.

    This takes some seconds if a run seems to be trained on another machine, until its heartbeat is heard.

    Raises:
        UserError: a file is damaged.
    """
    planned = read_sweep_file(sweep).tokens
    there = sorted(path.name for path in sweep.glob("runs/[!.]*/"))
    names = [*planned, *(name for name in there if name not in planned)]
    wait_to_hear(sweep / "runs" / name for name in names)
    return [_state_of(sweep / "runs" / name, planned.get(name)) for name in names]


def _state_of(folder: Path, planned_tokens: int | None) -> RunState:
    if is_recorded(folder):
        record = read_record(folder)
        tokens, mean_loss = sum(record.tokens.values()), sum(record.losses.values()) / len(record.losses)
        return RunState(folder.name, State.FINISHED, tokens, tokens, record.tokens_per_second, mean_loss)
    held, last, progress = holder(folder), read_holder(folder), read_progress(folder)
    tokens, total = (progress.tokens, progress.total_tokens) if progress else (0, planned_tokens)
    loss = progress.train_loss if progress else None
    if held:
        idle = f"; no progress for {held.idle_seconds / 60:.0f} min" if held.idle_seconds >= IDLE_SECONDS else ""
        rate = progress.tokens_per_second if progress else None
        return RunState(folder.name, State.RUNNING, tokens, total, rate, loss, f"process {_named(held.process)}{idle}")
    if (folder / FAILURE).exists():
        return RunState(folder.name, State.FAILED, tokens, total, None, loss, read_failure(folder).splitlines()[0])
    kept = "has a checkpoint" if (folder / RESUME_POINT).exists() else "has no checkpoint"
    if last:
        return RunState(folder.name, State.DIED, tokens, total, None, loss, f"process {_named(last.process)}; {kept}")
    if (folder / IDENTITY).exists():
        return RunState(folder.name, State.STOPPED, tokens, total, None, loss, kept)
    return RunState(folder.name, State.MISSING, 0, total)


def _named(process: str) -> str:
    return process.replace("@", " on ")


def rate_of(runs: Sequence[RunState]) -> float:
    """Tokens per second of all runs in progress together."""
    return sum(run.tokens_per_second or 0 for run in runs if run.state == State.RUNNING)


def seconds_left(runs: Sequence[RunState]) -> float:
    """Seconds until all runs are finished, at the pace of those in progress; NaN if there are none, or if unknown."""
    rate = rate_of(runs)
    left = [math.nan if run.total_tokens is None else run.total_tokens - run.tokens for run in runs]
    return sum(left) / rate if rate else math.nan
