"""Runs of a masked model: the same sampler, resumption and results as those of a causal one."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM

from autoscale_exp.data.store import TokenStore
from autoscale_exp.data.tokenizer import load_tokenizer
from autoscale_exp.lm.conf import MaskedModelConf
from autoscale_exp.lm.masked import MaskedLanguageModel
from autoscale_exp.lm.masking import row_keys
from autoscale_exp.training.devices import train_on_devices
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import Interrupted, interrupted_after, result_of, trained, weights_of


@pytest.fixture
def compose_masked(compose_train, masked_overrides):
    return lambda *overrides: compose_train(*masked_overrides, *overrides)


def masking_of(conf, store: TokenStore):
    assert isinstance(conf.model, MaskedModelConf)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    return MaskedLanguageModel.for_tokenizer(conf.model, tokenizer, seq_len=16, num_steps=12, seed=0).masking


def validation_loss(model: BertForMaskedLM, masking, store: TokenStore, domain: str) -> float:
    """What transformers makes of the masks of all validation rows of a domain at once."""
    tokens = torch.from_numpy(store.rows("validation", domain)[:].astype("int64"))
    inputs, selected = masking(tokens, row_keys(torch.arange(len(tokens)), "validation", domain))
    with torch.no_grad():
        return model.eval()(input_ids=inputs, labels=tokens.masked_fill(~selected, -100)).loss.item()


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.dropout=0.2"],
        ["model.dropout=0.2", "micro_batch_rows=2", "num_workers=1", "num_validations=4"],
        ["model.whole_word_masking=true"],
        ["trainer=bf16"],
    ],
)
def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(
    overrides, compose_masked, masked_store: TokenStore, tmp_path: Path
):
    plan = plan_run(compose_masked("checkpoint_minutes=0", "save_model=true", *overrides), masked_store)
    expected = trained(plan, tmp_path / "whole")
    with interrupted_after(7), pytest.raises(Interrupted):
        train(plan, tmp_path / "parts")
    result = trained(plan, tmp_path / "parts")
    assert result["validation_curve"] == expected["validation_curve"]
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


def test_training_does_not_depend_on_workers_or_accumulation(compose_masked, masked_store: TokenStore, tmp_path: Path):
    whole, workers, *parts = (
        trained(plan_run(compose_masked(*overrides), masked_store), tmp_path / str(number))["losses"]
        for number, overrides in enumerate(([], ["num_workers=2"], ["micro_batch_rows=4"], ["micro_batch_rows=1"]))
    )
    assert workers == whole
    assert parts == [pytest.approx(whole, abs=1e-5)] * 2


@pytest.mark.slow
def test_two_devices_train_as_one(compose_masked, masked_store: TokenStore, tmp_path: Path):
    rows = ["token_budget=1552", "num_validations=4"]  # 97 rows: in the last step the second device has none
    curve = trained(plan_run(compose_masked(*rows), masked_store), tmp_path / "one")["validation_curve"]
    devices = ["trainer.devices=2", "trainer.strategy=fsdp"]
    train_on_devices(plan_run(compose_masked(*rows, *devices), masked_store), tmp_path / "two")
    of_two = result_of(tmp_path / "two")["validation_curve"]
    assert [point["losses"] for point in of_two] == [pytest.approx(point["losses"], abs=1e-5) for point in curve]


def test_training_is_that_of_a_plain_loop_around_transformers(compose_masked, masked_store: TokenStore, tmp_path: Path):
    conf = compose_masked("model.optimizer.schedule=linear", "model.optimizer.lr=0.01", "seed=3")
    plan = plan_run(conf, masked_store)
    torch.manual_seed(3)
    tokenizer = load_tokenizer(masked_store.folder / "tokenizer")
    module = MaskedLanguageModel.for_tokenizer(conf.model, tokenizer, seq_len=16, num_steps=12, seed=3)
    model = module.model
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}])
    for step in range(12):
        places = torch.arange(8 * step, min(8 * step + 8, 92))
        domain, row = plan.sampler.rows(int(places[0]), int(places[-1]) + 1)
        rows = [masked_store.rows("train", masked_store.domains[d])[[r]][0] for d, r in zip(domain, row, strict=True)]
        tokens = torch.stack([torch.from_numpy(r.astype("int64")) for r in rows])
        inputs, selected = module.masking(tokens, row_keys(places, 3, "row"))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step if step < 1 else (12 - step) / 11)
        optimizer.zero_grad()
        losses = [
            model(input_ids=inputs[[i]], labels=tokens[[i]].masked_fill(~selected[[i]], -100)).loss
            for i in range(len(tokens))
        ]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    expected = {d: validation_loss(model, module.masking, masked_store, d) for d in masked_store.domains}
    assert trained(plan, tmp_path)["losses"] == pytest.approx(expected, abs=1e-5)


def test_a_saved_model_is_loaded_by_transformers_with_the_same_loss(
    compose_masked, masked_store: TokenStore, tmp_path: Path
):
    conf = compose_masked("save_model=true", "model.dropout=0.1", "model.whole_word_masking=true")
    losses = trained(plan_run(conf, masked_store), tmp_path)["losses"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    masking = masking_of(conf, masked_store)
    for domain, loss in losses.items():
        assert validation_loss(model, masking, masked_store, domain) == pytest.approx(loss, abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id


def test_validation_masks_are_the_same_for_every_seed_and_mixture(
    compose_masked, masked_store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[torch.Tensor]] = []
    original = MaskedLanguageModel.token_losses

    def token_losses(self, tokens, keys):
        seen[-1] += self.masking(tokens, keys)
        return original(self, tokens, keys)

    monkeypatch.setattr(MaskedLanguageModel, "token_losses", token_losses)
    for number, overrides in enumerate((["seed=0"], ["seed=1", "mixture=custom", "mixture.weights=[0.8,0.1,0.1]"])):
        seen.append([])
        train(plan_run(compose_masked(*overrides), masked_store), tmp_path / str(number))
    assert len(seen[0]) == 2 * len(masked_store.domains)
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))


def test_training_lowers_the_loss_of_what_is_trained_on(compose_masked, masked_store: TokenStore, tmp_path: Path):
    overrides = ["mixture=custom", "mixture.weights=[0,0,1]", "token_budget=32_000", "model.optimizer.lr=0.01"]
    losses = trained(plan_run(compose_masked(*overrides), masked_store), tmp_path)["losses"]
    assert losses["sums"] < min(losses["fruit"], losses["code"]) - 1


@pytest.mark.parametrize("overrides", [["seed=1"], ["model.mask_probability=0.15"]])
def test_runs_that_differ_have_other_losses(overrides, compose_masked, masked_store: TokenStore, tmp_path: Path):
    first, second = (
        trained(plan_run(compose_masked(*some), masked_store), tmp_path / str(number))["losses"]
        for number, some in enumerate(([], overrides))
    )
    assert all(first[domain] != second[domain] for domain in masked_store.domains)
