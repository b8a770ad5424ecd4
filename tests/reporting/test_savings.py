import math
from dataclasses import replace

import numpy as np
import pytest

from autoscale_exp.reporting.comparison import compare
from autoscale_exp.reporting.savings import Saving, annealed_speedup, savings_of, speedup, tokens_to_reach
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import group_by_budget
from tests.reporting.test_target_runs import OBJECTIVE, of_target, runs
from tests.runs.records import make_record

NO_SEARCH = Searches({}, {})


def test_speedup_is_the_share_of_tokens_saved():
    groups = of_target([*runs("uniform", [4, 3, 2.5, 2.0]), *runs("ours", [3, 2.2, 1.8, 1.6])])
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(1 - 250 / 400)


def test_a_mixture_that_loses_has_a_negative_speedup():
    groups = of_target([*runs("uniform", [3, 2.2, 1.8, 1.6]), *runs("ours", [4, 3, 2.5, 2.0])])
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(-(1 - 250 / 400))


def test_a_mixture_against_itself_has_none():
    group = of_target(runs("uniform", [4, 3, 2.5, 2.0]))["uniform"]
    assert speedup(group, group) == pytest.approx(0)


def test_a_level_that_is_never_reached():
    assert tokens_to_reach(np.array([1.0, 2.0]), np.array([3.0, 2.0]), 1.9) is None


def test_a_mixture_that_dips_below_the_reference_and_ends_above_has_a_negative_speedup():
    groups = of_target([*runs("uniform", [4, 2.5, 1.6, 1.5]), *runs("ours", [3, 1.4, 1.5, 1.6])])
    assert speedup(groups["ours"], groups["uniform"]) == pytest.approx(-(1 - 300 / 400))


def test_a_single_validation_tells_no_speedup():
    (whole,) = runs("ours", [3, 2, 1.5, 1])
    short = [replace(whole, validation_curve=whole.validation_curve[-1:])]
    groups = of_target([*runs("uniform", [4, 3, 2.5, 2.0]), *short])
    assert speedup(groups["ours"], groups["uniform"]) is None
    assert speedup(groups["uniform"], groups["ours"]) is None


def annealed(ends):
    """Target runs that end so, by budget and mixture."""
    of_all = [
        run
        for budget, of in ends.items()
        for name, end in of.items()
        for run in runs(name, [9, 8, 7, end], budget=budget)
    ]
    return group_by_budget(of_all, OBJECTIVE)


def power_law(factor, exponent=0.3):
    return {budget: factor * budget**-exponent for budget in (100, 200, 400, 800)}


def test_finished_runs_of_power_laws_give_the_saving_in_closed_form():
    """c (s T)^-a = C T^-a, so s = (c / C)^(1 / a)."""
    uniform, ours = power_law(10), power_law(9)
    budgets = annealed({budget: {"uniform": uniform[budget], "ours": ours[budget]} for budget in uniform})
    share, is_bound = annealed_speedup(budgets, "ours", "uniform")
    assert share == pytest.approx(1 - 0.9 ** (1 / 0.3))
    assert not is_bound
    share, is_bound = annealed_speedup(budgets, "uniform", "ours")
    assert share == pytest.approx(-(1 - 0.9 ** (1 / 0.3)))


def test_a_saving_beyond_the_smallest_budget_is_a_bound():
    budgets = annealed({200: {"uniform": 3.0, "ours": 1.5}, 800: {"uniform": 2.0, "ours": 1.2}})
    assert annealed_speedup(budgets, "ours", "uniform") == (pytest.approx(0.75), True)
    assert annealed_speedup(budgets, "uniform", "ours") == (pytest.approx(-0.75), True)


