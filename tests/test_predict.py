import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp import predict
from autoscale_exp.config import FitConf, PredictConf
from autoscale_exp.laws.fit_file import read_fit, write_fit
from autoscale_exp.laws.fit_folder import write_mixtures
from autoscale_exp.laws.law import fit_law, predicts_losses
from autoscale_exp.laws.law_file import read_law, write_law
from autoscale_exp.laws.objective import make_objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solution import solve
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.mixture.weights import write_mixture_file
from tests.laws.synthetic import DOMAINS, ddo_table


@pytest.fixture(scope="module")
def laws(tmp_path_factory) -> Path:
    """A folder with the files of a law of losses and of one that has none."""
    folder = tmp_path_factory.mktemp("laws")
    for name in ("transfer", "autoscale"):
        write_law(folder / name, fit_law(name, ddo_table()).content())
    (folder / "mixtures.csv").write_text("run,tokens.a,tokens.b,tokens.c\neven,1000,1000,1000\n")
    return folder


@pytest.mark.parametrize(
    ("law", "overrides", "message"),
    [
        ("transfer", ["num_draws=-1"], "num_draws is -1; it must be at least 0"),
        ("transfer", ["params=0"], "params is 0; it must be at least 1"),
        ("transfer", ["seed=-1"], "seed is -1; it must lie between 0 and 4294967295"),
        ("transfer", ["mixtures=nowhere.csv"], "mixtures is 'nowhere.csv', which does not exist"),
        ("transfer", ["output=.", "objective=mean_loss"], "'.' is a folder; give the path of a file"),
        ("transfer", ["mixtures=[]"], "mixtures is []; give a CSV, or one or several mixture files"),
        ("transfer", ["objective=mean_loss", "objective.metric=bits"], "objective.metric is 'bits'; allowed are loss"),
        ("autoscale", [], "of law 'autoscale', which predicts mixtures but no losses; fit another law"),
    ],
)
def test_a_request_that_cannot_be_is_refused(law, overrides, message, laws: Path, refused):
    files = [f"law_file={laws}/{law}/law.json", f"mixtures={laws}/mixtures.csv", "output=out.csv"]
    assert message in refused("predict", *files, *overrides)


def test_a_model_size_that_a_law_does_not_take_is_named_by_the_key_of_this_job(laws: Path, refused):
    files = [f"law_file={laws}/transfer/law.json", f"mixtures={laws}/mixtures.csv", "output=out.csv"]
    told = refused("predict", *files, "params=9")
    assert told == "params is 9, but law.name=transfer takes no model sizes; choose another law"


BUDGET = 300_000
COMPARED = ["objective", "gain_over_uniform", "gain_over_fitted"]


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Path:
    """A folder per law with all that a fit writes."""
    folder = tmp_path_factory.mktemp("fits")
    table = ddo_table(noise=0.01)
    objective = make_objective("reading", "perplexity", {"a": 0.2, "b": 0.5, "c": 0.3}, DOMAINS)
    constraints = Constraints(make_bounds(0.0, 1.0, DOMAINS))
    for name, draws in {"transfer": 20, "linear": 0}.items():
        fit, law = solve(name, table, Request([BUDGET], objective, constraints, num_draws=draws))
        write_law(folder / name, law.content())
        write_mixtures(folder / name, fit)
        write_fit(folder / name, fit)
    (folder / "mixtures.csv").write_text(
        f"run,weights.c,weights.a,weights.b\nskewed,0.7,0.2,0.1\nuniform,{1 / 3},{1 / 3},{1 / 3}\n"
    )
    write_mixture_file(folder / "skewed.yaml", ["c", "a", "b"], np.array([0.7, 0.2, 0.1]), BUDGET, "by hand")
    return folder


@pytest.fixture
def predicted(monkeypatch, tmp_path):
    """Runs the job in this process and returns its rows by name."""

    def rows(*overrides):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["predict", *overrides, "output=out.csv", "hydra/job_logging=none"])
        predict.main()
        return {row["run"]: row for row in csv.DictReader((tmp_path / "out.csv").open())}

    return rows


