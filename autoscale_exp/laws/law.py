"""What every law offers, and the list of all laws.

A law is fitted to runs and finds mixtures. Most laws predict losses as a function of domain tokens. These are
`LossLaw`s, and `decision` finds their mixtures. AutoScale finds mixtures without predicting losses.
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
        name: the law's key in LAWS.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        run_noise: (V,) standard deviation of a single run's losses, about the law or over seeds.
        diagnostics: plain JSON: "converged" (bool), "num_params" (int), "notes" (list of sentences for people, such as
            that a parameter is on its limit, or that the runs do not identify how losses fall with the budget).
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
        """Fits the law to all runs of a table.

        Args:
            table: the runs.
            own: (V,) index of the training domain that is each validation domain's own, or -1; see `own_domains`.

        Raises:
            UserError: the table has too few runs for the law, or runs that it cannot use.
        """
        ...

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Draws laws that the runs leave open; none if the law cannot tell how sure it is."""
        ...

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the law. Its key "law" holds the name."""
        ...

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Restores a law from its `content`."""
        ...


class LossLaw(Law, Protocol):
    """A law that predicts the loss of every validation domain for any domain tokens."""

    def predict(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns (..., V) losses in nats per token for (..., K) domain tokens; finite even where a domain has none."""
        ...

    def slopes(self, domain_tokens: FloatArray) -> FloatArray:
        """Returns (V, K) derivatives of the losses of `by_formula` with respect to tokens, at (K,) tokens > 0."""
        ...

    def by_formula(self) -> Self:
        """Returns the law without its correction near the runs. Optima are sought under this form."""
        ...

    def at_size(self, params: float, key: str = "target_params") -> Self:
        """Returns the law for models with `params` parameters. A new fit is for the largest models of its runs.

        Args:
            params: parameters of the model.
            key: the key that asks for them, which errors name.

        Raises:
            UserError: the law takes no model sizes, or its runs do not tell theirs.
        """
        ...

    def with_text(self, unique_tokens: Sequence[float] | None) -> Self:
        """Returns the law for text of (K,) `unique_tokens`, beyond which tokens repeat it; None for endless text.

        A new fit is for the text that the table of runs tells of.
        """
        ...


@dataclass(frozen=True)
class LawEntry:
    """An entry of LAWS.

    Attributes:
        module: the law's module in `laws/`. It is imported when the law is asked for, so that a fit starts at once.
        attribute: the name of its class there.
        formula: the loss of a validation domain v.
        source: a name, with its arXiv number where there is one.
        abilities: what the law can do; keys of ABILITIES.
    """

    module: str
    attribute: str
    formula: str
    source: str
    abilities: tuple[str, ...]


# What a law can do, with its meaning.
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
        "E + C N^(-κ) + N^(-η) (A S'^(-γ/ρ) + B G^(-α)), S' and G from sums over domains",
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
    """Describes all laws for people: name, formula, source and abilities, then what each ability means."""
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
    """Whether a law takes model sizes as well as tokens."""
    return "model size" in LAWS[name].abilities


def law_class(name: str) -> type[Law]:
    """Imports and returns the class of a law.

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
        UserError: there is no such law, the table has too few runs for it, or the law takes no model sizes and the
            runs are of several.
    """
    law = law_class(name)
    if table.params is not None and has_sizes(table) and not takes_sizes(name):
        others = " or ".join(filter(takes_sizes, LAWS))
        raise UserError(
            f"law.name={name} takes no model sizes, but the runs are of models of {len(np.unique(table.params))} "
            f"sizes; choose {others}, or give the runs of one size"
        )
    return law.fit(table, own_domains(table.domains, table.validation_domains))


def predict_runs(law: LossLaw, table: RunTable) -> FloatArray:
    """Predicts (R, V) losses for the runs of a table, each at the size of its model and with its text."""
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
    """Whether a law predicts losses."""
    return hasattr(law, "predict")


def own_domains(domains: Sequence[str], validation_domains: Sequence[str]) -> Int64Array:
    """(V,) index of the training domain that has the validation domain's name; -1 if none has."""
    return np.array([domains.index(v) if v in domains else -1 for v in validation_domains])
