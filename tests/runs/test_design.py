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
from autoscale_exp.runs.designs.dirichlet import DirichletConf, SwarmRun
from autoscale_exp.runs.designs.grid import GridConf
from autoscale_exp.runs.designs.optimal import OptimalConf
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.proposal import Proposal, write_proposals

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


def test_a_grid_has_every_mixture_of_whole_steps_above_the_lowest_weight():
    runs = runs_of(GridConf(scales=[1000], steps=2, lower=0.1, base_repeats=1))
    assert [p.run for p in runs[:3]] == ["base_1K", "base_seed1_1K", "grid000_1K"]
    mixtures = {tuple(p.weights(UNIFORM, UNIFORM).round(9).tolist()) for p in runs[2:]}
    high, middle, low = 0.8, 0.45, 0.1
    corners = {(high, low, low), (low, high, low), (low, low, high)}
    assert mixtures == corners | {(middle, middle, low), (middle, low, middle), (low, middle, middle)}
    assert len({p.run for p in runs_of(GridConf(scales=[1000, 2000], steps=4))}) == 2 * (15 + 1)


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
        (GridConf(scales=[10]), None, "design.steps is 0; it must be at least 1"),
        (GridConf(scales=[10], steps=2, lower=0.5), None, "design.lower is 0.5; it must be at least 0 and below 1 / 2"),
        (DirichletConf(num_runs=3), None, "design.scales must be distinct positive token budgets"),
        (DirichletConf(scales=[10], num_runs=-1), None, "design.num_runs is -1; it must be at least 0"),
        (DirichletConf(scales=[10], draw_seed=-1), None, "design.draw_seed is -1; it must be at least 0"),
        (DirichletConf(scales=[10], min_strength=0), None, "design.min_strength is 0 and design.max_strength 5.0"),
        (DirichletConf(scales=[10], min_strength=6), None, "positive numbers, the second not below the first"),
        (DirichletConf(scales=[10], min_weight=0.5), None, "design.min_weight is 0.5; it must be at least 0 and below"),
    ],
)
def test_bad_designs_are_refused(conf, budget, message):
    with pytest.raises(UserError, match=message):
        runs_of(conf, ["a", "b"], budget)


def test_an_optimal_design_is_the_runs_that_a_fit_proposes(tmp_path):
    path = tmp_path / "3M.csv"
    tokens = (5e5, 3e5, 2e5), (1e6, 1e6 / 3, 1e6 / 3)
    proposals = [Proposal("next0_1M", 1_000_000, 0, tokens[0]), Proposal("a_x3_1M_seed2", 1_000_000, 2, tokens[1])]
    write_proposals(path, "abc", proposals)
    runs = runs_of(OptimalConf(path=str(path)))
    assert [(run.run, run.scale, run.seed_offset) for run in runs] == [
        ("next0_1M", "1M", 0),
        ("a_x3_1M_seed2", "1M", 2),
    ]
    for run, own in zip(runs, tokens, strict=True):
        weights = run.weights(UNIFORM, FREE)
        np.testing.assert_allclose(run.domain_tokens(weights), own)
        np.testing.assert_array_equal(run.row_counts(weights, 64), allocate_rows(own, 64))
    assert runs_of(OptimalConf(path=str(path), num_runs=1)) == runs[:1]
    with pytest.raises(UserError, match=r"design.num_runs is 3; it must lie between 1 and 2"):
        runs_of(OptimalConf(path=str(path), num_runs=3))


def test_an_optimal_design_is_of_one_size_of_models(tmp_path):
    path = tmp_path / "3M.csv"
    sizes = {"small0": 93_000, "large0": 124_000_000, "small1": 93_000}
    write_proposals(path, "abc", [Proposal(run, 1000, 0, (500.0, 300.0, 200.0), sizes[run]) for run in sizes])
    runs = runs_of(OptimalConf(path=str(path), params=93_000))
    assert [(run.run, run.params) for run in runs] == [("small0", 93_000), ("small1", 93_000)]
    with pytest.raises(UserError, match=r"design.params is None, but '.*' has runs of models with 93000, 124000000"):
        runs_of(OptimalConf(path=str(path)))
    with pytest.raises(UserError, match=r"design.params is 7, but"):
        runs_of(OptimalConf(path=str(path), params=7))


def test_a_run_that_is_not_there_or_has_an_unsafe_name_is_refused():
    runs = runs_of(DdoConf(scales=[1000]), ["a", "b c"])
    with pytest.raises(UserError, match=r"design.index is 5, but the design has runs 0 to 4"):
        select_run(runs, 5)
    with pytest.raises(UserError, match="b c_x3_1K"):
        select_run(runs, 3)


