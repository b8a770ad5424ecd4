"""The design of a single run, such as a target run."""

from dataclasses import dataclass

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.runs.design import DesignConf, RunRequest, RunSpec


@dataclass
class SingleConf(DesignConf):
    """One run of the mixture at `token_budget`."""


def single_run(design: SingleConf, request: RunRequest) -> list[RunSpec]:
    """Lists the one run.

    Raises:
        UserError: there is no token budget.
    """
    budget = request.token_budget
    if budget is None or budget < 1:
        raise UserError(f"token_budget must be a positive number of tokens for design=single, but is {budget}")
    name = f"{request.mixture}_{budget_label(budget)}_seed{request.seed}"
    return [RunSpec(name, budget, (1.0,) * len(request.domains))]
