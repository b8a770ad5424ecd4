"""The formula of the pooled transfer law, and its derivatives.

    L_v(n) = E_v + A_v (S_v(u) (S_v(n) / S_v(u))^(X^psi_v))^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v)
    S_v(n) = s_v + X^((lambda_v - 1) rho_v) (c_vo x_o^rho_v + sum_{i != o} c_vi x_i^sigma_v)
    G_v(n) = q (g_0 + sum_i g_vi^(1 / alpha_v) x_i)

    x = n / (median total tokens of the runs),  X = sum_i x_i,  u: the uniform mixture of as many tokens as n,
    o: v's own training domain,  0 < lambda < 1

S is the text of v's own kind. It holds v's own domain, and the others as imperfect substitutes. Their returns diminish
faster (sigma_v < rho_v as a rule), so that what other text teaches early does not pass for lasting substitution.

G is what any text teaches.

lambda says how far a domain's tokens count as tokens, and how far as a share of the budget. A model's capacity is
shared too, so the effect of a mixture outlasts the budget; at lambda = 0 it never fades. lambda damps own and other
text equally, so it does not slow the gain of the one on the other.

psi says how the response of losses to the mixture grows with the budget, where the uniform mixture's losses are given.
Without it, what a budget does to losses would also settle what it does to their differences; real differences between
mixtures fade less than that.

0 < rho, sigma < 1, and all weights are positive. At any given budget S(u) and X are constants, and S and G are concave
in n, so their negative powers are convex. So are L, exp(L) and all their positive means: an optimum is global.

A validation domain without a training domain of its own has sigma_v in place of rho_v. That is its `leading` exponent.

The forms and their combination are ours. Constant elasticity of substitution (CES) is from Arrow, Chenery, Minhas and
Solow (1961), effective data from transfer is from Hernandez et al. (arXiv 2102.01293).

K training domains, V validation domains, R points. Each validation domain has P = 11 + 2 K parameters, and 4 more if
the law takes model sizes (see model_size). The module `points` discounts repeated text.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.pooled.model_size import Size, SizeTerms, by_log_size, size_jacobian, size_terms
from autoscale_exp.laws.pooled.points import LOG_NO_TEXT, Effective, Points, effective, points_of
from autoscale_exp.laws.pooled.priors import Scalar


class Data(NamedTuple):
    """The sum S at R points."""

    log: FloatArray  # (V, R) log S
    shares: FloatArray  # (V, R, K) each domain's part of S
    log_tokens: FloatArray  # (R, K) or (V, R, K) log x


class Terms(NamedTuple):
    """The parts of the formula at R points. Losses and derivatives follow from them."""

    irreducible: FloatArray  # (V, 1) E
    specific: FloatArray  # (V, R) A (S(u) (S / S(u))^response)^-power
    generic: FloatArray  # (V, R) B G^-alpha
    power: FloatArray  # (V, 1) gamma / rho
    alpha: FloatArray  # (V, 1)
    own: FloatArray  # (V, 1) rho
    other: FloatArray  # (V, 1) sigma
    leading: FloatArray  # (V, 1) rho, or sigma where v has no domain of its own
    exponents: FloatArray  # (V, K) rho in v's own column, sigma in others
    data: Data  # S(n)
    even_data: Data  # S(u)
    log_generic: FloatArray  # (V, R) log G
    generic_shares: FloatArray  # (V, R, K) each domain's part of G
    part: FloatArray  # (V, 1) lambda
    growth: FloatArray  # (V, 1) psi
    response: FloatArray  # (V, R) X^psi
    log_responded: FloatArray  # (V, R) log of S(u) (S(n) / S(u))^response
    effective: Effective  # tokens, budget and size, with repetition discounted
    size: SizeTerms | None  # None without model sizes; its `ease` is already in `specific` and `generic`

    @property
    def losses(self) -> FloatArray:
        """(R, V) in nats per token."""
        losses = self.irreducible + self.specific + self.generic
        return (losses if self.size is None else losses + self.size.lack).T

    @property
    def log_ratio(self) -> FloatArray:
        """(V, R) log S(n) / S(u)."""
        return self.data.log - self.even_data.log


@dataclass(frozen=True)
class Formula:
    """The formula for given domains and units.

    Attributes:
        own: (V,) index of each validation domain's own training domain, or -1.
        num_domains: K.
        reference_tokens: x is in multiples of these.
        log_generic_unit: log q, the log of the reference over a small run's tokens. So the generic amplitude is
            measured at the smallest runs, where its term is not yet negligible.
        reference_params: N is in multiples of these; None for a law that takes no model sizes.
    """

    own: Int64Array
    num_domains: int
    reference_tokens: float
    log_generic_unit: float
    reference_params: float | None = None

    @property
    def num_params(self) -> int:
        """P, the number of parameters of each validation domain."""
        return self.generic_weights.stop + (0 if self.reference_params is None else len(Size))

    @property
    def size_columns(self) -> slice:
        """Columns of the size's parameters; empty for a law that takes no model sizes."""
        return slice(self.generic_weights.stop, self.num_params)

    @property
    def specific_weights(self) -> slice:
        """Columns of log c."""
        return slice(len(Scalar), len(Scalar) + self.num_domains)

    @property
    def generic_weights(self) -> slice:
        """Columns of log g."""
        return slice(len(Scalar) + self.num_domains, len(Scalar) + 2 * self.num_domains)

    @cached_property
    def is_own(self) -> np.ndarray:
        """(V, K) whether a training domain is the validation domain's own."""
        return np.asarray(self.own[:, None] == np.arange(self.num_domains))

    def log_tokens(self, domain_tokens: FloatArray) -> FloatArray:
        """(..., K) log x; -inf for no tokens."""
        with np.errstate(divide="ignore"):
            return np.log(np.asarray(domain_tokens, dtype=np.float64) / self.reference_tokens)

    def points(
        self,
        domain_tokens: FloatArray,
        params: FloatArray | float | None = None,
        unique_tokens: FloatArray | None = None,
    ) -> Points:
        """Makes R points from (R, K) tokens, model sizes, and (R, K) or (K,) tokens of the text."""
        log_tokens, log_size = self.log_tokens(domain_tokens), None
        if self.reference_params is not None:
            log_size = np.broadcast_to(np.log(np.asarray(params) / self.reference_params), len(log_tokens))
        return points_of(log_tokens, log_size, domain_tokens, params, unique_tokens)

    def terms(self, theta: FloatArray, points: Points) -> Terms:
        """Evaluates the parts at (V, P) parameters and R points. Sums are log-sum-exps, which do not overflow."""
        scalars = theta[:, : len(Scalar), None]  # (V, 11, 1)
        size_theta = theta[:, self.size_columns]
        excess_decay = None if self.reference_params is None else size_theta[:, Size.EXCESS, None]
        seen = effective(points, scalars[:, Scalar.REPETITION], excess_decay)
        own = _sigmoid(scalars[:, Scalar.OWN_EXPONENT])
        other = _sigmoid(scalars[:, Scalar.OWN_EXPONENT] + scalars[:, Scalar.OTHER_EXPONENT])
        leading = np.where(self.own[:, None] >= 0, own, other)
        power = np.exp(scalars[:, Scalar.SPECIFIC_DECAY]) / leading
        exponents = np.where(self.is_own, own, other)
        part = _sigmoid(scalars[:, Scalar.BUDGET_PART])
        log_weights = ((part - 1) * leading * seen.log_total)[:, :, None] + theta[:, None, self.specific_weights]
        even_tokens = np.broadcast_to((seen.log_total - np.log(self.num_domains))[..., None], seen.log_tokens.shape)
        data, even_data = (
            Data(*_log_sum(exponents[:, None, :] * log_x + log_weights, scalars[:, Scalar.SPECIFIC_OFFSET]), log_x)
            for log_x in (seen.log_tokens, even_tokens)
        )
        growth = scalars[:, Scalar.RESPONSE_GROWTH]
        response = np.exp(growth * seen.log_total)
        log_responded = even_data.log + response * (data.log - even_data.log)
        alpha = np.exp(scalars[:, Scalar.GENERIC_DECAY])
        log_parts = (theta[:, self.generic_weights] / alpha)[:, None, :] + seen.log_tokens
        log_generic, generic_shares = _log_sum(log_parts, np.array(LOG_NO_TEXT))
        log_generic += self.log_generic_unit
        size = None if seen.log_size is None else size_terms(size_theta, seen.log_size)
        ease = 1.0 if size is None else size.ease
        return Terms(
            irreducible=np.exp(scalars[:, Scalar.IRREDUCIBLE]),
            specific=ease * np.exp(scalars[:, Scalar.SPECIFIC_AMPLITUDE] - power * log_responded),
            generic=ease * np.exp(scalars[:, Scalar.GENERIC_AMPLITUDE] - alpha * log_generic),
            power=power,
            alpha=alpha,
            own=own,
            other=other,
            leading=leading,
            exponents=exponents,
            data=data,
            even_data=even_data,
            log_generic=log_generic,
            generic_shares=generic_shares,
            part=part,
            growth=growth,
            response=response,
            log_responded=log_responded,
            effective=seen,
            size=size,
        )

    def jacobian(self, theta: FloatArray, terms: Terms) -> FloatArray:
        """(V, R, P) derivatives of each validation domain's losses with respect to its own parameters."""
        jacobian = np.zeros((*terms.specific.shape, self.num_params))
        slope = -terms.specific * terms.power  # of the loss by the log of S^response
        jacobian[:, :, Scalar.IRREDUCIBLE] = terms.irreducible
        jacobian[:, :, Scalar.SPECIFIC_AMPLITUDE] = terms.specific
        jacobian[:, :, Scalar.SPECIFIC_DECAY] = slope * terms.log_responded
        by_growth = slope * terms.response * terms.log_ratio * terms.effective.log_total
        jacobian[:, :, Scalar.RESPONSE_GROWTH] = by_growth
        by_power = -slope * terms.log_responded * (1 - terms.leading)  # by the leading exponent, through -gamma / rho
        jacobian[:, :, Scalar.OWN_EXPONENT] = by_power
        jacobian[:, :, Scalar.OTHER_EXPONENT] = np.where(self.own[:, None] >= 0, 0.0, by_power)
        self._add_data(jacobian, terms, terms.data, slope * terms.response)
        self._add_data(jacobian, terms, terms.even_data, slope * (1 - terms.response))
        weighted = np.einsum("vrk,vk->vr", terms.generic_shares, theta[:, self.generic_weights])
        jacobian[:, :, Scalar.GENERIC_AMPLITUDE] = terms.generic
        jacobian[:, :, Scalar.GENERIC_DECAY] = terms.generic * (weighted - terms.alpha * terms.log_generic)
        np.multiply(-terms.generic[:, :, None], terms.generic_shares, out=jacobian[:, :, self.generic_weights])
        if terms.size is not None:
            jacobian[:, :, self.size_columns] = size_jacobian(terms.size, terms.specific + terms.generic)
        self._add_repetition(jacobian, terms)
        return jacobian

    def _add_data(self, jacobian: FloatArray, terms: Terms, data: Data, slope: FloatArray) -> None:
        """Adds the derivatives through one of the sums S; `slope` (V, R) is that of the losses by its log."""
        own, other, leading, part = terms.own, terms.other, terms.leading, terms.part
        log_seen = np.where(np.isfinite(data.log_tokens), data.log_tokens, 0.0)  # no tokens have no share, no effect
        moments = data.shares * log_seen
        own_moment = np.einsum("vrk,vk->vr", moments, self.is_own.astype(np.float64))
        by_other = (moments.sum(axis=2) - own_moment) * other * (1 - other)  # through sigmoid's derivatives
        in_domains = data.shares.sum(axis=2)  # the rest is the offset's
        by_damping = in_domains * (part - 1) * terms.effective.log_total * leading * (1 - leading)
        jacobian[:, :, Scalar.OWN_EXPONENT] += slope * (own_moment * own * (1 - own) + by_other + by_damping)
        by_damping = np.where(self.own[:, None] >= 0, 0.0, by_damping)
        jacobian[:, :, Scalar.OTHER_EXPONENT] += slope * (by_other + by_damping)
        jacobian[:, :, Scalar.SPECIFIC_OFFSET] += slope * (1 - in_domains)
        jacobian[:, :, Scalar.BUDGET_PART] += (
            slope * in_domains * leading * part * (1 - part) * terms.effective.log_total
        )
        jacobian[:, :, self.specific_weights] += slope[:, :, None] * data.shares

    def _add_repetition(self, jacobian: FloatArray, terms: Terms) -> None:
        """Writes the derivatives by the decays of repeated tokens and of excess parameters."""
        jacobian[:, :, Scalar.REPETITION] = 0.0
        of_text, of_size = terms.effective.of_text, terms.effective.of_size
        if of_text is None:
            return
        tokens, total = of_text
        by_tokens = (self._by_log_tokens(terms) * tokens.by_log_decay).sum(axis=2)
        jacobian[:, :, Scalar.REPETITION] = by_tokens + self._by_log_total(terms) * total.by_log_decay
        if terms.size is not None and of_size is not None:
            by_decay = of_size[0].by_log_decay - of_size[1].by_log_decay
            by_decay = by_decay * by_log_size(terms.size, terms.specific + terms.generic)
            jacobian[:, :, self.size_columns.start + Size.EXCESS] = by_decay

    def _by_log_tokens(self, terms: Terms) -> FloatArray:
        """(V, R, K) derivatives of the losses by the log of effective tokens, at a given budget."""
        specific = terms.data.shares * terms.exponents[:, None, :]
        specific *= (terms.specific * terms.power * terms.response)[:, :, None]
        return -specific - (terms.generic * terms.alpha)[:, :, None] * terms.generic_shares

    def _by_log_total(self, terms: Terms) -> FloatArray:
        """(V, R) derivatives of the losses by the log of the effective budget, at given tokens."""
        damping = (1 - terms.part) * terms.leading
        by_data = -damping * terms.data.shares.sum(axis=2)
        even = terms.even_data.shares
        by_even = (even * terms.exponents[:, None, :]).sum(axis=2) - damping * even.sum(axis=2)
        by_total = terms.response * (by_data + terms.growth * terms.log_ratio) + (1 - terms.response) * by_even
        return np.asarray(-terms.specific * terms.power * by_total)

    def slopes(self, terms: Terms, points: Points) -> FloatArray:
        """Returns the (V, R, K) derivatives of the losses by log tokens, which also change the budget."""
        seen = terms.effective
        by_budget = self._by_log_total(terms) * seen.by_total
        if terms.size is not None:
            by_budget = by_budget + by_log_size(terms.size, terms.specific + terms.generic) * seen.size_by_total
        tokens = np.exp(points.log_tokens)
        shares = tokens / np.maximum(tokens.sum(axis=1, keepdims=True), np.exp(LOG_NO_TEXT))
        return self._by_log_tokens(terms) * seen.by_tokens + by_budget[:, :, None] * shares


def _sigmoid(logit: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-logit))


def _log_sum(log_parts: FloatArray, log_offset: FloatArray) -> tuple[FloatArray, FloatArray]:
    """log(e^offset + sum_k e^part) (V, R), and the parts' shares of it (V, R, K), which overwrite `log_parts`."""
    top = np.maximum(log_parts.max(axis=2), log_offset)
    log_parts -= top[:, :, None]
    shares = np.exp(log_parts, out=log_parts)
    total = shares.sum(axis=2) + np.exp(log_offset - top)
    shares /= total[:, :, None]
    return top + np.log(total), shares
