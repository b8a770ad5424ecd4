"""From texts to rows: each text or a window of it is encoded, followed by a separator, and cut to a fixed length."""

import hashlib
import itertools
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_exp.data.preparation.encoding import Encoder

BATCH_DOCUMENTS = 256  # encoded at once
BATCH_CHARACTERS = 2**20  # at most, so that a batch of long documents takes no more memory than one of short ones
WINDOW_CHARACTERS = 1000  # as in the paper


def draw_window(text: str) -> str:
    """Draws WINDOW_CHARACTERS from a text that has at least as many; a hash of the text draws the place, uniformly.

    Source: AutoScale, arXiv 2407.20177, appendix on data (one window of 1,000 characters per document).
    """
    places = len(text) - WINDOW_CHARACTERS + 1
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"window").digest()
    start = int.from_bytes(digest, "little") * places >> 64
    return text[start : start + WINDOW_CHARACTERS]


@dataclass(frozen=True)
class RowFormat:
    """How tokens become rows.

    Attributes:
        seq_len: tokens per row.
        dtype: type of a token id, little-endian.
        separator: id that follows every document.
        row_start: id that each row begins with, or None.
    """

    seq_len: int
    dtype: str
    separator: int
    row_start: int | None = None


class RowWriter:
    """Packs documents, each followed by the separator, into rows and writes them to a file.

    Attributes:
        rows: whole rows written so far.
        documents: documents taken so far.
        characters: characters of those documents.
        dropped_tokens: tokens after the last whole row; final after `close`.
    """

    def __init__(self, path: Path, row_format: RowFormat, encoder: Encoder) -> None:
        self.rows = self.documents = self.characters = self.dropped_tokens = 0
        self._format = row_format
        self._encoder = encoder
        self._batch: list[str] = []
        self._batch_characters = 0
        self._encoded: deque[Future[npt.NDArray[Any]]] = deque()
        self._pending = np.empty(0, row_format.dtype)
        self._sha256 = hashlib.sha256()
        self._file = path.open("wb")

    def add(self, text: str) -> int:
        """Takes a document; returns the number of tokens written, which is above 0 only at the end of a batch."""
        self._batch.append(text)
        self._batch_characters += len(text)
        if len(self._batch) < BATCH_DOCUMENTS and self._batch_characters < BATCH_CHARACTERS:
            return 0
        self._end_batch()
        return sum(self._write_next() for _ in itertools.takewhile(Future.done, tuple(self._encoded)))

    def close(self) -> int:
        """Writes what is left and closes the file; returns the number of tokens written."""
        if self._batch:
            self._end_batch()
        written = sum(self._write_next() for _ in tuple(self._encoded))
        self.dropped_tokens = len(self._pending)
        self._file.close()
        return written

    def discard(self) -> None:
        """Closes the file as it is, if it is open."""
        with suppress(OSError):  # a full disk has been reported already
            self._file.close()

    @property
    def sha256(self) -> str:
        """Hash of all that was written, in hexadecimal."""
        return self._sha256.hexdigest()

    def _end_batch(self) -> None:
        self._encoded.append(self._encoder.submit(self._batch))
        self.documents += len(self._batch)
        self.characters += self._batch_characters
        self._batch, self._batch_characters = [], 0

    def _write_next(self) -> int:
        rows = self._cut(np.concatenate([self._pending, self._encoded.popleft().result()]))
        content = rows.tobytes()
        self._file.write(content)
        self._sha256.update(content)
        self.rows += len(rows)
        return rows.size

    def _cut(self, tokens: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cuts tokens into (rows, seq_len); the rest waits for the next batch."""
        start = self._format.row_start
        fresh = self._format.seq_len - (start is not None)  # tokens of the text in a row
        num_rows = len(tokens) // fresh
        self._pending = tokens[num_rows * fresh :]
        rows = tokens[: num_rows * fresh].reshape(num_rows, fresh)
        return rows if start is None else np.insert(rows, 0, start, axis=1)
