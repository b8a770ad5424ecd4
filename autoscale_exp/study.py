"""The `study` job: prepare, search, fit, target runs, evaluation and report in one command, resumable at any point."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import job
from autoscale_exp.base.labels import plural, short_duration, short_label
from autoscale_exp.base.multirun import is_elsewhere, runs_at_a_time
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.config import StudyConf
from autoscale_exp.data.manifest import MANIFEST
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.data.unprepared import unprepared_store
from autoscale_exp.laws.request import Request, make_request
from autoscale_exp.reporting.tables import open_console, print_table
from autoscale_exp.runs.design import ScaledDesignConf
from autoscale_exp.runs.record import read_records
from autoscale_exp.runs.table import RunTable
from autoscale_exp.studies.checks import (
    check_numbers_of_runs,
    check_objective,
    check_ratios,
    check_scales,
    first_of_search,
)
from autoscale_exp.studies.choices import choose_scales
from autoscale_exp.studies.commands import Sections
from autoscale_exp.studies.progress import StudyProgress
from autoscale_exp.studies.runs import StageRun, runs_of
from autoscale_exp.studies.stages import Stage, StageList
from autoscale_exp.training.forecast import Forecast, Forecaster, Upcoming, check_plan, describe
from autoscale_exp.training.other_designs import remark_on_other_designs
from autoscale_exp.training.parallelism import check_devices
from autoscale_exp.training.plan import check_data_given_once

log = logging.getLogger(__name__)


@job("study", lambda: "finished runs and stages stay; the same command goes on from there")
def main(conf: StudyConf) -> None:
    """Carries out what is not finished yet."""
    check(conf)
    check_data_given_once(conf.store, HydraConfig.get().overrides.task)
    if conf.search is not None:
        conf = replace(conf, store=conf.store or first_of_search(conf).store)
    console, progress = open_console(), StudyProgress(Path(conf.output_dir))
    prepare = prepare_stage(conf)
    prepared = not progress.unfinished(prepare)
    if not prepared and not conf.plan.only:
        if not is_elsewhere(HydraConfig.get().launcher):
            check_devices(conf)
        console.print(f"{prepare[0].name}: {prepare[0].command.text}")
        progress.carry_out(prepare[0])
        prepared = True
    store = store_of(conf) if prepared else unprepared_store(conf.data)
    design = with_scales(conf, store)
    conf = replace(conf, design=design)
    sections = Sections.of_job({"design.scales": design.scales})
    stages = StageList(conf, design.scales, sections, store, prepared)
    planned = [*prepare, *stages.build()]
    left = progress.unfinished(planned)
    show_plan(console, stages, planned, left)
    if conf.plan.only:
        return
    progress.expect(stages.searches)
    for number, stage in enumerate(left, 1):
        console.print(f"\n{number} of {len(left)}: {stage.name}", style="bold")
        progress.carry_out(stage)
    log.info("the study is finished; its report is '%s'", planned[-1].result)


def check(conf: StudyConf) -> None:
    """Checks all that can be checked without the token store.

    Raises:
        UserError: a value is not allowed.
    """
    for key in ("token_budgets", "seeds", "rivals"):
        if not getattr(conf, key):
            raise UserError(f"{key} is empty; give at least one, as in {key}=[...]")
    for key in ("token_budgets", "seeds"):
        values = getattr(conf, key)
        if len(set(values)) < len(values):
            raise UserError(f"{key} is {values}; give each value once")
    check_range({f"token_budgets[{index}]": budget for index, budget in enumerate(conf.token_budgets)}, 1)
    check_range({f"seeds[{index}]": seed for index, seed in enumerate(conf.seeds)}, 0, LARGEST_SEED)
    check_plan(conf.plan)
    if conf.token_budgets != sorted(conf.token_budgets):
        raise UserError(f"token_budgets is {conf.token_budgets}; give them in rising order, the target last")
    if conf.reference not in conf.rivals:
        raise UserError(
            f"reference is '{conf.reference}', but the rivals are {', '.join(conf.rivals)}; name one of these, or add "
            f"{conf.reference} to rivals"
        )


def prepare_stage(conf: StudyConf) -> list[Stage]:
    """The stage that makes the token store; none if the study is given one."""
    if conf.store is not None:
        return []
    command = Sections.of_job().command("prepare", [], ["data"])
    return [Stage("prepare", command, Path(conf.data.store) / MANIFEST)]


def store_of(conf: StudyConf) -> TokenStore:
    """Opens the token store of a study."""
    return open_store(conf.store_folder, "store" if conf.store else "data.store")


def with_scales(conf: StudyConf, store: TokenStore) -> ScaledDesignConf:
    """The design of the study's search, with chosen scales if the user gave none.

    Raises:
        UserError: the design has no scales, or none can be chosen.
    """
    if not isinstance(conf.design, ScaledDesignConf):
        raise UserError("design=single is a single run; choose a design over scales for a study's search: design=ddo")
    if conf.search is not None:
        budgets = {record.token_budget for record in read_records(Path(conf.search))}
        return replace(conf.design, scales=sorted(budgets))
    if conf.design.scales:
        return conf.design
    tokens = [store.num_rows("train", domain) * store.seq_len for domain in store.domains]
    found = choose_scales(conf.token_budgets[-1], tokens)
    log.info("design.scales is chosen as [%s], by the target and the text there is", ",".join(map(str, found)))
    return replace(conf.design, scales=found)


def requests_of(stages: StageList) -> dict[str, Request]:
    """Makes the request to each rival's fit, checked before any run.

    Raises:
        UserError: a value is not allowed; the message names the key.
    """
    store = stages.store
    none = np.empty((0, len(store.domains))), np.empty((0, len(store.validation_domains)))
    unique = [store.num_rows("train", domain) * store.seq_len for domain in store.domains]
    no_runs = RunTable([], store.domains, store.validation_domains, *none, unique_tokens=unique)
    requests = {}
    for name, fit in stages.fits.items():
        try:
            requests[name] = make_request(fit, no_runs)
        except UserError as error:
            raise UserError(f"rival {name}: {error}") from None
    return requests


def show_plan(console: Console, stages: StageList, planned: Sequence[Stage], left: Sequence[Stage]) -> None:
    """Prints the plan: what each stage will take, and the commands that do the same one by one.

    Raises:
        UserError: the config of a run is invalid, or the run does not fit the memory.
    """
    conf, store, folder = stages.conf, stages.store, stages.folder
    requests = requests_of(stages)
    check_scales(stages, requests)
    check_objective(stages, requests)
    check_ratios(stages, requests)
    runs = {stage.name: runs_of(stage.command, store, folder) for stage in planned}  # all checked before any is timed
    check_numbers_of_runs(
        stages, {name: [run.tokens for run in of_stage] for name, of_stage in runs.items() if of_stage}
    )
    to_do = {stage.name: [run for run in runs[stage.name] if not run.finished] for stage in left}
    here = [stage for stage in left if not (stage.command.launched and is_elsewhere(stages.sections.launcher))]
    for run in [] if conf.plan.only else [run for stage in here for run in to_do[stage.name]]:
        check_devices(run.conf)
    parallel = runs_at_a_time(stages.sections.launcher)
    upcoming = {name: [Upcoming(run.conf, store, run.tokens) for run in of_stage] for name, of_stage in to_do.items()}
    forecaster = Forecaster(conf.plan, folder, measure=stages.prepared)
    forecaster = forecaster.unless_tiny([run for of_stage in upcoming.values() for run in of_stage])
    rows, total = [], Forecast()
    for stage in planned:
        counted = to_do.get(stage.name, runs[stage.name])
        cells = [str(len(counted)), short_label(sum(run.tokens for run in counted))] if counted else ["", ""]
        if counted and stage in left:
            forecast = forecaster.of_runs(upcoming[stage.name], (parallel if stage.command.launched else None) or 1)
            total += forecast
            cells += [f"{forecast.flops:.2g}", "" if forecast.seconds is None else short_duration(forecast.seconds)]
        rows.append([stage.name, *cells, *[""] * (4 - len(cells)), _state(stage in left, counted, runs[stage.name])])
    target = short_label(conf.token_budgets[-1])
    title = f"study {conf.name}: {', '.join(conf.rivals)} at {target} tokens, {plural(len(conf.seeds), 'seed')}"
    print_table(console, title, ["stage", "runs", "tokens", "FLOPs", "time", ""], rows)
    for of_stage in filter(None, runs.values()):
        if remark := remark_on_other_designs(of_stage[0].conf, store.domains):
            console.print(remark)
    for other in sorted(stages.others):
        console.print(f"'{other}' has other runs than this study asks for, so it trains its own")
    known = store.num_bytes if stages.prepared or conf.data.max_characters else None
    console.print(f"to do: {describe(total, conf.plan, known, parallel) if left else 'nothing'}")
    if not stages.prepared:
        console.print(f"first the token store: {planned[0].command.text}")
        return
    console.print("the same, one by one:")
    for stage in planned:
        console.print(f"  {stage.command.text}")


def _state(is_left: bool, to_do: Sequence[StageRun], runs: Sequence[StageRun]) -> str:
    if not is_left:
        return "finished"
    finished = len(runs) - len(to_do)
    return f"to do, {finished} of {len(runs)} runs finished" if finished else "to do"


if __name__ == "__main__":
    main()
