import itertools
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import Stopped
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Bounds, make_bounds, power_law_optimum
from autoscale_exp.laws.solver.constraints import Constraints, GroupCap, check_constraints
from autoscale_exp.laws.solver.mixture_optimum import WorstCase, divergence, expected_optimum

UNIT = 1e6


def mixture_optimum(law, *arguments, **options):
    return expected_optimum([law], *arguments, **options)


@dataclass(frozen=True)
class Transfer:
    """L_v = 1 + (offset + sum_k transfer_vk (n_k / 1M)^rho)^-exponent_v: convex for rho <= 1."""

    transfer: np.ndarray
    exponent: np.ndarray
    rho: float = 0.7
    offset: float = 0.3
    name: str = "transfer"

    @property
    def domains(self):
        return [f"d{k}" for k in range(self.transfer.shape[1])]

    @property
    def validation_domains(self):
        return [f"v{v}" for v in range(self.transfer.shape[0])]

    def predict(self, tokens):
        return 1 + (self.offset + (tokens / UNIT) ** self.rho @ self.transfer.T) ** -self.exponent

    def slopes(self, tokens):
        inner = self.offset + (tokens / UNIT) ** self.rho @ self.transfer.T
        outer = -self.exponent * inner ** (-self.exponent - 1)
        return outer[:, None] * self.transfer * self.rho * (tokens / UNIT) ** (self.rho - 1) / UNIT


@dataclass(frozen=True)
class Additive:
    """One validation domain: L = sum_k (offset_k + n_k / unit_k)^-exponent_k, as power_law_optimum has it."""

    offset: np.ndarray
    exponent: np.ndarray
    unit: np.ndarray
    name: str = "additive"
    validation_domains: tuple = ("v",)

    @property
    def domains(self):
        return [f"d{k}" for k in range(len(self.unit))]

    def predict(self, tokens):
        return ((self.offset + tokens / self.unit) ** -self.exponent).sum(axis=-1, keepdims=True)

    def slopes(self, tokens):
        return (-self.exponent / self.unit * (self.offset + tokens / self.unit) ** (-self.exponent - 1))[None]


@dataclass(frozen=True)
class OfShares:
    """A law of shares alone: a function of (..., K) shares to (..., V), and its (V, K) derivatives."""

    function: object
    derivatives: object
    num_domains: int
    num_validation: int
    name: str = "of shares"

    @property
    def domains(self):
        return [f"d{k}" for k in range(self.num_domains)]

    @property
    def validation_domains(self):
        return [f"v{v}" for v in range(self.num_validation)]

    def predict(self, tokens):
        return self.function(tokens / tokens.sum(axis=-1, keepdims=True))

    def slopes(self, tokens):
        shares = tokens / tokens.sum()
        by_share = self.derivatives(shares)
        return (by_share - (by_share @ shares)[:, None]) / tokens.sum()


def random_law(num_domains, num_validation, seed=0, rho=0.7):
    rng = np.random.default_rng(seed)
    transfer = rng.uniform(0.02, 0.3, size=(num_validation, num_domains))
    transfer[range(num_validation), np.arange(num_validation) % num_domains] += rng.uniform(0.5, 2, num_validation)
    return Transfer(transfer, rng.uniform(0.2, 0.8, num_validation), rho)


def mean(law, metric="loss"):
    return Objective("mean", metric, np.full(len(law.validation_domains), 1 / len(law.validation_domains)))


def bounded(law, lower=0.0, upper=1.0, **others):
    return Constraints(make_bounds(lower, upper, law.domains), **others)


