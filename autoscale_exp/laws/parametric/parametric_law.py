"""Laws that are fitted to each validation domain by itself: all but their formulas.

A law supplies its parameters with weak priors, and its formula with derivatives. Positive parameters are fitted as
logarithms. Tokens are in units of the median run's total, so that parameters are of order 1 at any scale. Repeated
tokens count for less, with the decay of the literature (see laws.repetition).

R runs, K training domains, V validation domains, P parameters of each.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.law import takes_sizes
from autoscale_exp.laws.parametric.robust_fit import Prior, RobustFit, robust_fit
from autoscale_exp.laws.repetition import effective_tokens
from autoscale_exp.runs.scales import differ_in_budget
from autoscale_exp.runs.table import RunTable, has_sizes

NUM_STARTS = 4
CHUNK = 2048  # mixtures evaluated at once: about 100 MB at 20 domains
ARRAYS = ("own", "parameters", "covariance", "lower", "upper", "run_noise")
NO_SCALE_NOTE = "all runs have the same total tokens, so the law has no scale: other budgets get the same losses"


class Parameter(NamedTuple):
    """A parameter of a formula, in the form that is fitted (mostly a logarithm). It serves all validation domains.

    Attributes:
        mean: mean of the prior.
        spread: standard deviation of the prior.
        lower: lower limit.
        upper: upper limit.
        starts: values to start from; `mean` if empty.
        of_level: whether all of these are relative to the log of the validation domain's median loss.
        per_domain: whether each training domain has a parameter of its own.
        own: added to mean and starts for the validation domain's own training domain.
    """

    mean: float
    spread: float
    lower: float
    upper: float
    starts: tuple[float, ...] = ()
    of_level: bool = False
    per_domain: bool = False
    own: float = 0.0


# The loss at the even mixture is near the median loss; half of it, give or take, is irreducible.
LEVEL = Parameter(0.0, 0.5, -5.0, 5.0, of_level=True)
ODDS = Parameter(0.0, 1.0, -12.0, 12.0, (0.0, 1.0, -1.0, 0.5))

Values = dict[str, FloatArray]
Terms = tuple[FloatArray, Values, FloatArray]


@dataclass(frozen=True)
class ParametricLaw(ABC):
    """A fitted law; see `Law` for what all laws offer.

    Attributes:
        own: (V,) index of each validation domain's own training domain, or -1.
        unit: tokens that count as 1.
        scaled: whether the runs differ in total tokens.
        params: model size that predictions are for; None if the runs do not tell theirs.
        unique_tokens: (K,) tokens of the text that predictions are for; more tokens repeat it. None for endless text.
        reference_params: unit of model size; None if the law takes no sizes or the runs have only one.
        parameters: (V, P) parameters, in the order of `layout`.
        covariance: (V, P, P) covariance of the parameters.
        lower: (V, P) lower limits of the parameters.
        upper: (V, P) upper limits of the parameters.
        num_redundant: fitted parameters of a validation domain that only help the fit, such as an amplitude beside
            weights.
        budget_note: what to say of other budgets if all runs have one.
    """

    name: ClassVar[str]
    num_redundant: ClassVar[int] = 0
    budget_note: ClassVar[str] = (
        "all runs have the same total tokens: at other budgets losses follow the law's form and its priors"
    )
    domains: list[str]
    validation_domains: list[str]
    own: Int64Array
    unit: float
    scaled: bool
    params: float | None
    unique_tokens: Sequence[float] | None
    reference_params: float | None
    parameters: FloatArray
    covariance: FloatArray
    lower: FloatArray
    upper: FloatArray
    run_noise: FloatArray
    diagnostics: dict[str, Any]

    @abstractmethod
    def layout(self) -> dict[str, Parameter]:
        """The formula's parameters by name."""

    @abstractmethod
    def formula(self, values: Values, tokens: FloatArray) -> Terms:
        """Returns the losses and their derivatives.

        Args:
            values: parameters by name: (V, 1), or (V, 1, K) for parameters per domain.
            tokens: (R, K) tokens in units; with `reference_params`, (R, K + 1) with the log of the model size.

        Returns:
            (V, R) losses; their derivatives by name, (V, R) or (V, R, K); their (V, R, K) derivatives by log tokens.
        """

    def num_free(self) -> int:
        """Number of parameters of a validation domain that enough runs determine; also the least number of runs."""
        return self.num_fitted() - self.num_redundant

    def num_fitted(self) -> int:
        """P, the number of parameters that are fitted."""
        return sum(len(self.domains) if p.per_domain else 1 for p in self.layout().values())

    @classmethod
    def unfitted(
        cls,
        domains: list[str],
        validation_domains: list[str],
        own: Int64Array,
        *,
        unit: float = 1.0,
        scaled: bool,
        params: float | None = None,
        unique_tokens: Sequence[float] | None = None,
        reference_params: float | None = None,
    ) -> Self:
        """A law before its fit: it has a layout and a formula, but no values for its parameters."""
        none = np.empty((len(own), 0))
        return cls(
            domains,
            validation_domains,
            own,
            unit,
            scaled,
            params,
            unique_tokens,
            reference_params,
            parameters=none,
            covariance=none,
            lower=none,
            upper=none,
            run_noise=none,
            diagnostics={},
        )

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> Self:
        """Fits the law to all runs of a table.

        Args:
            table: R runs.
            own: (V,) index of each validation domain's own training domain, or -1.

        Raises:
            UserError: too few runs, validation domains that the law cannot predict, or a formula that is not finite.
        """
        effective = effective_tokens(table.domain_tokens, table.pool_tokens)[0]
        unit, scaled = float(np.median(effective.sum(axis=1))), differ_in_budget(effective)
        params = None if table.params is None else float(table.params.max())
        law = cls.unfitted(
            table.domains,
            table.validation_domains,
            np.asarray(own),
            unit=unit,
            scaled=scaled,
            params=params,
            unique_tokens=table.unique_tokens,
            reference_params=params if has_sizes(table) and takes_sizes(cls.name) else None,
        )
        law.check_domains()
        if len(table.runs) < law.num_free():
            raise UserError(
                f"law.name={cls.name} needs at least {law.num_free()} runs for {len(law.domains)} domains, but there "
                f"are {len(table.runs)}; train more runs, or choose a law with fewer parameters (see laws/law.py)"
            )
        tokens, losses = law._inputs(table.domain_tokens, table.params, table.pool_tokens)[0], table.losses.T
        prior, starts = law.prior(losses)
        law._check_finite(starts[0], tokens, table.runs)
        with np.errstate(over="ignore", invalid="ignore"):  # a trial step may go too far; it is not taken
            fit = robust_fit(_Curve(law, tokens), table.losses, prior, starts)
        law = replace(law, parameters=fit.parameters, covariance=fit.covariance, lower=prior.lower, upper=prior.upper)
        return replace(law, run_noise=fit.noise, diagnostics=law._diagnose(fit, table))

    def check_domains(self) -> None:
        """Raises UserError if the law cannot predict a validation domain; by default it can predict all."""
        return

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns (..., V) losses in nats per token for (..., K) domain tokens."""
        tokens = np.asarray(domain_tokens, dtype=np.float64)
        flat, _ = self._inputs(tokens.reshape(-1, len(self.domains)), self.params, self.unique_tokens)
        values = self._values(self.parameters)
        chunks = [self.formula(values, flat[i : i + CHUNK])[0].T for i in range(0, max(len(flat), 1), CHUNK)]
        return np.concatenate(chunks).reshape(*tokens.shape[:-1], len(self.validation_domains))

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns the (V, K) derivatives of the losses with respect to tokens, at (K,) tokens > 0."""
        tokens = np.asarray(domain_tokens, dtype=np.float64)
        inputs, gained = self._inputs(tokens[None], self.params, self.unique_tokens)
        return self.formula(self._values(self.parameters), inputs)[2][:, 0] * gained / tokens

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Draws laws with parameters from their approximate normal distribution, clipped to the limits."""
        sizes, directions = np.linalg.eigh(self.covariance)
        root = directions * np.sqrt(np.maximum(sizes, 0))[:, None, :]
        normal = rng.standard_normal((num_draws, *self.parameters.shape, 1))
        drawn = self.parameters + (root @ normal)[..., 0]
        drawn = np.clip(drawn, self.lower, self.upper)
        return [replace(self, parameters=parameters) for parameters in drawn]

    @staticmethod
    def side_by_side(laws: Sequence["ParametricLaw"]) -> "ParametricLaw":
        """Joins draws of a law into one law, whose validation domains are those of all draws in turn."""
        first = laws[0]
        return replace(
            first,
            validation_domains=first.validation_domains * len(laws),
            own=np.tile(first.own, len(laws)),
            parameters=np.concatenate([law.parameters for law in laws]),
        )

    def by_formula(self) -> Self:
        """Returns the law itself, which has no correction."""
        return self

    def at_size(self, params: float, key: str = "target_params") -> Self:
        """Returns the law for models with `params` parameters.

        Raises:
            UserError: the law takes no sizes, or its runs do not tell how losses depend on them.
        """
        if self.reference_params is not None or params == self.params:
            return replace(self, params=float(params))
        if takes_sizes(self.name) and self.params is None:
            raise UserError(
                f"{key} is {params:g}, but the run table has no column params; add it, with the parameters of "
                "each run's model"
            )
        if takes_sizes(self.name):
            raise UserError(
                f"{key} is {params:g}, but all runs are of models of {self.params:g} parameters, and "
                f"law.name={self.name} cannot tell of others; add runs of another size, or choose law=default"
            )
        raise UserError(f"{key} is {params:g}, but law.name={self.name} takes no model sizes; choose another law")

    def with_text(self, unique_tokens: Sequence[float] | None) -> Self:
        """Returns the law for text of (K,) `unique_tokens`, beyond which tokens repeat it; None for endless text."""
        return replace(self, unique_tokens=unique_tokens)

    def _inputs(
        self,
        domain_tokens: FloatArray,
        params: FloatArray | float | None,
        unique_tokens: FloatArray | Sequence[float] | None,
    ) -> tuple[FloatArray, FloatArray]:
        """The tokens that `formula` takes, and the (R, K) derivatives of their logs by those of tokens trained on."""
        effective, gained = effective_tokens(domain_tokens, unique_tokens)
        tokens = effective / self.unit
        if self.reference_params is None or params is None:
            return tokens, gained
        log_size = np.broadcast_to(np.log(params / self.reference_params), len(tokens))
        return np.column_stack([tokens, log_size]), gained

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the law."""
        plain = ("domains", "validation_domains", "unit", "scaled", "params", "reference_params", "diagnostics")
        return {
            "law": self.name,
            **{key: getattr(self, key) for key in plain},
            "unique_tokens": None if self.unique_tokens is None else list(self.unique_tokens),
            **{key: getattr(self, key).tolist() for key in ARRAYS},
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Restores a law from its `content`."""
        known = {key: content[key] for key in (field.name for field in fields(cls)) if key in content}
        arrays: dict[str, Any] = {key: np.array(known[key]) for key in ARRAYS if key in known}
        return cls(**known | arrays)

    def _values(self, parameters: FloatArray) -> Values:
        values, start = {}, 0
        for name, parameter in self.layout().items():
            stop = start + (len(self.domains) if parameter.per_domain else 1)
            values[name] = parameters[:, None, start:stop] if parameter.per_domain else parameters[:, start:stop]
            start = stop
        return values

    def _curve(self, parameters: FloatArray, tokens: FloatArray) -> "_At":
        losses, by_name, _ = self.formula(self._values(parameters), tokens)
        derivatives, start = np.empty((*losses.shape, self.num_fitted())), 0
        for name, parameter in self.layout().items():
            stop = start + (len(self.domains) if parameter.per_domain else 1)
            derivatives[:, :, start:stop] = by_name[name] if parameter.per_domain else by_name[name][:, :, None]
            start = stop
        return _At(losses.T, derivatives)

    def _check_finite(self, start: FloatArray, tokens: FloatArray, runs: Sequence[str]) -> None:
        """Raises UserError if a loss or a derivative is not finite for some run where the fit starts."""
        with np.errstate(all="ignore"):  # reported below
            losses, by_name, by_log_tokens = self.formula(self._values(start), tokens)
        derivatives = {f"derivatives by {name}": values for name, values in by_name.items()}
        for what, values in {"losses": losses, **derivatives, "derivatives by log tokens": by_log_tokens}.items():
            if not np.isfinite(values).all():
                run = runs[int(np.argwhere(~np.isfinite(values))[0, 1])]
                raise UserError(
                    f"the law '{self.name}' gives {what} that are not finite, for run '{run}' among others, where its "
                    "fit starts; correct its formula, or choose another law"
                )

    def prior(self, losses: FloatArray) -> tuple[Prior, list[FloatArray]]:
        """Makes the prior and the (V, P) starts from the layout and (V, R) losses."""
        level = np.log(np.median(losses, axis=1).clip(1e-3))[:, None]
        is_own = self.own[:, None] == np.arange(len(self.domains))
        columns: dict[str, list[FloatArray]] = {key: [] for key in ("mean", "spread", "lower", "upper", "starts")}
        for parameter in self.layout().values():
            shift = is_own * parameter.own if parameter.per_domain else np.zeros((len(is_own), 1))
            base = level * parameter.of_level + np.zeros_like(shift)
            columns["mean"].append(base + shift + parameter.mean)
            columns["spread"].append(np.full_like(base, parameter.spread))
            columns["lower"].append(base + parameter.lower)
            columns["upper"].append(base + parameter.upper)
            starts = parameter.starts or (parameter.mean,) * NUM_STARTS
            columns["starts"].append(np.array([base + shift + start for start in starts]))
        mean, spread, lower, upper, starts_of = (np.concatenate(c, axis=-1) for c in columns.values())
        return Prior(mean, spread, lower, upper), list(np.clip(starts_of, lower, upper))

    def _diagnose(self, fit: RobustFit, table: RunTable) -> dict[str, Any]:
        labels = [
            name.removeprefix("log_").replace("_", " ") + (f" of '{domain}'" if domain else "")
            for name, parameter in self.layout().items()
            for domain in (self.domains if parameter.per_domain else [""])
        ]
        at_limit = (self.parameters <= self.lower) | (self.parameters >= self.upper)
        notes = []
        for index, validation_domain in enumerate(self.validation_domains):
            limited = at_limit[index]
            if not fit.converged[index]:
                notes.append(f"{validation_domain}: its fit did not converge")
            if limited.any():
                listed = ", ".join(labels[column] for column in np.flatnonzero(limited))
                notes.append(f"{validation_domain}: on a limit of what the fit allows: {listed}")
        if not self.scaled:
            notes.append(self.budget_note)
        for domain, most in zip(self.domains, table.domain_tokens.max(axis=0), strict=True):
            if most == 0:
                notes.append(f"no run was trained on '{domain}': what it does is the priors' guess")
        num_params = self.num_free() * len(self.validation_domains)
        return {"converged": bool(fit.converged.all()), "num_params": num_params, "notes": notes}


class _At(NamedTuple):
    """(R, V) losses and their (V, R, P) derivatives."""

    losses: FloatArray
    derivatives: FloatArray


@dataclass(frozen=True)
class _Curve:
    """A law's formula at (R, K) tokens in units; see `least_squares.Curve`."""

    law: ParametricLaw
    tokens: FloatArray

    def at(self, theta: FloatArray) -> _At:
        return self.law._curve(theta, self.tokens)

    def jacobian(self, theta: FloatArray, at: _At) -> FloatArray:
        return at.derivatives.copy()

    def of(self, domains: Int64Array) -> "_Curve":
        return replace(self, law=replace(self.law, own=self.law.own[domains]))
