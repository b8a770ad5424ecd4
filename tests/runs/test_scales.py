from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.scales import differ_in_budget, group_by_tokens


def ddo(budget, num_domains, factor=3.0, repeats=1):
    """A base run of equal domain tokens, then each domain times and divided by `factor`."""
    base = np.full(num_domains, budget / num_domains)
    varied = [
        base * np.where(np.arange(num_domains) == i, f, 1) for i in range(num_domains) for f in (factor, 1 / factor)
    ]
    return np.array([base] * repeats + varied)


def swarm(budget, count, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(3), count) * budget


def sizes(*parts):
    groups = group_by_tokens(np.concatenate(parts))
    starts = np.cumsum([0, *map(len, parts)])
    parted = [set(range(start, end)) for start, end in pairwise(starts)]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, parted))
    return sorted(map(len, groups))


@pytest.mark.parametrize("num_domains", [3, 5, 60])
@pytest.mark.parametrize("repeats", [1, 4])
def test_the_designs_of_several_scales_are_told_apart_by_their_base_runs(num_domains, repeats):
    one = ddo(1e6, num_domains, repeats=repeats)
    assert sizes(one) == [len(one)]
    assert sizes(one, 3 * one, 9 * one) == [len(one)] * 3


def test_swarms_are_told_apart_by_their_budgets():
    assert sizes(swarm(1e6, 10)) == [10]
    assert sizes(swarm(1e6, 10), swarm(2e6, 4)) == [4, 10]


@settings(max_examples=100, deadline=None)
@given(budget=st.floats(1e5, 1e12), ratio=st.floats(1.3, 10.0), blur=st.floats(0.0, 0.01), seed=st.integers(0, 99))
def test_where_budgets_lie_and_a_little_blur_merge_or_split_no_scale(budget, ratio, blur, seed):
    factors = np.random.default_rng(seed).uniform(1 - blur, 1 + blur, (12, 1))
    assert sizes(swarm(budget, 6) * factors[:6], swarm(ratio * budget, 6) * factors[6:]) == [6, 6]
    assert differ_in_budget(np.concatenate([swarm(budget, 6), swarm(ratio * budget, 6)]))


def test_budgets_within_a_hundredth_are_one():
    assert not differ_in_budget(np.array([[1.0, 1.0], [1.5, 0.515]]) * 1e6)
    assert differ_in_budget(np.array([[1.0, 1.0], [1.5, 0.525]]) * 1e6)


def test_whole_rows_of_text_blur_a_budget_a_little():
    assert sizes(swarm(1e6, 10) * np.linspace(0.97, 1, 10)[:, None]) == [10]


@pytest.mark.parametrize(
    "tokens",
    [
        np.concatenate([swarm(1e6, 10), swarm(1e7, 1)]),  # one run of another budget
        swarm(1e6, 10) * np.geomspace(1, 9, 10)[:, None],  # budgets all over
        np.concatenate([ddo(1e6, 2), ddo(3e6, 2)]),  # (1.5, 0.5) is of either scale
        ddo(1e6, 4)[1:],  # no base run
    ],
    ids=["one more", "all over", "either scale", "no base"],
)
def test_runs_that_tokens_do_not_tell_apart_are_refused(tokens):
    with pytest.raises(UserError, match=r"nothing tells which of them are of one scale; add a column scale to the run"):
        group_by_tokens(tokens)
