import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import TokenizerConf
from autoscale_exp.data.tokenizer import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    check_tokenizer,
    continuation_ids,
    load_tokenizer,
    row_start_id,
    separator_id,
    train_bpe,
    train_wordpiece,
    vocabulary_size,
)

TEXTS = [f"the cat number {n} sat on the mat, {n * n} times; der Rhein fließt" for n in range(200)]
BPE = train_bpe(TEXTS, 320)
WORDPIECE = train_wordpiece(TEXTS, 280)


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


@given(st.text("the cat sat on 0123456789, THE MAT;", max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_text_of_known_characters_is_split_into_its_lower_case_words(text):
    tokens = WORDPIECE.tokenize(text)
    joined = "".join(token.removeprefix("##") for token in tokens)
    assert joined == "".join(text.lower().split())
    assert "[UNK]" not in tokens


def test_a_wordpiece_tokenizer_has_berts_special_tokens_first():
    assert WORDPIECE.convert_ids_to_tokens(range(5)) == SPECIAL_TOKENS
    assert set(WORDPIECE.all_special_ids) == {0, 1, 2, 3, 4}
    assert len(WORDPIECE) == 280
    assert WORDPIECE.convert_ids_to_tokens(WORDPIECE.encode("the cat", "sat")) == [
        "[CLS]",
        "the",
        "cat",
        "[SEP]",
        "sat",
        "[SEP]",
    ]


def test_entries_that_continue_a_word_are_marked():
    continuations = WORDPIECE.convert_ids_to_tokens(continuation_ids(WORDPIECE))
    assert {"##a", "##t", "##0"} <= set(continuations)
    assert all(token.startswith("##") for token in continuations)
    assert continuation_ids(BPE) == []


def test_rare_characters_beyond_a_quarter_of_the_entries_are_unknown():
    tokenizer = train_wordpiece([f"a common word {chr(0x4E00 + n)}" for n in range(500)] * 2, 276)
    entries = [token.removeprefix("##") for token in tokenizer.get_vocab() if token not in SPECIAL_TOKENS]
    assert len({token for token in entries if len(token) == 1}) <= 276 // 4
    assert tokenizer.tokenize("word " + chr(0x4E00 + 499)) == ["word", "[UNK]"]


def test_the_same_text_gives_the_same_wordpiece_in_every_process():
    code = (
        "import sys; from autoscale_exp.data.tokenizer import train_wordpiece;"
        "sys.stdout.write(train_wordpiece(eval(sys.stdin.read()), 280).backend_tokenizer.to_str())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=repr(TEXTS), capture_output=True, text=True, check=True)
    assert done.stdout == WORDPIECE.backend_tokenizer.to_str()
    assert train_wordpiece(TEXTS, 280).backend_tokenizer.to_str() == WORDPIECE.backend_tokenizer.to_str()


def test_a_saved_wordpiece_tokenizer_is_loaded_by_transformers(tmp_path: Path):
    WORDPIECE.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert isinstance(loaded, BertTokenizer)
        assert loaded.encode("The Cat, 7 flies: ß") == WORDPIECE.encode("The Cat, 7 flies: ß")
        assert loaded.all_special_ids == WORDPIECE.all_special_ids
        assert len(loaded) == len(WORDPIECE)


def test_documents_are_separated_by_end_of_text_or_sep_and_rows_with_masks_begin_with_cls():
    assert (separator_id(BPE), row_start_id(BPE)) == (BPE.eos_token_id, None)
    assert (separator_id(WORDPIECE), row_start_id(WORDPIECE)) == (3, 2)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "<mask>": 2}, unk_token="<s>"))
    special = {"cls_token": "<s>", "sep_token": "</s>", "eos_token": "</s>"}
    causal = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    assert (separator_id(causal), row_start_id(causal)) == (1, None)
    roberta = PreTrainedTokenizerFast(tokenizer_object=words, **special, mask_token="<mask>")
    assert (separator_id(roberta), row_start_id(roberta)) == (1, 0)


@pytest.mark.parametrize("vocab_size", [None, 275])
def test_a_wordpiece_too_small_for_its_characters_is_an_error(vocab_size):
    with pytest.raises(UserError, match=f"data.tokenizer.vocab_size is {vocab_size}; a WordPiece .* at least 276"):
        check_tokenizer(TokenizerConf("wordpiece", vocab_size))


@pytest.mark.parametrize("vocab_size", [None, 0, 256])
def test_a_bpe_too_small_for_all_bytes_is_an_error(vocab_size):
    with pytest.raises(UserError, match=f"data.tokenizer.vocab_size is {vocab_size}; .* at least 257"):
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


def test_a_tokenizer_without_a_separator_is_an_error(tmp_path: Path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a fast tokenizer with an end-of-text or separator token"):
        load_tokenizer(tmp_path)


def test_a_vocabulary_reaches_to_the_largest_id_though_some_are_left_out():
    assert vocabulary_size(BPE) == len(BPE) == 320
    sparse = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 7, "[SEP]": 99}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=sparse, sep_token="[SEP]")
    assert len(tokenizer) == 3
    assert vocabulary_size(tokenizer) == 100
    tokenizer.add_tokens(["c"])
    assert vocabulary_size(tokenizer) == max(100, tokenizer.convert_tokens_to_ids("c") + 1)
