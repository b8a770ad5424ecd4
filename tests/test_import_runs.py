import sys
from types import SimpleNamespace

import pytest
import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from autoscale_exp import import_runs
from autoscale_exp.runs.record import write_record
from tests.runs.records import make_record


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=excel"], "source is 'excel'; allowed are regmix, olmix, sweep, wandb, design"),
        (["source=regmix", "tokens=5"], "source=regmix needs mixtures=... and losses=..."),
        (["source=sweep"], "source=sweep needs folder=..."),
        (["source=sweep", "folder=.", "domains=[a]"], "domains and validation_domains choose columns, which only"),
        (["source=sweep", "folder=."], "'.' has no finished run"),
        (["source=wandb"], "source=wandb needs project=<entity/project> or table=<CSV of its table view>, one of the"),
        (["source=wandb", "table=a.csv", "project=b"], "source=wandb needs project=<entity/project> or table="),
        (["source=wandb", "table=a.csv"], "table is 'a.csv', which does not exist"),
        (["source=design"], "source=design needs folder=..."),
        (["source=design", "folder=."], "folder is 'design.csv', which does not exist"),
    ],
)
def test_a_request_that_cannot_be_is_refused(overrides, message, refused):
    assert refused("import_runs", *overrides, "output=runs.csv").startswith(message)


@pytest.mark.parametrize("error", [wandb.Error, WandbApiFailedError, ValueError])
def test_a_project_that_wandb_does_not_give_is_refused_with_its_reason(refused, error, monkeypatch):
    def no_runs(project: str) -> None:
        raise error(f"Could not find project {project}")

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=no_runs))
    line = refused("import_runs", "source=wandb", "project=me/gone", "output=runs.csv")
    assert line == "project is 'me/gone', which W&B does not give: Could not find project me/gone"


def test_what_an_import_took_and_left_out_is_told(monkeypatch, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("index,train_web,train_code\n1,0.5,0.5\n2,0.2,0.8\n")
    (tmp_path / "b.csv").write_text("index,web_val_loss,lr\n1,3.5,1e-3\n2,3.25,1e-3\n")
    monkeypatch.chdir(tmp_path)
    keys = ["source=regmix", "mixtures=a.csv", "losses=b.csv", "tokens=5000", "output=runs.csv"]
    monkeypatch.setattr(sys, "argv", ["import_runs", *keys, "hydra/job_logging=none"])
    import_runs.main()
    assert (tmp_path / "runs.csv").read_text().splitlines()[0] == "run,tokens.web,tokens.code,loss.web"
    log = capsys.readouterr().out
    for told in ("columns left out: lr", "domains: web, code", "validation domains: web", "2 runs in 'runs.csv'"):
        assert told in log


def test_a_sweep_with_runs_of_other_experiments_is_told_of(monkeypatch, tmp_path, capsys):
    for run in ("search", "targets"):
        write_record(tmp_path / "runs" / run, make_record(run, experiment=run, tokens={"a": 1000, "b": 2000}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["import_runs", "source=sweep", "folder=.", "output=runs.csv", "hydra/job_logging=none"]
    )
    import_runs.main()
    assert "runs of 2 experiments are fitted together (1 of search, 1 of targets)" in capsys.readouterr().out
