"""What every law offers, and the list of them.

A law is fitted to runs and finds mixtures. Most predict losses as a function of domain tokens: these are `LossLaw`s,
and share one way to decide (see `decision`). AutoScale finds mixtures and predicts no losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, Self, TypeGuard

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.table import RunTable, has_sizes


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
        """(V, K) derivatives of `by_formula`'s losses with respect to tokens, at (K,) tokens > 0."""
        ...

    def by_formula(self) -> Self:
        """The law by its formula alone, without what runs say of mixtures near them: what an optimum is sought for."""
        ...

    def at_size(self, params: float) -> Self:
        """The law of models with `params` parameters; before, it is of the largest of its runs.

        Raises:
            UserError: the law takes no model sizes, or its runs do not tell theirs.
        """
        ...

    def with_text(self, unique_tokens: Sequence[float] | None) -> Self:
        """The law of runs whose text has (K,) `unique_tokens`, which more tokens repeat; None for no end of it.

        Before, it is of the text that the runs' table tells of.
        """
        ...


@dataclass(frozen=True)
class LawEntry:
    """A law in the list of all laws.

    Attributes:
        module: in `laws/`; imported when asked for, so that a fit starts at once.
        attribute: its class there.
        formula: of the loss of a validation domain v.
        source: a name, with its arXiv number where there is one.
        abilities: what it can do, of ABILITIES.
    """

    module: str
    attribute: str
    formula: str
    source: str
    abilities: tuple[str, ...]


# What a law may be able to do, and what that means.
ABILITIES = {
    "losses": "predicts the losses of any mixture",
    "tokens": "predicts at token budgets other than those of the runs",
    "model size": "takes runs of models of several sizes, and predicts at others",
    "repetition": "knows that repeated text is worth less",
    "held-out domains": "takes validation domains that no run trains on",
    "intervals": "comes with draws of what the runs leave open",
}
LAWS = {
    "autoscale": LawEntry(
        "autoscale.law",
        "AutoscaleLaw",
        "(a + n_i)^(-γ) + ℓ of each domain i at each scale, and a path through the scales' optima",
        "AutoScale, arXiv 2407.20177; the published method",
        ("tokens", "held-out domains", "intervals"),
    ),
    "pooled_transfer": LawEntry(
        "pooled.pooled_transfer",
        "PooledTransferLaw",
        "E + C N^(-κ) + N^(-η) (A S^(-γ/ρ) + B G^(-α)), S and G sums over domains",
        "ours; the default",
        ("losses", "tokens", "model size", "repetition", "held-out domains", "intervals"),
    ),
    "transfer": LawEntry(
        "parametric.transfer",
        "TransferLaw",
        "E + (a + Σ c_i n_i)^(-γ)",
        "ours",
        ("losses", "tokens", "repetition", "held-out domains", "intervals"),
    ),
    "ces_transfer": LawEntry(
        "parametric.transfer",
        "CesTransferLaw",
        "E + (Σ c_i n_i^ρ)^(-γ/ρ)",
        "ours",
        ("losses", "tokens", "repetition", "held-out domains", "intervals"),
    ),
    "generic_specific": LawEntry(
        "parametric.generic_specific",
        "GenericSpecificLaw",
        "E + A (Σ c_i n_i)^(-α) + B (n_v + a)^(-β)",
        "ours",
        ("losses", "tokens", "repetition", "held-out domains", "intervals"),
    ),
    "mixing_law": LawEntry(
        "parametric.mixing_law",
        "MixingLaw",
        "c + k exp(Σ t_i r_i), and a power of the total where budgets differ",
        "Data Mixing Laws, arXiv 2403.16952; Olmix, arXiv 2602.12237",
        ("losses", "tokens", "repetition", "held-out domains", "intervals"),
    ),
    "bimix": LawEntry(
        "parametric.bimix",
        "BimixLaw",
        "(A / r_v^α) (B / D^β + C)",
        "BiMix, arXiv 2405.14908",
        ("losses", "tokens", "repetition", "intervals"),
    ),
    "additive": LawEntry(
        "parametric.additive",
        "AdditiveLaw",
        "E + 1 / Σ C_i r_i^γ_i + A / N^α + B / D^β",
        "Shukor et al., arXiv 2507.09404",
        ("losses", "tokens", "model size", "repetition", "held-out domains", "intervals"),
    ),
    "joint": LawEntry(
        "parametric.additive",
        "JointLaw",
        "E + 1 / Σ C_i r_i^γ_i + A / N^α + B / D^β, A and B functions of the mixture",
        "Shukor et al., arXiv 2507.09404",
        ("losses", "tokens", "model size", "repetition", "held-out domains", "intervals"),
    ),
    "linear": LawEntry(
        "parametric.linear",
        "LinearLaw",
        "linear in the shares and in log D",
        "a baseline",
        ("losses", "tokens", "repetition", "held-out domains", "intervals"),
    ),
    "lightgbm": LawEntry(
        "parametric.trees",
        "LightGbmLaw",
        "boosted trees on the shares, and on log D where budgets differ",
        "RegMix, arXiv 2407.01492",
        ("losses", "repetition", "held-out domains"),
    ),
}


