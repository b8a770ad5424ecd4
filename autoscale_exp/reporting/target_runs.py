"""Target runs by token budget and mixture, and the objective that they are judged by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.record import RunRecord

SAME_WEIGHTS = 1e-3  # apart, at most, in requested weights: runs of one mixture


@dataclass(frozen=True)
class NamedObjective:
    """An objective of losses that are told apart by name and may stand in any order.

    Attributes:
        objective: the objective, a function of (V,) losses.
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
        name: name of the mixture.
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


def group_by_budget(records: Sequence[RunRecord], objective: NamedObjective) -> dict[int, dict[str, MixtureRuns]]:
    """Target runs by token budget, smallest first, and mixture: the last budget is the target.

    Raises:
        UserError: the runs of a budget have different seeds, so that they cannot be compared; runs were validated on
            other domains than the objective's; or those of a mixture at different points, or trained on other weights.
    """
    budgets = sorted({record.token_budget for record in records})
    return {
        budget: _group_by_mixture([record for record in records if record.token_budget == budget], objective)
        for budget in budgets
    }


def _group_by_mixture(records: Sequence[RunRecord], objective: NamedObjective) -> dict[str, MixtureRuns]:
    for record in records:
        for point in record.validation_curve:
            require_domains(record, "validated", point.losses, objective.validation_domains)
    names = dict.fromkeys(record.mixture for record in records)
    by_name = {name: sorted((r for r in records if r.mixture == name), key=lambda r: r.seed) for name in names}
    seeds = {tuple(r.seed for r in of_mixture): name for name, of_mixture in by_name.items()}
    if len(seeds) > 1:
        told = "; ".join(f"{name} has {', '.join(map(str, own))}" for own, name in seeds.items())
        raise UserError(
            f"the target runs of {records[0].token_budget:,} tokens differ in seeds ({told}) and cannot be compared; "
            "train each of these mixtures with the same seeds, or put each comparison in a folder of its own"
        )
    groups = {}
    for name, of_mixture in by_name.items():
        _check_weights(of_mixture)
        tokens = np.array(_shared_points(of_mixture), dtype=np.float64)
        curves = np.array([[objective(p.losses) for p in r.validation_curve] for r in of_mixture])
        groups[name] = MixtureRuns(name, of_mixture, tokens, curves)
    return groups


def _check_weights(records: Sequence[RunRecord]) -> None:
    """Checks that all seeds of a mixture were asked for the same weights, unless these came as the runs trained.

    Raises:
        UserError: two were not.
    """
    first = records[0]
    for record in records[1:]:
        apart = max(abs(first.requested_weights[d] - weight) for d, weight in record.requested_weights.items())
        if record.stages is None and apart > SAME_WEIGHTS:
            raise UserError(
                f"runs '{first.run}' and '{record.run}' are both of mixture {first.mixture}, but of other weights, as "
                "after another fit; delete the folder of one of them, and train its weights under a mixture.name of "
                "their own"
            )


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
        record: record of the run.
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
