"""From a run table, or known optima, to the content of fit.json and law.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from autoscale_exp.laws.autoscale import ScalePath
from autoscale_exp.laws.backtest import backtest
from autoscale_exp.laws.ddo import DdoLaw, find_design, fit_ddo, law_content
from autoscale_exp.laws.decision import gain_over, objective_draws, useful_probes, verdict, weight_intervals
from autoscale_exp.laws.law import Law, fit_law
from autoscale_exp.laws.objective import METRICS, Objective
from autoscale_exp.laws.optimum import Bounds, Optimum
from autoscale_exp.laws.resampling import Intervals, resampled_intervals
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.laws.solver.mixture_optimum import MixtureOptimum, WorstCase, expected_optimum
from autoscale_exp.laws.solver.sampled_optimum import sampled_optimum
from autoscale_exp.mixture.allocation import FloatArray, Int64Array
from autoscale_exp.runs.design import budget_label
from autoscale_exp.runs.record import RunTable, scales_of

Content = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is asked of a fit.

    Attributes:
        targets: token budgets to find mixtures for.
        objective: what is minimised.
        constraints: what every mixture must meet.
        kl_weight: times the divergence from `prior`, added to the objective.
        prior: (K,) weights; None for equal ones.
        num_draws: behind intervals; 0 for none.
        seed: of the draws.
    """

    targets: Sequence[int]
    objective: Objective
    constraints: Constraints
    kl_weight: float = 0.0
    prior: FloatArray | None = None
    num_draws: int = 100
    seed: int = 0


def solve_law(name: str, table: RunTable, request: Request) -> tuple[Content, Content]:
    """Fits a law that predicts losses, and decides at every scale and target.

    Returns:
        The content of fit.json and of law.json.
    """
    law = fit_law(name, table)
    draws = law.draws(request.num_draws, np.random.default_rng(request.seed)) if request.num_draws else []
    groups = scales_of(table)
    totals = table.domain_tokens.sum(axis=1)
    base = (table.domain_tokens / totals[:, None])[groups[-1]].mean(axis=0)
    budgets = [round(float(np.median(totals[rows]))) for rows in groups]
    tested = backtest(name, table, request.objective)
    content = _head(name, table, request)
    content["scales"] = [
        _decide(law, draws, budget, base, request) | {"runs": len(rows)}
        for budget, rows in zip(budgets, groups, strict=True)
    ]
    content["targets"] = [_decide(law, draws, budget, base, request) for budget in request.targets]
    residuals = request.objective(law.predict(table.domain_tokens)) - request.objective(table.losses)
    content["diagnostics"] = law.diagnostics | {
        "num_runs": len(table.runs),
        "base_mixture": _named(table.domains, base),
        "residual": float(residuals.std()),
        "run_noise": _named(table.validation_domains, law.run_noise),
        "backtest": tested.content() if tested else None,
        "responses": _law_responses(law, table, groups, request.objective),
    }
    return content, law.content()


