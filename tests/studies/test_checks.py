from collections.abc import Callable
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.laws.fewest_runs import fewest_runs
from autoscale_exp.laws.fit_file import Diagnostics, Fit, FitObjective, write_fit
from autoscale_exp.runs.identity import write_identity
from autoscale_exp.runs.record import RECORD, write_record
from autoscale_exp.runs.rival import RivalConf
from autoscale_exp.studies.checks import (
    check_numbers_of_runs,
    check_objective,
    check_ratios,
    check_scales,
    first_of_search,
)
from autoscale_exp.studies.runs import runs_of
from autoscale_exp.studies.stages import StageList
from autoscale_exp.study import requests_of
from autoscale_exp.training.plan import plan_run
from tests.runs.records import make_record


def totals(stages: StageList) -> dict[str, list[int]]:
    searches = [stage for stage in stages.build() if stage.name.startswith("search")]
    runs = {stage.name: runs_of(stage.command, stages.store, stages.folder) for stage in searches}
    return {name: [run.tokens for run in of_stage] for name, of_stage in runs.items()}


@pytest.mark.parametrize(
    ("law", "needed"),
    [
        ("lightgbm", 45),
        ("autoscale", 2 * 3 + 1),
        ("pooled_transfer", 4),
        ("linear", 3),
        ("mixing_law", 1 + 3),  # a level, and three rates but for their sum
    ],
)
def test_a_law_tells_how_many_runs_it_needs(law: str, needed: int):
    assert fewest_runs(law, ["a", "b", "c"], ["a", "b", "c", "held out"], scaled=False) == needed


def test_a_swarm_too_small_for_its_law_is_refused_with_what_makes_it_large_enough(stage_list: Callable[..., StageList]):
    few = stage_list("rivals=[uniform,regmix,fitted]")
    with pytest.raises(UserError, match=r"rival regmix: law=lightgbm needs 45 runs, but 'search swarm' has 33") as told:
        check_numbers_of_runs(few, totals(few))
    (asked,) = [word for word in str(told.value).split() if word.startswith("design.base_repeats=")]
    assert asked == "design.base_repeats=3"
    paid = [(few.search_tokens + repeats * (320 + 960)) // 320 for repeats in (2, 3)]  # runs of the smallest scale
    assert paid[0] < 45 <= paid[1]


def test_a_search_too_small_for_a_law_of_its_own_is_refused(stage_list: Callable[..., StageList]):
    own = stage_list("rivals=[uniform]", trees=RivalConf(fit=["law=lightgbm"]))
    with pytest.raises(UserError, match="rival trees: law=lightgbm needs 45 runs, but 'search' has 14; add scales"):
        check_numbers_of_runs(own, totals(own))


def test_a_law_needs_fewer_runs_for_a_search_that_has_one_budget(stage_list: Callable[..., StageList]):
    asked = ["rivals=[uniform]", "design=dirichlet", "design.scales=[960]"]
    line = RivalConf(fit=["law=linear"])
    enough = stage_list(*asked, "design.num_runs=2", line=line)  # with the base run, as many as domains
    check_numbers_of_runs(enough, totals(enough))
    few = stage_list(*asked, "design.num_runs=1", line=line)
    with pytest.raises(UserError, match="rival line: law=linear needs 3 runs, but 'search' has 2"):
        check_numbers_of_runs(few, totals(few))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["design.scales=[32,960]"], "design.scales has 32, but a row of each of the 3 domains takes 48 tokens"),
        (["design.scales=[1700,2000]"], r"token_budgets\[0\] is 1_600, below the smallest scale of the runs, 1_700"),
        (["bounds.max_epochs=0.001"], r"rival fitted: caps from unique tokens .* at 1_600 tokens .* raise bounds.max_"),
    ],
)
def test_scales_that_no_fit_can_answer_for_the_targets_with_are_refused(
    overrides: list[str], message: str, stage_list: Callable[..., StageList]
):
    sound = stage_list()
    sound.build()
    check_scales(sound, requests_of(sound))
    other = stage_list(*overrides)
    other.build()
    with pytest.raises(UserError, match=message):
        check_scales(other, requests_of(other))


def test_a_run_of_another_config_in_the_folder_is_told_of_before_the_search(stage_list: Callable[..., StageList]):
    of_study = stage_list()
    first, *_ = runs_of(of_study.own_search, of_study.store, of_study.folder)
    run = of_study.folder / "runs" / "base_0.32K"
    run.mkdir(parents=True)
    plan = plan_run(first.conf, of_study.store)
    write_identity(run, plan.identity)
    (run / RECORD).write_text("{}")
    smaller = stage_list("model.n_embd=32")
    with pytest.raises(UserError, match=r"holds run 'base_0.32K' with another config \(model.n_embd: 64, not 32\)"):
        runs_of(smaller.own_search, smaller.store, smaller.folder)


