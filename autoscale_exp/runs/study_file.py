"""study.json: what is finished of a study, and the runs of each rival's search."""

from dataclasses import dataclass, field
from pathlib import Path

from autoscale_exp.base.versioned import read_if_there, write_versioned

FORMAT = 1
STUDY = "study.json"
REMEDY = "delete it; the study then looks at every stage again, and trains no finished run anew"


@dataclass(frozen=True)
class StudyFile:
    """The state of a study.

    Attributes:
        searches: by rival, the folders (relative to the study's) of the runs that its mixture was found with.
        finished: by stage, the command that finished it, and for a fit a hash of the code of the laws.
    """

    searches: dict[str, list[str]] = field(default_factory=dict)
    finished: dict[str, list[str]] = field(default_factory=dict)


def write_study(folder: Path, study: StudyFile) -> None:
    """Writes study.json."""
    write_versioned(folder / STUDY, study, FORMAT)


def read_study(folder: Path) -> StudyFile:
    """Reads the study in a folder; an empty one if none was begun.

    Raises:
        UserError: the file is damaged or of another format.
    """
    return read_if_there(folder / STUDY, FORMAT, StudyFile, REMEDY)
