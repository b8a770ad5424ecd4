from collections.abc import Callable
from pathlib import Path

import pytest

from autoscale_exp.config import TrainConf
from autoscale_exp.runs.record import write_record
from autoscale_exp.training.other_designs import remark_on_other_designs
from tests.runs.records import make_record

DOMAINS = ["fruit", "code", "sums"]
SMALL = ["design=ddo", "design.scales=[640]", "design.base_repeats=0"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with finished runs of a design at one scale, and one that is not finished."""
    for run in ("base_0.64K", "fruit_x3_0.64K"):
        write_record(tmp_path / "runs" / run, make_record(run))
    (tmp_path / "runs" / "base_0.96K").mkdir()
    return tmp_path


def test_runs_of_another_design_in_the_folder_are_told_of(trained: Path, compose_train: Callable[..., TrainConf]):
    conf = compose_train(*SMALL, "design.scales=[1280]", f"output_dir={trained}")
    assert remark_on_other_designs(conf, DOMAINS) == (
        f"'{trained}' has 2 finished runs of another design (base_0.64K, fruit_x3_0.64K), which fits of this folder "
        "will include, too; if that is not meant, give this search another name for a folder of its own"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        [*SMALL, "design.index=3"],
        [*SMALL, "design.scales=[640,1280]", "design.base_repeats=2"],
        ["design=single", "token_budget=640"],
    ],
)
def test_the_same_design_or_a_larger_one_is_nothing_to_tell_of(
    overrides: list[str], trained: Path, compose_train: Callable[..., TrainConf]
):
    assert remark_on_other_designs(compose_train(*overrides, f"output_dir={trained}"), DOMAINS) is None


def test_runs_of_the_search_itself_may_have_names_of_their_own(trained: Path, compose_train: Callable[..., TrainConf]):
    write_record(trained / "runs" / "mine", make_record("mine"))
    conf = compose_train(*SMALL, f"output_dir={trained}")
    assert remark_on_other_designs(conf, DOMAINS, ["mine"]) is None
    assert "1 finished run of another design (mine)" in str(remark_on_other_designs(conf, DOMAINS))


def test_proposed_runs_join_those_of_a_search(trained: Path, compose_train: Callable[..., TrainConf]):
    conf = compose_train("design=optimal", "design.path=next.csv", f"output_dir={trained}")
    assert remark_on_other_designs(conf, DOMAINS) is None
