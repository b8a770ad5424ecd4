"""The published law: Direct Data Optimization (DDO) at each scale, scales joined by AutoScale.

Source: AutoScale, arXiv 2407.20177. At one scale, the objective's response to each domain's tokens alone is
J(n_i) / J_base = (a_i + n_i / u_i)^(-gamma_i) + l_i, with u_i the base run's tokens of that domain: there is no
amplitude, so units matter, and the authors take these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from autoscale_exp.laws.autoscale import ScalePath
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Bounds, Optimum, power_law_optimum
from autoscale_exp.mixture.allocation import FloatArray, Int64Array
from autoscale_exp.runs.record import RunTable, scales_of

# An offset of 1,000 base amounts or an exponent of 20 is a straight line to three points: no evidence of curvature.
OFFSET_LIMIT, EXPONENT_LIMIT = 1e3, 20.0
LOG_LIMITS = np.log([OFFSET_LIMIT, EXPONENT_LIMIT])
STARTS = ((1.0, 0.5), (2.5, 1.5), (0.1, 0.2), (10.0, 3.0))


@dataclass(frozen=True)
class DdoScale:
    """The fitted responses at one scale.

    Attributes:
        base_tokens: (K,) domain tokens of the base run; the units of `offset`.
        base_objective: its objective.
        offset: (K,) a_i, base amounts.
        exponent: (K,) gamma_i; 0 where more of the domain did not help.
        floor: (K,) l_i, relative to the base objective.
        residual: (K,) root mean square of the fit's residuals, relative to the base objective.
        points: per domain the (n_i / u_i, J / J_base) that were fitted.
        notes: what is odd about the fits, in words.
    """

    base_tokens: FloatArray
    base_objective: float
    offset: FloatArray
    exponent: FloatArray
    floor: FloatArray
    residual: FloatArray
    points: list[list[tuple[float, float]]]
    notes: list[str]

    @property
    def tokens(self) -> int:
        """The scale: tokens of the base run."""
        return round(float(self.base_tokens.sum()))

    def response(self, index: int, multiples: FloatArray) -> FloatArray:
        """Fitted J / J_base of domain `index` alone at multiples of its base tokens."""
        return (self.offset[index] + multiples) ** -self.exponent[index] + self.floor[index]

    def objective_at(self, domain_tokens: FloatArray) -> float:
        """Predicted objective: the domains' responses added up, as DDO assumes."""
        multiples = domain_tokens / self.base_tokens
        changes = (self.offset + multiples) ** -self.exponent - (self.offset + 1) ** -self.exponent
        return self.base_objective * (1 + float(changes.sum()))

    def optimum(self, bounds: Bounds) -> tuple[FloatArray, float]:
        """(K,) weights of the best mixture at this scale, and its KKT residual."""
        total = self.base_tokens.sum()
        tokens, residual = power_law_optimum(self.offset, self.exponent, self.base_tokens, total, bounds)
        return tokens / total, residual


