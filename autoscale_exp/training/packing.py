"""Which runs of a sweep are trained together, and who trains them. Imports no torch until a pack is trained."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.config import TrainConf
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure, write_failure
from autoscale_exp.training.claim import LOOK_SECONDS, claimed_if_free
from autoscale_exp.training.plan import RunPlan, is_finished

Planned = tuple[RunPlan, Path]  # a run and its folder
PRECISIONS = ("32-true", "bf16-mixed")
OF_EACH_RUN = ("lr", "betas", "weight_decay", "warmup_fraction", "schedule", "clip_norm")  # of model.optimizer


@dataclass(frozen=True)
class PackedTrainer:
    """The `trainer` section of runs that are trained together.

    Attributes:
        accelerator: auto, cpu, or gpu and cuda.
        devices: 1.
        precision: as of Lightning's Trainer.
        max_runs: at a time; None: as many as fit the memory.
        compile: as in conf/trainer/default.yaml.
        checkpoint_activations: the same.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    max_runs: int | None = None
    compile: bool = False
    checkpoint_activations: bool = False


def is_packed(conf: TrainConf) -> bool:
    """Whether the `trainer` section is of runs that are trained together."""
    return conf.trainer.get("_target_") == f"{PackedTrainer.__module__}.{PackedTrainer.__name__}"


def check_packing(conf: TrainConf, other: TrainConf) -> None:
    """Checks that a run can be trained in a pack, and in one with another run of its sweep.

    Raises:
        UserError: it cannot.
    """
    if not is_packed(conf):
        return
    trainer: PackedTrainer = instantiate(conf.trainer)
    if trainer.precision not in PRECISIONS:
        raise UserError(f"trainer.precision is '{trainer.precision}'; packed runs can have {' or '.join(PRECISIONS)}")
    check_range({"trainer.max_runs": trainer.max_runs}, 1)
    if trainer.devices != 1:
        raise UserError(f"trainer.devices is {trainer.devices}, but packed runs share one device; give 1")
    if conf.model.dropout:
        raise UserError(
            f"model.dropout is {conf.model.dropout}, which packed runs cannot draw as they would alone; give "
            "model.dropout=0 or trainer=default"
        )
    if conf.reweighting is not None:
        raise UserError(f"reweighting={conf.reweighting.name} is of a run by itself; give trainer=default")
    ours, theirs = _common(conf), _common(other)
    if differences := differing_keys(theirs, ours):
        raise UserError(
            f"trainer=packed trains runs of one architecture, but '{other.run_name}' and '{conf.run_name}' differ "
            f"({'; '.join(differences)}); give each a sweep of its own, or trainer=default"
        )


def _common(conf: TrainConf) -> dict[str, Any]:
    """What runs of a pack have in common, as keys of the config with their values."""
    model = asdict(conf.model)
    optimizer = model.pop("optimizer")
    del model["init_from"], model["name"]
    common = {f"model.{key}": value for key, value in model.items()}
    common |= {f"model.optimizer.{key}": value for key, value in optimizer.items() if key not in OF_EACH_RUN}
    return common | {"micro_batch_rows": conf.micro_batch_rows, "trainer": conf.trainer}


def train_in_packs(own: Planned, runs: Sequence[Planned]) -> None:
    """Trains packs of the runs of a sweep that no process trains, until a run of it is finished, here or elsewhere.

    A pack has as many as fit the memory, of lengths near to that of this run, so that few leave it early.

    Args:
        own: the run.
        runs: all of its sweep.

    Raises:
        UserError: the run cannot be packed, or it failed, here or there.
        Stopped: a signal came; the runs in progress have their resume points.
    """
    plan, folder = own
    check_packing(plan.conf, plan.conf)
    others = [run for run in runs if run[1] != folder]
    others.sort(key=lambda run: abs(run[0].sampler.num_rows - plan.sampler.num_rows))
    while not is_finished(plan, folder):
        if (folder / FAILURE).exists():
            raise UserError(f"{plan.conf.run_name} failed: {read_failure(folder)}")
        with ExitStack() as claims:
            most = None
            pack: list[Planned] = []
            for run in (own, *others):
                if len(pack) == most:
                    break
                if _is_open(run[1]) and claims.enter_context(claimed_if_free(run[1])) and _is_open(run[1]):
                    most = most or _most_runs(plan)
                    pack.append(run)
            if pack:
                _train(pack)
            else:
                time.sleep(LOOK_SECONDS)


def _most_runs(plan: RunPlan) -> int:
    from autoscale_exp.training.pack import most_runs  # imports torch, which takes seconds, once all is checked

    return most_runs(plan, instantiate(plan.conf.trainer))


def _train(pack: Sequence[Planned]) -> None:
    from autoscale_exp.training.pack import train_pack

    try:
        train_pack(pack, instantiate(pack[0][0].conf.trainer))
    except Exception as error:
        for plan, folder in pack:
            if _is_open(folder):
                write_failure(folder, plan.conf.run_name, error)
        raise


def _is_open(folder: Path) -> bool:
    """Whether the run in a folder is still to be trained."""
    return not is_recorded(folder) and not (folder / FAILURE).exists()
