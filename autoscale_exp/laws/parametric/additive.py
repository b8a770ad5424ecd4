"""Apple's laws for optimal mixtures.

    additive  L_v(h, D) = E_v + 1 / (sum_i C_vi h_i^gamma_vi) + B_v / D^beta_v
    joint     the same with B_v(h) = (sum_i CB_vi h_i)^gammaB_v, so that the best mixture moves with D

Source: Shukor et al., Scaling Laws for Optimal Data Mixtures, arXiv 2507.09404; h are domain weights, D total tokens.
Their term in model size is left out: one run table has one model size. Robust fit and priors are ours.
Limits: many parameters (2K + 3 and 3K + 3) for each validation domain; additive's best mixture ignores the budget.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.parametric.mixing_law import BUDGET_EXPONENT, BUDGET_ODDS
from autoscale_exp.laws.parametric.parametric_law import LEVEL, ODDS, Parameter, ParametricLaw, Terms, Values
from autoscale_exp.laws.parametric.terms import (
    by_log_tokens,
    decay,
    even_mixture,
    log_or_zero,
    powers,
    split_level,
    split_tokens,
    weighted_sum,
)


class AdditiveLaw(ParametricLaw):
    """Mixture and budget add up. C is fitted as 1 / amplitude times weight."""

    name: ClassVar[str] = "additive"

    def layout(self) -> dict[str, Parameter]:
        """Level and odds, log C, log gammas, odds of the budget term, log beta."""
        steepness = Parameter(
            np.log(0.5), 0.6, np.log(0.02), np.log(6), tuple(np.log([0.5, 0.3, 1.0, 0.2])), per_domain=True
        )
        return {
            "log_level": LEVEL,
            "log_odds": ODDS,
            "log_weight": Parameter(-1.0, 1.5, -14.0, 10.0, per_domain=True, own=1.5),
            "log_steepness": steepness,
            "log_odds_budget": BUDGET_ODDS,
            "log_budget_exponent": BUDGET_EXPONENT,
        }

    def num_free(self) -> int:
        """Less the amplitude."""
        return self.num_fitted() - 1

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        weights, log_total = split_tokens(tokens)
        level, steepness = np.exp(values["log_level"]), np.exp(values["log_steepness"])
        floor, shares = split_level(values["log_level"], values["log_odds"], values["log_odds_budget"])
        even = even_mixture(len(self.domains))
        log_sum, parts, even_parts = weighted_sum(
            values["log_weight"], powers(weights, steepness), powers(even, steepness)
        )
        mixing = decay(level * shares[0], np.ones_like(floor), log_sum)
        slope = -mixing[:, :, None]
        by_share = slope * parts * steepness
        log_factor, factor_derivatives, factor_by_share = self.budget_factor(values, weights)
        exponent = np.exp(values["log_budget_exponent"])
        budget = decay(level * shares[1] * np.exp(log_factor), exponent, log_total)
        losses = floor + mixing + budget
        derivatives = {
            "log_level": losses,
            "log_odds": mixing - shares[0] * losses,
            "log_odds_budget": budget - shares[1] * losses,
            "log_weight": slope * (parts - even_parts),
            "log_steepness": slope * steepness * (parts * log_or_zero(weights) - even_parts * np.log(even)),
            "log_budget_exponent": -exponent * budget * log_total,
        }
        for name, by_name in factor_derivatives.items():
            derivatives[name] = by_name * (budget[:, :, None] if by_name.ndim == 3 else budget)
        by_share = by_share + budget[:, :, None] * factor_by_share
        return losses, derivatives, by_log_tokens(by_share, -exponent * budget, weights)

    def budget_factor(self, values: Values, weights: FloatArray) -> Terms:
        """(V, R) log of B(h) over B at the even mixture, its derivatives by name and those by log domain weights."""
        return np.zeros((1, 1)), {}, np.zeros((1, 1, 1))


class JointLaw(AdditiveLaw):
    """The mixture also decides how much more data brings. CB is fitted as an amplitude times weights.

    Power and weights of CB trade off along a curve, so its draws are wider than what the runs leave open.
    """

    name: ClassVar[str] = "joint"

    def layout(self) -> dict[str, Parameter]:
        """Those of the additive law, log CB and gammaB."""
        return super().layout() | {
            "log_budget_weight": Parameter(0.0, 1.0, -14.0, 10.0, per_domain=True),
            "budget_power": Parameter(0.0, 1.0, -6.0, 6.0, (0.5, -0.5, 1.0, -1.0)),
        }

    def num_free(self) -> int:
        """Less both amplitudes."""
        return self.num_fitted() - 2

    def budget_factor(self, values: Values, weights: FloatArray) -> Terms:
        """See the additive law, where it is 1."""
        even = even_mixture(len(self.domains))
        log_sum, parts, even_parts = weighted_sum(values["log_budget_weight"], weights, even)
        power = values["budget_power"]
        derivatives = {
            "log_budget_weight": power[:, :, None] * (parts - even_parts),
            "budget_power": log_sum,
        }
        return power * log_sum, derivatives, power[:, :, None] * parts
