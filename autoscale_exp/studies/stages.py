"""The stages of a study: its commands, in their order."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from string import Template

from hydra.core.global_hydra import GlobalHydra

from autoscale_exp import laws
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import file_sha256, fingerprint
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.overrides import override_of
from autoscale_exp.config import FitConf, StudyConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.laws.fit_file import FIT
from autoscale_exp.runs.record import RECORD, read_records
from autoscale_exp.runs.rival import RivalConf
from autoscale_exp.runs.table import TABLE
from autoscale_exp.studies.commands import Command, Sections
from autoscale_exp.studies.runs import runs_of

RUNS = ["model", "trainer", "logger", "max_epochs", "micro_batch_rows", "num_workers", "num_threads"]
RUNS += ["checkpoint_minutes", "retries", "fail_fast", "objective"]  # keys that every training takes from the study


@dataclass(frozen=True)
class Stage:
    """One command of a study.

    Attributes:
        name: name of the stage, unique in the study.
        command: the command that carries it out.
        result: a file that exists once the stage is finished.
        reads: names of the stages whose results it reads.
        code: a hash of the code that decides the result, if versions may differ in it.
    """

    name: str
    command: Command
    result: Path
    reads: Sequence[str] = ()
    code: str | None = None

    @property
    def account(self) -> list[str]:
        """All that its result depends on: the command, and the code."""
        return [*self.command.arguments, *([f"code {self.code}"] if self.code else [])]


@cache
def laws_code() -> str:
    """A hash of the code of the laws, on which the result of a fit depends."""
    sources = sorted(Path(laws.__file__).parent.rglob("*.py"))
    return fingerprint([file_sha256(source) for source in sources])


@dataclass
class StageList:
    """Builds the stages of a study.

    Attributes:
        conf: the study.
        scales: scales of its search.
        sections: the sections of other jobs, as they get them.
        store: token store of the study.
        prepared: whether the token store is there.
        stages: the stages built so far, in order.
        searches: by rival, the folders (relative to the study's) of the runs that its mixture is found with.
        fits: by rival, the config of its fit.
        others: folders of the other study that have a rival's name but other runs, so that this study trains its own.
        compared: by commands, whether the other study has all their runs; to plan them takes time.
    """

    conf: StudyConf
    scales: Sequence[int]
    sections: Sections
    store: TokenStore
    prepared: bool = True
    stages: list[Stage] = field(default_factory=list)
    searches: dict[str, list[str]] = field(default_factory=dict)
    fits: dict[str, FitConf] = field(default_factory=dict)
    others: set[Path] = field(default_factory=set)
    compared: dict[tuple[str, ...], bool] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return Path(self.conf.output_dir)

    def build(self) -> list[Stage]:
        """Builds all stages after that of the token store."""
        rivals = self.conf.rivals
        own = any(rival.fit is not None and rival.search is None for rival in rivals.values())
        if own and self.conf.search is None:
            self.stages.append(Stage("search", self.own_search, self.folder / TABLE))
        for rival in rivals.values():
            if rival.search is not None and self._runs_of(rival) == self.folder / rival.search:
                self._add_search(rival.search, rival.design)
        for name, rival in rivals.items():
            self._add_fit(name, rival)
            self._add_trainings(name, rival)
        self._add_targets()
        targets = [stage.name for stage in self.stages if stage.name.startswith("targets")]
        for name, asked in self.conf.evaluations.items():
            self._add_evaluation(name, asked, targets)
        self._add_report(targets)
        return self.stages

    @cached_property
    def own_search(self) -> Command:
        """The proxy runs of the study's own design."""
        asked = self._of_run(self.folder, self.conf.name, "search")
        return self.sections.command("train", asked, [*self._of_all_runs, "design"], launched=True)

    @cached_property
    def search_tokens(self) -> int:
        """The tokens of the study's own search, which every rival may spend."""
        if self.conf.search is not None:
            return sum(sum(record.tokens.values()) for record in read_records(Path(self.conf.search)))
        return sum(run.tokens for run in runs_of(self.own_search, self.store, self.folder))

    def _runs_of(self, rival: RivalConf) -> Path:
        """The folder of the runs that a rival is fitted to, in the other study if they are there."""
        if self.conf.search is None:
            return self.folder / (rival.search or "")
        if rival.search is None:
            return Path(self.conf.search)
        shared = Path(self.conf.search) / rival.search
        is_there = (shared / TABLE).exists() and self._has(shared, [self._search(shared, rival.search, rival.design)])
        return shared if is_there else self.folder / rival.search

    def _has(self, shared: Path, commands: Sequence[Command]) -> bool:
        """Whether a folder of the other study has all runs of some commands, as this one would train them."""
        if not self.prepared:  # without the token store, names have to do
            return True
        asked = tuple(command.text for command in commands)
        if asked not in self.compared:
            self.compared[asked] = self._are_finished(commands)
        if not self.compared[asked]:
            self.others.add(shared)
        return self.compared[asked]

    def _are_finished(self, commands: Sequence[Command]) -> bool:
        try:
            return all(run.finished for of in commands for run in runs_of(of, self.store, Path(str(self.conf.search))))
        except UserError:  # a folder holds a run of another config
            return False

    def _search(self, folder: Path, name: str, design: Sequence[str]) -> Command:
        """The command for the proxy runs of a rival in a folder."""
        asked = [*self._of_run(folder, name, "search"), *self._filled(design)]
        return self.sections.command("train", asked, self._of_all_runs, launched=True)

    def _add_search(self, name: str, design: Sequence[str]) -> None:
        """Adds the proxy runs of a rival, which other rivals may share."""
        stage, folder = f"search {name}", self.folder / name
        command = self._search(folder, name, design)
        before = next((other for other in self.stages if other.name == stage), None)
        if before is None:
            self.stages.append(Stage(stage, command, folder / TABLE))
        elif before.command != command:
            raise UserError(
                f"two rivals have the search '{name}', but other designs: {before.command.text} and {command.text}; "
                "give one of them a search with a name of its own"
            )

    def _add_fit(self, name: str, rival: RivalConf) -> None:
        if rival.fit is None:
            return
        runs, own = self._runs_of(rival), self.folder / (rival.search or "")
        asked = [f"runs={runs}", *self._filled(rival.fit)]
        if not any(override.startswith("target_tokens=") for override in rival.fit):
            asked.append(f"target_tokens=[{','.join(map(str, self.conf.token_budgets))}]")
        command = self.sections.command("fit", asked, ["objective", "bounds"])
        (fitted,) = command.configs()
        if runs != own:
            place = own / Path(fitted.output_dir).relative_to(runs)
            command = replace(command, overrides=[*command.overrides, f"output_dir={place}"])
            fitted = replace(fitted, output_dir=str(place))
        search = f"search {rival.search}" if rival.search else "search"
        self.searches[name] = [rival.search or "."] if runs == own else [str(runs.resolve())]
        self.fits[name] = fitted
        self.stages.append(Stage(f"fit {name}", command, Path(fitted.output_dir) / FIT, [search], laws_code()))

    def _add_trainings(self, name: str, rival: RivalConf) -> None:
        """Adds the runs that a rival finds its mixture with; each may start from the one before.

        None are added if the other study has trained them.
        """
        if elsewhere := self._trained_elsewhere(name):
            self.searches[name] = [str(elsewhere.resolve())]
            return
        before: list[str] = []
        for run, command in self._trainings(name, self.folder).items():
            result = self.folder / name / "runs" / run / RECORD
            self.stages.append(Stage(f"train {name} {run}", command, result, list(before)))
            before.append(f"train {name} {run}")
            self.searches[name] = [name]

    def _trainings(self, name: str, study: Path) -> dict[str, Command]:
        """The commands that train a rival's runs in the folder of a study, by run."""
        of_run = self._of_run(study / name, name, None)
        return {
            run: self.sections.command(
                "train", [*of_run, f"run_name={run}", *self._filled(overrides, study)], self._of_all_runs
            )
            for run, overrides in self.conf.rivals[name].trainings.items()
        }

    def _trained_elsewhere(self, name: str) -> Path | None:
        """The folder in the other study of the runs that a rival finds its mixture with; None if they are not there."""
        trainings = self.conf.rivals[name].trainings
        if self.conf.search is None or not trainings:
            return None
        study = Path(self.conf.search)
        recorded = all((study / name / "runs" / run / RECORD).exists() for run in trainings)
        is_there = recorded and self._has(study / name, list(self._trainings(name, study).values()))
        return study / name if is_there else None

    def _target_of(self, name: str) -> list[str]:
        """Overrides of a rival's target runs; empty if they need only the mixture of the rival's name."""
        rival, elsewhere = self.conf.rivals[name], self._trained_elsewhere(name)
        if rival.target:
            return rival.target
        if elsewhere is not None:
            *_, last = rival.trainings
            return [f"mixture={name}", f"mixture.path={elsewhere / 'runs' / last / 'mixture.yaml'}"]
        options = GlobalHydra.instance().config_loader().get_group_options("mixture")
        if name in self.fits and name not in options:
            return ["mixture=from_file", override_of("mixture.path", self._found_by(self.fits[name]))]
        return []

    def _found_by(self, fit: FitConf) -> str:
        """The mixture file of a fit: that of its single target, or else for each target run that of its budget."""
        if len(fit.target_tokens) == 1:
            return f"{fit.output_dir}/mixtures/{budget_label(fit.target_tokens[0])}.yaml"
        return f"${{mixture_of_search:${{search}},{os.path.relpath(fit.output_dir, self.folder)},${{token_budget}}}}"

    def _add_targets(self) -> None:
        """Adds one sweep of all rivals that need only a mixture, and one for each of the others."""
        own_targets = {name: target for name in self.conf.rivals if (target := self._target_of(name))}
        alike = [name for name in self.conf.rivals if name not in own_targets]
        budgets = f"token_budget={','.join(map(str, self.conf.token_budgets))}"
        seeds = f"seed={','.join(map(str, self.conf.seeds))}"
        found = [stage.name for stage in self.stages if stage.name.startswith(("fit", "train"))]
        asked = ["experiment=targets", self._store, f"search={self.folder}"]
        asked += ["save_model=true"] if self.conf.save_model or self.conf.evaluations else []
        for name in [None] * bool(alike) + [*own_targets]:
            own = [*self._filled(own_targets[name]), f"mixture.name={name}"] if name else []
            command = self.sections.command(
                "train", [*asked, *own], [*self._of_all_runs, "num_validations"], launched=True
            )
            mixtures = [] if name else [f"mixture={','.join(alike)}"]
            command = replace(command, sweeps=[*mixtures, budgets, seeds])
            stage = f"targets {name}" if name else "targets"
            self.stages.append(Stage(stage, command, self.folder / "targets" / TABLE, found))

    def _add_evaluation(self, name: str, asked: Sequence[str], targets: Sequence[str]) -> None:
        runs = [conf.run_name for stage in self.stages if stage.name in targets for conf in stage.command.configs()]
        folders = ",".join(str(self.folder / "targets" / "runs" / run) for run in runs)
        command = Command("evaluate", ["hydra.mode=MULTIRUN", f"run={folders}", *asked])
        last = self.folder / "targets" / "runs" / runs[-1] / "evaluation.json"
        self.stages.append(Stage(f"evaluate {name}", command, last, list(targets)))

    def _add_report(self, targets: Sequence[str]) -> None:
        fits = [stage for stage in self.stages if stage.name.startswith("fit ")]
        if not fits:
            raise UserError(
                f"rivals are {', '.join(self.conf.rivals)}, none of which is fitted; a study compares them by a fit's "
                "objective: add fitted, or train and compare them yourself with `train` and `evaluate`"
            )
        asked = [f"search={self.folder}"]
        default = self.folder / "fit" / FIT
        if all(stage.result != default for stage in fits):
            asked.append(f"fit={fits[0].result.parent}")
        if self.conf.reference != "uniform":
            asked.append(f"reference={self.conf.reference}")
        reads = [*targets, *(stage.name for stage in fits)]
        reads += [stage.name for stage in self.stages if stage.name.startswith("evaluate")]
        self.stages.append(
            Stage("report", self.sections.command("report", asked, ["published"]), self.folder / "report.html", reads)
        )

    def _of_run(self, folder: Path, name: str, experiment: str | None) -> list[str]:
        asked = [f"experiment={experiment}"] if experiment else []
        return [*asked, f"name={name}", f"output_dir={folder}", self._store]

    @property
    def _store(self) -> str:
        return f"store={self.store.folder if self.prepared else 'null'}"

    @property
    def _of_all_runs(self) -> list[str]:
        return RUNS if self.prepared else [*RUNS, "data"]

    def _filled(self, overrides: Sequence[str], study: Path | None = None) -> list[str]:
        """A rival's overrides, with the study's values for their $names; $folder is that of `study` if one is given."""
        if not any("$" in override for override in overrides):
            return list(overrides)
        scale = min(self.scales)
        values = {
            "folder": study or self.folder,
            "target": self.conf.token_budgets[-1],
            "scale": scale,
            "search_tokens": self.search_tokens,
            "half_search_tokens": self.search_tokens // 2,
            "num_runs": self.search_tokens // scale - 1,
        }
        return [Template(override).safe_substitute(values) for override in overrides]
