"""The pages at W&B, by what W&B would be sent."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoscale_exp import dashboard
from autoscale_exp.laws.fit_file import write_fit
from autoscale_exp.runs.record import write_record
from autoscale_exp.runs.study_file import StudyFile, write_study
from tests.reporting.test_page import FIT, run


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "study" / "runs" / "base", run("base", [3.0], points=[40]))
    write_fit(tmp_path / "study" / "fit", FIT)
    final = {"uniform": [3.1], "fitted": [3.0], "natural": [3.2]}
    summary = {"answer": "Take fitted.", "target_tokens": 400, "final": final}
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
    assert (shown["key"], shown["value"]) == ({"section": "run", "name": "group"}, ["test"])


def test_proxy_runs_are_kept_out_of_what_is_told_of_a_mixture(pages):
    """They are named after their base mixture, which is also that of target runs."""
    panel_bank = pages["workspace"]["spec"]["section"]["panelBankConfig"]
    panels = [panel["config"] for section in panel_bank["sections"] for panel in section["panels"]]
    assert not any("groupBy" in panel for panel in panels)
    finals = [panel["metrics"] for panel in panels if panel.get("chartTitle") == "Final objective"]
    assert finals == [["final/uniform", "final/fitted", "final/natural"]]
    blocks = pages["report"]["spec"]["blocks"]
    _, _, curves, final, _ = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    kind, budget = curves["runSets"][0]["filters"]["filters"][1:]
    assert (kind["value"], budget["key"]["name"], budget["value"]) == ("target", "token_budget", 400)
    assert curves["panelBankSectionConfig"]["panels"][0]["config"]["groupBy"] == "mixture_name.value"
    assert final["panelBankSectionConfig"]["panels"][0]["config"]["metrics"] == finals[0]


def test_the_report_tells_what_was_found_and_shows_each_kind_of_runs(pages):
    blocks = pages["report"]["spec"]["blocks"]
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    assert headings == ["Mixture against scale", "Response curves", "Comparison", "Speed-up"]
    text = json.dumps(blocks)
    assert "Take fitted." in text
    assert "| tokens | b | a |\\n| --- | --- | --- |\\n| 40 | 70.0 % | 30.0 % |\\n| 400 | 70.0 % | 30.0 % |" in text
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    filters = [{f["key"]["name"]: f["value"] for f in grid["runSets"][0]["filters"]["filters"]} for grid in grids]
    assert [of["jobType"] for of in filters] == ["fit", "search", "target", "report", "report"]
    assert all(of["group"] == ["test"] for of in filters)
    saved = grids[-1]["panelBankSectionConfig"]["panels"][0]["config"]["metrics"]
    assert saved == ["saved_tokens/fitted", "saved_tokens/natural"]


def test_a_sweep_without_fit_and_report_has_pages_too(study, monkeypatch):
    (study / "summary.json").unlink()
    monkeypatch.setattr(sys, "argv", ["dashboard", "sweep=study", "fit=null", "hydra/job_logging=none"])
    dashboard.main()
    assert "Take" not in (study / "dashboard.json").read_text()


def test_a_study_of_several_searches_has_the_runs_of_all(study, monkeypatch):
    (study / "runs").rename(study / "wide_runs")
    write_study(study, StudyFile({"fitted": ["wide", "narrow"], "other": ["../elsewhere"]}))
    for folder in ("study/wide", "study/targets", "elsewhere"):
        record = replace(run("base", [3.0], points=[40]), experiment=Path(folder).name)
        write_record(study.parent / folder / "runs" / "base", record)
    monkeypatch.setattr(sys, "argv", ["dashboard", "sweep=study", "hydra/job_logging=none"])
    dashboard.main()
    workspace = json.loads((study / "dashboard.json").read_text())["workspace"]
    (shown,) = workspace["spec"]["section"]["runSets"][0]["filters"]["filters"]
    assert shown["value"] == ["wide", "elsewhere", "targets"]


def test_a_fit_that_is_not_there_and_a_damaged_report_are_errors(study, refused):
    assert refused("dashboard", "sweep=study", "fit=stduy/fit").startswith("fit is 'stduy/fit', which has no fit.json")
    for damaged in ('{"answer": ', "{}", "[]"):
        (study / "summary.json").write_text(damaged)
        line = refused("dashboard", "sweep=study")
        assert line.startswith("'study/summary.json' is damaged; run `python -m autoscale_exp.report` again")


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
    assert saved == [("me", "study"), ("me", "Data mixture of study")]
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
