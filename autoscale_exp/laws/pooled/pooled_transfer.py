"""The project's default law: own-kind and other text substitute imperfectly, what any text teaches comes on top.

    L_v(n) = E_v + A_v S_v(n)^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v)

with effective data S and G concave in domain tokens (see pooled_formula), so that L, exp(L) and all their positive
means are convex. Validation domains lend each other strength through populations of parameters (see populations); the
fit is robust and yields draws of all parameters (see pooling).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.pooled.formula import Formula, Scalar
from autoscale_exp.laws.pooled.pooling import PooledFit, fit_pooled
from autoscale_exp.runs.table import RunTable

NAME = "pooled_transfer"
FEWEST_RUNS = 4
# No model that guesses evenly among 256,000 tokens, about the largest vocabulary in use, has a higher loss.
GUESSING = 12.5
# The highest prediction over the largest loss of any run, should that be near GUESSING: away from where runs lie, where
# the law has to stay convex.
ABOVE_RUNS = 1.5
# Small runs whose tokens are the unit of the generic term: not the very smallest, which may be an odd one out.
SMALL_QUANTILE = 0.05
# Budgets spread over less than e^.3 = 1.35 do not tell how losses fall with the budget.
SMALLEST_LOG_RANGE = 0.3
FAR = 3.0  # spreads of its population, beyond which a parameter is worth a note
NUM_FAR_NOTES = 5
DRAW_DIGITS = 5  # decimals of drawn parameters, that law.json stays small; in memory too, so that reading is exact


@dataclass(frozen=True)
class PooledTransferLaw:
    """The pooled transfer law with fitted parameters.

    Attributes:
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        formula: with its units.
        theta: (V, P) parameters.
        posterior: (D, V, P) parameters drawn from what the runs leave open.
        ceiling: the highest loss predicted, nats: the formula grows beyond all measure where next to no tokens are
            left. The law is convex where it stays below.
        run_noise: (V,) standard deviation of a single run's losses about the law, on average over the runs fitted to.
        diagnostics: "converged", "num_params", "notes"; "scale_identified": whether the runs tell how losses fall with
            the budget; "shared_noise": correlation of a run's deviations; "noise_exponent": noise goes as the budget to
            this power.
    """

    domains: list[str]
    validation_domains: list[str]
    formula: Formula
    theta: FloatArray
    posterior: FloatArray
    ceiling: float
    run_noise: FloatArray
    diagnostics: dict[str, Any]
    name: str = NAME

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> "PooledTransferLaw":
        """Fits the law to all runs of a table.

        Args:
            table: R >= 4 runs, of one token budget or several; designs and repeats as they come.
            own: (V,) index of each validation domain's own training domain, or -1.

        Raises:
            UserError: fewer than four runs, a loss that is not above 0, a run without tokens, or a wrong `own`.
        """
        own = np.asarray(own)
        _check(table, own)
        totals = table.domain_tokens.sum(axis=1)
        reference = float(np.median(totals))
        unit = float(np.log(reference / np.quantile(totals, SMALL_QUANTILE)))
        formula = Formula(own, len(table.domains), reference, unit)
        fit = fit_pooled(formula, table.domain_tokens, table.losses)
        return cls(
            domains=list(table.domains),
            validation_domains=list(table.validation_domains),
            formula=formula,
            theta=fit.theta,
            posterior=_rounded(fit.draws),
            ceiling=max(GUESSING, ABOVE_RUNS * float(table.losses.max())),
            run_noise=fit.noise.run_sd,
            diagnostics=_diagnose(table, formula, fit),
        )

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """(..., V) losses in nats per token of (..., K) domain tokens, at most the ceiling."""
        domain_tokens = np.asarray(domain_tokens, dtype=np.float64)
        points = domain_tokens.reshape(-1, len(self.domains))
        with np.errstate(over="ignore"):  # without tokens, alpha may take it to infinity, and so to the ceiling
            losses = self.formula.terms(self.theta, self.formula.log_tokens(points)).losses
        shape = (*domain_tokens.shape[:-1], len(self.validation_domains))
        return np.minimum(losses, self.ceiling).reshape(shape)

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """(V, K) derivatives of the losses with respect to tokens, at (K,) tokens; those below one count as one."""
        tokens = np.maximum(np.asarray(domain_tokens, dtype=np.float64), 1.0)  # at 0 the slope is infinite
        terms = self.formula.terms(self.theta, self.formula.log_tokens(tokens[None]))
        below = terms.losses[0] < self.ceiling
        return np.where(below[:, None], self.formula.slopes(terms)[:, 0] / tokens, 0.0)

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence["PooledTransferLaw"]:
        """Laws with parameters from the posterior, without repeats up to D; all but the parameters is shared."""
        chosen = rng.choice(len(self.posterior), size=num_draws, replace=num_draws > len(self.posterior))
        return [replace(self, theta=self.posterior[index]) for index in chosen]

    @staticmethod
    def side_by_side(laws: Sequence["PooledTransferLaw"]) -> "PooledTransferLaw":
        """One law whose validation domains are those of all of a law's draws in turn."""
        first = laws[0]
        return replace(
            first,
            validation_domains=first.validation_domains * len(laws),
            formula=replace(first.formula, own=np.tile(first.formula.own, len(laws))),
            theta=np.concatenate([law.theta for law in laws]),
        )

    def content(self) -> dict[str, Any]:
        """Plain JSON from which `from_content` makes the same law again."""
        formula = self.formula
        return {
            "law": NAME,
            "domains": self.domains,
            "validation_domains": self.validation_domains,
            "own": formula.own.tolist(),
            "reference_tokens": formula.reference_tokens,
            "log_generic_unit": formula.log_generic_unit,
            "ceiling": self.ceiling,
            "parameters": _named(formula, self.theta),
            "posterior": _named(formula, self.posterior),
            "run_noise": self.run_noise.tolist(),
            "diagnostics": self.diagnostics,
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "PooledTransferLaw":
        """The law that `content` was made of."""
        own = np.array(content["own"], dtype=np.int64)
        return cls(
            domains=content["domains"],
            validation_domains=content["validation_domains"],
            formula=Formula(own, len(content["domains"]), content["reference_tokens"], content["log_generic_unit"]),
            theta=_unnamed(content["parameters"]),
            posterior=_unnamed(content["posterior"]),
            ceiling=content["ceiling"],
            run_noise=np.array(content["run_noise"]),
            diagnostics=content["diagnostics"],
        )


def _check(table: RunTable, own: Int64Array) -> None:
    num_domains, num_validation = len(table.domains), len(table.validation_domains)
    if len(table.runs) < FEWEST_RUNS:
        raise UserError(
            f"law=pooled_transfer needs at least {FEWEST_RUNS} runs, but the table has {len(table.runs)}; train more"
        )
    if own.shape != (num_validation,) or (own < -1).any() or (own >= num_domains).any():
        raise UserError(
            f"own is {own.tolist()}; it needs an index from 0 to {num_domains - 1}, or -1, for each of the "
            f"{num_validation} validation domains"
        )
    for run, tokens, losses in zip(table.runs, table.domain_tokens, table.losses, strict=True):
        if not np.isfinite(tokens).all() or tokens.min() < 0 or tokens.sum() <= 0:
            raise UserError(f"run '{run}' has domain tokens {tokens.tolist()}; they must be finite and not all 0")
        if not np.isfinite(losses).all() or losses.min() <= 0:
            worst = table.validation_domains[int(np.argmin(np.where(np.isfinite(losses), losses, -np.inf)))]
            raise UserError(f"run '{run}' has a loss of '{worst}' that is not a number above 0; leave the run out")


def _rounded(draws: FloatArray) -> FloatArray:
    """Numbers to DRAW_DIGITS decimals: a parameter is a logarithm or a logit, and known to far less."""
    return np.round(draws, DRAW_DIGITS)


def _named(formula: Formula, theta: FloatArray) -> dict[str, Any]:
    """Parameters (..., V, P) by name, each (..., V), or (..., V, K) of weights."""
    return {
        **{scalar.name.lower(): theta[..., scalar].tolist() for scalar in Scalar},
        "specific_weights": theta[..., formula.specific_weights].tolist(),
        "generic_weights": theta[..., formula.generic_weights].tolist(),
    }


def _unnamed(parameters: dict[str, Any]) -> FloatArray:
    """The parameters (..., V, P) that `_named` named."""
    scalars = [np.array(parameters[scalar.name.lower()])[..., None] for scalar in Scalar]
    weights = [np.array(parameters["specific_weights"]), np.array(parameters["generic_weights"])]
    return np.concatenate([*scalars, *weights], axis=-1)


def _diagnose(table: RunTable, formula: Formula, fit: PooledFit) -> dict[str, Any]:
    """What `PooledTransferLaw.diagnostics` lists."""
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
        "notes": notes + _far_from_populations(table, formula, fit),
        "scale_identified": identified,
        "shared_noise": fit.noise.shared,
        "noise_exponent": fit.noise.exponent,
    }


def _far_from_populations(table: RunTable, formula: Formula, fit: PooledFit) -> list[str]:
    """Notes on the parameters that are furthest from what other validation domains have, in spreads."""
    distance = np.abs(fit.theta - fit.mean) / fit.spread
    names = [scalar.name.lower() for scalar in Scalar]
    names += [f"specific weight of '{domain}'" for domain in table.domains]
    names += [f"generic weight of '{domain}'" for domain in table.domains]
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