# All can do better than under uniform shares here, so that "no worse than" leaves room to move.
LAW3 = Transfer(np.array([[2.0, 0.5, 0.1], [1.2, 0.9, 0.2], [0.45, 0.4, 0.5]]), np.array([0.5, 0.7, 0.3]))
THIRD = np.full(3, 1 / 3)
BUDGET = 5 * UNIT
KINDS = {
    "nothing": (mean(LAW3), bounded(LAW3), 0.0),
    "perplexity": (mean(LAW3, "perplexity"), bounded(LAW3), 0.0),
    "bounds": (mean(LAW3), bounded(LAW3, [0.0, 0.3, 0.25], [0.4, 1.0, 1.0]), 0.0),
    "caps": (mean(LAW3), bounded(LAW3, unique_tokens=np.array([0.5, 2.0, 9.0]) * UNIT, max_epochs=4), 0.0),
    "group": (mean(LAW3), bounded(LAW3, groups=[GroupCap("web", [0, 1], 0.6)]), 0.0),
    "groups overlap": (
        mean(LAW3),
        bounded(LAW3, groups=[GroupCap("web", [0, 1], 0.7), GroupCap("code", [0, 2], 0.5)]),
        0.0,
    ),
    "no worse": (mean(LAW3), bounded(LAW3, no_worse_than=THIRD), 0.0),
    "kl": (mean(LAW3), bounded(LAW3), 0.05),
    "worst loss": (WorstCase("loss"), bounded(LAW3, 0.05), 0.0),
    "worst perplexity and kl": (WorstCase("perplexity"), bounded(LAW3, 0.05), 0.3),
    "worst against uniform": (WorstCase("loss", THIRD), bounded(LAW3), 0.0),
    "worst ratio in a group": (
        WorstCase("perplexity", np.array([0.6, 0.2, 0.2])),
        bounded(LAW3, groups=[GroupCap("web", [0, 1], 0.5)]),
        0.0,
    ),
    "all": (
        mean(LAW3, "perplexity"),
        bounded(LAW3, 0.1, 0.8, groups=[GroupCap("web", [0, 1], 0.8)], no_worse_than=THIRD),
        0.02,
    ),
}


def grid_of_three(steps=300):
    return np.array([(a, b, steps - a - b) for a, b in itertools.product(range(steps + 1), repeat=2) if a + b <= steps])


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_the_best_of_a_grid(kind):
    objective, constraints, kl_weight = KINDS[kind]
    found = mixture_optimum(LAW3, objective, BUDGET, constraints, kl_weight=kl_weight)
    assert found.converged
    assert found.convex
    assert found.kkt_residual <= 1e-9
    assert abs(found.weights.sum() - 1) < 1e-9
    grid = grid_of_three() / 300
    allowed = ((grid >= constraints.bounds.lower) & (grid <= constraints.upper(BUDGET) + 1e-12)).all(axis=1)
    for group in constraints.groups:
        allowed &= grid[:, group.members].sum(axis=1) <= group.share + 1e-12
    losses = LAW3.predict(grid * BUDGET)
    if constraints.no_worse_than is not None:
        allowed &= (losses <= LAW3.predict(THIRD * BUDGET) + 1e-12).all(axis=1)
    grid, losses = grid[allowed], losses[allowed]
    if isinstance(objective, Objective):
        values = objective(losses)
    else:
        levels = losses if objective.metric == "loss" else np.exp(losses)
        if objective.reference is not None:
            base = LAW3.predict(objective.reference * BUDGET)
            levels = levels - base if objective.metric == "loss" else levels / np.exp(base)
        values = levels.max(axis=1)
    values = values + kl_weight * np.where(grid > 0, grid * np.log(np.maximum(grid, 1e-300) * 3), 0).sum(axis=1)
    assert found.objective_value <= values.min() + 1e-10
    # A step of the grid is 1/300, and slopes here are below 2: the grid can miss the minimum by no more than that.
    assert values.min() - found.objective_value < 5e-3
    np.testing.assert_allclose(found.losses, LAW3.predict(found.weights * BUDGET))


def test_it_is_the_closed_form_where_domains_are_separate():
    offset, exponent, unit = np.array([1.0, 0.5, 2.0, 0.2]), np.array([0.8, 1.5, 0.6, 0.3]), np.array([1.0, 0.5, 2, 3])
    law = Additive(offset, exponent, unit * UNIT)
    for lower, upper in ((0.0, 1.0), ([0.05, 0.3, 0.0, 0.1], [0.8, 0.5, 0.25, 1.0])):
        constraints = bounded(law, lower, upper)
        tokens, _ = power_law_optimum(offset, exponent, unit * UNIT, BUDGET, constraints.bounds)
        found = mixture_optimum(law, mean(law), BUDGET, constraints)
        np.testing.assert_allclose(found.weights, tokens / BUDGET, atol=1e-9)
        assert found.active_bounds == constraints.bounds.describe(tokens / BUDGET, law.domains)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), num_domains=st.integers(2, 9), num_validation=st.integers(1, 5))
