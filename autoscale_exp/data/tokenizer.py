"""Tokenizers: a byte-level BPE trained on the spot for small models, or any Hugging Face tokenizer."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as Tokenizer

from autoscale_exp.config import TokenizerConf

END_OF_TEXT = "<|endoftext|>"
SMALLEST_BPE = 257  # every byte and the end of text


def check_tokenizer(conf: TokenizerConf) -> None:
    """Checks the `data.tokenizer` section before any text is read.

    Raises:
        ValueError: `vocab_size` is missing or too small for a BPE.
    """
    if conf.name == "bpe" and (conf.vocab_size is None or conf.vocab_size < SMALLEST_BPE):
        raise ValueError(
            f"data.tokenizer.vocab_size is {conf.vocab_size}; a byte-level BPE needs at least {SMALLEST_BPE} entries"
        )


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of `vocab_size` entries, any byte string representable, <|endoftext|> included."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Tokenizer(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)


def load_tokenizer(name: str | Path) -> Tokenizer:
    """A fast tokenizer by Hub name or path.

    Raises:
        ValueError: it cannot be had, is not a fast one, or has no end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), use_fast=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"data.tokenizer.name is '{name}', which cannot be loaded ({reason}); "
            "give 'bpe', a Hub name, or the folder of a saved tokenizer"
        ) from None
    if not isinstance(tokenizer, Tokenizer) or tokenizer.eos_token_id is None:
        raise ValueError(f"data.tokenizer.name is '{name}', which is not a fast tokenizer with an end-of-text token")
    return tokenizer
