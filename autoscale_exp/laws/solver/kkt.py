"""A program over shares, and how far a point is from its minimum: the certificate of every optimum."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from autoscale_exp.base.arrays import FloatArray


class Program(Protocol):
    """Minimise f(w) [+ t] over `lower` <= w <= `upper`, sum w = `total`, rows(w) - epigraph t <= 0.

    Attributes:
        lower: (N,) limits; below `upper` throughout.
        upper: (N,) limits.
        total: of w.
        epigraph: (M,) 1 for rows that t stands above, else 0; if any is 1, t is added to f.
    """

    lower: FloatArray
    upper: FloatArray
    total: float
    epigraph: FloatArray

    def values(self, w: FloatArray) -> tuple[float, FloatArray]:
        """f and (M,) rows."""
        ...

    def derivatives(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N,) gradient of f and (M, N) of the rows; of order 1 at the start."""
        ...

    def parts(self, w: FloatArray) -> FloatArray:
        """(P, N) gradients of the functions that f and the rows are made of; may help, need not."""
        ...


@dataclass(frozen=True)
class Point:
    """Where the method ends.

    Attributes:
        w: (N,) shares.
        t: height of the epigraph; 0 without one.
        y: (M,) multipliers of the rows, >= 0.
        value: f + t.
        residual: KKT residual; see `kkt_residual`.
        violation: largest by which a row is above 0.
        iterations: of Newton's method.
    """

    w: FloatArray
    t: float
    y: FloatArray
    value: float
    residual: float
    violation: float
    iterations: int


def kkt_residual(program: Program, w: FloatArray, t: float, y: FloatArray) -> tuple[float, float]:
    """How far w is from stationary, and the price of a share that fits best.

    Of every share, |slope of the Lagrangian| counts in full off its limits and, towards a limit it is nearer to than
    1 / N, by that distance times N; of every row, its multiplier times its slack. All relative to the largest slope.
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
        return np.inf, 0.0
    balance = lambda p: sides(p)[0] - sides(p)[1]  # noqa: E731
    price = brentq(balance, low, high, xtol=1e-15, maxiter=300, full_output=True, disp=False)[0]
    free = (below > 1e-3) & (above > 1e-3)
    scale = max(1e-3, float(np.abs(slope[free] if free.any() else slope).max()))
    row_values = program.values(w)[1] - program.epigraph * t
    complementarity = float(np.abs(y * row_values).max(initial=0))
    height = abs(1 - float(y @ program.epigraph)) if program.epigraph.any() else 0.0
    return max(max(sides(price)) / scale, complementarity / scale, height), price


def worth(point: Point) -> float:
    """What is left to improve: the larger of residual and violation."""
    return max(point.residual, point.violation)


def point_at(program: Program, w: FloatArray, t: float, y: FloatArray, iterations: int) -> Point:
    """The point with its certificate; a height is lowered to the least that it can be."""
    f, c = program.values(w)
    if program.epigraph.any():
        t = float(c[program.epigraph > 0].max())
    violation = max(0.0, float((c - program.epigraph * t).max(initial=0)))
    draft = Point(w, t, y, f + t, np.inf, violation, iterations)
    return replace(draft, residual=kkt_residual(program, w, t, y)[0])