def _decide(law: Law, draws: Sequence[Law], budget: int, base: FloatArray, request: Request) -> Content:
    """An entry of fit.json: the mixture offered at a budget and what is known of it."""
    objective = request.objective

    def best_under(laws: Sequence[Law], metric: str = objective.metric) -> MixtureOptimum:
        sought = replace(objective, metric=metric) if objective.aggregate == "mean" else WorstCase(metric)
        try:
            return expected_optimum(
                laws, sought, budget, request.constraints, kl_weight=request.kl_weight, prior=request.prior
            )
        except NotImplementedError:  # a law without slopes
            if request.kl_weight:
                raise ValueError(f"objective.kl_weight needs a law with slopes, which law={law.name} has not") from None
            return sampled_optimum(law, replace(objective, metric=metric), budget, request.constraints)

    point, other = best_under([law]), METRICS[1 - METRICS.index(objective.metric)]
    entry: Content = {
        "converged": point.converged,
        "convex": point.convex,
        "point_weights": _named(law.domains, point.weights),
        f"{other}_weights": _named(law.domains, best_under([law], other).weights),
    }
    if not draws:
        losses = _named(law.validation_domains, law.predict(point.weights * budget))
        return describe(point, law.domains, None) | entry | {"losses": losses, "gains": None, "verdict": None}
    offered, optima = best_under(draws), [best_under([draw]) for draw in draws]
    entry["converged"] = point.converged and offered.converged
    values = objective_draws(draws, objective, offered.weights, budget)
    references = {"uniform": np.full(len(law.domains), 1 / len(law.domains)), "base": base}
    under = {name: objective_draws(draws, objective, weights, budget) for name, weights in references.items()}
    gains = {name: gain_over(draws_of, values) for name, draws_of in under.items()}
    useful = useful_probes(draws, objective, base, budget, under["uniform"] - values)
    return (
        describe(offered, law.domains, weight_intervals(optima))
        | entry
        | {
            "objective_interval": np.quantile(values, (0.05, 0.95)).tolist(),
            "losses": _named(law.validation_domains, law.predict(offered.weights * budget)),
            "gains": {name: gain.content() for name, gain in gains.items()},
            "verdict": verdict(gains["uniform"], "uniform", useful),
        }
    )


def solve_ddo(table: RunTable, request: Request) -> tuple[Content, Content]:
    """Fits the published law, DDO at every scale, and extrapolates its optima.

    Returns:
        The content of fit.json and of law.json.
    """
    bounds = _bounds_alone(request)
    law = fit_ddo(table, request.objective, bounds)
    path = law.path() if request.targets else None
    intervals = resampled_intervals(
        table, request.objective, bounds, list(request.targets), num_resamples=request.num_draws, seed=request.seed
    )
    content = _head("ddo", table, request)
    content["scales"] = [
        describe(law.scale_optimum(scale), table.domains, intervals.scales[i] if intervals else None)
        | {"runs": len(law.rows[i])}
        for i, scale in enumerate(law.scales)
    ]
    content["targets"] = [
        describe(path.optimum(budget), table.domains, intervals.targets[i] if intervals else None)
        for i, budget in enumerate(request.targets)
        if path
    ]
    content["diagnostics"] = _ddo_diagnostics(table, law, path, intervals)
    return content, law_content(law)


def solve_optima(
    domains: list[str], budgets: Sequence[int], weights: FloatArray, bounds: Bounds, targets: Sequence[int]
) -> tuple[Content, Content]:
    """Extrapolates known optima.

    Returns:
        The content of fit.json and of law.json.
    """
    path = ScalePath.through(budgets, list(weights), domains, bounds)
    known = [
        Optimum(budgets[i], weights[i], bounds.describe(weights[i], domains), "given") for i in np.argsort(budgets)
    ]
    content = {
        "law": "autoscale_path",
        "objective": {"name": "that of the given optima", "metric": None, "weights": None},
        "domains": domains,
        "scales": [describe(optimum, domains, None) for optimum in known],
        "targets": [describe(path.optimum(budget), domains, None) for budget in targets],
        "diagnostics": {"path_residual": path.residual, "notes": []},
    }
    described = {"intercept": path.intercept.tolist(), "slope": path.slope.tolist()}
    return content, {"law": "autoscale_path", "domains": domains, "budgets": path.budgets} | described


def describe(optimum: Optimum, domains: list[str], interval: FloatArray | None) -> Content:
    """An optimum as an entry of fit.json. `interval` is (2, K), or None where nothing is known of the noise."""
    return {
        "tokens": optimum.tokens,
        "weights": _named(domains, optimum.weights),
        "domain_tokens": _named(domains, optimum.weights * optimum.tokens),
        "objective_value": optimum.objective_value,
        "active_bounds": optimum.active_bounds,
        "interval": None if interval is None else dict(zip(domains, interval.T.tolist(), strict=True)),
        "method": optimum.method,
        "kkt_residual": optimum.kkt_residual,
    }


