"""The `data` section: a set of domains, where their text is, and how it becomes rows."""

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

    name: str = MISSING  # of the set, and of its store's folder
    domains: list[str] = MISSING  # trained on; the order of every list of weights, bounds and columns
    held_out_domains: list[str] = field(default_factory=list)  # only validated on
    store: str = MISSING  # folder of the token store
    seq_len: int = MISSING  # tokens per row
    preparation: str = "packed"  # whole documents; or windows: 1,000 characters of each that has so many, as published
    min_characters: int = 1  # shorter documents are left out
    max_characters: int | None = None  # per domain, from each file by its size; null: all
    validation_fraction: float = MISSING  # of the documents or their groups, chosen by a hash, is held out
    validation_rows: int = MISSING  # rows per domain that are drawn from what is held out
    tokenizer: TokenizerConf = field(default_factory=TokenizerConf)


@dataclass
class EnvironmentDataConf(DataConf):
    """Text that the installed dependencies bring along; see data/environment.py."""


@dataclass
class FilesConf:
    """Where the documents of a domain are: an entry of `sources`, which is open so that an override can begin one."""

    files: list[str] = field(default_factory=list)  # paths and globs under data.path; hf:// and https:// URLs
    file_list: str | None = None  # a file that names them, one per line
    text_field: str | None = None  # null: data.text_field
    # {meta.language: en}: only documents with that, or with one of a list
    keep: dict[str, Any] = field(default_factory=dict)


@dataclass
class FilesDataConf(DataConf):
    """Files of JSON lines, parquet or text, plain or compressed, local or remote."""

    path: str | None = None  # folder; a domain for which no files are named has <domain>.jsonl or the like in it
    files: list[str] = field(default_factory=list)  # of all domains that name none of their own
    # by domain: files, file_list, text_field and keep of its own, as in ++data.sources.web.files=[cc/*.jsonl.zst]
    sources: dict[str, Any] = field(default_factory=dict)
    text_field: str = "text"  # keys joined by dots lead into nested fields
    group_field: str | None = None  # documents that share it stay on one side of the split; null: copies of a text do
    group_separator: str | None = None  # only the part of the group field before it counts
    on_bad_document: str = "error"  # one that lacks a field or the text: error, or skip (left out and counted)
