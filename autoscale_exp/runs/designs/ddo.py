"""The design of Direct Data Optimization: more or less of one domain at a time."""

import math
from dataclasses import dataclass

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import RunRequest, RunSpec, ScaledDesignConf, base_runs, check_scales


@dataclass
class DdoConf(ScaledDesignConf):
    """At each scale a base run and, per domain, one with more and one with less of it (AutoScale, stage 1)."""

    factor: float = 3.0  # multiplies or divides the tokens of one domain; those of the others stay


def ddo_runs(design: DdoConf, request: RunRequest) -> list[RunSpec]:
    """Lists, at each scale, the base run, its repeats, then each domain with its tokens times and over the factor.

    These are 2K + 1 + base_repeats runs per scale. They vary amounts, not proportions: the total changes too.

    Raises:
        UserError: scales are missing or not distinct, or the factor is not above 1.
    """
    check_scales(design.scales)
    if not 1 < design.factor < math.inf:
        raise UserError(f"design.factor is {design.factor}; it must be a number above 1")
    check_range({"design.base_repeats": design.base_repeats}, 0)
    runs: list[RunSpec] = []
    unchanged = (1.0,) * len(request.domains)
    for budget in design.scales:
        scale = budget_label(budget)
        runs += base_runs(budget, design.base_repeats, request)
        for index, domain in enumerate(request.domains):
            for factor in (design.factor, 1 / design.factor):
                multipliers = (*unchanged[:index], factor, *unchanged[index + 1 :])
                runs.append(RunSpec(f"{domain}_x{factor:.3g}_{scale}", budget, multipliers))
    return runs
