"""Runs at W&B: opened quietly, everything against tokens, and files as artifacts that tell what came of what.

W&B takes an artifact of the same name and content for the same one. So a job that uses a file hands it over again,
under a name that follows from the file, and W&B sees that another job made it, also if neither was online then.
"""

import logging
import os
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
    """Lightning's logger of a W&B run of its own, whatever other runs this process has open.

    W&B is told nothing of the machine, and prints nothing: by itself it tells ten lines of each run.

    Args:
        save_dir: folder that gets the run's folder, in wandb/.
        project: at W&B.
        offline: whether to write files alone, which `wandb sync` sends; with WANDB_MODE=disabled there are none.
        name: name of the run.
        group: the run's sweep.
        job_type: search, target, fit, report or evaluation.
        id: id of the run, which is resumed if W&B has it; None for a new run.
        entity: user or team at W&B; None: the login's own.
        tags: tags of the run.
    """
    import wandb

    save_dir = os.path.abspath(save_dir)  # W&B's own process may have been started elsewhere
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
        mode="offline" if offline and os.environ.get("WANDB_MODE") != "disabled" else None,
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
    """The W&B run of a logger; None of another logger."""
    return logger.experiment if isinstance(logger, WandbLogger) else None


def log_artifact(logger: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    """Logs files as what a run has made; without W&B, nothing.

    Args:
        logger: the run's logger.
        name: name of the artifact.
        kind: run, fit, law or mixture.
        files: it consists of.
    """
    if run := wandb_run(logger):
        with _copies_beside(run):
            run.log_artifact(_artifact(name, kind, files))


def use_artifact(logger: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    """Tells that a run has used files, which `log_artifact` logged, or will, under the same name."""
    if run := wandb_run(logger):
        with _copies_beside(run):
            # What run.use_artifact does of an artifact that is not logged yet, but for refusing to offline.
            run._log_artifact(_artifact(name, kind, files), is_user_created=True, use_after_commit=True)


def mixture_artifact(path: Path) -> str:
    """The name of the artifact of a mixture file: the same for the same file, wherever it lies."""
    return f"mixture-{path.stem}-{file_sha256(path)[:8]}"


def _artifact(name: str, kind: str, files: Sequence[Path]) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in files:
        artifact.add_file(str(file))
    return artifact


@contextmanager
def _copies_beside(run: Any) -> Iterator[None]:
    """Makes W&B keep its copies in the run's folder, where they last as long as what `wandb sync` reads."""
    if DATA_DIR in os.environ:
        yield
        return
    os.environ[DATA_DIR] = str(Path(run.dir).parent)
    try:
        yield
    finally:
        del os.environ[DATA_DIR]


def log_table(logger: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Logs a table of numbers and texts; without W&B, nothing."""
    if run := wandb_run(logger):
        import wandb

        with _copies_beside(run):
            run.log({key: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def log_pictures(logger: Any, pictures: Sequence[Path]) -> None:
    """Logs pictures under their names; without W&B, nothing."""
    if run := wandb_run(logger):
        import wandb

        run.log({f"figures/{picture.stem}": wandb.Image(str(picture)) for picture in pictures})
