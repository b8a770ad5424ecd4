import json

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import read_fit
from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.law_file import read_law, write_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from tests.laws.synthetic import DOMAINS, ddo_table


def test_autoscale_read_from_its_file_has_the_same_optima(tmp_path):
    law = fit_law("autoscale", ddo_table(noise=0.01, repeats=1))
    write_law(tmp_path, law.content())
    objective, bounds = make_objective("o", "perplexity", None, DOMAINS), make_bounds(0.02, 1.0, DOMAINS)
    first, again = (each.responses(objective, bounds).path() for each in (law, read_law(tmp_path / "law.json")))
    np.testing.assert_allclose(again.optimum(10**6).weights, first.optimum(10**6).weights, rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"law": "linear"},
            "law.json' has format 1, but this version reads format 5; give the law.json of a fit, or ",
        ),
        ({"format": 5, "law": "linear"}, "law.json' is damaged .*; give the law.json of a fit, or "),
        ({"format": 5, "law": "quadratic"}, "law.name is 'quadratic'; allowed are .*autoscale"),
        ({"format": 5, "law": "autoscale_path"}, "law.json' was fitted to given optima and predicts no losses"),
    ],
)
def test_a_file_that_holds_no_law_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "law.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_law(tmp_path / "law.json")


@pytest.mark.parametrize("name", ["pooled_transfer", "linear", "lightgbm", "autoscale"])
def test_keys_of_a_later_version_are_left_out(tmp_path, name):
    table = ddo_table(scales=(30_000, 100_000, 300_000, 900_000), repeats=5)
    content = fit_law(name, table).content() | {"later": 1}
    if name == "pooled_transfer":
        content["discrepancy"] = content["discrepancy"] | {"later": 1}
    write_law(tmp_path, content)
    assert read_law(tmp_path / "law.json").name == name


def test_a_fit_of_an_older_version_is_refused_by_name(tmp_path):
    (tmp_path / "fit.json").write_text(json.dumps({"law": "linear", "targets": []}))
    with pytest.raises(UserError, match=r"fit.json' has format 1, but this version reads format 2; run `python -m"):
        read_fit(tmp_path, "fit")
    with pytest.raises(UserError, match=r"fit is '.*nowhere', which has no fit.json; run `python -m"):
        read_fit(tmp_path / "nowhere", "fit")
