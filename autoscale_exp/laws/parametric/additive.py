"""Apple's laws for optimal mixtures.

    additive  L_v(N, h, D) = E_v + 1 / (sum_i C_vi h_i^gamma_vi) + A_v / N^alpha_v + B_v / D^beta_v
    joint     the same with A_v(h) = (sum_i CA_vi h_i)^gammaA_v, and B_v(h) alike: the best mixture moves with N and D

h are domain weights, D total tokens, N the model's parameters. The term in N is there if the runs have several sizes.
Source: Shukor et al., Scaling Laws for Optimal Data Mixtures, arXiv 2507.09404. Robust fit and priors are ours.
Limits: there are many parameters for each validation domain (2K + 3 and 3K + 3, and with N 2 and K + 3 more); the best
mixture of `additive` ignores budget and size.
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
    """The effects of mixture and budget add up. C is fitted as a weight over an amplitude."""

    name: ClassVar[str] = "additive"
    num_redundant: ClassVar[int] = 1  # beside an amplitude, only ratios of weights count

    def layout(self) -> dict[str, Parameter]:
        """Level and odds, log C, log gammas; odds and exponent of the terms in budget and size."""
        steepness = Parameter(
            np.log(0.5), 0.6, np.log(0.02), np.log(6), tuple(np.log([0.5, 0.3, 1.0, 0.2])), per_domain=True
        )
        return {
            "log_level": LEVEL,
            "log_odds": ODDS,
            "log_weight": Parameter(-1.0, 1.5, -14.0, 10.0, per_domain=True, own=1.5),
            "log_steepness": steepness,
            **{key: value for term in self.terms for key, value in _layout_of(term).items()},
        }

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of scale: in the budget, and in model size if the runs have several sizes."""
        return ("budget",) if self.reference_params is None else ("budget", "size")

    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """See the module's formula."""
        weights, log_total = split_tokens(tokens[:, : len(self.domains)])
        log_scales = {"budget": log_total, "size": tokens[:, -1]}
        level, steepness = np.exp(values["log_level"]), np.exp(values["log_steepness"])
        odds = [values[f"log_odds_{term}"] for term in self.terms]
        floor, shares = split_level(values["log_level"], values["log_odds"], *odds)
        even = even_mixture(len(self.domains))
        log_sum, parts, even_parts = weighted_sum(
            values["log_weight"], powers(weights, steepness), powers(even, steepness)
        )
        mixing = decay(level * shares[0], np.ones_like(floor), log_sum)
        slope = -mixing[:, :, None]
        derivatives = {
            "log_weight": slope * (parts - even_parts),
            "log_steepness": slope * steepness * (parts * log_or_zero(weights) - even_parts * np.log(even)),
        }
        losses, by_share, by_total = floor + mixing, slope * parts * steepness, np.zeros_like(mixing)
        parts_of_level = {"log_odds": mixing}
        for term, share in zip(self.terms, shares[1:], strict=True):
            log_factor, by_name, factor_by_share = self.factor(values, weights, term)
            exponent = np.exp(values[f"log_{term}_exponent"])
            lack = decay(level * share * np.exp(log_factor), exponent, log_scales[term])
            parts_of_level[f"log_odds_{term}"] = lack
            derivatives[f"log_{term}_exponent"] = -exponent * lack * log_scales[term]
            for name, derivative in by_name.items():
                derivatives[name] = derivative * (lack[:, :, None] if derivative.ndim == 3 else lack)
            losses, by_share = losses + lack, by_share + lack[:, :, None] * factor_by_share
            by_total = by_total - exponent * lack * (term == "budget")
        derivatives["log_level"] = losses
        for (name, part), share in zip(parts_of_level.items(), shares, strict=True):
            derivatives[name] = part - share * losses
        return losses, derivatives, by_log_tokens(by_share, by_total, weights)

    def factor(self, values: Values, weights: FloatArray, term: str) -> Terms:
        """The (V, R) log of a term's amplitude over that at the even mixture; derivatives by name and by log weights.

        It is 0 in the additive law.
        """
        return np.zeros((1, 1)), {}, np.zeros((1, 1, 1))


def _layout_of(term: str) -> dict[str, Parameter]:
    return {f"log_odds_{term}": BUDGET_ODDS, f"log_{term}_exponent": BUDGET_EXPONENT}


class JointLaw(AdditiveLaw):
    """The mixture also decides how much more data and larger models help. CB is fitted as an amplitude times weights.

    Power and weights of CB trade off along a curve, so the law's draws are wider than what the runs leave open.
    """

    name: ClassVar[str] = "joint"

    def layout(self) -> dict[str, Parameter]:
        """The parameters of the additive law, log CB and gammaB and, with model sizes, log CA and gammaA."""
        weight = Parameter(0.0, 1.0, -14.0, 10.0, per_domain=True)
        power = Parameter(0.0, 1.0, -6.0, 6.0, (0.5, -0.5, 1.0, -1.0))
        names = [(f"log_{term}_weight", f"{term}_power") for term in self.terms]
        return super().layout() | {key: value for w, p in names for key, value in ((w, weight), (p, power))}

    def num_free(self) -> int:
        """Each term of scale has an amplitude beside its weights, too."""
        return super().num_free() - len(self.terms)

    def factor(self, values: Values, weights: FloatArray, term: str) -> Terms:
        """See the additive law."""
        even = even_mixture(len(self.domains))
        log_sum, parts, even_parts = weighted_sum(values[f"log_{term}_weight"], weights, even)
        power = values[f"{term}_power"]
        derivatives = {
            f"log_{term}_weight": power[:, :, None] * (parts - even_parts),
            f"{term}_power": log_sum,
        }
        return power * log_sum, derivatives, power[:, :, None] * parts
