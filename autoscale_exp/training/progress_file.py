"""progress.json, which a run keeps fresh while it is trained."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from autoscale_exp.base import atomic
from autoscale_exp.runs.record import PROGRESS


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        tokens: tokens trained on so far.
        total_tokens: tokens to train on.
        tokens_per_second: since the run was last started.
        train_loss: nats per token, of the last batch.
    """

    tokens: int
    total_tokens: int
    tokens_per_second: float
    train_loss: float


def write_progress(folder: Path, progress: RunProgress) -> None:
    """Writes how far the run in a folder is."""
    atomic.write_json(folder / PROGRESS, asdict(progress))


def read_progress(folder: Path) -> RunProgress | None:
    """Reads how far the run in a folder is; None if it has not said."""
    try:
        return RunProgress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
