import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.checkpoint import (
    check_initial,
    load_model,
    load_tokenizer,
    open_checkpoint,
    tokenizer_fingerprint,
)
from autoscale_exp.lm.conf import ModelConf, OptimizerConf

TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
CONFIG = GPT2Config(vocab_size=300, n_positions=20, n_embd=8, n_layer=1, n_head=2)


@pytest.fixture
def folder(store: TokenStore, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    GPT2LMHeadModel(CONFIG).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(store.folder / "tokenizer").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_is_opened_with_what_its_config_says(folder: Path):
    checkpoint = open_checkpoint(folder, "checkpoint")
    assert (checkpoint.family, checkpoint.masked, checkpoint.positions, checkpoint.vocab_size) == (
        "gpt2",
        False,
        20,
        300,
    )


def test_weights_in_several_files_are_loaded_and_identified_together(folder: Path, tmp_path: Path):
    model = load_model(open_checkpoint(folder, "checkpoint"), GPT2LMHeadModel)
    shutil.copytree(folder, tmp_path / "parts")
    (tmp_path / "parts" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "parts", max_shard_size="4KB")
    checkpoint = open_checkpoint(tmp_path / "parts", "checkpoint")
    assert len(checkpoint.weight_files) > 1
    loaded = load_model(checkpoint, GPT2LMHeadModel).state_dict()
    assert all(torch.equal(weights, loaded[name]) for name, weights in model.state_dict().items())
    before = checkpoint.sha256
    model.transformer.wte.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path / "parts", max_shard_size="4KB")
    assert open_checkpoint(tmp_path / "parts", "checkpoint").sha256 != before


def test_of_one_file_and_an_index_of_several_the_file_counts_as_in_transformers(folder: Path):
    model = GPT2LMHeadModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")
    model.transformer.wte.weight.data += 1
    model.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists()  # transformers leaves it
    checkpoint = open_checkpoint(folder, "checkpoint")
    assert [path.name for path in checkpoint.weight_files] == ["model.safetensors"]
    assert torch.equal(load_model(checkpoint, GPT2LMHeadModel).transformer.wte.weight, model.transformer.wte.weight)


@pytest.mark.parametrize(
    "content", ["{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_a_damaged_index_is_an_error(content, folder: Path):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model.safetensors.index.json' is damaged; save the model again"):
        open_checkpoint(folder, "checkpoint")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_truncated_weights_are_an_error(kept, folder: Path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(kept * weights.stat().st_size)])
    with pytest.raises(UserError, match=r"model.safetensors' is truncated or damaged .* copy or save the model again"):
        open_checkpoint(folder, "checkpoint")


def test_pickled_weights_are_not_read(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model.safetensors \(none\)"):
        open_checkpoint(folder, "checkpoint")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model.bin, which is not read because unpickling runs code"):
        open_checkpoint(folder, "checkpoint")


def test_what_is_no_language_model_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"checkpoint is '.*nowhere', which has no config.json"):
        open_checkpoint(tmp_path / "nowhere", "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    for changed, message in {
        json.dumps({**config, "model_type": "llama"}): r"model_type is 'llama'; known are gpt2 \(GPT2LM",
        json.dumps({**config, "architectures": None}): "whose architectures are None; a language model is needed",
        "{": "config.json' is damaged",
    }.items():
        (folder / "config.json").write_text(changed)
        with pytest.raises(UserError, match=message):
            open_checkpoint(folder, "checkpoint")
    GPT2ForSequenceClassification(CONFIG).save_pretrained(folder)
    with pytest.raises(UserError, match=r"architectures are \['GPT2ForSequenceClassification'\]"):
        open_checkpoint(folder, "checkpoint")


def test_weights_that_lack_a_part_are_an_error_and_not_drawn_at_random(folder: Path):
    model = GPT2Model(GPT2Config(**{**CONFIG.to_dict(), "n_layer": 2}))
    model.save_pretrained(folder)
    config = {**model.config.to_dict(), "n_layer": 3, "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"lacks \d+ weights of GPT2LMHeadModel, such as transformer.h.2"):
        load_model(open_checkpoint(folder, "checkpoint"), GPT2LMHeadModel)


def test_weights_of_another_shape_are_an_error(folder: Path):
    (folder / "config.json").write_text(
        json.dumps({**CONFIG.to_dict(), "n_positions": 30, "architectures": ["GPT2LMHeadModel"]})
    )
    with pytest.raises(UserError, match=r"the weights of '.*' do not fit"):
        load_model(open_checkpoint(folder, "checkpoint"), GPT2LMHeadModel)


def test_a_tokenizer_is_the_same_however_its_file_is_written(folder: Path, store: TokenStore):
    before = tokenizer_fingerprint(store.folder / "tokenizer")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "truncation": TRUNCATION}))
    assert tokenizer_fingerprint(folder) == before
    content["model"]["merges"] = content["model"]["merges"][:-1]
    path.write_text(json.dumps(content))
    assert tokenizer_fingerprint(folder) != before
    path.write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json' is damaged"):
        tokenizer_fingerprint(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.json; save the tokenizer into it"):
        tokenizer_fingerprint(folder)


def model_section(folder: Path) -> ModelConf:
    return ModelConf("test", "gpt2", 1, 8, 2, 0.0, OptimizerConf(lr=1e-3, batch_rows=4), init_from=str(folder))


def test_a_folder_that_fits_can_be_started_from(folder: Path, store: TokenStore):
    checkpoint = check_initial(model_section(folder), store)
    assert checkpoint is not None
    assert checkpoint.sha256 == open_checkpoint(folder, "checkpoint").sha256
    assert check_initial(replace(model_section(folder), init_from=None), store) is None


def test_a_folder_that_does_not_fit_is_an_error_that_says_what_to_give(folder: Path, store: TokenStore):
    conf = model_section(folder)
    for changed, message in {
        ("n_layer", 2): r"of another architecture: model.n_layer is 2; give model.n_layer=1",
        ("n_embd", 16): r"model.n_embd is 16; give model.n_embd=8",
        ("family", "bert"): "a gpt2 model, but model.family is 'bert'",
        ("init_from", "nowhere"): "model.init_from is 'nowhere', which has no config.json",
    }.items():
        with pytest.raises(UserError, match=message):
            check_initial(replace(conf, **dict([changed])), store)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**{**CONFIG.to_dict(), "n_positions": 15})).save_pretrained(folder)
    with pytest.raises(UserError, match=r"has 15 positions, but rows of the store have 16 tokens"):
        check_initial(conf, store)
    GPT2LMHeadModel(GPT2Config(**{**CONFIG.to_dict(), "vocab_size": 299})).save_pretrained(folder)
    with pytest.raises(UserError, match=r"vocab_size is 299, but the store .* has 300 entries"):
        check_initial(conf, store)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer is not the one of the store .* data.tokenizer.name="):
        check_initial(conf, store)


def test_a_tokenizer_that_transformers_cannot_load_is_an_error(folder: Path):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"the tokenizer of '.*model' cannot be loaded: "):
        load_tokenizer(open_checkpoint(folder, "checkpoint"))


def test_a_tokenizer_that_is_not_a_fast_one_is_an_error(folder: Path):
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(UserError, match=r"the tokenizer of '.*model' is not a fast one; save a fast one into it"):
        load_tokenizer(open_checkpoint(folder, "checkpoint"))
