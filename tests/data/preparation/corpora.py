"""Small corpora on the disk."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autoscale_exp.data.conf import FilesDataConf
from autoscale_exp.data.preparation.corpus import Corpus, Document
from autoscale_exp.data.preparation.files import open_corpus

CODECS = {".gz": "gzip", ".zst": "zstd"}


def compress(content: bytes, suffix: str) -> bytes:
    """As a file whose name ends so holds it."""
    return pa.compress(content, CODECS[suffix], asbytes=True) if suffix in CODECS else content


def write_entries(path: Path, entries: Iterable[dict[str, Any]]) -> Path:
    """Writes entries as the kind of file that the name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(entries)), path, row_group_size=100)
    else:
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        path.write_bytes(compress(lines.encode(), path.suffix))
    return path


def corpus_of(
    folder: Path | None,
    domains: tuple[str, ...] = ("web",),
    listing: dict[str, list[str]] | None = None,
    **options: Any,
) -> Corpus:
    conf = FilesDataConf(
        name="test",
        domains=list(domains),
        store="nowhere",
        seq_len=32,
        validation_fraction=0.2,
        validation_rows=5,
        path=None if folder is None else str(folder),
        **options,
    )
    return open_corpus(conf, listing)


def documents_of(corpus: Corpus) -> list[Document]:
    return [document for part in corpus.parts for document in corpus.documents(part)]


def texts(corpus: Corpus, domain: str = "web") -> list[str]:
    return [document.text for document in documents_of(corpus) if document.domain == domain]


def write_texts(path: Path, *contents: str) -> Path:
    return write_entries(path, ({"text": text} for text in contents))
