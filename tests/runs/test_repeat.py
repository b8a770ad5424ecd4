import shlex
from pathlib import Path

import pytest
import yaml

from autoscale_exp.runs.record import write_record
from autoscale_exp.runs.repeat import repeat_command
from tests.runs.records import make_record


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return tmp_path / "my search"


def started(sweep: Path, run: str, overrides: list[str], seed: int = 0, **conf: object) -> None:
    folder = sweep / "runs" / run
    write_record(folder, make_record(run, seed=seed))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "output_dir": str(sweep)} | conf))


def overrides_of(command: str) -> list[str]:
    start, overrides = shlex.split(command)[:3], shlex.split(command)[3:]
    assert start == ["python", "-m", "autoscale_exp.train"]
    return overrides


def test_a_run_is_repeated_with_what_was_typed_a_new_seed_and_a_folder_of_its_own(sweep: Path):
    typed = ["design.index=14", "experiment=search", "design.scales=[1_000,3_000]", "run_name=x", "seed=3"]
    started(sweep, "a_x3_1K", typed)
    command = repeat_command(sweep, "a_x3_1K", "a_x3_1K_seed1", 1)
    assert command is not None
    assert overrides_of(command) == [*typed[:3], "seed=1", "run_name=a_x3_1K_seed1", "hydra.mode=RUN"]


def test_a_repeat_of_a_sweep_that_was_moved_goes_where_the_sweep_is(sweep: Path):
    started(sweep, "base_1K", ["experiment=search", "output_dir=elsewhere"], output_dir="elsewhere")
    command = repeat_command(sweep, "base_1K", "base_1K_seed1", 1)
    assert command is not None
    assert [o for o in overrides_of(command) if o.startswith("output_dir=")] == [f"output_dir={sweep}"]


def test_the_seed_of_a_repeat_is_that_of_its_record(sweep: Path):
    """The design adds 2 to the seed of its second repeat of the base run."""
    started(sweep, "base_seed2_1K", ["design.index=2"], seed=2)
    command = repeat_command(sweep, "base_seed2_1K", "base_seed2_1K_seed5", 5)
    assert command is not None
    assert "seed=3" in overrides_of(command)


def test_runs_that_do_not_tell_how_they_were_started_have_no_command(sweep: Path):
    write_record(sweep / "runs" / "other", make_record("other"))
    assert repeat_command(sweep, "other", "other_seed1", 1) is None
