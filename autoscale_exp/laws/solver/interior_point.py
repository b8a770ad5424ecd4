"""Minimises a program over more shares than SLSQP can take: an SLSQP step costs the cube of their number.

A primal-dual interior-point method (Nocedal and Wright, Numerical Optimization, chapter 19): slacks for the rows, an l1
merit function, a barrier that is lowered step by step, and at the end Newton's method on the limits that hold.

N shares, M rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.solver.kkt import Point, Program, point_at
from autoscale_exp.laws.solver.newton_step import NewtonStep
from autoscale_exp.laws.solver.polish import polish

BARRIER_END = 1e-10  # the last barrier, in units of the largest slope at the start: free shares are off by so much
DIVERGED = 1e12  # multipliers this large mean that rows cannot be met near here, as can be where they are not convex
HALVINGS = 30  # of a step, before it is given up


def minimise_by_interior_point(
    program: Program, start: FloatArray, *, tolerance: float = 1e-9, max_iterations: int = 150
) -> Point:
    """Returns the minimum near `start`; the only one if f and the rows are convex.

    Args:
        program: what to minimise.
        start: (N,) strictly within limits, with the right sum. The rows need not hold there.
        tolerance: KKT residual at which to stop.
        max_iterations: number of Newton steps at most.
    """
    search = _Search(program, start)
    size = len(start)
    barrier, end = 0.1 / size, BARRIER_END / size
    for _ in range(max_iterations):
        if not search.penalty < DIVERGED:
            break
        while search.error(search.now, barrier) <= 10 * barrier * size and barrier > end:
            barrier = max(end, min(0.2 * barrier, (barrier * size) ** 1.5 / size))
        if barrier <= end and search.error(search.now, barrier) <= tolerance:
            break
        if not search.step(barrier):
            if barrier <= end:
                break
            barrier = max(end, 0.1 * barrier)  # rounding stops all progress at this barrier
    now = search.now
    lower, upper = search.gaps(now.w)
    near = point_at(program, now.w, now.t, now.y, search.iterations)
    return polish(program, near, now.z_lower > size * lower, now.z_upper > size * upper, now.y > now.s)


@dataclass(frozen=True)
class _Iterate:
    """A point of the search: primal variables, multipliers, and the program's values and derivatives there.

    Attributes:
        w: (N,) shares.
        t: height of the epigraph.
        s: (M,) slacks of the rows.
        y: (M,) multipliers of the rows.
        z_lower: (N,) multipliers of the lower limits.
        z_upper: (N,) multipliers of the upper limits.
        price: multiplier of the sum of the shares.
        f: value of the program.
        c: (M,) values of the rows.
        gradient: (N,) of f.
        rows: (M, N) gradients of the rows.
    """

    w: FloatArray
    t: float
    s: FloatArray
    y: FloatArray
    z_lower: FloatArray
    z_upper: FloatArray
    price: float
    f: float
    c: FloatArray
    gradient: FloatArray
    rows: FloatArray


class _Search:
    """The search at its present iterate, and the step that improves it."""

    def __init__(self, program: Program, start: FloatArray) -> None:
        self.program, self.iterations, self.penalty = program, 0, 1.0
        self.has_height = bool(program.epigraph.any())
        self.now = self._first(start.copy())

    def _first(self, w: FloatArray) -> _Iterate:
        epigraph, barrier = self.program.epigraph, 0.1 / len(w)
        high = epigraph > 0
        f, c = self.program.values(w)
        gradient, rows = self.program.derivatives(w)
        t = float(c[high].max()) + 0.1 if self.has_height else 0.0
        s = np.maximum(epigraph * t - c, 1e-2)
        y = barrier / s
        if self.has_height:
            y[high] = 1 / high.sum()
        lower, upper = self.gaps(w)
        price = -float(np.median(gradient + y @ rows))
        return _Iterate(w, t, s, y, barrier / lower, barrier / upper, price, f, c, gradient, rows)

    def gaps(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N,) distances of shares from their lower and upper limits, above 0."""
        return np.maximum(w - self.program.lower, 1e-17), np.maximum(self.program.upper - w, 1e-17)

    def error(self, at: _Iterate, barrier: float) -> float:
        """Largest violation of the optimality conditions at a barrier, all in units of slopes."""
        lower, upper = self.gaps(at.w)
        size = len(at.w)
        slope = at.gradient + at.y @ at.rows + at.price - at.z_lower + at.z_upper
        height = abs(1 - at.y @ self.program.epigraph) if self.has_height else 0.0
        feasible = np.abs(at.c - self.program.epigraph * at.t + at.s).max(initial=0)
        products = np.concatenate([size * (at.z_lower * lower - barrier), size * (at.z_upper * upper - barrier)])
        rows = np.abs(at.s * at.y - barrier).max(initial=0)
        return float(max(np.abs(slope).max(), height, feasible, np.abs(products).max(), rows))

    def merit(self, w: FloatArray, t: float, s: FloatArray, f: float, c: FloatArray, barrier: float) -> float:
        """The l1 merit function: the barrier problem's objective, plus the penalty on rows that do not hold."""
        lower, upper = self.gaps(w)
        logs = np.log(lower).sum() + np.log(upper).sum() + np.log(s).sum()
        return f + t - barrier * float(logs) + self.penalty * float(np.abs(c - self.program.epigraph * t + s).sum())

    def step(self, barrier: float) -> bool:
        """Takes one step of Newton's method; False if no length of it improves the iterate."""
        program, epigraph, now = self.program, self.program.epigraph, self.now
        self.iterations += 1
        lower, upper = self.gaps(now.w)
        sigma = now.z_lower / lower + now.z_upper / upper
        newton = NewtonStep(program, now.w, now.y, (now.gradient, now.rows), sigma, now.s / now.y)
        slope = now.gradient + now.y @ now.rows + now.price - barrier / lower + barrier / upper
        feasible = now.c - epigraph * now.t + now.s
        error = self.error(now, barrier)
        dw, dt, dy, dprice = newton.solve(
            -slope,
            float(now.y @ epigraph - 1) if self.has_height else 0.0,
            now.s - feasible - barrier / now.y,
            min(0.05, max(1e-4, 0.1 * error)),
        )
        ds = barrier / now.y - now.s - now.s / now.y * dy
        dz_lower = barrier / lower - now.z_lower - now.z_lower / lower * dw
        dz_upper = barrier / upper - now.z_upper + now.z_upper / upper * dw
        primal = min(_longest(lower, dw), _longest(upper, -dw), _longest(now.s, ds))
        dual = min(_longest(now.y, dy), _longest(now.z_lower, dz_lower), _longest(now.z_upper, dz_upper))

        self.penalty = max(self.penalty, 1.5 * float(np.abs(now.y + dual * dy).max(initial=0)))
        before = self.merit(now.w, now.t, now.s, now.f, now.c, barrier)
        fall = float(now.gradient @ dw) + dt - barrier * float((dw / lower - dw / upper).sum() + (ds / now.s).sum())
        fall -= self.penalty * float(np.abs(feasible).sum())
        rounding = 1e-14 * max(1.0, abs(before))
        ahead = replace(
            now,
            y=now.y + dual * dy,
            z_lower=now.z_lower + dual * dz_lower,
            z_upper=now.z_upper + dual * dz_upper,
            price=now.price + dual * dprice,
        )
        length = primal
        for attempt in range(HALVINGS):
            w, t, s = now.w + length * dw, now.t + length * dt, now.s + length * ds
            f, c = program.values(w)
            better = self.merit(w, t, s, f, c, barrier) <= before + 1e-4 * length * min(fall, 0) + rounding
            if better or attempt == 0:
                gradient, rows = program.derivatives(w)
                trial = replace(ahead, w=w, t=t, s=s, f=f, c=c, gradient=gradient, rows=rows)
                # Near the end the merit function can refuse good full steps (Maratos effect): there the error decides.
                if better or self.error(trial, barrier) <= 0.9 * error:
                    self.now = trial
                    return True
            length *= 0.5
        return False


def _longest(values: FloatArray, change: FloatArray) -> float:
    """The longest step, at most 1, that leaves at least 0.5 % of each positive value."""
    falling = change < 0
    return min(1.0, float((-0.995 * values[falling] / change[falling]).min(initial=1.0)))
