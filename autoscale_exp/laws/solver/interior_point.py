"""Minimises a program over more shares than SLSQP can take: its steps cost the cube of their number, these do not.

A primal-dual interior-point method (Nocedal and Wright, Numerical Optimization, chapter 19): slacks for the rows, an l1
merit function, a barrier lowered step by step, and Newton's method on the set of limits that it finds as the end.
"""

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.solver.kkt import Point, Program, point_at
from autoscale_exp.laws.solver.newton_step import NewtonStep
from autoscale_exp.laws.solver.polish import polish

BARRIER_END = 1e-10  # in units of the largest slope at the start; a free share is off its stationarity by so much
DIVERGED = 1e12  # multipliers so large mean that rows cannot be met near here, as can be where they are not convex


def minimise_by_interior_point(
    program: Program, start: FloatArray, *, tolerance: float = 1e-9, max_iterations: int = 150
) -> Point:
    """The minimum near `start`; the only one if f and the rows are convex.

    Args:
        program: what to minimise.
        start: (N,) strictly within limits, with the right sum. Rows need not hold at it.
        tolerance: of the KKT residual, at which to stop.
        max_iterations: of Newton's method.
    """
    state = _State(program, start)
    barrier, end = 0.1 / len(start), BARRIER_END / len(start)
    for _ in range(max_iterations):
        if not state.penalty < DIVERGED:
            break
        while state.error(barrier) <= 10 * barrier * len(start) and barrier > end:
            barrier = max(end, min(0.2 * barrier, (barrier * len(start)) ** 1.5 / len(start)))
        if barrier <= end and state.error(barrier) <= tolerance:
            break
        if not state.step(barrier):
            if barrier <= end:
                break
            barrier = max(end, 0.1 * barrier)  # stuck by rounding at this barrier
    lower, upper = state.gaps(state.w)
    near = point_at(program, state.w, state.t, state.y, state.iterations)
    size = len(start)
    return polish(program, near, state.z_lower > size * lower, state.z_upper > size * upper, state.y > state.s)


class _State:
    """Shares, height, slacks and multipliers, and the step that improves them."""

    def __init__(self, program: Program, start: FloatArray) -> None:
        self.program, self.w, self.iterations, self.penalty = program, start.copy(), 0, 1.0
        self.has_height = bool(program.epigraph.any())
        self.f, self.c = program.values(start)
        self.gradient, self.rows = program.derivatives(start)
        high = program.epigraph > 0
        self.t = float(self.c[high].max()) + 0.1 if self.has_height else 0.0
        self.s = np.maximum(program.epigraph * self.t - self.c, 1e-2)
        self.y = 0.1 / len(start) / self.s
        if self.has_height:
            self.y[high] = 1 / high.sum()
        lower, upper = self.gaps(self.w)
        self.z_lower, self.z_upper = 0.1 / len(start) / lower, 0.1 / len(start) / upper
        self.price = -float(np.median(self.gradient + self.y @ self.rows))

    def gaps(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        return np.maximum(w - self.program.lower, 1e-17), np.maximum(self.program.upper - w, 1e-17)

    def error(self, barrier: float) -> float:
        """Largest violation of the conditions that the barrier leaves, all in units of slopes."""
        lower, upper = self.gaps(self.w)
        size = len(self.w)
        slope = self.gradient + self.y @ self.rows + self.price - self.z_lower + self.z_upper
        height = abs(1 - self.y @ self.program.epigraph) if self.has_height else 0.0
        feasible = np.abs(self.c - self.program.epigraph * self.t + self.s).max(initial=0)
        products = np.concatenate([size * (self.z_lower * lower - barrier), size * (self.z_upper * upper - barrier)])
        rows = np.abs(self.s * self.y - barrier).max(initial=0)
        return float(max(np.abs(slope).max(), height, feasible, np.abs(products).max(), rows))

    def merit(self, w: FloatArray, t: float, s: FloatArray, f: float, c: FloatArray, barrier: float) -> float:
        lower, upper = self.gaps(w)
        logs = np.log(lower).sum() + np.log(upper).sum() + np.log(s).sum()
        return f + t - barrier * float(logs) + self.penalty * float(np.abs(c - self.program.epigraph * t + s).sum())

    def step(self, barrier: float) -> bool:
        """One step of Newton's method; False where no step of any length improves."""
        program, epigraph = self.program, self.program.epigraph
        self.iterations += 1
        lower, upper = self.gaps(self.w)
        sigma = self.z_lower / lower + self.z_upper / upper
        newton = NewtonStep(program, self.w, self.y, (self.gradient, self.rows), sigma, self.s / self.y)
        slope = self.gradient + self.y @ self.rows + self.price - barrier / lower + barrier / upper
        feasible = self.c - epigraph * self.t + self.s
        accuracy = min(0.05, max(1e-4, 0.1 * self.error(barrier)))
        dw, dt, dy, dprice = newton.solve(
            -slope,
            float(self.y @ epigraph - 1) if self.has_height else 0.0,
            self.s - feasible - barrier / self.y,
            accuracy,
        )
        ds = barrier / self.y - self.s - self.s / self.y * dy
        dz_lower = barrier / lower - self.z_lower - self.z_lower / lower * dw
        dz_upper = barrier / upper - self.z_upper + self.z_upper / upper * dw
        primal = min(_longest(lower, dw), _longest(upper, -dw), _longest(self.s, ds))
        dual = min(_longest(self.y, dy), _longest(self.z_lower, dz_lower), _longest(self.z_upper, dz_upper))

        self.penalty = max(self.penalty, 1.5 * float(np.abs(self.y + dual * dy).max(initial=0)))
        before = self.merit(self.w, self.t, self.s, self.f, self.c, barrier)
        fall = float(self.gradient @ dw) + dt - barrier * float((dw / lower - dw / upper).sum() + (ds / self.s).sum())
        fall -= self.penalty * float(np.abs(feasible).sum())
        rounding = 1e-14 * max(1.0, abs(before))
        length = primal
        for attempt in range(30):
            w, t, s = self.w + length * dw, self.t + length * dt, self.s + length * ds
            f, c = program.values(w)
            better = self.merit(w, t, s, f, c, barrier) <= before + 1e-4 * length * min(fall, 0) + rounding
            trial = self._at(w, t, s, f, c) if better or attempt == 0 else None
            if trial is not None:
                trial.y, trial.price = self.y + dual * dy, self.price + dual * dprice
                trial.z_lower, trial.z_upper = self.z_lower + dual * dz_lower, self.z_upper + dual * dz_upper
                # Near the end the merit function can refuse good steps (Maratos); what counts is the error.
                if better or trial.error(barrier) <= 0.9 * self.error(barrier):
                    self.__dict__.update(trial.__dict__)
                    return True
            length *= 0.5
        return False

    def _at(self, w: FloatArray, t: float, s: FloatArray, f: float, c: FloatArray) -> "_State":
        trial = object.__new__(_State)
        trial.__dict__.update(self.__dict__)
        trial.w, trial.t, trial.s, trial.f, trial.c = w, t, s, f, c
        trial.gradient, trial.rows = self.program.derivatives(w)
        return trial


def _longest(values: FloatArray, change: FloatArray) -> float:
    """Longest step, at most 1, that leaves at least 0.5% of each positive value."""
    falling = change < 0
    return min(1.0, float((-0.995 * values[falling] / change[falling]).min(initial=1.0)))
