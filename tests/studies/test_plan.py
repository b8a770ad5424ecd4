from collections.abc import Callable
from dataclasses import replace
from io import StringIO

from rich.console import Console

from autoscale_exp.runs.identity import write_identity
from autoscale_exp.runs.record import write_record
from autoscale_exp.studies.runs import runs_of
from autoscale_exp.studies.stages import StageList
from autoscale_exp.study import show_plan
from autoscale_exp.training.plan import plan_run
from tests.runs.records import make_record


def finish(of_study: StageList, index: int) -> int:
    """Writes the result of a run of a study's search, which was not trained, and returns its tokens."""
    run = runs_of(of_study.own_search, of_study.store, of_study.folder)[index]
    plan = plan_run(run.conf, of_study.store)
    folder = of_study.folder / "runs" / plan.spec.run
    folder.mkdir(parents=True)
    write_identity(folder, plan.identity)
    write_record(folder, replace(make_record(plan.spec.run), fingerprint=plan.identity.fingerprint))
    return run.tokens


def told_of(of_study: StageList) -> list[str]:
    """The lines of a study's plan."""
    stages = of_study.build()
    told = Console(file=StringIO(), width=300)
    show_plan(told, of_study, stages, stages)
    return told.file.getvalue().splitlines()  # type: ignore[attr-defined]


def plan_of(of_study: StageList) -> dict[str, list[str]]:
    """The cells of the plan's table by stage, and what is to do in all as its last entry."""
    lines = told_of(of_study)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    (total,) = (line for line in lines if line.startswith("to do: "))
    return {name: cells for name, *cells in rows} | {"total": total.split(", ")}


def test_a_plan_counts_only_the_runs_that_are_left(stage_list: Callable[..., StageList]):
    before = plan_of(stage_list())
    tokens = sum(run.tokens for run in runs_of(stage_list().own_search, stage_list().store, stage_list().folder))
    assert before["search"][0::4] == ["14", "to do"]
    assert before["total"][0] == "to do: 18 runs"  # and four target runs
    done = finish(stage_list(), 0) + finish(stage_list(), 9)
    after = plan_of(stage_list())
    assert after["search"][:2] == ["12", f"{(tokens - done) / 1000:.3g}K"]
    assert float(after["search"][2]) < float(before["search"][2])
    assert after["search"][4] == "to do, 2 of 14 runs finished"
    assert after["total"][0] == "to do: 16 runs"
    assert after["targets"] == before["targets"]


def test_a_plan_tells_of_runs_of_another_design(stage_list: Callable[..., StageList]):
    finish(stage_list(), 0)
    assert not [line for line in told_of(stage_list()) if "of another design" in line]
    (line,) = (line for line in told_of(stage_list("design.scales=[480,960]")) if "of another design" in line)
    assert line.startswith(f"'{stage_list().folder}' has 1 finished run of another design (base_0.32K)")