def test_a_mixture_is_compared_with_uniform_and_with_the_fitted_one(fits, predicted):
    rows = predicted(f"law_file={fits}/transfer/law.json", f"mixtures={fits}/mixtures.csv", f"tokens={BUDGET}")
    files = predicted(
        f"law_file={fits}/transfer/law.json", f"mixtures=[{fits}/skewed.yaml,{fits}/transfer/mixtures/0.3M.yaml]"
    )
    assert files["skewed"] == rows["skewed"]
    fitted, skewed, uniform = files["0.3M"], rows["skewed"], rows["uniform"]
    draws = read_law(fits / "transfer" / "law.json").draws(100, np.random.default_rng(0))
    offered = read_fit(fits / "transfer", "fit").targets[0].weights
    shares = {"skewed": [0.2, 0.1, 0.7], "uniform": [1 / 3] * 3, "fitted": [offered[domain] for domain in DOMAINS]}
    objective = {
        name: np.array([np.exp(draw.predict(BUDGET * np.array(s))) @ [0.2, 0.5, 0.3] for draw in draws])
        for name, s in shares.items()
    }
    assert float(skewed["objective"]) == pytest.approx(np.median(objective["skewed"]), abs=2e-6)
    for other in ("uniform", "fitted"):
        paired = np.median(objective[other] - objective["skewed"])
        assert float(skewed[f"gain_over_{other}"]) == pytest.approx(paired, abs=2e-6)
    assert float(skewed["gain_over_fitted.high"]) < 0 < float(fitted["gain_over_uniform"])
    assert [uniform[f"gain_over_uniform{end}"] for end in ("", ".low", ".high")] == ["0.000000"] * 3
    assert [fitted[f"gain_over_fitted{end}"] for end in ("", ".low", ".high")] == ["0.000000"] * 3
    for row in (fitted, skewed, uniform):
        assert row["tokens"] == str(BUDGET)
        for name in COMPARED:
            assert float(row[f"{name}.low"]) <= float(row[name]) <= float(row[f"{name}.high"])


def test_the_objective_is_that_of_the_fit_which_says_the_same(fits, predicted):
    # The fit's 20 draws and the predictions' are the same ones.
    files = [f"law_file={fits}/transfer/law.json", f"mixtures={fits}/transfer/mixtures", "num_draws=20"]
    (row,) = predicted(*files).values()
    target = read_fit(fits / "transfer", "fit").targets[0]
    assert float(row["objective"]) == pytest.approx(target.objective_value, abs=1e-6)
    assert [float(row[f"objective.{end}"]) for end in ("low", "high")] == pytest.approx(
        target.objective_interval, abs=1e-6
    )
    assert float(row["gain_over_uniform"]) == pytest.approx(target.gains["uniform"].median, abs=1e-6)


def test_another_objective_can_be_asked_for(fits, predicted):
    files = [f"law_file={fits}/transfer/law.json", f"mixtures={fits}/mixtures.csv", f"tokens={BUDGET}"]
    row = predicted(*files, "objective=mean_loss", "num_draws=0")["skewed"]
    losses = [float(row[f"loss.{domain}"]) for domain in DOMAINS]
    assert float(row["objective"]) == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize(
    ("num_draws", "what"),
    [(20, "medians and 90 % intervals over draws"), (0, "without draws")],
)
def test_the_terminal_says_what_its_numbers_are(num_draws, what, fits, predicted, capsys):
    files = [f"law_file={fits}/transfer/law.json", f"mixtures={fits}/mixtures.csv", f"tokens={BUDGET}"]
    predicted(*files, f"num_draws={num_draws}")
    heading, _, _ = capsys.readouterr().out.partition("┏")  # as wide as the table
    assert " ".join(heading.split()).endswith(f"reading that the law expects, best first; {what}")


