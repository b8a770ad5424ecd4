import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.mixture.allocation import allocate_rows
from autoscale_exp.runs.design import RunRequest, matched_pool
from autoscale_exp.runs.designs import design_runs, select_run
from autoscale_exp.runs.designs.ddo import DdoConf
from autoscale_exp.runs.designs.single import SingleConf

UNIFORM = np.full(3, 1 / 3)


def runs_of(design, domains=("a", "b", "c"), budget=None, mixture="uniform", seed=0):
    return design_runs(design, RunRequest(domains, budget, mixture, seed))


def test_ddo_has_a_base_and_two_proxy_runs_per_domain_at_each_scale():
    runs = runs_of(DdoConf(scales=[600_000, 1_800_000]))
    assert len(runs) == 2 * (2 * 3 + 1)
    assert [p.run for p in runs[:3]] == ["base_0.6M", "a_x3_0.6M", "a_x0.333_0.6M"]
    assert len({p.run for p in runs}) == len(runs)


def test_base_repeats_differ_only_in_seed():
    runs = runs_of(DdoConf(scales=[1000], base_repeats=2), ["a", "b"])
    repeats = [p for p in runs if p.run.startswith("base")]
    assert [p.seed_offset for p in repeats] == [0, 1, 2]
    assert {p.multipliers for p in repeats} == {(1.0, 1.0)}


def test_a_proxy_run_changes_an_amount_and_leaves_the_other_domains_exactly():
    base, up, down, *_ = runs_of(DdoConf(scales=[100_000]))
    rows = {p.run: p.row_counts(UNIFORM, 64) for p in (base, up, down)}
    np.testing.assert_array_equal(rows[up.run][1:], rows[base.run][1:])
    np.testing.assert_array_equal(rows[down.run][1:], rows[base.run][1:])
    assert rows[up.run][0] == 3 * rows[base.run][0]
    assert rows[down.run][0] == round(rows[base.run][0] / 3)
    assert rows[up.run].sum() > rows[base.run].sum() > rows[down.run].sum()


@pytest.mark.parametrize(
    ("tokens", "label"),
    [(600_000, "0.6M"), (1_200_000_000, "1.2B"), (25_000_000_000, "25B"), (64_000, "64K"), (1_234_567, "1.234567M")],
)
def test_labels_of_budgets_are_exact(tokens, label):
    assert budget_label(tokens) == label


def test_a_single_run_is_named_by_mixture_budget_and_seed():
    assert [p.run for p in runs_of(SingleConf(), ["a", "b"], 5_000_000, "natural", 3)] == ["natural_5M_seed3"]


@pytest.mark.parametrize(
    ("conf", "budget", "message"),
    [
        (SingleConf(), None, "token_budget must be a positive"),
        (DdoConf(), None, "design.scales"),
        (DdoConf(scales=[10, 10]), None, "design.scales must be distinct"),
        *(
            (DdoConf(scales=[10], factor=factor), None, f"design.factor is {factor}; it must be a number above 1")
            for factor in (1.0, math.nan, math.inf)
        ),
        (DdoConf(scales=[10], base_repeats=-1), None, "design.base_repeats is -1; it must be at least 0"),
    ],
)
def test_bad_designs_are_refused(conf, budget, message):
    with pytest.raises(UserError, match=message):
        runs_of(conf, ["a", "b"], budget)


def test_a_run_that_is_not_there_or_has_an_unsafe_name_is_refused():
    runs = runs_of(DdoConf(scales=[1000]), ["a", "b c"])
    with pytest.raises(UserError, match=r"design.index is 5, but the design has runs 0 to 4"):
        select_run(runs, 5)
    with pytest.raises(UserError, match="b c_x3_1K"):
        select_run(runs, 3)


@given(
    st.lists(st.integers(1, 10**7), min_size=1, max_size=5), st.integers(100, 10**9), st.integers(1, 10**4), st.data()
)
@settings(max_examples=200, deadline=None)
def test_a_matched_base_run_repeats_its_text_as_often_as_the_target(pool_rows, budget, factor, data):
    seq_len, target = 16, budget * factor + data.draw(st.integers(0, budget - 1))
    shares = np.array([data.draw(st.integers(1, 100)) for _ in pool_rows], dtype=float)
    weights = shares / shares.sum()
    assume(min(pool_rows) * budget >= target)  # else a pool is held at one row
    pools = np.array(matched_pool(pool_rows, budget, target))
    epochs = allocate_rows(weights * budget, seq_len) / pools
    of_target = allocate_rows(weights * target, seq_len) / np.array(pool_rows)
    # A pool is off by half a row at most; each count by less than a row, and the total by half a row more.
    assert np.all(np.abs(epochs - of_target) <= (0.5 * of_target + 1.5) / pools + 3 / np.array(pool_rows))


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=5), st.lists(st.integers(1, 10**12), min_size=3, max_size=3)
)
@settings(max_examples=200, deadline=None)
def test_matched_pools_grow_with_the_budget_up_to_the_whole_at_the_target(pool_rows, budgets):
    small, large, target = sorted(budgets)
    pools = [matched_pool(pool_rows, budget, target) for budget in (small, large, target)]
    assert pools[2] == pool_rows
    for smaller, larger, whole in zip(*pools, strict=True):
        assert min(whole, 1) <= smaller <= larger <= whole


def test_a_target_below_a_proxy_run_is_refused():
    with pytest.raises(UserError, match=r"design.match_repetition is 999, below the token budget 1000 of a proxy run"):
        matched_pool([5], 1000, 999)
