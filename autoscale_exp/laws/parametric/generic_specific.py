"""Generic plus specific: what any text teaches, and what only a domain's own text teaches.

    L_v(n) = E_v + A_v (sum_i c_vi n_i)^(-alpha_v) + B_v (n_own + a_v)^(-beta_v)

Source: ours, as are robust fit and priors. The law is convex in n. A validation domain that is no training domain has
the generic term only. Limit: the law undervalues close relatives of a domain, as only its own text is specific.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.parametric.parametric_law import LEVEL, ODDS, Parameter, ParametricLaw, Terms, Values
from autoscale_exp.laws.parametric.terms import decay, even_mixture, split_level, weighted_sum


class GenericSpecificLaw(ParametricLaw):
    """Two power laws: one in a weighted sum of all tokens, one in the tokens of v's own domain."""

    name: ClassVar[str] = "generic_specific"
    num_redundant: ClassVar[int] = 1  # beside an amplitude, only ratios of weights count

    def layout(self) -> dict[str, Parameter]:
        """Level; odds, alpha and weights of the generic term; odds, beta and a of the specific term."""
        low, high = np.log(0.02), np.log(3)
        return {
            "log_level": LEVEL,
            "log_odds_generic": ODDS._replace(mean=-0.5),
            "log_generic_exponent": Parameter(np.log(0.4), 0.6, low, high, tuple(np.log([0.4, 0.2, 0.8, 0.3]))),
            "log_weight": Parameter(0.0, 1.0, -14.0, 10.0, per_domain=True),
            "log_odds_specific": ODDS._replace(mean=-1.0, starts=(-1.0, 0.0, -1.0, -2.0)),
            "log_specific_exponent": Parameter(np.log(0.3), 0.6, low, high, tuple(np.log([0.3, 0.5, 0.2, 0.8]))),
            "log_offset": Parameter(-4.0, 1.5, -14.0, 3.0, (-4.0, -3.0, -5.0, -2.0)),
        }

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        level, has_own = np.exp(values["log_level"]), (self.own >= 0)[:, None]
        odds_specific = np.where(has_own, values["log_odds_specific"], -np.inf)
        floor, shares = split_level(values["log_level"], values["log_odds_generic"], odds_specific)
        even = even_mixture(len(self.domains))
        log_sum, parts, even_parts = weighted_sum(values["log_weight"], tokens, even)
        alpha, beta = np.exp(values["log_generic_exponent"]), np.exp(values["log_specific_exponent"])
        generic = decay(level * shares[0], alpha, log_sum)
        own_tokens, offset = tokens.T[self.own], np.exp(values["log_offset"])
        even_own = even[0, 0] + offset
        log_specific = np.log((own_tokens + offset) / even_own)
        specific = decay(level * shares[1], beta, log_specific)
        generic_slope, specific_slope = -alpha * generic, -beta * specific
        losses = floor + generic + specific
        derivatives = {
            "log_level": losses,
            "log_odds_generic": generic - shares[0] * losses,
            "log_generic_exponent": generic_slope * log_sum,
            "log_weight": generic_slope[:, :, None] * (parts - even_parts),
            "log_odds_specific": specific - shares[1] * losses,
            "log_specific_exponent": specific_slope * log_specific,
            "log_offset": specific_slope * (offset / (own_tokens + offset) - offset / even_own),
        }
        is_own = self.own[:, None, None] == np.arange(len(self.domains))
        by_own = specific_slope * own_tokens / (own_tokens + offset)
        by_log_tokens = generic_slope[:, :, None] * parts + is_own * by_own[:, :, None]
        return losses, derivatives, by_log_tokens