def describe_laws() -> str:
    """The list of laws for people: name, formula, source and abilities, and what the abilities mean."""
    lines = ["", "Laws (n_i domain tokens, D their sum, r_i = n_i / D, N parameters of the model)"]
    width = max(map(len, LAWS))
    for name, entry in LAWS.items():
        lines += [
            f"  {name:<{width}}  {entry.formula}",
            f"  {'':<{width}}  {entry.source}. {', '.join(entry.abilities)}",
        ]
    width = max(map(len, ABILITIES))
    meanings = [f"  {ability:<{width}}  {meaning}" for ability, meaning in ABILITIES.items()]
    return "\n".join([*lines, "", "What laws can do", *meanings, ""])


def takes_sizes(name: str) -> bool:
    """Whether a law is one in model size as well as in tokens."""
    return "model size" in LAWS[name].abilities


def law_class(name: str) -> type[Law]:
    """The class of a law.

    Raises:
        UserError: there is no such law, or its class has another name.
    """
    if name not in LAWS:
        raise UserError(f"law.name is '{name}'; allowed are {', '.join(LAWS)}")
    law = getattr(import_module(f"autoscale_exp.laws.{LAWS[name].module}"), LAWS[name].attribute)
    if law.name != name:
        raise UserError(f"{law.__name__}.name is '{law.name}', but its key in LAWS is '{name}'; give both one name")
    return law


def fit_law(name: str, table: RunTable) -> Law:
    """Fits a law to all runs of a table.

    Raises:
        UserError: there is no such law, the table has too few runs for it, or models of sizes that it does not take.
    """
    law = law_class(name)
    if table.params is not None and has_sizes(table) and not takes_sizes(name):
        others = " or ".join(filter(takes_sizes, LAWS))
        raise UserError(
            f"law.name={name} takes no model sizes, but the runs are of models of {len(np.unique(table.params))} "
            f"sizes; choose {others}, or give the runs of one size"
        )
    return law.fit(table, own_domains(table))


def predict_runs(law: LossLaw, table: RunTable) -> FloatArray:
    """(R, V) losses that a law predicts for the runs of a table, each at the size of its model and with its text."""
    params = table.params if takes_sizes(law.name) else None
    alike: dict[tuple[float | None, tuple[float, ...] | None], list[int]] = {}
    for row in range(len(table.runs)):
        text = None if table.pool_tokens is None else tuple(table.pool_tokens[row].tolist())
        alike.setdefault((None if params is None else float(params[row]), text), []).append(row)
    losses = np.empty((len(table.runs), len(law.validation_domains)))
    for (size, text), rows in alike.items():
        there = (law if size is None else law.at_size(size)).with_text(text)
        losses[rows] = there.predict(table.domain_tokens[rows])
    return losses


def predicts_losses(law: Law) -> TypeGuard[LossLaw]:
    """Whether a law is one of losses."""
    return hasattr(law, "predict")


def own_domains(table: RunTable) -> Int64Array:
    """(V,) index of the training domain with the validation domain's name; -1 for a domain never trained on."""
    return np.array([table.domains.index(v) if v in table.domains else -1 for v in table.validation_domains])
