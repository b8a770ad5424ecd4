"""The state of every run in a sweep's folder, as the files of the runs tell it on whichever machine."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autoscale_exp.runs.identity import IDENTITY
from autoscale_exp.runs.record import FAILURE, PROGRESS, is_recorded, read_failure, read_record
from autoscale_exp.runs.sweep_file import SWEEP_FILE, read_sweep_file
from autoscale_exp.training.claim import holder, read_holder, wait_to_hear
from autoscale_exp.training.plan import RESUME_POINT

IDLE_SECONDS = 60  # without progress, that are worth a word


class State(StrEnum):
    """What becomes of a run."""

    FINISHED = "finished"
    RUNNING = "running"
    FAILED = "failed"  # it ended with an error
    DIED = "died"  # its process has gone without a word
    STOPPED = "stopped"  # it was told to end
    MISSING = "missing"  # nobody has begun it


@dataclass(frozen=True)
class Progress:
    """What a run tells of itself while it is trained.

    Attributes:
        tokens: trained on so far.
        total_tokens: to train on.
        tokens_per_second: since the run was last started.
        train_loss: nats per token, of the last batch.
    """

    tokens: int
    total_tokens: int
    tokens_per_second: float
    train_loss: float


@dataclass(frozen=True)
class RunState:
    """A run as it is now.

    Attributes:
        name: of the run.
        state: of it.
        tokens: trained on so far.
        total_tokens: to train on; None if nobody has said.
        tokens_per_second: of a run that is finished or running, else None.
        loss: nats per token; mean over validation domains of a finished run, else of the last training batch.
        note: on it, a sentence or nothing.
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
        """Of a run in progress, at its pace so far; NaN of others."""
        if self.state != State.RUNNING or not self.tokens_per_second or self.total_tokens is None:
            return math.nan
        return (self.total_tokens - self.tokens) / self.tokens_per_second


def read_progress(folder: Path) -> Progress | None:
    """What the run in a folder last told of itself."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def sweeps_in(folder: Path) -> Iterator[Path]:
    """The folders of sweeps: this one, and those below, as a study has them."""
    for place, names, files in os.walk(folder):
        if "runs" in names or SWEEP_FILE in files:
            yield Path(place)
        names[:] = sorted(name for name in names if name != "runs" and not name.startswith("."))


def states_of(sweep: Path) -> list[RunState]:
    """The state of every run that a sweep's folder has or is to have, in the order in which they are launched.

    Takes some seconds if a run is said to be trained on another machine: until that is known.

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
    """Until all runs are finished, at the pace of those in progress; NaN if none is, or it is not known."""
    rate = rate_of(runs)
    left = [math.nan if run.total_tokens is None else run.total_tokens - run.tokens for run in runs]
    return sum(left) / rate if rate else math.nan
