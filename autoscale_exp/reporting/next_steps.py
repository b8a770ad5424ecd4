"""The command that comes after each job, as the job's last line tells it."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoscale_exp.base.help import is_experiment_of
from autoscale_exp.base.job import CONF_DIR
from autoscale_exp.base.labels import budget_label, round_down
from autoscale_exp.laws.fit_file import FIT, Fit
from autoscale_exp.reporting.mixture_files import fit_of, mixture_file
from autoscale_exp.runs.record import RECORD, read_records
from autoscale_exp.runs.repeat import read_yaml

LARGEST_TARGET = 10_000_000  # of the study that is proposed: minutes on a CPU
CARRIED = (
    r"\+*(model|trainer|max_epochs|micro_batch_rows|num_workers|num_threads)(\.[\w.]+)?="  # from search to targets
)
SWEPT_OF_ONE = r"\+*(seed|token_budget|run_name|hydra\.mode)="  # what more target runs of a mixture get anew
SWEPT = rf"\+*mixture=|{SWEPT_OF_ONE}"  # and of several


def after_prepare(store: str, domain_tokens: Sequence[int], choice: str, overrides: Sequence[str]) -> str:
    """The study on a token store.

    Args:
        store: its folder.
        domain_tokens: (K,) training tokens that it has of each domain.
        choice: the config of the group `data` that it was prepared with.
        overrides: as typed.
    """
    if not any(re.match(r"\+*data\.", override) for override in overrides) and (experiment := _study_of_data(choice)):
        return next_command("study", f"experiment={experiment}")
    target = max(round_down(min(LARGEST_TARGET, 2 * min(domain_tokens) * len(domain_tokens))), 1000)
    return next_command("study", f"store={store}", f"token_budgets=[{target:_}]")


def after_sweep(folder: Path, *, is_design: bool, search: str | None) -> str:
    """The fit of a search, the report of target runs, or where to look at other runs.

    Args:
        folder: of the sweep.
        is_design: whether its runs are those of a design, and no single ones.
        search: folder of the search whose mixtures were trained.
    """
    if search is not None:
        elsewhere = [] if Path(folder) == Path(search) / "targets" else [f"targets={folder}"]
        return next_command("report", f"search={search}", *elsewhere, *_fit_trained_last(folder, Path(search)))
    if not is_design:
        return f"next: look at '{folder}/runs.csv', which has the losses of every run"
    largest = max(record.token_budget for record in read_records(folder))
    return next_command("fit", f"runs={folder}", f"target_tokens=[{_target_of(largest):_}]")


def after_run(folder: Path) -> str:
    """How to look at a single run."""
    if (folder / "model").is_dir():
        return next_command("evaluate", f"run={folder}")
    return (
        f"next: look at '{folder}/result.json', which has the losses in nats per token; with save_model=true, "
        f"`python -m autoscale_exp.evaluate run={shlex.quote(str(folder))}` measures more"
    )


def after_fit(runs: str | None, folder: str, fit: Fit) -> str:
    """Target runs of the fit of a search; the export of a mixture of other runs; or the fit with a target.

    Args:
        runs: the run table or the sweep's folder that was fitted; None for given optima.
        folder: of the fit.
        fit: what was found.
    """
    if not fit.targets:
        source = f"runs={runs}" if runs else "optima=<optima.csv>"
        target = f"target_tokens=[{_target_of(max(scale.tokens for scale in fit.scales)):_}]"
        law = [] if fit.law in ("pooled_transfer", "autoscale_path") else [f"law={fit.law}"]
        return next_command("fit", source, *law, target)
    budget = max(target.tokens for target in fit.targets)
    mixture_file = f"{folder}/mixtures/{budget_label(budget)}.yaml"
    if runs is None or not Path(runs).is_dir():
        return next_command("export", f"mixture_file={mixture_file}", "format=megatron")
    of_search = Path(folder) in (Path(runs) / "fit", Path(runs) / "autoscale")
    asked = ["experiment=targets", f"search={runs}", f"token_budget={budget:_}"]
    if not of_search:
        asked += ["mixture=from_file", f"mixture.name={fit.law}_{fit.objective.name}", f"mixture.path={mixture_file}"]
    elif Path(folder).name == "autoscale":
        fitted = "fitted," * (Path(runs) / "fit" / FIT).is_file()
        asked.append(f"mixture=uniform,{fitted}autoscale")
    return next_command("train", *asked, *_carried(Path(runs)))


def target_runs(search: Path, fit: Fit, *overrides: str) -> str:
    """The command of the target runs that a report of a search lacks."""
    budget = max((target.tokens for target in fit.targets), default=None) or _target_of(fit.scales[-1].tokens)
    asked = ["experiment=targets", f"search={search}", f"token_budget={budget:_}", *overrides]
    return _command("train", *asked, *_carried(search))


def after_verdict(mixture: str, file: Path | None) -> str:
    """The export of the mixture that proved best, if it was trained from a file, as those of fits are."""
    if file is None or not file.is_file():
        return f"next: train the large run on the weights of {mixture}"
    return next_command("export", f"mixture_file={file}", "format=megatron")


def more_seeds(targets: Path, search: str, mixtures: Sequence[str], wanted: int) -> str:
    """Target runs of the same mixtures with the next seeds: one command for all that a name is enough for.

    Args:
        targets: their folder.
        search: folder of the search.
        mixtures: names of those that are trained.
        wanted: seeds, with those that are trained.
    """
    records = read_records(targets)
    seeds = {record.seed for record in records}
    added = ",".join(str(seed) for seed in range(max(seeds) + 1, max(seeds) + 1 + wanted - len(seeds)))
    budgets = ",".join(f"{budget:_}" for budget in sorted({record.token_budget for record in records}))
    asked: dict[tuple[str, ...], list[str]] = {}  # mixtures by what was typed for their runs
    for mixture in mixtures:
        run = next(record.run for record in records if record.mixture == mixture)
        typed = read_yaml(targets / "runs" / run / ".hydra" / "overrides.yaml")
        typed = typed if isinstance(typed, list) else ["experiment=targets", f"search={search}"]
        choice = mixture if not any(re.match(r"\+*mixture\.", override) for override in typed) else None
        kept = [o for o in typed if not re.match(SWEPT if choice else SWEPT_OF_ONE, o)]
        asked.setdefault(tuple(kept), []).extend([choice] if choice else [])
    commands = []
    for overrides, choices in asked.items():
        of_mixtures = [f"mixture={','.join(choices)}"] if choices else []
        commands.append(_command("train", *overrides, *of_mixtures, f"token_budget={budgets}", f"seed={added}"))
    return "next: " + " && ".join(commands)


def next_command(job: str, *overrides: str) -> str:
    """The line that tells a command."""
    return "next: " + _command(job, *overrides)


def _command(job: str, *overrides: str) -> str:
    return shlex.join(["python", "-m", f"autoscale_exp.{job}", *overrides])


def _carried(search: Path) -> list[str]:
    """What the proxy runs were trained with and target runs should be, too: model, trainer and the like."""
    run = read_records(search)[0].run
    typed: Any = read_yaml(search / "runs" / run / ".hydra" / "overrides.yaml")
    hydra: Any = read_yaml(search / "runs" / run / ".hydra" / "hydra.yaml")
    if not isinstance(typed, list) or not isinstance(hydra, dict):
        return []
    kept = [override for override in typed if re.match(CARRIED, override)]
    choices = hydra["hydra"]["runtime"]["choices"]
    if choices.get("experiment") not in (None, "search"):  # whose file may choose them
        chosen = {group: f"{group}={choices[group]}" for group in ("model", "trainer") if choices.get(group)}
        kept = [chosen[g] for g in chosen if not any(k.startswith(f"{g}=") for k in kept)] + kept
    return kept


def _fit_trained_last(sweep: Path, search: Path) -> list[str]:
    """What makes a report judge by the fit whose mixture was trained last, if it is no fit that reports take anyway."""
    if not any(sweep.glob(f"runs/*/{RECORD}")):
        return []
    last = max(read_records(sweep), key=lambda record: record.finished)
    file = mixture_file(sweep, last)
    fit = file and fit_of(file)
    if fit is None or fit.resolve() in ((search / "fit").resolve(), (search / "autoscale").resolve()):
        return []
    return [f"fit={fit}", f"output_dir={fit}"]


def _study_of_data(choice: str) -> str | None:
    """The first study on a config of the group `data`, if there is one."""
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        if is_experiment_of(path, "study") and {"override /data": choice} in read_yaml(path)["defaults"]:
            return path.stem
    return None


def _target_of(scale: int) -> int:
    """A round number of tokens, about three times a scale or more."""
    return max(round_down(5 * scale), 1000)
