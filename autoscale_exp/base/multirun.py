"""Composes the jobs of a multirun before the first one starts, and checks that each writes to its own place."""

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoscale_exp.base.composing import compose
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import to_typed, user_errors


class MultirunCheck(Callback):
    """Hydra callback of the jobs that write a result to `output_dir` or `output`. It does nothing in single runs."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Ends the job with one line if a job of the multirun cannot be composed, or two write to the same place.

        SystemExit ends it here, because Hydra turns an exception in a callback into a warning.
        """
        with user_errors():
            check_outputs(config)


def jobs_of(config: DictConfig, sweeps: Sequence[str] = ()) -> Iterator[tuple[list[str], Any]]:
    """Yields overrides and typed config of every job of a multirun, in the order in which they are launched.

    Args:
        config: config of the multirun, with Hydra's section.
        sweeps: more overrides with choices, such as seed=0,1.
    """
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    # Unresolved, as an override such as run_name=lr_${model.optimizer.lr} has another value in every job.
    task: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    loader = GlobalHydra.instance().config_loader()  # for glob(...) in overrides
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *task, *sweeps])
    for overrides in BasicSweeper.split_arguments(parsed, None)[0]:
        yield overrides, to_typed(compose(config.hydra.job.config_name, overrides))


def check_outputs(config: DictConfig) -> None:
    """Composes every job of a multirun, and checks that no two write to the same place.

    Raises:
        UserError: two do, so that the second would overwrite the result of the first, or there is no job.
    """
    runs_at_a_time(config.hydra.launcher)
    overrides_of: dict[str, list[str]] = {}
    for overrides, conf in jobs_of(config):
        key = "output_dir" if hasattr(conf, "output_dir") else "output"
        place = getattr(conf, key)
        if place is None:  # the job writes to the terminal
            continue
        before = overrides_of.setdefault(os.path.abspath(place), overrides)
        if before is not overrides:
            differing = [b for a, b in zip(before, overrides, strict=True) if a != b]
            name = differing[0].lstrip("+").partition("=")[0] if differing else "seed"
            name += ".name" if hasattr(getattr(conf, name, None), "name") else ""
            remedy = shlex.quote(f"{key}={place}/${{{name}}}")
            raise UserError(
                f"two jobs of the multirun write to {key} '{place}', where the second would overwrite the first; give "
                f"each a place of its own, as in {remedy}"
            )


def is_elsewhere(launcher: DictConfig) -> bool:
    """Whether the jobs of a launcher may run on other machines than this one."""
    return "submitit" in launcher._target_


def runs_at_a_time(launcher: DictConfig) -> int | None:
    """How many jobs of a multirun a launcher runs at once on this machine; None if unknown.

    Raises:
        UserError: hydra.launcher.n_jobs is no number of jobs.
    """
    n_jobs = launcher.get("n_jobs")
    if n_jobs is None:
        return 1 if "basic" in launcher._target_ else None
    if not isinstance(n_jobs, int) or n_jobs == 0:
        raise UserError(
            f"hydra.launcher.n_jobs is {n_jobs}; it must be a number of runs at a time, or -1 for as many as there are "
            "cores"
        )
    from joblib import effective_n_jobs

    return effective_n_jobs(n_jobs)