def test_feasible_stationary_and_equivariant(data, num_domains, num_validation):
    seed = data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    law = random_law(num_domains, num_validation, seed, rho=data.draw(st.sampled_from([0.4, 0.8, 1.0])))
    metric = data.draw(st.sampled_from(["loss", "perplexity"]))
    objective = mean(law, metric) if data.draw(st.booleans()) else WorstCase(metric)
    lower, upper = rng.uniform(0, 0.8 / num_domains, num_domains), rng.uniform(1.2 / num_domains, 1, num_domains)
    members = list(range(num_domains // 2))
    groups = [GroupCap("half", members, float(max(0.6, lower[members].sum() + 0.01)))] if members else []
    kl_weight = data.draw(st.sampled_from([0.0, 0.01]))
    budget = 10 ** data.draw(st.floats(5, 9))
    constraints = Constraints(Bounds(lower, np.maximum(upper, 0.9)), groups=groups)
    found = mixture_optimum(law, objective, budget, constraints, kl_weight=kl_weight)
    assert found.converged
    assert found.violation <= 1e-9
    assert abs(found.weights.sum() - 1) < 1e-9

    order = rng.permutation(num_domains)
    place = np.argsort(order)
    moved = Transfer(law.transfer[:, order], law.exponent, law.rho)
    there = Constraints(
        Bounds(lower[order], constraints.bounds.upper[order]),
        groups=[replace(group, members=place[list(group.members)].tolist()) for group in groups],
    )
    again = mixture_optimum(moved, objective, budget, there, kl_weight=kl_weight)
    assert again.objective_value == pytest.approx(found.objective_value, rel=1e-9)
    if isinstance(objective, Objective) and law.rho < 1:  # else the optimum need not be the only one
        np.testing.assert_allclose(again.weights, found.weights[order], atol=1e-6)


@pytest.mark.parametrize("objective", ["mean", "worst"])
@pytest.mark.parametrize("rho", [0.6, 1.0])
def test_a_thousand_domains(objective, rho):
    law = random_law(1000, 20, rho=rho)
    groups = [GroupCap("web", range(300), 0.25), GroupCap("code", range(300, 500), 0.1)]
    constraints = bounded(law, 0.0002, 1.0, groups=groups)
    goal = mean(law, "perplexity") if objective == "mean" else WorstCase("loss")
    found = mixture_optimum(law, goal, 1e9, constraints, kl_weight=0.001)
    assert found.kkt_residual < 1e-8
    assert found.violation < 1e-9
    assert found.evaluations < 1000
    uniform = mixture_optimum(law, goal, 1e9, bounded(law, 0.001))
    assert uniform.weights == pytest.approx(np.full(1000, 0.001))


def test_a_thousand_domains_no_worse_than_uniform():
    law = random_law(1000, 20)
    found = mixture_optimum(law, mean(law), 1e9, bounded(law, no_worse_than=np.full(1000, 1e-3)))
    assert found.kkt_residual < 1e-8
    assert (found.losses <= law.predict(np.full(1000, 1e6)) + 1e-9).all()


def test_the_worst_case_equalises_the_domains_it_is_about():
    law = Transfer(np.diag([2.0, 1.0, 0.5]) + 0.05, np.array([0.5, 0.5, 0.5]))
    found = mixture_optimum(law, WorstCase("loss"), BUDGET, bounded(law))
    np.testing.assert_allclose(found.losses, found.objective_value, rtol=1e-9)
    assert found.weights[2] > found.weights[1] > found.weights[0]


def test_no_worse_than_holds_and_is_named():
    free = mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3))
    limits = LAW3.predict(THIRD * BUDGET)
    assert free.losses[2] > limits[2] + 1e-3
    held = mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3, no_worse_than=THIRD))
    assert (held.losses <= limits + 1e-9).all()
    assert "no worse than uniform: v2" in held.active_bounds
    assert free.objective_value < held.objective_value < mean(LAW3)(limits)


