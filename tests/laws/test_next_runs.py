from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from autoscale_exp.laws.candidates import Candidate, Place, candidate_runs
from autoscale_exp.laws.law import fit_law
from autoscale_exp.laws.next_runs import choose_runs, differences_at, losses_of, propose_runs, risk_of
from autoscale_exp.runs.table import select_runs
from tests.laws.synthetic import DOMAINS, ddo_table
from tests.laws.test_decision import OBJECTIVE, OwnTokens

HERE = Place(30_000, None, "30K")


class Linear:
    """Losses linear in tokens, with coefficients (V, K) of its own."""

    validation_domains = ("v", "w")
    run_noise = np.array([0.3, 0.5])

    def __init__(self, coefficients):
        self.coefficients = coefficients

    def predict(self, tokens):
        return tokens @ self.coefficients.T


def conditioned(joint, differences, losses, noise):
    """The covariance of the differences given losses with noise, by the textbook's formula."""
    inside = joint[np.ix_(losses, losses)] + np.diag(noise**2)
    across = joint[np.ix_(differences, losses)]
    return joint[np.ix_(differences, differences)] - across @ np.linalg.inv(inside) @ across.T


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_runs_are_chosen_for_the_largest_fall_of_a_normal_variance_for_their_cost(seed):
    """Against brute force: every pair of steps is conditioned on from the joint covariance over draws."""
    rng = np.random.default_rng(seed)
    draws = [Linear(rng.standard_normal((2, 3))) for _ in range(12)]
    candidates, costs = rng.uniform(0.1, 2, (4, 3)), rng.uniform(1, 3, 4)
    differences = np.stack([draw.predict(np.eye(3)[:2]).sum(axis=1) for draw in draws])
    outcomes = np.stack([draw.predict(candidates).ravel() for draw in draws])  # run by run
    joint = np.cov(np.hstack([differences, outcomes]), rowvar=False, bias=True)
    columns = [[2 + 2 * run, 3 + 2 * run] for run in range(4)]

    def left(runs):
        losses = [column for run in runs for column in columns[run]]
        return np.diag(conditioned(joint, [0, 1], losses, np.tile(Linear.run_noise, len(runs))))

    losses = np.stack([draw.predict(candidates) for draw in draws])
    chosen = choose_runs(losses, costs, Linear.run_noise, differences, 2, repeatable=False)
    first, second = (choice.index for choice in chosen)
    falls = [(np.trace(joint[:2, :2]) - left([run]).sum()) / costs[run] for run in range(4)]
    assert first == np.argmax(falls)
    after = [(left([first]).sum() - left([first, run]).sum()) / costs[run] for run in range(4)]
    assert second == np.argmax(np.where(np.arange(4) == first, -1, after))
    explained = np.sum([choice.explained for choice in chosen], axis=0)
    np.testing.assert_allclose(explained, 1 - left([first, second]) / np.diag(joint)[:2], atol=1e-9)


def test_a_run_may_be_chosen_again_with_the_next_seed_and_new_ones_get_names():
    rng = np.random.default_rng(0)
    draws = [OwnTokens(np.array([0.2 + 0.03 * z, 0.2, 0.2]), run_noise=np.ones(3)) for z in rng.standard_normal(50)]
    repeat = Candidate("base_seed1", "base", np.full(3, 1e4), 1, HERE)
    gains = np.stack([draw.predict(np.full(3, 1e5))[[0]] for draw in draws])
    (first, second), _ = propose_runs({None: draws}, [repeat], gains, 2)
    assert [(run.run, run.seed) for run in (first, second)] == [("base_seed1", 1), ("base_seed2", 2)]
    (first, second), _ = propose_runs(
        {None: draws}, [replace(repeat, run="", repeats=None, seed=0)], gains, 2, ["next0_30K"]
    )
    assert [(run.run, run.seed) for run in (first, second)] == [("next1_30K", 0), ("next2_30K", 1)]


def test_differences_are_over_the_second_mixture_and_leave_it_out():
    draws = [OwnTokens(np.full(3, exponent)) for exponent in (0.2, 0.3)]
    mixtures = [np.full(3, 1 / 3), np.array([0.5, 0.25, 0.25]), np.array([0.2, 0.4, 0.4])]
    found = differences_at(draws, OBJECTIVE, mixtures, 1e5)
    objectives = np.array([[OBJECTIVE(draw.predict(w * 1e5)) for w in mixtures] for draw in draws])
    np.testing.assert_allclose(found, objectives[:, [0, 2]] - objectives[:, [1]])


