from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective
from autoscale_exp.reporting.comparison import (
    compare,
    group_by_mixture,
    mean_margin,
    objective_of_fit,
    speedup,
    tokens_to_reach,
)
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


def test_speedup_is_the_share_of_tokens_saved():
    groups = group_by_mixture([*runs("uniform", [4, 3, 2.5, 2.0]), *runs("ours", [3, 2.2, 1.8, 1.6])], OBJECTIVE)
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(1 - 250 / 400)


def test_a_mixture_that_loses_has_a_negative_speedup():
    groups = group_by_mixture([*runs("uniform", [3, 2.2, 1.8, 1.6]), *runs("ours", [4, 3, 2.5, 2.0])], OBJECTIVE)
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(-(1 - 250 / 400))


def test_a_mixture_against_itself_has_none():
    group = group_by_mixture(runs("uniform", [4, 3, 2.5, 2.0]), OBJECTIVE)["uniform"]
    assert speedup(group, group) == pytest.approx(0)


def test_curves_are_averaged_over_seeds_and_the_spread_is_theirs():
    group = group_by_mixture(runs("u", [4, 3, 2.5, 2.0], [5, 4, 3.5, 3.0]), OBJECTIVE)["u"]
    np.testing.assert_allclose(group.mean_curve, [4.5, 3.5, 3.0, 2.5])
    assert group.spread == pytest.approx(np.sqrt(0.5))


def test_a_level_that_is_never_reached():
    assert tokens_to_reach(np.array([1.0, 2.0]), np.array([3.0, 2.0]), 1.9) is None


def test_runs_that_differ_in_budget_or_seeds_are_not_compared():
    with pytest.raises(UserError, match="differ in token budget"):
        group_by_mixture([*runs("a", [4, 3, 2, 1]), *runs("b", [4, 3, 2, 1], budget=800)], OBJECTIVE)
    with pytest.raises(UserError, match="seeds"):
        group_by_mixture([*runs("a", [4, 3, 2, 1]), *runs("b", [4, 3, 2, 1], [4, 3, 2, 1])], OBJECTIVE)


def test_weights_are_of_the_domains_that_they_name_whatever_the_order():
    (run,) = runs("u", [4, 3, 2, 1])
    run = replace(run, validation_curve=[CurvePoint(100, {"a": 4.0, "b": 2.0})])
    for weights in ({"a": 0.9, "b": 0.1}, {"b": 0.1, "a": 0.9}):
        assert group_by_mixture([run], objective(**weights))["u"].final == pytest.approx(0.9 * 4 + 0.1 * 2)


def test_runs_with_other_validation_domains_than_the_fits_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"run 'u_seed0' was not validated .* run alone has a, the fit alone b; report"
    ):
        group_by_mixture(runs("u", [4, 3, 2, 1]), objective(b=1.0))


def test_a_mixture_that_dips_below_the_reference_and_ends_above_has_a_negative_speedup():
    groups = group_by_mixture([*runs("uniform", [4, 2.5, 1.6, 1.5]), *runs("ours", [3, 1.4, 1.5, 1.6])], OBJECTIVE)
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(-(1 - 300 / 400))


def test_a_single_validation_tells_no_speedup():
    (whole,) = runs("ours", [3, 2, 1.5, 1])
    short = [replace(whole, validation_curve=whole.validation_curve[-1:])]
    groups = group_by_mixture([*runs("uniform", [4, 3, 2.5, 2.0]), *short], OBJECTIVE)
    assert speedup(groups["ours"], groups["uniform"]) is None
    assert speedup(groups["uniform"], groups["ours"]) is None


def test_a_fit_of_given_optima_has_no_objective_to_report():
    with pytest.raises(
        ValueError, match=r"fit is 'out/fit', which was made of given optima, .* give one made with runs="
    ):
        objective()


