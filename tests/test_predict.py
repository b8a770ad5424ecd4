from pathlib import Path

import pytest

from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.law_file import write_law
from tests.laws.synthetic import ddo_table


@pytest.fixture(scope="module")
def laws(tmp_path_factory) -> Path:
    """A folder with the files of a law of losses and of one that has none."""
    folder = tmp_path_factory.mktemp("laws")
    for name in ("transfer", "autoscale"):
        write_law(folder / name, fit_law(name, ddo_table()).content())
    (folder / "mixtures.csv").write_text("run,tokens.a,tokens.b,tokens.c\neven,1,1,1\n")
    return folder


@pytest.mark.parametrize(
    ("law", "overrides", "message"),
    [
        ("transfer", ["num_draws=-1"], "num_draws is -1; it must be at least 0"),
        ("transfer", ["seed=-1"], "seed is -1; it must lie between 0 and 4294967295"),
        ("transfer", ["mixtures=nowhere.csv"], "mixtures is 'nowhere.csv', which does not exist"),
        ("transfer", ["output=."], "'.' is a folder; give the path of a file"),
        ("autoscale", [], "of law 'autoscale', which predicts mixtures but no losses; fit another law"),
    ],
)
def test_a_request_that_cannot_be_is_refused(law, overrides, message, laws: Path, refused):
    files = [f"law_file={laws}/{law}/law.json", f"mixtures={laws}/mixtures.csv", "output=out.csv"]
    assert message in refused("predict", *files, *overrides)
