from pathlib import Path

import pytest

from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT, run


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A search of one run, its fit, and a target run of uniform weights."""
    write_record(tmp_path / "runs" / "base", run("base", [3.0], points=[40]))
    write_record(tmp_path / "targets" / "runs" / "uniform", run("uniform", [4, 3, 2.5, 2.0]))
    write_fit(tmp_path / "fit", FIT)
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["targets=none"],
            "targets is 'none', which has no finished run; train the mixtures to compare, as by "
            "`python -m autoscale_exp.train experiment=targets search=. token_budget=400 output_dir=none`",
        ),
        (["reference=natural"], "reference is 'natural', but the target runs are of uniform; choose one of these "),
        ([], "all target runs are of 'uniform'; train another mixture to compare it with"),
        (["fit=none"], "fit is 'none', which has no fit.json; run `python -m autoscale_exp.fit` first"),
    ],
)
def test_what_cannot_be_compared_is_refused(overrides, message, search: Path, refused):
    assert refused("report", "search=.", *overrides).startswith(message)


def test_without_a_search_no_fit_is_asked_for(search: Path, refused):
    assert refused("report", "search=nowhere") == "search is 'nowhere', which does not exist"


def test_a_search_is_asked_for(refused):
    assert refused("report") == "search is not set; give it a value, as in search=..."
