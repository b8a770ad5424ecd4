"""What text is worth that a run sees more than once, and what size is worth that its text is too little for.

After Muennighoff et al. (arXiv 2305.16264): each further epoch is worth a constant factor less than the one before, so
that U unique tokens, gone through e times, are worth

    U + U R (1 - exp(-(e - 1) / R))        for e > 1

fresh tokens, 1 + R epochs at most. Parameters beyond those that U tokens suffice for lose their worth in the same way.
Both are smooth and concave in the tokens trained on, so that convex laws stay convex.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray

# R of tokens and of parameters, as Muennighoff et al. fitted them: the laws' priors, and what a law without a fitted
# decay goes by.
DATA_DECAY, EXCESS_DECAY = 15.4, 5.3
TOKENS_PER_PARAMETER = 20.0  # that a model needs at least, at the optimum of Hoffmann et al. (arXiv 2203.15556)


class Worth(NamedTuple):
    """What each use counts for on average, where the first counts for 1."""

    log: FloatArray  # 0 up to one use
    by_log_times: FloatArray  # its derivative by the log of the number of uses
    by_log_decay: FloatArray  # by the log of R


def worth_of(times: FloatArray, log_decay: FloatArray | float) -> Worth:
    """The worth of something used so many `times`, at log R; arrays that broadcast."""
    again, decay = np.maximum(times, 1.0) - 1, np.exp(log_decay)
    last = np.exp(-again / decay)  # what one more use counts for
    beyond = -decay * np.expm1(-again / decay)
    total = 1 + beyond
    return Worth(np.log(total / (1 + again)), (1 + again) * last / total - 1, (beyond - again * last) / total)


def epochs_of(tokens: FloatArray, unique_tokens: FloatArray | Sequence[float]) -> FloatArray:
    """Times that tokens go through the text that there is, of which there is at least one token."""
    return np.asarray(tokens / np.maximum(unique_tokens, 1.0))


def effective_tokens(
    domain_tokens: FloatArray, unique_tokens: FloatArray | Sequence[float] | None
) -> tuple[FloatArray, FloatArray]:
    """(R, K) fresh tokens that (R, K) tokens are worth at DATA_DECAY, and what their logs gain with the tokens' logs.

    Args:
        domain_tokens: trained on.
        unique_tokens: (R, K) or (K,) tokens that the text has; None where nothing is repeated.
    """
    if unique_tokens is None:
        return domain_tokens, np.ones_like(domain_tokens)
    worth = worth_of(epochs_of(domain_tokens, unique_tokens), np.log(DATA_DECAY))
    return domain_tokens * np.exp(worth.log), 1 + worth.by_log_times


def excess_of(params: FloatArray | float, tokens: FloatArray) -> FloatArray:
    """Parameters over those that so many tokens of fresh text suffice for."""
    return np.asarray(params * TOKENS_PER_PARAMETER / tokens)


def effective_params(
    params: FloatArray | float, domain_tokens: FloatArray, unique_tokens: FloatArray | None
) -> FloatArray | float:
    """(R,) parameters that models of (R,) `params` are worth at EXCESS_DECAY, over what fresh text makes of them.

    Args:
        params: sizes.
        domain_tokens: (R, K) trained on.
        unique_tokens: (R, K) or (K,) tokens that the text has; None where nothing is repeated.
    """
    if unique_tokens is None:
        return params
    totals = domain_tokens.sum(axis=1)
    seen = np.minimum(totals, unique_tokens.sum(axis=-1))
    size, fresh = (worth_of(excess_of(params, tokens), np.log(EXCESS_DECAY)).log for tokens in (seen, totals))
    return np.asarray(params * np.exp(size - fresh))
