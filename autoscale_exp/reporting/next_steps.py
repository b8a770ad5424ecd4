"""The command to run after each job, which the job's last line tells."""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from autoscale_exp.base.labels import budget_label, round_down
from autoscale_exp.laws.fit_file import FIT, Fit, FittedMixture, NextRun
from autoscale_exp.laws.fit_folder import SAME, earlier_fit
from autoscale_exp.laws.reach import MANY_EPOCHS, ROUNDING, epochs
from autoscale_exp.runs.record import MIXTURE, RECORD, RunRecord, read_record, read_records
from autoscale_exp.runs.repeat import read_yaml

IN_STUDY = "AUTOSCALE_IN_STUDY"  # environment variable in the stages of a study, which starts the next one itself
LARGEST_TARGET = 10_000_000  # largest target of a proposed study, which takes minutes on a CPU
CARRIED = (
    r"\+*(model|trainer|max_epochs|micro_batch_rows|num_workers|num_threads)(\.[\w.]+)?="  # from search to targets
)
SWEPT_OF_ONE = r"\+*(seed|token_budget|run_name|hydra\.mode)="  # overrides that change for more runs of a mixture
SWEPT = rf"\+*mixture=|{SWEPT_OF_ONE}"  # the same for several mixtures


def tell_next(say: Callable[[str], object], line: str | None) -> None:
    """Says what comes next, unless there is nothing, or a study goes on by itself."""
    if line is not None and IN_STUDY not in os.environ:
        say(line)


def after_prepare(store: str, domain_tokens: Sequence[int]) -> str:
    """Returns the command of a study on a token store.

    Args:
        store: the folder of the store.
        domain_tokens: (K,) training tokens of each domain.
    """
    target = max(round_down(min(LARGEST_TARGET, 2 * min(domain_tokens) * len(domain_tokens))), 1000)
    return next_command("study", f"store={store}", f"token_budgets=[{target:_}]")


def after_sweep(folder: Path, *, is_design: bool, search: str | None, mixture_file: str | None = None) -> str:
    """Returns the fit of a search, the report of target runs, or where to look at other runs.

    Args:
        folder: folder of the sweep.
        is_design: whether its runs are those of a design, not single ones.
        search: folder of the search whose mixtures were trained.
        mixture_file: the mixture file that was trained, if it was one.
    """
    if search is not None and not (is_design and Path(folder) == Path(search)):
        elsewhere = [] if Path(folder) == Path(search) / "targets" else [f"targets={folder}"]
        names = {record.mixture for record in _records_in(folder)}
        reference = ["reference=natural"] if "natural" in names and "uniform" not in names else []
        fit = _fit_trained(Path(search), mixture_file)
        return next_command("report", f"search={search}", *fit, *elsewhere, *reference)
    if not is_design:
        return f"next: look at '{folder}/runs.csv', which has the losses of every run"
    largest = max(record.token_budget for record in read_records(folder))
    return fit_again(folder, folder / "fit") or next_command(
        "fit", f"runs={folder}", f"target_tokens=[{_target_of(largest):_}]"
    )


def after_run(folder: Path, *, is_design: bool, search: str | None, mixture_file: str | None = None) -> str:
    """Returns what comes after a run: training on the mixture that it found, what follows its sweep, or a look at it.

    Args:
        folder: folder of the run, in the sweep's folder `runs`.
        is_design: see `after_sweep`.
        search: see `after_sweep`.
        mixture_file: the mixture file that was trained, if any.
    """
    if (folder / MIXTURE).is_file():
        record = read_record(folder)
        mixture = ["mixture=from_file", f"mixture.name={record.mixture}", f"mixture.path={folder / MIXTURE}"]
        budget = f"token_budget={_target_of(record.token_budget):_}"
        return next_command("train", f"store={record.store}", f"model={record.model}", *mixture, budget)
    sweep = folder.parent.parent
    if search is not None or (is_design and len(read_records(sweep)) > 1):
        return after_sweep(sweep, is_design=is_design, search=search, mixture_file=mixture_file)
    if (folder / "model").is_dir():
        return next_command("evaluate", f"run={folder}")
    return (
        f"next: look at '{folder}/result.json', which has the losses in nats per token; with save_model=true, "
        f"`python -m autoscale_exp.evaluate run={shlex.quote(str(folder))}` measures more"
    )


