"""The `train` job as a process, watched by the files it writes."""

import csv
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.warm_python import WarmProcess

LONG = ["token_budget=4_000_000", "max_epochs=100_000"]  # minutes
LOCAL = ["hydra/launcher=local", "hydra.launcher.n_jobs=2"]
Start = Callable[..., WarmProcess]


def ended(process: WarmProcess) -> "subprocess.CompletedProcess[str]":
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(process: WarmProcess, look: Callable[[], list[Path]]) -> list[Path]:
    """What appears while a process runs."""
    while not (found := look()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return found


def table_of(folder: Path) -> dict[str, dict[str, str]]:
    """Run table by name, without what depends on the clock."""
    with (folder / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    for row in rows.values():
        assert float(row.pop("seconds")) > 0
    return rows


def parts_of(folder: Path) -> dict[str, int]:
    """In how many parts each run was trained: a log of its own for each."""
    return {run.name: len(list(run.glob("metrics/version_*"))) for run in folder.glob("runs/*")}
