"""Target runs by token budget and mixture, and the objective by which they are judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.laws.objective import Objective
from autoscale_exp.runs.record import RunRecord

SAME_WEIGHTS = 1e-3  # largest difference between requested weights of runs of one mixture


@dataclass(frozen=True)
class NamedObjective:
    """An objective of losses by name, in any order.

    Attributes:
        objective: the objective, a function of (V,) losses.
        validation_domains: (V,) the validation domains, in the order of the objective.
    """

    objective: Objective
    validation_domains: list[str]

    def __call__(self, losses: Mapping[str, float]) -> float:
        """Returns the objective of losses by domain."""
        return float(self.objective(np.array([losses[domain] for domain in self.validation_domains])))


@dataclass(frozen=True)
class MixtureRuns:
    """The target runs of one mixture.

    Attributes:
        name: name of the mixture.
        records: a record per seed, sorted by seed.
        tokens: (P,) tokens at the points of the validation curve.
        curves: (seeds, P) objective at these points.
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
        """(P,) mean curve over seeds."""
        return self.curves.mean(axis=0)

    @property
    def spread(self) -> float:
        """Standard deviation of the final objective over seeds; NaN for a single seed."""
        return float(self.final.std(ddof=1)) if len(self.final) > 1 else float("nan")


def group_by_budget(records: Sequence[RunRecord], objective: NamedObjective) -> dict[int, dict[str, MixtureRuns]]:
    """Groups target runs by token budget, smallest first, and mixture. The last budget is the target.

    Raises:
        UserError: the mixtures of a budget have different seeds, and cannot be compared; runs were validated on
            other domains than those of the objective; or runs of a mixture differ in validation points or in weights.
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
    """Checks that all seeds of a mixture have the same requested weights, unless these were set during the runs.

    Raises:
        UserError: two seeds have other weights.
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
    """Returns the tokens at which all seeds of a mixture were validated.

    Raises:
        UserError: two seeds were validated at different points.
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
        verb: "trained" or "validated", for the message.
        domains: the domains of the run.
        of_fit: the domains of the fit.

    Raises:
        UserError: a domain is in only one of the two; the message names it.
    """
    more, fewer = sorted(set(domains) - set(of_fit)), sorted(set(of_fit) - set(domains))
    if more or fewer:
        raise UserError(
            f"run '{record.run}' was not {verb} on the domains of the fit: the run alone has "
            f"{', '.join(more) or 'none'}, the fit alone {', '.join(fewer) or 'none'}; report runs with a fit on "
            "their own domains"
        )


def objective_of_fit(fit: Fit, folder: str) -> NamedObjective:
    """Returns the objective of the fit in `folder`.

    Raises:
        UserError: the fit is of given optima, whose objective is unknown.
    """
    domains = list(fit.objective.weights or ())
    objective = fit.objective.over(domains)
    if objective is None:
        raise UserError(
            f"fit is '{folder}', which was made of given optima, whose objective is unknown; give a fit made "
            "with runs=<runs.csv or sweep folder>, and this one as autoscale=<folder>"
        )
    return NamedObjective(objective, domains)
