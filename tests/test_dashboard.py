"""The pages at W&B, by what W&B would be sent."""

import json
import sys
from pathlib import Path

import pytest

from autoscale_exp import dashboard
from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.runs.record import write_record
from tests.reporting.test_page import FIT, run


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "study" / "runs" / "base", run("base", [3.0], points=[40]))
    write_fit(tmp_path / "study" / "fit", FIT)
    summary = {"answer": "Take fitted.", "difference_vs_uniform": {"fitted": {}, "natural": {}}}
    (tmp_path / "study" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "study"


@pytest.fixture
def pages(study, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dashboard", "sweep=study", "hydra/job_logging=none"])
    dashboard.main()
    return json.loads((study / "dashboard.json").read_text())


def test_the_workspace_shows_the_runs_of_the_study_against_tokens(pages):
    section = pages["workspace"]["spec"]["section"]
    sections = {entry["name"]: entry["panels"] for entry in section["panelBankConfig"]["sections"]}
    (objective,) = sections["Objective"]
    assert (objective["config"]["xAxis"], objective["config"]["metrics"]) == ("tokens", ["val/objective"])
    losses = [panel["config"]["metrics"] for panel in sections["Validation losses"]]
    assert losses == [["val/loss/a"], ["val/loss/b"]]
    responses = [(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in sections["Response curves"]]
    assert responses == [(f"config:tokens.value.{domain}", "summary:val/objective") for domain in "ab"]
    (scale,) = sections["Mixture against scale"]
    assert (scale["config"]["xAxis"], scale["config"]["metrics"]) == ("tokens", ["mixture/a", "mixture/b"])
    assert section["settings"]["xAxis"] == "tokens"
    (shown,) = section["runSets"][0]["filters"]["filters"]
    assert (shown["key"], shown["value"]) == ({"section": "run", "name": "group"}, "test")


def test_the_report_tells_what_was_found_and_shows_each_kind_of_runs(pages):
    blocks = pages["report"]["spec"]["blocks"]
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    assert headings == ["Mixture against scale", "Response curves", "Comparison", "Speed-up"]
    text = json.dumps(blocks)
    assert "Take fitted." in text
    assert "| 400 | 30.0 % | 70.0 % |" in text
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    filters = [{f["key"]["name"]: f["value"] for f in grid["runSets"][0]["filters"]["filters"]} for grid in grids]
    assert filters == [{"group": "test", "jobType": kind} for kind in ("fit", "search", "target", "report")]
    saved = grids[-1]["panelBankSectionConfig"]["panels"][0]["config"]["metrics"]
    assert saved == ["saved_tokens/fitted", "saved_tokens/natural"]


def test_a_sweep_without_fit_and_report_has_pages_too(study, monkeypatch):
    (study / "summary.json").unlink()
    monkeypatch.setattr(sys, "argv", ["dashboard", "sweep=study", "fit=none", "hydra/job_logging=none"])
    dashboard.main()
    assert "Take" not in (study / "dashboard.json").read_text()


def test_pages_are_saved_at_wandb_or_its_reason_is_told(study, refused, monkeypatch):
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

    saved = []
    monkeypatch.setattr(Workspace, "save", lambda page: saved.append((page.entity, page.name)))
    monkeypatch.setattr(Report, "save", lambda page: saved.append((page.entity, page.title)))
    monkeypatch.setattr(
        sys, "argv", ["dashboard", "sweep=study", "offline=false", "entity=me", "hydra/job_logging=none"]
    )
    dashboard.main()
    assert saved == [("me", "test"), ("me", "Data mixture of test")]
    assert not (study / "dashboard.json").exists()

    def refuses(page):
        raise ValueError("project 'me/autoscale_exp' not found")

    monkeypatch.setattr(Report, "save", refuses)
    line = refused("dashboard", "sweep=study", "offline=false", "entity=me")
    assert line.startswith("W&B does not take the pages of project 'me/autoscale_exp': project 'me/autoscale_exp' not")
    assert refused("dashboard", "sweep=study", "offline=false").startswith("entity is not set; pages at W&B belong to")


def test_without_its_package_the_dashboard_says_how_to_get_it(study, refused, monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert refused("dashboard", "sweep=study").startswith("dashboard needs the package wandb-workspaces, which is not")
