"""The logger of one run, closed with it, so that the next run of a sweep in the same process begins its own."""

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
    """How what a job does is called where it is logged.

    Attributes:
        name: name of the run.
        group: sweep that it belongs to.
        job_type: search, target, fit, report or evaluation.
        id: id of the run, which stays when the run is resumed; None for a job that is never resumed.
    """

    name: str
    group: str
    job_type: str
    id: str | None = None


@contextmanager
def open_logger(conf: dict[str, Any] | None, folder: Path, run: LoggedRun) -> Iterator[Any]:
    """The Lightning logger of a `logger` section, writing to `folder`; None without a section.

    An error inside marks the run as failed. One of the logger itself, as it is closed, is a warning.

    Raises:
        UserError: W&B cannot be used as it is set up, as without a login, or a package is missing.
    """
    if not conf:
        yield None
        return
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    # Who opens a logger logs, whichever of Slurm's tasks this is.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    try:
        logger = instantiate(conf, save_dir=str(folder), **(asdict(run) if conf["_target_"] == WANDB else {}))
        _ = logger.experiment  # where others than W&B begin their run
    except Exception as error:
        raise _refusal(error) or error from None
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
    """Makes a warning of an error of the logger of `name`, whose results are written: it costs them not."""
    try:
        yield
    except Exception as error:
        log.warning("the log of %s is not whole: %s", name, first_line(error))


def is_of_wandb(error: BaseException) -> bool:
    """Whether W&B raised an error; not all of its errors are a `wandb.Error`."""
    return type(error).__module__.startswith("wandb")


def _refusal(error: Exception) -> UserError | None:
    """What the user can do about an error of a logger that opens; None: it is no mistake of theirs."""
    cause = error.__cause__ or error  # Hydra wraps what a constructor raises
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
