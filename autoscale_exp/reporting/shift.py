"""Whether the best mixture moves with scale: the optima of single scales, and what they are worth at the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoscale_exp.laws.fit_file import FittedMixture, read_fit
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.mixture_files import fit_of, mixture_file
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.runs.record import RunRecord

SAME_SCALE = 0.05  # largest relative difference of a budget from the median of a scale's runs


@dataclass(frozen=True)
class ScaleOptimum:
    """The best mixture by the runs of a single scale, or one extrapolated from several.

    Attributes:
        optimum: the mixture, with intervals of its weights.
        num_scales: number of scales of the runs that it was found with.
        difference: its objective at the target, less that of the extrapolated mixture; None for the latter.
    """

    optimum: FittedMixture
    num_scales: int
    difference: Difference | None


def shift_of(targets: Path, mixtures: Mapping[str, MixtureRuns], extrapolated: str) -> dict[str, ScaleOptimum]:
    """Returns optima by scale, the extrapolated one last; none if fewer than two mixtures were found at a single scale.

    Args:
        targets: folder of the target runs.
        mixtures: target runs by mixture.
        extrapolated: the mixture that the others are compared with.
    """
    found = {name: _fitted(targets, mixture.records[0]) for name, mixture in mixtures.items()}
    single = {name: entry for name, (entry, scales) in found.items() if entry and _is_at(entry, scales)}
    if len(single) < 2 or extrapolated not in mixtures or (own := found[extrapolated])[0] is None:
        return {}
    differences = compare(mixtures, extrapolated)
    ordered = sorted(single, key=lambda name: single[name].tokens)
    optima = {name: ScaleOptimum(single[name], 1, differences[name]) for name in ordered}
    return optima | {extrapolated: ScaleOptimum(own[0], len(own[1]), None)}


def _is_at(entry: FittedMixture, scales: Sequence[int]) -> bool:
    """Whether a mixture is the best at the only scale of the runs that it was found with."""
    return len(scales) == 1 and abs(entry.tokens / scales[0] - 1) < SAME_SCALE


def _fitted(targets: Path, record: RunRecord) -> tuple[FittedMixture | None, list[int]]:
    """The entry of the fit that a run's mixture comes from, and the token budgets of the scales of that fit."""
    file = mixture_file(targets, record)
    folder = file and fit_of(file)
    if file is None or folder is None:
        return None, []
    fit = read_fit(folder, "fit")
    mine = (
        entry
        for entry in fit.targets
        if all(abs(entry.weights[domain] - weight) < 1e-6 for domain, weight in record.requested_weights.items())
    )
    return next(mine, None), [scale.tokens for scale in fit.scales]
