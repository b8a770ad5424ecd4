"""Minimises a program over shares by sequential quadratic programming: SciPy's SLSQP, with our gradients."""

from typing import Any

import numpy as np
from scipy.optimize import minimize

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.solver.kkt import Point, Program, point_at, worth
from autoscale_exp.laws.solver.polish import polish

MAX_ITERATIONS = 300
TOLERANCE = 1e-16  # of f, at which SLSQP stops; what matters is the residual of where it stops


class _Evaluated:
    """A program at SLSQP's points x = (w, t); it asks for values and for derivatives of each more than once."""

    def __init__(self, program: Program) -> None:
        self.program, self.has_height = program, bool(program.epigraph.any())
        self.x: FloatArray | None = None

    def at(self, x: FloatArray) -> FloatArray:
        """(N,) shares of a point, within limits, which SLSQP may pass by rounding."""
        size = len(self.program.lower)
        w = np.clip(x[:size], self.program.lower, self.program.upper)
        if self.x is None or not np.array_equal(x, self.x):
            self.x = x.copy()
            self.values, self.derivatives = self.program.values(w), self.program.derivatives(w)
        return w

    def height(self, x: FloatArray) -> float:
        return float(x[-1]) if self.has_height else 0.0

    def objective(self, x: FloatArray) -> float:
        self.at(x)
        return self.values[0] + self.height(x)

    def gradient(self, x: FloatArray) -> FloatArray:
        self.at(x)
        return np.append(self.derivatives[0], [1.0] * self.has_height)

    def rows(self, x: FloatArray) -> FloatArray:
        self.at(x)
        return self.program.epigraph * self.height(x) - self.values[1]

    def row_gradients(self, x: FloatArray) -> FloatArray:
        self.at(x)
        columns = [self.program.epigraph[:, None]] * self.has_height
        return np.hstack([-self.derivatives[1], *columns])


def minimise_by_slsqp(program: Program, start: FloatArray, accuracy: float) -> Point:
    """The minimum near `start`; the only one if f and the rows are convex.

    Source: Kraft, A software package for sequential quadratic programming, DFVLR-FB 88-28, 1988, as SciPy has it.

    Args:
        program: what to minimise.
        start: (N,) within limits, with the right sum. Rows need not hold at it.
        accuracy: KKT residual that suffices; where SLSQP ends above it, Newton's method goes on from there.
    """
    evaluated, size = _Evaluated(program), len(start)
    high = program.epigraph > 0
    heights = program.values(start)[1][high].max(keepdims=True) if high.any() else np.zeros(0)
    ones = np.append(np.ones(size), np.zeros(len(heights)))
    constraints: list[Any] = [{"type": "eq", "fun": lambda x: ones @ x - program.total, "jac": lambda x: ones}]
    if len(program.epigraph):
        constraints.append({"type": "ineq", "fun": evaluated.rows, "jac": evaluated.row_gradients})
    found = minimize(
        evaluated.objective,
        np.append(start, heights),
        jac=evaluated.gradient,
        method="SLSQP",
        bounds=[*zip(program.lower, program.upper, strict=True), *[(None, None)] * len(heights)],
        constraints=constraints,
        options={"ftol": TOLERANCE, "maxiter": MAX_ITERATIONS},
    )
    w = evaluated.at(found.x)
    y = np.maximum(np.asarray(found.multipliers)[1 : 1 + len(program.epigraph)], 0.0)
    point = point_at(program, w, evaluated.height(found.x), y, int(found.nit))
    if worth(point) <= accuracy:
        return point
    return polish(program, point, w <= program.lower, w >= program.upper, y > 0)
