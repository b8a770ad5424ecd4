"""The study of the paper as experiment=paper_gpt2_smoke has it, on little text: every rival, from runs to the report.

Its stages are run in forks of a Python that has imported what they need, their runs one after the other.
"""

import csv
import io
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from autoscale_exp import study
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.table import write_run_table
from autoscale_exp.studies import progress
from autoscale_exp.studies.commands import Command
from tests.warm_python import WarmPython

pytestmark = pytest.mark.slow

RIVALS = ["uniform", "natural", "doremi", "mixing_law", "regmix", "fitted", "autoscale"]  # of paper_gpt2_smoke
ONE_BY_ONE = "hydra/launcher=basic"
PAPER = [
    "experiment=paper_gpt2_smoke",
    "design.scales=[1_000,2_000,2_600]",  # whose search pays for a swarm of 46, of which LightGBM needs 45
    "token_budgets=[10_000]",
    'rivals.fitted.fit=["num_draws=10"]',
    'rivals.autoscale.fit=["law=autoscale","num_draws=10"]',
    'rivals.mixing_law.fit=["law=mixing_law","num_draws=10"]',
    '+evaluations.perplexity=["task=perplexity","logger=csv"]',
    ONE_BY_ONE,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def study_again(store: TokenStore, warm_python: WarmPython, folder: Path) -> Callable[[], str]:
    """Gives the command of the study; returns what it tells."""

    def run(command: Command) -> int:
        _, module, *overrides = command.arguments
        warm_python.run(module, overrides, folder)
        return 0

    def again() -> str:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as told:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["study", f"store={store.folder}", *PAPER, "hydra/job_logging=none"])
            patch.setattr(progress, "run_command", run)
            study.main()
        return told.getvalue()

    return again


@pytest.fixture(scope="module")
def outputs(study_again: Callable[[], str], folder: Path) -> Path:
    study_again()
    return folder / "outputs" / "paper_gpt2_smoke"


def test_it_trains_what_every_rival_needs(outputs: Path):
    runs = {
        folder: {path.parent.name for path in (outputs / folder / "runs").glob("*/result.json")}
        for folder in (".", "swarm", "doremi", "targets")
    }
    assert {folder: len(names) for folder, names in runs.items()} == {".": 21, "swarm": 46, "doremi": 2, "targets": 7}
    assert runs["targets"] == {f"{rival}_10K_seed42" for rival in RIVALS}
    for fit in ("fit", "autoscale", "swarm/mixing_law", "swarm/lightgbm"):
        assert (outputs / fit / "mixtures" / "10K.yaml").is_file()


def test_a_finished_study_does_nothing_when_asked_again_and_tells_the_commands_of_its_stages(
    outputs: Path, study_again: Callable[[], str], warm_python: WarmPython, folder: Path
):
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.suffix in (".json", ".html", ".csv")}
    told = study_again()
    assert "to do: nothing" in told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    commands = re.findall(r"^  python -m autoscale_exp\.(\w+) (.*)$", told, re.M)
    trained, fitted = ["train"] * 4, ["fit"] * 4
    assert [job for job, _ in commands] == [*trained, *fitted, "train", "evaluate", "report"]
    fit = outputs / "fit" / "fit.json"
    written = json.loads(fit.read_text())
    warm_python.run("autoscale_exp.fit", shlex.split(commands[6][1]), folder)
    assert json.loads(fit.read_text()) == written


def test_every_file_of_the_contract_is_there(outputs: Path):
    for name in ("runs.csv", "fit/fit.json", "fit/law.json", "fit/weights.png", "summary.json", "report.html"):
        assert (outputs / name).stat().st_size > 0
    assert len(list(csv.DictReader((outputs / "runs.csv").open()))) == 3 * (2 * 3 + 1)


def test_the_mixture_trained_is_the_one_fitted(outputs: Path, store: TokenStore):
    fitted = yaml.safe_load((outputs / "fit" / "mixtures" / "10K.yaml").read_text())
    result = json.loads((outputs / "targets" / "runs" / "fitted_10K_seed42" / "result.json").read_text())
    for domain, weight in zip(fitted["domains"], fitted["weights"], strict=True):
        assert result["tokens"][domain] == pytest.approx(10_000 * weight, abs=store.seq_len)
    assert sum(result["tokens"].values()) == pytest.approx(10_000, abs=store.seq_len)


