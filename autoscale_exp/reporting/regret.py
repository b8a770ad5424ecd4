"""Regret against brute force: how much higher each mixture ends than the best of all mixtures at the target budget.

A search at the target budget itself is brute force. The best of its runs is lucky as well as good, so all runs at that
budget are also smoothed: the log of the objective is a quadratic in the log ratios of shares, by ordinary least
squares. The intervals come from the uncertainty of this fit, with the noise about it (lack of fit and seeds).

R runs, K training domains, P = 1 + (K - 1) (K + 2) / 2 coefficients, D draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.gains import interval_of
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import MixtureRuns, NamedObjective
from autoscale_exp.runs.record import RunRecord

LEAST_SHARE = 0.01  # smaller shares count as this in logs
# Mixtures needed for each coefficient. With 36 mixtures of seven domains, 1.3 for each, the lowest point of a surface
# was 32 % below uniform, in a corner without runs; the best mixture that was trained is 10 % below.
LEAST_RATIO = 2
NUM_DRAWS, NUM_CANDIDATES = 400, 4000
WHOLE = 0.01  # largest relative difference of a run's tokens from its budget; proxy runs of DDO differ more


@dataclass(frozen=True)
class Regret:
    """The regret of one mixture, in shares of the best objective.

    Attributes:
        trained: its run over the best run of the brute-force search; of the same seed, or else the mean over seeds.
        smooth: its place on the smooth surface over the lowest point there; mean over draws.
        interval: 90 % of draws.
        captured: the part of what can be gained over the reference that it gains; 1 for the best mixture.
        captured_interval: 90 % of draws.
    """

    trained: float
    smooth: float
    interval: tuple[float, float]
    captured: float
    captured_interval: tuple[float, float]


@dataclass(frozen=True)
class BruteForce:
    """What a brute-force search tells of the mixtures at its budget.

    Attributes:
        num_runs: number of runs of the search.
        best_run: weights by domain of its best run.
        best: weights by domain of the lowest point of the surface.
        attainable: what the best gains over the reference, as a share of the reference's objective.
        attainable_interval: 90 % of draws.
        noise: standard deviation of a run about the surface, as a share of its objective.
        regrets: regrets by mixture.
    """

    num_runs: int
    best_run: dict[str, float]
    best: dict[str, float]
    attainable: float
    attainable_interval: tuple[float, float]
    noise: float
    regrets: dict[str, Regret]


@dataclass(frozen=True)
class _Surface:
    """The smooth surface of the objective over mixtures.

    Attributes:
        coefficients: (D, P) draws of what the runs leave open.
        noise: standard deviation of a run about the surface, as a share of its objective.
    """

    coefficients: FloatArray
    noise: float

    def at(self, shares: FloatArray) -> FloatArray:
        """Returns the (D, R) objectives of (R, K) shares."""
        return np.exp(self.coefficients @ _terms(shares).T)

    def of(self, mixture: MixtureRuns, domains: Sequence[str]) -> FloatArray:
        """Returns the (D,) objectives of a mixture."""
        return self.at(_shares(mixture.records[:1], domains))[:, 0]


def brute_force(
    searches: Searches, mixtures: Mapping[str, MixtureRuns], reference: str, objective: NamedObjective
) -> BruteForce | None:
    """Measures regrets by the searches at the target's budget and model size.

    Returns None without such a search, with too few mixtures, or if these do not tell the coefficients apart.

    Args:
        searches: the searches of the study.
        mixtures: target runs by mixture, of one budget.
        reference: the mixture that gains are over.
        objective: the objective that mixtures are judged by.
    """
    target = mixtures[reference].records[0]
    place = (target.token_budget, target.params)
    grid = [run for run in searches.all_runs if (run.token_budget, run.params) == place and _is_whole(run)]
    trained = [run for mixture in mixtures.values() for run in mixture.records if run.stages is None]
    domains = list(target.requested_weights)
    shares = _shares([*grid, *trained], domains)
    terms = _terms(shares)
    num_coefficients = terms.shape[1]
    if not grid or len(np.unique(shares.round(3), axis=0)) < LEAST_RATIO * num_coefficients:
        return None
    if np.linalg.matrix_rank(terms) < num_coefficients:
        return None
    surface = _smoothed([*grid, *trained], shares, objective)
    candidates = _candidates(shares)
    on_surface = surface.at(candidates)  # (D, candidates)
    lowest, base = on_surface.min(axis=1), surface.of(mixtures[reference], domains)
    best_run = min(grid, key=lambda run: objective(run.losses))
    gain = 1 - lowest / base
    best = candidates[on_surface.mean(axis=0).argmin()]
    return BruteForce(
        num_runs=len(grid),
        best_run=best_run.requested_weights,
        best=dict(zip(domains, best.tolist(), strict=True)),
        attainable=float(gain.mean()),
        attainable_interval=interval_of(gain),
        noise=surface.noise,
        regrets={
            name: _regret(mixture, surface.of(mixture, domains), lowest, base, best_run, objective)
            for name, mixture in mixtures.items()
            if mixture.records[0].stages is None
        },
    )


def _candidates(shares: FloatArray) -> FloatArray:
    """Returns mixtures to seek the lowest point among: those of the runs, and random ones with no smaller shares."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(shares.shape[1]), NUM_CANDIDATES)
    return np.concatenate([drawn[(drawn >= shares.min(axis=0)).all(axis=1)], shares])


