"""The search for the best mixture, written as a program over shares: objective, limits and units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.constraints import Constraints, group_rows, implied_limits
from autoscale_exp.laws.solver.ensemble import Ensemble

FEWEST = 1e-12  # share at which the slopes of a domain without tokens are taken; at 0 a law may have none


@dataclass(frozen=True)
class WorstCase:
    """The largest loss or perplexity of any validation domain, to be minimised.

    Attributes:
        metric: loss (nats per token) or perplexity.
        reference: (K,) shares of a mixture. With it, the largest increase over this mixture is minimised: a difference
            of losses or a ratio of perplexities. None for the largest value itself.
    """

    metric: str = "loss"
    reference: FloatArray | None = None


class Predictions:
    """Means over laws of the losses, and of the levels that the objective weighs: losses or perplexities."""

    def __init__(self, laws: Sequence[LossLaw], budget: float, metric: str) -> None:
        self.laws, self.budget, self.metric = laws, budget, metric
        self.ensemble = Ensemble(laws)
        self.evaluations = 0

    def values(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the (..., V) losses and levels of (..., K) shares."""
        losses = self.ensemble.predict(w * self.budget)
        mean = losses.mean(axis=0)
        with np.errstate(over="ignore"):  # infinite values are refused at the start, and no step leads to them
            return mean, mean if self.metric == "loss" else np.exp(losses).mean(axis=0)

    def slopes(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the (V, K) derivatives of losses and levels with respect to (K,) shares."""
        self.evaluations += 1
        tokens = np.maximum(w, FEWEST) * self.budget
        slopes = self.ensemble.slopes(tokens) * self.budget
        mean = slopes.mean(axis=0)
        if self.metric == "loss":
            return mean, mean
        with np.errstate(over="ignore"):
            return mean, (np.exp(self.ensemble.predict(tokens))[:, :, None] * slopes).mean(axis=0)


class MixtureProblem:
    """One problem: the predictions of laws at a budget, the objective, and the constraints."""

    def __init__(
        self,
        predictions: Predictions,
        objective: Objective | WorstCase,
        constraints: Constraints,
        kl_weight: float,
        prior: FloatArray,
    ) -> None:
        self.predictions, self.objective, self.constraints = predictions, objective, constraints
        self.kl_weight, self.prior, self.budget = kl_weight, prior, predictions.budget
        self.domains = predictions.laws[0].domains
        self.validation_domains = predictions.laws[0].validation_domains
        self.lower, self.upper = implied_limits(constraints, self.budget)
        self.free = self.upper - self.lower > 1e-10
        reference = constraints.no_worse_than
        self.limits = None if reference is None else predictions.values(np.asarray(reference))[0]  # (V,) losses
        # (V,) A worst case is the largest of levels / unit - offset.
        self.unit, self.offset = np.ones(len(self.validation_domains)), np.zeros(len(self.validation_domains))
        if isinstance(objective, WorstCase) and objective.reference is not None:
            levels = predictions.values(np.asarray(objective.reference))[1]
            self.unit, self.offset = (self.unit, levels) if objective.metric == "loss" else (levels, self.offset)


class MixtureProgram:
    """A problem as a solver takes it: over free domains only, and scaled. See `Program`.

    The rows are those of a worst case, then those of groups, then those of `no_worse_than`.
    """

    def __init__(self, task: MixtureProblem, start: FloatArray) -> None:
        self.task, self.free = task, task.free
        self.base = np.where(task.free, 0.0, task.lower)
        self.lower, self.upper = task.lower[task.free], task.upper[task.free]
        self.total = float(1 - self.base.sum())
        self.limits = task.limits
        self.worst = isinstance(task.objective, WorstCase)
        groups = group_rows(task.constraints)
        # A group is no constraint if the limits of its members, or of all others, keep it within its cap.
        within = np.minimum(groups @ task.upper, 1 - (1 - groups) @ task.lower)
        shares = np.array([group.share for group in task.constraints.groups])
        binding = within > shares + 1e-12
        self.groups, self.shares = groups[binding], shares[binding]
        num_high = len(task.validation_domains) if self.worst else 0
        num_losses = 0 if self.limits is None else len(self.limits)
        self.epigraph = np.repeat([1.0, 0.0, 0.0], [num_high, len(self.groups), num_losses])
        self.scale, self.row_scale = 1.0, np.ones(len(self.epigraph))
        gradient, rows = self.derivatives(start[self.free])
        if not (np.isfinite(gradient).all() and np.isfinite(rows).all()):
            raise UserError(
                f"the law '{task.predictions.laws[0].name}' predicts {task.predictions.metric} values or slopes that "
                f"are not finite at {task.budget:,.0f} tokens; check its fit"
                + (", or set objective.metric=loss" if task.predictions.metric == "perplexity" else "")
            )
        if not gradient.any() and not rows[self.epigraph > 0].any():
            raise UserError(
                f"all slopes of the law '{task.predictions.laws[0].name}' are 0 at the start, so it has no exact "
                "optimum; compare its predictions at given mixtures instead"
            )
        self.scale = 1 / float(np.abs(np.vstack([gradient, rows[self.epigraph > 0]])).max())
        sizes = np.abs(rows).max(axis=1, initial=1e-300)
        self.row_scale = np.where(
            self.epigraph > 0, self.scale, 1 / np.maximum(sizes, 1e-6 * sizes.max(initial=1e-300))
        )

    def full(self, w: FloatArray) -> FloatArray:
        """(K,) shares of all domains, given those of the free ones."""
        weights = self.base.copy()
        weights[self.free] = w
        return weights

    def values(self, w: FloatArray) -> tuple[float, FloatArray]:
        """See Program."""
        task, weights = self.task, self.full(w)
        losses, levels = task.predictions.values(weights)
        f = task.kl_weight * divergence(weights, task.prior)
        rows = [self.groups @ weights - self.shares]
        if isinstance(task.objective, Objective):
            f += float(levels @ task.objective.weights)
        else:
            rows.insert(0, levels / task.unit - task.offset)
        if self.limits is not None:
            rows.append(losses - self.limits)
        return f * self.scale, np.concatenate(rows) * self.row_scale

    def derivatives(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Program."""
        task, weights = self.task, self.full(w)
        losses, levels = (slopes[:, self.free] for slopes in task.predictions.slopes(weights))
        gradient = np.zeros(len(w))
        if task.kl_weight > 0:
            gradient += task.kl_weight * (np.log(np.maximum(w, 1e-300) / task.prior[self.free]) + 1)
        rows = [self.groups[:, self.free]]
        if isinstance(task.objective, Objective):
            gradient += task.objective.weights @ levels
        else:
            rows.insert(0, levels / task.unit[:, None])
        if self.limits is not None:
            rows.append(losses)
        return gradient * self.scale, np.vstack(rows) * self.row_scale[:, None]


def divergence(weights: FloatArray, prior: FloatArray) -> float:
    """KL(weights || prior) in nats; the prior must be above 0 wherever the weights are."""
    used = weights > 0
    return float(np.sum(weights[used] * np.log(weights[used] / prior[used])))
