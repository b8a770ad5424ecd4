from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from autoscale_exp.config import TokenizerConf
from autoscale_exp.data.tokenizer import END_OF_TEXT, check_tokenizer, load_tokenizer, train_bpe

TEXTS = [f"the cat number {n} sat on the mat, {n * n} times; der Rhein fließt" for n in range(200)]
BPE = train_bpe(TEXTS, 320)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_any_text_is_decoded_to_itself(text):
    assert BPE.decode(BPE.encode(text), clean_up_tokenization_spaces=False) == text


def test_a_bpe_has_the_entries_asked_for_and_an_end_of_text():
    assert len(BPE) == 320
    assert BPE.convert_ids_to_tokens(BPE.eos_token_id) == END_OF_TEXT
    assert len(BPE.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2


def test_the_smallest_bpe_is_bytes_and_end_of_text():
    assert [len(train_bpe(TEXTS, 257).encode(text)) for text in ("cat", "ß")] == [3, 2]


def test_the_same_text_gives_the_same_bpe():
    assert train_bpe(TEXTS, 320).backend_tokenizer.to_str() == BPE.backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_loaded_by_path(tmp_path: Path):
    BPE.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(TEXTS[7]) == BPE.encode(TEXTS[7])
    assert loaded.eos_token_id == BPE.eos_token_id


@pytest.mark.parametrize("vocab_size", [None, 0, 256])
def test_a_bpe_too_small_for_all_bytes_is_an_error(vocab_size):
    with pytest.raises(ValueError, match=f"data.tokenizer.vocab_size is {vocab_size}; .* at least 257"):
        check_tokenizer(TokenizerConf(vocab_size=vocab_size))


def test_sizes_that_do_are_no_error():
    check_tokenizer(TokenizerConf(vocab_size=257))
    check_tokenizer(TokenizerConf(name="gpt2"))


def test_a_name_that_cannot_be_had_offline_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"data.tokenizer.name is 'no-one/no-such-tokenizer', which cannot be loaded \(.+\); give 'bpe'",
    ):
        load_tokenizer("no-one/no-such-tokenizer")


def test_a_tokenizer_without_end_of_text_is_an_error(tmp_path: Path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a fast tokenizer with an end-of-text token"):
        load_tokenizer(tmp_path)