def test_where_nobody_can_gain_the_reference_is_kept():
    # Each validation domain learns from its own domain alone, so any other mixture is worse for one of them.
    law = Transfer(np.eye(4) * [2.0, 1.0, 0.5, 3.0], np.array([0.5, 0.3, 0.6, 0.4]))
    reference = np.array([0.4, 0.3, 0.2, 0.1])
    constraints = bounded(law, no_worse_than=reference, reference_name="base")
    found = mixture_optimum(law, mean(law), BUDGET, constraints)
    np.testing.assert_allclose(found.weights, reference, atol=1e-6)
    assert found.converged


def test_what_holds_is_named():
    groups = [GroupCap("web", [0, 1], 0.5)]
    unique = np.array([9e9, 9e9, 0.15e6, 9e9])
    law = Transfer(np.array([[2.0, 0.1, 1.0, 0.001]]), np.array([0.5]))
    constraints = bounded(law, 0.02, [1, 1, 1, 0.4], groups=groups, unique_tokens=unique, max_epochs=4)
    found = mixture_optimum(law, mean(law), BUDGET, constraints)
    assert found.converged
    assert "d2: cap of 4 epochs 0.12" in found.active_bounds
    assert "group web: 0.5" in found.active_bounds
    fewer = mixture_optimum(law, mean(law), BUDGET, bounded(law, 0.02))
    assert "d3: lower 0.02" in fewer.active_bounds
    assert fewer.method == "Uno"


def test_bounds_that_leave_one_mixture_give_it():
    shares = np.array([0.2, 0.3, 0.5])
    for bounds in (Bounds(shares, np.ones(3)), Bounds(np.zeros(3), shares)):
        found = mixture_optimum(LAW3, mean(LAW3), BUDGET, Constraints(bounds))
        np.testing.assert_allclose(found.weights, shares, atol=1e-12)
        assert found.converged
    one = GroupCap("web", [0, 1], 0.5)
    found = mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3, [0.2, 0.3, 0.0], groups=[one]))
    np.testing.assert_allclose(found.weights, shares, atol=1e-12)


@pytest.mark.parametrize("prior", [None, np.array([0.7, 0.2, 0.1])])
def test_a_large_kl_weight_returns_the_prior(prior):
    found = mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3), kl_weight=1e7, prior=prior)
    np.testing.assert_allclose(found.weights, THIRD if prior is None else prior, atol=1e-6)
    assert found.converged


def test_kl_pulls_steadily_towards_the_prior():
    weights = [
        mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3), kl_weight=strength).weights
        for strength in (0.0, 0.01, 0.1, 1.0)
    ]
    assert (np.diff([divergence(w, THIRD) for w in weights]) < 0).all()


def test_expected_optimum_of_one_law_is_its_optimum():
    one = mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3))
    same = expected_optimum([LAW3, LAW3, LAW3], mean(LAW3), BUDGET, bounded(LAW3))
    np.testing.assert_allclose(same.weights, one.weights, atol=1e-8)
    assert same.objective_value == pytest.approx(one.objective_value)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6), num_domains=st.integers(2, 12), kind=st.sampled_from(["loss", "perplexity", "worst"])
)
def test_where_the_search_starts_does_not_matter(seed, num_domains, kind):
    law, rng = random_law(num_domains, 4, seed), np.random.default_rng(seed)
    goal = WorstCase("loss") if kind == "worst" else mean(law, kind)
    constraints = bounded(law, 0.02, groups=[GroupCap("first", [0], 0.4)])
    cold = mixture_optimum(law, goal, BUDGET, constraints)
    start = rng.dirichlet(np.full(num_domains, 0.3))  # bounds may not allow it
    warm = expected_optimum([law], goal, BUDGET, constraints, convex=True, start=start)
    assert warm.objective_value == pytest.approx(cold.objective_value, rel=1e-9)
    assert warm.converged
    quick = expected_optimum([law], goal, BUDGET, constraints, convex=True, start=start, accuracy=1e-6)
    assert quick.kkt_residual <= 1e-6
    if kind != "worst":  # whose optimum need not be the only one
        np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-6)
        np.testing.assert_allclose(quick.weights, cold.weights, atol=1e-4)


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_expected_optimum_lies_between_those_of_two_draws(metric):
    left = Transfer(np.array([[2.0, 0.5]]), np.array([0.5]))
    right = Transfer(np.array([[0.5, 2.0]]), np.array([0.5]))
    goal, constraints = mean(left, metric), bounded(left)
    first, second = (mixture_optimum(law, goal, BUDGET, constraints).weights[0] for law in (left, right))
    both = expected_optimum([left, right], goal, BUDGET, constraints)
    assert second < both.weights[0] < first
    assert both.weights[0] == pytest.approx(0.5, abs=1e-8)  # the draws mirror each other
    shares = np.linspace(0, 1, 2001)
    tokens = np.stack([shares, 1 - shares], axis=1) * BUDGET
    values = (goal(left.predict(tokens)) + goal(right.predict(tokens))) / 2
    assert both.objective_value <= values.min() + 1e-12


