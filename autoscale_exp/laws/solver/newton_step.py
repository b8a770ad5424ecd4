"""A step of Newton's method for a program over shares, from gradients alone, since laws give no second derivatives.

A few differences of gradients give a model of the Hessian: a diagonal, plus c_v times the outer products of the losses'
gradients. The model is exact if each loss is a function of a sum over domains. Conjugate gradients, preconditioned by
the model, solve for the step as exactly as needed.

N shares, M rows, P parts.
"""

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.solver.kkt import Program

STEP = 1e-5  # relative step of the differences of gradients; their accuracy affects the speed, not the answer
MAX_CG = 80  # iterations of conjugate gradients


class NewtonStep:
    """The linear system of a step: Hessian of the Lagrangian plus `sigma`, bordered by rows (-slack) and the sum."""

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
        self._model()

    def hessian_times(self, direction: FloatArray) -> FloatArray:
        """(N,) product of the Hessian of the Lagrangian with a direction, from a difference of gradients."""
        length = float((np.abs(direction) / self.floor).max())
        if length == 0:
            return np.zeros_like(direction)
        h = STEP / length
        w = np.maximum(self.w + h * direction, 0.1 * self.w)
        gradient, rows = self.program.derivatives(w)
        change = (gradient + self.y @ rows - self.base) / h
        return np.where(np.isfinite(change), change, 0.0)  # perplexities can overflow near a limit

    def _model(self) -> None:
        """Fits the model diag(d) + low.T @ low to products with a few vectors, which are w with random signs.

        The d_i drop out of differences between these products, so `low` is fitted first.
        """
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

    def solve(
        self, right_w: FloatArray, right_t: float, right_rows: FloatArray, accuracy: float
    ) -> tuple[FloatArray, float, FloatArray, float]:
        """Returns the steps of w, t, the multipliers of the rows, and the price."""
        size = len(self.w)
        right_t = right_t if self.height.any() else 0.0
        right = np.concatenate([right_w, [right_t], right_rows, [self.program.total - self.w.sum()]])
        x = self._conjugate_gradients(right, accuracy)
        return x[:size], float(x[size]), x[size + 1 : -1], float(x[-1])

    def _precondition(self, right: FloatArray) -> FloatArray:
        """Solves the system with the model in place of the Hessian."""
        size, num_low = len(self.w), len(self.low)
        reduced = self.wide @ (right[:size] / self.diagonal)
        reduced[num_low:] -= right[size + 1 :]
        known = np.append(reduced, -right[size]) * self.scale
        corner = lu_solve(self.factors, known, check_finite=False) * self.scale  # no number where the model is singular
        w = (right[:size] - corner[:-1] @ self.wide) / self.diagonal
        return np.concatenate([w, [corner[-1]], corner[num_low:-1]])

    def _conjugate_gradients(self, right: FloatArray, accuracy: float) -> FloatArray:
        """Solves the system. The preconditioner is the model with the same borders, so that all iterates meet them."""
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
