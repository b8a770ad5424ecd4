"""The model to evaluate: that of a finished run, or any Hugging Face folder. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.evaluation.conf import SubjectConf
from autoscale_exp.evaluation.evaluation_file import EVALUATION
from autoscale_exp.lm.checkpoint import Checkpoint, open_checkpoint
from autoscale_exp.runs.identity import RunIdentity, read_identity
from autoscale_exp.runs.record import RECORD, RunRecord, is_recorded, read_record


@dataclass(frozen=True)
class Subject:
    """A model to evaluate.

    Attributes:
        checkpoint: weights and tokenizer.
        path: path of its evaluation.json.
        run: record of its run, or None for a folder that is not from a run.
        identity: identity of its run, or None.
        datasets_dir: folder of local data sets, or None for the Hub.
        device: a torch device, or auto.
    """

    checkpoint: Checkpoint
    path: Path
    run: RunRecord | None
    identity: RunIdentity | None
    datasets_dir: Path | None
    device: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that every result depends on."""
        return {"weights": self.checkpoint.sha256, "tokenizer": self.checkpoint.tokenizer}


def find_subject(conf: SubjectConf) -> Subject:
    """Finds the model that the config names.

    Raises:
        UserError: the config names none or two, the run is not finished or kept no model, or the folder cannot be used.
    """
    if (conf.run is None) == (conf.checkpoint is None):
        raise UserError(
            "give either run=<folder of a finished run> or checkpoint=<Hugging Face folder>, one of the two"
        )
    datasets_dir = None if conf.datasets_dir is None else Path(conf.datasets_dir)
    if datasets_dir is not None and not datasets_dir.is_dir():
        raise UserError(
            f"datasets_dir is '{datasets_dir}', which is no folder; give the one that holds the tasks' data"
        )
    if conf.checkpoint is not None:
        if conf.output_dir is None:
            raise UserError(f"output_dir is not set; give the folder that {EVALUATION} is to be written to")
        checkpoint = open_checkpoint(conf.checkpoint, "checkpoint")
        return Subject(checkpoint, Path(conf.output_dir) / EVALUATION, None, None, datasets_dir, conf.device)
    run = Path(str(conf.run))
    if not is_recorded(run):
        raise UserError(f"run is '{run}', which has no {RECORD}; give the folder of a finished run")
    if not (run / "model").is_dir():
        raise UserError(f"run is '{run}', which kept no model; train it with save_model=true")
    checkpoint = open_checkpoint(run / "model", "run")
    path = Path(conf.output_dir or run) / EVALUATION
    return Subject(checkpoint, path, read_record(run), read_identity(run), datasets_dir, conf.device)
