"""Predictions of the target runs by the fit, beside what was trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.fit_file import Fit, FittedMixture
from autoscale_exp.laws.gains import MIDDLE_AND_ENDS, gain_over, objective_draws
from autoscale_exp.laws.law import LossLaw, predicts_losses, takes_sizes
from autoscale_exp.laws.law_file import LAW, read_law
from autoscale_exp.laws.objective import Objective
from autoscale_exp.reporting.comparison import Difference
from autoscale_exp.reporting.noise import mean_margin
from autoscale_exp.reporting.target_runs import SAME_WEIGHTS, MixtureRuns, NamedObjective

NUM_DRAWS = 100
MOST_NAMED = 4  # predictions that a summary names rather than counts

Interval = tuple[float, float]


@dataclass(frozen=True)
class Prediction:
    """A predicted number, and the same as trained.

    Attributes:
        mixture: name of the mixture.
        quantity: `objective`, `gain` over the reference, or `loss` and a validation domain.
        predicted: the number that the law predicts.
        predicted_interval: its 90 % interval, by what the proxy runs leave open of the law.
        trained: the mean over seeds.
        trained_interval: the 90 % interval of that mean; None for a single seed.
    """

    mixture: str
    quantity: str
    predicted: float
    predicted_interval: Interval
    trained: float
    trained_interval: Interval | None

    @property
    def runs_interval(self) -> Interval:
        """The 90 % interval of the mean of such target runs: that of the law, and their noise.

        The two are independent, so half-widths add in quadrature, on each side by itself. The noise of a single seed is
        unknown and left out.
        """
        low, high = self.predicted_interval
        noise = 0.0 if self.trained_interval is None else (self.trained_interval[1] - self.trained_interval[0]) / 2
        below, above = (math.hypot(side, noise) for side in (self.predicted - low, high - self.predicted))
        return self.predicted - below, self.predicted + above

    @property
    def outcome(self) -> str:
        """`held` if what was trained lies in the interval of such runs, or else `missed`."""
        low, high = self.runs_interval
        return "held" if low <= self.trained <= high else "missed"


def predictions(
    fit: Fit,
    folder: Path,
    mixtures: Mapping[str, MixtureRuns],
    differences: Mapping[str, Difference],
    objective: NamedObjective,
) -> list[Prediction]:
    """Predicts every mixture that was trained, if the law of the fit predicts losses.

    The mixture that the fit offers for the budget has the numbers of fit.json. The others are predicted by the law in
    the folder of the fit, with draws of its own, for models of the same size.

    Args:
        fit: the fit of the search.
        folder: folder of the fit.
        mixtures: target runs by mixture.
        differences: differences from the reference, by mixture.
        objective: the objective of the fit.
    """
    law = law_of(folder)
    budget = next(iter(mixtures.values())).records[0].token_budget
    size = next((target.params for target in fit.targets if target.tokens == budget), None)
    if law is not None and size is not None and takes_sizes(law.name):
        law = law.at_size(size)
    draws = [] if law is None else law.draws(NUM_DRAWS, np.random.default_rng(0))
    found = []
    for name, mixture in mixtures.items():
        offered = offered_by(fit, mixture)
        if offered is not None and offered.objective_interval and offered.objective_value is not None:
            value, interval = offered.objective_value, offered.objective_interval
            losses, loss_intervals = offered.losses or {}, offered.loss_intervals or {}
        elif draws:
            value, interval, losses, loss_intervals = _expected(draws, objective, mixture)
        else:
            continue
        found.append(_beside(name, "objective", value, interval, {n: m.final for n, m in mixtures.items()}))
        if name in differences and (gain := _gain(draws, offered, objective, mixture, mixtures, differences[name])):
            found.append(gain)
        for domain in (domain for domain in losses if domain in loss_intervals):
            trained = {n: np.array([r.losses[domain] for r in m.records]) for n, m in mixtures.items()}
            found.append(_beside(name, f"loss {domain}", losses[domain], loss_intervals[domain], trained))
    return found


def _beside(
    name: str, quantity: str, predicted: float, interval: Interval, values: Mapping[str, FloatArray]
) -> Prediction:
    """Makes the prediction of one mixture; `values` has what was trained, a number per seed of every mixture."""
    mean, margin = float(values[name].mean()), mean_margin(list(values.values()))
    trained_interval = None if margin is None else (mean - margin, mean + margin)
    return Prediction(name, quantity, predicted, interval, mean, trained_interval)


def summary_of(found: Sequence[Prediction]) -> str:
    """Says in a sentence how many predictions of objectives and gains held, and which did not."""
    main = [p for p in found if p.quantity in ("objective", "gain")]
    text = f"{sum(p.outcome == 'held' for p in main)} of {len(main)} predictions of objectives and gains held"
    if missed := [f"the {p.quantity} of {p.mixture}" for p in main if p.outcome == "missed"]:
        text += f"; missed: {', '.join(missed) if len(missed) <= MOST_NAMED else len(missed)}"
    return f"{text}."


def offered_by(fit: Fit, mixture: MixtureRuns) -> FittedMixture | None:
    """Returns the fit's target at the budget of target runs, if the runs have its weights."""
    weights, budget = mixture.records[0].requested_weights, mixture.records[0].token_budget
    for target in fit.targets:
        apart = max(abs(weights.get(domain, 0.0) - weight) for domain, weight in target.weights.items())
        if target.tokens == budget and apart < SAME_WEIGHTS:
            return target
    return None


