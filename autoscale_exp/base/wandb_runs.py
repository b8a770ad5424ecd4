"""Runs at W&B: opened quietly, with everything against tokens, and with files as artifacts that show their origin.

W&B identifies artifacts by name and content. So a job that uses a file logs it again,
under a name that follows from the file, and W&B sees that another job made it, even if both were offline.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from autoscale_exp.base.hashing import file_sha256

log = logging.getLogger(__name__)

X_AXIS = "tokens"
AGAINST_TOKENS = ("train/*", "val/*", "mixture/*", "throughput/*")
DATA_DIR = "WANDB_DATA_DIR"  # where W&B keeps copies of files until it has sent them


def open_wandb(
    save_dir: str,
    project: str,
    offline: bool,
    name: str,
    group: str,
    job_type: str,
    id: str | None,
    entity: str | None = None,
    tags: Sequence[str] | None = None,
) -> WandbLogger:
    """Opens Lightning's logger with a new W&B run, whatever other runs this process has open.

    W&B gets no data of the machine, and prints nothing. By default it would print ten lines per run.

    Args:
        save_dir: folder that gets the run's folder, in wandb/.
        project: project at W&B.
        offline: whether to only write files, for `wandb sync`; with WANDB_MODE=disabled there are none.
        name: name of the run.
        group: the run's sweep.
        job_type: search, target, fit, report or evaluation.
        id: id of the run, which is resumed if W&B has it; None for a new run.
        entity: user or team at W&B; None for that of the login.
        tags: tags of the run.
    """
    import wandb

    save_dir = os.path.abspath(save_dir)  # W&B's own process may have another working directory
    os.makedirs(save_dir, exist_ok=True)
    run = wandb.init(
        entity=entity,
        project=project,
        dir=save_dir,
        name=name,
        group=group,
        job_type=job_type,
        id=id,
        tags=tags,
        resume=None if id is None else "allow",
        mode="disabled" if os.environ.get("WANDB_MODE") == "disabled" else "offline" if offline else None,
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            host="-",
            disable_git=True,
            disable_code=True,
            x_disable_machine_info=True,
        ),
    )
    if not run.offline:
        log.info("%s is run %s at W&B", name, run.path)
    for metrics in AGAINST_TOKENS:
        run.define_metric(metrics, step_metric=X_AXIS)
    return WandbLogger(project=project, save_dir=save_dir, experiment=run)


def wandb_run(logger: Any) -> Any:
    """The W&B run of a logger; None for other loggers, and with WANDB_MODE=disabled."""
    return logger.experiment if isinstance(logger, WandbLogger) and not logger.experiment.disabled else None


def log_artifact(logger: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    """Logs files that a run has made; does nothing without W&B.

    Args:
        logger: the run's logger.
        name: name of the artifact.
        kind: run, fit, law or mixture.
        files: the files of the artifact.
    """
    if run := wandb_run(logger):
        with _copies_beside(run):
            run.log_artifact(_artifact(name, kind, files))


def use_artifact(logger: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    """Logs that a run uses files that `log_artifact` logs, before or later, under the same name."""
    if run := wandb_run(logger):
        with _copies_beside(run):
            # This is what run.use_artifact does with an artifact that is not logged yet; offline it would refuse.
            run._log_artifact(_artifact(name, kind, files), is_user_created=True, use_after_commit=True)


def mixture_artifact(path: Path) -> str:
    """The name of the artifact of a mixture file; it depends on its content, not on where it lies.

    W&B takes up to 128 letters, digits and `_.-`, so others become `_`, and a longer name of the file is cut.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:100]
    return f"mixture-{stem}-{file_sha256(path)[:8]}"


def _artifact(name: str, kind: str, files: Sequence[Path]) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in files:
        artifact.add_file(str(file))
    return artifact


@contextmanager
def _copies_beside(run: Any) -> Iterator[None]:
    """Makes W&B keep its copies in the run's folder, where they last until `wandb sync` needs them."""
    if DATA_DIR in os.environ:
        yield
        return
    os.environ[DATA_DIR] = str(Path(run.dir).parent)
    try:
        yield
    finally:
        del os.environ[DATA_DIR]


def log_table(logger: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Logs a table of numbers and texts; does nothing without W&B."""
    if run := wandb_run(logger):
        import wandb

        with _copies_beside(run):
            run.log({key: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def log_pictures(logger: Any, pictures: Sequence[Path]) -> None:
    """Logs pictures under their names; does nothing without W&B."""
    if run := wandb_run(logger):
        import wandb

        run.log({f"figures/{picture.stem}": wandb.Image(str(picture)) for picture in pictures})
