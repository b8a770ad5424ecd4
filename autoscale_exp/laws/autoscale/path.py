"""Stage 2: from optima at two or more token budgets to the optimum at any budget.

Source: arXiv 2407.20177. If n*(N) minimises sum_i beta_i n_i^(-gamma_i) at a fixed total N, stationarity gives
log n_i = c_i - log(lambda) / (1 + gamma_i). So along the path of optima all log n_i are straight lines in one shared t.
With t = 0 and 1 at the two smallest budgets, the paper's ladder n2 (n2 / n1)^k is t = 1 + k. Here t is solved for, so
any budget can be met.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.optimum import Bounds, Optimum

ROUNDING = 1e-12  # a share this far beyond a bound is on it


@dataclass(frozen=True)
class ScalePath:
    """log n_i(t) = intercept_i + slope_i t.

    Attributes:
        domains: (K,) names.
        budgets: (S,) token budgets of the optima, ascending.
        intercept: (K,) natural logarithm of tokens at t = 0, the smallest budget.
        slope: (K,) its change from the smallest budget to the second.
        held: (K,) weight of a domain that was on a bound at some scale and so has no slope; NaN for others.
        residual: root mean square residual of log n over domains and scales; 0 for two scales, which are met exactly.
        bounds: limits on the weights; extrapolations stay within them.
    """

    domains: list[str]
    budgets: list[int]
    intercept: FloatArray
    slope: FloatArray
    held: FloatArray
    residual: float
    bounds: Bounds

    @staticmethod
    def through(
        budgets: Sequence[int], weights: Sequence[FloatArray], domains: Sequence[str], bounds: Bounds
    ) -> "ScalePath":
        """Returns the path through optima at different budgets, by least squares if there are more than two.

        A domain on a bound at any scale tells nothing of its slope. It is held at its weight at the largest scale.

        Args:
            budgets: (S,) tokens, S >= 2.
            weights: S arrays (K,) of domain weights.
            domains: (K,) names.
            bounds: limits on the weights, within which the optima were sought.

        Raises:
            UserError: there are fewer than two budgets, a weight is zero off any bound, or nothing is left to
                extrapolate.
        """
        order = np.argsort(budgets)
        totals = np.asarray(budgets, dtype=np.float64)[order]
        sorted_weights = np.asarray(weights, dtype=np.float64)[order]
        if len(totals) < 2 or (np.diff(totals) <= 0).any():
            raise UserError(
                f"extrapolation needs optima at two different token budgets, but there are {[int(t) for t in totals]}; "
                "run the design at another scale, or ask for target_tokens=[] only"
            )
        bounded = np.any([bounds.active(row) != 0 for row in sorted_weights], axis=0)
        for index, domain in enumerate(domains):
            if not bounded[index] and (sorted_weights[:, index] <= 0).any():
                raise UserError(
                    f"the optimum of '{domain}' is 0 at some scale, which has no ratio to extrapolate by; "
                    "set bounds.lower above 0"
                )
        if bounded.sum() > len(domains) - 2:
            raise UserError(
                "all domains but one are on a bound at some scale, so nothing is known of how the optimum moves; "
                "loosen bounds or train more proxy runs"
            )
        log_tokens = np.log(np.where(bounded, 1.0, sorted_weights) * totals[:, None])  # (S, K)
        intercept, slope, residual = _fit_lines(log_tokens[:, ~bounded])
        full = np.zeros((2, len(domains)))
        full[:, ~bounded] = intercept, slope
        within = np.clip(sorted_weights[-1], bounds.lower, bounds.upper)  # given optima may break the bounds
        held = np.where(bounded, within, np.nan)
        return ScalePath(list(domains), [int(t) for t in totals], full[0], full[1], held, residual, bounds)

    def optimum(self, budget: int) -> Optimum:
        """Returns the mixture at any token budget.

        Raises:
            UserError: the budget lies off the path, as it can below the smallest scale.
        """
        held, lower, upper = self.held.copy(), self.bounds.lower, self.bounds.upper
        while True:  # domains that would pass a bound are put on it, and the others share the rest
            weights = self._solve(budget, held)
            free = np.isnan(held)
            below, above = (np.where(free & (by > ROUNDING), by, 0.0) for by in (lower - weights, weights - upper))
            if not (below.any() or above.any()):
                break
            # Only the side that is passed by more is sure to stay on its bounds once the sum is 1 again.
            beyond = below > 0 if below.sum() >= above.sum() else above > 0
            held[beyond] = np.clip(weights, lower, upper)[beyond]
        notes = self.bounds.describe(weights, self.domains)
        active = self.bounds.active(weights)
        for index in np.flatnonzero(~np.isnan(self.held) & (active == 0)):
            notes.append(f"{self.domains[index]}: held at {weights[index]:.4g}, on a bound at a smaller scale")
        return Optimum(int(budget), weights, notes, "AutoScale path")

    def _solve(self, budget: float, held: FloatArray) -> FloatArray:
        free = np.isnan(held)
        rest = 1.0 - float(held[~free].sum())
        if rest <= 0 or not free.any():
            raise UserError(
                f"at {budget:,.0f} tokens the domains held on bounds leave the others no mixture within theirs; loosen "
                "bounds, or choose a budget nearer to the proxy runs"
            )
        target = np.log(rest * budget)

        def excess(t: float) -> float:
            exponents = self.intercept[free] + self.slope[free] * t
            return float(np.logaddexp.reduce(exponents)) - target

        # log-sum-exp of straight lines is convex in t, and rises from the smallest budget to the largest.
        low, high = 0.0, 1.0
        while excess(high) < 0 and high < 1e4:
            high *= 2
        while excess(low) > 0 and low > -1e4:
            low = 2 * low - 1
        if excess(low) > 0 or excess(high) < 0:
            raise UserError(
                f"target_tokens {budget:,.0f} lies off the path through {', '.join(f'{b:,}' for b in self.budgets)} "
                "tokens, on which some domains' tokens shrink; choose a budget nearer to these"
            )
        t = brentq(excess, low, high, xtol=1e-14, rtol=8.9e-16)
        weights = held.copy()
        tokens = np.exp(self.intercept[free] + self.slope[free] * t)
        weights[free] = rest * tokens / tokens.sum()
        return weights


def _fit_lines(log_tokens: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Fits log n_ij = intercept_i + slope_i t_j by least squares, with t free except for t_1 = 0 and t_2 = 1.

    This is a rank-one fit of the centred matrix, so its singular vectors are the solution.

    Args:
        log_tokens: (S, K) with S >= 2.

    Returns:
        (K,) intercepts, (K,) slopes and the root mean square residual.
    """
    if len(log_tokens) == 2:
        return log_tokens[0], log_tokens[1] - log_tokens[0], 0.0
    mean = log_tokens.mean(axis=0)
    left, singular, right = np.linalg.svd(log_tokens - mean, full_matrices=False)
    position = left[:, 0] * singular[0]  # (S,) along the direction right[0]
    step = position[1] - position[0]
    fitted = mean + np.outer(position, right[0])
    residual = float(np.sqrt(np.mean((log_tokens - fitted) ** 2)))
    return mean + position[0] * right[0], step * right[0], residual
