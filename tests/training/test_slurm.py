"""A sweep on a real Slurm, started on this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.processes import Start, ended, parts_of, table_of, wait_for

pytestmark = pytest.mark.slow

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
SWEEP = ["token_budget=400_000", "max_epochs=100_000", "seed=0,1"]  # neither ends before both have begun
SLURM = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=20"]


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of one node with two slots, and a partition `high` that pre-empts the default one."""
    if os.geteuid() or any(shutil.which(program) is None for program in PROGRAMS):
        pytest.skip(f"Slurm is started by root, and needs Debian's {', '.join(PROGRAMS)}")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([Path(__file__).parent / "slurm.sh", folder], check=True, timeout=60)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    yield
    subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], timeout=20)
    subprocess.run([folder / "stop"], timeout=20)


def test_runs_that_slurm_signals_or_pre_empts_are_started_again_and_go_on(slurm, start: Start, tmp_path: Path):
    alone, folder = tmp_path / "alone", tmp_path / "out"
    process = start(folder, *SWEEP, *SLURM)
    wait_for(process, lambda: paths if len(paths := list(folder.glob("runs/*/progress.json"))) == 2 else [])
    subprocess.run(["sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=true"], check=True)
    subprocess.run(["scancel", "--signal=USR2", "1_0"], check=True)  # the first run: its time is up
    assert ended(start(alone, *SWEEP)).returncode == 0
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert "2 runs are finished" in done.stdout
    assert parts_of(folder) == {"uniform_0.4M_seed0": 2, "uniform_0.4M_seed1": 2}
    assert table_of(folder) == table_of(alone)
