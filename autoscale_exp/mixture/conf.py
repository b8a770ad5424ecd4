"""The `mixture` and `stages` sections: domain weights, and weights that replace them later in a run."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class MixtureConf:
    """Domain weights: shares of the tokens trained on."""

    name: str = MISSING  # name in results and run names
    kind: str = MISSING  # uniform, natural (shares of the training pool), temperature, unimax, weights or file
    domains: list[str] | None = None  # the domains that a list of `weights` is for; null: data.domains
    weights: Any = None  # one per domain, for kind weights: a list or {web: 0.7, code: 0.3}
    path: str | None = None  # a mixture file, as fit writes it, for kind file
    temperature: float | None = None  # natural shares to the power 1 / temperature, for kind temperature
    max_epochs: float | None = None  # most epochs over each domain's pool, for kind unimax


@dataclass
class StageConf:
    """Domain weights that replace `mixture` from some point of the run on."""

    start: int = MISSING  # tokens trained on before this stage
    weights: Any = MISSING  # one per domain: a list in the order of data.domains or {web: 0.7, code: 0.3}
