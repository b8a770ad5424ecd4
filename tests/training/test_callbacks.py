import json
from pathlib import Path

import pytest
import torch

from autoscale_exp.base.errors import DivergedError
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.training import callbacks
from autoscale_exp.training.callbacks import check_losses
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train


def losses_become(value: float, monkeypatch: pytest.MonkeyPatch, *, while_training: bool) -> None:
    original = CausalLanguageModel.token_losses

    def token_losses(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        losses = original(self, tokens, keys)
        return losses * value if self.training == while_training and self.trainer.global_step >= 3 else losses

    monkeypatch.setattr(CausalLanguageModel, "token_losses", token_losses)


def test_a_loss_without_a_perplexity_counts_as_diverged():
    check_losses({"web": 709.0}, 16)
    with pytest.raises(DivergedError, match=r"of 'web' is 710.0 after 16 tokens; lower the learning rate"):
        check_losses({"web": 710.0}, 16)


@pytest.mark.parametrize(
    ("num_validations", "tokens"),
    [
        (1, [1472]),
        (2, [768, 1472]),
        (3, [512, 1024, 1472]),
        (5, [256, 640, 896, 1280, 1472]),  # steps 2, 5, 7 and 10 of 12
        (40, [*range(128, 1472, 128), 1472]),  # no more than there are steps
    ],
)
@pytest.mark.parametrize("micro_batch_rows", [8, 4])
def test_the_curve_has_its_points_evenly_in_tokens_and_the_last_at_the_end(
    num_validations, tokens, micro_batch_rows, compose_train, store: TokenStore, tmp_path: Path
):
    conf = compose_train(f"num_validations={num_validations}", f"micro_batch_rows={micro_batch_rows}")
    train(plan_run(conf, store), tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert [point["tokens"] for point in result["validation_curve"]] == tokens
    assert result["validation_curve"][-1]["losses"] == result["losses"]
    assert all(list(point["losses"]) == store.domains for point in result["validation_curve"])


def test_validation_does_not_change_the_training(compose_train, store: TokenStore, tmp_path: Path):
    losses = []
    for points in (1, 12):
        conf = compose_train(f"num_validations={points}", "model.dropout=0.2")
        train(plan_run(conf, store), tmp_path / str(points))
        losses.append(json.loads((tmp_path / str(points) / "result.json").read_text())["losses"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_loss_that_is_not_finite_stops_the_run(
    value, compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(callbacks, "PROGRESS_SECONDS", 0.0)
    losses_become(value, monkeypatch, while_training=True)
    with pytest.raises(DivergedError, match=f"training loss is {value} at step 4; lower the learning rate"):
        train(plan_run(compose_train(), store), tmp_path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_stops_the_run(
    value, compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses_become(value, monkeypatch, while_training=False)
    with pytest.raises(DivergedError, match=f"validation loss of 'fruit' is {value} after 768 tokens"):
        train(plan_run(compose_train("num_validations=2"), store), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_progress_tells_tokens_and_loss(compose_train, store: TokenStore, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(callbacks, "PROGRESS_SECONDS", 0.0)
    train(plan_run(compose_train(), store), tmp_path)
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["tokens"], progress["total_tokens"]) == (1472, 1472)
    assert progress["tokens_per_second"] > 0
    assert 4 < progress["train_loss"] < 7


@pytest.mark.parametrize(("minutes", "saved"), [(0, True), (60, False)])
def test_a_checkpoint_is_written_when_it_is_time(
    minutes, saved, compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(callbacks, "PROGRESS_SECONDS", 0.0)
    losses_become(float("nan"), monkeypatch, while_training=True)
    with pytest.raises(DivergedError):
        train(plan_run(compose_train(f"checkpoint_minutes={minutes}"), store), tmp_path)
    assert (tmp_path / "resume.ckpt").exists() == saved
    assert not list(tmp_path.glob(".resume*"))


def test_weights_that_are_not_finite_are_in_no_checkpoint(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch
):
    losses_become(
        float("nan"), monkeypatch, while_training=True
    )  # at the fourth step, before the next look at the loss
    with pytest.raises(DivergedError, match="the weights are not finite after step 4; lower the learning rate"):
        train(plan_run(compose_train("checkpoint_minutes=0"), store), tmp_path)
    assert torch.load(tmp_path / "resume.ckpt")["global_step"] == 3