def test_fits_of_another_objective_are_left_as_they_are(stage_list: Callable[..., StageList]):
    of_study = stage_list("name=mine")
    of_study.build()
    requests = requests_of(of_study)
    check_objective(of_study, requests)
    other = FitObjective("mean_loss", "loss", {"fruit": 1.0})
    write_fit(of_study.folder / "fit", Fit("linear", other, list("ab"), [], [], Diagnostics([])))
    with pytest.raises(
        UserError, match=r"objective is 'mean_perplexity', but the study in '.*' has a fit for 'mean_loss'"
    ):
        check_objective(of_study, requests)
    with pytest.raises(UserError, match=rf"name=mine_mean_perplexity search={of_study.folder}$"):
        check_objective(of_study, requests)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            ["bounds.lower={fruit: .1}"],
            r"of 'code' is 0, but rival autoscale .*; add bounds.lower=0.067 .* leave autoscale out",
        ),
        (["bounds.lower=.1", "bounds.max_epochs=4"], "law=autoscale knows no bounds.max_epochs"),
    ],
)
def test_what_the_published_method_cannot_do_is_told_before_its_search(
    bounds: list[str], message: str, stage_list: Callable[..., StageList]
):
    def check(*overrides: str) -> None:
        of_study = stage_list("rivals=[uniform,fitted,autoscale]", *overrides)
        of_study.build()
        check_ratios(of_study, requests_of(of_study))

    check("bounds.lower=.1")
    with pytest.raises(UserError, match=message):
        check(*bounds)


def test_bounds_that_a_fit_would_refuse_are_refused_before_its_search(stage_list: Callable[..., StageList]):
    of_study = stage_list("bounds.lower=[.1,.1]")
    of_study.build()
    with pytest.raises(UserError, match=r"rival fitted: bounds\.lower has 2 entries, but there are 3 domains"):
        requests_of(of_study)


@pytest.fixture
def other_study(stage_list: Callable[..., StageList], tmp_path: Path) -> StageList:
    """Another study with all its proxy runs: its own, those of a swarm, and that of DoGE."""
    rivals = "rivals=[uniform,fitted,regmix,doge]"
    other = stage_list(rivals, f"output_dir={tmp_path}/other", "design.base_repeats=4")
    for stage in other.build():
        if stage.name.startswith(("search", "train")):
            for run in runs_of(stage.command, other.store, other.folder):
                finish(run.conf, other.store, run.tokens)
    return other


def finish(conf: TrainConf, store: TokenStore, tokens: int) -> None:
    plan = plan_run(conf, store)
    sweep = Path(conf.output_dir)
    folder = sweep / "runs" / (plan.spec.run if conf.design.index else conf.run_name)
    folder.mkdir(parents=True)
    write_identity(folder, plan.identity)
    told = {"tokens": {"a": tokens, "b": 0}, "fingerprint": plan.identity.fingerprint}
    write_record(folder, make_record(folder.name, **told))
    (sweep / "runs.csv").write_text("run")


def test_a_study_takes_over_the_search_of_another(stage_list: Callable[..., StageList], other_study: StageList):
    other = other_study.folder
    of_study = stage_list("rivals=[uniform,fitted,regmix,olmix]", f"search={other}")
    stages = {stage.name: stage for stage in of_study.build()}
    assert [name for name in stages if name.startswith("search")] == ["search swarm_natural"]
    assert of_study.search_tokens == other_study.search_tokens
    fit, swarm = stages["fit fitted"], stages["fit regmix"]
    assert f"runs={other}" in fit.command.overrides
    assert fit.result == of_study.folder / "fit" / "fit.json"
    assert f"runs={other}/swarm" in swarm.command.overrides
    assert swarm.result == of_study.folder / "swarm" / "lightgbm" / "fit.json"
    assert of_study.searches == {"fitted": [str(other)], "regmix": [f"{other}/swarm"], "olmix": ["swarm_natural"]}
    assert not of_study.others


def test_a_study_takes_over_the_mixture_that_another_has_trained(
    stage_list: Callable[..., StageList], other_study: StageList
):
    other = other_study.folder
    of_study = stage_list("rivals=[uniform,fitted,doge]", f"search={other}")
    stages = {stage.name: stage for stage in of_study.build()}
    assert not [name for name in stages if name.startswith("train")]
    assert "mixture=uniform,fitted" in stages["targets"].command.sweeps
    assert f"mixture.path={other}/doge/runs/proxy/mixture.yaml" in stages["targets doge"].command.overrides
    assert of_study.searches["doge"] == [f"{other}/doge"]


@pytest.mark.parametrize(
    ("rival", "changed", "stage", "folder"),
    [
        (
            "regmix",
            'rivals.regmix.design=["design=dirichlet","design.scales=[320]","mixture=natural"]',
            "swarm",
            "swarm",
        ),
        ("regmix", "model.optimizer.lr=1e-4", "swarm", "swarm"),
        ("doge", 'rivals.doge.trainings.proxy=["token_budget=640","reweighting=doge"]', "doge proxy", "doge"),
    ],
)
def test_what_another_study_has_trained_otherwise_is_trained_again(
    stage_list: Callable[..., StageList], other_study: StageList, rival: str, changed: str, stage: str, folder: str
):
    of_study = stage_list(f"rivals=[uniform,fitted,{rival}]", f"search={other_study.folder}", changed)
    stages = [planned.name for planned in of_study.build()]
    assert f"{'train' if rival == 'doge' else 'search'} {stage}" in stages
    assert of_study.searches[rival] == [folder]
    assert of_study.others == {other_study.folder / folder}


def test_a_search_of_another_model_is_not_taken_over(stage_list: Callable[..., StageList], other_study: StageList):
    assert first_of_search(stage_list(f"search={other_study.folder}").conf).store == "outputs/stores/test"
    of_study = stage_list(f"search={other_study.folder}", "model=gpt2")
    with pytest.raises(
        UserError, match=r"whose runs are of model 'gpt2_tiny', but model is 'gpt2'; add model=gpt2_tiny"
    ):
        first_of_search(of_study.conf)
