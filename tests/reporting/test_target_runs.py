from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective
from autoscale_exp.reporting.target_runs import group_by_budget, objective_of_fit
from autoscale_exp.runs.record import CurvePoint
from tests.runs.records import make_curve, make_record


def fit_of(section):
    return Fit("linear", section, list("ab"), [], [], Diagnostics([]))


def objective(**weights):
    return objective_of_fit(fit_of(FitObjective("mean_loss", "loss", weights or None)), "out/fit")


OBJECTIVE = objective(a=1.0)


def runs(mixture, *curves, budget=400):
    points = [100, 200, 300, 400]
    return [
        make_record(
            f"{mixture}_seed{seed}",
            mixture=mixture,
            seed=seed,
            token_budget=budget,
            validation_curve=make_curve(points, [{"a": loss} for loss in curve]),
        )
        for seed, curve in enumerate(curves)
    ]


def of_target(records, objective=OBJECTIVE):
    """Target runs of the only budget, by mixture."""
    (mixtures,) = group_by_budget(records, objective).values()
    return mixtures


def test_curves_are_averaged_over_seeds_and_the_spread_is_theirs():
    group = of_target(runs("u", [4, 3, 2.5, 2.0], [5, 4, 3.5, 3.0]))["u"]
    np.testing.assert_allclose(group.mean_curve, [4.5, 3.5, 3.0, 2.5])
    assert group.spread == pytest.approx(np.sqrt(0.5))


def test_runs_that_differ_in_seeds_are_not_compared():
    with pytest.raises(UserError, match=r"of 400 tokens differ in seeds \(a has 0; b has 0, 1\) and cannot"):
        of_target([*runs("a", [4, 3, 2, 1]), *runs("b", [4, 3, 2, 1], [4, 3, 2, 1])])


def test_budgets_are_told_apart_smallest_first():
    records = [*runs("a", [4, 3, 2, 1], budget=800), *runs("a", [4, 3, 2, 1.5], [4, 3, 2, 1.7], budget=400)]
    budgets = group_by_budget(records, OBJECTIVE)
    assert {budget: of["a"].final.tolist() for budget, of in budgets.items()} == {400: [1.5, 1.7], 800: [1]}
    assert [*budgets] == [400, 800]


def test_weights_are_of_the_domains_that_they_name_whatever_the_order():
    (run,) = runs("u", [4, 3, 2, 1])
    run = replace(run, validation_curve=[CurvePoint(100, {"a": 4.0, "b": 2.0})])
    for weights in ({"a": 0.9, "b": 0.1}, {"b": 0.1, "a": 0.9}):
        assert of_target([run], objective(**weights))["u"].final == pytest.approx(0.9 * 4 + 0.1 * 2)


def test_runs_with_other_validation_domains_than_the_fits_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"run 'u_seed0' was not validated .* run alone has a, the fit alone b; report"
    ):
        of_target(runs("u", [4, 3, 2, 1]), objective(b=1.0))


def test_a_fit_of_given_optima_has_no_objective_to_report():
    with pytest.raises(
        ValueError, match=r"fit is 'out/fit', which was made of given optima, .* give a fit made with runs="
    ):
        objective()


def test_seeds_that_were_validated_at_different_points_are_refused_by_name():
    seeds = runs("u", [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1])
    del seeds[2].validation_curve[1]
    with pytest.raises(UserError, match=r"'u_seed2' was validated 3 times, after 100, 300, 400 .* 'u_seed0' 4 times"):
        of_target(seeds)


@pytest.mark.parametrize(
    ("aggregate", "expected"), [({}, 1.75), ({"aggregate": "mean"}, 1.75), ({"aggregate": "worst"}, 4)]
)
def test_the_objective_of_a_fit_is_the_one_it_was_made_with(aggregate, expected):
    section = FitObjective("o", "loss", {"a": 0.75, "b": 0.25}, **aggregate)
    assert objective_of_fit(fit_of(section), "out/fit")({"b": 4.0, "a": 1.0}) == expected


def test_runs_of_one_name_and_other_weights_are_refused():
    first, second = runs("u", [4, 3, 2, 1], [4, 3, 2, 1])
    second = replace(second, requested_weights={"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="'u_seed0' and 'u_seed1' are both of mixture u, but of other weights"):
        of_target([first, second])
    assert of_target([first, replace(second, stages=[])])["u"].final.tolist() == [1, 1]
