"""The proxy runs that might be trained next: repeats of those that there are, DDO's amounts, and mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.labels import budget_of_label, short_label
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.runs.table import RunTable, scales_of

FACTOR = 3.0  # on one domain's tokens, of DDO's amounts
MOST_EPOCHS = 4  # of a domain in a new run: what training allows unless it is told otherwise
NUM_OPTIMA = 10  # optima of draws, and as many random mixtures, at each scale


@dataclass(frozen=True)
class Candidate:
    """A proxy run that might be trained next.

    Attributes:
        run: name that it would have, which no run of the table has; '' for one that is named once it is chosen.
        repeats: the run of the same amounts with the smallest seed, or None.
        tokens: (K,) domain tokens.
        seed: that no run of these amounts has.
        token_budget: of its scale.
    """

    run: str
    repeats: str | None
    tokens: FloatArray
    seed: int
    token_budget: int


@dataclass(frozen=True)
class Candidates:
    """The proxy runs that might be trained next, whatever the target.

    Attributes:
        table: the runs that there are.
        runs: repeats of these, and DDO's amounts.
        scales: token budgets of new mixtures.
    """

    table: RunTable
    runs: Sequence[Candidate]
    scales: Sequence[int]

    def with_mixtures(self, best: Sequence[FloatArray]) -> list[Candidate]:
        """These and, at each scale, mixtures that may be the best at the target, the uniform one and random ones.

        None repeats a domain's text more than four times, as far as the table tells how much there is.

        Args:
            best: the mixture offered, and the optima of draws.
        """
        num_domains, unique = len(self.table.domains), self.table.unique_tokens
        drawn = np.random.default_rng(0).dirichlet(np.ones(num_domains), NUM_OPTIMA)
        mixtures = [np.full(num_domains, 1 / num_domains), *best[: NUM_OPTIMA + 1], *drawn]
        new = [
            Candidate("", None, weights * scale, 0, scale)
            for scale in self.scales
            for weights in mixtures
            if unique is None or (weights * scale <= MOST_EPOCHS * np.array(unique)).all()
        ]
        return [*self.runs, *new]


def candidate_runs(table: RunTable, scales: Sequence[int] = ()) -> Candidates:
    """Every run of the table with another seed; and, of a scale without a DDO design, the amounts that it would have.

    Args:
        table: the runs.
        scales: token budgets of new runs; empty for those of the runs.
    """
    seeds = table.seeds or [0] * len(table.runs)
    candidates, budgets = [], []
    for rows in scales_of(table):
        budget = budget_of_scale(table, rows)
        budgets.append(budget)
        if scales and budget not in scales:
            continue
        groups: list[list[int]] = []  # rows of equal amounts
        for row in rows[np.argsort([seeds[r] for r in rows], kind="stable")].tolist():
            own = table.domain_tokens[row]
            group = next((g for g in groups if np.allclose(table.domain_tokens[g[0]], own, rtol=1e-3)), None)
            if group is None:
                groups.append([row])
            else:
                group.append(row)
        for group in groups:
            first, seed = table.runs[group[0]], max(seeds[r] for r in group) + 1
            while f"{first}_seed{seed}" in table.runs:
                seed += 1
            name = f"{first}_seed{seed}"
            candidates.append(Candidate(name, first, table.domain_tokens[group[0]], seed, budget))
        if not all(find_design(table, rows)[1]):
            candidates += _missing_amounts(table, rows, budget)
    return Candidates(table, candidates, scales or budgets)


def budget_of_scale(table: RunTable, rows: Int64Array) -> int:
    """Token budget of a scale: what its label says, or else the median of its runs."""
    labelled = budget_of_label(table.scales[rows[0]]) if table.scales else None
    return labelled or round(float(np.median(table.domain_tokens[rows].sum(axis=1))))


def _missing_amounts(table: RunTable, rows: Int64Array, budget: int) -> list[Candidate]:
    """One domain's tokens times and divided by 3, the others as they are on average over a scale's runs."""
    own = table.domain_tokens[rows]
    mean = (own / own.sum(axis=1, keepdims=True)).mean(axis=0) * float(np.median(own.sum(axis=1)))
    candidates = []
    for index, domain in enumerate(table.domains):
        for change in (FACTOR, 1 / FACTOR):
            tokens = mean.copy()
            tokens[index] *= change
            name = f"{domain}_x{change:.3g}_{short_label(float(mean.sum()))}"
            if name not in table.runs and not np.isclose(own, tokens, rtol=1e-2).all(axis=1).any():
                candidates.append(Candidate(name, None, tokens, 0, budget))
    return candidates
