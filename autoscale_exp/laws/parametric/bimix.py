"""BiMix: a power law in a domain's own share times one in total tokens.

    L_v(r, N) = (A_v / r_v^alpha_v) (B_v / N^beta_v + C_v)

Source: Ge et al., BiMix, arXiv 2405.14908. A only scales B and C, so A B and A C are fitted.
Ours: r_v + SHARE_FLOOR in place of r_v, which keeps losses finite without a domain; robust fit and priors.
Limits: other domains do not help a domain at all, and the best mixture is much the same at every budget.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.parametric.mixing_law import BUDGET_EXPONENT, BUDGET_ODDS
from autoscale_exp.laws.parametric.parametric_law import LEVEL, Parameter, ParametricLaw, Terms, Values
from autoscale_exp.laws.parametric.terms import by_log_tokens, decay, split_level, split_tokens

SHARE_FLOOR = 1e-3


class BimixLaw(ParametricLaw):
    """Each validation domain responds only to its own training domain and to the budget."""

    name: ClassVar[str] = "bimix"

    def layout(self) -> dict[str, Parameter]:
        """Level and odds of A B to A C, log alpha, log beta."""
        return {
            "log_level": LEVEL,
            "log_share_exponent": Parameter(
                np.log(0.1), 1.0, np.log(1e-3), np.log(2), tuple(np.log([0.1, 0.2, 0.05, 0.3]))
            ),
            "log_odds_budget": BUDGET_ODDS,
            "log_budget_exponent": BUDGET_EXPONENT,
        }

    def check_domains(self) -> None:
        """Every validation domain must be trained on."""
        for validation_domain, own in zip(self.validation_domains, self.own, strict=True):
            if own < 0:
                raise UserError(
                    f"law.name=bimix predicts a loss from the domain's own share alone, but '{validation_domain}' is "
                    "no training domain; leave it out of the run table, or choose another law"
                )

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        weights, log_total = split_tokens(tokens)
        share = weights.T[self.own] + SHARE_FLOOR
        log_share = np.log(share / (1 / len(self.domains) + SHARE_FLOOR))  # A is measured at the even mixture
        alpha, beta = np.exp(values["log_share_exponent"]), np.exp(values["log_budget_exponent"])
        lasting, (budget_share,) = split_level(values["log_level"], values["log_odds_budget"])
        budget = decay(decay(np.exp(values["log_level"]) * budget_share, beta, log_total), alpha, log_share)
        losses = decay(lasting, alpha, log_share) + budget
        derivatives = {
            "log_level": losses,
            "log_share_exponent": -alpha * losses * log_share,
            "log_odds_budget": budget - budget_share * losses,
            "log_budget_exponent": -beta * budget * log_total,
        }
        is_own = self.own[:, None, None] == np.arange(len(self.domains))
        by_share = is_own * (-alpha * losses * (share - SHARE_FLOOR) / share)[:, :, None]
        return losses, derivatives, by_log_tokens(by_share, -beta * budget, weights)
