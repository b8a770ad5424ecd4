"""The runs of a command, checked before the first one starts."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import TrainConf
from autoscale_exp.data.manifest import MANIFEST
from autoscale_exp.data.store import TokenStore
from autoscale_exp.reweighting.conf import DoremiConf
from autoscale_exp.runs.design import RunRequest
from autoscale_exp.runs.designs import design_runs
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.record import is_recorded
from autoscale_exp.studies.commands import Command
from autoscale_exp.training.plan import is_finished, plan_run


@dataclass(frozen=True)
class StageRun:
    """A run of a stage.

    Attributes:
        conf: its config.
        tokens: tokens that it trains on, or its token budget if it waits for the result of another stage.
        finished: whether its result is there.
    """

    conf: TrainConf
    tokens: int
    finished: bool = False


def runs_of(command: Command, store: TokenStore, study: Path) -> list[StageRun]:
    """Returns the runs of a `train` command, checked unless they wait for another stage; none of another job.

    Args:
        command: a command of the study.
        store: token store of the study.
        study: folder of the study.

    Raises:
        UserError: the config of a run is invalid.
    """
    if command.job != "train":
        return []
    return [_run_of(conf, store, study) for conf in _confs_of(command, store)]


def _confs_of(command: Command, store: TokenStore) -> list[TrainConf]:
    """The config of every run. Those of a design are made from that of the first run."""
    if command.sweeps:
        return command.configs()
    (first,) = replace(command, overrides=[*command.overrides, "hydra.mode=RUN"]).configs()
    if isinstance(first.design, SingleConf):
        return [first]
    request = RunRequest(store.domains, first.token_budget, first.mixture_name, first.seed)
    count = len(design_runs(first.design, request))
    return [replace(first, design=replace(first.design, index=index)) for index in range(count)]


def _run_of(conf: TrainConf, store: TokenStore, study: Path) -> StageRun:
    """A run by its config.

    Raises:
        UserError: the run cannot be made as configured, or its folder holds a run of another config.
    """
    if conf.token_budget is not None and _waits(conf, study):
        return StageRun(conf, conf.token_budget)
    if not (store.folder / MANIFEST).is_file():
        return StageRun(conf, _asked_for(conf, store))
    try:
        plan = plan_run(conf, store)
        name = conf.run_name if isinstance(conf.design, SingleConf) else plan.spec.run
        finished = is_finished(plan, Path(conf.output_dir) / "runs" / name)
        return StageRun(conf, plan.sampler.num_rows * store.seq_len, finished)
    except UserError as error:
        raise UserError(f"mixture {conf.mixture_name}: {error}") from None


def _asked_for(conf: TrainConf, store: TokenStore) -> int:
    """Tokens that a run asks for, without a token store. If its design varies domains, these are taken to be equal."""
    request = RunRequest(store.domains, conf.token_budget, conf.mixture_name, conf.seed)
    spec = design_runs(conf.design, request)[conf.design.index]
    return (
        int(spec.row_counts(np.full(len(store.domains), 1 / len(store.domains)), store.seq_len).sum()) * store.seq_len
    )


def _waits(conf: TrainConf, study: Path) -> bool:
    """Whether a run waits for a mixture file or a reference run that the study has not made yet."""
    mixture = Path(str(conf.mixture.path)) if conf.mixture.kind == "file" else None
    if mixture is not None and mixture.is_relative_to(study) and not mixture.is_file():
        return True
    reference = conf.reweighting.reference if isinstance(conf.reweighting, DoremiConf) else None
    return reference is not None and Path(reference).is_relative_to(study) and not is_recorded(Path(reference))