FREE = np.full(3, np.inf)


def swarm_of(num_runs, base=UNIFORM, caps=FREE, **section):
    """(num_runs, K) weights of a swarm at one scale."""
    runs = runs_of(DirichletConf(scales=[1_000_000], num_runs=num_runs, **section), "abcdefgh"[: len(base)])
    return np.array([run.weights(base, caps) for run in runs if isinstance(run, SwarmRun)])


def test_a_swarm_has_base_runs_and_so_many_mixtures_at_each_scale():
    runs = runs_of(DirichletConf(scales=[600_000, 1_800_000], num_runs=2, base_repeats=1))
    assert [run.run for run in runs] == [
        "base_0.6M",
        "base_seed1_0.6M",
        "base_1.8M",
        "base_seed1_1.8M",
        "swarm000_0.6M",
        "swarm000_1.8M",
        "swarm001_0.6M",
        "swarm001_1.8M",
    ]
    for run in runs[:4]:
        np.testing.assert_array_equal(run.weights(UNIFORM, FREE), UNIFORM)


def test_a_swarm_is_nested_when_it_is_enlarged():
    small = DirichletConf(scales=[600_000, 1_800_000], num_runs=3)
    large = DirichletConf(scales=[600_000, 1_800_000], num_runs=9)
    for one, other in zip(runs_of(small), runs_of(large)[: len(runs_of(small))], strict=True):
        assert one.run == other.run
        np.testing.assert_array_equal(one.weights(UNIFORM, FREE), other.weights(UNIFORM, FREE))


def test_a_further_scale_leaves_the_mixtures_of_the_others():
    one = {run.run: run for run in runs_of(DirichletConf(scales=[600_000], num_runs=3))}
    two = {run.run: run for run in runs_of(DirichletConf(scales=[300_000, 600_000], num_runs=3))}
    for name, run in one.items():
        np.testing.assert_array_equal(run.weights(UNIFORM, FREE), two[name].weights(UNIFORM, FREE))


def test_the_mixtures_of_a_swarm_are_those_of_draw_seed_and_not_of_the_training_seed():
    assert (swarm_of(3) != swarm_of(3, draw_seed=1)).any()
    design = DirichletConf(scales=[600_000], num_runs=1)
    first, second = (runs_of(design, seed=seed)[1].weights(UNIFORM, FREE) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_a_swarm_spreads_about_the_base_mixture():
    base = np.array([0.6, 0.3, 0.1])
    drawn = swarm_of(400, base, min_distance=0, min_weight=0)
    np.testing.assert_allclose(drawn.mean(axis=0), base, atol=0.05)  # 3 standard errors at the most
    even = swarm_of(100, base, min_strength=500, max_strength=500, min_distance=0)
    assert np.abs(even - base).max() < 0.1


@given(st.integers(0, 100), st.sampled_from([0.01, 0.05]), st.floats(2.0, 4.0))
@settings(max_examples=10, deadline=None)
def test_mixtures_of_a_swarm_keep_within_caps_and_apart(draw_seed, min_distance, room):
    base = np.array([0.1, 0.2, 0.3, 0.4])
    drawn = swarm_of(20, base, room * base, draw_seed=draw_seed, min_distance=min_distance)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert np.all(drawn <= room * base)
    assert np.all((drawn == 0) | (drawn >= 2e-3))
    distances = np.linalg.norm(drawn[:, None] - np.vstack([drawn, base]), axis=2)
    assert np.all(distances + np.eye(20, 21) >= min_distance)


def test_a_domain_that_the_base_mixture_leaves_out_is_left_out():
    assert not swarm_of(5, np.array([0.5, 0.5, 0]))[:, 2].any()


def test_a_swarm_that_the_text_does_not_allow_is_refused():
    with pytest.raises(UserError, match=r"run 'swarm000_1M': max_epochs of all text are only 0.9 of its tokens"):
        swarm_of(1, caps=np.full(3, 0.3))
    with pytest.raises(UserError, match=r"has 1000000: none of 2000 mixtures drawn for run 0 .* max_epochs of 'c'"):
        swarm_of(1, caps=np.array([1, 1, 1e-9]), min_strength=100, max_strength=100)
    with pytest.raises(
        UserError, match=r"run \d+ of the swarm .* are nearer than design.min_distance 0.5 to another run"
    ):
        swarm_of(30, min_distance=0.5)


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
