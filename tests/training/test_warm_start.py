"""Training that starts from the weights of a Hugging Face folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, GPT2LMHeadModel

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.store import TokenStore
from autoscale_exp.training.plan import is_finished, plan_run
from autoscale_exp.training.run import train


def losses_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["losses"]


@pytest.fixture
def first(compose_train, store: TokenStore, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    train(plan_run(compose_train("save_model=true"), store), tmp_path / "first")
    return tmp_path / "first"


def test_a_run_that_learns_nothing_ends_with_the_losses_it_started_from(first, compose_train, store, tmp_path: Path):
    still = [f"model.init_from={first}/model", "model.optimizer.lr=1e-12", "seed=5", "save_model=true"]
    train(plan_run(compose_train(*still), store), tmp_path / "second")
    assert losses_of(tmp_path / "second") == pytest.approx(losses_of(first), abs=1e-6)
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / run / "model") for run in ("first", "second"))
    assert all(torch.allclose(p, q, atol=1e-8) for p, q in zip(before.parameters(), after.parameters(), strict=True))


def test_a_started_run_goes_below_the_one_it_started_from(first, compose_train, store, tmp_path: Path):
    train(plan_run(compose_train(f"model.init_from={first}/model", "seed=1"), store), tmp_path / "second")
    second = losses_of(tmp_path / "second")
    assert all(second[domain] < loss for domain, loss in losses_of(first).items())


def test_a_started_run_has_the_dropout_of_its_config(first, compose_train, store, tmp_path: Path):
    start = f"model.init_from={first}/model"
    for name, dropout in (("none", 0.0), ("half", 0.5)):
        plan = plan_run(compose_train(start, f"model.dropout={dropout}", "save_model=true"), store)
        train(plan, tmp_path / name)
    assert losses_of(tmp_path / "none") != losses_of(tmp_path / "half")
    assert json.loads((tmp_path / "half" / "model" / "config.json").read_text())["resid_pdrop"] == 0.5


def test_a_model_with_more_positions_than_a_row_keeps_them(first, compose_train, store, tmp_path: Path):
    longer = GPT2LMHeadModel.from_pretrained(first / "model").config
    longer.n_positions = 40
    shutil.copytree(first / "model", tmp_path / "longer")
    GPT2LMHeadModel(longer).save_pretrained(tmp_path / "longer")
    train(plan_run(compose_train(f"model.init_from={tmp_path}/longer", "save_model=true"), store), tmp_path / "second")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "second" / "model").config.n_positions == 40


def test_the_weights_are_part_of_the_runs_identity_but_not_their_place(first, compose_train, store, tmp_path: Path):
    plan = plan_run(compose_train(f"model.init_from={first}/model"), store)
    train(plan, tmp_path / "second")
    shutil.copytree(first / "model", tmp_path / "copy")
    assert is_finished(plan_run(compose_train(f"model.init_from={tmp_path}/copy"), store), tmp_path / "second")
    with pytest.raises(UserError, match=r"initial_weights: [0-9a-f]+, not None"):
        is_finished(plan_run(compose_train(), store), tmp_path / "second")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    model.transformer.wte.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path / "copy")
    with pytest.raises(UserError, match=r"initial_weights: [0-9a-f]+, not [0-9a-f]+"):
        is_finished(plan_run(compose_train(f"model.init_from={tmp_path}/copy"), store), tmp_path / "second")


def test_a_masked_model_can_be_started_from_too(
    compose_train, masked_overrides, masked_store: TokenStore, tmp_path: Path
):
    bert = [*masked_overrides, "save_model=true"]
    train(plan_run(compose_train(*bert), masked_store), tmp_path / "first")
    still = [f"model.init_from={tmp_path}/first/model", "model.optimizer.lr=1e-12", "seed=5"]
    train(plan_run(compose_train(*bert, *still), masked_store), tmp_path / "second")
    assert losses_of(tmp_path / "second") == pytest.approx(losses_of(tmp_path / "first"), abs=1e-6)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "second" / "model").config.hidden_size == 16
