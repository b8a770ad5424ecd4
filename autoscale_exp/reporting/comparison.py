"""Target runs side by side: final objective over seeds, and how much sooner a mixture gets where the reference ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.mixture.allocation import FloatArray


@dataclass(frozen=True)
class MixtureRuns:
    """The target runs of one mixture.

    Attributes:
        name: of the mixture.
        results: a result.json per seed, by seed.
        tokens: (P,) tokens at the points of the validation curve.
        curves: (seeds, P) objective there.
    """

    name: str
    results: list[dict[str, Any]]
    tokens: FloatArray
    curves: FloatArray

    @property
    def final(self) -> FloatArray:
        """(seeds,) objective at the end."""
        return self.curves[:, -1]

    @property
    def mean_curve(self) -> FloatArray:
        """(P,) mean over seeds."""
        return self.curves.mean(axis=0)

    @property
    def spread(self) -> float:
        """Standard deviation of the final objective over seeds; NaN for a single seed."""
        return float(self.final.std(ddof=1)) if len(self.final) > 1 else float("nan")


def group_by_mixture(results: Sequence[dict[str, Any]], objective: Objective) -> dict[str, MixtureRuns]:
    """Target runs by mixture.

    Raises:
        ValueError: the runs have different token budgets or seeds, so that they cannot be compared.
    """
    groups: dict[str, MixtureRuns] = {}
    for name in dict.fromkeys(result["mixture"] for result in results):
        of_mixture = sorted((r for r in results if r["mixture"] == name), key=lambda r: r["seed"])
        points = [[(p["tokens"], list(p["losses"].values())) for p in r["validation_curve"]] for r in of_mixture]
        tokens = np.array([t for t, _ in points[0]], dtype=np.float64)
        curves = np.array([[float(objective(np.array(losses))) for _, losses in curve] for curve in points])
        groups[name] = MixtureRuns(name, of_mixture, tokens, curves)
    budgets = {result["token_budget"] for result in results}
    seeds = {tuple(r["seed"] for r in group.results) for group in groups.values()}
    if len(budgets) > 1 or len(seeds) > 1:
        raise ValueError(
            f"the target runs differ in token budget ({sorted(budgets)}) or in seeds ({sorted(seeds)}) and cannot be "
            "compared; put each comparison in a folder of its own"
        )
    return groups


def tokens_to_reach(tokens: FloatArray, curve: FloatArray, level: float) -> float | None:
    """Tokens after which a curve first is at `level` or below, linear between its points; None if it never is."""
    below = np.flatnonzero(curve <= level)
    if not below.size:
        return None
    k = int(below[0])
    if k == 0:
        return float(tokens[0])
    fraction = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
    return float(tokens[k - 1] + fraction * (tokens[k] - tokens[k - 1]))


def speedup(mixture: MixtureRuns, reference: MixtureRuns) -> float:
    """Share of the reference's tokens that the mixture saves to reach the objective that the reference ends with.

    Source: AutoScale, arXiv 2407.20177, section 5. Read off the mean validation curves. A mixture that never gets
    there has a negative one: the share that the reference saves to reach what the mixture ends with.
    """
    total = float(reference.tokens[-1])
    reached = tokens_to_reach(mixture.tokens, mixture.mean_curve, float(reference.mean_curve[-1]))
    if reached is not None:
        return 1 - reached / total
    overtaken = tokens_to_reach(reference.tokens, reference.mean_curve, float(mixture.mean_curve[-1]))
    assert overtaken is not None  # the reference ends below the mixture
    return -(1 - overtaken / total)


def objective_of_fit(content: dict[str, Any]) -> Objective:
    """The objective that a fit.json was made with."""
    section = content["objective"]
    return make_objective(section["name"], section["metric"], section["weights"], list(section["weights"]))
