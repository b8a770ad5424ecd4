"""What every law offers, and the list of them.

A law is fitted to runs and finds mixtures. Most predict losses as a function of domain tokens: these are `LossLaw`s,
and share one way to decide (see `decision`). AutoScale finds mixtures and predicts no losses.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, Self, TypeGuard

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.table import RunTable


class Law(Protocol):
    """A fitted law.

    Attributes:
        name: of the law, its key in LAWS.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        run_noise: (V,) standard deviation of a single run's losses: about the law, or over seeds.
        diagnostics: plain JSON: "converged" (bool), "num_params" (int), "notes" (list of sentences for people, such as
            a parameter on its limit or a scale that the runs do not identify).
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def domains(self) -> list[str]: ...  # noqa: D102
    @property
    def validation_domains(self) -> list[str]: ...  # noqa: D102
    @property
    def run_noise(self) -> FloatArray: ...  # noqa: D102
    @property
    def diagnostics(self) -> dict[str, Any]: ...  # noqa: D102

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> Self:
        """Fits the law to all runs of a table; `own` (V,) is the index of each validation domain's own domain, or -1.

        Raises:
            UserError: the table has too few runs for the law, or others than it needs.
        """
        ...

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Laws drawn from what the runs leave open; empty if the law has no such estimate."""
        ...

    def content(self) -> dict[str, Any]:
        """Plain JSON from which `from_content` makes the same law again; has a key "law" with the name."""
        ...

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """The law that `content` was made of."""
        ...


class LossLaw(Law, Protocol):
    """A law that predicts the loss of every validation domain for any domain tokens."""

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """(..., V) losses in nats per token of (..., K) domain tokens; finite also where a domain has none."""
        ...

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """(V, K) derivatives of the losses with respect to tokens, at (K,) tokens > 0."""
        ...


# Name to module and class; modules are imported when asked for, so that a fit starts at once.
LAWS = {
    "autoscale": ("autoscale.law", "AutoscaleLaw"),
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


def law_class(name: str) -> type[Law]:
    """The class of a law.

    Raises:
        UserError: there is no such law, or its class has another name.
    """
    if name not in LAWS:
        raise UserError(f"law.name is '{name}'; allowed are {', '.join(LAWS)}")
    module, attribute = LAWS[name]
    law = getattr(import_module(f"autoscale_exp.laws.{module}"), attribute)
    if law.name != name:
        raise UserError(f"{attribute}.name is '{law.name}', but its key in LAWS is '{name}'; give both one name")
    return law


def fit_law(name: str, table: RunTable) -> Law:
    """Fits a law to all runs of a table.

    Raises:
        UserError: there is no such law, or the table has too few runs for it.
    """
    return law_class(name).fit(table, own_domains(table))


def predicts_losses(law: Law) -> TypeGuard[LossLaw]:
    """Whether a law is one of losses."""
    return hasattr(law, "predict")


def own_domains(table: RunTable) -> Int64Array:
    """(V,) index of the training domain with the validation domain's name; -1 for a domain never trained on."""
    return np.array([table.domains.index(v) if v in table.domains else -1 for v in table.validation_domains])
