import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from autoscale_exp.config import TrainingConf
from autoscale_exp.laws.fit_file import NextRun, Risk, write_fit
from autoscale_exp.laws.reach import MANY_EPOCHS
from autoscale_exp.reporting.next_steps import (
    after_fit,
    after_predict,
    after_prepare,
    after_run,
    after_sweep,
    after_verdict,
    all_next_runs,
    more_seeds,
    next_runs_command,
    runs_first,
)
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT, fitted
from tests.runs.records import make_record, started


def command(line: str) -> list[str]:
    """Job and overrides of a line, which can be pasted into a shell."""
    assert line.startswith("next: ")
    python, option, module, *overrides = shlex.split(line.removeprefix("next: "))
    assert (python, option) == ("python", "-m")
    return [module.removeprefix("autoscale_exp."), *overrides]


def test_after_a_store_of_own_text_comes_a_study_whose_target_repeats_no_domain_often():
    line = after_prepare("out/my store", [2_000_000, 5_000_000, 9_000_000])
    assert command(line) == ["study", "store=out/my store", "token_budgets=[10_000_000]"]
    assert command(after_prepare("s", [30_000, 30_000]))[-1] == "token_budgets=[100_000]"
    assert command(after_prepare("s", [100, 100]))[-1] == "token_budgets=[1_000]"


def test_after_a_search_comes_its_fit(tmp_path: Path):
    write_record(tmp_path / "runs" / "base", make_record(token_budget=3_000_000))
    line = after_sweep(tmp_path, is_design=True, search=None)
    assert command(line) == ["fit", f"runs={tmp_path}", "target_tokens=[10_000_000]"]


def test_after_the_next_runs_of_a_search_comes_its_fit_again(tmp_path: Path):
    write_record(tmp_path / "runs" / "base", make_record(token_budget=3_000_000))
    write_fit(tmp_path / "fit", replace(FIT, overrides=[f"runs={tmp_path}", "target_tokens=[9]", "num_next_runs=8"]))
    line = after_sweep(tmp_path, is_design=True, search=str(tmp_path))
    assert command(line) == ["fit", f"runs={tmp_path}", "target_tokens=[9]", "num_next_runs=8"]


def test_after_target_runs_comes_the_report():
    assert command(after_sweep(Path("a/targets"), search="a", is_design=False)) == ["report", "search=a"]
    assert command(after_sweep(Path("b"), search="a", is_design=False)) == ["report", "search=a", "targets=b"]
    assert "'b/runs.csv'" in after_sweep(Path("b"), is_design=False, search=None)


def test_target_runs_of_a_fit_elsewhere_are_reported_by_that_fit(tmp_path: Path):
    search, own = str(tmp_path), tmp_path / "fit_reading"
    targets = tmp_path / "targets"
    write_fit(tmp_path / "fit", FIT)
    write_fit(own, FIT)
    line = after_sweep(targets, is_design=False, search=search, mixture_file=f"{own}/mixtures/3M.yaml")
    assert command(line) == ["report", f"search={search}", f"fit={own}", f"output_dir={own}"]
    for beside in ("fit", "autoscale"):
        write_fit(tmp_path / beside, FIT)
        file = f"{tmp_path}/{beside}/mixtures/3M.yaml"
        assert command(after_sweep(targets, is_design=False, search=search, mixture_file=file))[1:] == [
            f"search={search}"
        ]


def test_the_only_fit_of_a_search_is_the_one_that_reports(tmp_path: Path):
    write_fit(tmp_path / "autoscale", FIT)
    line = after_sweep(tmp_path / "targets", is_design=False, search=str(tmp_path))
    assert command(line) == ["report", f"search={tmp_path}", f"fit={tmp_path}/autoscale"]