def test_expected_worst_case_is_of_the_mean_over_laws():
    laws = [random_law(3, 3, seed) for seed in range(5)]
    found = expected_optimum(laws, WorstCase("loss"), BUDGET, bounded(laws[0]))
    grid = grid_of_three(60) / 60
    values = np.mean([law.predict(grid * BUDGET) for law in laws], axis=0).max(axis=1)
    assert found.objective_value <= values.min() + 1e-10
    assert found.converged


def wave(shares):
    return 2 + 0.3 * np.sin(9 * shares[..., :1]) + 0.1 * shares[..., 1:2]


def wave_slopes(shares):
    return np.array([[2.7 * np.cos(9 * shares[0]), 0.1, 0.0]])


def test_a_law_that_is_not_convex_is_said_to_be_so_and_searched_from_several_starts():
    law = OfShares(wave, wave_slopes, 3, 1)
    found = mixture_optimum(law, mean(law), BUDGET, bounded(law))
    assert not found.convex
    assert found.num_starts > 1
    assert found.method == f"Uno, best of {found.num_starts} starts"
    assert found.objective_value <= wave(grid_of_three() / 300).min() + 1e-9
    assert found.converged
    told = mixture_optimum(law, mean(law), BUDGET, bounded(law), convex=True)
    assert told.num_starts == 1


@dataclass(frozen=True)
class Interrupted(Transfer):
    """A law with something that happens in a later call of its slopes."""

    happens: Callable[[], None] = lambda: None
    calls: list[None] = field(default_factory=list)

    def slopes(self, tokens):
        self.calls.append(None)
        if len(self.calls) == 5:
            self.happens()
        return super().slopes(tokens)


def test_what_a_law_raises_within_the_search_ends_it():
    law = Interrupted(LAW3.transfer, LAW3.exponent, happens=lambda: {}["lost"])
    with pytest.raises(KeyError, match="lost") as raised:
        mixture_optimum(law, mean(law), BUDGET, bounded(law), convex=True)
    assert raised.traceback[-2].name == "slopes"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_the_search_ends_it_and_no_later_one(signum):
    law = Interrupted(LAW3.transfer, LAW3.exponent, happens=lambda: signal.raise_signal(signum))
    with pytest.raises(Stopped, match=str(128 + signum)):
        mixture_optimum(law, mean(law), BUDGET, bounded(law), convex=True)
    assert mixture_optimum(law, mean(law), BUDGET, bounded(law), convex=True).converged