@pytest.mark.parametrize("explained", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("shift", [-0.7, 0.2, 1.0])
def test_the_risk_is_that_of_simulated_choices(shift, explained):
    rng = np.random.default_rng(0)
    gains = 0.02 * (norm.ppf((np.arange(2000) + 0.5) / 2000) + shift)
    gains[[0, -1]] = -1e9, 1e3  # far off, as a draw can be
    risk = risk_of(gains, explained)
    true = 0.02 * (shift + rng.standard_normal(400_000))
    noise = 0.02 * np.sqrt((1 - explained) / explained) * rng.standard_normal(400_000)
    measured = true + noise
    expected = 0.02 * shift + explained * (measured - 0.02 * shift)  # the gain expected once the runs are trained
    assert risk.now == pytest.approx(np.mean(true * shift < 0), abs=0.003)
    assert risk.after == pytest.approx(np.mean(true * expected < 0), abs=0.003)


def test_runs_that_tell_nothing_leave_the_risk_and_those_that_tell_all_take_it_away():
    gains = np.linspace(-1, 2, 50)
    assert risk_of(gains, 0.0).now == risk_of(gains, 0.0).after
    assert risk_of(gains, 0.0).is_enough
    assert risk_of(gains, 1.0).after == 0
    assert risk_of(np.zeros(5), 0.5) == risk_of(np.zeros(5), 0.1)


def test_new_mixtures_are_at_the_scales_of_the_runs_or_at_those_asked_for():
    table = ddo_table()
    own = candidate_runs(replace(table, scales=["30K"] * 7 + ["0.1M"] * 7))
    assert [(place.token_budget, place.label) for place in own.places] == [(30_000, "30K"), (100_000, "0.1M")]
    asked = candidate_runs(table, [50_000])
    new = asked.with_mixtures([np.array([0.5, 0.3, 0.2])])
    assert {candidate.place.token_budget for candidate in new} == {50_000}
    assert all(candidate.tokens.sum() == pytest.approx(50_000) for candidate in new)
    assert any(np.allclose(candidate.tokens, [25_000, 15_000, 10_000]) for candidate in new)


def test_a_scale_that_is_labelled_by_its_models_has_the_budget_of_its_runs():
    named = candidate_runs(replace(ddo_table(), scales=["70M"] * 7 + ["1B"] * 7))
    assert [place.token_budget for place in named.places] == [30_000, 100_000]


def test_no_new_mixture_repeats_a_domain_more_than_four_times():
    table = replace(ddo_table(), unique_tokens=[10**6, 10**6, 3_000])
    new = [run for run in candidate_runs(table).with_mixtures([np.full(3, 1 / 3)]) if run.repeats is None]
    assert new
    assert all(run.tokens[2] <= 12_000 for run in new)


def test_no_amount_of_a_design_repeats_a_domain_more_than_four_times():
    table = replace(select_runs(ddo_table(), np.array([0])), unique_tokens=[10**6, 10**6, 3_000])
    names = [run.run for run in candidate_runs(table).runs if run.repeats is None]
    assert names == ["a_x3_30K", "a_x0.333_30K", "b_x3_30K", "b_x0.333_30K", "c_x0.333_30K"]


def test_the_most_useful_runs_are_of_the_domain_that_draws_disagree_on():
    rng = np.random.default_rng(0)
    draws = [OwnTokens(np.array([0.2, 0.2 + 0.03 * z, 0.2])) for z in rng.standard_normal(60)]
    uniform = np.full(3, 1 / 3)
    tilted = np.array([0.3, 0.4, 0.3])
    gains = np.array([float(OBJECTIVE(d.predict(uniform * 3e4)) - OBJECTIVE(d.predict(tilted * 3e4))) for d in draws])
    candidates = [
        Candidate(d, None, 1e4 * np.where(np.arange(3) == i, 0.03, 1), 0, HERE) for i, d in enumerate(DOMAINS)
    ]
    (first, *others), risk = propose_runs({None: draws}, candidates, gains[:, None], 3)
    assert first.run == DOMAINS[1]
    assert risk.after < risk.now
    assert 0.9 < first.explained <= 1
    assert first.explained > max(run.explained for run in others)


def test_a_run_measured_with_much_noise_is_of_little_use():
    draws = [OwnTokens(np.array([0.2, exponent, 0.2])) for exponent in np.linspace(0.1, 0.3, 20)]
    gains = np.linspace(0, 1, 20)
    candidates = [Candidate("b", None, np.full(3, 1e4), 0, HERE)]
    (precise,), _ = propose_runs({None: draws}, candidates, gains[:, None], 1)
    draws[0].run_noise = np.full(3, 100.0)
    (noisy,), _ = propose_runs({None: draws}, candidates, gains[:, None], 1)
    assert precise.explained > 0.9
    assert noisy.explained < 0.01


def test_candidates_repeat_runs_with_seeds_that_no_run_has():
    table = ddo_table()
    rows = [*range(len(table.runs)), 0]
    repeated = replace(
        select_runs(table, np.array(rows)), runs=[*table.runs, "again"], seeds=[0] * len(table.runs) + [4]
    )
    candidates = {candidate.repeats: candidate for candidate in candidate_runs(repeated).runs}
    assert len(candidates) == len(table.runs)
    assert not {candidate.run for candidate in candidates.values()} & set(repeated.runs)
    first = candidates[table.runs[0]]
    assert (first.run, first.seed) == (f"{table.runs[0]}_seed5", 5)
    assert candidates[table.runs[1]].seed == 1


def test_candidates_of_runs_without_a_design_have_amounts_that_no_run_has():
    table = select_runs(ddo_table(), np.array([0]))
    new = [candidate for candidate in candidate_runs(table).runs if candidate.repeats is None]
    assert len(new) == 2 * len(DOMAINS)
    changes = sorted(float(np.max(candidate.tokens / table.domain_tokens[0])) for candidate in new)
    np.testing.assert_allclose(changes, [1, 1, 1, 3, 3, 3])


def sized_table():
    """The smaller scale is of a model of 1M parameters, the larger one of 4M."""
    return replace(ddo_table(), scales=["30K"] * 7 + ["0.1M"] * 7, params=np.repeat([1e6, 4e6], 7))


def test_candidates_are_at_every_budget_of_every_size():
    candidates = candidate_runs(sized_table())
    assert [place.label for place in candidates.places] == ["30K_of_1M", "0.1M_of_1M", "30K_of_4M", "0.1M_of_4M"]
    assert {(run.place.token_budget, run.place.params) for run in candidates.runs} == {
        (30_000, 10**6),
        (100_000, 4 * 10**6),
    }
    asked = candidate_runs(sized_table(), [50_000], [4 * 10**6, 10**7])
    assert asked.sizes == {4 * 10**6, 10**7}
    assert not asked.runs
    assert [place.label for place in asked.places] == ["50K_of_4M", "50K_of_10M"]
    one = candidate_runs(replace(sized_table(), params=np.full(14, 4e6)), [], [4 * 10**6])
    assert [place.label for place in one.places] == ["30K", "0.1M"]


def at(params, label, tokens=1e4):
    return Candidate("", None, np.full(3, tokens), 0, Place(30_000, params, label))


def test_of_two_runs_that_tell_alike_the_one_of_fewer_flops_is_proposed():
    rng = np.random.default_rng(0)
    draws = [OwnTokens(np.array([0.2 + 0.03 * z, 0.2, 0.2])) for z in rng.standard_normal(50)]
    gains = np.stack([draw.predict(np.full(3, 1e5))[[0]] for draw in draws])
    candidates = [at(4 * 10**6, "large"), at(10**6, "small")]
    assert [candidate.flops for candidate in candidates] == [6 * 4e6 * 3e4, 6 * 1e6 * 3e4]
    (first,), _ = propose_runs({4 * 10**6: draws, 10**6: draws}, candidates, gains, 1)
    assert (first.run, first.params) == ("next0_small", 10**6)


def test_runs_that_tell_more_at_any_cost_are_proposed_where_the_cheapest_would_change_nothing():
    rng = np.random.default_rng(0)
    shifts = rng.standard_normal(50)
    telling = [OwnTokens(np.array([0.2 + 0.01 * z, 0.2, 0.2])) for z in shifts]
    silent = [OwnTokens(np.array([0.2 + 1e-5 * z, 0.2, 0.2])) for z in shifts]
    for law in silent + telling:
        law.run_noise = np.full(3, 0.01)
    gains = 0.5 * shifts[:, None] + 0.1
    dear, cheap = at(10**12, "dear"), at(1, "cheap")
    (first,), risk = propose_runs({1: silent, 10**12: telling}, [dear, cheap], gains, 1)
    assert first.run == "next0_dear"
    assert risk.after < risk.now - 0.1
    (first,), risk = propose_runs({1: silent}, [cheap], gains, 1)
    assert first.run == "next0_cheap"
    assert risk.is_enough


def test_draws_are_the_same_ones_at_each_size():
    """A law's draws at two sizes, and of its own size's, agree with each draw taken to that size by itself."""
    law = fit_law("pooled_transfer", sized_table())
    draws_of = {n: law.at_size(n).draws(8, np.random.default_rng(0)) for n in (10**6, 4 * 10**6)}
    candidates = [at(10**6, ""), at(4 * 10**6, "")]
    losses = losses_of(draws_of, candidates)
    own = law.draws(8, np.random.default_rng(0))
    for index, candidate in enumerate(candidates):
        expected = [draw.at_size(candidate.place.params).predict(candidate.tokens) for draw in own]
        np.testing.assert_allclose(losses[:, index], expected)
