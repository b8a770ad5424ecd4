"""From a table of runs, or known optima, to a fit. Laws of losses and AutoScale take different ways."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.autoscale.law import AutoscaleLaw
from autoscale_exp.laws.autoscale.path import ScalePath
from autoscale_exp.laws.autoscale.solution import solve_with_autoscale
from autoscale_exp.laws.decision import decide, gather_evidence
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, FittedMixture
from autoscale_exp.laws.law import Law, fit_law, predicts_losses
from autoscale_exp.laws.optimum import Bounds, Optimum
from autoscale_exp.laws.request import Request
from autoscale_exp.runs.table import RunTable

log = logging.getLogger(__name__)


def solve(name: str, table: RunTable, request: Request) -> tuple[Fit, Law]:
    """Fits a law to runs, and finds the mixture at every scale and target.

    Raises:
        UserError: the runs do not suit the law, or the request cannot be met; the message says why.
    """
    (fit,), law = solve_each(name, table, [request])
    return fit, law


def solve_each(name: str, table: RunTable, requests: Sequence[Request]) -> tuple[list[Fit], Law]:
    """Fits a law to runs once, and answers several requests with it. These may differ in their objective only.

    Runs that do not tell of their text are taken to have seen the text of the requests.

    Raises:
        UserError: as in `solve`.
    """
    log.info("fitting law %s to %d runs of %d domains", name, len(table.runs), len(table.domains))
    text = requests[0].unique_tokens
    if text is not None and table.pool_tokens is None:
        table = replace(table, pool_tokens=np.tile(text, (len(table.runs), 1)))
    law = fit_law(name, table)
    if predicts_losses(law):
        law = law if text is None else law.with_text(text.tolist())
        evidence = gather_evidence(law, table, requests[0])
        return [decide(evidence, request) for request in requests], law
    assert isinstance(law, AutoscaleLaw)
    if requests[0].params is not None:
        raise UserError(
            f"target_params is {requests[0].params}, but law.name={name} takes no model sizes; choose another law"
        )
    fits = []
    for request in requests:
        log.info("objective %s: mixtures, each with %d resamples", request.objective.name, request.num_draws)
        fits.append(solve_with_autoscale(law, request))
    return fits, law


def solve_optima(
    domains: list[str], budgets: Sequence[int], weights: FloatArray, bounds: Bounds, targets: Sequence[int]
) -> tuple[Fit, dict[str, Any]]:
    """Extrapolates known optima by AutoScale's second stage.

    Args:
        domains: (K,) names.
        budgets: (S,) token budgets of the optima.
        weights: (S, K) domain weights of the optima.
        bounds: limits on the weights.
        targets: token budgets to find mixtures for.

    Returns:
        The fit, and the content of law.json.
    """
    path = ScalePath.through(budgets, list(weights), domains, bounds)
    known = [
        Optimum(budgets[i], weights[i], bounds.describe(weights[i], domains), "given") for i in np.argsort(budgets)
    ]
    fit = Fit(
        law="autoscale_path",
        objective=FitObjective("that of the given optima", metric=None, weights=None),
        domains=domains,
        scales=[FittedMixture.of(optimum, domains) for optimum in known],
        targets=[FittedMixture.of(path.optimum(budget), domains) for budget in targets],
        diagnostics=Diagnostics(notes=[], path_residual=path.residual),
    )
    described = {"intercept": path.intercept.tolist(), "slope": path.slope.tolist()}
    return fit, {"law": fit.law, "domains": domains, "budgets": path.budgets} | described