def test_target_runs_without_uniform_are_compared_with_natural(tmp_path: Path):
    for mixture in ("natural", "fitted"):
        write_record(tmp_path / "targets" / "runs" / mixture, make_record(mixture, mixture=mixture))
    line = after_sweep(tmp_path / "targets", is_design=False, search=str(tmp_path))
    assert command(line) == ["report", f"search={tmp_path}", "reference=natural"]


def test_a_single_run_says_how_to_look_at_it(tmp_path: Path):
    run = tmp_path / "runs" / "run"
    write_record(run, make_record())
    for is_design in (False, True):  # the first run of a design is not enough for a fit
        assert f"'{run}/result.json'" in after_run(run, is_design=is_design, search=None)
    (run / "model").mkdir()
    assert command(after_run(run, is_design=False, search=None)) == ["evaluate", f"run={run}"]


def test_after_one_more_run_of_a_search_comes_its_fit_as_it_was_typed(tmp_path: Path):
    for run in ("base", "base_seed1"):
        write_record(tmp_path / "runs" / run, make_record(run, token_budget=3_000_000))
    run = tmp_path / "runs" / "base_seed1"
    after = lambda: command(after_run(run, is_design=True, search=None))  # noqa: E731
    assert after() == ["fit", f"runs={tmp_path}", "target_tokens=[10_000_000]"]
    typed = [f"runs={tmp_path}", "objective=mean_loss", "target_tokens=[8_000_000]"]
    write_fit(tmp_path / "fit", replace(FIT, overrides=typed))
    assert after() == ["fit", *typed]


def test_after_one_target_run_comes_the_report(tmp_path: Path):
    run = tmp_path / "targets" / "runs" / "fitted"
    assert command(after_run(run, is_design=False, search=str(tmp_path))) == ["report", f"search={tmp_path}"]


def test_after_a_run_that_found_a_mixture_comes_training_on_it(tmp_path: Path):
    write_record(tmp_path, make_record(mixture="doremi", token_budget=1_000_000))
    (tmp_path / "mixture.yaml").touch()
    assert command(after_run(tmp_path, is_design=False, search=None)) == [
        "train",
        "store=outputs/stores/test",
        "model=gpt2_tiny",
        "mixture=from_file",
        "mixture.name=doremi",
        f"mixture.path={tmp_path}/mixture.yaml",
        "token_budget=5_000_000",
    ]


@pytest.fixture
def search(tmp_path: Path) -> Path:
    typed = ["design.index=0", "experiment=search", "store=s", "model=gpt2", "trainer=bf16", "design.scales=[4]"]
    text = {"a": 1_000, "b": 1_000}
    started(tmp_path, "base", typed, {"experiment": "search", "model": "gpt2", "trainer": "bf16"}, unique_tokens=text)
    return tmp_path


def test_after_the_fit_of_a_search_come_target_runs_of_the_same_model(search: Path):
    line = after_fit(str(search), f"{search}/fit", FIT)
    asked = ["experiment=targets", f"search={search}", "token_budget=400"]
    assert command(line) == ["train", *asked, "model=gpt2", "trainer=bf16"]


def test_after_the_published_law_its_mixture_is_trained_beside_the_fitted_one(search: Path):
    asked = ["experiment=targets", f"search={search}", "token_budget=400"]
    line = after_fit(str(search), f"{search}/autoscale", FIT)
    assert command(line)[:5] == ["train", *asked, "mixture=uniform,autoscale"]
    write_fit(search / "fit", FIT)
    line = after_fit(str(search), f"{search}/autoscale", FIT)
    assert command(line)[:5] == ["train", *asked, "mixture=uniform,fitted,autoscale"]


def test_a_fit_elsewhere_is_trained_from_its_mixture_file(search: Path):
    line = after_fit(str(search), "out", FIT)
    assert command(line)[4:7] == [
        "mixture=from_file",
        "mixture.name=autoscale_mean_loss",
        "mixture.path=out/mixtures/0.4K.yaml",
    ]


