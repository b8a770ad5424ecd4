import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir

from autoscale_exp.base.composing import compose
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import PlanConf, TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.data.unprepared import unprepared_store
from autoscale_exp.lm.size import size_of
from autoscale_exp.runs.record import write_record
from autoscale_exp.training import calibration, forecast
from autoscale_exp.training.accelerators import ACCELERATORS, tokens_per_second
from autoscale_exp.training.calibration import CALIBRATION, Pace, calibrated, validation_tokens
from autoscale_exp.training.forecast import Forecast, Forecaster, Upcoming, check_plan, describe
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.plan_only import tell
from autoscale_exp.training.sweep import plan_sweep
from autoscale_exp.training.watch import PlannedRun
from tests.runs.records import make_record

PAPER = ["data=redpajama", "model=gpt2_large", "trainer=bf16", "micro_batch_rows=20", "token_budget=1_000_000_000"]


@pytest.fixture
def compose_paper() -> Callable[..., TrainConf]:
    def composed(*overrides: str) -> TrainConf:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return to_typed(compose("train", [*PAPER, *overrides]))

    return composed


def forecast_of(
    conf: TrainConf, folder: Path, accelerator: str | None = "h200", tokens: int = 1000, parallel: int = 1
) -> Forecast:
    run = Upcoming(conf, unprepared_store(conf.data), tokens)
    return Forecaster(PlanConf(accelerator=accelerator), folder).of_runs([run], parallel)


@pytest.mark.parametrize(
    ("model", "seq_len", "measured"),
    [("gpt2_large", 1024, 57_400), ("gpt2", 1024, 217_800)],
)
def test_the_table_gives_back_what_was_measured(model: str, seq_len: int, measured: float, compose_paper):
    size = size_of(compose_paper(f"model={model}").model, 50257, seq_len, half=True)
    assert tokens_per_second(ACCELERATORS["h200"], size) == pytest.approx(measured, rel=0.01)


def test_the_hours_of_a_run_are_its_tokens_by_the_rate_and_its_validation(compose_paper, tmp_path: Path):
    conf = compose_paper()
    found = forecast_of(conf, tmp_path, tokens=1_000_000_000, parallel=4)
    validated = 7 * 2500 * 1024 / 3
    assert found.seconds == pytest.approx((1e9 + validated) / 57_400, rel=0.01)
    assert found.flops == pytest.approx((1e9 + validated) * 5.2e9, rel=0.01)
    assert found.memory == pytest.approx(57e9, rel=0.01)
    assert not list(tmp_path.iterdir())  # nothing was measured


@pytest.mark.parametrize(
    ("accelerator", "overrides", "message"),
    [
        (
            "h100",
            ["micro_batch_rows=40"],
            "micro_batch_rows is 40: model 'gpt2_large' then takes about 99.4 GB, but one h100 has 80 GB; "
            "micro_batch_rows=20 fits",
        ),
        ("h100", ["micro_batch_rows=null"], r"micro_batch_rows is null, which takes 80 rows at a time: .*rows=20 fits"),
        (
            "a100",
            ["model.n_layer=400"],
            "its weights, gradients and optimiser alone take 143 GB; choose a smaller model or a device with more",
        ),
    ],
)
def test_what_does_not_fit_the_memory_is_refused_with_what_fits(
    accelerator: str, overrides: list[str], message: str, compose_paper, tmp_path: Path
):
    conf = compose_paper(*overrides)
    with pytest.raises(UserError, match=message):
        forecast_of(conf, tmp_path, accelerator)


def test_devices_that_share_a_model_fit_what_one_does_not(compose_paper, tmp_path: Path):
    conf = compose_paper("model.n_layer=400", "micro_batch_rows=1", "trainer.devices=4")
    with pytest.raises(UserError, match=r"smaller model, trainer.strategy=fsdp or a device"):
        forecast_of(conf, tmp_path, "a100")
    conf.trainer["strategy"] = "fsdp"
    found = forecast_of(conf, tmp_path, "a100")
    assert found.memory < 80e9