def test_a_law_without_draws_leaves_intervals_blank_and_says_so(fits, predicted, capsys, monkeypatch):
    law = read_law(fits / "linear" / "law.json")
    assert predicts_losses(law)
    monkeypatch.setattr(type(law), "draws", lambda *_: [])  # as of trees, whose package is an extra
    row = predicted(f"law_file={fits}/linear/law.json", f"mixtures={fits}/mixtures.csv", f"tokens={BUDGET}")["skewed"]
    blank = {column for column, cell in row.items() if not cell}
    ends = {f"{name}.{end}" for name in COMPARED for end in ("low", "high")}
    assert blank == ends | {f"std.{domain}" for domain in DOMAINS}
    expected = law.predict(np.array([[0.2, 0.1, 0.7]]) * BUDGET)[0]
    objective = float(np.exp(expected) @ [0.2, 0.5, 0.3])
    assert float(row["objective"]) == pytest.approx(objective, abs=1e-6)
    assert "law 'linear' has no draws, so the cells of std and intervals are left blank" in capsys.readouterr().out


def test_a_budget_that_the_fit_has_no_mixture_for_leaves_its_cells_blank_and_says_so(fits, predicted, capsys):
    files = [f"law_file={fits}/transfer/law.json", f"mixtures={fits}/mixtures.csv"]
    row = predicted(*files, "tokens=777_000")["skewed"]
    assert (row["gain_over_fitted"], row["gain_over_fitted.low"]) == ("", "")
    assert row["gain_over_uniform"]
    assert "no mixture for these budgets to compare with; fit with target_tokens=[777000]" in capsys.readouterr().out


def test_a_mixture_is_compared_with_the_fitted_one_for_models_of_its_size(fits, caplog):
    fit = read_fit(fits / "transfer", "fit")
    scales = [
        replace(fit.scales[-1], tokens=BUDGET, params=size, weights=dict(zip(DOMAINS, weights, strict=True)))
        for size, weights in {10**6: [0.6, 0.3, 0.1], 10**7: [0.1, 0.3, 0.6]}.items()
    ]
    law, tokens = fit_law("transfer", ddo_table()), np.full((1, 3), BUDGET / 3)
    sized = replace(fit, scales=scales, targets=[])
    assert predict.fitted_weights(sized, law, tokens)[0].tolist() == [0.1, 0.3, 0.6]  # the law is for the largest
    assert predict.fitted_weights(sized, law, tokens, 10**6)[0].tolist() == [0.6, 0.3, 0.1]

    assert np.isnan(predict.fitted_weights(sized, law, tokens, 10**8)).all()
    assert "100M parameters to compare with; fit with target_tokens=[300000] target_params=100000000" in caplog.text


def test_without_a_fit_beside_the_law_there_are_losses_alone(laws, predicted, capsys):
    (row,) = predicted(f"law_file={laws}/transfer/law.json", f"mixtures={laws}/mixtures.csv").values()
    assert set(row) == {"run", *(f"{what}.{domain}" for what in ("loss", "std") for domain in DOMAINS)}
    assert "no objective: there is no fit.json beside" in capsys.readouterr().out


def test_the_fit_of_another_law_is_not_taken(fits, predicted, capsys, tmp_path):
    write_law(tmp_path, read_law(fits / "linear" / "law.json").content())
    write_fit(tmp_path, read_fit(fits / "transfer", "fit"))
    row = predicted(f"law_file={tmp_path}/law.json", f"mixtures={fits}/mixtures.csv", "tokens=300_000")["skewed"]
    assert "objective" not in row
    assert "is of another law than" in capsys.readouterr().out


def test_the_terminal_has_the_answer_best_first(fits, predicted, capsys):
    files = [f"law_file={fits}/transfer/law.json", f"mixtures=[{fits}/skewed.yaml,{fits}/transfer/mixtures/0.3M.yaml]"]
    rows = predicted(*files)
    lines = capsys.readouterr().out.splitlines()
    fitted, skewed = (next(line for line in lines if name in line) for name in ("0.3M ", "skewed "))
    assert lines.index(fitted) < lines.index(skewed)
    for line, name in ((fitted, "0.3M"), (skewed, "skewed")):
        gain, value = float(rows[name]["gain_over_uniform"]), float(rows[name]["objective"])
        assert f"{value:.4f} ({float(rows[name]['objective.low']):.4f} to " in line
        assert f"{-gain / (value + gain):+.1%} (" in line


def test_predictions_use_the_draws_of_a_fit():
    assert PredictConf().num_draws == FitConf().num_draws
    assert PredictConf().seed == FitConf().seed
