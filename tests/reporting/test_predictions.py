from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscale_exp.laws.fit_file import Gain
from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.law_file import write_law
from autoscale_exp.reporting.comparison import compare
from autoscale_exp.reporting.predictions import Prediction, predictions, summary_of
from autoscale_exp.reporting.target_runs import group_by_budget, objective_of_fit
from tests.laws.synthetic import DOMAINS, ddo_table
from tests.reporting.test_page import FIT, run
from tests.runs.records import make_curve, make_record

OFFERED = replace(
    FIT.targets[0],
    objective_value=2.4,
    objective_interval=(2.2, 2.6),
    losses={"a": 1.9, "b": 2.9},
    loss_intervals={"a": (1.85, 1.95), "b": (2.8, 3.0)},
    gains={"uniform": Gain(0.5, (0.3, 0.7), 1.0, 0.2)},
)


def found(*targets, fit=None, folder=Path("none")):
    fit = fit or replace(FIT, targets=[OFFERED])
    objective = objective_of_fit(fit, "fit")
    (mixtures,) = group_by_budget(targets, objective).values()
    return predictions(fit, folder, mixtures, compare(mixtures, "uniform"), objective)


def offered(end, seed=0):
    return replace(run("ours", [4, 3, 2.5, end], seed), requested_weights={"a": 0.3, "b": 0.7})


@pytest.mark.parametrize(("trained", "outcome"), [(1.01, "held"), (1.99, "held"), (0.99, "missed"), (2.01, "missed")])
def test_the_prediction_of_a_single_run_holds_in_the_laws_interval(trained, outcome):
    assert Prediction("m", "gain", 1.5, (1.0, 2.0), trained, None).outcome == outcome


def test_a_prediction_holds_nine_times_in_ten_if_law_and_runs_err_as_they_say():
    rng = np.random.default_rng(0)
    spread = 1.645  # standard deviations to either side hold 90 % of a normal distribution
    outcomes = []
    for _ in range(4000):
        trained = rng.normal(1.5, 0.5) + rng.normal(0, 0.3)
        own = (trained - spread * 0.3, trained + spread * 0.3)
        outcomes.append(Prediction("m", "gain", 1.5, (1.5 - spread * 0.5, 1.5 + spread * 0.5), trained, own).outcome)
    assert np.mean(np.array(outcomes) == "held") == pytest.approx(0.9, abs=0.015)


def test_what_the_fit_says_of_its_mixture_is_set_beside_the_runs():
    entries = {p.quantity: p for p in found(run("uniform", [4, 3, 2.5, 2.4]), offered(1.9))}
    assert entries["objective"] == Prediction("ours", "objective", 2.4, (2.2, 2.6), pytest.approx(2.4), None)
    assert entries["gain"] == Prediction("ours", "gain", 0.5, (0.3, 0.7), pytest.approx(0.5), None)
    assert entries["loss b"].trained == pytest.approx(2.9)


def test_what_was_missed_is_named():
    text = summary_of(found(run("uniform", [4, 3, 2.5, 2.0]), offered(1.9)))
    assert text == "1 of 2 predictions of objectives and gains held; missed: the gain of ours."


def test_runs_of_other_weights_are_not_those_of_the_fits_mixture():
    assert found(run("uniform", [4, 3, 2.5, 2.4]), run("ours", [4, 3, 2.5, 1.9])) == []


def law_and_targets(table, folder):
    """The default law of a table, in a folder with its file, and target runs with the losses that it predicts."""
    law = fit_law("pooled_transfer", table)
    write_law(folder, law.content())
    weights = {"uniform": [1 / 3] * 3, "tilted": [0.6, 0.2, 0.2]}
    losses = {n: law.predict(np.array(w) * 100_000) for n, w in weights.items()}  # type: ignore[attr-defined]
    targets = [
        make_record(
            name,
            mixture=name,
            token_budget=100_000,
            requested_weights=dict(zip(DOMAINS, weights[name], strict=True)),
            validation_curve=make_curve([100_000], [dict(zip(DOMAINS, own.tolist(), strict=True))]),
            losses=dict(zip(DOMAINS, own.tolist(), strict=True)),
        )
        for name, own in losses.items()
    ]
    return law, losses, targets


EQUAL = replace(FIT.objective, weights=dict.fromkeys(DOMAINS, 1 / 3))


def test_a_law_of_losses_is_asked_for_every_mixture(tmp_path: Path):
    _, losses, targets = law_and_targets(ddo_table(), tmp_path)
    entries = found(*targets, fit=replace(FIT, domains=DOMAINS, objective=EQUAL, targets=[]), folder=tmp_path)
    assert {(p.mixture, p.quantity) for p in entries if not p.quantity.startswith("loss")} == {
        ("uniform", "objective"),
        ("tilted", "objective"),
        ("tilted", "gain"),
    }
    assert {p.outcome for p in entries} == {"held"}
    (gain,) = (p for p in entries if p.quantity == "gain")
    assert gain.predicted == pytest.approx(losses["uniform"].mean() - losses["tilted"].mean(), abs=0.02)


def test_a_law_is_asked_for_models_of_the_size_that_the_fits_target_is_for(tmp_path: Path):
    table = replace(ddo_table(), params=np.repeat([1e6, 4e6], 7))
    law, _, targets = law_and_targets(table, tmp_path)
    target = replace(FIT.targets[0], tokens=100_000, params=10**8, weights=dict(zip(DOMAINS, [1, 0, 0], strict=True)))
    fit = replace(FIT, domains=DOMAINS, objective=EQUAL, targets=[target])
    (predicted,) = (
        p.predicted
        for p in found(*targets, fit=fit, folder=tmp_path)
        if (p.mixture, p.quantity) == ("uniform", "objective")
    )
    draws = law.at_size(1e8).draws(100, np.random.default_rng(0))
    expected = np.median([np.mean(draw.predict(np.full(3, 1e5 / 3))) for draw in draws])
    assert predicted == pytest.approx(expected, abs=1e-4)
