"""Transfer laws: a validation domain sees effective data, a weighted sum over training domains.

    transfer      L_v(n) = E_v + (a_v + sum_i c_vi n_i)^(-gamma_v),               c >= 0
    CES transfer  L_v(n) = E_v + (sum_i c_vi n_i^rho_v)^(-gamma_v / rho_v),       0 < rho <= 1

Source: ours. The power law in a sum over domains is AutoScale's (arXiv 2407.20177), with weights between domains in
place of one response each. Constant elasticity of substitution (CES) is from economics: domains replace one another,
but not fully. Robust fit and priors on c are ours too. Both laws are convex in n.
They are fitted as amplitude * (sum / the sum at an even mixture)^-gamma: the same family, better conditioned.
Limit: what any text teaches early on is taken for lasting substitution, so whole domains may be starved at scale.
"""

from typing import ClassVar

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.parametric.parametric_law import LEVEL, ODDS, Parameter, ParametricLaw, Terms, Values
from autoscale_exp.laws.parametric.terms import decay, even_mixture, log_or_zero, powers, split_level, weighted_sum

WEIGHT = Parameter(-1.0, 1.5, -14.0, 10.0, per_domain=True, own=2.5)
EXPONENT = Parameter(np.log(0.3), 0.7, np.log(0.02), np.log(3), tuple(np.log([0.3, 0.15, 0.6, 1.0])))


class TransferLaw(ParametricLaw):
    """Effective data plus an offset, which bounds the loss where no domain helps."""

    name: ClassVar[str] = "transfer"
    num_redundant: ClassVar[int] = 1  # beside an amplitude, only ratios of weights count

    def layout(self) -> dict[str, Parameter]:
        """Level and odds, log a, log gamma, log weights."""
        offset = Parameter(-2.0, 2.0, -14.0, 5.0, (-2.0, -4.0, 0.0, -3.0))
        return {
            "log_level": LEVEL,
            "log_odds": ODDS,
            "log_offset": offset,
            "log_exponent": EXPONENT,
            "log_weight": WEIGHT,
        }

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        floor, (share,) = split_level(values["log_level"], values["log_odds"])
        exponent = np.exp(values["log_exponent"])
        even, offset = even_mixture(len(self.domains)), np.exp(values["log_offset"])
        log_sum, parts, even_parts = weighted_sum(values["log_weight"], tokens, even, offset)
        gain = decay(np.exp(values["log_level"]) * share, exponent, log_sum)
        slope = -exponent * gain
        losses = floor + gain
        derivatives = {
            "log_level": losses,
            "log_odds": gain - share * losses,
            "log_offset": slope * (even_parts.sum(axis=2) - parts.sum(axis=2)),  # a's part is the rest of the sum
            "log_exponent": slope * log_sum,
            "log_weight": slope[:, :, None] * (parts - even_parts),
        }
        return losses, derivatives, slope[:, :, None] * parts


class CesTransferLaw(ParametricLaw):
    """Effective data of domains that are imperfect substitutes; rho = 1 is the transfer law with a = 0."""

    name: ClassVar[str] = "ces_transfer"
    num_redundant: ClassVar[int] = 1  # beside an amplitude, only ratios of weights count

    def layout(self) -> dict[str, Parameter]:
        """Level and odds, log gamma, log rho, log weights."""
        substitution = Parameter(np.log(0.5), 0.5, np.log(0.05), 0.0, tuple(np.log([0.5, 0.3, 0.8, 0.5])))
        return {
            "log_level": LEVEL,
            "log_odds": ODDS,
            "log_exponent": EXPONENT,
            "log_substitution": substitution,
            "log_weight": WEIGHT,
        }

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        floor, (share,) = split_level(values["log_level"], values["log_odds"])
        exponent = np.exp(values["log_exponent"])
        substitution = np.exp(values["log_substitution"])
        even, rho = even_mixture(len(self.domains)), substitution[:, :, None]
        log_sum, parts, even_parts = weighted_sum(values["log_weight"], powers(tokens, rho), powers(even, rho))
        power = exponent / substitution
        gain = decay(np.exp(values["log_level"]) * share, power, log_sum)
        slope = -power * gain
        # How the log of the sum moves with rho, less the same at the even mixture.
        moment = (parts * log_or_zero(tokens)).sum(axis=2) - (even_parts * np.log(even)).sum(axis=2)
        losses = floor + gain
        derivatives = {
            "log_level": losses,
            "log_odds": gain - share * losses,
            "log_exponent": slope * log_sum,
            "log_substitution": slope * (substitution * moment - log_sum),
            "log_weight": slope[:, :, None] * (parts - even_parts),
        }
        return losses, derivatives, slope[:, :, None] * parts * rho
