"""The points at which the formula of the pooled transfer law is evaluated, and their discount for repeated text.

A point is a run: its domain tokens, the size of its model, and its epochs over the text. Repetition turns a domain's
tokens into fewer effective tokens (see laws.repetition). The effective budget X is that of an equal number of epochs
over all text. The effective size N is the model's worth for its text, relative to its worth for as many tokens of fresh
text. Neither depends on the mixture, so at a given budget the law stays convex. Without repetition nothing changes.

K training domains, V validation domains, R points.
"""

from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.repetition import Worth, epochs_of, excess_of, worth_of

# log g_0: a trace of text, e^-12 of the reference, that keeps the generic term finite without any tokens.
LOG_NO_TEXT = -12.0


class Repeated(NamedTuple):
    """How often text is repeated, and how large models are for it."""

    epochs: FloatArray  # (R, K) epochs over each domain's text
    all_epochs: FloatArray  # (R,) all tokens over those of all text
    excess: FloatArray  # (R,) parameters over those that the unique tokens suffice for; 0 for a law without sizes
    fresh_excess: FloatArray  # (R,) the same if all tokens were unique


class Points(NamedTuple):
    """R points: the inputs of the formula."""

    log_tokens: FloatArray  # (R, K) log x; -inf for no tokens
    log_size: FloatArray | None  # (R,) log N; None for a law that takes no model sizes
    repeated: Repeated | None  # None where no text is gone through more than once

    def at(self, rows: Int64Array) -> "Points":
        """Some of the points."""
        size, repeated = self.log_size, self.repeated
        return Points(
            self.log_tokens[rows],
            None if size is None else size[rows],
            None if repeated is None else Repeated(*(each[rows] for each in repeated)),
        )


class Effective(NamedTuple):
    """Effective points, which discount repetition, and their derivatives.

    Attributes:
        log_tokens: log x, (R, K), or (V, R, K) if text is repeated.
        log_total: log X, (R,) or (V, R).
        log_size: log N, (R,) or (V, R); None for a law that takes no sizes.
        by_tokens: (V, R, K) derivatives of log x by the log of tokens trained on; 1 if nothing is repeated.
        by_total: (V, R) derivatives of log X by the log of the budget; 1 if nothing is repeated.
        size_by_total: (V, R) derivatives of log N by the log of the budget; 0 if nothing is repeated.
        of_text: worth of tokens and of the total; None if nothing is repeated.
        of_size: worth of parameters for the text and for fresh text; None without sizes or repetition.
    """

    log_tokens: FloatArray
    log_total: FloatArray
    log_size: FloatArray | None
    by_tokens: FloatArray | float = 1.0
    by_total: FloatArray | float = 1.0
    size_by_total: FloatArray | float = 0.0
    of_text: tuple[Worth, Worth] | None = None
    of_size: tuple[Worth, Worth] | None = None


def points_of(
    log_tokens: FloatArray,
    log_size: FloatArray | None,
    domain_tokens: FloatArray,
    params: FloatArray | float | None,
    unique_tokens: FloatArray | None,
) -> Points:
    """Makes R points.

    Args:
        log_tokens: (R, K) log x.
        log_size: (R,) log N, or None for a law that takes no sizes.
        domain_tokens: (R, K) tokens trained on.
        params: model sizes, if the law takes them.
        unique_tokens: (R, K) or (K,) tokens of the text; None for endless text.
    """
    if unique_tokens is None or (epochs := epochs_of(domain_tokens, unique_tokens)).max(initial=0.0) <= 1:
        return Points(log_tokens, log_size, None)
    totals = domain_tokens.sum(axis=1)
    text = np.broadcast_to(np.asarray(unique_tokens, dtype=np.float64).sum(axis=-1), totals.shape)
    excess = fresh = np.zeros_like(totals)
    if log_size is not None and params is not None:
        excess, fresh = (excess_of(params, tokens) for tokens in (np.minimum(totals, text), totals))
    return Points(log_tokens, log_size, Repeated(epochs, epochs_of(totals, text), excess, fresh))


def effective(points: Points, log_decay: FloatArray, log_excess_decay: FloatArray | None) -> Effective:
    """Discounts repetition, at (V, 1) log R of tokens and, for a law that takes sizes, of parameters."""
    log_tokens, log_size, repeated = points
    log_total = np.log(np.maximum(np.exp(log_tokens).sum(axis=1), np.exp(LOG_NO_TEXT)))
    if repeated is None:
        return Effective(log_tokens, log_total, log_size)
    tokens, total = worth_of(repeated.epochs, log_decay[:, :, None]), worth_of(repeated.all_epochs, log_decay)
    seen = Effective(
        log_tokens + tokens.log,
        log_total + total.log,
        None,
        1 + tokens.by_log_times,
        1 + total.by_log_times,
        of_text=(tokens, total),
    )
    if log_size is None or log_excess_decay is None:
        return seen
    size, fresh = (worth_of(excess, log_excess_decay) for excess in (repeated.excess, repeated.fresh_excess))
    return seen._replace(
        log_size=log_size + size.log - fresh.log,
        size_by_total=np.where(repeated.all_epochs > 1, fresh.by_log_times, 0.0),  # up to one epoch the two are one
        of_size=(size, fresh),
    )
