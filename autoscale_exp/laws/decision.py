"""What to train on, given what the runs leave open: the mixture, its gain with an interval, a plain verdict.

A fitted law comes with draws of its parameters. The mixture offered has the best objective on average over the draws,
not under the point estimate: where the runs say little, draws disagree and their mean is flat, so it stays moderate.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.autoscale.ddo import find_design
from autoscale_exp.laws.backtest import backtest
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture, Gain, Response, named
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import METRICS, Objective
from autoscale_exp.laws.optimum import Optimum
from autoscale_exp.laws.request import Request
from autoscale_exp.laws.solver.mixture_optimum import MixtureOptimum, WorstCase, expected_optimum
from autoscale_exp.laws.solver.sampled_optimum import sampled_optimum
from autoscale_exp.runs.table import RunTable, scales_of

INTERVAL = (0.05, 0.95)  # 90 %
SURE = 0.95  # probability from which a mixture is called better


def decide(law: LossLaw, table: RunTable, request: Request) -> Fit:
    """The mixtures that a law of losses offers at every scale of its runs and at every target."""
    draws = law.draws(request.num_draws, np.random.default_rng(request.seed)) if request.num_draws else []
    groups = scales_of(table)
    totals = table.domain_tokens.sum(axis=1)
    base = (table.domain_tokens / totals[:, None])[groups[-1]].mean(axis=0)
    budgets = [round(float(np.median(totals[rows]))) for rows in groups]
    tested = backtest(law.name, table, request.objective)
    scales = [
        decide_at(law, draws, budget, base, request).with_runs(len(rows))
        for budget, rows in zip(budgets, groups, strict=True)
    ]
    residuals = request.objective(law.predict(table.domain_tokens)) - request.objective(table.losses)
    return Fit(
        law=law.name,
        objective=FitObjective.of(request.objective, law.validation_domains),
        domains=law.domains,
        scales=scales,
        targets=[decide_at(law, draws, budget, base, request) for budget in request.targets],
        diagnostics=Diagnostics(
            **law.diagnostics,
            num_runs=len(table.runs),
            base_mixture=named(table.domains, base),
            residual=float(residuals.std()),
            run_noise=named(table.validation_domains, law.run_noise),
            backtest=tested,
            responses=_responses(law, table, groups, request.objective),
        ),
    )


def decide_at(law: LossLaw, draws: Sequence[LossLaw], budget: int, base: FloatArray, request: Request) -> FittedMixture:
    """The mixture offered at a budget; `base` (K,) is the mixture that proxy runs vary."""
    objective = request.objective

    def best_under(laws: Sequence[LossLaw], metric: str = objective.metric) -> MixtureOptimum:
        sought = replace(objective, metric=metric) if objective.aggregate == "mean" else WorstCase(metric)
        try:
            return expected_optimum(
                laws, sought, budget, request.constraints, kl_weight=request.kl_weight, prior=request.prior
            )
        except NotImplementedError:  # a law without slopes
            if request.kl_weight:
                raise UserError(f"objective.kl_weight needs a law with slopes, which law={law.name} has not") from None
            return sampled_optimum(law, replace(objective, metric=metric), budget, request.constraints)

    point, other = best_under([law]), METRICS[1 - METRICS.index(objective.metric)]
    offered = best_under(draws) if draws else point
    optima = [best_under([draw]) for draw in draws]
    under_other = named(law.domains, best_under([law], other).weights)
    entry = replace(
        FittedMixture.of(offered, law.domains, weight_intervals(optima) if draws else None),
        converged=point.converged and offered.converged,
        convex=point.convex,
        point_weights=named(law.domains, point.weights),
        losses=named(law.validation_domains, law.predict(offered.weights * budget)),
        loss_weights=under_other if other == "loss" else None,
        perplexity_weights=under_other if other == "perplexity" else None,
    )
    if not draws:
        return entry
    values = objective_draws(draws, objective, offered.weights, budget)
    references = {"uniform": np.full(len(law.domains), 1 / len(law.domains)), "base": base}
    under = {name: objective_draws(draws, objective, weights, budget) for name, weights in references.items()}
    gains = {name: gain_over(draws_of, values) for name, draws_of in under.items()}
    useful = useful_runs(draws, objective, base, budget, under["uniform"] - values)
    low, high = np.quantile(values, INTERVAL).tolist()
    sentence = verdict(gains["uniform"], "uniform", useful)
    return replace(entry, objective_interval=(low, high), gains=gains, verdict=sentence)


def objective_draws(draws: Sequence[LossLaw], objective: Objective, weights: FloatArray, budget: float) -> FloatArray:
    """(D,) objective of one mixture under each draw."""
    return np.array([float(objective(draw.predict(weights * budget))) for draw in draws])


def gain_over(reference: FloatArray, mixture: FloatArray) -> Gain:
    """The gain of a mixture from (D,) objectives of it and of a reference under the same draws."""
    gains = reference - mixture
    low, high = np.quantile(gains, INTERVAL)
    mean = float(gains.mean())
    return Gain(mean, (float(low), float(high)), float((gains > 0).mean()), mean / float(reference.mean()))


def verdict(gain: Gain, reference: str, useful: Sequence[str]) -> str:
    """A sentence for whoever decides.

    Args:
        gain: of the mixture offered.
        reference: what it is over.
        useful: names of the proxy runs that would tell most.
    """
    low, high = gain.interval
    if gain.probability >= SURE and low > 0:
        return (
            f"better than {reference} by {gain.mean:.4f} ({gain.relative:.1%}), 90 % interval {low:.4f} to {high:.4f}; "
            f"the probability of being better is {gain.probability:.0%}"
        )
    text = (
        f"cannot be told apart from {reference} with these runs: the gain is {gain.mean:.4f} ({gain.relative:.1%}), "
        f"90 % interval {low:.4f} to {high:.4f}"
    )
    return f"{text}; the most useful next proxy runs are {', '.join(useful)}" if useful else text


def useful_runs(
    draws: Sequence[LossLaw],
    objective: Objective,
    base_weights: FloatArray,
    budget: float,
    gains: FloatArray,
    *,
    factor: float = 3.0,
    count: int = 3,
) -> list[str]:
    """The proxy runs that would narrow the gain most, best first.

    For each domain times and divided by `factor` at `budget`, the share of the gain's variance over draws that the
    proxy run's difference from the base, measured with the law's noise, would explain:
    cov(gain, y)^2 / (var(gain) (var(y) + 2 noise^2)).

    Args:
        draws: of the law.
        objective: what is minimised.
        base_weights: (K,) mixture that the proxy runs vary.
        budget: tokens of the base run.
        gains: (D,) gain of the mixture offered under each draw.
        factor: on one domain's tokens.
        count: how many to name.
    """
    law = draws[0]
    base = base_weights * budget
    slopes = 1.0 if objective.metric == "loss" else np.exp(law.predict(base))  # of the objective by each loss
    noise = float(np.linalg.norm(objective.weights * slopes * law.run_noise))
    base_outcomes = objective_draws(draws, objective, base_weights, budget)
    scored = []
    for index, domain in enumerate(law.domains):
        for name, change in ((f"{domain} x{factor:g}", factor), (f"{domain} x1/{factor:g}", 1 / factor)):
            tokens = base.copy()
            tokens[index] *= change
            outcomes = np.array([float(objective(draw.predict(tokens))) for draw in draws]) - base_outcomes
            covariance = float(np.mean((outcomes - outcomes.mean()) * (gains - gains.mean())))
            explained = covariance**2 / (gains.var() * (outcomes.var() + 2 * noise**2) + 1e-300)
            scored.append((explained, name))
    return [name for _, name in sorted(scored, key=lambda item: -item[0])[:count]]


def weight_intervals(optima: Sequence[Optimum]) -> FloatArray:
    """(2, K) ends of the 90 % intervals of the draws' own optima."""
    return np.quantile([optimum.weights for optimum in optima], INTERVAL, axis=0)


def _responses(
    law: LossLaw, table: RunTable, groups: Sequence[Int64Array], objective: Objective
) -> list[list[Response]]:
    """Per scale and domain the proxy runs' points and the law's curve; empty where the runs hold no DDO design."""
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
            of_scale.append(Response.of(domain, sorted(points), curve))
        responses.append(of_scale)
    return responses
