"""Direct Data Optimization's design: one domain's tokens at a time, more and less of them."""

import math
from dataclasses import dataclass

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import RunRequest, RunSpec, ScaledDesignConf


@dataclass
class DdoConf(ScaledDesignConf):
    """At each scale a base run and, per domain, one with more and one with less of it (AutoScale, stage 1)."""

    factor: float = 3.0  # one domain's tokens are multiplied and divided by it, the others stay
    base_repeats: int = 0  # further base runs per scale, with the next seeds: they measure the seed noise


def ddo_runs(design: DdoConf, request: RunRequest) -> list[RunSpec]:
    """Base, repeats of the base, then each domain times and divided by the factor; scale after scale.

    2K + 1 + base_repeats runs per scale. This perturbs amounts, not proportions: the total changes too.

    Raises:
        UserError: scales are missing or doubled, or the factor is not above 1.
    """
    if not design.scales or len(set(design.scales)) != len(design.scales) or min(design.scales) < 1:
        raise UserError(f"design.scales must be distinct positive token budgets, but is {design.scales}")
    if not 1 < design.factor < math.inf:
        raise UserError(f"design.factor is {design.factor}; it must be a number above 1")
    check_range({"design.base_repeats": design.base_repeats}, 0)
    runs = []
    unchanged = (1.0,) * len(request.domains)
    for budget in design.scales:
        scale = budget_label(budget)
        for repeat in range(design.base_repeats + 1):
            name = f"base_seed{repeat}_{scale}" if repeat else f"base_{scale}"
            runs.append(RunSpec(name, budget, unchanged, seed_offset=repeat))
        for index, domain in enumerate(request.domains):
            for factor in (design.factor, 1 / design.factor):
                multipliers = (*unchanged[:index], factor, *unchanged[index + 1 :])
                runs.append(RunSpec(f"{domain}_x{factor:.3g}_{scale}", budget, multipliers))
    return runs
