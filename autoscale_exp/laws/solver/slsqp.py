"""Minimises a program over shares by sequential quadratic programming, with SciPy's SLSQP."""

from typing import Any

import numpy as np
from scipy.optimize import minimize

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.solver.kkt import Point, Program, point_at, worth
from autoscale_exp.laws.solver.polish import polish

MAX_ITERATIONS = 300
FEWEST = 1e-3  # times an even share; smaller shares have the unit of this one
ROUNDING = 1e-16  # smallest change of f, which is of order 1, that SLSQP can see


class _Evaluated:
    """A program at SLSQP's points x = (w / unit, t), remembered, since SLSQP asks for each point more than once.

    SLSQP starts from equal curvatures. Losses curve with a share as slope / share, so curvatures are about equal in
    units of the root of the shares.
    """

    def __init__(self, program: Program, start: FloatArray) -> None:
        self.program, self.has_height = program, bool(program.epigraph.any())
        self.unit = np.sqrt(np.maximum(start, FEWEST / len(start)))
        self.x: FloatArray | None = None
        self.derivatives: tuple[FloatArray, FloatArray] | None = None

    def at(self, x: FloatArray) -> FloatArray:
        """(N,) shares of a point, clipped to the limits, which SLSQP may pass by rounding."""
        size = len(self.program.lower)
        w = np.clip(x[:size] * self.unit, self.program.lower, self.program.upper)
        if self.x is None or not np.array_equal(x, self.x):
            self.x, self.values, self.derivatives = x.copy(), self.program.values(w), None
        return w

    def slopes(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The program's derivatives with respect to shares."""
        w = self.at(x)
        self.derivatives = self.derivatives or self.program.derivatives(w)
        return self.derivatives

    def height(self, x: FloatArray) -> float:
        """Height of the epigraph; 0 without one."""
        return float(x[-1]) if self.has_height else 0.0

    def objective(self, x: FloatArray) -> float:
        """The objective that SLSQP minimises."""
        self.at(x)
        return self.values[0] + self.height(x)

    def gradient(self, x: FloatArray) -> FloatArray:
        """Gradient of the objective."""
        return np.append(self.slopes(x)[0] * self.unit, [1.0] * self.has_height)

    def rows(self, x: FloatArray) -> FloatArray:
        """(M,) slack of each row, which SLSQP keeps at 0 or above."""
        self.at(x)
        return self.program.epigraph * self.height(x) - self.values[1]

    def row_gradients(self, x: FloatArray) -> FloatArray:
        """(M, N) gradients of the slacks, and a last column for the height if there is one."""
        columns = [self.program.epigraph[:, None]] * self.has_height
        return np.hstack([-self.slopes(x)[1] * self.unit, *columns])


def minimise_by_slsqp(program: Program, start: FloatArray, accuracy: float) -> Point:
    """Returns the minimum near `start`; the only one if f and the rows are convex.

    Source: Kraft, A software package for sequential quadratic programming, DFVLR-FB 88-28, 1988; SciPy's version.

    Args:
        program: what to minimise.
        start: (N,) within limits, with the right sum. The rows need not hold there.
        accuracy: KKT residual that suffices. If SLSQP ends above it, Newton's method goes on from there.
    """
    evaluated = _Evaluated(program, start)
    high = program.epigraph > 0
    heights = program.values(start)[1][high].max(keepdims=True) if high.any() else np.zeros(0)
    unit, sums = evaluated.unit, np.append(evaluated.unit, np.zeros(len(heights)))
    constraints: list[Any] = [{"type": "eq", "fun": lambda x: sums @ x - program.total, "jac": lambda x: sums}]
    if len(program.epigraph):
        constraints.append({"type": "ineq", "fun": evaluated.rows, "jac": evaluated.row_gradients})
    found = minimize(
        evaluated.objective,
        np.append(start / unit, heights),
        jac=evaluated.gradient,
        method="SLSQP",
        bounds=[*zip(program.lower / unit, program.upper / unit, strict=True), *[(None, None)] * len(heights)],
        constraints=constraints,
        # The residual where it stops is of the order of the root of f's change.
        options={"ftol": max(ROUNDING, 0.01 * accuracy**2), "maxiter": MAX_ITERATIONS},
    )
    w = evaluated.at(found.x)
    y = np.maximum(np.asarray(found.multipliers)[1 : 1 + len(program.epigraph)], 0.0)
    point = point_at(program, w, evaluated.height(found.x), y, int(found.nit))
    if worth(point) <= accuracy:
        return point
    return polish(program, point, w <= program.lower, w >= program.upper, y > 0)
