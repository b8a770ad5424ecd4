"""The proxy runs that might be trained next: repeats of those that there are, DDO's amounts, and mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.labels import budget_label, budget_of_label, short_label
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.runs.table import RunTable, scales_of

FACTOR = 3.0  # on one domain's tokens, of DDO's amounts
MOST_EPOCHS = 4  # of a domain in a new run: what training allows unless it is told otherwise
NUM_OPTIMA = 10  # optima of draws, and as many random mixtures, at each scale


@dataclass(frozen=True)
class Place:
    """Where among scales and sizes a run may be trained.

    Attributes:
        token_budget: of the scale.
        params: of the model; None where the runs do not tell theirs.
        label: in names of runs.
    """

    token_budget: int
    params: int | None
    label: str


@dataclass(frozen=True)
class Candidate:
    """A proxy run that might be trained next.

    Attributes:
        run: name that it would have, which no run of the table has; '' for one that is named once it is chosen.
        repeats: the run of the same amounts with the smallest seed, or None.
        tokens: (K,) domain tokens.
        seed: that no run of these amounts has.
        place: among scales and sizes.
    """

    run: str
    repeats: str | None
    tokens: FloatArray
    seed: int
    place: Place

    @property
    def flops(self) -> float:
        """Of its training: 6 for a parameter and a token; those of one parameter where the runs do not tell theirs."""
        return 6.0 * (self.place.params or 1) * float(self.tokens.sum())


@dataclass(frozen=True)
class Candidates:
    """The proxy runs that might be trained next, whatever the target.

    Attributes:
        table: the runs that there are.
        runs: repeats of these, and DDO's amounts.
        places: of new mixtures.
    """

    table: RunTable
    runs: Sequence[Candidate]
    places: Sequence[Place]

    def with_mixtures(self, best: Sequence[FloatArray]) -> list[Candidate]:
        """These and, at each place, mixtures that may be the best at the target, the uniform one and random ones.

        None repeats a domain's text more than four times, as far as the table tells how much there is.

        Args:
            best: the mixture offered, and the optima of draws.
        """
        num_domains, unique = len(self.table.domains), self.table.unique_tokens
        drawn = np.random.default_rng(0).dirichlet(np.ones(num_domains), NUM_OPTIMA)
        mixtures = [np.full(num_domains, 1 / num_domains), *best[: NUM_OPTIMA + 1], *drawn]
        new = [
            Candidate("", None, weights * place.token_budget, 0, place)
            for place in self.places
            for weights in mixtures
            if unique is None or (weights * place.token_budget <= MOST_EPOCHS * np.array(unique)).all()
        ]
        return [*self.runs, *new]

    @property
    def sizes(self) -> set[int | None]:
        """Parameters of the models that these runs are of."""
        return {place.params for place in [*self.places, *(run.place for run in self.runs)]}


def candidate_runs(table: RunTable, scales: Sequence[int] = (), sizes: Sequence[int] = ()) -> Candidates:
    """Every run of the table with another seed; and, of a scale without a DDO design, the amounts that it would have.

    Args:
        table: the runs.
        scales: token budgets of new runs; empty for those of the runs.
        sizes: parameters of the models of new runs; empty for those of the runs.
    """
    seeds = table.seeds or [0] * len(table.runs)
    groups_of_runs = [(rows, budget_of_scale(table, rows), size_of_scale(table, rows)) for rows in scales_of(table)]
    of_runs = dict.fromkeys(params for *_, params in groups_of_runs)
    is_one = len({*of_runs, *sizes}) == 1

    def place(budget: int, params: int | None) -> Place:
        of_size = "" if is_one else f"_of_{short_label(params or 0)}"
        return Place(budget, params, budget_label(budget) + of_size)

    candidates: list[Candidate] = []
    for rows, budget, params in groups_of_runs:
        if (scales and budget not in scales) or (sizes and params not in sizes):
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
            candidates.append(Candidate(name, first, table.domain_tokens[group[0]], seed, place(budget, params)))
        if not all(find_design(table, rows)[1]):
            candidates += _missing_amounts(table, rows, place(budget, params))
    budgets = scales or list(dict.fromkeys(budget for _, budget, _ in groups_of_runs))
    return Candidates(table, candidates, [place(budget, params) for params in sizes or of_runs for budget in budgets])


def budget_of_scale(table: RunTable, rows: Int64Array) -> int:
    """Token budget of a scale: what its label says, or else the median of its runs."""
    labelled = budget_of_label(table.scales[rows[0]]) if table.scales else None
    return labelled or round(float(np.median(table.domain_tokens[rows].sum(axis=1))))


def size_of_scale(table: RunTable, rows: Int64Array) -> int | None:
    """Parameters of the models of a scale; None where the table does not tell."""
    return None if table.params is None else round(float(table.params[rows[0]]))


def _missing_amounts(table: RunTable, rows: Int64Array, place: Place) -> list[Candidate]:
    """One domain's tokens times and divided by 3, the others as they are on average over a scale's runs."""
    own = table.domain_tokens[rows]
    mean = (own / own.sum(axis=1, keepdims=True)).mean(axis=0) * float(np.median(own.sum(axis=1)))
    candidates = []
    for index, domain in enumerate(table.domains):
        for change in (FACTOR, 1 / FACTOR):
            tokens = mean.copy()
            tokens[index] *= change
            name = f"{domain}_x{change:.3g}_{place.label}"
            if name not in table.runs and not np.isclose(own, tokens, rtol=1e-2).all(axis=1).any():
                candidates.append(Candidate(name, None, tokens, 0, place))
    return candidates
