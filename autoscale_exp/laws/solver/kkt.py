"""A program over shares, and how far a point is from its minimum. This certifies every optimum.

N shares, M rows.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from autoscale_exp.base.arrays import FloatArray


class Program(Protocol):
    """Minimise f(w) [+ t] over `lower` <= w <= `upper`, sum w = `total`, rows(w) - epigraph t <= 0.

    Attributes:
        lower: (N,) lower limits, all below `upper`.
        upper: (N,) upper limits.
        total: the sum of w.
        epigraph: (M,) 1 for rows that t must not be below, else 0; if any is 1, t is added to f.
    """

    lower: FloatArray
    upper: FloatArray
    total: float
    epigraph: FloatArray

    def values(self, w: FloatArray) -> tuple[float, FloatArray]:
        """Returns f and (M,) values of the rows."""
        ...

    def derivatives(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the (N,) gradient of f and the (M, N) gradients of the rows; at the start they are of order 1."""
        ...


@dataclass(frozen=True)
class Point:
    """A point, with its certificate.

    Attributes:
        w: (N,) shares.
        y: (M,) multipliers of the rows, >= 0.
        residual: KKT residual; see `kkt_residual`.
        violation: largest amount by which a row exceeds 0.
    """

    w: FloatArray
    y: FloatArray
    residual: float
    violation: float


def kkt_residual(program: Program, w: FloatArray, t: float, y: FloatArray) -> float:
    """Returns the KKT residual at w, with the multiplier of the sum (price) that makes it smallest.

    The residual is the largest of these, relative to the largest slope: for each share, the slope of the Lagrangian,
    times N times the distance to the limit that it points to if that is nearer than 1 / N; for each row, its multiplier
    times its slack.
    """
    gradient, rows = program.derivatives(w)
    slope = gradient + y @ rows
    below = np.minimum(1.0, np.maximum(w - program.lower, 0) * len(w))  # room to shrink, by which slope > 0 counts
    above = np.minimum(1.0, np.maximum(program.upper - w, 0) * len(w))

    def sides(price: float) -> tuple[float, float]:
        rest = slope + price
        return float((below * np.maximum(rest, 0)).max()), float((above * np.maximum(-rest, 0)).max())

    low, high = -float(slope.max()) - 1e-9, -float(slope.min()) + 1e-9
    if not (np.isfinite(low) and np.isfinite(high)):
        return np.inf
    balance = lambda p: sides(p)[0] - sides(p)[1]  # noqa: E731
    price = brentq(balance, low, high, xtol=1e-15, maxiter=300, full_output=True, disp=False)[0]
    free = (below > 1e-3) & (above > 1e-3)
    scale = max(1e-3, float(np.abs(slope[free] if free.any() else slope).max()))
    row_values = program.values(w)[1] - program.epigraph * t
    complementarity = float(np.abs(y * row_values).max(initial=0))
    height = abs(1 - float(y @ program.epigraph)) if program.epigraph.any() else 0.0
    return max(max(sides(price)) / scale, complementarity / scale, height)


def worth(point: Point) -> float:
    """How far a point is from a minimum: the larger of residual and violation."""
    return max(point.residual, point.violation)


def point_at(program: Program, w: FloatArray, y: FloatArray) -> Point:
    """Makes a point with its certificate. The height of an epigraph is the least that its rows allow."""
    rows = program.values(w)[1]
    t = float(rows[program.epigraph > 0].max()) if program.epigraph.any() else 0.0
    violation = max(0.0, float((rows - program.epigraph * t).max(initial=0)))
    return Point(w, y, kkt_residual(program, w, t, y), violation)
