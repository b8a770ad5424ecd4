from pathlib import Path

import pytest

from autoscale_exp.config import FilesConf, FilesDataConf, TokenizerConf
from autoscale_exp.data.preparation import prepare_store
from tests.data.corpora import write_records

DOMAINS = ["web", "books"]
TEXT = " ".join(f"word{number % 7}" for number in range(60))


def conf_of(folder: Path, keep_books: str, **options: object) -> FilesDataConf:
    """Two domains in one file, told apart by their sets."""
    records = [{"text": f"{domain} {number} {TEXT}", "set": domain} for number in range(20) for domain in DOMAINS]
    write_records(folder / "all.jsonl", records)
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


def test_a_keep_that_no_document_has_is_the_cause_that_is_told(tmp_path: Path):
    message = r"no document of its files has keep {'set': \['boks'\]}, .*; correct data.sources.books.keep"
    with pytest.raises(ValueError, match=rf"domain 'books' has no document: {message}"):
        prepare_store(conf_of(tmp_path, "boks"))


def test_where_documents_have_the_keep_but_are_too_short_that_is_the_cause_that_is_told(tmp_path: Path):
    conf = conf_of(tmp_path, "books", min_characters=10_000)
    with pytest.raises(ValueError, match=r"domain 'web' has no row of 32 tokens to train on; give it more text"):
        prepare_store(conf)
