"""AutoScale as one of the laws. It finds mixtures without predicting losses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.laws.autoscale.ddo import DdoScale, check_design, fit_scale
from autoscale_exp.laws.autoscale.path import ScalePath
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Bounds, Optimum
from autoscale_exp.runs.table import RunTable, scales_of


@dataclass(frozen=True)
class AutoscaleFit:
    """DDO's responses of one objective at every scale. They give the optima at the scales and the path through them.

    Attributes:
        domains: (K,) names.
        scales: fitted responses, smallest scale first.
        bounds: limits on the weights.
    """

    domains: list[str]
    scales: list[DdoScale]
    bounds: Bounds

    def scale_optimum(self, scale: DdoScale) -> Optimum:
        """The optimum at one of the scales."""
        weights, residual = scale.optimum(self.bounds)
        active = self.bounds.describe(weights, self.domains)
        value = scale.objective_at(weights * scale.base_tokens.sum())
        return Optimum(scale.tokens, weights, active, "DDO", value, residual)

    def path(self) -> ScalePath:
        """The path of optima through the scales.

        Raises:
            UserError: there are not two scales, or their optima have no path; see `ScalePath.through`.
        """
        optima = [self.scale_optimum(scale) for scale in self.scales]
        return ScalePath.through([o.tokens for o in optima], [o.weights for o in optima], self.domains, self.bounds)


@dataclass(frozen=True)
class AutoscaleLaw:
    """The runs of DDO designs at one or more scales; see `Law`. `responses` fits them for an objective.

    Attributes:
        table: the runs.
        run_noise: (V,) standard deviation of a run's losses over seeds; NaN where no run is repeated.
    """

    name: ClassVar[str] = "autoscale"
    table: RunTable
    run_noise: FloatArray
    diagnostics: dict[str, Any]

    @property
    def domains(self) -> list[str]:
        """(K,) training domains."""
        return self.table.domains

    @property
    def validation_domains(self) -> list[str]:
        """(V,) validation domains."""
        return self.table.validation_domains

    @classmethod
    def fit(cls, table: RunTable, own: Int64Array) -> Self:
        """Takes the runs of a table, and ignores `own`.

        Raises:
            UserError: a scale holds no DDO design; the message says which run is missing.
        """
        for rows in scales_of(table):
            check_design(table, rows)
        residuals = seed_residuals(table)
        noise = residuals.std(axis=0) if len(residuals) else np.full(len(table.validation_domains), np.nan)
        notes = [] if len(residuals) else ["no run is repeated with another seed, so the noise is unknown"]
        return cls(table, noise, {"converged": True, "num_params": 0, "notes": notes})

    def responses(self, objective: Objective, bounds: Bounds) -> AutoscaleFit:
        """Fits DDO's responses of an objective at every scale."""
        scales = [fit_scale(self.table, rows, objective) for rows in scales_of(self.table)]
        return AutoscaleFit(self.domains, scales, bounds)

    def draws(self, num_draws: int, rng: np.random.Generator) -> Sequence[Self]:
        """Draws laws, with a deviation between seeds added to each run's losses; none if no run is repeated.

        The proxy runs of a design share a seed, so their differences are less noisy than those between seeds. Intervals
        from these draws are therefore wide rather than narrow.
        """
        residuals = seed_residuals(self.table)
        if not len(residuals):
            return []
        drawn = []
        for _ in range(num_draws):
            signs = rng.choice([-1.0, 1.0], size=(len(self.table.runs), 1))
            losses = self.table.losses + signs * residuals[rng.integers(len(residuals), size=len(self.table.runs))]
            drawn.append(replace(self, table=replace(self.table, losses=losses)))
        return drawn

    def content(self) -> dict[str, Any]:
        """Returns plain JSON from which `from_content` restores the law."""
        table = self.table
        return {
            "law": self.name,
            "domains": table.domains,
            "validation_domains": table.validation_domains,
            "runs": table.runs,
            "scales": table.scales,
            "domain_tokens": table.domain_tokens.tolist(),
            "losses": table.losses.tolist(),
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Restores a law from its `content`."""
        table = RunTable(
            runs=content["runs"],
            domains=content["domains"],
            validation_domains=content["validation_domains"],
            domain_tokens=np.array(content["domain_tokens"]),
            losses=np.array(content["losses"]),
            scales=content["scales"],
        )
        return cls.fit(table, np.empty(0, np.int64))


def seed_residuals(table: RunTable) -> FloatArray:
    """Returns (Q, V) deviations of repeated runs from their mean, scaled to a single run's spread.

    Runs are repeats if all their domain tokens are the same. Q is 0 without repeats.
    """
    keys = [tuple(tokens) for tokens in table.domain_tokens]
    deviations = [np.empty((0, table.losses.shape[1]))]
    for key in dict.fromkeys(keys):
        losses = table.losses[[other == key for other in keys]]
        if len(losses) > 1:
            deviations.append((losses - losses.mean(axis=0)) * np.sqrt(len(losses) / (len(losses) - 1)))
    return np.concatenate(deviations)
