"""The terms of model size in the pooled transfer law, for runs of several sizes.

    L_v(N, n) = E_v + C_v N^(-kappa_v) + N^(-eta_v) (A_v S_v(n)^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v))

N is in multiples of the geometric mean of the sizes. C is the loss that a lack of capacity adds whatever the text. It
is additive in N, as in Hoffmann et al. (arXiv 2203.15556) and Shukor et al. (arXiv 2507.09404). eta says how much less
the mixture matters to larger models. These terms keep the law convex at any N.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray


class Size(IntEnum):
    """The last columns of the (V, P) parameters, for a law that takes model sizes."""

    AMPLITUDE = 0  # log C
    DECAY = 1  # log kappa
    EASE = 2  # eta
    EXCESS = 3  # log R of parameters beyond those that the unique tokens suffice for


class SizeTerms(NamedTuple):
    """The parts of the formula that depend on model size, each (V, R) unless said otherwise."""

    lack: FloatArray  # C N^-kappa
    ease: FloatArray  # N^-eta
    decay: FloatArray  # (V, 1) kappa
    log_size: FloatArray  # (R,) or (V, R) log N
    power: FloatArray  # (V, 1) eta


def size_terms(theta: FloatArray, log_size: FloatArray) -> SizeTerms:
    """Evaluates the parts at (V, 4) parameters and (R,) or (V, R) log N."""
    amplitude, log_decay, ease, _ = (theta[:, column, None] for column in Size)
    decay = np.exp(log_decay)
    return SizeTerms(np.exp(amplitude - decay * log_size), np.exp(-ease * log_size), decay, log_size, ease)


def by_log_size(terms: SizeTerms, eased: FloatArray) -> FloatArray:
    """Returns the (V, R) derivatives of the losses by log N; `eased` (V, R) are the terms with the factor N^-eta."""
    return np.asarray(-terms.lack * terms.decay - eased * terms.power)


def size_jacobian(terms: SizeTerms, eased: FloatArray) -> FloatArray:
    """Returns the (V, R, 4) derivatives by the size's parameters, with 0 for `EXCESS`; `eased` as in `by_log_size`."""
    by_decay = -terms.lack * terms.decay * terms.log_size
    return np.stack([terms.lack, by_decay, -eased * terms.log_size, np.zeros_like(eased)], axis=2)
