"""The `law`, `objective` and `bounds` sections of a fit."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class LawConf:
    """How losses are modelled; see laws/."""

    name: str = MISSING  # its key in laws/law.py


@dataclass
class ObjectiveConf:
    """What is minimised: a mean, or the worst, over the validation domains of loss or of perplexity."""

    name: str = MISSING  # in results
    metric: str = MISSING  # loss (nats per token) or perplexity
    aggregate: str = "mean"  # mean or worst
    weights: dict[str, float] = field(default_factory=dict)  # +objective.weights={web: 0.7, code: 0.3}; none: equal
    kl_weight: float = 0.0  # times the divergence of the mixture from `prior`, added to the objective
    prior: list[float] | None = None  # weights in domain order; null: uniform
    no_worse_than_uniform: bool = False  # for no validation domain


@dataclass
class BoundsConf:
    """Limits of domain weights: one number, or a list in domain order."""

    lower: Any = 0.0  # smallest domain weights
    upper: Any = 1.0  # largest domain weights
    max_epochs: float | None = None  # a domain's unique tokens may be repeated so often at the target; null: no limit
    unique_tokens: list[int] | None = None  # in domain order; null: from the sweep's results
    groups: dict[str, Any] = field(default_factory=dict)  # +bounds.groups.<name>={domains: [...], upper: <share>}
