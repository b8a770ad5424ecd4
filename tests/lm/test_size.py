import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf
from autoscale_exp.lm.size import size_of


def model_conf(name: str) -> ModelConf:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(compose("train", [f"model={name}", "token_budget=1000"])).model


def built(conf: ModelConf, vocab_size: int, seq_len: int):
    if isinstance(conf, MaskedModelConf):
        sizes = {"num_hidden_layers": conf.n_layer, "num_attention_heads": conf.n_head}
        sizes |= {"hidden_size": conf.n_embd, "intermediate_size": 4 * conf.n_embd, "max_position_embeddings": seq_len}
        return BertForMaskedLM(BertConfig(vocab_size=vocab_size, **sizes))
    sizes = {"n_layer": conf.n_layer, "n_embd": conf.n_embd, "n_head": conf.n_head, "n_positions": seq_len}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **sizes))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml")))
def test_every_model_has_as_many_parameters_as_transformers_makes(name: str):
    conf = model_conf(name)
    with torch.device("meta"):
        params = sum(p.numel() for p in built(conf, 3000, 128).parameters())
    assert size_of(conf, 3000, 128, half=False).params == params


@pytest.mark.parametrize("name", ["gpt2_tiny", "bert_tiny"])
def test_flops_are_those_that_torch_counts(name: str):
    conf = model_conf(name)
    if isinstance(conf, MaskedModelConf):
        conf.mask_probability = 1.0  # transformers' own head sees all tokens
    model, tokens = built(conf, 300, 64), torch.zeros(4, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens).loss.backward()
    expected = size_of(conf, 300, 64, half=False).flops_per_token * tokens.numel()
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_rows_of_gpt2_large_take_what_was_worked_out_for_an_80_gb_gpu():
    size = size_of(model_conf("gpt2_large"), 50257, 1024, half=True)
    assert size.row_bytes == pytest.approx(2.1e9, rel=0.02)
    assert size.memory(20) < 80e9 < size.memory(40)
