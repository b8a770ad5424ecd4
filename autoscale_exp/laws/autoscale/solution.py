"""AutoScale's answer to a request: DDO's optimum at each scale, and at each target the path through these optima."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.autoscale.law import AutoscaleFit, AutoscaleLaw, seed_residuals
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture, Response
from autoscale_exp.laws.gains import INTERVAL
from autoscale_exp.laws.optimum import Bounds
from autoscale_exp.laws.request import Request
from autoscale_exp.runs.table import scales_of


def solve_with_autoscale(law: AutoscaleLaw, request: Request) -> Fit:
    """Finds the mixtures at every scale and target, with intervals if some run is repeated.

    Raises:
        UserError: the published method cannot do what is asked, or nothing can be extrapolated.
    """
    bounds = bounds_alone(request)
    fitted = law.responses(request.objective, bounds)
    path = fitted.path() if request.targets else None
    draws = law.draws(request.num_draws, np.random.default_rng(request.seed))
    intervals, failed = _intervals(draws, bounds, request)
    optima = [fitted.scale_optimum(scale) for scale in fitted.scales]
    optima += [path.optimum(budget) for budget in request.targets] if path else []
    entries = [
        FittedMixture.of(optimum, law.domains, intervals[i] if intervals else None) for i, optimum in enumerate(optima)
    ]
    num_scales = len(fitted.scales)
    runs = [len(rows) for rows in scales_of(law.table)]
    return Fit(
        law=law.name,
        objective=FitObjective.of(request.objective, law.validation_domains),
        domains=law.domains,
        scales=[entry.with_runs(count) for entry, count in zip(entries[:num_scales], runs, strict=True)],
        targets=entries[num_scales:],
        diagnostics=Diagnostics(
            notes=_notes(law, fitted, failed, len(draws)),
            num_runs=len(law.table.runs),
            seed_noise=_seed_noise(law, request) if intervals else None,
            path_residual=path.residual if path else None,
            responses=_responses(fitted),
        ),
    )


def bounds_alone(request: Request) -> Bounds:
    """Returns the bounds of a request. They are the only constraints that the published method can meet.

    Raises:
        UserError: the request has other constraints, or a prior.
    """
    constraints = request.constraints
    asked = {
        "bounds.max_epochs": constraints.unique_tokens is not None,
        "bounds.unique_tokens": request.unique_tokens is not None,
        "bounds.groups": bool(constraints.groups),
        "objective.kl_weight": request.kl_weight > 0,
        "objective.no_worse_than_uniform": constraints.no_worse_than is not None,
    }
    for key, is_asked in asked.items():
        if is_asked:
            raise UserError(f"law=autoscale knows no {key}: it predicts no losses off its proxy runs; use law=default")
    return constraints.bounds


def _intervals(draws: Sequence[AutoscaleLaw], bounds: Bounds, request: Request) -> tuple[list[FloatArray], int]:
    """Finds the (2, K) ends of 90 % intervals of weights per scale and target, and how many draws had no path.

    There are no intervals without draws, or if none of them has a path.
    """
    weights, failed = [], 0
    for draw in draws:
        try:
            fitted = draw.responses(request.objective, bounds)
            optima = [fitted.scale_optimum(scale).weights for scale in fitted.scales]
            if request.targets:
                path = fitted.path()
                optima += [path.optimum(budget).weights for budget in request.targets]
            weights.append(optima)
        except UserError:
            failed += 1
    return [np.quantile(np.array(of_entry), INTERVAL, axis=0) for of_entry in zip(*weights, strict=True)], failed


def _seed_noise(law: AutoscaleLaw, request: Request) -> float:
    """Standard deviation of the objective over seeds."""
    values = request.objective(law.table.losses.mean(axis=0) + seed_residuals(law.table))
    return float(np.std(values, ddof=0))


def _notes(law: AutoscaleLaw, fitted: AutoscaleFit, failed: int, num_draws: int) -> list[str]:
    notes = [f"{short_label(scale.tokens)}: {note}" for scale in fitted.scales for note in scale.notes]
    notes += [f"{note} and there are no intervals" for note in law.diagnostics["notes"]]
    if failed:
        notes.append(f"{failed} of {num_draws} resamples had no extrapolation")
    return notes


def _responses(fitted: AutoscaleFit) -> list[list[Response]]:
    """Makes a response per scale and domain: the proxy runs' points, the fitted curve and its parameters."""
    return [
        [
            Response.of(
                domain,
                scale.points[i],
                partial(scale.response, i),
                offset=float(scale.offset[i]),
                exponent=float(scale.exponent[i]),
                floor=float(scale.floor[i]),
                residual=float(scale.residual[i]),
            )
            for i, domain in enumerate(fitted.domains)
        ]
        for scale in fitted.scales
    ]
