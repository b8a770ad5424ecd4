"""Student-t noise of losses, the same for every law, so that odd runs do not bend a fit.

Weights and scale are estimated in turn by iteratively reweighted least squares (Lange, Little and Taylor 1989). With
few runs, the noise of a validation domain is drawn towards the noise pooled over all.
"""

import numpy as np

from autoscale_exp.base.arrays import FloatArray

# Degrees of freedom; 4 is the usual robust choice (Lange et al. 1989). RegMix has outliers up to 1.8 nats off, where it
# rounded small shares to zero.
DEGREES = 4.0
NOISE_SD = 1.25  # standard deviation of Gaussian noise over the scale of the Student-t fitted to it
# True variance of a fit's parameters over what its weights imply: 1.4 for Student-t noise, 1.74 for Gaussian noise.
ROBUST_VARIANCE = 1.6
STEPS = 6  # alternations of weights and scale, which settle within a few
POOLED_COUNT = 4.0  # the noise pooled over validation domains counts as this many runs
LEAST_LEFT = 0.1  # smallest degrees of freedom that a fit leaves, as a part of the runs


def robust_weights(residuals: FloatArray, scale: FloatArray) -> FloatArray:
    """Returns the (R, V) weights of (R, V) residuals under Student-t noise of scale (V,)."""
    return (DEGREES + 1) / (DEGREES + (residuals / scale) ** 2)


def noise_scale(
    residuals: FloatArray, num_used: FloatArray, scale: FloatArray, floor: float
) -> tuple[FloatArray, FloatArray]:
    """Estimates the (V,) scale of the Student-t noise, and the (R, V) weights of the residuals.

    Args:
        residuals: (R, V) residuals, in nats.
        num_used: (V,) effective number of parameters fitted.
        scale: (V,) scale to start from.
        floor: smallest scale, in nats.
    """
    num_runs = len(residuals)
    left = np.maximum(num_runs - num_used, LEAST_LEFT * num_runs)
    for _ in range(STEPS):
        weights = robust_weights(residuals, scale)
        squares = (weights * residuals**2).sum(axis=0)
        pooled = np.exp(np.mean(np.log(squares / left + 1e-12)))
        scale = np.maximum(np.sqrt((squares + POOLED_COUNT * pooled) / (left + POOLED_COUNT)), floor)
    return scale, weights
