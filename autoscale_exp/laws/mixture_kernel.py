"""How alike two mixtures are, as a kernel of Gaussian processes over mixtures and scales, and random features of it.

A part is rough, so that each mixture has a deviation of its own. The rest is smooth: half in the square roots of shares
(Hellinger's distance), half in the logarithm of each share by itself. All is less alike at other budgets and sizes.

K domains; a point is K roots of shares, K logs of shares, log budget and log model size.
"""

from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray


class Kernel(NamedTuple):
    """Of the discrepancy. Chosen on the ladder's sizes up to 680M, RegMix and synthetic truths.

    Attributes:
        rough: its part that is each mixture's own.
        rough_length: of that part, in Hellinger's distance.
        length: of the smooth part, in Hellinger's distance.
        log_length: of the smooth part, in the log of a share.
        least_share: added to shares before their log.
        rough_scale: how far the rough part reaches in log budget and log model size.
        scale: how far the smooth part does.
    """

    rough: float = 0.3
    rough_length: float = 0.12
    length: float = 0.7
    log_length: float = 1.2
    least_share: float = 0.01
    rough_scale: float = 0.2
    scale: float = 1.5


KERNEL = Kernel()


def kernel_between(points: FloatArray, others: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The (X, Y) correlations of points (X, 2 K + 2) and (Y, 2 K + 2), in two parts: the rough one and the smooth."""
    num_domains = points.shape[1] // 2 - 1
    roots, logs, scales = slice(0, num_domains), slice(num_domains, 2 * num_domains), slice(-2, None)
    squares = _squared_distances(points[:, roots], others[:, roots])
    smooth = np.exp(-squares / (2 * KERNEL.length**2))
    by_share = np.zeros_like(squares)
    for column in range(logs.start, logs.stop):
        by_share += np.exp(-((points[:, None, column] - others[None, :, column]) ** 2) / (2 * KERNEL.log_length**2))
    apart = _squared_distances(points[:, scales], others[:, scales])
    smooth = (smooth + by_share / num_domains) / 2 * np.exp(-apart / (2 * KERNEL.scale**2))
    rough = np.exp(-squares / (2 * KERNEL.rough_length**2) - apart / (2 * KERNEL.rough_scale**2))
    return np.asarray(KERNEL.rough * rough), np.asarray((1 - KERNEL.rough) * smooth)


def random_features(num_domains: int, num_features: int) -> tuple[FloatArray, FloatArray]:
    """(F, 2 K + 2) frequencies and (F,) phases of features whose products are the kernel on average.

    The first, `num_rough`, are of the rough part. Always the same ones.
    Source: Rahimi and Recht 2007; a feature is sqrt(2 / F) cos(frequencies point + phase).
    """
    rng = np.random.default_rng(0)
    frequencies = np.zeros((num_features, 2 * num_domains + 2))
    first_smooth = num_rough(num_features)
    for index, row in enumerate(frequencies):
        if index < first_smooth:
            row[:num_domains] = rng.standard_normal(num_domains) / KERNEL.rough_length
        elif index % 2:
            row[:num_domains] = rng.standard_normal(num_domains) / KERNEL.length
        else:
            row[num_domains + rng.integers(num_domains)] = rng.standard_normal() / KERNEL.log_length
        row[-2:] = rng.standard_normal(2) / (KERNEL.rough_scale if index < first_smooth else KERNEL.scale)
    return frequencies, rng.uniform(0, 2 * np.pi, num_features)


def num_rough(num_features: int) -> int:
    """How many of the features are of the rough part."""
    return round(KERNEL.rough * num_features)


def _squared_distances(points: FloatArray, others: FloatArray) -> FloatArray:
    """(X, Y) of (X, C) and (Y, C); not below 0 by rounding."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    return np.asarray(np.maximum(squares, 0.0))
