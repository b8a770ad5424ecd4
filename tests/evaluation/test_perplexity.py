import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.store import TokenStore
from autoscale_exp.evaluate import plan
from autoscale_exp.evaluation.subject import find_subject
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train

from .conftest import compose_evaluate


def metrics_of(*overrides: str) -> dict[str, float]:
    conf = compose_evaluate(*overrides)
    (evaluation,) = plan(conf, find_subject(conf))
    return evaluation.measure(None)["metrics"]


def test_the_losses_are_those_of_transformers(make_gpt2, store: TokenStore, tmp_path: Path):
    folder = make_gpt2(16)
    metrics = metrics_of(
        f"checkpoint={folder}", f"output_dir={tmp_path}", f"task.store={store.folder}", "task.batch_rows=7"
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    for domain in store.domains:
        tokens = torch.from_numpy(store.rows("validation", domain)[:].astype("int64"))
        with torch.no_grad():
            expected = model(input_ids=tokens, labels=tokens).loss.item()
        assert metrics[f"loss.{domain}"] == pytest.approx(expected, abs=1e-5)
        assert metrics[f"perplexity.{domain}"] == pytest.approx(math.exp(expected), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 4, 7])
def test_a_sliding_window_predicts_each_token_once_from_the_window_that_has_it_first(
    stride, make_gpt2, store: TokenStore, tmp_path: Path
):
    folder = make_gpt2(8)
    metrics = metrics_of(
        f"checkpoint={folder}", f"output_dir={tmp_path}", f"task.store={store.folder}", f"task.stride={stride}"
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    for domain in store.domains:
        tokens = torch.from_numpy(store.rows("validation", domain)[:].astype("int64"))
        losses = []
        for place in range(1, 16):
            start = next(s for s in range(0, 16, stride) if s <= place < s + 8)
            with torch.no_grad():
                logits = model(input_ids=tokens[:, start:place]).logits[:, -1]
            losses.append(torch.nn.functional.cross_entropy(logits, tokens[:, place]).item())
        assert metrics[f"loss.{domain}"] == pytest.approx(sum(losses) / 15, abs=1e-5)


def test_the_model_and_store_of_a_run_are_found_and_give_its_validation_losses(
    compose_train, store: TokenStore, tmp_path: Path
):
    train(plan_run(compose_train("save_model=true"), store), tmp_path)
    metrics = metrics_of(f"run={tmp_path}")
    losses = json.loads((tmp_path / "result.json").read_text())["losses"]
    assert {domain: metrics[f"loss.{domain}"] for domain in store.domains} == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize("masking", [[], ["model.mask_probability=0.4", "model.whole_word_masking=true"]])
def test_a_masked_model_is_evaluated_with_the_masks_of_its_run(
    masking, compose_train, masked_overrides, masked_store: TokenStore, tmp_path: Path
):
    conf = compose_train(*masked_overrides, "save_model=true", *masking)
    train(plan_run(conf, masked_store), tmp_path)
    metrics = metrics_of(f"run={tmp_path}", "task.batch_rows=5")
    losses = json.loads((tmp_path / "result.json").read_text())["losses"]
    assert {domain: metrics[f"loss.{domain}"] for domain in losses} == pytest.approx(losses, abs=1e-6)


def test_what_cannot_be_read_is_an_error(make_gpt2, bert_folder, store: TokenStore, tmp_path: Path):
    output, of_store = f"output_dir={tmp_path}", f"task.store={store.folder}"
    short, long = (f"checkpoint={make_gpt2(positions)}" for positions in (8, 32))
    for overrides, message in {
        (short, output, of_store): r"have 16 tokens, but .* has only 8 positions; give task.stride=<1 to 7>",
        (short, output, of_store, "task.stride=8"): "task.stride is 8; allowed are 1 to 7",
        (long, output, of_store, "task.stride=0"): "task.stride is 0; allowed are 1 to 15",
        (
            long,
            output,
            of_store,
            "task.stride=4",
        ): r"have 16 tokens, which one window of the model's 32 positions holds",
        (long, output, of_store, "task.batch_rows=0"): "task.batch_rows is 0; it must be at least 1",
        (long, output): "task.store is not set",
        (long, of_store): "output_dir is not set",
        (
            f"checkpoint={bert_folder}",
            output,
            of_store,
        ): "whose tokenizer is not the one of the store .* and set task.store to it",
        (long, output, of_store, f"datasets_dir={tmp_path}"): "task=perplexity reads a token store",
        (of_store,): "give either run=.* or checkpoint=",
        (long, f"run={tmp_path}"): "one of the two",
        (f"run={tmp_path}",): "has no result.json; give the folder of a finished run",
    }.items():
        with pytest.raises(UserError, match=message):
            metrics_of(*overrides)


def test_a_run_without_a_model_is_an_error_that_says_how_to_keep_one(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match="kept no model; train it with save_model=true"):
        metrics_of(f"run={tmp_path}")


def test_a_masked_model_needs_a_tokenizer_with_the_special_tokens_of_its_task(store: TokenStore, tmp_path: Path):
    config = BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(store.folder / "tokenizer").save_pretrained(tmp_path)
    checkpoint = [f"checkpoint={tmp_path}", f"output_dir={tmp_path}"]
    with pytest.raises(UserError, match="has no mask token, which a masked model needs"):
        metrics_of(*checkpoint, f"task.store={store.folder}")
    with pytest.raises(UserError, match="has no cls_token, which task=glue needs"):
        metrics_of(*checkpoint, "task=glue", "task.max_length=16")
    with pytest.raises(UserError, match="is a masked model; leave it null"):
        metrics_of(*checkpoint, f"task.store={store.folder}", "task.stride=4")


def test_a_store_that_was_replaced_since_the_run_is_not_evaluated_on(make_gpt2, store: TokenStore, tmp_path: Path):
    conf = compose_evaluate(f"checkpoint={make_gpt2(16)}", f"output_dir={tmp_path}")
    run, identity = SimpleNamespace(run="base", store=store.folder), SimpleNamespace(store="another")
    subject = replace(find_subject(conf), run=run, identity=identity)
    with pytest.raises(UserError, match=r"is no longer the one that run 'base' was trained on; give task.store="):
        plan(conf, subject)
    subject = replace(subject, run=SimpleNamespace(run="base", store="elsewhere"))
    with pytest.raises(UserError, match=r"trained on the store 'elsewhere', which is not there; give task.store="):
        plan(conf, subject)
