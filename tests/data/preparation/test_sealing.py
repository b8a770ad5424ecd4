from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import FilesConf, FilesDataConf, TokenizerConf
from autoscale_exp.data.preparation.corpus import Corpus, Part, Source
from autoscale_exp.data.preparation.pipeline import prepare_store
from autoscale_exp.data.preparation.sealing import scarce_domains
from tests.data.preparation.corpora import write_entries

DOMAINS = ["web", "books"]
TEXT = " ".join(f"word{number % 7}" for number in range(60))


def conf_of(folder: Path, keep_books: str, **options: object) -> FilesDataConf:
    """Two domains in one file, told apart by their sets."""
    entries = [{"text": f"{domain} {number} {TEXT}", "set": domain} for number in range(20) for domain in DOMAINS]
    write_entries(folder / "all.jsonl", entries)
    return FilesDataConf(
        name="test",
        domains=DOMAINS,
        store=str(folder / "store"),
        seq_len=32,
        validation_fraction=0.3,
        validation_rows=2,
        tokenizer=TokenizerConf(vocab_size=300),
        path=str(folder),
        files=["all.jsonl"],
        sources={"web": FilesConf(keep={"set": "web"}), "books": FilesConf(keep={"set": keep_books})},
        **options,  # type: ignore[arg-type]
    )


def test_a_store_has_the_vocabulary_that_its_tokenizers_largest_id_asks_for(tmp_path: Path):
    words = {word: 3 * number for number, word in enumerate(sorted({*TEXT.split(), *DOMAINS, "[SEP]", "[UNK]"}))}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=model, sep_token="[SEP]").save_pretrained(tmp_path / "tokenizer")
    conf = conf_of(tmp_path, "books")
    store = prepare_store(replace(conf, tokenizer=TokenizerConf(name=str(tmp_path / "tokenizer"))))
    assert store is not None
    assert store.vocab_size == max(words.values()) + 1 > len(words)
    assert all(store.rows("train", domain)[:].max() < store.vocab_size for domain in DOMAINS)


def test_a_keep_that_no_document_has_is_the_cause_that_is_told(tmp_path: Path):
    message = r"no document of its files has keep {'set': \['boks'\]}, .*; correct data.sources.books.keep"
    with pytest.raises(UserError, match=rf"domain 'books' has no document: {message}"):
        prepare_store(conf_of(tmp_path, "boks"))


def test_where_documents_have_the_keep_but_are_too_short_that_is_the_cause_that_is_told(tmp_path: Path):
    conf = conf_of(tmp_path, "books", min_characters=10_000)
    message = r"\(documents left out: 20 shorter than data.min_characters or blank\); give it more text"
    with pytest.raises(UserError, match=rf"domain 'web' has no row of 32 tokens to train on {message}"):
        prepare_store(conf)


def test_domains_whose_files_are_small_for_the_rows_asked_for_are_scarce(tmp_path: Path):
    enough = 20 * 2 * 32  # bytes, if all were held out
    sizes = {"small": 2 * enough - 1, "large": 2 * enough, "streamed": None, "news": enough, "blogs": enough - 1}
    parts = [Part(n, (), (Source(d, "text"),), size) for n, (d, size) in enumerate(sizes.items())]
    conf = replace(conf_of(tmp_path, "books"), validation_fraction=0.5, domains=["small", "large", "streamed", "none"])
    conf = replace(conf, held_out_domains=["news", "blogs"])
    assert scarce_domains(conf, Corpus(parts, stamps={})) == ["small", "none", "blogs"]
