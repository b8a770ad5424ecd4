"""The default law: own and other text substitute imperfectly, and what any text teaches comes on top.

    L_v(n) = E_v + A_v S'_v(n)^(-gamma_v / rho_v) + B_v G_v(n)^(-alpha_v)

The effective data are S', in which own and other text substitute imperfectly, and G, the sum of any text. L, exp(L) and
all their positive means are convex in the tokens of a budget (see formula). Model size enters if the runs have several
sizes (see model_size). Validation domains lend each other strength through populations of parameters (see populations).
The fit is robust and yields draws of all parameters (see pooling). A Gaussian process on top models what the formula
gets wrong (see discrepancy).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.discrepancy import Correction, Discrepancy, discrepancy_of
from autoscale_exp.laws.pooled.diagnostics import diagnose
from autoscale_exp.laws.pooled.formula import Formula
from autoscale_exp.laws.pooled.pooling import SEED, fit_pooled
from autoscale_exp.laws.pooled.populations import prior_sizes
from autoscale_exp.laws.pooled.priors import Scalar
from autoscale_exp.laws.repetition import effective_tokens
from autoscale_exp.laws.student_t import NOISE_SD
from autoscale_exp.runs.table import RunTable, has_sizes

NAME = "pooled_transfer"
FEWEST_RUNS = 4
# Loss of a model that guesses evenly among 256,000 tokens, about the largest vocabulary in use.
GUESSING = 12.5
# Lowest ceiling, in multiples of the largest loss of any run. It matters if that is near GUESSING: the law must stay
# convex, and so below its ceiling, where runs lie.
ABOVE_RUNS = 1.5
# The unit of the generic term is this quantile of the runs' tokens: not the smallest run, which may be an outlier.
SMALL_QUANTILE = 0.05
DRAW_DIGITS = 5  # decimals of drawn parameters, which keep law.json small; also in memory, so that reading is exact


@dataclass(frozen=True)
class PooledTransferLaw:
    """The pooled transfer law with fitted parameters.

    Attributes:
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        formula: the formula, with its units.
        theta: (V, P) parameters.
        drawn: returns (D, V, P) parameters drawn from what the runs leave open; computed at the first call.
        discrepancy: how far off the formula may be.
        correction: added to the losses of the formula; None for the formula alone.
        params: model size that predictions are for; None if the runs do not tell theirs.
        unique_tokens: (K,) tokens of the text that predictions are for; more tokens repeat it. None for endless text.
        ceiling: the highest loss predicted, in nats, as the formula grows without limit where tokens vanish. The law is
            convex below it.
        run_noise: (V,) standard deviation of a single run's losses about the law, on average over the fitted runs.
        diagnostics: "converged", "num_params", "notes"; "scale_identified": whether the runs tell how losses fall with
            the budget; "shared_noise": correlation of a run's deviations; "noise_exponent": noise goes as this power of
            the budget.
    """

    domains: list[str]
    validation_domains: list[str]
    formula: Formula
    theta: FloatArray
    drawn: Callable[[], FloatArray]
    discrepancy: Discrepancy
    correction: Correction | None
    params: float | None
    unique_tokens: list[float] | None
    ceiling: float
    run_noise: FloatArray
    diagnostics: dict[str, Any]
    name: str = NAME

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> "PooledTransferLaw":
        """Fits the law to all runs of a table.

        Args:
            table: R >= 4 runs, of any design, with one token budget or several.
            own: (V,) index of each validation domain's own training domain, or -1.

        Raises:
            UserError: fewer than four runs, a loss that is not above 0, a run without tokens, or a wrong `own`.
        """
        own = np.asarray(own)
        _check(table, own)
        totals = effective_tokens(table.domain_tokens, table.pool_tokens)[0].sum(axis=1)
        reference = float(np.median(totals))
        unit = float(np.log(reference / np.quantile(totals, SMALL_QUANTILE)))
        sizes = table.params if has_sizes(table) else None
        formula = Formula(
            own,
            len(table.domains),
            reference,
            unit,
            None if sizes is None else float(np.exp(np.log(np.unique(sizes)).mean())),
        )
        fit = fit_pooled(formula, table.domain_tokens, table.losses, sizes, table.pool_tokens)
        discrepancy = discrepancy_of(
            table,
            sd=NOISE_SD * fit.noise.sd,
            exponent=fit.noise.exponent,
            weights=fit.noise.weights,
            shared=fit.noise.shared,
            slopes=_budget_slopes(formula, fit.theta, table),
        )
        law = cls(
            domains=list(table.domains),
            validation_domains=list(table.validation_domains),
            formula=formula,
            theta=fit.theta,
            drawn=cache(lambda: _rounded(fit.draws())),
            discrepancy=discrepancy,
            correction=None,
            params=None if table.params is None else float(table.params.max()),
            unique_tokens=None if table.unique_tokens is None else list(map(float, table.unique_tokens)),
            ceiling=max(GUESSING, ABOVE_RUNS * float(table.losses.max())),
            run_noise=fit.noise.run_sd,
            diagnostics=diagnose(table, fit),
        )
        return law.corrected()

    @property
    def posterior(self) -> FloatArray:
        """(D, V, P) parameters drawn from what the runs leave open."""
        return self.drawn()

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns (..., V) losses in nats per token for (..., K) domain tokens, at most the ceiling."""
        domain_tokens = np.asarray(domain_tokens, dtype=np.float64)
        tokens = domain_tokens.reshape(-1, len(self.domains))
        text = None if self.unique_tokens is None else np.array(self.unique_tokens)
        losses = self._formula_losses(tokens, self.params, text)
        if self.correction is not None:
            losses = losses + self.correction(tokens, self.params, text)
        shape = (*domain_tokens.shape[:-1], len(self.validation_domains))
        return np.minimum(losses, self.ceiling).reshape(shape)

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns the (V, K) derivatives of the formula's losses by tokens, at (K,) tokens of at least 1 each.

        Fewer tokens count as 1. The correction is left out, as optima are sought under the formula, which is convex.
        """
        tokens = np.maximum(np.asarray(domain_tokens, dtype=np.float64), 1.0)  # at 0 the slope is infinite
        text = None if self.unique_tokens is None else np.array(self.unique_tokens)
        points = self.formula.points(tokens[None], self.params, text)
        terms = self.formula.terms(self.theta, points)
        below = terms.losses[0] < self.ceiling
        return np.where(below[:, None], self.formula.slopes(terms, points)[:, 0] / tokens, 0.0)

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence["PooledTransferLaw"]:
        """Draws laws with parameters from the posterior and corrections of their own. Up to D, none is repeated."""
        chosen = rng.choice(len(self.posterior), size=num_draws, replace=num_draws > len(self.posterior))
        return [replace(self, theta=self.posterior[i]).corrected(np.random.default_rng((i, SEED))) for i in chosen]

    def corrected(self, rng: np.random.Generator | None = None) -> "PooledTransferLaw":
        """Returns the law with its expected correction or, given `rng`, with a drawn one."""
        runs = self.discrepancy
        predicted = self._formula_losses(runs.domain_tokens, runs.params, runs.pool_tokens)
        predicted = np.minimum(predicted, self.ceiling)
        return replace(self, correction=runs.mean(predicted) if rng is None else runs.draw(predicted, rng))

    def by_formula(self) -> "PooledTransferLaw":
        """Returns the law without its correction. It is convex, and `slopes` are its derivatives."""
        return replace(self, correction=None)

    def at_size(self, params: float, key: str = "target_params") -> "PooledTransferLaw":
        """Returns the law for models with `params` parameters.

        Raises:
            UserError: the runs do not tell the size of their models.
        """
        if self.params is None:
            raise UserError(
                f"{key} is {params:g}, but the run table has no column params; add it, with the parameters of "
                "each run's model"
            )
        if self.formula.reference_params is None and params != self.params:
            return self._with_prior_sizes().at_size(params, key)
        return replace(self, params=float(params))

    def with_text(self, unique_tokens: Sequence[float] | None) -> "PooledTransferLaw":
        """Returns the law for text of (K,) `unique_tokens`, beyond which tokens repeat it; None for endless text."""
        return replace(self, unique_tokens=None if unique_tokens is None else list(unique_tokens))

    def _with_prior_sizes(self) -> "PooledTransferLaw":
        """The law of one size, with terms of size from the priors. Its losses at that size do not change."""
        rng = np.random.default_rng(SEED)
        formula = replace(self.formula, reference_params=self.params)
        likely = prior_sizes(self.theta[None], None)
        drawn = _rounded(prior_sizes(self.posterior, rng))
        return replace(self, formula=formula, theta=likely[0], drawn=lambda: drawn)

    def _formula_losses(
        self, tokens: FloatArray, params: FloatArray | float | None, unique_tokens: FloatArray | None
    ) -> FloatArray:
        with np.errstate(over="ignore"):  # without tokens the generic term may be infinite, and so at the ceiling
            return self.formula.terms(self.theta, self.formula.points(tokens, params, unique_tokens)).losses

    @staticmethod
    def side_by_side(laws: Sequence["PooledTransferLaw"]) -> "PooledTransferLaw":
        """Joins draws of a law into one law, whose validation domains are those of all draws in turn."""
        first, corrections = laws[0], [law.correction for law in laws if law.correction is not None]
        return replace(
            first,
            validation_domains=first.validation_domains * len(laws),
            formula=replace(first.formula, own=np.tile(first.formula.own, len(laws))),
            theta=np.concatenate([law.theta for law in laws]),
            correction=Correction.side_by_side(corrections) if corrections else None,
        )

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the law."""
        formula = self.formula
        return {
            "law": NAME,
            "domains": self.domains,
            "validation_domains": self.validation_domains,
            "own": formula.own.tolist(),
            "reference_tokens": formula.reference_tokens,
            "log_generic_unit": formula.log_generic_unit,
            "reference_params": formula.reference_params,
            "params": self.params,
            "unique_tokens": self.unique_tokens,
            "ceiling": self.ceiling,
            "parameters": _named(formula, self.theta),
            "posterior": _named(formula, self.posterior),
            "discrepancy": self.discrepancy.content(),
            "run_noise": self.run_noise.tolist(),
            "diagnostics": self.diagnostics,
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "PooledTransferLaw":
        """Restores a law from its `content`."""
        own = np.array(content["own"], dtype=np.int64)
        units = (content[key] for key in ("reference_tokens", "log_generic_unit", "reference_params"))
        law = cls(
            domains=content["domains"],
            validation_domains=content["validation_domains"],
            formula=Formula(own, len(content["domains"]), *units),
            theta=_unnamed(content["parameters"]),
            drawn=cache(lambda: _unnamed(content["posterior"])),
            discrepancy=Discrepancy.from_content(content["discrepancy"]),
            correction=None,
            params=content["params"],
            unique_tokens=content["unique_tokens"],
            ceiling=content["ceiling"],
            run_noise=np.array(content["run_noise"]),
            diagnostics=content["diagnostics"],
        )
        return law.corrected()


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


def _budget_slopes(formula: Formula, theta: FloatArray, table: RunTable) -> FloatArray:
    """(V,) nats by which an e-fold of the largest run's budget lowers losses."""
    rows = [int(table.domain_tokens.sum(axis=1).argmax())]
    points = formula.points(table.domain_tokens[rows], None if table.params is None else table.params[rows])
    return -formula.slopes(formula.terms(theta, points), points)[:, 0].sum(axis=1)


def _rounded(draws: FloatArray) -> FloatArray:
    """Rounds to DRAW_DIGITS decimals. A parameter is a logarithm or a logit, and known far less exactly."""
    return np.round(draws, DRAW_DIGITS)


def _named(formula: Formula, theta: FloatArray) -> dict[str, Any]:
    """Parameters (..., V, P) by name: each (..., V), or (..., V, K) for weights."""
    return {
        **{scalar.name.lower(): theta[..., scalar].tolist() for scalar in Scalar},
        "specific_weights": theta[..., formula.specific_weights].tolist(),
        "generic_weights": theta[..., formula.generic_weights].tolist(),
        "size": theta[..., formula.size_columns].tolist(),
    }


def _unnamed(parameters: dict[str, Any]) -> FloatArray:
    """The parameters (..., V, P) from what `_named` makes of them."""
    scalars = [np.array(parameters[scalar.name.lower()])[..., None] for scalar in Scalar]
    weights = [np.array(parameters["specific_weights"]), np.array(parameters["generic_weights"])]
    weights.append(np.array(parameters["size"]))
    return np.concatenate([*scalars, *weights], axis=-1)