def test_seeds_that_were_validated_at_different_points_are_refused_by_name():
    seeds = runs("u", [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1])
    del seeds[2].validation_curve[1]
    with pytest.raises(UserError, match=r"'u_seed2' was validated 3 times, after 100, 300, 400 .* 'u_seed0' 4 times"):
        group_by_mixture(seeds, OBJECTIVE)


@pytest.mark.parametrize(
    ("aggregate", "expected"), [({}, 1.75), ({"aggregate": "mean"}, 1.75), ({"aggregate": "worst"}, 4)]
)
def test_the_objective_of_a_fit_is_the_one_it_was_made_with(aggregate, expected):
    section = FitObjective("o", "loss", {"a": 0.75, "b": 0.25}, **aggregate)
    assert objective_of_fit(fit_of(section), "out/fit")({"b": 4.0, "a": 1.0}) == expected


def ends(**finals):
    """Target runs that end so, one seed after the other."""
    curves = {name: [[4, 3, 2.5, end] for end in values] for name, values in finals.items()}
    return group_by_mixture([run for name, of_name in curves.items() for run in runs(name, *of_name)], OBJECTIVE)


def test_two_mixtures_are_compared_seed_by_seed():
    """The seeds differ by far more than the mixtures; their differences are those of a paired t test."""
    uniform, ours = [2.0, 1.5, 1.0], [1.89, 1.4, 0.91]
    difference = compare(ends(uniform=uniform, ours=ours), "uniform")["ours"]
    expected = stats.ttest_rel(ours, uniform).confidence_interval(0.9)
    assert difference.interval == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(-0.1)
    assert difference.is_better
    assert difference.seeds_to_settle is None
    assert stats.ttest_ind(ours, uniform).pvalue > 0.5  # which would have seen nothing


def test_the_noise_of_a_difference_is_that_of_all_mixtures():
    """Residuals of mixtures by seeds, worked out by hand: +-.01, -+.02 and +-.01, with 2 degrees of freedom."""
    difference = compare(ends(uniform=[2.01, 1.99], a=[1.58, 1.62], b=[1.81, 1.79]), "uniform")["a"]
    margin = stats.t.ppf(0.95, 2) * np.sqrt(2 * (0.01**2 + 0.02**2 + 0.01**2) / 2)
    assert difference.interval == pytest.approx((-0.4 - margin, -0.4 + margin))


def test_a_mixture_that_ends_higher_by_more_than_the_noise_is_worse():
    difference = compare(ends(uniform=[2.0, 1.5], ours=[2.11, 1.6]), "uniform")["ours"]
    assert difference.is_worse
    assert not difference.within_noise


def test_an_open_difference_says_how_many_seeds_would_settle_it():
    uniform, ours = [2.0, 2.0], [1.8, 1.9]
    difference = compare(ends(uniform=uniform, ours=ours), "uniform")["ours"]
    assert difference.within_noise
    deviation = np.std(np.subtract(ours, uniform), ddof=1)
    margins = {n: stats.t.ppf(0.95, n - 1) * deviation / np.sqrt(n) for n in (2, 3)}
    assert margins[3] < 0.15 < margins[2]
    assert difference.seeds_to_settle == 3


def test_a_difference_of_nothing_is_settled_by_no_number_of_seeds():
    assert compare(ends(uniform=[2.0, 1.9], ours=[1.9, 2.0]), "uniform")["ours"].seeds_to_settle is None


def test_one_seed_tells_no_noise():
    difference = compare(ends(uniform=[2.0], ours=[1.0]), "uniform")["ours"]
    assert (difference.interval, difference.within_noise) == (None, True)
    assert mean_margin([np.array([1.0]), np.array([2.0])]) is None


def test_the_margin_of_a_mean_is_students():
    values = np.array([1.0, 1.2, 1.7])
    low, high = stats.t.interval(0.9, 2, values.mean(), stats.sem(values))
    assert mean_margin([values]) == pytest.approx((high - low) / 2)
