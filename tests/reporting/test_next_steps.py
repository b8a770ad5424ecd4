import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.reporting.next_steps import (
    after_fit,
    after_prepare,
    after_run,
    after_sweep,
    after_verdict,
    more_seeds,
)
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT
from tests.runs.records import make_record


def command(line: str) -> list[str]:
    """Job and overrides of a line, which can be pasted into a shell."""
    assert line.startswith("next: ")
    python, option, module, *overrides = shlex.split(line.removeprefix("next: "))
    assert (python, option) == ("python", "-m")
    return [module.removeprefix("autoscale_exp."), *overrides]


def started(sweep: Path, run: str, overrides: list[str], choices: dict[str, str], **record: object) -> None:
    folder = sweep / "runs" / run
    write_record(folder, make_record(run, **record))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))


def test_after_a_store_of_own_text_comes_a_study_whose_target_repeats_no_domain_often():
    line = after_prepare("out/my store", [2_000_000, 5_000_000, 9_000_000], "local", ["data=local", "data.name=mine"])
    assert command(line) == ["study", "store=out/my store", "token_budgets=[10_000_000]"]
    assert command(after_prepare("s", [30_000, 30_000], "local", []))[-1] == "token_budgets=[100_000]"
    assert command(after_prepare("s", [100, 100], "local", []))[-1] == "token_budgets=[1_000]"


def test_after_the_text_of_the_environment_comes_the_quickstart():
    assert command(after_prepare("s", [9, 9], "environment", [])) == ["study", "experiment=quickstart"]
    assert command(after_prepare("s", [9, 9], "environment", ["data.name=x"]))[:2] == ["study", "store=s"]


def test_after_a_search_comes_its_fit(tmp_path: Path):
    write_record(tmp_path / "runs" / "base", make_record(token_budget=3_000_000))
    line = after_sweep(tmp_path, is_design=True, search=None)
    assert command(line) == ["fit", f"runs={tmp_path}", "target_tokens=[10_000_000]"]


def test_after_target_runs_comes_the_report():
    assert command(after_sweep(Path("a/targets"), search="a", is_design=False)) == ["report", "search=a"]
    assert command(after_sweep(Path("b"), search="a", is_design=False)) == ["report", "search=a", "targets=b"]
    assert "'b/runs.csv'" in after_sweep(Path("b"), is_design=False, search=None)


def test_target_runs_of_another_fit_are_reported_with_it(tmp_path: Path):
    """A fit with another objective, whose mixture is judged by that objective and reported in its own folder."""
    write_fit(tmp_path / "news", FIT)
    started(tmp_path / "targets", "ours", [], {}, mixture="ours")
    conf = {"mixture": {"path": f"{tmp_path}/news/mixtures/0.4K.yaml"}}
    (tmp_path / "targets" / "runs" / "ours" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(conf))
    line = after_sweep(tmp_path / "targets", search=str(tmp_path), is_design=False)
    fit = f"{tmp_path}/news"
    assert command(line) == ["report", f"search={tmp_path}", f"fit={fit}", f"output_dir={fit}"]


def test_a_single_run_says_how_to_look_at_it(tmp_path: Path):
    assert f"'{tmp_path}/result.json'" in after_run(tmp_path)
    (tmp_path / "model").mkdir()
    assert command(after_run(tmp_path)) == ["evaluate", f"run={tmp_path}"]


@pytest.fixture
def search(tmp_path: Path) -> Path:
    typed = ["design.index=0", "experiment=search", "store=s", "model=gpt2", "trainer=bf16", "design.scales=[4]"]
    started(tmp_path, "base", typed, {"experiment": "search", "model": "gpt2", "trainer": "bf16"})
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
