"""The logger of one run, closed with it, so that the next run of a sweep in the same process begins its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError, first_line


@contextmanager
def open_logger(conf: dict[str, Any] | None, folder: Path) -> Iterator[Any]:
    """The Lightning logger of a `logger` section, writing to `folder`; None without a section.

    An error inside marks the run as failed.

    Raises:
        UserError: W&B cannot be used as it is set up, as without a login.
    """
    if not conf:
        yield None
        return
    logger = instantiate(conf, save_dir=str(folder))
    # Lightning 2.6 hands on W&B's former option `anonymous`, even unset, and W&B warns of it in every run.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    try:
        _ = logger.experiment  # where W&B begins its run
    except Exception as error:
        if not type(error).__module__.startswith("wandb"):
            raise
        raise UserError(
            f"logger=wandb cannot be used: {first_line(error)}; run `wandb login`, set WANDB_MODE=offline in the "
            "environment, or give logger=csv"
        ) from None
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)
        if hasattr(logger.experiment, "finish"):  # W&B's run stays open otherwise, and a second one would join it
            logger.experiment.finish(exit_code=int(status == "failed"))