def fit_response(
    multiples: FloatArray, values: FloatArray, starts: Sequence[tuple[float, float]] = STARTS
) -> tuple[float, float, float, float]:
    """Fits (a + x)^(-gamma) + l by least squares, from several starts; through three points it is exact if it can be.

    Args:
        multiples: (P,) x, multiples of the base amount, 1 among them.
        values: (P,) J / J_base.
        starts: pairs (a, gamma) to start from.

    Returns:
        a > 0, gamma >= 0, l and the root mean square residual. gamma is 0 if more did not help.
    """
    if np.polyfit(np.log(multiples), values, 1)[0] >= 0:
        return 1.0, 0.0, float(values.mean() - 1), float(values.std())

    def curve(parameters: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        offset, exponent = np.exp(np.minimum(parameters[:2], LOG_LIMITS))  # keeps both positive and bounded
        return offset + multiples, exponent, (offset + multiples) ** -exponent

    def residuals(parameters: FloatArray) -> FloatArray:
        return curve(parameters)[2] + parameters[2] - values

    def jacobian(parameters: FloatArray) -> FloatArray:
        shifted, exponent, power = curve(parameters)
        offset = shifted[0] - multiples[0]
        slopes = -offset * exponent * power / shifted, -exponent * np.log(shifted) * power, np.ones_like(power)
        return np.stack(slopes, axis=1)

    fits = []
    for offset, exponent in starts:
        floor = float(np.mean(values - (offset + multiples) ** -exponent))
        start = (np.log(offset), np.log(exponent), floor)
        fits.append(least_squares(residuals, start, jacobian, method="lm", xtol=1e-12, ftol=1e-12, gtol=1e-12))
    # Three points can lie on two such curves exactly. The one with the larger exponent and floor promises less from
    # more data, and is the one that the authors publish.
    least = min(fit.cost for fit in fits)
    best = max((fit for fit in fits if fit.cost <= least + 1e-18), key=lambda fit: fit.x[1])
    offset, exponent = np.exp(np.minimum(best.x[:2], LOG_LIMITS))
    return float(offset), float(exponent), float(best.x[2]), float(np.sqrt(2 * best.cost / len(values)))


def fit_scale(table: RunTable, rows: Int64Array, objective: Objective, losses: FloatArray) -> DdoScale:
    """Fits all responses of one scale. `losses` (R, V) stands in for the table's, for resampling.

    Raises:
        ValueError: the rows hold no DDO design; the message says which probe is missing.
    """
    base, varied = find_design(table, rows)
    _check_design(table, rows, base, varied)
    values = objective(losses)
    base_objective = float(values[base].mean())
    base_tokens = table.domain_tokens[base[0]]
    fits, points, notes = [], [], []
    for index, domain in enumerate(table.domains):
        of_domain = [(1.0, 1.0)] + [
            (float(table.domain_tokens[r, index] / base_tokens[index]), float(values[r] / base_objective))
            for r in varied[index]
        ]
        of_domain.sort()
        multiples, ratios = np.array(of_domain).T
        fit = fit_response(multiples, ratios)
        if fit[1] == 0:
            notes.append(f"{domain}: more of it did not lower the objective; it gets its lower bound")
        elif fit[0] > 0.99 * OFFSET_LIMIT or fit[1] > 0.99 * EXPONENT_LIMIT:
            notes.append(f"{domain}: its response shows no curvature, so its optimum is not determined")
        elif fit[3] > 1e-4 and len(of_domain) == 3:
            notes.append(f"{domain}: its three points are not those of a power law (residual {fit[3]:.1e})")
        fits.append(fit)
        points.append(of_domain)
    offset, exponent, floor, residual = np.array(fits).T
    return DdoScale(base_tokens, base_objective, offset, exponent, floor, residual, points, notes)


def find_design(table: RunTable, rows: Int64Array) -> tuple[list[int], list[list[int]]]:
    """The rows of the base run and its repeats, and per domain the rows that differ from it in that domain alone.

    The base is the run that most others differ from in one domain only.
    """
    tokens = table.domain_tokens[rows]
    best: tuple[int, list[int], list[list[int]]] = (-1, [], [])
    for candidate in tokens:
        differs = ~np.isclose(tokens, candidate, rtol=1e-3)  # others may be off by a row where budgets were rounded
        single = differs.sum(axis=1) == 1
        varied = [rows[single & differs[:, index]].tolist() for index in range(len(table.domains))]
        if single.sum() > best[0]:
            best = int(single.sum()), rows[differs.sum(axis=1) == 0].tolist(), varied
    return best[1:]


def _check_design(table: RunTable, rows: Int64Array, base: list[int], varied: list[list[int]]) -> None:
    """Raises ValueError where a domain lacks two probes, or a run belongs to no domain."""
    label = f"scale {table.scales[rows[0]]}" if table.scales else "the table"
    for index, (domain, of_domain) in enumerate(zip(table.domains, varied, strict=True)):
        if len({float(table.domain_tokens[r, index]) for r in of_domain}) < 2:
            raise ValueError(
                f"law=ddo needs a base run and, per domain, two runs that change only that domain; in {label}, "
                f"with base '{table.runs[base[0]]}', '{domain}' has {len(of_domain)}. Train the missing probes (the "
                "sweep's command starts only those), or choose another law"
            )
    unused = sorted(set(rows.tolist()) - set(base) - {r for of_domain in varied for r in of_domain})
    if unused:
        raise ValueError(
            f"law=ddo cannot use run '{table.runs[unused[0]]}' of {label}: it differs from the base run "
            f"'{table.runs[base[0]]}' in more than one domain; leave it out, or choose another law"
        )


@dataclass(frozen=True)
class DdoLaw:
    """DDO at every scale of a run table, and the AutoScale path through their optima.

    Attributes:
        domains: (K,) names.
        objective: what was minimised.
        scales: fitted responses, smallest scale first.
        rows: per scale the rows of the run table that it was fitted to.
        bounds: shares within which optima were sought.
    """

    domains: list[str]
    objective: Objective
    scales: list[DdoScale]
    rows: list[Int64Array]
    bounds: Bounds

    def scale_optimum(self, scale: DdoScale) -> Optimum:
        """The optimum at one of the scales."""
        weights, residual = scale.optimum(self.bounds)
        active = self.bounds.describe(weights, self.domains)
        value = scale.objective_at(weights * scale.base_tokens.sum())
        return Optimum(scale.tokens, weights, active, "DDO", value, residual)

    def path(self) -> ScalePath:
        """The path of optima through the scales; needs two."""
        optima = [self.scale_optimum(scale) for scale in self.scales]
        return ScalePath.through([o.tokens for o in optima], [o.weights for o in optima], self.domains, self.bounds)


def fit_ddo(table: RunTable, objective: Objective, bounds: Bounds, *, losses: FloatArray | None = None) -> DdoLaw:
    """Fits DDO at every scale of a run table.

    Args:
        table: runs of a DDO design at one scale or more.
        objective: what is minimised.
        bounds: shares of the budget.
        losses: (R, V) in place of the table's, for resampling.
    """
    values = table.losses if losses is None else losses
    groups = scales_of(table)
    scales = [fit_scale(table, rows, objective, values) for rows in groups]
    return DdoLaw(table.domains, objective, scales, groups, bounds)


def law_content(law: DdoLaw) -> dict[str, Any]:
    """The content of law.json: everything that the law's predictions follow from."""
    return {
        "law": "ddo",
        "domains": law.domains,
        "objective": {"metric": law.objective.metric, "weights": law.objective.weights.tolist()},
        "bounds": {"lower": law.bounds.lower.tolist(), "upper": law.bounds.upper.tolist()},
        "scales": [
            {
                "base_tokens": scale.base_tokens.tolist(),
                "base_objective": scale.base_objective,
                "offset": scale.offset.tolist(),
                "exponent": scale.exponent.tolist(),
                "floor": scale.floor.tolist(),
            }
            for scale in law.scales
        ],
    }
