"""sweep.json: the runs that a sweep's folder will have in the end, by which missing runs are noticed."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from autoscale_exp.base import atomic
from autoscale_exp.base.versioned import read_if_there, write_versioned

FORMAT = 1
SWEEP_FILE = "sweep.json"
REMEDY = "delete it; the sweep's command writes it anew"


@dataclass(frozen=True)
class SweepFile:
    """The runs that sweeps are to train in a folder.

    Attributes:
        tokens: tokens to train on, by run, in the order in which the runs are launched.
    """

    tokens: dict[str, int] = field(default_factory=dict)


def plan_runs(sweep: Path, tokens: dict[str, int]) -> None:
    """Adds the runs of a sweep to those that its folder will have.

    Raises:
        UserError: the folder cannot be written, or the file there is damaged.
    """
    atomic.make_folder(sweep)
    lock = sweep / ".sweep.lock"  # another sweep may begin at the same time
    with atomic.refusals_named(lock), FileLock(lock):
        file = read_sweep_file(sweep)
        write_versioned(sweep / SWEEP_FILE, replace(file, tokens=file.tokens | tokens), FORMAT)


def read_sweep_file(sweep: Path) -> SweepFile:
    """Reads the runs that a folder will have; none if no sweep was begun.

    Raises:
        UserError: the file is damaged or of another format.
    """
    return read_if_there(sweep / SWEEP_FILE, FORMAT, SweepFile, REMEDY)