def test_a_linear_law_ends_in_a_corner():
    matrix = np.array([[1.0, 2.0, 3.0], [2.5, 1.0, 1.2]])
    law = OfShares(lambda shares: shares @ matrix.T, lambda shares: matrix, 3, 2)
    found = mixture_optimum(law, mean(law), BUDGET, bounded(law, 0.1))
    assert found.convex
    np.testing.assert_allclose(found.weights, [0.1, 0.8, 0.1], atol=1e-9)
    assert found.converged


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"lower": [0.3, 0.3, 0.0], "groups": [GroupCap("web", [0, 1], 0.5)]},
            r"lower bounds of members of group 'web' sum to 0.6 \(d0 0.3, d1 0.3\) but its cap is 0.5",
        ),
        (
            {"unique_tokens": np.array([1.0, 2.0, 2.0]) * 1e9, "max_epochs": 4.0},
            r"caps from unique tokens in 4 epochs and bounds.upper sum to 0.8, below 1, at 25B tokens \(capped: d0 "
            r"0.16, d1 0.32, d2 0.32\); raise bounds.max_epochs to 5 or lower the budget to 20B",
        ),
        (
            {"upper": [1.0, 0.2, 0.2], "unique_tokens": np.array([0.0, 9e9, 9e9]), "max_epochs": 4.0},
            r"capped: d0 0\); raise bounds.upper too",
        ),
        (
            {"lower": [0.2, 0.0, 0.0], "unique_tokens": np.array([1e9, 9e9, 9e9]), "max_epochs": 4.0},
            r"'d0' has unique tokens for a share of 0.16 in 4 epochs at 25B tokens, below its bounds.lower 0.2; lower "
            r"that bound or the budget, or raise bounds.max_epochs to 5",
        ),
        (
            {"lower": [0.2, 0.0, 0.0], "unique_tokens": np.array([0.0, 9e9, 9e9]), "max_epochs": 4.0},
            "'d0' has unique tokens for a share of 0 .* lower that bound or the budget$",
        ),
        (
            {"upper": [1.0, 1.0, 0.3], "groups": [GroupCap("web", [0, 1], 0.5)]},
            r"caps of groups web \(0.5\) and the largest shares of domains leave at most 0.8 .* in no group sum to 0.3",
        ),
        (
            {"groups": [GroupCap("web", [0, 1], 0.5), GroupCap("code", [1, 2], 0.4)]},
            r"caps of groups web \(0.5\), code \(0.4\) .* at most 0.9",
        ),
        ({"groups": [GroupCap("web", [0, 3], 0.5)]}, "group 'web' has members .*indices 0 to 2"),
        ({"groups": [GroupCap("web", [0, 0], 0.5)]}, "group 'web' has members"),
        ({"groups": [GroupCap("web", [0], 1.5)]}, "cap of group 'web' is 1.5; allowed are shares"),
        ({"unique_tokens": np.ones(3) * 1e9}, "max_epochs is None; with bounds.unique_tokens it must be"),
        ({"unique_tokens": np.ones(2), "max_epochs": 1}, "unique_tokens must be 3 numbers"),
        ({"no_worse_than": np.array([0.5, 0.2, 0.2])}, "reference mixture 'uniform' must be 3 shares"),
    ],
)
def test_constraints_that_clash_are_named(others, message):
    constraints = bounded(LAW3, others.pop("lower", 0.0), others.pop("upper", 1.0), **others)
    with pytest.raises(UserError, match=message):
        mixture_optimum(LAW3, mean(LAW3), 25e9, constraints)


@pytest.mark.parametrize(
    ("bounds", "budget", "message"),
    [
        (Bounds(np.full(3, 0.5), np.ones(3)), 1e6, "bounds.lower sum to 1.5"),
        (Bounds(np.zeros(3), np.full(3, 0.3)), 1e6, "bounds.upper sum to 0.9"),
        (
            Bounds(np.array([0.4, 0, 0]), np.array([0.3, 1, 1])),
            1e6,
            "bounds.lower of 'd0' is 0.4, above its bounds.upper",
        ),
        (Bounds(np.zeros(2), np.ones(2)), 1e6, "bounds are for 2 domains, but the law has 3"),
        (Bounds(np.zeros(3), np.ones(3)), 0.0, "token budget is 0.0; it must be above 0"),
    ],
)
def test_bounds_that_clash_are_named(bounds, budget, message):
    with pytest.raises(UserError, match=message):
        check_constraints(Constraints(bounds), budget, LAW3.domains)


