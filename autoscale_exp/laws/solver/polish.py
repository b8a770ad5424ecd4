"""The last digits of a minimum, by Newton's method with the limits and rows that hold taken as equalities."""

import numpy as np

from autoscale_exp.base.arrays import BoolArray
from autoscale_exp.laws.solver.kkt import Point, Program, kkt_residual, point_at, worth
from autoscale_exp.laws.solver.newton_step import NewtonStep


def polish(program: Program, near: Point, on_lower: BoolArray, on_upper: BoolArray, active: BoolArray) -> Point:
    """Improves a point by Newton's method as long as its residual falls, with active limits and rows as equalities.

    Args:
        program: what to minimise.
        near: a point near the minimum.
        on_lower: (N,) shares that are on their lower limit.
        on_upper: (N,) shares that are on their upper limit.
        active: (M,) rows that hold with equality.
    """
    w = np.where(on_lower, program.lower, np.where(on_upper, program.upper, near.w))
    free = ~(on_lower | on_upper)
    best = near
    if free.any():
        w[free] += (program.total - w.sum()) * w[free] / w[free].sum()
    if abs(w.sum() - program.total) > 1e-12 or (w < program.lower).any() or (w > program.upper).any():
        return best
    snapped = point_at(program, w, near.t, np.where(active, near.y, 0.0), near.iterations)
    if worth(snapped) > 10 * max(worth(best), 1e-9):
        return best
    point = snapped
    if worth(snapped) <= max(worth(best), 1e-10):
        best = snapped
    for _ in range(6):
        if worth(best) <= 1e-13 or not free.any():
            break
        gradient, rows = program.derivatives(point.w)
        price = kkt_residual(program, point.w, point.t, point.y)[1]
        sigma = np.where(free, 0.0, 1e20)
        slack = np.where(active, 0.0, 1e20)
        newton = NewtonStep(program, point.w, point.y, (gradient, rows), sigma, slack)
        slope = np.where(free, gradient + point.y @ rows + price, 0.0)
        height = float(point.y @ program.epigraph) - 1
        c = program.values(point.w)[1] - program.epigraph * point.t
        dw, dt, dy, _ = newton.solve(-slope, height, np.where(active, -c, 0.0), 1e-6)
        w = np.where(free, point.w + dw, point.w)
        w[free] += (program.total - w.sum()) / free.sum()
        if not np.isfinite(w).all() or (w < program.lower).any() or (w > program.upper).any():
            break
        y = np.where(active, np.maximum(point.y + dy, 0), 0.0)
        trial = point_at(program, w, point.t + dt, y, point.iterations + 1)
        if not worth(trial) < worth(point):
            break
        point = trial
        if worth(point) < worth(best):
            best = point
    return best
