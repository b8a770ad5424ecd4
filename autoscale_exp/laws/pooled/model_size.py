"""What the size of the model adds to the pooled transfer law, where the runs are of several sizes.

    L_v(N, n) = E_v + C_v N^(-kappa_v) + N^(-eta_v) (A_v S_v(n)^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v))

with N in multiples of the geometric mean of the sizes. C is what capacity lacks whatever the text (additive in N, as in
Hoffmann et al., arXiv 2203.15556, and Shukor et al., arXiv 2507.09404); eta says how much less the mixture matters to
larger models. At any N the law is as convex as without.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray


class Size(IntEnum):
    """The last columns of the parameters (V, P) of a law that takes model sizes."""

    AMPLITUDE = 0  # log C
    DECAY = 1  # log kappa
    EASE = 2  # eta
    EXCESS = 3  # log R of parameters that the unique tokens do not suffice for


class SizeTerms(NamedTuple):
    """Parts of the formula that model size decides, each (V, R)."""

    lack: FloatArray  # C N^-kappa
    ease: FloatArray  # N^-eta
    decay: FloatArray  # (V, 1) kappa
    log_size: FloatArray  # (R,) or (V, R) log N
    power: FloatArray  # (V, 1) eta


def size_terms(theta: FloatArray, log_size: FloatArray) -> SizeTerms:
    """The parts at parameters (V, 4) and (R,) or (V, R) log N."""
    amplitude, log_decay, ease, _ = (theta[:, column, None] for column in Size)
    decay = np.exp(log_decay)
    return SizeTerms(np.exp(amplitude - decay * log_size), np.exp(-ease * log_size), decay, log_size, ease)


def by_log_size(terms: SizeTerms, eased: FloatArray) -> FloatArray:
    """(V, R) derivatives of the losses by log N; `eased` (V, R) is what N^-eta multiplies, eased."""
    return np.asarray(-terms.lack * terms.decay - eased * terms.power)


def size_jacobian(terms: SizeTerms, eased: FloatArray) -> FloatArray:
    """(V, R, 4) derivatives by the size's parameters, that of `EXCESS` left 0; `eased` as in `by_log_size`."""
    by_decay = -terms.lack * terms.decay * terms.log_size
    return np.stack([terms.lack, by_decay, -eased * terms.log_size, np.zeros_like(eased)], axis=2)
