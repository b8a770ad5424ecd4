"""What a command will cost, and a check of its runs before the first of them starts."""

from dataclasses import dataclass, replace
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.studies.commands import Command
from autoscale_exp.training.plan import plan_run


@dataclass(frozen=True)
class Cost:
    """Runs of a command and the tokens that they are trained on."""

    runs: int
    tokens: int


def cost_of(command: Command, store: TokenStore) -> Cost | None:
    """The cost of a command that trains, its runs checked as far as their mixtures are known; None for other jobs.

    Raises:
        UserError: a run cannot be made as configured.
    """
    if command.job != "train":
        return None
    budgets = [_tokens_of(conf, store) for conf in _runs_of(command, store)]
    return Cost(len(budgets), sum(budgets))


def _runs_of(command: Command, store: TokenStore) -> list[TrainConf]:
    """The config of every run; those of a design are made of the first one's."""
    if command.sweeps:
        return command.configs()
    (first,) = replace(command, overrides=[*command.overrides, "hydra.mode=RUN"]).configs()
    if isinstance(first.design, SingleConf):
        return [first]
    request = RunRequest(store.domains, first.token_budget, first.mixture.name, first.seed)
    count = len(design_runs(first.design, request))
    return [replace(first, design=replace(first.design, index=index)) for index in range(count)]


def _tokens_of(conf: TrainConf, store: TokenStore) -> int:
    """Tokens of a run; of one whose mixture a fit has yet to find, its budget."""
    if conf.mixture.kind == "file" and not Path(str(conf.mixture.path)).is_file():
        if conf.token_budget is None:
            raise UserError("token_budget is not set; a run of a mixture file needs one")
        return conf.token_budget
    try:
        return plan_run(conf, store).sampler.num_rows * store.seq_len
    except UserError as error:
        raise UserError(f"mixture {conf.mixture.name}: {error}") from None
