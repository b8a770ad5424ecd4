"""Target runs side by side: final objective over seeds, and how much sooner a mixture gets where the reference ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.record import RunRecord

CONFIDENCE = 0.9  # of intervals, as in a fit
MOST_SEEDS = 100  # that are looked through for how many would settle a question


@dataclass(frozen=True)
class NamedObjective:
    """An objective of losses that are told apart by name and may stand in any order.

    Attributes:
        objective: of (V,) losses.
        validation_domains: (V,) the domains that it takes them of, in its order.
    """

    objective: Objective
    validation_domains: list[str]

    def __call__(self, losses: Mapping[str, float]) -> float:
        """The objective of the losses of each domain."""
        return float(self.objective(np.array([losses[domain] for domain in self.validation_domains])))


@dataclass(frozen=True)
class MixtureRuns:
    """The target runs of one mixture.

    Attributes:
        name: of the mixture.
        records: a run per seed, by seed.
        tokens: (P,) tokens at the points of the validation curve.
        curves: (seeds, P) objective there.
    """

    name: str
    records: list[RunRecord]
    tokens: FloatArray
    curves: FloatArray

    @property
    def final(self) -> FloatArray:
        """(seeds,) objective at the end."""
        return self.curves[:, -1]

    @property
    def mean_curve(self) -> FloatArray:
        """(P,) mean over seeds."""
        return self.curves.mean(axis=0)

    @property
    def spread(self) -> float:
        """Standard deviation of the final objective over seeds; NaN for a single seed."""
        return float(self.final.std(ddof=1)) if len(self.final) > 1 else float("nan")


def group_by_mixture(records: Sequence[RunRecord], objective: NamedObjective) -> dict[str, MixtureRuns]:
    """Target runs by mixture.

    Raises:
        UserError: the runs have different token budgets or seeds, so that they cannot be compared, were validated on
            other domains than the objective's, or those of a mixture at different points.
    """
    for record in records:
        for point in record.validation_curve:
            require_domains(record, "validated", point.losses, objective.validation_domains)
    names = dict.fromkeys(record.mixture for record in records)
    by_name = {name: sorted((r for r in records if r.mixture == name), key=lambda r: r.seed) for name in names}
    budgets = {record.token_budget for record in records}
    seeds = {tuple(r.seed for r in of_mixture) for of_mixture in by_name.values()}
    if len(budgets) > 1 or len(seeds) > 1:
        raise UserError(
            f"the target runs differ in token budget ({sorted(budgets)}) or in seeds ({sorted(seeds)}) and cannot be "
            "compared; put each comparison in a folder of its own"
        )
    groups = {}
    for name, of_mixture in by_name.items():
        tokens = np.array(_shared_points(of_mixture), dtype=np.float64)
        curves = np.array([[objective(p.losses) for p in r.validation_curve] for r in of_mixture])
        groups[name] = MixtureRuns(name, of_mixture, tokens, curves)
    return groups


def _shared_points(records: Sequence[RunRecord]) -> list[int]:
    """The tokens at which all seeds of a mixture were validated.

    Raises:
        UserError: two were validated at different ones.
    """
    first, *others = ([point.tokens for point in record.validation_curve] for record in records)
    for record, points in zip(records[1:], others, strict=True):
        if points != first:
            raise UserError(
                f"run '{record.run}' was validated {len(points)} times, after {_enumerate(points)} tokens, but run "
                f"'{records[0].run}' {len(first)} times, after {_enumerate(first)}; train all seeds of a mixture "
                "with the same num_validations"
            )
    return first


def _enumerate(points: Sequence[int]) -> str:
    return ", ".join(f"{tokens:,}" for tokens in points)


def require_domains(record: RunRecord, verb: str, domains: Iterable[str], of_fit: Iterable[str]) -> None:
    """Checks that a run and the fit have the same domains, in any order.

    Args:
        record: of the run.
        verb: what the run was on its domains: trained or validated.
        domains: the run's.
        of_fit: the fit's.

    Raises:
        UserError: a domain is in one of the two only; the message names it.
    """
    more, fewer = sorted(set(domains) - set(of_fit)), sorted(set(of_fit) - set(domains))
    if more or fewer:
        raise UserError(
            f"run '{record.run}' was not {verb} on the domains of the fit: the run alone has "
            f"{', '.join(more) or 'none'}, the fit alone {', '.join(fewer) or 'none'}; report runs with a fit on "
            "their own domains"
        )


def tokens_to_reach(tokens: FloatArray, curve: FloatArray, level: float) -> float | None:
    """Tokens after which a curve first is at `level` or below, linear between its points; None if it never is."""
    below = np.flatnonzero(curve <= level)
    if not below.size:
        return None
    k = int(below[0])
    if k == 0:
        return float(tokens[0])
    fraction = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
    return float(tokens[k - 1] + fraction * (tokens[k] - tokens[k - 1]))


def final_gap(mixture: MixtureRuns, reference: MixtureRuns) -> float:
    """How far the mixture ends above the reference, on the mean over seeds; negative if it ends below."""
    return float(mixture.mean_curve[-1] - reference.mean_curve[-1])


def speedup(mixture: MixtureRuns, reference: MixtureRuns) -> float | None:
    """Share of the reference's tokens that the mixture saves to reach the objective that the reference ends with.

    Source: AutoScale, arXiv 2407.20177, section 5. Read off the mean validation curves. A mixture that ends above the
    reference has a negative one: the share that the reference saves to reach what the mixture ends with. None if
    either curve is a single point, which tells nothing of the way there.
    """
    if min(len(mixture.tokens), len(reference.tokens)) < 2:
        return None
    ahead, other = (mixture, reference) if final_gap(mixture, reference) < 0 else (reference, mixture)
    reached = tokens_to_reach(ahead.tokens, ahead.mean_curve, float(other.mean_curve[-1]))
    assert reached is not None  # it ends there or below
    saved = 1 - reached / float(reference.tokens[-1])
    return saved if ahead is mixture else -saved


@dataclass(frozen=True)
class Difference:
    """A mixture less the reference, seed by seed: the final objective, lower is better.

    Attributes:
        mixture: name.
        reference: name.
        mean: over seeds.
        interval: 90 % interval of the mean by Student's t; None for a single seed.
        base: the reference's mean, which shares are of.
        num_seeds: compared.
        seeds_to_settle: in all, at which an interval of the same noise about the same mean would leave zero out; None
            if it does so already, if the noise is not known, or if `MOST_SEEDS` would not be enough.
    """

    mixture: str
    reference: str
    mean: float
    interval: tuple[float, float] | None
    base: float
    num_seeds: int
    seeds_to_settle: int | None

    @property
    def is_better(self) -> bool:
        """Whether the mixture ends lower by more than the noise."""
        return self.interval is not None and self.interval[1] < 0

    @property
    def is_worse(self) -> bool:
        """Whether the mixture ends higher by more than the noise."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def within_noise(self) -> bool:
        """Whether nothing can be told: the interval holds zero, or there is none."""
        return not (self.is_better or self.is_worse)