def after_fit(runs: str | None, folder: str, fit: Fit) -> str:
    """Returns the target runs of the fit of a search, the export of a mixture of other runs, or the fit with a target.

    If the search's text is too little for the target, this is a fit with a target within the text.

    Args:
        runs: the run table or the sweep's folder that was fitted; None for given optima.
        folder: of the fit.
        fit: the fit, with the targets that were asked for.
    """
    if not fit.targets:
        source = f"runs={runs}" if runs else "optima=<optima.csv>"
        proposed = f"target_tokens=[{_target_of(fit.most_tokens):_}]"
        law = [] if fit.law in ("pooled_transfer", "autoscale_path") else [f"law={fit.law}"]
        return next_command("fit", source, *law, proposed)
    target = max(fit.targets, key=lambda target: target.tokens)
    mixture_file = f"{folder}/mixtures/{budget_label(target.tokens)}.yaml"
    if runs is None or not Path(runs).is_dir():
        return next_command("export", f"mixture_file={mixture_file}", "format=megatron")
    carried = _carried(Path(runs))
    unique, limit = read_records(Path(runs))[0].unique_tokens, _max_epochs(carried)
    if max(epochs(target, unique).values(), default=0.0) > limit * (1 + ROUNDING):
        lasts = max(min(target.tokens, round_down(limit * sum(unique.values()))), 1)
        within = [f"target_tokens=[{lasts:_}]", f"bounds.max_epochs={limit}"]
        return fit_again(Path(runs), Path(folder), *within) or next_command("fit", f"runs={runs}", *within)
    asked = ["experiment=targets", f"search={runs}", f"token_budget={target.tokens:_}"]
    is_tight = target.tokens > limit * (1 + ROUNDING) * len(unique) * min(unique.values())
    reference = "natural" if is_tight else "uniform"  # natural goes through all text equally often
    if Path(folder) not in (Path(runs) / "fit", Path(runs) / "autoscale"):
        asked += _from_file(f"{fit.law}_{fit.objective.name}", mixture_file)
    elif Path(folder).name == "autoscale":
        fitted = "fitted," * (Path(runs) / "fit" / FIT).is_file()
        asked.append(f"mixture={reference},{fitted}autoscale")
    elif name := _other_name(Path(runs) / "targets", target):
        asked += _from_file(name, mixture_file)
    elif is_tight:
        asked.append(f"mixture={reference},fitted")
    return next_command("train", *asked, *carried)


def runs_first(fit: Fit) -> str | None:
    """Says which way to take first if the verdict is open and proxy runs would tell more; None if there is only one."""
    if not any(target.is_open for target in fit.targets):
        return None
    return "the proxy runs above come first, and then this fit again: they cost less than target runs"


def after_predict(law_file: Path, budget: int) -> str | None:
    """Returns the export of the fit's mixture for a budget, or the fit that finds it; None if the folder does not tell.

    Args:
        law_file: the file of the law that predicted.
        budget: token budget of the predicted mixtures.
    """
    mixture_file = law_file.parent / "mixtures" / f"{budget_label(budget)}.yaml"
    if mixture_file.is_file():
        return next_command("export", f"mixture_file={mixture_file}", "format=megatron")
    return fit_again(None, law_file.parent, f"target_tokens=[{budget:_}]")


def fit_again(runs: Path | None, folder: Path, *changed: str) -> str | None:
    """Returns the fit in a folder as it was typed, with some overrides changed; None if no fit there tells.

    Args:
        runs: folder of the sweep that the fit must be of; None for any.
        folder: of the fit.
        changed: overrides that replace those with the same keys.
    """
    fit = earlier_fit(folder)
    if fit is None or not fit.overrides or (runs is not None and f"runs={runs}" not in fit.overrides):
        return None
    keys = {override.partition("=")[0] for override in changed}
    return next_command("fit", *(o for o in fit.overrides if o.lstrip("+").partition("=")[0] not in keys), *changed)


def next_runs_command(
    search: str, table: Path, proposed: Sequence[NextRun], run: NextRun, models: Mapping[int, str]
) -> str:
    """Returns the command that trains one of the runs that a fit proposes.

    Args:
        search: folder of the search.
        table: the table of all proposed runs.
        proposed: all proposed runs.
        run: the run to train.
        models: by size, the models that no run of the search has.
    """
    index = [other.run for other in proposed if other.params == run.params].index(run.run)
    asked = _of_size(search, table, proposed, run.params, models)
    return _command("train", *asked, f"design.index={index}", "hydra.mode=RUN")


