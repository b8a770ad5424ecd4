"""What a command will cost, and a check of its runs before the first of them starts."""

from dataclasses import dataclass, replace
from pathlib import Path

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.reweighting.conf import DoremiConf
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import is_recorded
from autoscale_exp.studies.commands import Command
from autoscale_exp.training.plan import plan_run


@dataclass(frozen=True)
class Cost:
    """Runs of a command and the tokens that they are trained on."""

    runs: int
    tokens: int


def cost_of(command: Command, store: TokenStore, study: Path) -> Cost | None:
    """The cost of a command that trains, its runs checked unless they wait for another stage; None for other jobs.

    Args:
        command: of a study.
        store: its token store.
        study: its folder.

    Raises:
        UserError: a run cannot be made as configured.
    """
    if command.job != "train":
        return None
    budgets = [_tokens_of(conf, store, study) for conf in _runs_of(command, store)]
    return Cost(len(budgets), sum(budgets))


def _runs_of(command: Command, store: TokenStore) -> list[TrainConf]:
    """The config of every run; those of a design are made of the first one's."""
    if command.sweeps:
        return command.configs()
    (first,) = replace(command, overrides=[*command.overrides, "hydra.mode=RUN"]).configs()
    if isinstance(first.design, SingleConf):
        return [first]
    request = RunRequest(store.domains, first.token_budget, first.mixture_name, first.seed)
    count = len(design_runs(first.design, request))
    return [replace(first, design=replace(first.design, index=index)) for index in range(count)]


def _tokens_of(conf: TrainConf, store: TokenStore, study: Path) -> int:
    """Tokens of a run; of one that waits for what another stage finds, its budget."""
    if conf.token_budget is not None and _waits(conf, study):
        return conf.token_budget
    try:
        return plan_run(conf, store).sampler.num_rows * store.seq_len
    except UserError as error:
        raise UserError(f"mixture {conf.mixture_name}: {error}") from None


def _waits(conf: TrainConf, study: Path) -> bool:
    """Whether the mixture file or the reference run of a run is to come from the study, and is not there yet."""
    mixture = Path(str(conf.mixture.path)) if conf.mixture.kind == "file" else None
    if mixture is not None and mixture.is_relative_to(study) and not mixture.is_file():
        return True
    reference = conf.reweighting.reference if isinstance(conf.reweighting, DoremiConf) else None
    return reference is not None and Path(reference).is_relative_to(study) and not is_recorded(Path(reference))
