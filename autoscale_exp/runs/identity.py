"""identity.json: all that the result of a run depends on. Two runs with the same identity are the same run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.base.versioned import parse, read_versioned, write_versioned

FORMAT = 2
IDENTITY = "identity.json"
REMEDY = "delete the run's folder and train it again"


@dataclass(frozen=True)
class RunIdentity:
    """All that a run's result depends on, and nothing else: no folders, workers or loggers.

    Attributes:
        run: name in its design.
        rows: rows to train on, by domain.
        seed: seed of initialisation, order and dropout.
        store: fingerprint of the token store.
        model: the `model` section without `init_from`.
        num_validations: points of the validation curve.
        precision: precision of the trainer.
        stage_rows: rows of each stage by domain; None for a run of one mixture.
        pool_rows: rows that the run may see, by domain, if they are not all that the store has.
        initial_weights: hash of the weights that training starts from; None from scratch.
        reweighting: the `reweighting` section without `name`, its reference by the hash of its weights, and for ADO
            `max_epochs` if it may limit a domain; None without.
    """

    run: str
    rows: dict[str, int]
    seed: int
    store: str
    model: dict[str, Any]
    num_validations: int
    precision: str
    stage_rows: dict[str, dict[str, int]] | None = None
    pool_rows: dict[str, int] | None = None
    initial_weights: str | None = None
    reweighting: dict[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The content of identity.json, without what does not apply."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def fingerprint(self) -> str:
        """A hash that identifies the run."""
        return fingerprint(self.content)


def logged_id(identity: str, experiment: str, run: str) -> str:
    """The id of a run where it is logged, from its fingerprint and its names; it stays when the run is resumed."""
    return fingerprint([identity, experiment, run])


def write_identity(folder: Path, identity: RunIdentity) -> None:
    """Writes the identity of the run in a folder."""
    write_versioned(folder / IDENTITY, identity.content, FORMAT)


def read_identity(folder: Path) -> RunIdentity:
    """Reads the identity of the run in a folder.

    Raises:
        UserError: it is missing, damaged or of an unknown format.
    """
    path = folder / IDENTITY
    upgrades = {1: dict[str, Any]}  # format 1 differs in nothing but the missing number
    return parse(path, read_versioned(path, FORMAT, REMEDY, upgrades), RunIdentity, REMEDY)
