"""The runs that mixtures were found with, which are charged to their savings."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from autoscale_exp.runs.record import RECORD, RunRecord, read_records
from autoscale_exp.runs.study_file import STUDY, read_study


@dataclass(frozen=True)
class Searches:
    """The searches of a study.

    Attributes:
        runs: records by folder, relative to that of the study.
        folders: by mixture, the folders of the runs that it was found with.
    """

    runs: dict[str, list[RunRecord]]
    folders: dict[str, list[str]]

    def of(self, mixture: str) -> list[RunRecord]:
        """The runs that a mixture was found with; none if it needs no search, or is found during training."""
        return [run for folder in self.folders.get(mixture, []) for run in self.runs[folder]]

    @property
    def all_runs(self) -> list[RunRecord]:
        """All runs, each once even if several mixtures share it."""
        return [run for runs in self.runs.values() for run in runs]


def read_searches(folder: Path, fitted: Collection[str]) -> Searches:
    """Reads the searches of the study in a folder, or the single search there if it is no study.

    Args:
        folder: folder of the study or search.
        fitted: mixtures from fits of the search, to which it is charged if there is no study.json.

    Raises:
        UserError: a search has no finished run.
    """
    is_study = (folder / STUDY).exists()
    folders = read_study(folder).searches if is_study else {name: ["."] for name in fitted}
    places = dict.fromkeys(place for own in folders.values() for place in own)
    if not is_study or any(folder.glob(f"runs/*/{RECORD}")):
        places = {".": None} | places
    return Searches({place: read_records(folder / place) for place in places}, folders)
