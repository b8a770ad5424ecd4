"""Which runs of a sweep are packed together, and which process trains them. Imports no torch before training."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hydra.utils import instantiate

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.labels import plural
from autoscale_exp.runs.record import FAILURE, is_recorded, read_failure, write_failure
from autoscale_exp.training.claim import LOOK_SECONDS, claimed_if_free
from autoscale_exp.training.packed_trainer import Planned
from autoscale_exp.training.plan import RunPlan, is_finished

log = logging.getLogger(__name__)


def train_in_packs(own: Planned, runs: Sequence[Planned]) -> None:
    """Trains packs of a sweep's open runs until one run, `own`, is finished, here or by another process.

    A pack has as many runs as fit the memory. Their lengths are close to that of `own`, so that few leave early.

    Args:
        own: the run to finish.
        runs: all runs of its sweep.

    Raises:
        UserError: the run failed, here or elsewhere.
        Stopped: a signal came; the runs in progress have their resume points.
    """
    plan, folder = own
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
                if _is_open(run[1]) and claims.enter_context(claimed_if_free(run[1])) and _is_own(run):
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

    conf = pack[0][0].conf
    for retries_left in reversed(range(conf.retries + 1)):
        left = [run for run in pack if _is_open(run[1])]
        try:
            train_pack(left, instantiate(conf.trainer))
            return
        except Exception as error:
            if not isinstance(error, UserError) and retries_left:
                log.warning("%s are tried again, as they failed: %s", plural(len(left), "run"), first_line(error))
                continue
            for plan, folder in left:
                if _is_open(folder):
                    write_failure(folder, plan.conf.run_name, error)
            raise


def _is_open(folder: Path) -> bool:
    """Whether the run in a folder is neither finished nor failed."""
    return not is_recorded(folder) and not (folder / FAILURE).exists()


def _is_own(run: Planned) -> bool:
    """Whether a run that this process holds is open, and no command with another config has begun it meanwhile."""
    plan, folder = run
    try:
        return _is_open(folder) and not is_finished(plan, folder)
    except UserError:  # which the command with this run's worker tells
        return False
