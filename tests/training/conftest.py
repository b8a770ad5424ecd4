import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscale_exp.data.store import TokenStore
from tests.training.processes import Start


@pytest.fixture(scope="module")
def start(store: TokenStore, train_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts the `train` job, in a process group of its own, which ends with the tests."""
    processes = []

    def started(folder: Path, *overrides: str, mode: str = "MULTIRUN") -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "autoscale_exp.train", *train_overrides, f"output_dir={folder}", *overrides]
        process = subprocess.Popen(
            [*command, f"hydra.mode={mode}"],
            cwd=tmp_path_factory.mktemp("cwd"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