def requested(mixture: MixtureRuns, domains: Sequence[str]) -> FloatArray:
    """Returns the (K,) tokens that a mixture's runs asked for."""
    record = mixture.records[0]
    return np.array([record.requested_weights[domain] * record.token_budget for domain in domains])


def law_of(folder: Path) -> LossLaw | None:
    """Reads the law in the folder of a fit; None if there is none that predicts losses."""
    if not (folder / LAW).is_file():
        return None
    law = read_law(folder / LAW)
    return law if predicts_losses(law) else None


def _of_law(objective: NamedObjective, law: LossLaw) -> Objective:
    """Returns the objective over the law's validation domains, in their order."""
    own = objective.objective
    by_name = dict(zip(objective.validation_domains, own.weights.tolist(), strict=True))
    return Objective(own.name, own.metric, np.array([by_name[v] for v in law.validation_domains]), own.aggregate)


def _expected(
    draws: Sequence[LossLaw], objective: NamedObjective, mixture: MixtureRuns
) -> tuple[float, Interval, dict[str, float], dict[str, Interval]]:
    """Returns objective and losses of a mixture with their intervals: medians and quantiles over draws."""
    law = draws[0]
    losses = np.stack([draw.predict(requested(mixture, law.domains)) for draw in draws])
    values = _of_law(objective, law)(losses)
    low, median, high = np.quantile(values, MIDDLE_AND_ENDS).tolist()
    lows, medians, highs = np.quantile(losses, MIDDLE_AND_ENDS, axis=0).tolist()
    names = law.validation_domains
    intervals = dict(zip(names, zip(lows, highs, strict=True), strict=True))
    return median, (low, high), dict(zip(names, medians, strict=True)), intervals


def _gain(
    draws: Sequence[LossLaw],
    offered: FittedMixture | None,
    objective: NamedObjective,
    mixture: MixtureRuns,
    mixtures: Mapping[str, MixtureRuns],
    difference: Difference,
) -> Prediction | None:
    """Predicts the gain over the reference; None if it is unknown."""
    if difference.reference == "uniform" and offered is not None and offered.gains:
        gain = offered.gains["uniform"]
    elif draws:
        own, domains = _of_law(objective, draws[0]), draws[0].domains
        both = (mixtures[difference.reference], mixture)
        gain = gain_over(*(objective_draws(draws, own, requested(m, domains), 1.0) for m in both))
    else:
        return None
    interval = difference.interval and (-difference.interval[1], -difference.interval[0])
    return Prediction(mixture.name, "gain", gain.median, gain.interval, -difference.mean, interval)
