"""The exponential law of mixtures.

    L_v(r, N) = c_v + k_v exp(sum_i t_vi r_i) + B_v N^(-beta_v),   r_i = n_i / N,  N = sum_i n_i

Source: Ye et al., Data Mixing Laws, arXiv 2403.16952, whose law has no last term, as they extrapolate each mixture over
steps by itself; and Olmix, arXiv 2602.12237, whose log-linear law exp(c) + exp(sum_i t_i r_i) is the same, since shares
sum to 1. Ours: the last term, which is fitted only if the runs differ in total tokens, robust fit and priors.
Limits: the best mixture is the same at every budget; the exponential is not bounded by what data can teach.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.parametric.parametric_law import (
    LEVEL,
    NO_SCALE_NOTE,
    ODDS,
    Parameter,
    ParametricLaw,
    Terms,
    Values,
)
from autoscale_exp.laws.parametric.terms import LARGEST_LOG, by_log_tokens, decay, split_level, split_tokens

BUDGET_ODDS = ODDS._replace(mean=-1.0, starts=(-1.0, 0.0, -2.0, -1.0))
BUDGET_EXPONENT = Parameter(np.log(0.4), 0.7, np.log(0.02), np.log(4), tuple(np.log([0.4, 0.2, 0.8, 0.3])))


class MixingLaw(ParametricLaw):
    """Exponential in the domain weights; convex in them."""

    name: ClassVar[str] = "mixing_law"
    num_redundant: ClassVar[int] = 1  # as weights sum to 1, k adds the same to every t
    budget_note: ClassVar[str] = NO_SCALE_NOTE

    def layout(self) -> dict[str, Parameter]:
        """Level and odds, t, and odds and beta of the last term if the runs differ in total tokens.

        The prior of t is wide: a rate can reach -50 if the first traces of a domain matter.
        """
        parameters = {
            "log_level": LEVEL,
            "log_odds": ODDS._replace(spread=2.0),
            "rate": Parameter(0.0, 40.0, -300.0, 300.0, (0.0, -2.0, 5.0, -15.0), per_domain=True, own=-8.0),
        }
        if self.scaled:
            parameters |= {"log_odds_budget": BUDGET_ODDS, "log_budget_exponent": BUDGET_EXPONENT}
        return parameters

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        weights, log_total = split_tokens(tokens)
        centred = weights - 1 / len(self.domains)  # k is measured at the even mixture
        level, rate = np.exp(values["log_level"]), values["rate"]
        budget_odds = [values["log_odds_budget"]] if self.scaled else []
        floor, shares = split_level(values["log_level"], values["log_odds"], *budget_odds)
        mixing = level * shares[0] * np.exp(np.minimum((rate * centred).sum(axis=2), LARGEST_LOG))
        losses, by_total = floor + mixing, np.zeros_like(mixing)
        derivatives = {"rate": mixing[:, :, None] * centred}
        if self.scaled:
            exponent = np.exp(values["log_budget_exponent"])
            budget = decay(level * shares[1], exponent, log_total)
            losses, by_total = losses + budget, -exponent * budget
            derivatives["log_odds_budget"] = budget - shares[1] * losses
            derivatives["log_budget_exponent"] = by_total * log_total
        derivatives |= {"log_level": losses, "log_odds": mixing - shares[0] * losses}
        return losses, derivatives, by_log_tokens(mixing[:, :, None] * rate * weights, by_total, weights)