def of_text(search: Path, budget: int, unique: dict[str, int]) -> list[str]:
    """What comes after a fit for a budget, of a search whose domains have so many tokens."""
    started(search, "base", ["max_epochs=5"], {"experiment": "search"}, unique_tokens=unique)
    weights = {"a": 0.3, "b": 0.7}
    target = replace(fitted(budget), domain_tokens={domain: budget * share for domain, share in weights.items()})
    return command(after_fit(str(search), f"{search}/fit", replace(FIT, targets=[target])))


def test_a_target_beyond_the_text_is_fitted_anew_within_it(tmp_path: Path):
    asked = of_text(tmp_path, 100_000_000, {"a": 4_000_000, "b": 4_000_000})  # 17.5 epochs of b
    assert asked == ["fit", f"runs={tmp_path}", "target_tokens=[30_000_000]", "bounds.max_epochs=5"]


def test_a_mixture_within_the_text_is_trained_beside_natural_where_uniform_is_not(tmp_path: Path):
    asked = of_text(tmp_path, 10_000_000, {"a": 700_000, "b": 9_000_000})  # uniform goes through a 7.1 times
    assert asked[1:4] == ["experiment=targets", f"search={tmp_path}", "token_budget=10_000_000"]
    assert asked[4:] == ["mixture=natural,fitted", "max_epochs=5"]


def test_a_fit_that_changed_is_trained_under_another_name(tmp_path: Path):
    plenty = {"a": 1_000_000, "b": 1_000_000}
    same = {"requested_weights": {"a": 0.3, "b": 0.7}, "token_budget": 400, "mixture": "fitted"}
    write_record(tmp_path / "targets" / "runs" / "fitted", make_record("fitted", **same))
    assert of_text(tmp_path, 400, plenty)[4:] == ["max_epochs=5"]
    write_record(
        tmp_path / "targets" / "runs" / "fitted", make_record(**same | {"requested_weights": {"a": 0.4, "b": 0.6}})
    )
    asked = of_text(tmp_path, 400, plenty)
    assert asked[4:7] == [
        "mixture=from_file",
        "mixture.name=fitted_2",
        f"mixture.path={tmp_path}/fit/mixtures/0.4K.yaml",
    ]


def test_proxy_runs_come_before_target_runs_while_the_verdict_is_open():
    run = NextRun("base_seed1", "base", {"a": 1.0}, 1, 100, 0.5)
    may, would_not, untold = Risk(0.2, 0.1), Risk(0.2, 0.199), "cannot be told apart from uniform"
    for verdict, risk, is_open in (
        (untold, may, True),
        (untold, would_not, False),
        ("better than uniform", may, False),
    ):
        target = replace(fitted(400), verdict=verdict, risk=risk, next_runs=[run])
        assert bool(runs_first(replace(FIT, targets=[target]))) == is_open
    assert runs_first(FIT) is None


def test_proposed_runs_are_trained_with_the_model_of_their_size(tmp_path: Path):
    """Two sizes that the search has, told apart by their runs' overrides, and one of a model that it has not."""
    started(tmp_path, "a", ["model=x", "trainer=bf16"], {}, params=1000)
    started(tmp_path, "b", ["model=x", "model.n_layer=2"], {}, params=2000)
    proposed = [NextRun(f"next{i}", None, {}, 0, 100, 0.5, params) for i, params in enumerate((1000, 2000, 1000, 3000))]
    of_all = ["train", "experiment=next_runs", f"search={tmp_path}", "design.path=runs.csv"]
    of_size = {
        1000: ["design.params=1000", "model=x", "trainer=bf16"],
        2000: ["design.params=2000", "model=x", "model.n_layer=2"],
        3000: ["design.params=3000", "model=y", "trainer=bf16"],
    }
    told = all_next_runs(str(tmp_path), Path("runs.csv"), proposed, {3000: "y"})
    assert [command(f"next: {line}") for line in told] == [[*of_all, *own] for own in of_size.values()]
    third = next_runs_command(str(tmp_path), Path("runs.csv"), proposed, proposed[2], {3000: "y"})
    assert command(f"next: {third}") == [*of_all, *of_size[1000], "design.index=1", "hydra.mode=RUN"]
    alike = all_next_runs(str(tmp_path), Path("runs.csv"), proposed[:1], {})
    assert [command(f"next: {line}") for line in alike] == [[*of_all, "model=x", "trainer=bf16"]]