def test_the_interval_of_a_saving_is_that_of_the_difference():
    """Finished runs of ours follow 4 (budget / 100)^(-1/2), which is at a level after 100 (4 / level)^2 tokens."""
    ours = {100: 4.0, 800: 4 / math.sqrt(8)}
    ends = {100: [5.0, 5.0], 800: [2.0, 2.02]}
    of_all = [run for b, of in ends.items() for run in runs("uniform", *[[9, 8, 7, end] for end in of], budget=b)]
    of_all += [run for b, end in ours.items() for run in runs("ours", *[[9, 8, 7, end]] * 2, budget=b)]
    budgets = group_by_budget(of_all, OBJECTIVE)
    difference = compare(budgets[800], "uniform")["ours"]
    assert difference.is_better
    expected = [1 - 100 * (4 / (ours[800] - end)) ** 2 / 800 for end in reversed(difference.interval)]
    assert savings_of(budgets, "uniform", NO_SEARCH)["ours"].interval == pytest.approx(tuple(expected))


def test_an_end_of_an_interval_beyond_the_smallest_budget_is_open():
    of_all = [
        run
        for budget, uniform, ours in ((200, [3, 3], [2.03, 2.0]), (800, [2.0, 2.03], [1.2, 1.22]))
        for name, ends in (("uniform", uniform), ("ours", ours))
        for run in runs(name, *[[9, 8, 7, end] for end in ends], budget=budget)
    ]
    low, high = savings_of(group_by_budget(of_all, OBJECTIVE), "uniform", NO_SEARCH)["ours"].interval
    assert low == pytest.approx(0.74, abs=0.02)
    assert high is None


def test_one_budget_tells_no_saving_by_finished_runs():
    budgets = annealed({800: {"uniform": 2.0, "ours": 1.2}})
    assert annealed_speedup(budgets, "ours", "uniform") == (None, False)
    assert savings_of(budgets, "uniform", NO_SEARCH)["ours"].share == speedup(
        *[budgets[800][n] for n in ("ours", "uniform")]
    )


def test_a_mixture_that_only_the_target_has_is_compared_off_its_curve():
    budgets = annealed({400: {"uniform": 3.0}, 800: {"uniform": 2.0, "late": 1.2}})
    saving = savings_of(budgets, "uniform", NO_SEARCH)["late"]
    assert saving.annealed is None
    assert saving.share == saving.on_curves


def test_a_search_is_charged_by_tokens_and_parameters():
    """Saved are .25 of 800 tokens; the search has 2 x 30 tokens with a quarter of the parameters, as good as 15."""
    budgets = annealed({600: {"uniform": 3.0, "ours": 2.0}, 800: {"uniform": 2.0, "ours": 1.2}})
    search = [make_record(f"base{k}", params=250, tokens={"a": 10, "b": 20}) for k in range(2)]
    saving = savings_of(budgets, "uniform", Searches({"swarm": search}, {"ours": ["swarm"]}))["ours"]
    assert saving.search_tokens == 60
    assert saving.charged(1) == pytest.approx((0.25 * 800 - 15) / 800)
    assert saving.charged(10) == pytest.approx((0.25 * 800 - 1.5) / 800)


def test_the_search_of_the_reference_is_taken_off():
    budgets = annealed({600: {"old": 3.0, "new": 2.0}, 800: {"old": 2.0, "new": 1.2}})
    searches = Searches({".": [make_record(tokens={"a": 80, "b": 80})]}, {"old": ["."], "new": ["."]})
    saving = savings_of(budgets, "old", searches)["new"]
    assert (saving.search_tokens, saving.search_cost) == (160, 0)


def test_what_is_not_known_is_not_charged():
    assert Saving(None, None, is_bound=False, interval=None, search_tokens=9, search_cost=0.1).charged(1) is None


def test_seeds_are_averaged_before_they_are_interpolated():
    of_all = [
        *runs("uniform", [9, 8, 7, 4.0], [9, 8, 7, 2.0], budget=100),
        *runs("uniform", [9, 8, 7, 2.0], [9, 8, 7, 1.0], budget=400),
        *runs("ours", [9, 8, 7, 2.0], [9, 8, 7, 2.0], budget=100),
        *runs("ours", [9, 8, 7, 1.0], [9, 8, 7, 1.0], budget=400),
    ]
    share, _ = annealed_speedup(group_by_budget(of_all, OBJECTIVE), "ours", "uniform")
    reached = 100 * 4 ** (math.log(2 / 1.5) / math.log(2))  # where 2 (budget / 100)^(-1/2) is 1.5
    assert share == pytest.approx(1 - reached / 400)
