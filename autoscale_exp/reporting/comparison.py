"""Target runs side by side: final objective over seeds, and how much sooner a mixture gets where the reference ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.runs.record import RunRecord


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


def objective_of_fit(fit: Fit, folder: str) -> NamedObjective:
    """The objective that the fit in `folder` was made with.

    Raises:
        UserError: it was made of given optima, whose objective is not known.
    """
    section = fit.objective
    if section.weights is None or section.metric is None:
        raise UserError(
            f"fit is '{folder}', which was made of given optima, so that nobody knows their objective; give one made "
            "with runs=<runs.csv or sweep folder>, and this one as autoscale=<folder>"
        )
    domains = list(section.weights)
    objective = make_objective(section.name, section.metric, section.weights, domains, section.aggregate)
    return NamedObjective(objective, domains)
