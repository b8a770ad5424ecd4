"""The `data` section: a set of domains, where their text is, and how the text becomes rows."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class TokenizerConf:
    """A tokenizer trained on the training split, or a Hugging Face tokenizer."""

    name: str = "bpe"  # "bpe" (byte-level) and "wordpiece" (BERT's, uncased) train one; else a Hub name or a folder
    vocab_size: int | None = None  # entries of a trained tokenizer; null for a Hugging Face tokenizer


@dataclass
class DataConf:
    """A set of domains and how their text becomes rows."""

    name: str = MISSING  # name of the set and of its store's folder
    domains: list[str] = MISSING  # training domains, in the order of every list of weights, bounds and columns
    held_out_domains: list[str] = field(default_factory=list)  # domains for validation only
    store: str = MISSING  # folder of the token store
    seq_len: int = MISSING  # tokens per row
    preparation: str = "packed"  # whole documents; or windows: 1,000 characters of each that is as long, as published
    min_characters: int = 1  # shorter documents are left out
    max_characters: int | None = None  # most per domain, from each file by its size; null: all
    validation_fraction: float = MISSING  # of documents or their groups to hold out, chosen by a hash
    validation_rows: int = MISSING  # rows per domain, drawn from what is held out
    tokenizer: TokenizerConf = field(default_factory=TokenizerConf)


@dataclass
class EnvironmentDataConf(DataConf):
    """Text from the installed dependencies; see data/preparation/environment.py."""


@dataclass
class FilesConf:
    """Where the documents of a domain are: an entry of `sources`, which overrides may add to."""

    files: list[str] = field(default_factory=list)  # paths and globs under data.path; hf:// and https:// URLs
    file_list: str | None = None  # a file that names them, one per line
    text_field: str | None = None  # null: data.text_field
    # {meta.language: en}: only documents with this value, or with one of a list
    keep: dict[str, Any] = field(default_factory=dict)


@dataclass
class FilesDataConf(DataConf):
    """Files of JSON lines, parquet or text, plain or compressed, local or remote."""

    path: str | None = None  # folder with <domain>.jsonl or the like for each domain without files of its own
    files: list[str] = field(default_factory=list)  # files of all domains that name none of their own
    # by domain: its own files, file_list, text_field and keep, as in ++data.sources.web.files=[cc/*.jsonl.zst]
    sources: dict[str, Any] = field(default_factory=dict)
    text_field: str = "text"  # keys joined by dots lead into nested fields
    group_field: str | None = None  # documents with the same value are split together; null: copies of a text are
    group_separator: str | None = None  # only the part of the group field before this counts
    on_bad_document: str = "error"  # one that lacks a field or its text: error, or skip (leave out, and count)
