from collections.abc import Callable

import pytest
from hydra import compose

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.runs.record import read_record
from autoscale_exp.runs.rival import RivalConf
from autoscale_exp.studies.runs import runs_of
from autoscale_exp.studies.stages import Stage, StageList


def of_swarm(law: str, scale: str = "$scale") -> RivalConf:
    design = ["design=ddo", "design.base_repeats=0", f"design.scales=[{scale}]"]
    return RivalConf(search="swarm", design=design, fit=[f"law={law}"])


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def tokens_of(stage: Stage, of_study: StageList) -> list[int]:
    return [run.tokens for run in runs_of(stage.command, of_study.store, of_study.folder)]


def test_a_study_is_a_search_its_fits_target_runs_and_a_report(stage_list: Callable[..., StageList]):
    of_study = stage_list("rivals=[uniform,fitted,autoscale]")
    stages = of_study.build()
    assert names(stages) == ["search", "fit fitted", "fit autoscale", "targets", "report"]
    assert stages[3].command.sweeps == ["mixture=uniform,fitted,autoscale", "token_budget=1600", "seed=0,1"]
    assert set(stages[3].reads) == {"fit fitted", "fit autoscale"}
    assert stages[1].result == of_study.folder / "fit" / "fit.json"
    assert of_study.searches == {"fitted": ["."], "autoscale": ["."]}


def test_the_cost_of_a_search_is_the_tokens_of_its_runs(stage_list: Callable[..., StageList]):
    """Of K = 3 domains and 20 or 60 rows of 16: base, then per domain all and two thirds more, or two ninths less."""
    of_study = stage_list()
    search = of_study.build()[0]
    shares = sum(1 + (factor - 1) / 3 for factor in (1, *(3, 1 / 3) * 3))
    runs = runs_of(search.command, of_study.store, of_study.folder)
    assert len(runs) == 2 * 7
    assert sum(run.tokens for run in runs) == pytest.approx(shares * (320 + 960), rel=0.02)  # whole rows


def test_rivals_share_a_search_of_one_name(stage_list: Callable[..., StageList]):
    of_study = stage_list("rivals=[uniform]", linear=of_swarm("linear"), additive=of_swarm("additive"))
    stages = of_study.build()
    targets = ["targets", "targets linear", "targets additive"]
    assert names(stages) == ["search swarm", "fit linear", "fit additive", *targets, "report"]
    assert "design.scales=[320]" in stages[0].command.overrides
    assert of_study.searches == {"linear": ["swarm"], "additive": ["swarm"]}


def test_two_designs_of_one_search_are_refused(stage_list: Callable[..., StageList]):
    with pytest.raises(UserError, match="two rivals have the search 'swarm', but other designs"):
        stage_list(linear=of_swarm("linear"), additive=of_swarm("additive", "640")).build()


def test_a_rival_of_its_own_trainings_has_them_one_after_the_other(stage_list: Callable[..., StageList]):
    trainings = {
        "reference": ["token_budget=$search_tokens"],
        "proxy": ["token_budget=320", "model.init_from=$folder/x"],
    }
    of_study = stage_list(mine=RivalConf(trainings=trainings, target=["mixture=natural"]))
    stages = {stage.name: stage for stage in of_study.build()}
    assert f"token_budget={of_study.search_tokens}" in stages["train mine reference"].command.overrides
    assert f"model.init_from={of_study.folder}/x" in stages["train mine proxy"].command.overrides
    assert stages["train mine proxy"].reads == ["train mine reference"]
    assert stages["targets mine"].command.overrides[-2:] == ["mixture=natural", "mixture.name=mine"]
    assert "mine" not in " ".join(stages["targets"].command.sweeps)


def test_target_runs_keep_their_models_to_be_evaluated(stage_list: Callable[..., StageList]):
    stages = stage_list("+evaluations.perplexity=['task=perplexity']").build()
    targets, evaluation = stages[-3:-1]
    assert "save_model=true" in targets.command.overrides
    runs = next(o for o in evaluation.command.overrides if o.startswith("run="))
    assert runs.count("/targets/runs/") == 4


def test_a_study_without_a_fit_has_nothing_to_report(stage_list: Callable[..., StageList]):
    with pytest.raises(UserError, match="rivals are uniform, natural, none of which is fitted"):
        stage_list("rivals=[uniform,natural]").build()


def test_a_target_beyond_the_text_is_told_before_anything_is_trained(stage_list: Callable[..., StageList]):
    of_study = stage_list("token_budgets=[100_000_000]")
    (targets,) = (stage for stage in of_study.build() if stage.name == "targets")
    with pytest.raises(UserError, match=r"mixture uniform: run '.*': domain 'fruit' has .* rows and max_epochs is 4"):
        runs_of(targets.command, of_study.store, of_study.folder)


