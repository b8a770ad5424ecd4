"""The design of a brute-force search: a regular grid over all mixtures."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import RunRequest, RunSpec, ScaledDesignConf, base_runs, check_scales


@dataclass
class GridConf(ScaledDesignConf):
    """At each scale a base run, and every mixture of a regular grid."""

    steps: int = 0  # number of steps from a domain's smallest weight to its largest
    lower: float = 0.0  # smallest weight of every domain


@dataclass(frozen=True, kw_only=True)
class GridRun(RunSpec):
    """A run of a grid.

    Attributes:
        mixture: (K,) weights of its point of the grid.
    """

    mixture: tuple[float, ...]

    def weights(self, base: FloatArray, caps: FloatArray) -> FloatArray:
        """(K,) weights of the point, whatever the base mixture; see `RunSpec`."""
        return np.array(self.mixture)


def grid_runs(design: GridConf, request: RunRequest) -> list[RunSpec]:
    """Lists, at each scale, the base runs and the points of the grid: (steps + K - 1) choose (K - 1) for K domains.

    Raises:
        UserError: a value is out of range.
    """
    check_scales(design.scales)
    check_range({"design.steps": design.steps}, 1)
    check_range({"design.base_repeats": design.base_repeats}, 0)
    count = len(request.domains)
    if not 0 <= design.lower < 1 / count:
        raise UserError(
            f"design.lower is {design.lower}; it must be at least 0 and below 1 / {count}, what each domain has in a "
            "uniform mixture"
        )
    runs = [run for budget in design.scales for run in base_runs(budget, design.base_repeats, request)]
    unchanged = (1.0,) * count
    return runs + [
        GridRun(f"grid{number:03d}_{budget_label(budget)}", budget, unchanged, mixture=mixture)
        for budget in design.scales
        for number, mixture in enumerate(lattice(count, design.steps, design.lower))
    ]


def lattice(count: int, steps: int, lower: float) -> list[tuple[float, ...]]:
    """All mixtures of `count` domains whose weights are whole steps above `lower`."""
    step = (1 - count * lower) / steps
    points = []
    for bars in combinations(range(steps + count - 1), count - 1):  # stars and bars
        parts = np.diff([-1, *bars, steps + count - 1]) - 1
        points.append(tuple(float(lower + part * step) for part in parts))
    return points
