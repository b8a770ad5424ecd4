"""How alike two mixtures are: the kernel of a Gaussian process over mixtures and scales, and random features of it.

The kernel has two parts. The rough part gives each mixture a deviation of its own. Half of the smooth part falls with
the Hellinger distance of two mixtures, the other half with the logs of their shares, domain by domain. Both parts fall
with the distance in budget and model size.

K domains. A point is K roots of shares, K logs of shares, log budget and log model size.
"""

from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray


class Kernel(NamedTuple):
    """Parameters of the kernel, chosen on the ladder's sizes up to 680M, RegMix and synthetic truths.

    Attributes:
        rough: weight of the rough part; the smooth part has the rest of 1.
        rough_length: length scale of the rough part, in Hellinger distance.
        length: length scale of the smooth part, in Hellinger distance.
        log_length: length scale of the smooth part, in the log of a share.
        least_share: added to shares before their logs are taken.
        rough_scale: length scale of the rough part in log budget and log model size.
        scale: length scale of the smooth part in log budget and log model size.
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
    """Returns the rough and the smooth part of the (X, Y) kernel of points (X, 2 K + 2) and (Y, 2 K + 2)."""
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
    """Returns (F, 2 K + 2) frequencies and (F,) phases of features whose inner products are the kernel on average.

    A feature is sqrt(2 / F) cos(frequencies point + phase) (Rahimi and Recht 2007). The first `num_rough(F)` features
    make the rough part. The features are the same at every call.
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
    """How many of the features make the rough part."""
    return round(KERNEL.rough * num_features)


def _squared_distances(points: FloatArray, others: FloatArray) -> FloatArray:
    """(X, Y) squared distances of (X, C) and (Y, C) points; rounding takes none below 0."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    return np.asarray(np.maximum(squares, 0.0))
