"""The list of designs. Each has a module with its schema and its function, a line here, and a YAML in conf/design."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.design import DesignConf, RunRequest, RunSpec
from autoscale_exp.runs.designs.ddo import DdoConf, ddo_runs
from autoscale_exp.runs.designs.dirichlet import DirichletConf, dirichlet_runs
from autoscale_exp.runs.designs.grid import GridConf, grid_runs
from autoscale_exp.runs.designs.optimal import OptimalConf, optimal_runs
from autoscale_exp.runs.designs.single import SingleConf, single_run

DESIGNS: dict[str, tuple[type[DesignConf], Callable[[Any, RunRequest], list[RunSpec]]]] = {
    "single": (SingleConf, single_run),
    "ddo": (DdoConf, ddo_runs),
    "dirichlet": (DirichletConf, dirichlet_runs),
    "grid": (GridConf, grid_runs),
    "optimal": (OptimalConf, optimal_runs),
}


def design_runs(design: DesignConf, request: RunRequest) -> list[RunSpec]:
    """Lists all runs of a design, in the order of their indices.

    Raises:
        UserError: the section has no schema of a design, or a value of it is not allowed.
    """
    for schema, runs_of in DESIGNS.values():
        if type(design) is schema:
            return runs_of(design, request)
    raise UserError(
        f"design has no schema; begin its file with the line defaults: [/schema/<design>@_here_, _self_], <design> "
        f"being one of {', '.join(DESIGNS)}"
    )


def select_run(runs: Sequence[RunSpec], index: int) -> RunSpec:
    """The run at `index`.

    Raises:
        UserError: there is no such run, or its name is not allowed.
    """
    if not 0 <= index < len(runs):
        raise UserError(f"design.index is {index}, but the design has runs 0 to {len(runs) - 1}")
    run = runs[index]
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", run.run):
        raise UserError(f"the run name '{run.run}' may only have letters, digits, '_', '.' and '-'")
    return run
