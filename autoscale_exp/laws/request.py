"""The request to a fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.constraints import Constraints


@dataclass(frozen=True)
class Request:
    """What is asked of a fit.

    Attributes:
        targets: token budgets to find mixtures for.
        objective: what is minimised.
        constraints: what every mixture must meet.
        kl_weight: weight of the KL divergence from `prior`, which is added to the objective.
        prior: (K,) weights; None for equal ones. A law without slopes draws mixtures about it.
        num_draws: number of draws for intervals; 0 for no intervals.
        seed: seed of the draws.
        num_next_runs: number of proxy runs to propose.
        next_scales: token budgets of proposed runs; empty for those of the present runs.
        next_sizes: model sizes of proposed runs, in parameters; empty for those of the present runs.
        params: model size that the targets are for; None for the largest of the runs.
        unique_tokens: (K,) tokens of the text that mixtures are for; more tokens repeat it. None for the runs' text.
    """

    targets: Sequence[int]
    objective: Objective
    constraints: Constraints
    kl_weight: float = 0.0
    prior: FloatArray | None = None
    num_draws: int = 100
    seed: int = 0
    num_next_runs: int = 3
    next_scales: Sequence[int] = ()
    next_sizes: Sequence[int] = ()
    params: int | None = None
    unique_tokens: FloatArray | None = None
