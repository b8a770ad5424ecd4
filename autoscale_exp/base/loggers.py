"""The logger of one run, closed with it, so that the next run of a sweep in the same process begins its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate


@contextmanager
def open_logger(conf: dict[str, Any] | None, folder: Path) -> Iterator[Any]:
    """The Lightning logger of a `logger` section, writing to `folder`; None without a section.

    An error inside marks the run as failed.
    """
    if not conf:
        yield None
        return
    logger = instantiate(conf, save_dir=str(folder))
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)
        if hasattr(logger.experiment, "finish"):  # W&B's run stays open otherwise, and a second one would join it
            logger.experiment.finish(exit_code=int(status == "failed"))
