"""The `law`, `objective` and `bounds` sections of a fit, and the keys that make its request."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class LawConf:
    """How losses are modelled; see laws/."""

    name: str = MISSING  # key of the law in laws/law.py


@dataclass
class ObjectiveConf:
    """What is minimised: the mean of loss or perplexity over the validation domains, or the worst of them."""

    name: str = MISSING  # name in results
    metric: str = MISSING  # loss (nats per token) or perplexity
    aggregate: str = "mean"  # mean or worst
    weights: Any = None  # of validation domains: {web: 0.7, code: 0.3}, the others 0, or a list; null: equal
    kl_weight: float = 0.0  # adds this times the KL divergence of the mixture from `prior` to the objective
    prior: Any = None  # weights by domain: a list, {web: 0.7, code: 0.3} or natural; null: uniform
    no_worse_than_uniform: bool = False  # allow no validation domain a higher loss than under the uniform mixture


@dataclass
class BoundsConf:
    """Limits on domain weights: one number, a list in domain order, or a mapping by name."""

    lower: Any = 0.0  # smallest domain weights: 0.02, a list, or {web: 0.1}, which leaves the others free
    upper: Any = 1.0  # largest domain weights: likewise
    max_epochs: float | None = None  # most epochs over a domain's unique tokens at the target; null: no limit
    unique_tokens: Any = None  # tokens of text: a list or {web: 5_000_000, code: 2_000_000}; null: as runs tell
    groups: dict[str, Any] = field(default_factory=dict)  # +bounds.groups.<name>={domains: [...], upper: <share>}


@dataclass
class RequestConf:
    """The mixtures that a fit is asked for: at which budgets, for which objective, within which bounds."""

    runs: str | None = None  # a runs.csv or the folder of a sweep
    target_tokens: list[int] = field(default_factory=list)  # token budgets to find mixtures for
    target_params: int | None = None  # model size that targets are for; null: the largest of the runs
    objective: ObjectiveConf = MISSING
    bounds: BoundsConf = field(default_factory=BoundsConf)
    uncertainty: str = "intervals"  # intervals, or none, which is faster
    num_draws: int = 100  # draws of the law for intervals
    seed: int = 0  # seed of the draws
    num_next_runs: int = 3  # proxy runs to propose
    next_scales: list[int] = field(default_factory=list)  # token budgets of proposed runs; empty: those of the runs
