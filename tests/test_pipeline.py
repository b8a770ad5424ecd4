"""The whole job by its commands, from text to the report, small enough for a test."""

import csv
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autoscale_exp.runs.table import write_run_table

STUDY = [
    "output_dir=out",
    "design.scales=[1_600,4_800]",
    "token_budgets=[4_800,9_600]",
    "rivals=[uniform,fitted,autoscale]",
    'rivals.fitted.fit=["num_draws=20"]',
    'rivals.autoscale.fit=["law=autoscale","num_draws=20"]',
    "bounds.lower=0.02",
    "num_validations=4",
    '+evaluations.perplexity=["task=perplexity","logger=csv"]',
    "model.n_embd=16",
    "model.optimizer.batch_rows=8",
    "model.optimizer.lr=5e-3",
]


def run(cwd: Path, job: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"autoscale_exp.{job}", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, store) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    run(folder, "study", f"store={store.folder}", *STUDY)
    return folder / "out"


def test_a_finished_study_does_nothing_when_asked_again_and_tells_the_commands_of_its_stages(outputs, store):
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.suffix in (".json", ".html", ".csv")}
    told = run(outputs.parent, "study", f"store={store.folder}", *STUDY)
    assert "to do: 0 runs" in told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    commands = re.findall(r"^  python -m autoscale_exp\.(\w+) (.*)$", told, re.M)
    assert [job for job, _ in commands] == ["train", "fit", "fit", "train", "evaluate", "report"]
    fit = outputs / "fit" / "fit.json"
    written = json.loads(fit.read_text())
    run(outputs.parent, "fit", *shlex.split(commands[1][1]))
    assert json.loads(fit.read_text()) == written


def test_every_file_of_the_contract_is_there(outputs):
    for name in ("runs.csv", "fit/fit.json", "fit/law.json", "fit/weights.png", "summary.json", "report.html"):
        assert (outputs / name).stat().st_size > 0
    assert len(list(csv.DictReader((outputs / "runs.csv").open()))) == 2 * (2 * 3 + 2)


def test_the_mixture_trained_is_the_one_fitted(outputs):
    fitted = yaml.safe_load((outputs / "fit" / "mixtures" / "9.6K.yaml").read_text())
    result = json.loads((outputs / "targets" / "runs" / "fitted_9.6K_seed0" / "result.json").read_text())
    for domain, weight in zip(fitted["domains"], fitted["weights"], strict=True):
        assert result["tokens"][domain] == pytest.approx(9_600 * weight, abs=16)
    assert sum(result["tokens"].values()) == 9_600


def test_the_summary_adds_up(outputs):
    summary = json.loads((outputs / "summary.json").read_text())
    rows = list(csv.DictReader((outputs / "runs.csv").open()))
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
        "target_seconds",
        "search_tokens",
        "search_seconds",
        "seconds",
    }
    assert {name: len(values) for name, values in summary["final"].items()} == {
        "uniform": 2,
        "fitted": 2,
        "autoscale": 2,
    }
    tokens = sum(int(value) for row in rows for key, value in row.items() if key.startswith("tokens."))
    assert summary["search_tokens"] == tokens
    assert summary["seconds"] > summary["search_seconds"] > 0


def test_evaluations_are_reported_beside_what_training_measured(outputs):
    downstream = json.loads((outputs / "summary.json").read_text())["downstream"]
    for domain in ("fruit", "code", "sums"):
        row = downstream[f"perplexity/tiny perplexity.{domain}"]
        assert set(row) == {"uniform", "fitted", "autoscale"}
        for mixture, values in row.items():
            for seed, value in enumerate(values):
                result = outputs / "targets" / "runs" / f"{mixture}_9.6K_seed{seed}" / "result.json"
                assert math.log(value) == pytest.approx(json.loads(result.read_text())["losses"][domain], abs=1e-6)
    assert "Downstream" in (outputs / "report.html").read_text()


def test_the_report_is_one_file_that_loads_nothing(outputs):
    page = (outputs / "report.html").read_text()
    assert page.count("<svg") == 7
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "<script" not in page
    for heading in ("Weights against scale", "the published method", "Target runs", "Tokens and epochs", "Cost"):
        assert heading in page


def test_the_next_runs_that_a_fit_names_are_trained_by_their_commands(outputs):
    *_, target = json.loads((outputs / "fit" / "fit.json").read_text())["targets"]
    folders = {proposed["run"]: outputs / "runs" / proposed["run"] for proposed in target["next_runs"]}
    first = target["next_runs"][0]
    assert not any(folder.exists() for folder in folders.values())
    python, option, module, *overrides = shlex.split(first["command"])
    assert (python, option, module) == ("python", "-m", "autoscale_exp.train")
    try:
        run(outputs.parent, "train", *overrides)
        assert [name for name, folder in folders.items() if folder.exists()] == [first["run"]]
        run(
            outputs.parent,
            "train",
            "experiment=next_runs",
            "search=out",
            "design.path=out/fit/next_runs/9.6K.csv",
            *(override for override in STUDY if override.startswith("model.")),
        )
        for proposed in target["next_runs"]:
            record = json.loads((folders[proposed["run"]] / "result.json").read_text())
            assert record["seed"] == proposed["seed"]
            assert record["token_budget"] == proposed["token_budget"]
            for domain, tokens in proposed["domain_tokens"].items():
                assert record["tokens"][domain] == pytest.approx(tokens, abs=16)  # a row
        run(outputs.parent, "fit", "runs=out", "target_tokens=[9_600]", "num_draws=4", "output_dir=again")
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)  # the other tests know the search without them
        write_run_table(outputs)


def test_a_report_without_its_parts_says_what_is_missing(outputs, tmp_path):
    command = [
        sys.executable,
        "-m",
        "autoscale_exp.report",
        f"search={outputs}",
        "fit=nowhere",
        f"output_dir={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "error: fit is 'nowhere', which has no fit.json; run `python -m autoscale_exp.fit` first"
    )