def _head(name: str, table: RunTable, request: Request) -> Content:
    objective = request.objective
    weights = _named(table.validation_domains, objective.weights)
    return {
        "law": name,
        "objective": {
            "name": objective.name,
            "metric": objective.metric,
            "aggregate": objective.aggregate,
            "weights": weights,
        },
        "domains": table.domains,
    }


def _bounds_alone(request: Request) -> Bounds:
    """The bounds of a request that asks for nothing else, which is all that the published law can meet."""
    constraints = request.constraints
    asked = {
        "bounds.max_epochs": constraints.unique_tokens is not None,
        "bounds.groups": bool(constraints.groups),
        "objective.kl_weight": request.kl_weight > 0,
        "objective.no_worse_than_uniform": constraints.no_worse_than is not None,
    }
    for key, is_asked in asked.items():
        if is_asked:
            raise ValueError(f"law=ddo knows no {key}: it predicts no losses off its probes; choose law=default")
    return constraints.bounds


def _ddo_diagnostics(table: RunTable, law: DdoLaw, path: ScalePath | None, intervals: Intervals | None) -> Content:
    notes = [f"{budget_label(scale.tokens)}: {note}" for scale in law.scales for note in scale.notes]
    if intervals is None:
        notes.append("no run is repeated with another seed, so the noise is unknown and there are no intervals")
    elif intervals.failed:
        notes.append(f"{intervals.failed} of {intervals.num_resamples} resamples had no extrapolation")
    return {
        "num_runs": len(table.runs),
        "seed_noise": intervals.noise if intervals else None,
        "path_residual": path.residual if path else None,
        "responses": _ddo_responses(law),
        "notes": notes,
    }


def _ddo_responses(law: DdoLaw) -> list[list[Content]]:
    """Per scale and domain the probes' points and the fitted curve, and its parameters."""
    return [
        [
            _response(domain, scale.points[i], partial(scale.response, i))
            | {"offset": float(scale.offset[i]), "exponent": float(scale.exponent[i]), "floor": float(scale.floor[i])}
            | {"residual": float(scale.residual[i])}
            for i, domain in enumerate(law.domains)
        ]
        for scale in law.scales
    ]


def _law_responses(
    law: Law, table: RunTable, groups: Sequence[Int64Array], objective: Objective
) -> list[list[Content]]:
    """The same for a law of losses, where the runs hold a DDO design; empty where they do not."""
    responses = []
    for rows in groups:
        base, varied = find_design(table, rows)
        if not all(varied):
            return []
        base_tokens, level = table.domain_tokens[base[0]], float(objective(table.losses[base]).mean())
        of_scale = []
        for i, domain in enumerate(law.domains):

            def curve(
                x: FloatArray, base_tokens: FloatArray = base_tokens, level: float = level, i: int = i
            ) -> FloatArray:
                tokens = np.tile(base_tokens, (len(x), 1))
                tokens[:, i] *= x
                return objective(law.predict(tokens)) / level

            points = [
                (float(table.domain_tokens[r, i] / base_tokens[i]), float(objective(table.losses[r]) / level))
                for r in [*base, *varied[i]]
            ]
            of_scale.append(_response(domain, sorted(points), curve))
        responses.append(of_scale)
    return responses


def _response(domain: str, points: Sequence[tuple[float, float]], curve: Callable[[FloatArray], FloatArray]) -> Content:
    """Points are multiples of the base run's tokens of the domain, and the objective over the base run's."""
    multiples = [x for x, _ in points]
    x = np.geomspace(min(multiples) / 1.3, max(multiples) * 1.3, 40)
    return {"domain": domain, "points": points, "curve": np.stack([x, curve(x)], axis=1).tolist()}


def _named(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
