"""The mixture to train on, given what the runs leave open, with its interval, its gain and a verdict.

A fitted law comes with draws of its parameters. The mixture offered has the best mean objective over the draws, rather
than under the point estimate. Where the runs say little, the draws disagree and their mean is flat, so the mixture
stays moderate.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label
from autoscale_exp.base.progress import Progress
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.laws.backtest import Trial, backtest, fit_without_largest
from autoscale_exp.laws.candidates import MOST_EPOCHS, Candidates, candidate_runs, size_of_scale
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture, NextRun, named
from autoscale_exp.laws.gains import INTERVAL, MIDDLE_AND_ENDS, gain_over, objective_draws, verdict
from autoscale_exp.laws.law import LossLaw, predict_runs
from autoscale_exp.laws.next_runs import differences_at, propose_runs
from autoscale_exp.laws.objective import METRICS, Objective
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.responses import responses_of
from autoscale_exp.laws.solver.ensemble import Ensemble
from autoscale_exp.laws.solver.mixture_optimum import MixtureOptimum, WorstCase, expected_optimum
from autoscale_exp.laws.solver.sampled_optimum import DrawnMixtures, draw_mixtures
from autoscale_exp.runs.table import RunTable, has_sizes, scales_of

log = logging.getLogger(__name__)

DRAW_ACCURACY = 1e-6  # KKT residual of the draws' optima, from which the intervals of weights come


@dataclass(frozen=True)
class Evidence:
    """What a law learns from the runs, whatever the objective.

    Attributes:
        law: the law, fitted to all runs.
        table: the runs.
        draws: draws of the law; empty if no intervals are asked for.
        trials: the laws of the back-test, fitted without the largest runs.
    """

    law: LossLaw
    table: RunTable
    draws: Sequence[LossLaw]
    trials: list[Trial]


def gather_evidence(law: LossLaw, table: RunTable, request: Request) -> Evidence:
    """Draws laws for the intervals, and fits those of the back-test."""
    draws: Sequence[LossLaw] = []
    if request.num_draws:
        log.info("drawing %d laws that the runs leave open", request.num_draws)
        draws = law.draws(request.num_draws, np.random.default_rng(request.seed))
    log.info("back-test: fitting without the largest runs")
    return Evidence(law, table, draws, fit_without_largest(law.name, table))


def decide(evidence: Evidence, request: Request) -> Fit:
    """Finds the mixtures that a law of losses offers, at every scale of its runs and at every target."""
    law, table, objective = evidence.law, evidence.table, request.objective
    groups = scales_of(table)
    totals = table.domain_tokens.sum(axis=1)
    base = base_mixture_of(table, groups[-1])
    candidates = candidate_runs(table, request.next_scales, request.next_sizes)
    sizes = [size_of_scale(table, rows) for rows in groups]
    target_size = request.params or (sizes[-1] if table.params is None else round(float(table.params.max())))
    of_size = {params: _at_size(evidence, request, params) for params in {*sizes, target_size, *candidates.sizes}}
    draws_of = {params: draws for params, (_, draws) in of_size.items()}

    def decided(budget: int, params: int | None) -> FittedMixture:
        size = "" if params is None else f" and {short_label(params)} parameters"
        log.info("objective %s: mixture for %s tokens%s", objective.name, short_label(budget), size)
        here, draws = of_size[params]
        return replace(decide_at(here, draws, budget, base, request, candidates, draws_of), params=params)

    budgets = [round(float(np.median(totals[rows]))) for rows in groups]
    tests = [backtest(trial, table, objective) for trial in evidence.trials]
    residuals = objective(predict_runs(law, table)) - objective(table.losses)
    return Fit(
        law=law.name,
        objective=FitObjective.of(objective, law.validation_domains),
        domains=law.domains,
        scales=[
            decided(budget, params).with_runs(len(rows))
            for budget, params, rows in zip(budgets, sizes, groups, strict=True)
        ],
        targets=[decided(budget, target_size) for budget in request.targets],
        diagnostics=Diagnostics(
            **law.diagnostics | {"notes": law.diagnostics["notes"] + _notes_on_targets(table, request, target_size)},
            num_runs=len(table.runs),
            base_mixture=named(table.domains, base),
            residual=float(residuals.std()),
            run_noise=named(table.validation_domains, law.run_noise),
            backtest=tests[0] if tests else None,
            further_backtests=tests[1:],
            responses=responses_of(law, table, groups, objective),
        ),
    )


def base_mixture_of(table: RunTable, rows: Int64Array) -> FloatArray:
    """(K,) weights of the mixture that the runs of a scale vary: of the base run of a DDO design, or else their mean.

    Args:
        table: the runs.
        rows: indices of the scale's runs.
    """
    weights = table.domain_tokens / table.domain_tokens.sum(axis=1, keepdims=True)
    base, varied = find_design(table, rows)
    is_design = all(runs for runs, weight in zip(varied, weights[base[0]], strict=True) if weight)
    return np.asarray(weights[base if is_design else rows].mean(axis=0))


def _notes_on_targets(table: RunTable, request: Request, params: int | None) -> list[str]:
    """Writes notes on targets far from the runs."""
    if params is None or table.params is None or not request.targets:
        return []
    notes, largest = [], float(table.params.max())
    if not has_sizes(table) and params != largest:
        notes.append(
            f"All runs are of models with {short_label(largest)} parameters, so the effect of {short_label(params)} "
            "comes from the priors."
        )
    beyond = [budget for budget in request.targets if budget > table.domain_tokens.sum(axis=1).max()]
    if beyond and params > largest:
        notes.append(
            f"The target of {short_label(max(beyond))} tokens and {short_label(params)} parameters is beyond all runs "
            "in both; the back-test tells how large the error of the law may be."
        )
    return notes


def _at_size(evidence: Evidence, request: Request, params: int | None) -> tuple[LossLaw, Sequence[LossLaw]]:
    """Returns the law and its draws for models with `params` parameters. The draws are the same at each size."""
    law, sizes = evidence.law, evidence.table.params
    if params is None or (sizes is not None and (sizes == params).all()):
        return law, evidence.draws
    there = law.at_size(params)
    return there, there.draws(request.num_draws, np.random.default_rng(request.seed)) if request.num_draws else []


def decide_at(
    law: LossLaw,
    draws: Sequence[LossLaw],
    budget: int,
    base: FloatArray,
    request: Request,
    candidates: Candidates | None = None,
    draws_of: Mapping[int | None, Sequence[LossLaw]] | None = None,
) -> FittedMixture:
    """Finds the mixture to offer at a budget.

    Args:
        law: the law, fitted to the runs.
        draws: draws of the law; empty for no intervals.
        budget: token budget.
        base: (K,) weights of the mixture that proxy runs vary.
        request: the request to the fit.
        candidates: proxy runs that might be trained next; None for no proposals.
        draws_of: draws by the model sizes of these runs.
    """
    objective, search = request.objective, _Search(law, budget, request)
    # Optima are those of formulas, which are convex for most laws. A law's discrepancy is not part of the search.
    formula, formulas = law.by_formula(), [draw.by_formula() for draw in draws]
    point, other = search.best_under([formula]), METRICS[1 - METRICS.index(objective.metric)]
    # Draws have the form of the law, so they are convex if it is, and their optima lie near that of their mean.
    offered = search.best_under(formulas, convex=point.convex, start=point.weights) if draws else point
    under_other = named(law.domains, search.best_under([formula], other).weights)
    optima = search.optima_of(formulas, offered)
    entry = replace(
        FittedMixture.of(offered, law.domains, weight_intervals(draws, objective, optima, budget) if draws else None),
        objective_value=float(objective(law.predict(offered.weights * budget))),
        converged=point.converged and offered.converged,
        convex=point.convex,
        point_weights=named(law.domains, point.weights),
        losses=named(law.validation_domains, law.predict(offered.weights * budget)),
        loss_weights=under_other if other == "loss" else None,
        perplexity_weights=under_other if other == "perplexity" else None,
    )
    if not draws:
        return entry
    losses = Ensemble(draws).predict(offered.weights * budget)  # (D, V)
    values, uniform = objective(losses), np.full(len(law.domains), 1 / len(law.domains))
    references = {"uniform": uniform, "base": base}
    gains = {
        name: gain_over(objective_draws(draws, objective, weights, budget), values)
        for name, weights in references.items()
    }
    useful: list[NextRun] = []
    risk = None
    if candidates is not None and draws_of and request.num_next_runs:
        best = [offered.weights, *(optimum.weights for optimum in optima)]
        differences = differences_at(draws, objective, [uniform, *best], budget)
        if runs := candidates.with_mixtures(best):
            useful, risk = propose_runs(draws_of, runs, differences, request.num_next_runs, candidates.table.runs)
        else:
            log.warning("no proxy run is proposed: at next_scales each repeats a text more than %d times", MOST_EPOCHS)
    low, median, high = np.quantile(values, MIDDLE_AND_ENDS).tolist()
    return replace(
        entry,
        objective_value=median,
        loss_intervals=dict(zip(law.validation_domains, np.quantile(losses, INTERVAL, axis=0).T.tolist(), strict=True)),
        objective_interval=(low, high),
        gains=gains,
        verdict=verdict(gains["uniform"], "uniform", useful, risk),
        next_runs=useful,
        risk=risk,
    )


@dataclass(frozen=True)
class _Search:
    """The search for mixtures at a budget, under a law or its draws."""

    law: LossLaw
    budget: int
    request: Request

    @cached_property
    def drawn(self) -> DrawnMixtures:
        """The mixtures to choose from under a law without slopes."""
        return draw_mixtures(self.law, self.budget, self.request.constraints, self.request.prior)

    def best_under(self, laws: Sequence[LossLaw], metric: str | None = None, **search: Any) -> MixtureOptimum:
        """Finds the mixture with the best mean objective over laws; `metric` replaces that of the objective."""
        request = self.request
        objective = replace(request.objective, metric=metric or request.objective.metric)
        sought = objective if objective.aggregate == "mean" else WorstCase(objective.metric)
        try:
            return expected_optimum(
                laws,
                sought,
                self.budget,
                request.constraints,
                kl_weight=request.kl_weight,
                prior=request.prior,
                **search,
            )
        except NotImplementedError:  # a law without slopes
            if request.kl_weight:
                raise UserError(
                    f"objective.kl_weight needs a law with slopes, but law={self.law.name} has none; choose another law"
                ) from None
            return self.drawn.optimum(objective)

    def optima_of(self, formulas: Sequence[LossLaw], offered: MixtureOptimum) -> list[MixtureOptimum]:
        """Finds the optimum of each draw's formula, starting from the mixture `offered`."""
        progress, optima = Progress(log, f"mixture for {short_label(self.budget)} tokens"), []
        for number, draw in enumerate(formulas, 1):
            optima.append(self.best_under([draw], convex=offered.convex, start=offered.weights, accuracy=DRAW_ACCURACY))
            progress.tell(f"draw {number} of {len(formulas)}")
        return optima


def weight_intervals(
    draws: Sequence[LossLaw], objective: Objective, optima: Sequence[Optimum], budget: float
) -> FloatArray:
    """Returns the (2, K) ends of the 90 % intervals of the draws' optima.

    A draw with its discrepancy is not convex. Its optimum is the one that is best for it among the optima of all draws'
    formulas.
    """
    weights = np.stack([optimum.weights for optimum in optima])
    chosen = objective(Ensemble(draws).predict(weights * budget)).argmin(axis=1)
    return np.quantile(weights[chosen], INTERVAL, axis=0)
