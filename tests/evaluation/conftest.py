import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, GPT2Config, GPT2LMHeadModel

from autoscale_exp.base.composing import compose
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import EvaluateConf
from autoscale_exp.data.tokenizer import load_tokenizer

WORDS = ["good", "bad", "film", "plot", "actor", "scene", "the", "is", "in", "of", "where"]
PLACES = ["rome", "oslo", "lima", "cairo", "river", "hill"]
POSITIONS = 48


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 14,000 parameters that knows nothing."""
    folder = tmp_path_factory.mktemp("bert")
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "?", *WORDS, *PLACES]
    BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(entries),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_gpt2(store, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A GPT-2 of random weights for the store's tokenizer, with as many positions as asked for."""

    def made(positions: int) -> Path:
        folder = tmp_path_factory.mktemp("gpt2")
        torch.manual_seed(1)
        config = GPT2Config(
            vocab_size=300, n_positions=positions, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
        load_tokenizer(store.folder / "tokenizer").save_pretrained(folder)
        return folder

    return made


def compose_evaluate(*overrides: str) -> EvaluateConf:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("evaluate", [*overrides, "device=cpu"]))
    assert isinstance(conf, EvaluateConf)
    return conf


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
