"""Student-t noise of losses, the same for every law: odd runs do not bend a fit.

Weights and scale in turn (iteratively reweighted least squares: Lange, Little and Taylor 1989). Validation domains with
few runs lean on the noise that all have.
"""

import numpy as np

from autoscale_exp.base.arrays import FloatArray

# Zero shares of RegMix are rounded ones and their losses outliers, up to 1.8 nats off; 4 is the usual robust choice
# (Lange et al. 1989).
DEGREES = 4.0
NOISE_SD = 1.25  # standard deviation of Gaussian noise over the scale of the Student-t fitted to it
# Variance of a fit's parameters over what its weights say: 1.4 for noise that is Student-t, 1.74 for Gaussian noise.
ROBUST_VARIANCE = 1.6
STEPS = 6  # of weights and scale in turn, which settle within a few
POOLED_COUNT = 4.0  # the noise pooled over validation domains counts as so many runs
LEAST_LEFT = 0.1  # of the runs, as degrees of freedom that a fit leaves


def robust_weights(residuals: FloatArray, scale: FloatArray) -> FloatArray:
    """(R, V) weights of residuals (R, V) under Student-t noise of scale (V,)."""
    return (DEGREES + 1) / (DEGREES + (residuals / scale) ** 2)


def noise_scale(
    residuals: FloatArray, num_used: FloatArray, scale: FloatArray, floor: float
) -> tuple[FloatArray, FloatArray]:
    """(V,) scale of the Student-t, and (R, V) weights.

    Args:
        residuals: (R, V) in nats.
        num_used: (V,) effective number of parameters fitted.
        scale: (V,) to start from.
        floor: nats; no noise is smaller.
    """
    num_runs = len(residuals)
    left = np.maximum(num_runs - num_used, LEAST_LEFT * num_runs)
    for _ in range(STEPS):
        weights = robust_weights(residuals, scale)
        squares = (weights * residuals**2).sum(axis=0)
        pooled = np.exp(np.mean(np.log(squares / left + 1e-12)))
        scale = np.maximum(np.sqrt((squares + POOLED_COUNT * pooled) / (left + POOLED_COUNT)), floor)
    return scale, weights
