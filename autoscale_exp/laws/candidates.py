"""The proxy runs that might be trained next: repeats of the present runs, runs of DDO designs, and new mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.labels import budget_label, budget_of_label, short_label
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.runs.scales import GAP
from autoscale_exp.runs.table import RunTable, scales_of

FACTOR = 3.0  # by which a DDO design multiplies or divides one domain's tokens
MOST_EPOCHS = 4  # of a domain's text in a new run, as training allows by default
NUM_OPTIMA = 10  # optima of draws at each scale, and as many random mixtures


@dataclass(frozen=True)
class Place:
    """The scale and model size of a run that may be trained.

    Attributes:
        token_budget: token budget of the scale.
        params: parameters of the model; None if the runs do not tell theirs.
        label: what it is called in names of runs.
    """

    token_budget: int
    params: int | None
    label: str


@dataclass(frozen=True)
class Candidate:
    """A proxy run that might be trained next.

    Attributes:
        run: name for the run, which no run of the table has; '' if it is named once it is chosen.
        repeats: the run with the same domain tokens and the smallest seed, or None.
        tokens: (K,) domain tokens.
        seed: a seed that no run with these domain tokens has.
        place: its scale and model size.
    """

    run: str
    repeats: str | None
    tokens: FloatArray
    seed: int
    place: Place

    @property
    def flops(self) -> float:
        """FLOPs of its training: 6 per parameter and token. Without a model size, those per parameter."""
        return 6.0 * (self.place.params or 1) * float(self.tokens.sum())


@dataclass(frozen=True)
class Candidates:
    """The proxy runs that might be trained next, whatever the target.

    Attributes:
        table: the present runs.
        runs: repeats of these, and runs of DDO designs.
        places: where new mixtures may be trained.
    """

    table: RunTable
    runs: Sequence[Candidate]
    places: Sequence[Place]

    def with_mixtures(self, best: Sequence[FloatArray]) -> list[Candidate]:
        """Returns these runs and, at each place, the `best` mixtures, the uniform one and random ones.

        No new mixture repeats a domain's text more than four times, as far as the table tells how much there is.

        Args:
            best: the mixture offered, then the optima of draws.
        """
        num_domains = len(self.table.domains)
        drawn = np.random.default_rng(0).dirichlet(np.ones(num_domains), NUM_OPTIMA)
        mixtures = [np.full(num_domains, 1 / num_domains), *best[: NUM_OPTIMA + 1], *drawn]
        new = [
            Candidate("", None, weights * place.token_budget, 0, place)
            for place in self.places
            for weights in mixtures
            if is_within_text(self.table, weights * place.token_budget)
        ]
        return [*self.runs, *new]

    @property
    def sizes(self) -> set[int | None]:
        """Model sizes of all these runs."""
        return {place.params for place in [*self.places, *(run.place for run in self.runs)]}


def candidate_runs(table: RunTable, scales: Sequence[int] = (), sizes: Sequence[int] = ()) -> Candidates:
    """Lists every run of the table with a new seed and, for a scale without a DDO design, the runs that it would have.

    Args:
        table: the present runs.
        scales: token budgets of new runs; empty for those of the present runs.
        sizes: model sizes of new runs, in parameters; empty for those of the present runs.
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


def is_within_text(table: RunTable, domain_tokens: FloatArray) -> bool:
    """Whether (K,) tokens repeat no domain's text too often for a new run, as far as the table tells."""
    text = table.unique_tokens
    return text is None or bool((domain_tokens <= MOST_EPOCHS * np.array(text)).all())


def budget_of_scale(table: RunTable, rows: Int64Array) -> int:
    """Token budget of a scale: what its label says, or the median over its runs.

    A label that is far from the tokens of all its runs, such as 1B, may tell the size of their models instead.
    """
    totals = table.domain_tokens[rows].sum(axis=1)
    labelled = budget_of_label(table.scales[rows[0]]) if table.scales else None
    if labelled and totals.min() / GAP < labelled < totals.max() * GAP:
        return labelled
    return round(float(np.median(totals)))


def size_of_scale(table: RunTable, rows: Int64Array) -> int | None:
    """Model size of a scale, in parameters; None if the table does not tell."""
    return None if table.params is None else round(float(table.params[rows[0]]))


def _missing_amounts(table: RunTable, rows: Int64Array, place: Place) -> list[Candidate]:
    """The runs of a DDO design about the mean mixture of a scale: one domain's tokens times 3 or divided by 3."""
    own = table.domain_tokens[rows]
    mean = (own / own.sum(axis=1, keepdims=True)).mean(axis=0) * float(np.median(own.sum(axis=1)))
    candidates = []
    for index, domain in enumerate(table.domains):
        for change in (FACTOR, 1 / FACTOR):
            tokens = mean.copy()
            tokens[index] *= change
            name = f"{domain}_x{change:.3g}_{place.label}"
            is_new = name not in table.runs and not np.isclose(own, tokens, rtol=1e-2).all(axis=1).any()
            if is_new and is_within_text(table, tokens):
                candidates.append(Candidate(name, None, tokens, 0, place))
    return candidates
