"""What repeated text is worth, and what a model's size is worth with too little text for it.

After Muennighoff et al. (arXiv 2305.16264), each further epoch is worth a constant factor less than the one before. So
e epochs over U unique tokens are worth

    U + U R (1 - exp(-(e - 1) / R))        for e > 1

fresh tokens, and never more than 1 + R epochs. Parameters beyond those that U tokens suffice for lose their worth in
the same way. Both are smooth and concave in the tokens trained on, so convex laws stay convex.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray

# R of tokens and of parameters, as Muennighoff et al. fitted them. They are the prior of a law that fits its own decay,
# and the decay of all others.
DATA_DECAY, EXCESS_DECAY = 15.4, 5.3
TOKENS_PER_PARAMETER = 20.0  # tokens that suffice for a parameter, at the optimum of Hoffmann et al. (arXiv 2203.15556)


class Worth(NamedTuple):
    """The mean worth of a use, where the first use is worth 1."""

    log: FloatArray  # log of the worth; 0 up to one use
    by_log_times: FloatArray  # its derivative by the log of the number of uses
    by_log_decay: FloatArray  # its derivative by the log of R


def worth_of(times: FloatArray, log_decay: FloatArray | float) -> Worth:
    """Returns the worth of something used `times` times, at log R; the two broadcast."""
    again, decay = np.maximum(times, 1.0) - 1, np.exp(log_decay)
    last = np.exp(-again / decay)  # what one more use counts for
    beyond = -decay * np.expm1(-again / decay)
    total = 1 + beyond
    return Worth(np.log(total / (1 + again)), (1 + again) * last / total - 1, (beyond - again * last) / total)


def epochs_of(tokens: FloatArray, unique_tokens: FloatArray | Sequence[float]) -> FloatArray:
    """Returns the epochs that tokens make over a text; an empty text counts as one token."""
    return np.asarray(tokens / np.maximum(unique_tokens, 1.0))


def effective_tokens(
    domain_tokens: FloatArray, unique_tokens: FloatArray | Sequence[float] | None
) -> tuple[FloatArray, FloatArray]:
    """Returns the (R, K) fresh tokens that tokens are worth at DATA_DECAY, and the derivatives of their logs.

    Args:
        domain_tokens: (R, K) tokens trained on; the derivatives are by their logs.
        unique_tokens: (R, K) or (K,) tokens of the text; None if nothing is repeated.
    """
    if unique_tokens is None:
        return domain_tokens, np.ones_like(domain_tokens)
    worth = worth_of(epochs_of(domain_tokens, unique_tokens), np.log(DATA_DECAY))
    return domain_tokens * np.exp(worth.log), 1 + worth.by_log_times


def excess_of(params: FloatArray | float, tokens: FloatArray) -> FloatArray:
    """Returns the parameters of a model over those that `tokens` of fresh text suffice for."""
    return np.asarray(params * TOKENS_PER_PARAMETER / tokens)


def effective_params(
    params: FloatArray | float, domain_tokens: FloatArray, unique_tokens: FloatArray | None
) -> FloatArray | float:
    """Returns the (R,) parameters that models are worth at EXCESS_DECAY, relative to their worth with fresh text.

    Args:
        params: (R,) model sizes.
        domain_tokens: (R, K) tokens trained on.
        unique_tokens: (R, K) or (K,) tokens of the text; None if nothing is repeated.
    """
    if unique_tokens is None:
        return params
    totals = domain_tokens.sum(axis=1)
    seen = np.minimum(totals, unique_tokens.sum(axis=-1))
    size, fresh = (worth_of(excess_of(params, tokens), np.log(EXCESS_DECAY)).log for tokens in (seen, totals))
    return np.asarray(params * np.exp(size - fresh))
