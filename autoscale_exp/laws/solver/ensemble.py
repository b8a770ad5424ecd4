"""Several laws of the same domains, such as the draws of one, evaluated together where their class allows it."""

from collections.abc import Callable, Sequence

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.law import LossLaw

NUMBERS_AT_ONCE = 4_000_000  # laws x points x validation domains x domains in one call, to limit memory


class Ensemble:
    """D laws with V validation and K training domains each.

    Laws with a method `side_by_side(laws)` are joined into one law whose validation domains are those of all laws in
    turn. Other laws are evaluated one by one.
    """

    def __init__(self, laws: Sequence[LossLaw]) -> None:
        self.laws, self.num_validation = laws, len(laws[0].validation_domains)
        self.join: Callable[[Sequence[LossLaw]], LossLaw] | None = getattr(laws[0], "side_by_side", None)
        self.whole = self.join(laws) if self.join else None

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """(D, ..., V) losses of (..., K) domain tokens."""
        if self.join is None or self.whole is None:
            return np.array([law.predict(domain_tokens) for law in self.laws])
        size = max(1, NUMBERS_AT_ONCE // (domain_tokens.size * self.num_validation))
        starts = range(0, len(self.laws), size)
        parts = [self.join(self.laws[i : i + size]) for i in starts] if len(starts) > 1 else [self.whole]
        losses = np.concatenate([part.predict(domain_tokens) for part in parts], axis=-1)
        return np.moveaxis(losses.reshape(*losses.shape[:-1], len(self.laws), self.num_validation), -2, 0)

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """(D, V, K) derivatives of the losses with respect to tokens, at (K,) tokens > 0."""
        if self.whole is None:
            return np.array([law.slopes(domain_tokens) for law in self.laws])
        return self.whole.slopes(domain_tokens).reshape(len(self.laws), self.num_validation, -1)
