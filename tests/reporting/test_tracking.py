"""What fits and reports leave at W&B, read back from offline runs."""

import sys
from pathlib import Path

import pytest

from autoscale_exp import fit, report
from autoscale_exp.base.wandb_runs import mixture_artifact
from autoscale_exp.laws.fit_file import FIT as FIT_FILE
from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.laws.fit_folder import write_mixtures
from autoscale_exp.laws.law_file import write_law
from autoscale_exp.reporting.tracking import log_fit
from autoscale_exp.runs.identity import logged_id
from autoscale_exp.runs.record import write_record
from tests.base.test_loggers import logger_conf
from tests.reporting.test_page import FIT, run
from tests.wandb_log import offline_runs


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "runs" / "base", run("base", [3.0], points=[40]))
    write_fit(tmp_path / "fit", FIT)
    write_mixtures(tmp_path / "fit", FIT)
    return tmp_path


def test_a_fit_tells_which_runs_it_used_and_logs_law_mixtures_and_table(study: Path):
    write_law(study / "fit", {"name": "given"})
    log_fit(logger_conf("wandb"), study / "fit", FIT, study)
    (logged,) = offline_runs(study / "fit")
    assert (logged.run.job_type, logged.run.run_group) == ("fit", "test")
    assert logged.used == {f"run-{logged_id('0' * 16, 'test', 'base_seed0')}": ["result.json"]}
    (mixture,) = (study / "fit" / "mixtures").iterdir()
    assert logged.made[mixture_artifact(mixture)] == [mixture.name]
    kinds = {name.split("-")[0]: files for name, files in logged.made.items()}
    assert (kinds["law"], kinds["fit"]) == (["law.json"], [FIT_FILE])
    assert any("mixtures.table.json" in files for files in logged.made.values())
    against_tokens = [(row["tokens"], row["mixture/a"]) for row in logged.history if "mixture/a" in row]
    assert against_tokens == [(40, 0.3), (400, 0.3)]


def test_a_fit_of_a_table_has_used_the_table_and_shows_its_figures(study: Path, monkeypatch: pytest.MonkeyPatch):
    (study / "optima.csv").write_text("tokens,weights.a,weights.b\n1000,0.5,0.5\n4000,0.4,0.6\n")
    asked = ["optima=optima.csv", "target_tokens=[9000]", "output_dir=out", "logger=wandb"]
    monkeypatch.setattr(sys, "argv", ["fit", *asked, "hydra/job_logging=none"])
    fit.main()
    (logged,) = offline_runs(study / "out")
    assert list(logged.used.values()) == [["optima.csv"]]
    assert any("figures/weights/path" in row for row in logged.history)
    assert ["fit.json", "weights.png"] in logged.made.values()


def test_a_report_logs_the_comparison_of_the_runs_that_it_used(study: Path, monkeypatch: pytest.MonkeyPatch):
    for mixture, curve in (("uniform", [4, 3, 2.5, 2.0]), ("ours", [3, 2.2, 1.8, 1.6])):
        record = run(mixture, curve)
        write_record(study / "targets" / "runs" / record.run, record)
    monkeypatch.setattr(sys, "argv", ["report", "search=.", "logger=wandb", "hydra/job_logging=none"])
    report.main()
    (logged,) = offline_runs(study)
    assert (logged.run.job_type, logged.run.run_group) == ("report", "test")
    assert len(logged.used) == 3
    assert ["report.html", "summary.json"] in logged.made.values()
    assert any("comparison.table.json" in files for files in logged.made.values())
    metrics = {key: value for row in logged.history for key, value in row.items()}
    assert (metrics["final/uniform"], metrics["final/ours"], metrics["tokens"]) == (2.5, 2.1, 400)
    assert metrics["saved_tokens/ours"] > 0
