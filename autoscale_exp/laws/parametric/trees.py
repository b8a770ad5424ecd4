"""RegMix's regression: gradient-boosted trees on the domain weights (and the log of total tokens where it varies).

Source: RegMix, arXiv 2407.01492, and its notebook: LightGBM gbdt, learning rate 1e-2, at most 1,000 trees, stopped
early after 3 rounds without progress, seed 42, defaults otherwise. Theirs stops early by the test set whose score it
then reports. Ours stops early by every tenth run, and then grows as many trees on all runs.
Limits: the law is piecewise constant, so it has no slopes, and optima are sought by sampling. It is flat beyond the
runs, so other budgets get the losses of the nearest one. It needs `pip install autoscale_exp[lightgbm]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.parametric.parametric_law import NO_SCALE_NOTE
from autoscale_exp.laws.parametric.terms import split_tokens
from autoscale_exp.laws.repetition import effective_tokens
from autoscale_exp.runs.scales import differ_in_budget
from autoscale_exp.runs.table import RunTable

# One thread and `deterministic` make the same trees anywhere. Tables are small, so threads would not help.
SETTINGS = {
    "objective": "regression",
    "learning_rate": 1e-2,
    "seed": 42,
    "num_threads": 1,
    "deterministic": True,
    "verbosity": -1,
}
NUM_TREES, PATIENCE, HELD_OUT = 1000, 3, 10
LEAST_RUNS = 45  # a leaf holds at least 20 runs, so with fewer than 40 runs to grow on there is no split


@dataclass(frozen=True)
class LightGbmLaw:
    """Boosted trees for each validation domain; see `LossLaw`.

    Attributes:
        unit: tokens that count as 1.
        scaled: whether the log of total tokens is a feature.
        unique_tokens: (K,) tokens of the text that predictions are for; more tokens repeat it. None for endless text.
        trees: (V,) models in LightGBM's text format.
        boosters: (V,) the same models, ready to predict.
    """

    name: ClassVar[str] = "lightgbm"
    domains: list[str]
    validation_domains: list[str]
    unit: float
    scaled: bool
    unique_tokens: Sequence[float] | None
    trees: list[str]
    boosters: list[Any]
    run_noise: FloatArray
    diagnostics: dict[str, Any]

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> Self:
        """Grows trees on all runs of a table.

        Raises:
            UserError: too few runs, or lightgbm is not installed.
        """
        if len(table.runs) < LEAST_RUNS:
            raise UserError(
                f"law.name=lightgbm needs at least {LEAST_RUNS} runs, but there are {len(table.runs)}: its leaves hold "
                "20 runs each; train more runs, or choose another law"
            )
        lightgbm = _lightgbm()
        tokens = effective_tokens(table.domain_tokens, table.pool_tokens)[0]
        unit, scaled = float(np.median(tokens.sum(axis=1))), differ_in_budget(tokens)
        features = _features(tokens / unit, scaled)
        held_out = np.arange(len(features)) % HELD_OUT == HELD_OUT - 1
        boosters, noise, counts = [], [], []
        for losses in table.losses.T:
            first = lightgbm.train(
                SETTINGS,
                lightgbm.Dataset(features[~held_out], losses[~held_out]),
                NUM_TREES,
                valid_sets=[lightgbm.Dataset(features[held_out], losses[held_out])],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
            counts.append(first.best_iteration or NUM_TREES)
            noise.append(float(np.sqrt(np.mean((first.predict(features[held_out]) - losses[held_out]) ** 2))))
            boosters.append(lightgbm.train(SETTINGS, lightgbm.Dataset(features, losses), counts[-1]))
        notes = ["trees are flat between and beyond runs: the optimum is sought by sampling, and has no interval"]
        if not scaled:
            notes.append(NO_SCALE_NOTE)
        diagnostics = {"converged": True, "num_params": 31 * sum(counts), "notes": notes}  # 31 leaves at most
        trees = [booster.model_to_string() for booster in boosters]
        text = table.unique_tokens
        return cls(
            table.domains, table.validation_domains, unit, scaled, text, trees, boosters, np.array(noise), diagnostics
        )

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns (..., V) losses in nats per token for (..., K) domain tokens."""
        tokens = np.asarray(domain_tokens, dtype=np.float64)
        tokens = effective_tokens(tokens, self.unique_tokens)[0] / self.unit
        features = _features(tokens.reshape(-1, len(self.domains)), self.scaled)
        losses = np.stack([booster.predict(features) for booster in self.boosters], axis=-1)
        return losses.reshape(*tokens.shape[:-1], len(self.boosters))

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """Raises NotImplementedError: trees have no slopes."""
        raise NotImplementedError("law.name=lightgbm is piecewise constant: its optimum is sought by sampling")

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Returns no draws: trees do not say what the runs leave open."""
        return []

    def by_formula(self) -> Self:
        """Returns the law itself, which has no correction."""
        return self

    def at_size(self, params: float, key: str = "target_params") -> Self:
        """Refuses any model size.

        Raises:
            UserError: always.
        """
        raise UserError(f"{key} is {params:g}, but law.name={self.name} takes no model sizes; choose another law")

    def with_text(self, unique_tokens: Sequence[float] | None) -> Self:
        """Returns the law for text of (K,) `unique_tokens`, beyond which tokens repeat it; None for endless text."""
        return replace(self, unique_tokens=unique_tokens)

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the law."""
        keys = ("domains", "validation_domains", "unit", "scaled", "trees", "diagnostics")
        return {
            "law": self.name,
            **{key: getattr(self, key) for key in keys},
            "unique_tokens": None if self.unique_tokens is None else list(self.unique_tokens),
            "run_noise": self.run_noise.tolist(),
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Restores a law from its `content`."""
        known = {key: content[key] for key in (field.name for field in fields(cls)) if key in content}
        boosters = [_lightgbm().Booster(model_str=text) for text in known["trees"]]
        return cls(**known | {"boosters": boosters, "run_noise": np.array(known["run_noise"])})


def _features(tokens: FloatArray, scaled: bool) -> FloatArray:
    weights, log_total = split_tokens(tokens)
    return np.column_stack([weights, log_total]) if scaled else weights


def _lightgbm() -> Any:
    try:
        return import_module("lightgbm")
    except ImportError:
        raise UserError("law.name=lightgbm needs LightGBM: `pip install autoscale_exp[lightgbm]`") from None