def test_text_may_be_repeated_as_often_as_train_does_by_itself():
    assert TrainingConf().max_epochs == MANY_EPOCHS


def test_after_a_prediction_comes_the_export_of_the_fitted_mixture_or_the_fit_of_one(tmp_path: Path):
    assert after_predict(tmp_path / "law.json", 400) is None
    write_fit(tmp_path, replace(FIT, overrides=["runs=a.csv", "target_tokens=[9]", "law=linear"]))
    line = after_predict(tmp_path / "law.json", 400)
    assert command(line) == ["fit", "runs=a.csv", "law=linear", "target_tokens=[400]"]
    (tmp_path / "mixtures").mkdir()
    (tmp_path / "mixtures" / "0.4K.yaml").touch()
    line = after_predict(tmp_path / "law.json", 400)
    assert command(line) == ["export", f"mixture_file={tmp_path}/mixtures/0.4K.yaml", "format=megatron"]


def test_after_the_fit_of_other_peoples_runs_comes_the_export():
    line = after_fit("runs.csv", "out", FIT)
    assert command(line) == ["export", "mixture_file=out/mixtures/0.4K.yaml", "format=megatron"]


def test_a_fit_without_a_target_is_asked_for_one():
    line = after_fit("runs.csv", "out", replace(FIT, targets=[]))
    assert command(line) == ["fit", "runs=runs.csv", "law=autoscale", "target_tokens=[1_000]"]


def test_more_seeds_are_asked_for_with_what_was_typed(tmp_path: Path):
    for mixture in ("uniform", "fitted"):
        for seed in (0, 1):
            typed = [f"mixture={mixture}", f"seed={seed}", "experiment=targets", "search=a", "token_budget=9"]
            started(tmp_path, f"{mixture}{seed}", typed, {}, mixture=mixture, seed=seed)
    line = more_seeds(tmp_path, "a", ["uniform", "fitted"], 4)
    assert command(line) == [
        "train",
        "experiment=targets",
        "search=a",
        "mixture=uniform,fitted",
        "token_budget=1_000",
        "seed=2,3",
    ]


def test_more_seeds_of_mixtures_from_files_and_of_several_budgets_have_commands_of_their_own(tmp_path: Path):
    own = ["mixture=from_file", "mixture.name=ours", "mixture.path=ours.yaml"]
    for budget in (500, 1000):
        for mixture, typed in (("uniform", ["mixture=uniform"]), ("ours", own)):
            asked = [*typed, "seed=0", "experiment=targets", "search=a", f"token_budget={budget}"]
            started(tmp_path, f"{mixture}{budget}", asked, {}, mixture=mixture, token_budget=budget)
    first, second = more_seeds(tmp_path, "a", ["uniform", "ours"], 2).removeprefix("next: ").split(" && ")
    swept = ["token_budget=500,1_000", "seed=1"]
    assert command(f"next: {first}") == ["train", "experiment=targets", "search=a", "mixture=uniform", *swept]
    assert command(f"next: {second}") == ["train", *own, "experiment=targets", "search=a", *swept]


def test_the_mixture_that_proved_best_is_exported_if_a_fit_wrote_it(tmp_path: Path):
    assert after_verdict("natural", None) == "next: train the large run on the weights of natural"
    path = tmp_path / "0.4K.yaml"
    assert after_verdict("fitted", path) == "next: train the large run on the weights of fitted"
    path.touch()
    assert command(after_verdict("fitted", path)) == [
        "export",
        f"mixture_file={path}",
        "format=megatron",
    ]
