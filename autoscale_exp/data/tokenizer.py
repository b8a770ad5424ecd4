"""Tokenizers, trained on the spot for small models or from Hugging Face, and the special tokens of rows."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer
from transformers import PreTrainedTokenizerFast as Tokenizer

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.data.conf import TokenizerConf

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # BERT's, which BertTokenizer expects
CONTINUATION = "##"
# Every byte and the end of text; the lower-case printable characters of ASCII four times over.
SMALLEST = {"bpe": 257, "wordpiece": 276}
LARGEST_ALPHABET = 1000  # characters in a WordPiece vocabulary; BERT's own has about as many


def check_tokenizer(conf: TokenizerConf) -> None:
    """Checks the `data.tokenizer` section before any text is read.

    Raises:
        UserError: `vocab_size` is missing or too small for a tokenizer that is to be trained.
    """
    smallest = SMALLEST.get(conf.name)
    if smallest is not None and (conf.vocab_size is None or conf.vocab_size < smallest):
        kind = "byte-level BPE" if conf.name == "bpe" else "WordPiece tokenizer"
        raise UserError(f"data.tokenizer.vocab_size is {conf.vocab_size}; a {kind} needs at least {smallest} entries")


def train_tokenizer(texts: Iterable[str], conf: TokenizerConf) -> Tokenizer:
    """Trains the tokenizer that `conf` describes on `texts`. `conf` must pass `check_tokenizer` and be `is_trained`."""
    assert conf.vocab_size is not None
    return (train_bpe if conf.name == "bpe" else train_wordpiece)(texts, conf.vocab_size)


def is_trained(conf: TokenizerConf) -> bool:
    """Whether the tokenizer is trained on the training split, not loaded."""
    return conf.name in SMALLEST


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE of `vocab_size` entries, with <|endoftext|>. It can represent any byte string."""
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


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains BERT's uncased WordPiece of `vocab_size` entries, with [PAD], [UNK], [CLS], [SEP] and [MASK].

    At most a quarter of the entries are characters that begin a word, the most frequent ones, and as many that continue
    one. Words with other characters become [UNK].
    """
    backend = BertTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        normalized = backend.normalizer.normalize_str(text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(word, count))
    frequent = sorted(characters, key=lambda c: (-characters[c], c))[: min(LARGEST_ALPHABET, vocab_size // 4)]
    inner = [c for c in frequent if len(backend.pre_tokenizer.pre_tokenize_str(f"a{c}")) == 1]  # no punctuation
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=frequent,
        limit_alphabet=len(frequent),
        # Left to the trainer, characters inside words get their ids, which ties are broken by, in the order of a hash
        # map, another one in every process (huggingface/tokenizers issue 1794, version 0.23).
        special_tokens=[*SPECIAL_TOKENS, *(CONTINUATION + c for c in inner)],
        show_progress=False,
    )
    backend.train_from_iterator((f"{word} " * count for word, count in sorted(words.items())), trainer)
    # Anew from the entries alone, in which those characters are no special tokens.
    return BertTokenizer(vocab=backend.get_vocab(with_added_tokens=False))


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Loads a fast tokenizer by Hub name or path.

    Raises:
        UserError: it cannot be loaded, is not a fast one, or has no token to separate documents with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), use_fast=True)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"data.tokenizer.name is '{name}', which cannot be loaded ({reason}); "
            "give 'bpe', 'wordpiece', a Hub name, or the folder of a saved tokenizer"
        ) from None
    if not isinstance(tokenizer, Tokenizer) or (tokenizer.eos_token_id is None and tokenizer.sep_token_id is None):
        raise UserError(
            f"data.tokenizer.name is '{name}', which is not a fast tokenizer with an end-of-text or separator "
            "token; give another one"
        )
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: at least the number of entries, as some tokenizers leave ids out."""
    return max(tokenizer.get_vocab().values()) + 1


def separator_id(tokenizer: Tokenizer) -> int:
    """Id of the token after each document: end-of-text, or [SEP] for a BERT tokenizer."""
    return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def row_start_id(tokenizer: Tokenizer) -> int | None:
    """Id of the token that each row begins with: [CLS], so that fine-tuning finds it trained; None without masks."""
    return None if tokenizer.mask_token_id is None else tokenizer.cls_token_id


def continuation_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the entries that continue a word, WordPiece's ##; none for other tokenizers."""
    return sorted(index for token, index in tokenizer.get_vocab().items() if token.startswith(CONTINUATION))
