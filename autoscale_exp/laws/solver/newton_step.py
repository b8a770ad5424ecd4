"""The step of Newton's method for a program over shares, from gradients alone.

Laws give gradients only. For few shares the Hessian is made of differences of gradients. For many, a few differences
give a model, a diagonal plus c_v times the outer products of the losses' gradients (exact where each loss is a function
of a sum over domains), and conjugate gradients preconditioned by it solve for the step as exactly as is needed.
"""

from typing import Protocol

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from autoscale_exp.base.arrays import FloatArray

DENSE = 40  # up to so many shares, a whole Hessian costs less than conjugate gradients
STEP = 1e-5  # relative, of differences of gradients; only speed depends on their accuracy, not the answer
MAX_CG = 80


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


class NewtonStep:
    """The system of a step: Hessian of the Lagrangian plus `sigma`, bordered by rows (with -slack) and the sum."""

    def __init__(
        self,
        program: Program,
        w: FloatArray,
        y: FloatArray,
        derivatives: tuple[FloatArray, FloatArray],
        sigma: FloatArray,
        slack: FloatArray,
    ) -> None:
        self.program, self.w, self.y, self.sigma = program, w, y, sigma
        self.base = derivatives[0] + y @ derivatives[1]
        self.floor = np.maximum(w, 1e-3 / len(w))
        self.border = np.vstack([derivatives[1], np.ones(len(w))])  # (M + 1, N)
        self.slack = np.append(slack, 0.0)
        self.height = np.append(-program.epigraph, 0.0)
        if len(w) <= DENSE:
            self._dense()
        else:
            self._model()

    def hessian_times(self, direction: FloatArray) -> FloatArray:
        """Difference of two gradients of the Lagrangian."""
        h = STEP / float((np.abs(direction) / self.floor).max())
        w = np.maximum(self.w + h * direction, 0.1 * self.w)
        gradient, rows = self.program.derivatives(w)
        change = (gradient + self.y @ rows - self.base) / h
        return np.where(np.isfinite(change), change, 0.0)  # perplexities can overflow near a limit

    def _dense(self) -> None:
        size = len(self.w)
        hessian = np.array([self.hessian_times(unit) for unit in np.eye(size)])
        root = np.sqrt(self.floor)
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2 * root * root[:, None])
        # Of a law that is not convex, directions of negative curvature count by its size: still descent.
        values = np.maximum(np.abs(values), 1e-12 * np.abs(values).max() + 1e-14)
        hessian = (vectors * values) @ vectors.T / root / root[:, None]
        self._factor(hessian + np.diag(self.sigma))

    def _model(self) -> None:
        """Fits diag(d) + low.T @ low to products with a few vectors of signs times w: d_i drops out of differences."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(3, len(self.w)))
        products = np.array([self.hessian_times(sign * self.floor) for sign in signs]) * signs / self.floor  # (3, N)
        outer = self.program.parts(self.w)
        inner = np.array([(outer * self.floor) @ sign for sign in signs])  # (3, P)
        design = inner[:, None, :] * signs[:, :, None] / self.floor[:, None] * outer.T  # (3, N, P)
        centred = (design - design.mean(axis=0)) * self.floor[:, None]
        target = (products - products.mean(axis=0)) * self.floor
        strength = np.linalg.lstsq(centred.reshape(-1, len(outer)), target.ravel(), rcond=1e-10)[0]
        strength = np.maximum(strength, 0)
        self.low = outer * np.sqrt(strength)[:, None]
        diagonal = (products - design @ strength).mean(axis=0)
        self.diagonal = np.maximum(diagonal, 1e-4 * np.abs(self.base).max() / self.floor) + self.sigma
        self.wide = np.vstack([self.low, self.border])
        size = len(self.wide)
        corner = np.zeros((size + 1, size + 1))
        corner[:size, :size] = (self.wide / self.diagonal) @ self.wide.T
        corner[range(size), range(size)] += np.append(np.ones(len(self.low)), self.slack)
        corner[len(self.low) : size, size] = corner[size, len(self.low) : size] = -self.height
        corner[size, size] = 0.0 if self.height.any() else 1.0
        self.scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(corner)), 1e-30))
        self.scale[size] = 1.0
        self.factors = lu_factor(corner * self.scale * self.scale[:, None])

    def _factor(self, matrix: FloatArray) -> None:
        size, rows = len(self.w), len(self.border)
        full = np.zeros((size + 1 + rows, size + 1 + rows))
        full[:size, :size] = matrix
        full[size, size] = 0.0 if self.height.any() else 1.0
        full[size + 1 :, :size], full[:size, size + 1 :] = self.border, self.border.T
        full[size + 1 :, size] = full[size, size + 1 :] = self.height
        full[range(size + 1, len(full)), range(size + 1, len(full))] = -self.slack
        diagonal = np.diag(matrix)
        self.scale = np.ones(len(full))
        self.scale[:size] = 1 / np.sqrt(diagonal)
        self.scale[size + 1 :] = 1 / np.sqrt(self.slack + (self.border**2 / diagonal).sum(axis=1))
        self.full = full * self.scale * self.scale[:, None]

    def solve(
        self, right_w: FloatArray, right_t: float, right_rows: FloatArray, accuracy: float
    ) -> tuple[FloatArray, float, FloatArray, float]:
        """Steps of w, t, multipliers of the rows and the price."""
        size = len(self.w)
        right_t = right_t if self.height.any() else 0.0
        right = np.concatenate([right_w, [right_t], right_rows, [self.program.total - self.w.sum()]])
        if size <= DENSE:
            try:
                x = np.linalg.solve(self.full, right * self.scale) * self.scale
            except np.linalg.LinAlgError:  # rows that depend on each other; lstsq can hang on what is not finite
                finite = np.isfinite(self.full).all() and np.isfinite(right * self.scale).all()
                x = np.linalg.lstsq(self.full, right * self.scale)[0] * self.scale if finite else np.zeros_like(right)
        else:
            x = self._conjugate_gradients(right, accuracy)
        return x[:size], float(x[size]), x[size + 1 : -1], float(x[-1])

    def _precondition(self, right: FloatArray) -> FloatArray:
        """Solves the system with the model in place of the Hessian."""
        size, num_low = len(self.w), len(self.low)
        reduced = self.wide @ (right[:size] / self.diagonal)
        reduced[num_low:] -= right[size + 1 :]
        corner = lu_solve(self.factors, np.append(reduced, -right[size]) * self.scale) * self.scale
        w = (right[:size] - corner[:-1] @ self.wide) / self.diagonal
        return np.concatenate([w, [corner[-1]], corner[num_low:-1]])

    def _conjugate_gradients(self, right: FloatArray, accuracy: float) -> FloatArray:
        """Preconditioned by the model with the same borders, so that all iterates keep to the borders' rows."""
        size = len(self.w)

        def top(x: FloatArray) -> FloatArray:  # the rows of the system for w
            return self.hessian_times(x[:size]) + self.sigma * x[:size] + x[size + 1 :] @ self.border

        x = self._precondition(right)
        goal = accuracy**2 * abs(float(right[:size] @ x[:size]))
        residual = np.zeros_like(right)
        residual[:size] = right[:size] - top(x)
        conditioned = self._precondition(residual)
        direction = conditioned
        power = float(residual @ conditioned)
        for _ in range(MAX_CG):
            if not power > goal:
                break
            image = top(direction)
            curvature = float(direction[:size] @ image)
            if curvature <= 0:
                break
            x = x + power / curvature * direction
            residual[:size] -= power / curvature * image
            conditioned = self._precondition(residual)
            power, last = float(residual @ conditioned), power
            direction = conditioned + power / last * direction
        return x
