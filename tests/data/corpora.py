"""Small corpora on the disk."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CODECS = {".gz": "gzip", ".zst": "zstd"}


def compress(content: bytes, suffix: str) -> bytes:
    """As a file whose name ends so holds it."""
    return pa.compress(content, CODECS[suffix], asbytes=True) if suffix in CODECS else content


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    """Writes records as the kind of file that the name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path, row_group_size=100)
    else:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path.write_bytes(compress(lines.encode(), path.suffix))
    return path
