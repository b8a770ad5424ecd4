"""Designs: which runs a search consists of, as a pure function of the config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscale_exp.mixture.allocation import FloatArray, Int64Array, allocate_rows


@dataclass
class DesignConf:
    """A design and the probe of it that this job runs."""

    index: int = 0  # which probe; a sweep goes over all
    match_repetition: int | None = None  # token budget of a target run: a probe repeats text as often as it; null: no


@dataclass
class SingleConf(DesignConf):
    """One run of the mixture at `token_budget`."""


@dataclass
class DdoConf(DesignConf):
    """At each scale a base probe and, per domain, one with more and one with less of it (paper, stage 1)."""

    scales: list[int] = field(default_factory=list)  # token budgets of the base probes
    factor: float = 3.0  # one domain's tokens are multiplied and divided by it, the others stay
    base_repeats: int = 0  # further base probes per scale, with the next seeds: they measure the seed noise


@dataclass(frozen=True)
class Probe:
    """One run of a design.

    Attributes:
        run: name, unique within the design, safe as a folder and in an override.
        token_budget: tokens of the scale's base probe.
        multipliers: (K,) factors on the base probe's domain tokens.
        seed_offset: added to the experiment's seed.
    """

    run: str
    token_budget: int
    multipliers: tuple[float, ...]
    seed_offset: int = 0

    @property
    def scale(self) -> str:
        """Label of the token budget."""
        return budget_label(self.token_budget)

    def domain_tokens(self, weights: FloatArray) -> FloatArray:
        """(K,) requested tokens, for the base mixture's `weights`."""
        return weights * self.token_budget * np.asarray(self.multipliers)

    def row_counts(self, weights: FloatArray, seq_len: int) -> Int64Array:
        """(K,) whole rows. Domains that the probe does not perturb have exactly the base probe's rows."""
        base = allocate_rows(weights * self.token_budget, seq_len)
        return np.rint(base * np.asarray(self.multipliers)).astype(np.int64)


def matched_pool(pool_rows: Sequence[int], token_budget: int, target_tokens: int) -> list[int]:
    """(K,) rows of each domain that a probe may see, so that it repeats them as often as the target run would.

    Token budget and pools shrink alike: m = pool x budget / target, to the nearest row, at least one of a domain that
    has any. All probes of a scale share the pools of its base probe.

    Args:
        pool_rows: (K,) rows that each domain has.
        token_budget: of the scale's base probe.
        target_tokens: token budget of the target run.

    Raises:
        ValueError: the target is smaller than the probe.
    """
    if target_tokens < token_budget:
        raise ValueError(
            f"design.match_repetition is {target_tokens}, below the token budget {token_budget} of a probe; it is the "
            "token budget of the larger run that the probes stand for"
        )
    nearest = [(2 * pool * token_budget + target_tokens) // (2 * target_tokens) for pool in pool_rows]
    return [min(pool, max(1, rows)) for pool, rows in zip(pool_rows, nearest, strict=True)]


def budget_label(num_tokens: int) -> str:
    """A short exact name of a token budget: 600_000 is '0.6M', 25_000_000_000 is '25B'."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if num_tokens >= size / 10:
            return f"{num_tokens / size:.12g}{unit}"
    return f"{num_tokens / 1000:.12g}K"


def short_label(num_tokens: float) -> str:
    """A token budget to three digits, for tables and axes: 599_872 is '0.6M'."""
    return budget_label(round(float(f"{num_tokens:.3g}")))


def ddo_probes(domains: Sequence[str], design: DdoConf) -> list[Probe]:
    """Base, repeats of the base, then each domain times and divided by the factor; scale after scale.

    2K + 1 + base_repeats probes per scale. This perturbs amounts, not proportions: the total changes too.
    """
    if not design.scales or len(set(design.scales)) != len(design.scales) or min(design.scales) < 1:
        raise ValueError(f"design.scales must be distinct positive token budgets, but is {design.scales}")
    if design.factor <= 1:
        raise ValueError(f"design.factor must be above 1, but is {design.factor}")
    probes = []
    unchanged = (1.0,) * len(domains)
    for budget in design.scales:
        scale = budget_label(budget)
        for repeat in range(design.base_repeats + 1):
            name = f"base_seed{repeat}_{scale}" if repeat else f"base_{scale}"
            probes.append(Probe(name, budget, unchanged, seed_offset=repeat))
        for index, domain in enumerate(domains):
            for factor in (design.factor, 1 / design.factor):
                multipliers = (*unchanged[:index], factor, *unchanged[index + 1 :])
                probes.append(Probe(f"{domain}_x{factor:.3g}_{scale}", budget, multipliers))
    return probes


def probes_of(
    design: DesignConf, domains: Sequence[str], token_budget: int | None, mixture: str, seed: int
) -> list[Probe]:
    """All probes of a design, in the order of their indices."""
    if isinstance(design, DdoConf):
        return ddo_probes(domains, design)
    if token_budget is None or token_budget < 1:
        raise ValueError(f"token_budget must be a positive number of tokens for design=single, but is {token_budget}")
    return [Probe(f"{mixture}_{budget_label(token_budget)}_seed{seed}", token_budget, (1.0,) * len(domains))]


def select_probe(probes: Sequence[Probe], index: int) -> Probe:
    """The probe at `index`.

    Raises:
        ValueError: there is no such probe, or its name would not do as a folder.
    """
    if not 0 <= index < len(probes):
        raise ValueError(f"design.index is {index}, but the design has probes 0 to {len(probes) - 1}")
    probe = probes[index]
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", probe.run):
        raise ValueError(f"the run name '{probe.run}' may only have letters, digits, '_', '.' and '-'")
    return probe
