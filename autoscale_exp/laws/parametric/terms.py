"""Building blocks of the formulas of loss. V validation domains, R runs, K training domains."""

import numpy as np

from autoscale_exp.base.arrays import FloatArray

TINY = 1e-12  # in place of 0, so that losses are finite
LARGEST_LOG = 300.0  # of a term, so that no exponential overflows


def decay(scale: FloatArray, exponent: FloatArray, log_amount: FloatArray) -> FloatArray:
    """(V, R) scale * amount^-exponent, of (V, 1) scale and exponent and (V, R) or (R,) log amounts."""
    return scale * np.exp(np.minimum(-exponent * log_amount, LARGEST_LOG))


def split_level(log_level: FloatArray, *log_odds: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Splits the loss at the even mixture into an irreducible part and the terms that data lowers.

    Levels and odds are fitted because runs determine the sum well and the split badly. The derivative of the loss by
    log level is the loss. The derivative by a term's log odds is the term less its share times the loss.

    Args:
        log_level: (V, 1) log of the loss at the even mixture of one unit of tokens.
        log_odds: (V, 1) each; log of a term's share over the irreducible share.

    Returns:
        (V, 1) irreducible loss, and the (V, 1) share of each term in the level.
    """
    odds = [np.exp(each) for each in log_odds]
    total = 1 + sum(odds)
    return np.exp(log_level) / total, [each / total for each in odds]


def weighted_sum(
    log_weights: FloatArray, amounts: FloatArray, even: FloatArray, offset: FloatArray | float = TINY
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns the log of a + sum_i w_i x_i over the same sum at the even mixture, where amplitudes are measured.

    Without this reference an amplitude and an exponent would trade off along a curve, which no normal draws follow.

    Args:
        log_weights: (V, 1, K) log w.
        amounts: (..., R, K) x.
        even: (..., 1, K) x of the even mixture.
        offset: (V, 1) a.

    Returns:
        (V, R) the log ratio; (V, R, K) each domain's part of the sum; (V, 1, K) its part at the even mixture.
    """
    weights = np.exp(log_weights)
    parts, even_parts = weights * amounts, weights * even
    total, even_total = parts.sum(axis=2) + offset, even_parts.sum(axis=2) + offset
    return np.log(total / even_total), parts / total[:, :, None], even_parts / even_total[:, :, None]


def even_mixture(num_domains: int) -> FloatArray:
    """(1, K) equal domain weights, which are also one unit of tokens spread evenly."""
    return np.full((1, num_domains), 1 / num_domains)


def log_or_zero(amounts: FloatArray) -> FloatArray:
    """Log of amounts, and 0 for an amount of 0. For sums in which such terms vanish."""
    return np.log(np.where(amounts > 0, amounts, 1.0))


def powers(amounts: FloatArray, exponents: FloatArray) -> FloatArray:
    """(V, R, K) powers x^p of (R, K) amounts x and (V, 1, 1) or (V, 1, K) exponents p; 0 for an amount of 0."""
    return np.where(amounts > 0, np.exp(exponents * log_or_zero(amounts)), 0.0)


def split_tokens(tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(R, K) domain weights and (R,) log total of (R, K) tokens."""
    totals = tokens.sum(axis=1) + TINY
    return tokens / totals[:, None], np.log(totals)


def by_log_tokens(by_log_weights: FloatArray, by_log_total: FloatArray, weights: FloatArray) -> FloatArray:
    """(V, R, K) derivatives by log tokens, from those by unconstrained log weights and the (V, R) ones by log total."""
    return by_log_weights + weights * (by_log_total - by_log_weights.sum(axis=2))[:, :, None]