def test_the_summary_adds_up(outputs: Path):
    summary = json.loads((outputs / "summary.json").read_text())
    tables = [outputs / name / "runs.csv" for name in (".", "swarm", "doremi")]
    rows = [row for table in tables for row in csv.DictReader(table.open())]
    assert set(summary) == {
        "objective",
        "scales",
        "target_tokens",
        "weights",
        "final",
        "final_by_budget",
        "downstream",
        "speedup_vs_uniform",
        "savings_vs_uniform",
        "difference_vs_uniform",
        "predictions",
        "requested_weights",
        "answer",
        "brute_force",
        "optima",
        "target_seconds",
        "search_tokens",
        "search_seconds",
        "seconds",
    }
    assert {name: len(values) for name, values in summary["final"].items()} == dict.fromkeys(RIVALS, 1)
    tokens = sum(int(value) for row in rows for key, value in row.items() if key.startswith("tokens."))
    assert summary["search_tokens"] == tokens
    assert summary["seconds"] > summary["search_seconds"] > 0


def test_evaluations_are_reported_beside_what_training_measured(outputs: Path, store: TokenStore):
    downstream = json.loads((outputs / "summary.json").read_text())["downstream"]
    for domain in store.domains:
        row = downstream[f"perplexity/tiny perplexity.{domain}"]
        assert set(row) == set(RIVALS)
        for mixture, (value,) in row.items():
            result = outputs / "targets" / "runs" / f"{mixture}_10K_seed42" / "result.json"
            assert math.log(value) == pytest.approx(json.loads(result.read_text())["losses"][domain], abs=1e-6)
    assert "Downstream" in (outputs / "report.html").read_text()


def test_the_report_is_one_file_that_loads_nothing(outputs: Path):
    page = (outputs / "report.html").read_text()
    assert page.count("<svg") == 7
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "<script" not in page
    for heading in ("Weights against scale", "Target runs", "Beside the published study", "Tokens and epochs", "Cost"):
        assert heading in page


def test_the_next_runs_that_a_fit_names_are_trained_by_their_commands(
    outputs: Path, folder: Path, store: TokenStore, warm_python: WarmPython
):
    *_, target = json.loads((outputs / "fit" / "fit.json").read_text())["targets"]
    folders = {proposed["run"]: outputs / "runs" / proposed["run"] for proposed in target["next_runs"]}
    first = target["next_runs"][0]
    assert not any(path.exists() for path in folders.values())
    python, option, module, *of_first = shlex.split(first["command"])
    assert (python, option, module) == ("python", "-m", "autoscale_exp.train")
    search, fit = os.path.relpath(outputs, folder), os.path.relpath(outputs / "fit", folder)
    of_all = ["experiment=next_runs", f"search={search}", f"design.path={fit}/next_runs/10K.csv", ONE_BY_ONE]
    try:
        warm_python.run("autoscale_exp.train", of_first, folder)
        assert [name for name, path in folders.items() if path.exists()] == [first["run"]]
        warm_python.run("autoscale_exp.train", of_all, folder)
        for proposed in target["next_runs"]:
            record = json.loads((folders[proposed["run"]] / "result.json").read_text())
            assert record["seed"] == proposed["seed"]
            assert record["token_budget"] == proposed["token_budget"]
            for domain, tokens in proposed["domain_tokens"].items():
                assert record["tokens"][domain] == pytest.approx(tokens, abs=store.seq_len)
        again = [f"runs={search}", "target_tokens=[10_000]", "num_draws=4", "output_dir=again"]
        warm_python.run("autoscale_exp.fit", again, folder)
    finally:
        for path in folders.values():
            shutil.rmtree(path, ignore_errors=True)  # the other tests know the search without them
        write_run_table(outputs)


def test_a_report_without_its_parts_says_what_is_missing(outputs: Path, refused: Callable[..., str]):
    line = refused("report", f"search={outputs}", "fit=nowhere")
    assert line == "fit is 'nowhere', which has no fit.json; run `python -m autoscale_exp.fit` first"
