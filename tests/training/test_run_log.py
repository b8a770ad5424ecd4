import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.base.wandb_runs import mixture_artifact
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.record import read_record
from autoscale_exp.training import run_log
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import Interrupted, interrupted_after
from tests.wandb_log import offline_runs

WEIGHTS = {"fruit": 0.5, "code": 0.25, "sums": 0.25}


@pytest.fixture
def plan_with(compose_train, store: TokenStore, tmp_path: Path):
    """A plan with a logger, of a mixture file, and the loss of one domain as the objective."""
    path = tmp_path / "20K.yaml"
    path.write_text(yaml.safe_dump({"domains": list(WEIGHTS), "weights": list(WEIGHTS.values())}))

    def planned(logger, *overrides):
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            section = to_typed(compose("train", [f"logger={logger}", "token_budget=1000", "run_name=run"])).logger
        objective = ["objective=mean_loss", "objective.weights={code: 1}"]
        conf = compose_train("mixture=from_file", f"mixture.path={path}", *objective, "num_validations=3", *overrides)
        return plan_run(replace(conf, logger=section), store), path

    return planned


def test_a_resumed_run_goes_on_in_its_wandb_run(plan_with, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    plan, path = plan_with("wandb", "checkpoint_minutes=0")
    folder = tmp_path / "sweep" / "runs" / "run"
    with interrupted_after(6), pytest.raises(Interrupted):
        train(plan, folder)
    train(plan, folder)
    record = read_record(folder)
    first, second = offline_runs(folder)
    assert first.run.run_id == second.run.run_id
    assert (second.run.display_name, second.run.run_group, second.run.job_type) == ("run", "tiny", "target")
    artifact = mixture_artifact(path)
    assert first.used == second.used == {artifact: ["20K.yaml"]}
    assert first.made == {}
    assert second.made == {f"run-{second.run.run_id}": ["result.json"]}
    tokens = [row["tokens"] for row in second.history]
    assert tokens == sorted(tokens)
    assert min(tokens) > 128 * 5  # what the checkpoint had
    assert max(tokens) == sum(record.tokens.values())
    last = {key: value for row in second.history for key, value in row.items()}
    shares = {domain: count / sum(record.tokens.values()) for domain, count in record.tokens.items()}
    assert {domain: last[f"mixture/{domain}"] for domain in shares} == pytest.approx(shares)
    for domain, loss in record.losses.items():
        assert last[f"val/loss/{domain}"] == loss
        assert last[f"val/perplexity/{domain}"] == pytest.approx(math.exp(loss))
    assert last["val/objective"] == record.losses["code"]
    assert last["throughput/tokens_per_second"] > 0
    curve = [row["val/objective"] for run in (first, second) for row in run.history if "val/objective" in row]
    assert curve == [point.losses["code"] for point in record.validation_curve]
    assert second.config["tokens"] == record.tokens
    assert second.config["params"] == record.params
    assert "logger" not in second.config


def test_the_csv_has_the_same_as_wandb(plan_with, store: TokenStore, tmp_path: Path):
    plan, _ = plan_with("csv", "micro_batch_rows=4")
    folder = tmp_path / "sweep" / "runs" / "run"
    train(plan, folder)
    with (folder / "metrics" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [row for row in rows if row["train/loss"]]
    assert [int(row["tokens"]) for row in logged] == [*range(128, 1472, 128), 1472]
    for number, row in enumerate(logged, start=1):
        domain, _ = plan.sampler.rows(0, min(8 * number, 92))
        shares = np.bincount(domain, minlength=3) / len(domain)
        assert [float(row[f"mixture/{name}"]) for name in store.domains] == pytest.approx(shares)
    assert [int(row["tokens"]) for row in rows if row["val/objective"]] == [512, 1024, 1472]


def test_an_error_of_the_log_as_a_run_ends_costs_it_no_result(plan_with, tmp_path: Path, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise ConnectionError("the server does not answer")

    plan, _ = plan_with("csv")
    monkeypatch.setattr(run_log, "log_artifact", broken)
    train(plan, tmp_path / "run")
    assert read_record(tmp_path / "run").run == "run"
    assert "the log of run is not whole: the server does not answer" in caplog.messages


def test_tensorboard_shows_the_runs_of_a_sweep_beside_each_other(plan_with, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    plan, _ = plan_with("tensorboard")
    folder = tmp_path / "sweep" / "runs" / "run"
    train(plan, folder)
    record = read_record(folder)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("val/objective")][-1] == pytest.approx(record.losses["code"])
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(hparams).session_start_info.hparams
    assert {domain: settings[f"weight/{domain}"].number_value for domain in WEIGHTS} == WEIGHTS
    assert settings["mixture"].string_value == record.mixture
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    infos = HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert {"val/objective", "val/loss/code", "val/perplexity/code"} <= {info.name.tag for info in infos}


def test_no_key_is_in_what_a_run_leaves_behind(plan_with, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key, host = "f00dfeed" * 5, "wandb.example.org"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{host}")
    plan, _ = plan_with("wandb", "checkpoint_minutes=0", "save_model=true")
    folder = tmp_path / "sweep" / "runs" / "run"
    with interrupted_after(2), pytest.raises(Interrupted):
        train(plan, folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "resume.ckpt" for path in files)
    for path in files:
        assert not re.search(f"{key}|{re.escape(host)}".encode(), path.read_bytes()), path
    assert json.loads((folder / "identity.json").read_text())["seed"] == 0