def all_next_runs(search: str, table: Path, proposed: Sequence[NextRun], models: Mapping[int, str]) -> list[str]:
    """Returns the commands that train all runs that a fit proposes, one per model size; see `next_runs_command`."""
    sizes = dict.fromkeys(run.params for run in proposed)
    return [_command("train", *_of_size(search, table, proposed, params, models)) for params in sizes]


def _of_size(
    search: str, table: Path, proposed: Sequence[NextRun], params: int | None, models: Mapping[int, str]
) -> list[str]:
    """The overrides that train the proposed runs of one model size."""
    one_size = len({run.params for run in proposed}) == 1
    asked = ["experiment=next_runs", f"search={search}", f"design.path={table}"]
    asked += [] if one_size else [f"design.params={params}"]
    alike = next((record.run for record in read_records(Path(search)) if record.params == params), None)
    carried = _carried(Path(search), alike)
    if alike is None and params is not None:  # a model that the search does not have yet
        carried = [f"model={models[params]}", *(o for o in carried if not re.match(r"\+*model[.=]", o))]
    return [*asked, *carried]


def target_runs(search: Path, fit: Fit, *overrides: str) -> str:
    """Returns the command of the target runs that a report of a search lacks."""
    budget = max((target.tokens for target in fit.targets), default=None) or _target_of(fit.most_tokens)
    asked = ["experiment=targets", f"search={search}", f"token_budget={budget:_}", *overrides]
    return _command("train", *asked, *_carried(search))


def after_verdict(mixture: str, file: Path | None) -> str:
    """Returns the export of the mixture that proved best, if it was trained from a file."""
    if file is None or not file.is_file():
        return f"next: train the large run on the weights of {mixture}"
    return next_command("export", f"mixture_file={file}", "format=megatron")


def more_seeds(targets: Path, search: str, mixtures: Sequence[str], wanted: int) -> str:
    """Returns target runs of the same mixtures with the next seeds, in one command for all that need only a name.

    Args:
        targets: folder of the target runs.
        search: folder of the search.
        mixtures: names of the trained mixtures.
        wanted: number of seeds in all.
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
    """The line that tells the next command."""
    return "next: " + _command(job, *overrides)


def _command(job: str, *overrides: str) -> str:
    return shlex.join(["python", "-m", f"autoscale_exp.{job}", *overrides])


def _from_file(name: str, path: str) -> list[str]:
    return ["mixture=from_file", f"mixture.name={name}", f"mixture.path={path}"]


def _fit_trained(search: Path, mixture_file: str | None) -> list[str]:
    """The override of `report` for the fit whose mixture was trained, if report would not take that fit anyway."""
    taken = search / "fit"
    trained = taken if mixture_file is None else Path(mixture_file).parent.parent
    if not (taken / FIT).is_file() and mixture_file is None:
        trained = search / "autoscale"
    is_beside = trained == search / "autoscale" and (taken / FIT).is_file()  # which report shows anyway
    if trained == taken or is_beside or not (trained / FIT).is_file():
        return []
    elsewhere = [f"output_dir={trained}"] if (taken / FIT).is_file() else []  # the report of that one stays
    return [f"fit={trained}", *elsewhere]


def _other_name(targets: Path, target: FittedMixture) -> str | None:
    """A name for the fitted mixture if target runs have another one called fitted; None if none is needed."""
    records = _records_in(targets)
    trained = [r.requested_weights for r in records if (r.mixture, r.token_budget) == ("fitted", target.tokens)]
    if all(abs(weights.get(d, 0.0) - weight) <= SAME for weights in trained for d, weight in target.weights.items()):
        return None
    taken = {record.mixture for record in records}
    return next(name for name in map("fitted_{}".format, count(2)) if name not in taken)


def _records_in(sweep: Path) -> list[RunRecord]:
    return read_records(sweep) if any(sweep.glob(f"runs/*/{RECORD}")) else []


def _max_epochs(overrides: Sequence[str]) -> int:
    """max_epochs in the overrides of a run, or the default of `train`."""
    typed = [override.partition("=")[2] for override in overrides if re.match(r"\+*max_epochs=", override)]
    return int(typed[-1]) if typed else MANY_EPOCHS


def _carried(search: Path, run: str | None = None) -> list[str]:
    """The overrides of a proxy run, by default the first, that other runs should share: model, trainer and the like."""
    run = run or read_records(search)[0].run
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


def _target_of(scale: int) -> int:
    """A round number of tokens, about three times a scale or more."""
    return max(round_down(5 * scale), 1000)
