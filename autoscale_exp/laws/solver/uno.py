"""Minimises a program over shares with Uno, a library of interior-point and SQP methods.

Source: Vanaret and Leyffer, Implementing a unified solver for nonlinearly constrained optimization, arXiv 2406.13454.

N shares, M rows, H heights of an epigraph: 1 or 0.
"""

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import unopy

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.stopping import StopRequest
from autoscale_exp.laws.solver.kkt import Point, Program, point_at

OPTIONS = {
    "hessian_model": "LBFGS",  # laws give slopes alone
    "bound_relaxation_factor": 0.0,  # limits are not to be passed, by however little
    "primal_tolerance": 1e-10,
    "max_iterations": 500,
    "logger": "SILENT",
}
TIGHTER = 1e-3  # Uno's tolerance over the accuracy, as Uno does not multiply by N or divide by the largest slope
FEWEST = 1e-3  # times an even share; smaller shares have the unit of this one


def minimise(program: Program, start: FloatArray, accuracy: float, preset: str) -> Point:
    """Returns the minimum near `start`; the only one if f and the rows are convex.

    Args:
        program: what to minimise.
        start: (N,) strictly within limits, with the right sum. The rows need not hold there.
        accuracy: KKT residual to reach.
        preset: ipopt, an interior-point method, or filtersqp, an SQP method.

    Raises:
        Stopped: a signal came meanwhile.
    """
    solver = unopy.UnoSolver()
    solver.set_preset(preset)
    for name, value in OPTIONS.items():
        solver.set_option(name, value)
    solver.set_option("dual_tolerance", TIGHTER * accuracy)
    callbacks = _Callbacks(program, start)
    with StopRequest() as request:  # Uno would go on after what a signal raises in a callback
        found = solver.optimize(callbacks.model(start))
        if found.optimization_status == unopy.OptimizationStatus.USER_INTERRUPTION:
            request.signum = signal.SIGINT  # for which Uno has a handler of its own
    if callbacks.error:
        raise callbacks.error
    w = callbacks.shares(np.array(found.primal_solution))
    return point_at(program, w, np.maximum(-np.array(found.constraint_dual_solution)[1:], 0.0))


class _Callbacks:
    """A program at Uno's points x = (w / unit, t), of which the last is remembered.

    Uno starts from equal curvatures. Losses curve with a share as slope / share, so curvatures are about equal in units
    of the root of the shares.

    Attributes:
        unit: (N,) units of the shares.
        error: what a callback raised, which Uno takes for a point where the program has no value.
    """

    def __init__(self, program: Program, start: FloatArray) -> None:
        self.program = program
        self.num_heights = int(program.epigraph.any())
        self.unit = np.sqrt(np.maximum(start, FEWEST / len(start)))
        self.error: Exception | None = None
        self._x: FloatArray | None = None
        self._derivatives: tuple[FloatArray, FloatArray] | None = None

    def model(self, start: FloatArray) -> unopy.Model:
        """The program as Uno takes it, with its start."""
        program, unit, high = self.program, self.unit, self.program.epigraph > 0
        num_rows, size = 1 + len(high), len(start) + self.num_heights
        heights = program.values(start)[1][high].max(keepdims=True) if self.num_heights else np.zeros(0)
        endless = np.full(self.num_heights, np.inf)
        lower, upper = np.append(program.lower / unit, -endless), np.append(program.upper / unit, endless)
        model = unopy.Model(unopy.PROBLEM_NONLINEAR, size, lower, upper, unopy.ZERO_BASED_INDEXING)
        model.set_objective(unopy.MINIMIZE, self._guarded(self.objective), self._guarded(self.gradient))
        row_of, column_of = np.divmod(np.arange(num_rows * size), size)
        least = np.where(np.arange(num_rows) == 0, 0.0, -np.inf)  # the first row is the sum
        callbacks = self._guarded(self.rows), least, np.zeros(num_rows), len(row_of), row_of, column_of
        model.set_constraints(num_rows, *callbacks, self._guarded(self.row_gradients))
        model.set_initial_primal_iterate(np.append(start / unit, heights))
        return model

    def _guarded(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                self.error = error
                raise

        return guarded

    def shares(self, x: FloatArray) -> FloatArray:
        """(N,) shares of a point, within the limits, which they may pass by rounding."""
        program = self.program
        return np.clip(x[: len(self.unit)] * self.unit, program.lower, program.upper)

    def _values(self, x: FloatArray) -> tuple[float, FloatArray]:
        if self._x is None or not np.array_equal(x, self._x):
            self._x, self._derivatives = x.copy(), None
            self._now = self.program.values(self.shares(x))
        return self._now

    def _slopes(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        self._values(x)
        self._derivatives = self._derivatives or self.program.derivatives(self.shares(x))
        return self._derivatives

    def objective(self, x: FloatArray) -> float:
        """f, plus the height if there is one."""
        return self._values(x)[0] + float(x[len(self.unit) :].sum())

    def gradient(self, x: FloatArray, out: FloatArray) -> None:
        """Writes the (N + H,) gradient of the objective."""
        out[:] = np.append(self._slopes(x)[0] * self.unit, np.ones(self.num_heights))

    def rows(self, x: FloatArray, out: FloatArray) -> None:
        """Writes the excess of the sum, and the (M,) rows less the height where it counts."""
        height = float(x[len(self.unit) :].sum())
        out[0] = self.shares(x).sum() - self.program.total
        out[1:] = self._values(x)[1] - self.program.epigraph * height

    def row_gradients(self, x: FloatArray, out: FloatArray) -> None:
        """Writes the (1 + M, N + H) gradients of `rows`, flat."""
        size, matrix = len(self.unit), out.reshape(1 + len(self.program.epigraph), -1)
        matrix[0, :size], matrix[0, size:] = self.unit, 0.0
        matrix[1:, :size], matrix[1:, size:] = self._slopes(x)[1] * self.unit, -self.program.epigraph[:, None]
