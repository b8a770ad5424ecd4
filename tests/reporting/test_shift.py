from dataclasses import replace

import numpy as np
import pytest
import yaml

from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.reporting.evidence_figures import plot_optima
from autoscale_exp.reporting.shift import shift_of
from autoscale_exp.reporting.target_runs import group_by_budget, objective_of_fit
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT, fitted, run


def optimum(tokens, share):
    weights = {"b": 1 - share, "a": share}
    return replace(fitted(tokens), weights=weights, interval={"a": [share - 0.1, share + 0.1], "b": [0.0, 1.0]})


@pytest.fixture
def targets(tmp_path):
    """Target runs of the best at 40 tokens, of the best at 100, and of what two scales extrapolate to 400."""
    found = {"large": ([100], 100, 0.4, 2.2), "small": ([40], 40, 0.5, 2.5), "fitted": ([40, 100], 400, 0.3, 2.0)}
    records = []
    for name, (scales, tokens, share, end) in found.items():
        fit = replace(FIT, scales=[optimum(t, share) for t in scales], targets=[optimum(tokens, share)])
        write_fit(tmp_path / name, fit)
        file = tmp_path / name / "mixtures" / f"{tokens}.yaml"
        write_mixture_file(file, ["b", "a"], np.array([1 - share, share]), tokens, "a test")
        for seed, shift in enumerate([0.0, 0.02, 0.01]):
            record = run(name, [4, 3, 2.5, end + shift + 0.001 * seed * share], seed)
            records.append(replace(record, requested_weights={"a": share, "b": 1 - share}))
            folder = tmp_path / "targets" / "runs" / records[-1].run
            write_record(folder, records[-1])
            (folder / ".hydra").mkdir()
            conf = {"mixture": {"path": str(file)}}
            (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(conf))
    (mixtures,) = group_by_budget(records, objective_of_fit(FIT, "fit")).values()
    return tmp_path / "targets", mixtures


def test_optima_of_single_scales_are_compared_with_the_extrapolated_one(targets):
    optima = shift_of(*targets, "fitted")
    assert {name: (of.optimum.tokens, of.num_scales) for name, of in optima.items()} == {
        "small": (40, 1),
        "large": (100, 1),
        "fitted": (400, 2),
    }
    assert optima["fitted"].difference is None
    assert optima["small"].difference.mean == pytest.approx(0.5, abs=1e-3)
    assert optima["large"].difference.is_worse
    figure = plot_optima(optima, ["b", "a"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


def test_a_study_without_optima_of_single_scales_tells_of_no_shift(targets):
    folder, mixtures = targets
    assert shift_of(folder, {"fitted": mixtures["fitted"], "small": mixtures["small"]}, "fitted") == {}
    assert shift_of(folder, {"small": mixtures["small"], "large": mixtures["large"]}, "fitted") == {}


def test_a_mixture_for_another_budget_than_that_of_its_runs_is_no_optimum_of_a_scale(targets):
    folder, mixtures = targets
    write_fit(folder.parent / "small", replace(FIT, scales=[optimum(20, 0.5)], targets=[optimum(40, 0.5)]))
    assert shift_of(folder, mixtures, "fitted") == {}
