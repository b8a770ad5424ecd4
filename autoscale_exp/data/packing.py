"""From documents to rows: the split by group, the duplicates that cross it, and packing into fixed lengths."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_exp.data.corpus import Corpus, Document
from autoscale_exp.data.tokenizer import Tokenizer

BATCH_DOCUMENTS = 256  # encoded at once; the tokenizer spreads a batch over the cores


class Split:
    """Which documents are trained on and which are held out.

    A hash of its group's name alone decides where a document goes, on every machine alike. A training document whose
    text also stands in validation, of whichever domain, is left out and counted.

    Args:
        corpus: the documents; read once here for the texts that are held out.
        domains: all domains of the store.
        fraction: of the groups, held out.
    """

    def __init__(self, corpus: Corpus, domains: Sequence[str], fraction: float) -> None:
        self.duplicates = dict.fromkeys(domains, 0)
        self._corpus = corpus
        self._threshold = int(fraction * 2**64)
        self._held_out = {_digest(d.text) for domain in domains for d in self.validation(domain)}

    def validation(self, domain: str) -> Iterator[Document]:
        """The held-out documents of a domain."""
        return (d for d in self._corpus.documents(domain) if self._is_held_out(d.group))

    def training(self, domain: str) -> Iterator[Document]:
        """The training documents of a domain; afterwards `duplicates[domain]` says how many were left out."""
        self.duplicates[domain] = 0
        for document in self._corpus.documents(domain):
            if self._is_held_out(document.group):
                continue
            if _digest(document.text) in self._held_out:
                self.duplicates[domain] += 1
            else:
                yield document

    def _is_held_out(self, group: str) -> bool:
        digest = hashlib.blake2b(group.encode(), digest_size=8, person=b"validation").digest()
        return int.from_bytes(digest, "little") < self._threshold


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass
class RowWriter:
    """Packs documents, each followed by end-of-text, into rows of `seq_len` and appends them to a file.

    Attributes:
        path: file to write.
        seq_len: tokens per row.
        dtype: of a token id.
        tokens: tokens in whole rows so far.
        documents: documents packed so far.
        characters: their characters.
        dropped_tokens: tokens after the last whole row.
    """

    path: Path
    seq_len: int
    dtype: npt.DTypeLike
    tokens: int = 0
    documents: int = 0
    characters: int = 0
    dropped_tokens: int = 0

    def write(self, documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[int]:
        """Writes all rows; after each batch of documents yields the tokens it brought."""
        end_of_text = tokenizer.eos_token_id
        pending: list[int] = []
        with self.path.open("wb") as file:
            for batch in _batches(documents):
                before = self.tokens
                texts = [document.text for document in batch]
                for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                    pending += encoding.ids
                    pending.append(end_of_text)
                whole = len(pending) // self.seq_len * self.seq_len
                file.write(np.asarray(pending[:whole], dtype=self.dtype).tobytes())
                pending = pending[whole:]
                self.tokens += whole
                self.documents += len(batch)
                self.characters += sum(map(len, texts))
                self.dropped_tokens = len(pending)
                yield self.tokens - before

    @property
    def rows(self) -> int:
        """Whole rows written so far."""
        return self.tokens // self.seq_len


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch
