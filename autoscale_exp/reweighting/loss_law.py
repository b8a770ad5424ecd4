"""The power law of a domain's training loss, which ADO fits during a run.

    L(n) = floor + scale n^-exponent, n rows trained on

Source: Jiang et al. 2024, arXiv 2410.11820, section 3; the fit is that of the authors' code
(github.com/yidingjiang/ado, src/data_selectors/ado.py): Huber loss of the logarithm, soft limits, and a grid of starts.
Departure: only the best starts of the grid are followed, not all 512.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.signal import savgol_filter

from autoscale_exp.base.arrays import FloatArray

HUBER = 1e-3  # in log loss; larger residuals count linearly
SMOOTHED_STEPS, ORDER = 101, 3  # of the Savitzky-Golay filter
LARGEST_EXPONENT, SMALLEST_EXPONENT, LARGEST_LOG_SCALE, SMALLEST_LOG_FLOOR = 0.8, 0.001, 6.5, 0.5  # soft limits
STARTS = np.stack(
    np.meshgrid(np.arange(-2, 6), np.arange(-2, 2, 0.5), np.arange(0, 0.8, 0.1), indexing="ij"), axis=-1
).reshape(-1, 3)  # (512, 3): log scale, log floor, exponent
NUM_FOLLOWED = 4  # starts that are optimised from
NUM_COMPARED = 50  # points at which starts are compared
LEAST_LOSS = 1e-3  # nats; a smoothed curve that nearly vanishes may dip below zero, which has no logarithm


class LossLaw(NamedTuple):
    """L(n) = exp(log_floor) + exp(log_scale) n^-exponent in nats; n may be an array."""

    log_scale: float
    log_floor: float
    exponent: float

    def speed(self, num_rows: FloatArray) -> FloatArray:
        """-dL/dn = exponent (L(n) - floor) / n, in nats per row; not negative."""
        return max(self.exponent, 0.0) * np.exp(self.log_scale - (self.exponent + 1) * np.log(num_rows))


def smoothed(losses: FloatArray) -> FloatArray:
    """Smooths (T, K) losses of single steps along the steps, for each domain; T is at least 5."""
    window = min(SMOOTHED_STEPS, (len(losses) - 1) // 2 * 2 + 1)
    return np.maximum(savgol_filter(losses, window, ORDER, axis=0), LEAST_LOSS)


def fit_loss_law(num_rows: FloatArray, losses: FloatArray) -> LossLaw:
    """Fits the law to (P,) smoothed losses in nats after (P,) numbers of rows."""
    log_rows, log_losses = np.log(num_rows), np.log(losses)
    few = slice(None, None, -(-len(log_rows) // NUM_COMPARED))
    costs = _cost(STARTS, log_rows[few], log_losses[few])[0]
    followed = STARTS[np.argsort(costs, kind="stable")[:NUM_FOLLOWED]]

    def cost(law: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _cost(law, log_rows, log_losses)
        return float(value), gradient

    ends = [minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}) for start in followed]
    return LossLaw(*min(ends, key=lambda end: end.fun).x.tolist())


def _cost(laws: FloatArray, log_rows: FloatArray, log_losses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(...,) cost of (..., 3) laws, and its (..., 3) gradient."""
    log_scale, log_floor, exponent = (laws[..., index, None] for index in range(3))
    reducible = log_scale - exponent * log_rows
    predicted = np.logaddexp(reducible, log_floor)
    residual = predicted - log_losses
    size = np.abs(residual)
    cost = np.where(size > HUBER, HUBER * (size - HUBER / 2), residual**2 / 2).sum(axis=-1)
    slope = np.clip(residual, -HUBER, HUBER)
    of_reducible = slope * np.exp(reducible - predicted)
    gradient = np.stack([of_reducible.sum(-1), (slope - of_reducible).sum(-1), -(of_reducible * log_rows).sum(-1)], -1)
    limits = [  # parameter, limit, and on which side of it cost begins
        (0, LARGEST_LOG_SCALE, 1),
        (1, SMALLEST_LOG_FLOOR, -1),
        (2, LARGEST_EXPONENT, 1),
        (2, SMALLEST_EXPONENT, -1),
    ]
    for index, limit, side in limits:
        beyond = np.maximum(side * (laws[..., index] - limit), 0)
        cost = cost + beyond
        gradient[..., index] += side * (beyond > 0)
    return cost, gradient