def test_a_reference_out_of_reach_is_named():
    law = Transfer(np.diag([2.0, 1.0, 0.5]) + 0.05, np.array([0.5, 0.5, 0.5]))
    constraints = bounded(law, groups=[GroupCap("web", [0, 1], 0.3)], no_worse_than=THIRD)
    message = (
        "'no worse than uniform' cannot be met .* nats worse on v0, v1 with group web: 0.3; the uniform mixture itself"
    )
    with pytest.raises(UserError, match=message):
        mixture_optimum(law, mean(law), BUDGET, constraints)


def test_a_reference_outside_bounds_that_others_can_match_is_met():
    law = Transfer(np.array([[2.0, 0.5, 0.1], [1.0, 0.9, 0.2]]), np.array([0.5, 0.7]))
    found = mixture_optimum(law, mean(law), BUDGET, bounded(law, 0.0, [1, 1, 0.1], no_worse_than=THIRD))
    assert found.converged
    assert (found.losses <= law.predict(THIRD * BUDGET) + 1e-9).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_weight": -1.0}, "kl_weight is -1.0; it must be a number of at least 0"),
        ({"kl_weight": 1.0, "prior": np.array([0.5, 0.5, 0.0])}, "prior of 'd2' is 0.*bounds.upper to 0"),
        ({"prior": np.array([0.5, 0.4, 0.0])}, "prior must be 3 shares"),
    ],
)
def test_bad_priors_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        mixture_optimum(LAW3, mean(LAW3), BUDGET, bounded(LAW3), **options)


def test_what_cannot_be_optimised_is_refused():
    with pytest.raises(UserError, match="there is no law to optimise under"):
        expected_optimum([], mean(LAW3), BUDGET, bounded(LAW3))
    with pytest.raises(UserError, match=r"objective\.metric is 'bits'; allowed are loss, perplexity"):
        mixture_optimum(LAW3, WorstCase("bits"), BUDGET, bounded(LAW3))
    with pytest.raises(UserError, match="reference mixture of the worst case must be 3 shares"):
        mixture_optimum(LAW3, WorstCase("loss", np.ones(3)), BUDGET, bounded(LAW3))
    flat = OfShares(lambda shares: np.ones((*shares.shape[:-1], 1)), lambda shares: np.zeros((1, 3)), 3, 1)
    with pytest.raises(UserError, match="all slopes of the law 'of shares' are 0 at the start"):
        mixture_optimum(flat, mean(flat), BUDGET, bounded(flat))
    steep = SimpleNamespace(**{key: getattr(LAW3, key) for key in ("name", "domains", "validation_domains")})
    steep.predict = lambda tokens: LAW3.predict(tokens) * 1e3
    steep.slopes = lambda tokens: LAW3.slopes(tokens) * 1e3
    with pytest.raises(UserError, match=r"perplexity values or slopes that are not finite .* objective.metric=loss"):
        mixture_optimum(steep, mean(LAW3, "perplexity"), BUDGET, bounded(LAW3))
    steep.slopes = lambda tokens: LAW3.slopes(tokens) * np.nan
    with pytest.raises(UserError, match=r"loss values or slopes that are not finite at .* tokens; check its fit$"):
        mixture_optimum(steep, mean(LAW3), BUDGET, bounded(LAW3))


@pytest.mark.parametrize("seed", range(20))
def test_what_an_error_says_is_enough_is_enough(seed):
    text, domains = np.random.default_rng(seed).uniform(1e8, 1e10, 3), ["a", "b", "c"]

    def check(budget, max_epochs, lower=0.0, text=text):
        check_constraints(Constraints(make_bounds(lower, 1.0, domains), text, max_epochs), budget, domains)

    with pytest.raises(UserError, match="below 1") as refused:
        check(1e12, 2.0)
    ((epochs, billions),) = re.findall(r"max_epochs to (\S+) or lower the budget to (\S+)B", str(refused.value))
    check(1e12, float(epochs))
    check(float(billions) * 1e9, 2.0)

    scarce = np.array([text[0], 1e12, 1e12])
    with pytest.raises(UserError, match="'a' has unique tokens") as refused:
        check(1e11, 1.0, [0.9, 0.0, 0.0], scarce)
    (epochs,) = re.findall(r"max_epochs to (\S+)", str(refused.value))
    check(1e11, float(epochs), [0.9, 0.0, 0.0], scarce)
