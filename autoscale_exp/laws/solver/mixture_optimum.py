"""The best mixture under fitted laws at a token budget T, within constraints, and how exactly it is the best.

J(w) = objective of law.predict(w T) + kl_weight KL(w || prior) is minimised over shares w. Most laws are convex in the
tokens, so the minimum is global. For a law that is not, the best of several starts is taken, and the result says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import METRICS, Objective
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.laws.solver.constraints import (
    Constraints,
    check_constraints,
    check_shares,
)
from autoscale_exp.laws.solver.kkt import Point, worth
from autoscale_exp.laws.solver.mixture_program import MixtureProblem, MixtureProgram, Predictions, WorstCase, divergence
from autoscale_exp.laws.solver.uno import minimise

KKT_TOLERANCE = 1e-6
VIOLATION_TOLERANCE = 1e-8
ACCURACY = 1e-9  # KKT residual to reach
# Uno's methods, one after the other while the point is not accurate enough. Each goes on from near the end of the one
# before, in units of the slopes there. no_worse_than may leave no interior, so then SQP comes first, unless domains are
# so many that it is slow.
PRESETS = "ipopt", "ipopt", "filtersqp", "ipopt"
MOST_FOR_SQP = 100
NUM_STARTS = 8  # starts under a law that is not convex


@dataclass(frozen=True, kw_only=True)
class MixtureOptimum(Optimum):
    """An optimum under one or more laws, and how exactly it is one.

    Attributes:
        losses: (V,) predicted losses, on average over the laws.
        violation: largest amount by which a share breaks a constraint, or a loss (nats) exceeds its limit.
        converged: whether kkt_residual is at most 1e-6 and violation at most 1e-8.
        convex: whether losses were convex between all pairs of mixtures tried; if so, the optimum is global.
        num_starts: starts of the search; more than 1 if the law is not convex.
        evaluations: number of evaluations of the laws' slopes.
    """

    losses: FloatArray
    violation: float
    converged: bool
    convex: bool
    num_starts: int
    evaluations: int


def expected_optimum(
    laws: Sequence[LossLaw],
    objective: Objective | WorstCase,
    budget: float,
    constraints: Constraints,
    *,
    kl_weight: float = 0.0,
    prior: FloatArray | None = None,
    convex: bool | None = None,
    start: FloatArray | None = None,
    accuracy: float = ACCURACY,
) -> MixtureOptimum:
    """Minimises the mean over laws of the objective, plus kl_weight KL(w || prior), at a budget.

    With draws of one law for `laws`, this is the best mixture under the fit's uncertainty. A worst case is the largest,
    over validation domains, of the mean over laws. `no_worse_than` compares mean losses.

    Args:
        laws: one or more fitted laws of the same domains; only their losses and slopes are used.
        objective: a weighted mean, or the worst case.
        budget: T, tokens.
        constraints: what the shares must meet.
        kl_weight: in units of the objective.
        prior: (K,) shares > 0; equal ones if None.
        convex: whether the laws are convex in tokens; if None, this is tried on pairs of mixtures.
        start: (K,) shares of a mixture near the best, if one is known.
        accuracy: KKT residual that suffices.

    Raises:
        UserError: no mixture meets the constraints together (the message names them), or a law has no slopes.
    """
    if not laws:
        raise UserError("there is no law to optimise under; a law without draws has an optimum only by itself")
    domains = laws[0].domains
    check_constraints(constraints, budget, domains)
    if isinstance(objective, WorstCase):
        if objective.metric not in METRICS:
            raise UserError(f"objective.metric is '{objective.metric}'; allowed are {', '.join(METRICS)}")
        if objective.reference is not None:
            check_shares(objective.reference, len(domains), "the reference mixture of the worst case")
    prior = _check_prior(prior, kl_weight, constraints.upper(budget), domains)
    predictions = Predictions(laws, budget, objective.metric)
    task = _Task(predictions, objective, constraints, kl_weight, prior, convex=convex, start=start, accuracy=accuracy)
    if constraints.no_worse_than is not None:
        task.check_reference()
    return task.solve()


def _check_prior(prior: FloatArray | None, kl_weight: float, upper: FloatArray, domains: Sequence[str]) -> FloatArray:
    if not (np.isfinite(kl_weight) and kl_weight >= 0):
        raise UserError(f"objective.kl_weight is {kl_weight}; it must be a number of at least 0")
    if prior is None:
        return np.full(len(domains), 1 / len(domains))
    check_shares(prior, len(domains), "objective.prior")
    missing = np.flatnonzero((np.asarray(prior) <= 0) & (upper > 0))
    if kl_weight > 0 and len(missing):
        raise UserError(
            f"the prior of '{domains[missing[0]]}' is 0, so any share of it is infinitely far from the prior; give it "
            "a share above 0 or set its bounds.upper to 0"
        )
    return np.asarray(prior, dtype=np.float64)


class _Task(MixtureProblem):
    """A problem, the starts of its search, and its result."""

    def __init__(
        self, *problem: Any, convex: bool | None, start: FloatArray | None = None, accuracy: float = ACCURACY
    ) -> None:
        super().__init__(*problem)
        self.near, self.accuracy = start, accuracy
        self.convex = self._is_convex() if convex is None else convex

    def _is_convex(self) -> bool:
        rng = np.random.default_rng(0)
        pairs = np.concatenate([rng.dirichlet(np.full(len(self.domains), a), size=(2, 24)) for a in (0.1, 1.0)], axis=1)
        pairs = 0.999 * pairs + 0.001 / len(self.domains)  # (2, 48, K); off the borders, where a law may be infinite
        (first, second), middle = pairs, pairs.mean(axis=0)
        for values in range(2):
            ends = (self.predictions.values(first)[values] + self.predictions.values(second)[values]) / 2
            with np.errstate(invalid="ignore"):  # infinite perplexities
                excess = self.predictions.values(middle)[values] - ends  # (48, V)
            if isinstance(self.objective, Objective) and self.constraints.no_worse_than is None:
                excess, ends = excess @ self.objective.weights, ends @ self.objective.weights
            if (excess > 1e-9 * np.maximum(1, np.abs(ends))).any():
                return False
        return True

    def solve(self) -> MixtureOptimum:
        """The best of the starts; one start if convex."""
        num_starts = 1 if self.convex or self.free.sum() < 2 else NUM_STARTS
        points = []
        for index in range(num_starts):
            full, point = self._solve_from(self._start(index))
            points.append((full, point, self._violation(full), self._value(full)))
        weights, point, violation, value = min(points, key=lambda p: (max(p[2] - VIOLATION_TOLERANCE, 0), p[3]))
        losses = self.predictions.values(weights)[0]
        active = self.constraints.describe(weights, self.budget, self.domains) + self._held(losses, point)
        return MixtureOptimum(
            tokens=int(self.budget),
            weights=weights,
            active_bounds=active,
            method="Uno" if num_starts == 1 else f"Uno, best of {num_starts} starts",
            objective_value=value,
            kkt_residual=point.residual,
            losses=losses,
            violation=violation,
            converged=point.residual <= KKT_TOLERANCE and violation <= VIOLATION_TOLERANCE,
            convex=self.convex,
            num_starts=num_starts,
            evaluations=self.predictions.evaluations,
        )

    def check_reference(self) -> None:
        """Refuses a no_worse_than that no mixture within the other constraints meets.

        Raises:
            UserError: it names the validation domains that are worse even under the mixture that comes nearest.
        """
        reference = self.constraints.no_worse_than
        assert reference is not None
        if self.constraints.violation(reference, self.budget) <= 1e-9:
            return  # the reference itself meets all constraints
        others = replace(self.constraints, no_worse_than=None)
        predictions = Predictions(self.predictions.laws, self.budget, "loss")
        worst = WorstCase("loss", reference)
        nearest = _Task(predictions, worst, others, 0.0, self.prior, convex=self.convex).solve()
        excess = nearest.losses - predictions.values(reference)[0]
        if excess.max() <= VIOLATION_TOLERANCE:
            return
        name = self.constraints.reference_name
        held = [self.validation_domains[v] for v in np.flatnonzero(excess >= excess.max() - 1e-5)]
        because = f" with {', '.join(nearest.active_bounds)}" if nearest.active_bounds else ""
        raise UserError(
            f"'no worse than {name}' cannot be met together with the other constraints: the mixture that comes nearest "
            f"is still {excess.max():.4g} nats worse on {', '.join(held)}{because}; the {name} mixture itself breaks "
            "them, so loosen bounds, caps or groups, or drop it"
        )

    def _start(self, index: int) -> FloatArray:
        """(K,) shares strictly within the limits of all free domains. Start 0 is even, or near a given mixture."""
        room = self.upper - self.lower
        pull = np.ones(len(room))
        # Start 1 is near the reference, as few other mixtures may meet its limits.
        given = self.near if index == 0 else self.constraints.no_worse_than if index == 1 else None
        if given is not None:
            middle = self._start(0) if index else self._between(pull)
            inside = 0.98 * np.clip(given, self.lower, self.upper) + 0.02 * middle
            pull = np.clip((inside - self.lower) / np.where(self.free, room, 1.0), 1e-9, 1 - 1e-9)
            pull = -np.log1p(-pull)
        elif index:
            pull = np.random.default_rng(index).dirichlet(np.full(len(room), 0.5)) + 1e-3 / len(room)
        return self._between(pull)

    def _between(self, pull: FloatArray) -> FloatArray:
        """(K,) shares that sum to 1; the larger its pull, the further a share is from its lower limit."""
        room = self.upper - self.lower

        def shares(log_time: float) -> FloatArray:
            return self.lower - room * np.expm1(-np.exp(log_time) * pull)

        if not self.free.any():
            return self.lower
        return shares(brentq(lambda x: float(shares(x).sum()) - 1, -80.0, 30.0, xtol=1e-13))

    def _solve_from(self, start: FloatArray) -> tuple[FloatArray, Point]:
        if not self.free.any():
            return start / start.sum(), Point(start, np.zeros(0), 0.0, 0.0)
        best: tuple[FloatArray, Point] | None = None
        needs_no_interior = self.limits is not None and self.free.sum() <= MOST_FOR_SQP
        for preset in ("filtersqp", *PRESETS) if needs_no_interior else PRESETS:
            program = MixtureProgram(self, start)
            point = minimise(program, start[self.free], self.accuracy, preset)
            weights = program.full(point.w)
            if best is None or worth(point) < worth(best[1]):
                best = weights, point
            gradient, rows = program.derivatives(point.w)
            # The slopes at the start set the units. Where slopes here are far smaller, Uno ends early.
            if worth(point) <= max(1e-8, self.accuracy) and np.abs(gradient + point.y @ rows).max() > 0.05:
                break
            start = 0.9 * weights + 0.1 * start
        assert best is not None
        return best

    def _value(self, weights: FloatArray) -> float:
        levels = self.predictions.values(weights)[1]
        if isinstance(self.objective, Objective):
            value = float(levels @ self.objective.weights)
        else:
            value = float((levels / self.unit - self.offset).max())
        return value + self.kl_weight * divergence(weights, self.prior)

    def _violation(self, weights: FloatArray) -> float:
        violation, limits = self.constraints.violation(weights, self.budget), self.limits
        if limits is None:
            return violation
        return max(violation, float((self.predictions.values(weights)[0] - limits).max()))

    def _held(self, losses: FloatArray, point: Point) -> list[str]:
        """Says which validation domains no_worse_than holds: those on their limit with a positive multiplier."""
        limits = self.limits
        if limits is None or not len(point.y):
            return []
        prices = point.y[-len(limits) :]
        held = (losses >= limits - 1e-7 * np.maximum(1, np.abs(limits))) & (prices > 1e-7)
        name = self.constraints.reference_name
        return [f"no worse than {name}: {self.validation_domains[v]}" for v in np.flatnonzero(held)]
