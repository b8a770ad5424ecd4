"""A good mixture under a law without slopes: the mean of the best of many drawn mixtures, as in RegMix."""

from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.constraints import Constraints, check_constraints, check_shares, group_rows
from autoscale_exp.laws.solver.mixture_optimum import MixtureOptimum

# RegMix, arXiv 2407.01492; sail-sg/regmix, regression_fitting/regression.ipynb.
NUM_DRAWN = 100_000
NUM_AVERAGED = 128
SEED = 42


@dataclass(frozen=True)
class DrawnMixtures:
    """Mixtures drawn within constraints, and the losses that a law predicts for them. The draws are always the same.

    Attributes:
        law: the law that predicts.
        budget: tokens.
        constraints: the constraints that all mixtures meet.
        weights: (N, K) shares.
        losses: (N, V) predicted losses.
    """

    law: LossLaw
    budget: float
    constraints: Constraints
    weights: FloatArray
    losses: FloatArray

    def optimum(self, objective: Objective) -> MixtureOptimum:
        """Returns the mean of the 128 best mixtures. This is no exact optimum, so it never counts as converged."""
        best = np.argsort(objective(self.losses), kind="stable")[:NUM_AVERAGED]
        weights = self.weights[best].mean(axis=0)
        weights /= weights.sum()
        losses = self.law.predict(weights * self.budget)
        return MixtureOptimum(
            tokens=int(self.budget),
            weights=weights,
            active_bounds=self.constraints.describe(weights, self.budget, self.law.domains),
            method=f"mean of the {len(best)} best of {len(self.weights)} drawn mixtures",
            objective_value=float(objective(losses)),
            kkt_residual=None,
            losses=losses,
            violation=self.constraints.violation(weights, self.budget),
            converged=False,
            convex=False,
            num_starts=1,
            evaluations=0,
        )


def draw_mixtures(law: LossLaw, budget: float, constraints: Constraints, prior: FloatArray | None) -> DrawnMixtures:
    """Draws 100,000 mixtures from a Dirichlet distribution with the prior as parameters, and keeps those allowed.

    Source: RegMix, whose prior is the natural shares. The constraints are ours: lower bounds take their part of each
    mixture first, and mixtures that break another constraint are dropped.

    Args:
        law: a law without slopes.
        budget: tokens.
        constraints: what mixtures must meet.
        prior: (K,) shares; equal ones if None.

    Raises:
        UserError: constraints clash, no draw meets them, or one of them needs slopes.
    """
    check_constraints(constraints, budget, law.domains)
    if constraints.no_worse_than is not None:
        raise UserError(
            f"objective.no_worse_than_uniform needs a law with slopes, but law={law.name} has none; choose another law"
        )
    num_domains = len(law.domains)
    shares = np.full(num_domains, 1 / num_domains) if prior is None else prior
    check_shares(shares, num_domains, "objective.prior")
    lower, upper = constraints.bounds.lower, constraints.upper(budget)
    weights = np.tile(lower, (NUM_DRAWN, 1))
    drawn = np.random.default_rng(SEED).dirichlet(shares[shares > 0], NUM_DRAWN)
    weights[:, shares > 0] += (1 - lower.sum()) * drawn
    limits = np.array([group.share for group in constraints.groups])
    inside = (weights <= upper + 1e-9).all(axis=1) & (weights @ group_rows(constraints).T <= limits + 1e-9).all(axis=1)
    if not inside.any():
        raise UserError(
            f"none of {NUM_DRAWN} drawn mixtures meets the bounds; loosen them, as law={law.name} searches by drawing"
        )
    return DrawnMixtures(law, budget, constraints, weights[inside], law.predict(weights[inside] * budget))
