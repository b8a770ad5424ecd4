"""A good mixture under a law without slopes: the mean of the best of many drawn mixtures, as RegMix does it."""

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.constraints import Constraints, check_constraints
from autoscale_exp.laws.solver.mixture_optimum import MixtureOptimum

NUM_DRAWN = 4000
NUM_AVERAGED = 32
CONCENTRATIONS = (0.3, 1.0, 3.0)  # of the Dirichlet draws: from lopsided to even mixtures


def sampled_optimum(law: LossLaw, objective: Objective, budget: float, constraints: Constraints) -> MixtureOptimum:
    """The mean of the 32 best of 4,000 mixtures within the constraints, always the same ones.

    Source: RegMix, arXiv 2407.01492, which averages the 128 best of 100,000. No optimum in the strict sense, and never
    called converged.

    Raises:
        UserError: constraints that clash, that draws cannot meet, or that need slopes.
    """
    check_constraints(constraints, budget, law.domains)
    if constraints.no_worse_than is not None:
        raise UserError(f"objective.no_worse_than_uniform needs a law with slopes, which law={law.name} has not")
    rng, num_domains = np.random.default_rng(0), len(law.domains)
    shares = [rng.dirichlet(np.full(num_domains, c), NUM_DRAWN // len(CONCENTRATIONS)) for c in CONCENTRATIONS]
    lower = constraints.bounds.lower
    drawn = lower + (1 - lower.sum()) * np.concatenate(shares)
    drawn = drawn[[constraints.violation(weights, budget) < 1e-9 for weights in drawn]]
    if not len(drawn):
        raise UserError(f"none of {NUM_DRAWN} drawn mixtures meets the bounds; law={law.name} needs looser ones")
    values = objective(law.predict(drawn * budget))
    weights = drawn[np.argsort(values, kind="stable")[:NUM_AVERAGED]].mean(axis=0)
    weights /= weights.sum()
    losses = law.predict(weights * budget)
    return MixtureOptimum(
        tokens=int(budget),
        weights=weights,
        active_bounds=constraints.describe(weights, budget, law.domains),
        method=f"mean of the {NUM_AVERAGED} best of {len(drawn)} drawn mixtures",
        objective_value=float(objective(losses)),
        kkt_residual=None,
        losses=losses,
        violation=constraints.violation(weights, budget),
        converged=False,
        convex=False,
        num_starts=1,
        evaluations=0,
    )
