"""The best mixture at a token budget, and the bounds of its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError

SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bounds:
    """Limits on domain weights.

    Attributes:
        lower: (K,) smallest weights.
        upper: (K,) largest weights.
    """

    lower: FloatArray
    upper: FloatArray

    def active(self, weights: FloatArray) -> FloatArray:
        """(K,) -1 where a weight is on its lower bound, 1 on its upper one, else 0. Bounds of 0 and 1 do not count."""
        on_lower = (weights <= self.lower * (1 + 1e-6)) & (self.lower > 0)
        on_upper = (weights >= self.upper * (1 - 1e-6)) & (self.upper < 1)
        return np.where(on_lower, -1, np.where(on_upper, 1, 0))

    def describe(self, weights: FloatArray, domains: Sequence[str]) -> list[str]:
        """The active bounds in words, such as 'github: lower 0.0286'."""
        active = self.active(weights)
        return [
            f"{domain}: {'lower' if side < 0 else 'upper'} {(self.lower if side < 0 else self.upper)[i]:.4g}"
            for i, (domain, side) in enumerate(zip(domains, active, strict=True))
            if side
        ]


def make_bounds(lower: Any, upper: Any, domains: Sequence[str]) -> Bounds:
    """Makes bounds. Each side is one number, a list in domain order or a mapping by name.

    A domain that a mapping leaves out has no bound on that side.

    Raises:
        UserError: a wrong length, a share outside 0 to 1, or bounds that no mixture can meet.
    """
    sides = {}
    for key, value, unbound in (("bounds.lower", lower, 0.0), ("bounds.upper", upper, 1.0)):
        is_one = isinstance(value, int | float)
        shares = [value] * len(domains) if is_one else in_order(value, domains, key=key, others=unbound)
        if len(shares) != len(domains):
            raise UserError(
                f"{key} has {len(shares)} entries, but there are {len(domains)} domains: {', '.join(domains)}"
            )
        for domain, share in zip(domains, shares, strict=True):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise UserError(f"{key} of '{domain}' is {share}; allowed are shares of the budget from 0 to 1")
        sides[key] = np.asarray(shares, dtype=np.float64)
    bounds = Bounds(sides["bounds.lower"], sides["bounds.upper"])
    for index, domain in enumerate(domains):
        if bounds.lower[index] > bounds.upper[index]:
            raise UserError(
                f"bounds.lower of '{domain}' is {bounds.lower[index]:g}, above its bounds.upper {bounds.upper[index]:g}"
            )
    if bounds.lower.sum() > 1 + SUM_TOLERANCE:
        raise UserError(f"bounds.lower sum to {bounds.lower.sum():.6g}; they must leave room within 1")
    if bounds.upper.sum() < 1 - SUM_TOLERANCE:
        raise UserError(f"bounds.upper sum to {bounds.upper.sum():.6g}; they must reach 1")
    return bounds


@dataclass(frozen=True)
class Optimum:
    """The best mixture at a budget, according to a law.

    Attributes:
        tokens: the budget.
        weights: (K,) domain weights, summing to 1.
        active_bounds: the constraints that hold it, in words.
        method: how it was found.
        objective_value: the objective that the law predicts for it; None if the law predicts none.
        kkt_residual: largest relative violation of the stationarity conditions; None if nothing was optimised.
    """

    tokens: int
    weights: FloatArray
    active_bounds: list[str]
    method: str
    objective_value: float | None = None
    kkt_residual: float | None = None


def power_law_optimum(
    offset: FloatArray, exponent: FloatArray, unit: FloatArray, budget: float, bounds: Bounds
) -> tuple[FloatArray, float]:
    """Minimises sum_i (a_i + n_i / u_i)^(-gamma_i) over sum_i n_i = budget within bounds.

    The problem is convex. Every domain off its bounds meets gamma_i (a_i + n_i / u_i)^(-gamma_i - 1) / u_i = lambda
    (AutoScale, arXiv 2407.20177, stage 1). So n_i(lambda) has a closed form, and lambda is the root of one monotone
    function.

    Args:
        offset: (K,) a_i, in multiples of u_i.
        exponent: (K,) gamma_i >= 0; a domain with 0 does not respond and gets its lower bound.
        unit: (K,) u_i, in tokens.
        budget: tokens.
        bounds: limits on the weights.

    Returns:
        (K,) tokens summing to `budget`, and the KKT residual relative to lambda.

    Raises:
        UserError: no domain responds.
    """
    lower, upper = bounds.lower * budget, bounds.upper * budget
    responds = exponent > 0
    if not responds.any():
        raise UserError(
            "no domain's tokens change the objective by more than the fit can see, so every mixture is as good; train "
            "proxy runs that differ more, or choose another objective"
        )
    safe_exponent = np.where(responds, exponent, 1.0)

    def tokens_at(log_price: float) -> FloatArray:
        wanted = np.exp((np.log(safe_exponent / unit) - log_price) / (safe_exponent + 1))
        return np.clip(np.where(responds, unit * (wanted - offset), -np.inf), lower, upper)

    def marginal(tokens: FloatArray) -> FloatArray:
        return exponent / unit * (offset + tokens / unit) ** (-exponent - 1)

    # A price below every marginal gain at the upper bounds: all domains want theirs. One above every gain at the lower
    # bounds: none wants more than its lower bound.
    least = np.log(marginal(np.maximum(upper, 1e-9 * unit))[responds].min()) - 1
    greatest = np.log(marginal(np.maximum(lower, 1e-12 * unit))[responds].max()) + 1
    if tokens_at(least).sum() <= budget:  # all that respond are on their upper bounds; the others get the rest
        tokens = tokens_at(least)
        room = np.where(responds, 0.0, upper - tokens)
        tokens = tokens + room * (budget - tokens.sum()) / max(room.sum(), 1e-300)
        return tokens, 0.0
    log_price = brentq(lambda x: tokens_at(x).sum() - budget, least, greatest, xtol=1e-14, rtol=8.9e-16, maxiter=500)
    tokens = tokens_at(log_price)
    free = responds & (tokens > lower) & (tokens < upper)
    tokens[free] *= (budget - tokens[~free].sum()) / tokens[free].sum() if free.any() else 1.0
    price = np.exp(log_price)
    residual = np.abs(marginal(tokens)[free] - price).max(initial=0.0) / price
    return tokens, float(residual)
