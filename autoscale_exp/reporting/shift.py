"""Whether the best mixture moves with scale: optima of single scales, and what they are worth at the target."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoscale_exp.laws.fit_file import FittedMixture, read_fit
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.mixture_files import fit_of, mixture_file
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.runs.record import RunRecord


@dataclass(frozen=True)
class ScaleOptimum:
    """The best mixture by the runs of one scale alone, or one extrapolated from several.

    Attributes:
        optimum: with intervals of its weights.
        num_scales: of the runs that it was found with.
        difference: at the target, less the extrapolated mixture's; None for that one.
    """

    optimum: FittedMixture
    num_scales: int
    difference: Difference | None


def shift_of(targets: Path, mixtures: Mapping[str, MixtureRuns], extrapolated: str) -> dict[str, ScaleOptimum]:
    """Optima by scale, the extrapolated one last; empty where fewer than two mixtures were found at a single scale.

    Args:
        targets: folder of the target runs.
        mixtures: target runs by mixture.
        extrapolated: the mixture that the others are compared with.
    """
    found = {name: _fitted(targets, mixture.records[0]) for name, mixture in mixtures.items()}
    single = {name: entry for name, (entry, scales) in found.items() if entry and scales == 1}
    if len(single) < 2 or extrapolated not in mixtures or (own := found[extrapolated])[0] is None:
        return {}
    differences = compare(mixtures, extrapolated)
    ordered = sorted(single, key=lambda name: single[name].tokens)
    optima = {name: ScaleOptimum(single[name], 1, differences[name]) for name in ordered}
    return optima | {extrapolated: ScaleOptimum(own[0], own[1], None)}


def _fitted(targets: Path, record: RunRecord) -> tuple[FittedMixture | None, int]:
    """The entry of the fit that a run's mixture comes from, and how many scales that fit has seen."""
    file = mixture_file(targets, record)
    folder = file and fit_of(file)
    if file is None or folder is None:
        return None, 0
    fit = read_fit(folder, "fit")
    mine = (
        entry
        for entry in fit.targets
        if all(abs(entry.weights[domain] - weight) < 1e-6 for domain, weight in record.requested_weights.items())
    )
    return next(mine, None), len(fit.scales)
