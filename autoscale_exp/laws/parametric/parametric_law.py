"""Laws of loss fitted to each validation domain by itself: all that they share but the formula.

A law supplies its parameters with weak priors, and its formula with derivatives. Positive parameters are fitted as
logarithms. Tokens are in units of the median run's total, so that parameters are of order 1 at any scale. Repeated ones
count as fewer, by the decay of the literature (see laws.repetition).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.parametric.robust_fit import Prior, RobustFit, robust_fit
from autoscale_exp.laws.repetition import effective_tokens
from autoscale_exp.runs.scales import differ_in_budget
from autoscale_exp.runs.table import RunTable, has_sizes

NUM_STARTS = 4
CHUNK = 2048  # mixtures evaluated at once: about 100 MB at 20 domains
ARRAYS = ("own", "parameters", "covariance", "lower", "upper", "run_noise")


class Parameter(NamedTuple):
    """A parameter of a formula, the same for all validation domains but for the data-dependent reference.

    Attributes:
        mean: of its prior, as fitted (mostly logarithms).
        spread: standard deviation of the prior.
        lower: limit.
        upper: limit.
        starts: values to start from; `mean` if empty.
        of_level: all of these are over the log of the validation domain's median loss.
        per_domain: one such parameter for each training domain.
        own: added to mean and starts where the training domain is the validation domain's own.
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
    """A fitted law; see `Law` for what is common to all laws.

    Attributes:
        own: (V,) training domain of each validation domain, or -1.
        unit: tokens that count as 1.
        scaled: whether the runs differ in total tokens.
        params: model size that predictions are for; None where the runs do not tell.
        unique_tokens: (K,) tokens of the text that predictions are for, beyond which it is repeated; None for no end.
        reference_params: that size is a multiple of, where the law takes it and the runs have several; else None.
        parameters: (V, P), in the order of `layout`.
        covariance: (V, P, P) of the parameters.
        lower: (V, P) their limits.
        upper: (V, P) their limits.
    """

    name: ClassVar[str]
    takes_sizes: ClassVar[bool] = False
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
        """The losses and their derivatives.

        Args:
            values: by name (V, 1), or (V, 1, K) for parameters per domain.
            tokens: (R, K) in units; (R, K + 1) with the log of the size where there is a `reference_params`.

        Returns:
            (V, R) losses; by name their derivatives, (V, R) or (V, R, K); (V, R, K) derivatives by log tokens.
        """

    def num_free(self) -> int:
        """Parameters of one validation domain that many runs would determine; also the least number of runs."""
        return self.num_fitted()

    def num_fitted(self) -> int:
        """P, which counts an amplitude that repeats another parameter where that helps the fit."""
        return sum(len(self.domains) if p.per_domain else 1 for p in self.layout().values())

    def budget_note(self) -> str:
        """What to say of other budgets when all runs have one."""
        return "all runs have the same total tokens: at other budgets losses follow the law's form and its priors"

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> Self:
        """Fits the law to all runs of a table.

        Args:
            table: R runs.
            own: (V,) training domain of each validation domain, or -1.

        Raises:
            UserError: too few runs, the law has no use for such domains, or its formula is not finite.
        """
        effective = effective_tokens(table.domain_tokens, table.pool_tokens)[0]
        unit, scaled = float(np.median(effective.sum(axis=1))), differ_in_budget(effective)
        none = np.empty((len(own), 0))
        params = None if table.params is None else float(table.params.max())
        reference = params if cls.takes_sizes and has_sizes(table) else None
        law = cls(
            table.domains,
            table.validation_domains,
            np.asarray(own),
            unit,
            scaled,
            params,
            table.unique_tokens,
            reference,
            none,
            none,
            none,
            none,
            none,
            {},
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
        with np.errstate(over="ignore", invalid="ignore"):  # a trial step too far; it is not taken
            fit = robust_fit(_Curve(law, tokens), table.losses, prior, starts)
        law = replace(law, parameters=fit.parameters, covariance=fit.covariance, lower=prior.lower, upper=prior.upper)
        return replace(law, run_noise=fit.noise, diagnostics=law._diagnose(fit, table))

    def check_domains(self) -> None:
        """Raises ValueError where the law cannot express a validation domain."""
        return

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """(..., V) losses in nats per token of (..., K) domain tokens."""
        tokens = np.asarray(domain_tokens, dtype=np.float64)
        flat, _ = self._inputs(tokens.reshape(-1, len(self.domains)), self.params, self.unique_tokens)
        values = self._values(self.parameters)
        chunks = [self.formula(values, flat[i : i + CHUNK])[0].T for i in range(0, max(len(flat), 1), CHUNK)]
        return np.concatenate(chunks).reshape(*tokens.shape[:-1], len(self.validation_domains))

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """(V, K) derivatives of the losses with respect to tokens, at (K,) tokens > 0."""
        tokens = np.asarray(domain_tokens, dtype=np.float64)
        inputs, gained = self._inputs(tokens[None], self.params, self.unique_tokens)
        return self.formula(self._values(self.parameters), inputs)[2][:, 0] * gained / tokens

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Laws with parameters drawn from their approximate normal distribution, within the limits."""
        sizes, directions = np.linalg.eigh(self.covariance)
        root = directions * np.sqrt(np.maximum(sizes, 0))[:, None, :]
        normal = rng.standard_normal((num_draws, *self.parameters.shape, 1))
        drawn = self.parameters + (root @ normal)[..., 0]
        drawn = np.clip(drawn, self.lower, self.upper)
        return [replace(self, parameters=parameters) for parameters in drawn]

    @staticmethod
    def side_by_side(laws: Sequence["ParametricLaw"]) -> "ParametricLaw":
        """One law whose validation domains are those of all of a law's draws in turn."""
        first = laws[0]
        return replace(
            first,
            validation_domains=first.validation_domains * len(laws),
            own=np.tile(first.own, len(laws)),
            parameters=np.concatenate([law.parameters for law in laws]),
        )

    def by_formula(self) -> Self:
        """Itself."""
        return self

    def at_size(self, params: float) -> Self:
        """The law of models with `params` parameters.

        Raises:
            UserError: the law takes no sizes, or the runs do not tell of others.
        """
        if self.reference_params is not None or params == self.params:
            return replace(self, params=float(params))
        if self.takes_sizes and self.params is None:
            raise UserError(
                f"target_params is {params:g}, but the run table has no column params; add it, with the parameters of "
                "each run's model"
            )
        if self.takes_sizes:
            raise UserError(
                f"target_params is {params:g}, but all runs are of models of {self.params:g} parameters, and "
                f"law.name={self.name} has no idea of others; add runs of another size, or choose law=default"
            )
        raise UserError(
            f"target_params is {params:g}, but law.name={self.name} takes no model sizes; choose another law"
        )

    def with_text(self, unique_tokens: Sequence[float] | None) -> Self:
        """The law of runs whose text has (K,) `unique_tokens`, and is repeated beyond these; None for no end."""
        return replace(self, unique_tokens=unique_tokens)

    def _inputs(
        self,
        domain_tokens: FloatArray,
        params: FloatArray | float | None,
        unique_tokens: FloatArray | Sequence[float] | None,
    ) -> tuple[FloatArray, FloatArray]:
        """What `formula` takes, and the derivatives of its log tokens by those of (R, K) tokens trained on."""
        effective, gained = effective_tokens(domain_tokens, unique_tokens)
        tokens = effective / self.unit
        if self.reference_params is None or params is None:
            return tokens, gained
        log_size = np.broadcast_to(np.log(params / self.reference_params), len(tokens))
        return np.column_stack([tokens, log_size]), gained

    def content(self) -> dict[str, Any]:
        """Plain JSON from which `from_content` makes the same law again."""
        plain = ("domains", "validation_domains", "unit", "scaled", "params", "reference_params", "diagnostics")
        return {
            "law": self.name,
            **{key: getattr(self, key) for key in plain},
            "unique_tokens": None if self.unique_tokens is None else list(self.unique_tokens),
            **{key: getattr(self, key).tolist() for key in ARRAYS},
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """The law that `content` was made of."""
        fields: dict[str, Any] = {k: np.array(v) if k in ARRAYS else v for k, v in content.items() if k != "law"}
        return cls(**fields)

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
        with np.errstate(all="ignore"):  # told below
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
        """The prior and (V, P) starts, from the layout and (V, R) losses."""
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
            notes.append(self.budget_note())
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
    """A law's formula at (R, K) tokens in units, as the fit takes it."""

    law: ParametricLaw
    tokens: FloatArray

    def at(self, theta: FloatArray) -> _At:
        return self.law._curve(theta, self.tokens)

    def jacobian(self, theta: FloatArray, at: _At) -> FloatArray:
        return at.derivatives.copy()

    def of(self, domains: Int64Array) -> "_Curve":
        return replace(self, law=replace(self.law, own=self.law.own[domains]))