def test_a_mixture_that_is_yet_to_be_found_costs_its_budget(stage_list: Callable[..., StageList]):
    of_study = stage_list()
    (targets,) = (stage for stage in of_study.build() if stage.name == "targets")
    assert tokens_of(targets, of_study) == [1600] * 4


def test_a_mixture_file_that_no_stage_writes_must_be_there(stage_list: Callable[..., StageList]):
    target = ["mixture=from_file", "mixture.path=elsewhere.yaml"]
    of_study = stage_list(mine=RivalConf(target=target))
    (targets,) = (stage for stage in of_study.build() if stage.name == "targets mine")
    with pytest.raises(UserError, match=r"mixture mine: mixture.path is 'elsewhere.yaml', which does not exist"):
        runs_of(targets.command, of_study.store, of_study.folder)


def test_a_rival_without_a_mixture_option_trains_what_its_own_fit_finds(stage_list: Callable[..., StageList]):
    of_study = stage_list("rivals=[uniform]", mine=of_swarm("linear"))
    stages = {stage.name: stage for stage in of_study.build()}
    found = f"mixture.path={stages['fit mine'].result.parent}/mixtures/1.6K.yaml"
    assert stages["targets mine"].command.overrides[-3:] == ["mixture=from_file", found, "mixture.name=mine"]
    assert stages["targets"].command.sweeps[0] == "mixture=uniform"


def test_each_target_run_of_several_budgets_has_the_mixture_of_its_own(stage_list: Callable[..., StageList]):
    of_study = stage_list("rivals=[uniform]", "token_budgets=[1600,3200]", "seeds=[0]", mine=of_swarm("linear"))
    (targets,) = (stage for stage in of_study.build() if stage.name == "targets mine")
    paths = [conf.mixture.path for conf in targets.command.configs()]
    assert paths == [f"{of_study.folder}/swarm/linear/mixtures/{label}.yaml" for label in ("1.6K", "3.2K")]
    assert tokens_of(targets, of_study) == [1600, 3200]  # not found yet


def test_a_mixture_for_another_budget_is_that_of_a_fits_single_target(stage_list: Callable[..., StageList]):
    """As in a study of whether the best mixture of a small scale is the best of a larger one."""
    small = RivalConf(search="small", design=["design.scales=[320]"], fit=["target_tokens=[320]"])
    of_study = stage_list("rivals=[uniform]", best_at_320=small)
    (targets,) = (stage for stage in of_study.build() if stage.name == "targets best_at_320")
    assert f"mixture.path={of_study.folder}/small/fit/mixtures/0.32K.yaml" in targets.command.overrides


def test_every_rival_of_the_project_has_its_stages(stage_list: Callable[..., StageList]):
    rivals = sorted(path.stem for path in (CONF_DIR / "rivals").glob("*.yaml") if path.stem != "llama")
    of_study = stage_list(f"rivals=[{','.join(rivals)}]")
    stages = names(of_study.build())
    searches = {stage for stage in stages if stage.startswith("search")}
    assert searches == {"search", "search swarm", "search swarm_natural", "search grid"}
    assert stages.index("train doremi reference") < stages.index("train doremi proxy") < stages.index("targets")
    assert stages[-3:] == ["targets", "targets ado", "report"]
    assert of_study.searches == {
        "regmix": ["swarm"],
        "mixing_law": ["swarm"],
        "olmix": ["swarm_natural"],
        "doremi": ["doremi"],
        "doge": ["doge"],
        "fitted": ["."],
        "autoscale": ["."],
        "grid": ["grid"],
    }


def test_a_swarm_and_a_pair_of_trainings_cost_no_more_than_the_studys_own_search(stage_list: Callable[..., StageList]):
    of_study = stage_list("rivals=[uniform,regmix,doremi,fitted]")
    stages = of_study.build()
    tokens = {s.name: sum(tokens_of(s, of_study)) for s in stages}
    assert 0.9 * of_study.search_tokens < tokens["search swarm"] <= of_study.search_tokens
    both = tokens["train doremi reference"] + tokens["train doremi proxy"]
    assert both == pytest.approx(of_study.search_tokens, abs=32)


def test_the_smoke_study_of_bert_has_the_papers_rivals_and_trains_a_masked_model(
    sections, masked_store, tmp_path, warm_python
):
    """Planned on a store of its own; the first of its proxy runs is trained."""
    asked = [f"store={masked_store.folder}", f"output_dir={tmp_path}/study", "design.scales=[320,1280]"]
    smoke = ["experiment=paper_bert_smoke", *asked]
    conf, paper = to_typed(compose("study", smoke)), to_typed(compose("study", ["experiment=paper_bert_base"]))
    assert list(conf.rivals) == list(paper.rivals)
    search = StageList(conf, conf.design.scales, sections(*smoke), masked_store).own_search
    warm_python.run("autoscale_exp.train", [*search.overrides, "design.index=0", "hydra.mode=RUN"], tmp_path)
    assert read_record(tmp_path / "study" / "runs" / "base_0.32K").model == "bert_tiny"
