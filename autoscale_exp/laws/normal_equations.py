"""The normal equations of a fit: one block per validation domain, and a term of low rank for shared noise.

All losses of a run are taken to correlate equally, so their inverse correlation is a I - b 11'. The normal equations of
all V P parameters are then blocks a J_v'J_v + prior less b F'F, where F (R, V P) has the J_v side by side. By
Woodbury's identity a solve takes V P^3 + V P R^2 operations, where the dense matrix would take (V P)^3.

R runs, V validation domains, P parameters of each.
"""

from typing import NamedTuple

import numpy as np

from autoscale_exp.base.arrays import FloatArray


class Equicorrelation(NamedTuple):
    """A (V, V) matrix with one value on the diagonal and another elsewhere, held as its two eigenvalues.

    Attributes:
        apart: eigenvalue of differences between validation domains.
        together: eigenvalue of the mean over validation domains.
        size: V.
    """

    apart: float
    together: float
    size: int

    @classmethod
    def of(cls, correlation: float, size: int) -> "Equicorrelation":
        """The correlation matrix with one correlation between all pairs."""
        return cls(1 - correlation, 1 + (size - 1) * correlation, size)

    def inverse(self) -> "Equicorrelation":
        """The inverse matrix."""
        return Equicorrelation(1 / self.apart, 1 / self.together, self.size)

    def common(self) -> float:
        """b, where the matrix is a I - b 11' and a is `apart`."""
        return (self.apart - self.together) / self.size

    def times(self, values: FloatArray) -> FloatArray:
        """(..., V) product with the matrix."""
        return np.asarray(self.apart * values - self.common() * values.sum(axis=-1, keepdims=True))


class NormalEquations:
    """The normal equations of weighted least squares with a diagonal prior."""

    def __init__(self, jacobian: FloatArray, prior: FloatArray, weights: Equicorrelation) -> None:
        """Takes (V, R, P) derivatives over their standard deviations, (V, P) prior precisions, and a run's weights."""
        self.jacobian, self.prior, self.weights = jacobian, prior, weights
        squares = np.einsum("vrp,vrp->vp", jacobian, jacobian)
        self.diagonal = (weights.apart - weights.common()) * squares + prior
        self.is_joint = weights.common() > 0
        # With few runs and no shared noise, the R x R system of the runs is smaller than that of the parameters.
        self.by_runs = not self.is_joint and jacobian.shape[1] < jacobian.shape[2]
        if not self.by_runs:
            self.information = weights.apart * (jacobian.transpose(0, 2, 1) @ jacobian)
        if self.is_joint:
            self.low = shared_rows(jacobian, weights.common())

    def step(self, gradient: FloatArray, damping: FloatArray) -> FloatArray:
        """(V, P) solution with the diagonal raised by a factor 1 + `damping`: (V,), or (1,) if losses share noise."""
        added = self.prior + damping[:, None] * self.diagonal
        if self.by_runs:
            return self._step_by_runs(gradient, added)
        blocks = self.information.copy()
        diagonal = np.arange(blocks.shape[1])
        blocks[:, diagonal, diagonal] += added
        if not self.is_joint:
            return np.asarray(np.linalg.solve(blocks, gradient[:, :, None])[:, :, 0])
        solved = np.linalg.solve(blocks, np.concatenate([gradient[:, :, None], self.low], axis=2))
        own, spread = solved[:, :, 0], solved[:, :, 1:]
        capacity = np.eye(spread.shape[2]) - over_domains(self.low, spread)
        return np.asarray(own + spread @ np.linalg.solve(capacity, np.einsum("vpm,vp->m", self.low, own)))

    def _step_by_runs(self, gradient: FloatArray, added: FloatArray) -> FloatArray:
        over = self.jacobian / added[:, None, :]
        system = np.eye(over.shape[1]) + over @ self.jacobian.transpose(0, 2, 1)
        alone = gradient / added
        fitted = np.linalg.solve(system, self.jacobian @ alone[:, :, None])
        return np.asarray(alone - (over.transpose(0, 2, 1) @ fitted)[:, :, 0])

    def variance(self) -> FloatArray:
        """(V, P) diagonal of the inverse."""
        blocks = np.einsum("vrp,vrq->vpq", self.jacobian, self.jacobian) if self.by_runs else self.information.copy()
        diagonal = np.arange(blocks.shape[1])
        blocks[:, diagonal, diagonal] += self.prior
        inverse = np.linalg.inv(blocks)
        variance = inverse[:, diagonal, diagonal]
        if self.is_joint:
            spread = inverse @ self.low
            capacity = np.eye(spread.shape[2]) - over_domains(self.low, spread)
            variance = variance + ((spread @ np.linalg.inv(capacity)) * spread).sum(axis=2)
        return np.asarray(variance)


def shared_rows(jacobian: FloatArray, common: float) -> FloatArray:
    """(V, P, M) columns whose outer products sum to common F'F, with M the lesser of R and V P."""
    num_validation, num_runs, num_params = jacobian.shape
    rows = np.sqrt(common) * jacobian.transpose(1, 0, 2).reshape(num_runs, -1)
    if num_runs > rows.shape[1]:
        rows = np.linalg.qr(rows, mode="r")
    return np.asarray(rows.T.reshape(num_validation, num_params, -1))


def over_domains(left: FloatArray, right: FloatArray) -> FloatArray:
    """(M, N) product of (V, P, M) and (V, P, N) over domains and parameters."""
    return np.asarray(left.reshape(-1, left.shape[2]).T @ right.reshape(-1, right.shape[2]))
