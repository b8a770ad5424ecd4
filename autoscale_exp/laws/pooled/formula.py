"""The formula of the pooled transfer law, its derivatives, and the priors of its parameters.

    L_v(n) = E_v + A_v S_v(n)^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v)
    S_v(n) = s_v + X^((lambda_v - 1) rho_v) (c_vo x_o^rho_v + sum_{i != o} c_vi x_i^sigma_v)
    G_v(n) = q (g_0 + sum_i g_vi^(1 / alpha_v) x_i)

    x = n / (median total tokens of the runs),  X = sum_i x_i,  o: v's own training domain,  0 < lambda < 1

S is the text of v's own kind. It holds v's own domain, and the others as imperfect substitutes. Their returns diminish
faster (sigma_v < rho_v as a rule), so that what other text teaches early does not pass for lasting substitution.

G is what any text teaches.

lambda says how far a domain's tokens count as tokens, and how far as a share of the budget. A model's capacity is
shared too, so the effect of a mixture outlasts the budget; at lambda = 0 it never fades. lambda damps own and other
text equally, so it does not slow the gain of the one on the other.

0 < rho, sigma < 1, and all weights are positive. So at any given budget S and G are concave in n, and their negative
powers are convex. So are L, exp(L) and all their positive means: an optimum is global.

A validation domain without a training domain of its own has sigma_v in place of rho_v. That is its `leading` exponent.

The forms and their combination are ours. Constant elasticity of substitution (CES) is from Arrow, Chenery, Minhas and
Solow (1961), effective data from transfer is from Hernandez et al. (arXiv 2102.01293).

K training domains, V validation domains, R points. Each validation domain has P = 10 + 2 K parameters, and 4 more if
the law takes model sizes (see model_size). The module `points` discounts repeated text.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.pooled.model_size import Size, SizeTerms, by_log_size, size_jacobian, size_terms
from autoscale_exp.laws.pooled.points import LOG_NO_TEXT, Effective, Points, effective, points_of
from autoscale_exp.laws.repetition import DATA_DECAY, EXCESS_DECAY


class Scalar(IntEnum):
    """Columns of the parameters (V, P), before the specific weights log c (K) and the generic weights log g (K)."""

    IRREDUCIBLE = 0  # log E
    SPECIFIC_AMPLITUDE = 1  # log A
    SPECIFIC_DECAY = 2  # log gamma
    OWN_EXPONENT = 3  # logit rho
    OTHER_EXPONENT = 4  # logit sigma - logit rho
    SPECIFIC_OFFSET = 5  # log s
    GENERIC_AMPLITUDE = 6  # log B
    GENERIC_DECAY = 7  # log alpha
    BUDGET_PART = 8  # logit lambda
    REPETITION = 9  # log R of repeated tokens


class Prior(NamedTuple):
    """Prior of a parameter over validation domains: a Gaussian population whose mean is itself uncertain.

    Attributes:
        mean: expected mean of the population.
        mean_sd: standard deviation of that mean.
        spread: standard deviation over validation domains, to start from.
    """

    mean: float
    mean_sd: float
    spread: float


# "Tuned": chosen on RegMix's training runs, synthetic truths, and leaving seven_tiny's larger scale out.
PRIORS = {
    # In units of the smallest losses. Irreducible losses in the literature are about half of what small models reach.
    Scalar.IRREDUCIBLE: Prior(float(np.log(0.55)), 0.3, 0.15),
    # Amplitudes are in units of the gap between the median loss and the irreducible one. Most of the gap is specific.
    # Any value is possible, since the amplitude trades off against the weights c.
    Scalar.SPECIFIC_AMPLITUDE: Prior(0.5, 1.0, 0.5),
    # Data exponents of language models are .1 to .4; .2 halves the error of leaving the larger scale out (tuned).
    Scalar.SPECIFIC_DECAY: Prior(float(np.log(0.2)), 0.3, 0.2),
    # rho about .6, between sharp diminishing returns and perfect substitution.
    Scalar.OWN_EXPONENT: Prior(0.5, 0.7, 0.35),
    # sigma well below rho: other text's help fades with scale (tuned).
    Scalar.OTHER_EXPONENT: Prior(-1.0, 0.4, 0.25),
    # Effective data without any tokens, as a part of the reference's. It bounds the loss of untrained domains.
    Scalar.SPECIFIC_OFFSET: Prior(-1.0, 1.0, 0.5),
    # About an eighth of the gap at EARLY_TOKENS. Narrow, as a large one from a single scale extrapolates absurdly.
    Scalar.GENERIC_AMPLITUDE: Prior(-2.0, 0.3, 0.3),
    # alpha about 2: what any text teaches is learnt early (tuned on scales; one scale cannot see it).
    Scalar.GENERIC_DECAY: Prior(0.7, 0.8, 0.2),
    # lambda about .57: halves the errors of level at three times the largest budget (tuned on seven_tiny's targets
    # and on checkpoints of the ladder).
    Scalar.BUDGET_PART: Prior(0.3, 0.5, 0.2),
    # All further epochs are worth at most some 15 fresh ones (Muennighoff et al., arXiv 2305.16264). Narrow, as runs of
    # hundreds of epochs, whose overfitting no such law can express, would pull it up (tuned on data_constrained).
    Scalar.REPETITION: Prior(float(np.log(DATA_DECAY)), 0.15, 0.1),
}
# What any text teaches is learnt within some ten million tokens. If the smallest runs have more, the prior amplitude is
# lower by EARLY_DECAY times the log ratio, and less sure by a third of that (tuned on the ladder).
EARLY_TOKENS, EARLY_DECAY = 1e7, 0.5
# log c: that of v's own domain is some 90 times that of others, which range from close relatives to unrelated text.
OWN_WEIGHT = Prior(2.5, 1.0, 1.0)
OTHER_WEIGHT = Prior(-2.0, 1.0, 1.2)
SIZE_PRIORS = {
    # Some 40 % of the gap at the sizes of the runs, as at Chinchilla's optimum (Hoffmann et al., arXiv 2203.15556).
    Size.AMPLITUDE: Prior(float(np.log(0.4)), 0.4, 0.2),
    Size.DECAY: Prior(float(np.log(0.25)), 0.3, 0.15),  # exponents of size in the literature are .1 to .4
    # A mixture matters 5 % less to a model e times as large (seen on the ladder, sizes up to 680M).
    Size.EASE: Prior(0.05, 0.05, 0.03),
    Size.EXCESS: Prior(float(np.log(EXCESS_DECAY)), 0.1, 0.05),  # Muennighoff et al.; narrow for the same reason
}
# log g: nearly equal, as all text teaches what any text teaches. Freer weights overfit 32 runs.
GENERIC_WEIGHT = Prior(0.0, 0.05, 0.05)


class Terms(NamedTuple):
    """The parts of the formula at R points. Losses and derivatives follow from them."""

    irreducible: FloatArray  # (V, 1) E
    specific: FloatArray  # (V, R) A S^-power
    generic: FloatArray  # (V, R) B G^-alpha
    power: FloatArray  # (V, 1) gamma / rho
    alpha: FloatArray  # (V, 1)
    own: FloatArray  # (V, 1) rho
    other: FloatArray  # (V, 1) sigma
    leading: FloatArray  # (V, 1) rho, or sigma where v has no domain of its own
    exponents: FloatArray  # (V, K) rho in v's own column, sigma in others
    log_specific: FloatArray  # (V, R) log S
    log_generic: FloatArray  # (V, R) log G
    specific_shares: FloatArray  # (V, R, K) each domain's part of S
    generic_shares: FloatArray  # (V, R, K) each domain's part of G
    part: FloatArray  # (V, 1) lambda
    effective: Effective  # tokens, budget and size, with repetition discounted
    size: SizeTerms | None  # None without model sizes; its `ease` is already in `specific` and `generic`

    @property
    def losses(self) -> FloatArray:
        """(R, V) in nats per token."""
        losses = self.irreducible + self.specific + self.generic
        return (losses if self.size is None else losses + self.size.lack).T


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
        scalars = theta[:, : len(Scalar), None]  # (V, 10, 1)
        size_theta = theta[:, self.size_columns]
        excess_decay = None if self.reference_params is None else size_theta[:, Size.EXCESS, None]
        seen = effective(points, scalars[:, Scalar.REPETITION], excess_decay)
        own = _sigmoid(scalars[:, Scalar.OWN_EXPONENT])
        other = _sigmoid(scalars[:, Scalar.OWN_EXPONENT] + scalars[:, Scalar.OTHER_EXPONENT])
        leading = np.where(self.own[:, None] >= 0, own, other)
        power = np.exp(scalars[:, Scalar.SPECIFIC_DECAY]) / leading
        exponents = np.where(self.is_own, own, other)
        part = _sigmoid(scalars[:, Scalar.BUDGET_PART])
        log_parts = exponents[:, None, :] * seen.log_tokens + ((part - 1) * leading * seen.log_total)[:, :, None]
        log_parts += theta[:, None, self.specific_weights]
        log_specific, specific_shares = _log_sum(log_parts, scalars[:, Scalar.SPECIFIC_OFFSET])
        alpha = np.exp(scalars[:, Scalar.GENERIC_DECAY])
        log_parts = (theta[:, self.generic_weights] / alpha)[:, None, :] + seen.log_tokens
        log_generic, generic_shares = _log_sum(log_parts, np.array(LOG_NO_TEXT))
        log_generic += self.log_generic_unit
        size = None if seen.log_size is None else size_terms(size_theta, seen.log_size)
        ease = 1.0 if size is None else size.ease
        return Terms(
            irreducible=np.exp(scalars[:, Scalar.IRREDUCIBLE]),
            specific=ease * np.exp(scalars[:, Scalar.SPECIFIC_AMPLITUDE] - power * log_specific),
            generic=ease * np.exp(scalars[:, Scalar.GENERIC_AMPLITUDE] - alpha * log_generic),
            power=power,
            alpha=alpha,
            own=own,
            other=other,
            leading=leading,
            exponents=exponents,
            log_specific=log_specific,
            log_generic=log_generic,
            specific_shares=specific_shares,
            generic_shares=generic_shares,
            part=part,
            effective=seen,
            size=size,
        )

    def jacobian(self, theta: FloatArray, terms: Terms) -> FloatArray:
        """(V, R, P) derivatives of each validation domain's losses with respect to its own parameters."""
        log_tokens, log_total = terms.effective.log_tokens, terms.effective.log_total
        log_seen = np.where(np.isfinite(log_tokens), log_tokens, 0.0)  # no tokens have no share, hence no effect
        jacobian = np.empty((*terms.specific.shape, self.num_params))
        slope = -terms.specific * terms.power  # of the loss to log S
        moments = terms.specific_shares * log_seen
        own_moment = np.einsum("vrk,vk->vr", moments, self.is_own.astype(np.float64))
        other_moment = moments.sum(axis=2) - own_moment
        own_width, other_width = terms.own * (1 - terms.own), terms.other * (1 - terms.other)  # sigmoid's derivatives
        has_own = self.own[:, None] >= 0
        all_shares = terms.specific_shares.sum(axis=2)
        # By the leading exponent: through -gamma / rho, and through the damping by the budget.
        by_leading = -slope * terms.log_specific * (1 - terms.leading)
        by_leading += slope * all_shares * (terms.part - 1) * log_total * terms.leading * (1 - terms.leading)
        jacobian[:, :, Scalar.IRREDUCIBLE] = terms.irreducible
        jacobian[:, :, Scalar.SPECIFIC_AMPLITUDE] = terms.specific
        jacobian[:, :, Scalar.SPECIFIC_DECAY] = slope * terms.log_specific
        jacobian[:, :, Scalar.OWN_EXPONENT] = slope * (own_moment * own_width + other_moment * other_width) + by_leading
        jacobian[:, :, Scalar.OTHER_EXPONENT] = slope * other_moment * other_width + np.where(has_own, 0.0, by_leading)
        offset = theta[:, Scalar.SPECIFIC_OFFSET, None]
        jacobian[:, :, Scalar.SPECIFIC_OFFSET] = slope * np.exp(offset - terms.log_specific)
        np.multiply(slope[:, :, None], terms.specific_shares, out=jacobian[:, :, self.specific_weights])
        weighted = np.einsum("vrk,vk->vr", terms.generic_shares, theta[:, self.generic_weights])
        jacobian[:, :, Scalar.GENERIC_AMPLITUDE] = terms.generic
        jacobian[:, :, Scalar.GENERIC_DECAY] = terms.generic * (weighted - terms.alpha * terms.log_generic)
        np.multiply(-terms.generic[:, :, None], terms.generic_shares, out=jacobian[:, :, self.generic_weights])
        by_part = terms.part * (1 - terms.part) * log_total
        jacobian[:, :, Scalar.BUDGET_PART] = slope * by_part * terms.leading * all_shares
        if terms.size is not None:
            jacobian[:, :, self.size_columns] = size_jacobian(terms.size, terms.specific + terms.generic)
        self._add_repetition(jacobian, terms)
        return jacobian

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
        specific = terms.specific_shares * terms.exponents[:, None, :]
        specific *= (terms.specific * terms.power)[:, :, None]
        return -specific - (terms.generic * terms.alpha)[:, :, None] * terms.generic_shares

    def _by_log_total(self, terms: Terms) -> FloatArray:
        """(V, R) derivatives of the losses by the log of the effective budget, at given tokens."""
        damping = (1 - terms.part) * terms.leading * terms.specific_shares.sum(axis=2)
        return np.asarray(terms.specific * terms.power * damping)

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
