"""What every law of loss as a function of domain tokens offers, and the list of them."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, Self

import numpy as np

from autoscale_exp.mixture.allocation import FloatArray, Int64Array
from autoscale_exp.runs.record import RunTable


class Law(Protocol):
    """A fitted law: predicts the loss of every validation domain for any domain tokens.

    Attributes:
        name: of the law, its key in LAWS.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        run_noise: (V,) standard deviation of a single run's losses about the law.
        diagnostics: plain JSON: "converged" (bool), "num_params" (int), "notes" (list of sentences for people, such as
            a parameter on its limit or a scale that the runs do not identify).
    """

    name: str
    domains: list[str]
    validation_domains: list[str]
    run_noise: FloatArray
    diagnostics: dict[str, Any]

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """(..., V) losses in nats per token of (..., K) domain tokens; finite also where a domain has none."""
        ...

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """(V, K) derivatives of the losses with respect to tokens, at (K,) tokens > 0."""
        ...

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Laws with parameters drawn from what the runs leave open; empty if the law has no such estimate."""
        ...

    def content(self) -> dict[str, Any]:
        """Plain JSON from which `from_content` makes the same law again; has a key "law" with the name."""
        ...

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """The law that `content` was made of."""
        ...


# Name to module and class; modules are imported when asked for, so that a fit starts at once.
LAWS = {
    "pooled_transfer": ("pooled.pooled_transfer", "PooledTransferLaw"),
    "transfer": ("parametric.transfer", "TransferLaw"),
    "ces_transfer": ("parametric.transfer", "CesTransferLaw"),
    "generic_specific": ("parametric.generic_specific", "GenericSpecificLaw"),
    "mixing_law": ("parametric.mixing_law", "MixingLaw"),
    "bimix": ("parametric.bimix", "BimixLaw"),
    "additive": ("parametric.additive", "AdditiveLaw"),
    "joint": ("parametric.additive", "JointLaw"),
    "linear": ("parametric.linear", "LinearLaw"),
    "lightgbm": ("parametric.trees", "LightGbmLaw"),
}


def law_class(name: str) -> Any:
    """The class of a law; it has `fit(table, own)` beside what `Law` lists.

    Raises:
        ValueError: there is no such law.
    """
    if name not in LAWS:
        raise ValueError(f"law.name is '{name}'; allowed are ddo, {', '.join(LAWS)}")
    module, attribute = LAWS[name]
    return getattr(import_module(f"autoscale_exp.laws.{module}"), attribute)


def fit_law(name: str, table: RunTable) -> Law:
    """Fits a law to all runs of a table.

    Raises:
        ValueError: there is no such law, or the table has too few runs for it.
    """
    fit: Callable[[RunTable, Int64Array], Law] = law_class(name).fit
    return fit(table, own_domains(table))


def own_domains(table: RunTable) -> Int64Array:
    """(V,) index of the training domain with the validation domain's name; -1 for a domain never trained on."""
    return np.array([table.domains.index(v) if v in table.domains else -1 for v in table.validation_domains])
