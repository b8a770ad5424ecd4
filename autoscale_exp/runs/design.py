"""The parts of a design, which lists the runs of a search as a pure function of the config; see runs/designs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.mixture.allocation import allocate_rows


@dataclass
class DesignConf:
    """A design, and which of its runs this job trains."""

    index: int = 0  # the run of the design to train; a sweep goes over all
    match_repetition: int | None = None  # token budget of a target run: proxy runs repeat text as often; null: no


@dataclass
class ScaledDesignConf(DesignConf):
    """A design of proxy runs at several scales."""

    scales: list[int] = field(default_factory=list)  # token budgets of the scales' base runs
    base_repeats: int = 0  # more base runs per scale, with the next seeds, to measure the noise over seeds


@dataclass(frozen=True)
class RunRequest:
    """What a design knows beside its own section.

    Attributes:
        domains: (K,) training domains.
        token_budget: token budget of the `train` job, or None.
        mixture: name of the base mixture.
        seed: seed of the experiment.
    """

    domains: Sequence[str]
    token_budget: int | None
    mixture: str
    seed: int


@dataclass(frozen=True)
class RunSpec:
    """One run of a design.

    Attributes:
        run: name, unique within the design, safe as a folder and in an override.
        token_budget: tokens of the scale's base run.
        multipliers: (K,) factors on the base run's domain tokens.
        seed_offset: added to the experiment's seed.
        params: parameters of the model that the run is meant for; None for any model.
    """

    run: str
    token_budget: int
    multipliers: tuple[float, ...]
    seed_offset: int = 0
    params: int | None = None

    @property
    def scale(self) -> str:
        """Label of the token budget."""
        return budget_label(self.token_budget)

    def weights(self, base: FloatArray, caps: FloatArray) -> FloatArray:
        """(K,) weights that the multipliers are applied to: those of the base mixture, or the run's own.

        Args:
            base: (K,) weights of the base mixture at this token budget.
            caps: (K,) largest weights that the text allows with max_epochs at this token budget.
        """
        return base

    def domain_tokens(self, weights: FloatArray) -> FloatArray:
        """(K,) requested tokens, given `weights`."""
        return weights * self.token_budget * np.asarray(self.multipliers)

    def row_counts(self, weights: FloatArray, seq_len: int) -> Int64Array:
        """(K,) whole rows. Domains that the run does not change have exactly the rows of the base run.

        Raises:
            UserError: the run, or its base run, has no row.
        """
        base = allocate_rows(weights * self.token_budget, seq_len)
        rows = np.rint(base * np.asarray(self.multipliers)).astype(np.int64)
        if not rows.any():
            raise UserError(
                f"run '{self.run}' has no whole row of {seq_len} tokens; raise the token budget {self.token_budget}"
            )
        return rows


def check_scales(scales: Sequence[int]) -> None:
    """Checks the token budgets of a design.

    Raises:
        UserError: they are missing, not distinct or not positive.
    """
    if not scales or len(set(scales)) != len(scales) or min(scales) < 1:
        raise UserError(f"design.scales must be distinct positive token budgets, but is {scales}")


def base_runs(budget: int, repeats: int, request: RunRequest) -> list[RunSpec]:
    """Lists the base run of a scale, then its repeats with the next seeds."""
    scale, unchanged = budget_label(budget), (1.0,) * len(request.domains)
    names = [f"base_{scale}", *(f"base_seed{repeat}_{scale}" for repeat in range(1, repeats + 1))]
    return [RunSpec(name, budget, unchanged, seed_offset=offset) for offset, name in enumerate(names)]


def matched_pool(pool_rows: Sequence[int], token_budget: int, target_tokens: int) -> list[int]:
    """(K,) rows of each domain that a proxy run may see, so that it repeats its text as often as the target run does.

    The pools shrink with the token budget: m = pool x budget / target, to the nearest row, but at least one row of a
    domain that has any. All proxy runs of a scale share the pools of its base run.

    Args:
        pool_rows: (K,) rows that each domain has.
        token_budget: token budget of the scale's base run.
        target_tokens: token budget of the target run.

    Raises:
        UserError: the target is smaller than the proxy run.
    """
    if target_tokens < token_budget:
        raise UserError(
            f"design.match_repetition is {target_tokens}, below the token budget {token_budget} of a proxy run; it is "
            "the token budget of the larger run that the proxy runs stand for"
        )
    nearest = [(2 * pool * token_budget + target_tokens) // (2 * target_tokens) for pool in pool_rows]
    return [min(pool, max(1, rows)) for pool, rows in zip(pool_rows, nearest, strict=True)]
