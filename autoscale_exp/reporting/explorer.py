"""The mixture explorer: a page without network on which a reader moves a mixture and sees what the law expects of it.

The page evaluates the law and its draws itself, so its numbers are those of `predict`. For this, explorer_law.js has
the default law's formula and discrepancy in JavaScript, and the tests compare the two. Other laws have no such page.

D draws, V validation domains, K training domains, P parameters of a validation domain, R runs, F features.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.labels import short_label
from autoscale_exp.laws.discrepancy import NUM_DRAWN, NUM_FEATURES, REACH
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.laws.law import Law
from autoscale_exp.laws.mixture_kernel import KERNEL, num_rough, random_features
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.optimum import make_bounds
from autoscale_exp.laws.pooled.model_size import Size
from autoscale_exp.laws.pooled.points import LOG_NO_TEXT
from autoscale_exp.laws.pooled.pooled_transfer import PooledTransferLaw
from autoscale_exp.laws.pooled.priors import Scalar
from autoscale_exp.laws.repetition import DATA_DECAY, EXCESS_DECAY, TOKENS_PER_PARAMETER
from autoscale_exp.laws.solver.constraints import Constraints
from autoscale_exp.laws.solver.mixture_optimum import WorstCase, expected_optimum
from autoscale_exp.reporting.templates import source, template
from autoscale_exp.reporting.verdicts import objective_label, objective_weights

EXPLORER = "explorer.html"
NUM_DRAWS, SEED = 100, 0  # the defaults of `fit` and `predict`
MOST_NUMBERS = 330_000  # of the law and its draws, 8 bytes each before compression; the page stays below 6 MB
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # leading digits of the budgets and sizes to choose from
FURTHER = 10  # the largest budget or size to choose, over the largest that is known


@dataclass(frozen=True)
class Mark:
    """A mixture that the page shows by name.

    Attributes:
        name: its name on the page.
        weights: (K,) shares.
        kind: optimum, unconstrained, uniform or rival.
    """

    name: str
    weights: FloatArray
    kind: str


def write_explorer(
    folder: Path, fit: Fit, law: Law | None, rivals: Mapping[str, Mapping[str, float]] | None = None
) -> bool:
    """Writes explorer.html; returns whether the law has such a page.

    Args:
        folder: the folder to write to.
        fit: the fit whose mixtures the page shows.
        law: the law of the fit; None if it is unknown.
        rivals: weights by domain of further mixtures, by name.
    """
    if not isinstance(law, PooledTransferLaw):
        return False
    objective = fit.objective.over(law.validation_domains)
    assert objective is not None  # only given optima have none
    atomic.write_text(folder / EXPLORER, render_explorer(fit, law, objective, rivals or {}))
    return True


def render_explorer(
    fit: Fit, law: PooledTransferLaw, objective: Objective, rivals: Mapping[str, Mapping[str, float]]
) -> str:
    """Renders the page as an HTML document; see `write_explorer`."""
    shown, params = (fit.targets or fit.scales)[-1], law.discrepancy.params
    if shown.params is not None:
        law = law.at_size(shown.params)
    wanted = NUM_DRAWS if shown.objective_interval else 0  # as the fit itself
    count = min(wanted, draws_that_fit(law))
    draws = list(law.draws(count, np.random.default_rng(SEED))) if count else []
    arrays, numbers = law_content(law, draws)
    budgets = [mixture.tokens for mixture in [*fit.scales, *fit.targets]]
    content = {
        "law": numbers,
        "shapes": {name: array.shape for name, array in arrays.items()},
        "objective": {
            "label": objective_label(fit.objective),
            "metric": objective.metric,
            "aggregate": objective.aggregate,
            "weights": objective.weights.tolist(),
        },
        "budgets": steps_through(budgets, min(budgets), max(budgets) * FURTHER),
        "budget": shown.tokens,
        "sizes": []
        if law.formula.reference_params is None
        else steps_through([*params, law.params or params.max()], params.min() / FURTHER, params.max() * FURTHER),
        "size": law.params,
        "marks": [
            {"name": mark.name, "weights": mark.weights.tolist(), "kind": mark.kind}
            for mark in marks_of(fit, draws, objective, rivals)
        ],
    }
    return template("explorer.html.j2", label=short_label).render(
        content=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
        arrays=_packed(np.concatenate([array.ravel() for array in arrays.values()]).astype("<f8").tobytes()),
        plotly=plotly(),
        scripts=source("explorer_law.js") + source("explorer.js"),
        fit=fit,
        objective=objective_label(fit.objective),
        objective_weights=objective_weights(fit.objective),
        unique_tokens=None if law.unique_tokens is None else dict(zip(law.domains, law.unique_tokens, strict=True)),
        num_draws=len(draws),
        wanted_draws=wanted,
        budget=short_label(shown.tokens),
    )


def draws_that_fit(law: PooledTransferLaw) -> int:
    """Returns how many draws a page of limited size can hold."""
    runs, validation = law.discrepancy.losses.shape
    return max(MOST_NUMBERS // (validation * (law.theta.shape[1] + runs + NUM_DRAWN + 1)) - 1, 0)


def law_content(law: PooledTransferLaw, draws: Sequence[PooledTransferLaw]) -> tuple[dict[str, FloatArray], Any]:
    """Returns what the page evaluates: arrays of the law and then its draws, and the numbers that these share."""
    formula, process = law.formula, law.discrepancy
    laws = [law, *draws]
    corrections = [each.correction for each in laws if each.correction is not None]
    paths = [correction.features for correction in corrections if correction.features is not None]
    levels = [correction.level for correction in corrections if correction.level is not None]
    validation = len(law.validation_domains)
    frequencies, phases = random_features(len(law.domains), NUM_FEATURES)
    arrays = {
        "theta": np.stack([each.theta for each in laws]),  # (1 + D, V, P)
        "at_runs": np.stack([correction.at_runs.T for correction in corrections]),  # (1 + D, V, R)
        "features": np.array(paths).reshape(-1, validation, NUM_DRAWN),  # (D, V, F)
        "level": np.array(levels).reshape(-1, validation),  # (D, V)
        "run_points": process.run_points,
        "sd": process.sd,
        "frequencies": frequencies,
        "phases": phases,
    }
    numbers = {
        "domains": law.domains,
        "validation_domains": law.validation_domains,
        "columns": {scalar.name: int(scalar) for scalar in Scalar},
        "specific": formula.specific_weights.start,
        "generic": formula.generic_weights.start,
        "size": None
        if formula.reference_params is None
        else {size.name: formula.size_columns.start + int(size) for size in Size},
        "own": formula.own.tolist(),
        "reference_tokens": formula.reference_tokens,
        "reference_params": formula.reference_params,
        "log_generic_unit": formula.log_generic_unit,
        "log_no_text": LOG_NO_TEXT,
        "ceiling": law.ceiling,
        "exponent": process.exponent,
        "most_params": float(process.params.max()),
        "kernel": KERNEL._asdict(),
        "num_rough": num_rough(NUM_FEATURES),
        "growth": REACH.growth,
        "unique_tokens": law.unique_tokens,
        "data_decay": DATA_DECAY,
        "excess_decay": EXCESS_DECAY,
        "tokens_per_parameter": TOKENS_PER_PARAMETER,
    }
    return arrays, numbers


def marks_of(
    fit: Fit, draws: Sequence[PooledTransferLaw], objective: Objective, rivals: Mapping[str, Mapping[str, float]]
) -> list[Mark]:
    """Returns uniform, the optimum of each target, the one without bounds where bounds are active, and the rivals."""
    num_domains = len(fit.domains)
    marks = [Mark("uniform", np.full(num_domains, 1 / num_domains), "uniform")]
    for mixture in fit.targets or fit.scales:
        at = short_label(mixture.tokens)
        offered = _listed(mixture.weights, fit.domains)
        marks.append(Mark(f"optimum, {at}", offered, "optimum"))
        if mixture.active_bounds and draws:
            free = expected_optimum(
                [
                    draw.by_formula() if mixture.params is None else draw.at_size(mixture.params).by_formula()
                    for draw in draws
                ],
                objective if objective.aggregate == "mean" else WorstCase(objective.metric),
                mixture.tokens,
                Constraints(make_bounds(0.0, 1.0, fit.domains)),
            )
            marks.append(Mark(f"without bounds, {at}", free.weights, "unconstrained"))
    marks += [Mark(name, _listed(w, fit.domains), "rival") for name, w in rivals.items() if name != "uniform"]
    return marks


def steps_through(known: Iterable[float], least: float, most: float) -> list[float]:
    """Returns round numbers from `least` to `most`, ten in each decade, and the known ones, in rising order."""
    powers = range(int(np.floor(np.log10(least))), int(np.ceil(np.log10(most))) + 1)
    rounded = {float(f"{digits}e{power}") for power in powers for digits in ROUND}
    return sorted({float(number) for number in known} | {number for number in rounded if least <= number <= most})


@cache
def plotly() -> str:
    """Returns Plotly's library, compressed, as it takes 5 MB otherwise."""
    return _packed(resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")


def _listed(weights: Mapping[str, float], domains: Sequence[str]) -> FloatArray:
    return np.array([weights[domain] for domain in domains])