def _regret(
    mixture: MixtureRuns,
    own: FloatArray,
    lowest: FloatArray,
    base: FloatArray,
    best_run: RunRecord,
    objective: NamedObjective,
) -> Regret:
    """Measures the regret of a mixture.

    Args:
        mixture: its target runs.
        own: (D,) objectives of the mixture on the surface.
        lowest: (D,) objectives of the lowest point there.
        base: (D,) objectives of the reference there.
        best_run: the best run of the brute-force search.
        objective: the objective that mixtures are judged by.
    """
    smooth, captured = own / lowest - 1, (base - own) / np.maximum(base - lowest, 1e-12)
    alike = [run for run in mixture.records if run.seed == best_run.seed] or mixture.records
    return Regret(
        trained=float(np.mean([objective(run.losses) for run in alike]) / objective(best_run.losses) - 1),
        smooth=float(smooth.mean()),
        interval=interval_of(smooth),
        captured=float(np.median(captured)),
        captured_interval=interval_of(captured),
    )


def _is_whole(run: RunRecord) -> bool:
    """Whether a run's tokens are its budget, unlike those of a DDO design."""
    return abs(sum(run.requested_tokens.values()) / run.token_budget - 1) < WHOLE


def _shares(runs: Sequence[RunRecord], domains: Sequence[str]) -> FloatArray:
    return np.array([[run.requested_weights[domain] for domain in domains] for run in runs])


def _terms(shares: FloatArray) -> FloatArray:
    """(R, P) terms of a quadratic function of the K - 1 log ratios of (R, K) shares."""
    logs = np.log(np.maximum(shares, LEAST_SHARE))
    ratios = logs[:, :-1] - logs[:, -1:]
    rows, columns = np.triu_indices(ratios.shape[1])
    return np.column_stack([np.ones(len(shares)), ratios, ratios[:, rows] * ratios[:, columns]])


def _smoothed(runs: Sequence[RunRecord], shares: FloatArray, objective: NamedObjective) -> _Surface:
    """Fits the surface to runs of (R, K) shares, with a level of its own for each seed."""
    values = np.log([objective(run.losses) for run in runs])
    seeds = np.array([run.seed for run in runs])
    levels = (seeds[:, None] == np.unique(seeds)[1:]).astype(np.float64)  # relative to the first seed
    terms = np.column_stack([_terms(shares), levels])
    fitted, *_ = np.linalg.lstsq(terms, values, rcond=None)
    freedom = len(values) - terms.shape[1]
    noise = float(np.sqrt(((values - terms @ fitted) ** 2).sum() / freedom))
    rng = np.random.default_rng(0)
    scale = noise * np.sqrt(freedom / rng.chisquare(freedom, NUM_DRAWS))  # Student's t with a known shape
    root = np.linalg.cholesky(np.linalg.inv(terms.T @ terms))
    draws = fitted + scale[:, None] * (rng.standard_normal((NUM_DRAWS, len(fitted))) @ root.T)
    return _Surface(draws[:, : draws.shape[1] - levels.shape[1]], noise)
