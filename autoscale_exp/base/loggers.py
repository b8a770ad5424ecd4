"""The logger of one run. It is closed with the run, so that the next run in the same process begins its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError, first_line

log = logging.getLogger(__name__)

WANDB = "autoscale_exp.base.wandb_runs.open_wandb"  # `_target_` of conf/logger/wandb.yaml


@dataclass(frozen=True)
class LoggedRun:
    """The names by which a job's work is logged.

    Attributes:
        name: name of the run.
        group: the sweep that it belongs to.
        job_type: search, target, fit, report or evaluation.
        id: id of the run, which stays when the run is resumed; None for a job that is never resumed.
    """

    name: str
    group: str
    job_type: str
    id: str | None = None


@contextmanager
def open_logger(conf: dict[str, Any] | None, folder: Path, run: LoggedRun) -> Iterator[Any]:
    """Opens the Lightning logger of a `logger` section, which writes to `folder`; None without a section.

    An error inside marks the run as failed. An error of the logger on closing is only a warning.

    Raises:
        UserError: the section names no class, W&B cannot be used as it is set up, for example without a login, or a
            package is missing.
    """
    if not conf:
        yield None
        return
    if "_target_" not in conf:
        raise UserError("logger has no _target_; give the name of a class, or choose logger=csv, tensorboard or wandb")
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    # The process that opens a logger logs, whichever of Slurm's tasks it is.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    try:
        logger = instantiate(conf, save_dir=str(folder), **(asdict(run) if conf["_target_"] == WANDB else {}))
        _ = logger.experiment  # loggers other than W&B's begin their run here
    except Exception as error:
        if refusal := _refusal(error):
            raise refusal from None
        raise
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        with errors_told(run.name):
            logger.finalize(status)
            if hasattr(logger.experiment, "finish"):  # W&B's run stays open otherwise
                logger.experiment.finish(exit_code=int(status == "failed"))


@contextmanager
def errors_told(name: str) -> Iterator[None]:
    """Turns errors of the logger of `name` into warnings, as its results are already written."""
    try:
        yield
    except Exception as error:
        log.warning("the log of %s is not whole: %s", name, first_line(error))


def is_of_wandb(error: BaseException) -> bool:
    """Whether W&B raised an error. Not all of its errors are a `wandb.Error`."""
    return type(error).__module__.startswith("wandb")


def _refusal(error: Exception) -> UserError | None:
    """What the user can do about an error while a logger opens; None if it is not the user's mistake."""
    cause = error.__cause__ or error  # Hydra wraps errors of a constructor
    if is_of_wandb(cause):
        return UserError(
            f"logger=wandb cannot be used: {first_line(cause)}; run `wandb login`, set WANDB_MODE=offline in the "
            "environment, or give logger=csv"
        )
    if isinstance(cause, ModuleNotFoundError) and "tensorboard" in str(cause):
        return UserError(
            "logger=tensorboard needs the package tensorboard, which is not installed; run `pip install "
            "'autoscale_exp[tensorboard]'`, or give logger=csv"
        )
    return None
