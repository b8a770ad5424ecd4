"""Stage 1, Direct Data Optimization (DDO): the best mixture at one scale.

Source: AutoScale, arXiv 2407.20177. At one scale, the objective responds to each domain's tokens alone by
J(n_i) / J_base = (a_i + n_i / u_i)^(-gamma_i) + l_i, where u_i are the base run's tokens of that domain. There is no
amplitude, so the units matter; these are the authors'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import Bounds, power_law_optimum
from autoscale_exp.runs.table import RunTable

# With an offset of 1,000 base amounts or an exponent of 20 the curve is straight through three points: they show no
# curvature.
OFFSET_LIMIT, EXPONENT_LIMIT = 1e3, 20.0
LOG_LIMITS = np.log([OFFSET_LIMIT, EXPONENT_LIMIT])
STARTS = ((1.0, 0.5), (2.5, 1.5), (0.1, 0.2), (10.0, 3.0))


@dataclass(frozen=True)
class DdoScale:
    """The fitted responses at one scale.

    Attributes:
        base_tokens: (K,) u_i, domain tokens of the base run.
        base_objective: objective of the base run.
        offset: (K,) a_i, in multiples of u_i.
        exponent: (K,) gamma_i; 0 where more of the domain did not help.
        floor: (K,) l_i, relative to the base objective.
        residual: (K,) root mean square of the fit's residuals, relative to the base objective.
        points: for each domain, the (n_i / u_i, J / J_base) that were fitted.
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
        """Returns the fitted J / J_base at multiples of the base tokens of domain `index`, other tokens fixed."""
        return (self.offset[index] + multiples) ** -self.exponent[index] + self.floor[index]

    def objective_at(self, domain_tokens: FloatArray) -> float:
        """Predicts the objective as the sum of the domains' responses, as DDO assumes."""
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
    """Fits (a + x)^(-gamma) + l by least squares, from several starts. It meets three points exactly if a curve can.

    Args:
        multiples: (P,) x, multiples of the base amount, 1 among them.
        values: (P,) J / J_base.
        starts: pairs (a, gamma) to start from.

    Returns:
        a > 0, gamma >= 0, l, and the root mean square residual. gamma is 0 if more tokens did not help.
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
    # Three points can lie exactly on two such curves. We take the one with the larger exponent and floor: it promises
    # less from more data, and is the one that the authors publish.
    least = min(fit.cost for fit in fits)
    best = max((fit for fit in fits if fit.cost <= least + 1e-18), key=lambda fit: fit.x[1])
    offset, exponent = np.exp(np.minimum(best.x[:2], LOG_LIMITS))
    return float(offset), float(exponent), float(best.x[2]), float(np.sqrt(2 * best.cost / len(values)))


def fit_scale(table: RunTable, rows: Int64Array, objective: Objective) -> DdoScale:
    """Fits all responses at one scale. Its rows must hold a DDO design; see `check_design`."""
    base, varied = find_design(table, rows)
    values = objective(table.losses)
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
    """Finds the rows of the base run and its repeats, and for each domain the rows that differ from it only there.

    The base run is the one from which others differ in one domain only, for the most domains and then the most runs. (A
    base run with many repeats differs in one domain from every run about it.)
    """
    tokens = table.domain_tokens[rows]
    best: tuple[tuple[int, int], list[int], list[list[int]]] = ((-1, -1), [], [])
    for candidate in tokens:
        differs = ~np.isclose(tokens, candidate, rtol=1e-3)  # others may be off by a row where budgets were rounded
        single = differs.sum(axis=1) == 1
        varied = [rows[single & differs[:, index]].tolist() for index in range(len(table.domains))]
        score = sum(map(bool, varied)), int(single.sum())
        if score > best[0]:
            best = score, rows[differs.sum(axis=1) == 0].tolist(), varied
    return best[1:]


def check_design(table: RunTable, rows: Int64Array) -> None:
    """Checks that the rows of a scale hold a DDO design.

    Raises:
        UserError: the base run lacks a domain, a domain lacks one of its two proxy runs, or a run differs from the base
            in several domains.
    """
    base, varied = find_design(table, rows)
    label = f"scale {table.scales[rows[0]]}" if table.scales else "the table"
    for index, (domain, of_domain) in enumerate(zip(table.domains, varied, strict=True)):
        if not table.domain_tokens[base[0], index]:
            raise UserError(
                f"law=autoscale fits multiples of the base run's tokens, but in {label} the base run "
                f"'{table.runs[base[0]]}' has none of '{domain}'; train a base run with some, or choose another law"
            )
        if len({float(table.domain_tokens[r, index]) for r in of_domain}) < 2:
            raise UserError(
                f"law=autoscale needs a base run and, per domain, two runs that change only that domain; in {label}, "
                f"with base '{table.runs[base[0]]}', '{domain}' has {len(of_domain)}. Train the missing proxy runs "
                "(the sweep's command starts only those), or choose another law"
            )
    unused = sorted(set(rows.tolist()) - set(base) - {r for of_domain in varied for r in of_domain})
    if unused:
        raise UserError(
            f"law=autoscale cannot use run '{table.runs[unused[0]]}' of {label}: it differs from the base run "
            f"'{table.runs[base[0]]}' in more than one domain; leave it out, or choose another law"
        )
