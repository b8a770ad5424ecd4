"""Commands of other jobs with the sections of a study, as short as the jobs' own defaults allow."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from autoscale_exp.base.by_domain import mapping_text
from autoscale_exp.base.composing import compose
from autoscale_exp.base.job import to_typed
from autoscale_exp.base.multirun import jobs_of
from autoscale_exp.base.overrides import MAPPINGS_BY_DOMAIN, override_of, readable


@dataclass(frozen=True)
class Command:
    """A job with its overrides.

    Attributes:
        job: name of the job.
        overrides: overrides of its config.
        sweeps: overrides with choices, which make a multirun.
        launched: whether its runs go to the study's launcher, and not one by one.
    """

    job: str
    overrides: list[str]
    sweeps: list[str] = field(default_factory=list)
    launched: bool = False

    @property
    def arguments(self) -> list[str]:
        """The arguments after `python`."""
        return ["-m", f"autoscale_exp.{self.job}", *self.overrides, *self.sweeps]

    @property
    def text(self) -> str:
        """The command as it is typed."""
        return shlex.join(["python", *self.arguments])

    def configs(self) -> list[Any]:
        """Returns the typed config of each run of a multirun, or of the single run.

        Raises:
            UserError: the config does not compose.
        """
        composed = compose(self.job, readable(self.overrides), with_hydra=True)
        if composed.hydra.mode == RunMode.MULTIRUN:
            return [conf for _, conf in jobs_of(composed, self.sweeps)]
        return [to_typed(compose(self.job, readable(self.overrides)))]


@dataclass(frozen=True)
class Sections:
    """The sections of a study that other jobs take over.

    Attributes:
        conf: the study's config, not resolved.
        choices: the chosen option of each group.
        launcher: Hydra's section of the launcher.
    """

    conf: DictConfig
    choices: Mapping[str, str | None]
    launcher: DictConfig

    @staticmethod
    def of_job(changed: Mapping[str, Any] | None = None) -> "Sections":
        """Returns the sections of the job that runs, with some values changed."""
        hydra_conf = HydraConfig.get()
        conf = compose(hydra_conf.job.config_name, hydra_conf.overrides.task)
        for key, value in (changed or {}).items():
            OmegaConf.update(conf, key, value)
        return Sections(conf, hydra_conf.runtime.choices, hydra_conf.launcher)

    def command(self, job: str, asked: Sequence[str], keys: Sequence[str], *, launched: bool = False) -> Command:
        """Makes the command of a job with the study's values of `keys`.

        Args:
            job: name of the job.
            asked: the command's own overrides, which come last.
            keys: sections and values of the study that the job has, too.
            launched: whether the job's runs go to the study's launcher.
        """
        groups = [*(["hydra/launcher"] if launched else []), *keys]
        of_job = compose(job, asked, with_hydra=True).hydra.runtime.choices
        chosen = [
            f"{group}={self.choices[group]}"
            for group in groups
            if group in of_job and self.choices.get(group) not in (None, of_job[group])
        ]
        composed = compose(job, [*chosen, *asked], with_hydra=True)
        added: list[str] = []
        for key in keys:
            if key in of_job and self.conf[key] is None:  # a group without a choice
                added += [f"~{key}"] * (composed[key] is not None)
                continue
            added += differing(composed._get_node(key), self.conf._get_node(key), key)
        if launched:
            added += differing(composed.hydra.launcher, self.launcher, "hydra.launcher")
        of_asked = {_key(override) for override in asked}
        added = [override for override in added if _key(override) not in of_asked]
        experiment = [override for override in asked if override.startswith("experiment=")]
        overrides = [*experiment, *chosen, *added, *(o for o in asked if o not in experiment)]
        return Command(job, overrides, launched=launched)


def differing(present: Any, wanted: Any, key: str) -> Iterator[str]:
    """Yields the overrides that turn the `present` value of a key into `wanted`, leaf by leaf; neither is resolved."""
    present, wanted = _plain(present), _plain(wanted)
    if present == wanted:
        return
    if not isinstance(present, dict) or not isinstance(wanted, dict) or key in MAPPINGS_BY_DOMAIN:
        by_domain = isinstance(wanted, dict) and key in MAPPINGS_BY_DOMAIN
        yield override_of(key, mapping_text(wanted) if by_domain else wanted)
        return
    yield from (f"~{key}.{name}" for name in present if name not in wanted)
    for name, value in wanted.items():
        if name in present:
            yield from differing(present[name], value, f"{key}.{name}")
        else:
            yield "++" + override_of(f"{key}.{name}", value)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _plain(value: Any) -> Any:
    if OmegaConf.is_config(value):
        return None if value._is_none() else OmegaConf.to_container(value, resolve=False)
    return value._value() if hasattr(value, "_value") else value