def compare(mixtures: Mapping[str, MixtureRuns], reference: str) -> dict[str, Difference]:
    """Every other mixture less the reference, by name.

    Runs of the same seed see the same initial weights and the same order of each domain's rows, so mixtures are
    compared seed by seed. The noise of a difference is pooled over all mixtures (the residuals of a two-way layout,
    mixtures by seeds), which for two mixtures is the paired t test.
    """
    base = mixtures[reference].final
    num_seeds = len(base)
    finals = np.stack([mixture.final for mixture in mixtures.values()])
    residuals = finals - finals.mean(axis=1, keepdims=True) - finals.mean(axis=0) + finals.mean()
    freedom = (len(finals) - 1) * (num_seeds - 1)
    deviation = float(np.sqrt((residuals**2).sum() / freedom)) if freedom else math.nan
    differences = {}
    for name, mixture in mixtures.items():
        if name == reference:
            continue
        mean = float((mixture.final - base).mean())
        margin = _margin(deviation, num_seeds, len(finals)) if freedom else math.nan
        settled = not freedom or abs(mean) > margin
        differences[name] = Difference(
            mixture=name,
            reference=reference,
            mean=mean,
            interval=(mean - margin, mean + margin) if freedom else None,
            base=float(base.mean()),
            num_seeds=num_seeds,
            seeds_to_settle=None if settled else _seeds_to_settle(mean, deviation, num_seeds, len(finals)),
        )
    return differences


def _margin(deviation: float, num_seeds: int, num_mixtures: int) -> float:
    """Half the width of the interval of a mean difference, if a single run has this standard deviation."""
    freedom = (num_mixtures - 1) * (num_seeds - 1)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * deviation * math.sqrt(2 / num_seeds)


def _seeds_to_settle(mean: float, deviation: float, num_seeds: int, num_mixtures: int) -> int | None:
    for count in range(num_seeds + 1, MOST_SEEDS + 1):
        if abs(mean) > _margin(deviation, count, num_mixtures):
            return count
    return None


def mean_margin(values: Sequence[FloatArray]) -> float | None:
    """Half the width of the 90 % interval of each group's mean over seeds, by Student's t; None for single seeds.

    The groups are of equal size, and their noise is pooled: two seeds that happen to agree make nothing certain.
    """
    num_seeds = len(values[0])
    freedom = len(values) * (num_seeds - 1)
    if not freedom:
        return None
    deviation = math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in values) / freedom)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * deviation / math.sqrt(num_seeds)


def objective_of_fit(fit: Fit, folder: str) -> NamedObjective:
    """The objective that the fit in `folder` was made with.

    Raises:
        UserError: it was made of given optima, whose objective is not known.
    """
    domains = list(fit.objective.weights or ())
    objective = fit.objective.over(domains)
    if objective is None:
        raise UserError(
            f"fit is '{folder}', which was made of given optima, so that nobody knows their objective; give one made "
            "with runs=<runs.csv or sweep folder>, and this one as autoscale=<folder>"
        )
    return NamedObjective(objective, domains)
