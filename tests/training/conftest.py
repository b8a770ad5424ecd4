from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscale_exp.data.store import TokenStore
from tests.training.processes import Start
from tests.warm_python import WarmProcess, WarmPython


@pytest.fixture(scope="module")
def start(
    store: TokenStore, train_overrides: list[str], warm_python: WarmPython, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts the `train` job, in a process group of its own, which ends with the tests."""
    processes = []

    def started(folder: Path, *overrides: str, mode: str = "MULTIRUN") -> WarmProcess:
        args = [*train_overrides, f"output_dir={folder}", *overrides, f"hydra.mode={mode}"]
        processes.append(warm_python.start("autoscale_exp.train", args, tmp_path_factory.mktemp("cwd")))
        return processes[-1]

    yield started
    for process in processes:
        if process.poll() is None:
            process.kill()