def test_runs_at_a_time_share_the_memory_of_this_machine(compose_paper, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(forecast.os, "sysconf", {"SC_PHYS_PAGES": 16_000_000, "SC_PAGE_SIZE": 4096}.__getitem__)
    conf = compose_paper("trainer=default", "micro_batch_rows=1")
    forecast_of(conf, tmp_path, None, parallel=3)
    with pytest.raises(UserError, match=r"each of 8 runs at a time has 8.19 GB.*fewer runs at a time"):
        forecast_of(conf, tmp_path, None, parallel=8)


def test_a_run_is_validated_after_no_more_steps_than_it_has(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path
):
    def flops(num_validations: int) -> float:
        conf = compose_train(f"num_validations={num_validations}")
        run = Upcoming(conf, store, 16 * 92)  # 12 steps
        return Forecaster(PlanConf(), tmp_path, measure=False).of_runs([run]).flops

    assert flops(11) < flops(12) == flops(40)


def test_the_pace_is_not_measured_without_the_gpu_that_runs_ask_for(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forecast, "lacking_device", lambda conf: "no GPU")
    plan = PlanConf(only=True)
    found = Forecaster(plan, tmp_path).of_runs([Upcoming(compose_train(), store, 1000)])
    assert "no time, as it is not measured here" in describe(found, plan, None, 1)


def test_a_gpu_that_torch_cannot_use_does_not_count(compose_paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecast, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    forecast._gpu_memory.cache_clear()
    with pytest.raises(UserError, match="but this machine has"):
        forecast_of(compose_paper("trainer=default", "micro_batch_rows=1", "model.n_layer=40000"), tmp_path, None)


def test_a_step_that_would_take_too_long_is_not_measured(compose_paper, tmp_path: Path):
    conf = compose_paper("trainer=default", "micro_batch_rows=1")
    found = forecast_of(conf, tmp_path, None)
    assert found.seconds is None
    assert "no time, as it is not measured here" in describe(found, PlanConf(), None, 1)


def test_the_pace_of_runs_that_are_soon_finished_is_measured_only_for_a_plan_alone(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forecast, "calibrated", lambda *_: Pace(1e6))
    conf = compose_train("trainer.accelerator=cpu")

    def told(plan: PlanConf, tokens: int) -> str:
        runs = [Upcoming(conf, store, tokens)]
        return describe(Forecaster(plan, tmp_path).unless_tiny(runs).of_runs(runs), plan, None, 1)

    enough = round(1e12 / Upcoming(conf, store, 0).size.flops_per_token)
    assert "no time, as that of so little is measured only" in told(PlanConf(), enough // 2)
    assert "s of training on this machine" in told(PlanConf(), enough)
    assert "s of training on this machine" in told(PlanConf(only=True), enough // 2)


def test_this_machines_pace_is_measured_once_for_a_folder(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "SECONDS", 0.05)
    measured = []

    def here(conf: TrainConf, store: TokenStore, parallel: int) -> Pace:
        measured.append(calibration._pace_here(replace(conf, store=str(store.folder)), 0.0))
        return measured[-1]

    monkeypatch.setattr(calibration, "_measure", here)
    conf = compose_train("trainer.accelerator=cpu")
    pace = calibrated(conf, store, tmp_path, 1)
    assert pace == calibrated(conf, store, tmp_path, 1) == measured[0]
    assert len(measured) == 1
    assert pace.tokens_per_second > 0
    found = Forecaster(PlanConf(), tmp_path).of_runs([Upcoming(conf, store, 16_000)] * 4, parallel=2)
    a_run = (16_000 + validation_tokens(store) / 3) / pace.tokens_per_second + pace.run_seconds
    assert found.seconds == pytest.approx(2 * a_run + measured[-1].start_seconds)
    (tmp_path / CALIBRATION).write_text("[1]")
    calibrated(conf, store, tmp_path, 1)
    assert json.loads((tmp_path / CALIBRATION).read_text())


def test_a_plan_is_told_in_a_sentence():
    found = Forecast(2, 3_000_000, 1.5e15, 7200.0, 2e9, 12_000_000, 4_000_000)
    assert describe(found, PlanConf(accelerator="h100", price=2.5), 7_000_000_000, None) == (
        "2 runs, 3M tokens, 1.5e+15 FLOPs; about 2 h of one h100, which cost 5; 2 GB of memory a run; "
        "on disk 7 GB of rows, 16 MB of checkpoints and models"
    )
    assert "of one h100, which cost 0.02;" in describe(found, PlanConf(accelerator="h100", price=0.01), None, None)
    assert "about 2 h of training on this machine, 4 runs at a time" in describe(found, PlanConf(), None, 4)
    assert "about 2 h of training on this machine, if they were trained here" in describe(found, PlanConf(), None, None)


def test_a_sweep_tells_what_it_will_take(
    train_overrides: list[str], store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    overrides = [*train_overrides, f"output_dir={tmp_path}", "plan.accelerator=h200", "hydra/launcher=local"]
    sweep = ["experiment=search", "design.scales=[320,960]", "design.base_repeats=0"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        tell(plan_sweep(compose("train", [*sweep, *overrides], with_hydra=True)), 1)
        assert capsys.readouterr().out.startswith("to do: 14 runs, 10.7K tokens")
        write_record(tmp_path / "runs" / "base_0.64K", make_record("base_0.64K"))
        tell(plan_sweep(compose("train", [*sweep, *overrides], with_hydra=True)), 1)
        first, second, *_ = capsys.readouterr().out.splitlines()
        assert first.startswith(f"'{tmp_path}' has 1 finished run of another design (base_0.64K)")
        assert second.startswith("to do: 14 runs, 10.7K tokens")


def test_each_run_of_a_sweep_over_stores_is_told_by_its_own_store(
    compose_train: Callable[..., TrainConf], store: TokenStore, masked_store: TokenStore, tmp_path: Path, capsys
):
    confs = [compose_train(), compose_train(f"store={masked_store.folder}", "model=bert_tiny")]
    plan = PlanConf(accelerator="h200")
    for conf in confs:
        conf.plan = plan
    runs = [
        PlannedRun(plan_run(conf, of_run), tmp_path / str(number), [], finished=False)
        for number, (conf, of_run) in enumerate(zip(confs, (store, masked_store), strict=True))
    ]
    alone = Forecast()
    for run in runs:
        upcoming = [Upcoming(run.plan.conf, run.plan.store, run.num_tokens)]
        alone += Forecaster(plan, tmp_path).of_runs(upcoming)
    tell(runs)
    expected = describe(alone, plan, store.num_bytes + masked_store.num_bytes, 1)
    assert capsys.readouterr().out == f"to do: {expected}\n"


def test_nothing_is_to_do_for_runs_that_are_finished(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path, capsys
):
    tell([PlannedRun(plan_run(compose_train(), store), tmp_path, [], finished=True)])
    assert capsys.readouterr().out == "nothing to do: all runs are finished\n"


def test_the_pace_of_packs_is_not_measured(
    compose_train: Callable[..., TrainConf], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forecast, "calibrated", lambda *_: Pace(1e6))
    for trainer, is_timed in (("default", True), ("packed", False)):
        runs = [Upcoming(compose_train(f"trainer={trainer}", "trainer.accelerator=cpu"), store, 10**9)]
        assert (Forecaster(PlanConf(), tmp_path).of_runs(runs).seconds is not None) == is_timed


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (PlanConf(accelerator="tpu"), "plan.accelerator is 'tpu'; known are a100, h100, h200, or null"),
        (PlanConf(price=-1.0), "plan.price is -1.0; it must be at least 0"),
        (PlanConf(price=3.5), "plan.price is 3.5, which is of an hour of an accelerator, but plan.accelerator is null"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(conf: PlanConf, message: str):
    with pytest.raises(UserError, match=message):
        check_plan(conf)


@pytest.mark.parametrize(("characters", "rows"), [(4 * 1024 * 7, 7), (1000, 1)])
def test_a_store_that_is_not_prepared_has_the_rows_of_its_most_characters(characters, rows, compose_paper):
    store = unprepared_store(replace(compose_paper().data, max_characters=characters, seq_len=1024))
    assert [store.num_rows("train", domain) for domain in store.domains] == [rows] * len(store.domains)


def test_a_tokenizer_of_unknown_size_is_asked_for(compose_paper):
    data = compose_paper("data.tokenizer.name=mine").data
    with pytest.raises(UserError, match=r"data.tokenizer.vocab_size is null, and what data.tokenizer.name=mine has"):
        unprepared_store(data)
