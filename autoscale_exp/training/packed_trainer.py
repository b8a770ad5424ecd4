"""The trainer of packs, and which runs can share one. Imports no torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.config import TrainConf
from autoscale_exp.training.plan import RunPlan

Planned = tuple[RunPlan, Path]  # a run and its folder
PRECISIONS = ("32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
OF_EACH_RUN = ("lr", "betas", "weight_decay", "warmup_fraction", "schedule", "clip_norm")  # of model.optimizer


@dataclass(frozen=True)
class PackedTrainer:
    """The `trainer` section of runs that are trained together.

    Attributes:
        accelerator: auto, cpu, gpu or cuda.
        devices: 1.
        precision: as for Lightning's Trainer.
        max_runs: runs at a time; None for as many as fit the memory.
        compile: as in conf/trainer/default.yaml.
        checkpoint_activations: as in conf/trainer/default.yaml.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    max_runs: int | None = None
    compile: bool = False
    checkpoint_activations: bool = False


def is_packed(conf: TrainConf) -> bool:
    """Whether the `trainer` section asks for packs."""
    return conf.trainer.get("_target_") == f"{PackedTrainer.__module__}.{PackedTrainer.__name__}"


def check_packing(conf: TrainConf, other: TrainConf) -> None:
    """Checks that a run, if it is to be packed, can be trained in a pack with another run of its sweep.

    Raises:
        UserError: it cannot; the message says why.
    """
    if is_packed(conf) != is_packed(other):
        raise UserError(
            f"runs '{other.run_name}' and '{conf.run_name}' have different trainers, one of which packs; give each "
            "trainer a sweep of its own"
        )
    if not is_packed(conf):
        return
    trainer: PackedTrainer = instantiate(conf.trainer)
    if trainer.precision not in PRECISIONS:
        raise UserError(f"trainer.precision is '{trainer.precision}'; packed runs can have {' or '.join(PRECISIONS)}")
    if trainer.accelerator not in ACCELERATORS:
        raise UserError(
            f"trainer.accelerator is '{trainer.accelerator}'; packed runs can have {', '.join(ACCELERATORS)}"
        )
    check_range({"trainer.max_runs": trainer.max_runs}, 1)
    if trainer.devices != 1:
        raise UserError(f"trainer.devices is {trainer.devices}, but packed runs share one device; give 1")
    if conf.model.dropout:
        raise UserError(
            f"model.dropout is {conf.model.dropout}, but packed runs would draw other dropout than alone; give "
            "model.dropout=0 or trainer=default"
        )
    if conf.reweighting is not None:
        raise UserError(f"reweighting={conf.reweighting.name} needs a run that is trained alone; give trainer=default")
    ours, theirs = _common(conf), _common(other)
    if differences := differing_keys(theirs, ours):
        raise UserError(
            f"trainer=packed trains runs of one token store and architecture, but '{other.run_name}' and "
            f"'{conf.run_name}' differ ({'; '.join(differences)}); give each a sweep of its own, or trainer=default"
        )


def _common(conf: TrainConf) -> dict[str, Any]:
    """What the runs of a pack must have in common, as keys of the config with their values."""
    model = asdict(conf.model)
    optimizer = model.pop("optimizer")
    del model["init_from"], model["name"]
    common = {f"model.{key}": value for key, value in model.items()}
    common |= {f"model.optimizer.{key}": value for key, value in optimizer.items() if key not in OF_EACH_RUN}
    return common | {"store": conf.store_folder, "micro_batch_rows": conf.micro_batch_rows, "trainer": conf.trainer}
