"""What to know of a fit of the pooled transfer law before trusting its numbers."""

from typing import Any

import numpy as np

from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.pooled.pooling import PooledFit
from autoscale_exp.laws.pooled.priors import Scalar
from autoscale_exp.runs.table import RunTable

# Budgets that differ by a factor of less than e^.3 = 1.35 do not tell how losses fall with the budget.
SMALLEST_LOG_RANGE = 0.3
FAR = 3.0  # a parameter this many spreads from its population's mean gets a note
NUM_FAR_NOTES = 5


def diagnose(table: RunTable, fit: PooledFit) -> dict[str, Any]:
    """Makes `PooledTransferLaw.diagnostics`."""
    log_total = np.log(table.domain_tokens.sum(axis=1))
    identified = bool(np.ptp(log_total) > SMALLEST_LOG_RANGE)
    notes = []
    if not fit.converged:
        notes.append("The fit did not converge; its predictions and intervals may be off.")
    if not identified:
        notes.append(
            "All runs have about the same token budget, so scale is not identified: levels at other budgets come from "
            "the priors."
        )
    for domain, tokens in zip(table.domains, table.domain_tokens.T, strict=True):
        if tokens.min() == tokens.max():
            amount = f"{tokens[0]:,.0f} tokens" if tokens[0] > 0 else "no tokens"
            notes.append(f"All runs have {amount} of '{domain}', so its effect comes from the priors.")
    return {
        "converged": fit.converged,
        "num_params": int(fit.theta.size),
        "notes": notes + _far_from_populations(table, fit),
        "scale_identified": identified,
        "shared_noise": fit.noise.shared,
        "noise_exponent": fit.noise.exponent,
    }


def _far_from_populations(table: RunTable, fit: PooledFit) -> list[str]:
    """Notes on the parameters that are most spreads away from the means of their populations."""
    distance = np.abs(fit.theta - fit.mean) / fit.spread
    names = [scalar.name.lower() for scalar in Scalar]
    names += [f"specific weight of '{domain}'" for domain in table.domains]
    names += [f"generic weight of '{domain}'" for domain in table.domains]
    names += [f"size_{size.name.lower()}" for size in Size]
    far = [np.unravel_index(flat, distance.shape) for flat in np.argsort(-distance, axis=None)]
    far = [index for index in far if distance[index] > FAR]
    notes = [
        f"Validation domain '{table.validation_domains[v]}': its {names[p].replace('_', ' ')} is {distance[v, p]:.1f} "
        "spreads from its population, further than the prior allows for."
        for v, p in far[:NUM_FAR_NOTES]
    ]
    if len(far) > NUM_FAR_NOTES:
        notes.append(f"{len(far) - NUM_FAR_NOTES} more parameters are more than {FAR:g} spreads from theirs.")
    return notes
