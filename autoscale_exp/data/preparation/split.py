"""Which documents are trained on and which are held out, decided without looking at others, where possible."""

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_exp.base import atomic
from autoscale_exp.data.preparation.corpus import Corpus, Document, Part

DIGESTS_AT_A_TIME = 2**20  # in one write, whose copies take more memory than the digests themselves
UInt64Array = npt.NDArray[np.uint64]


class Split:
    """The side of each document.

    A hash of the group's name decides or, without a group, a hash of the text. Copies of a text are then on the
    same side, in any domain. Where groups or whole domains are held out, a copy can be on the
    other side. So a training document whose text is also held out is left out.

    Args:
        fraction: fraction of the groups to hold out.
        held_out_domains: domains that are held out as a whole.
        digests: sorted digests of the held-out texts that can have copies in training, from `merge_digests`.
    """

    def __init__(self, fraction: float, held_out_domains: Sequence[str], digests: UInt64Array | None = None) -> None:
        self._threshold = int(fraction * 2**64)
        self._held_out_domains = frozenset(held_out_domains)
        self._digests = np.empty(0, np.uint64) if digests is None else digests

    def is_held_out(self, document: Document) -> bool:
        """Whether a document is for validation."""
        if document.domain in self._held_out_domains:
            return True
        key = document.text if document.group is None else document.group
        digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"validation").digest()
        return int.from_bytes(digest, "little") < self._threshold

    def is_copy(self, document: Document) -> bool:
        """Whether the text of a training document is also held out."""
        if not len(self._digests):
            return False
        digest = np.uint64(_digest(document.text))
        place = int(self._digests.searchsorted(digest))
        return place < len(self._digests) and self._digests[place] == digest


def needs_digests(corpus: Corpus, part: Part, held_out_domains: Sequence[str]) -> bool:
    """Whether copies of a part's held-out texts can be in training."""
    return corpus.group_field is not None or any(source.domain in held_out_domains for source in part.sources)


def write_digests(path: Path, corpus: Corpus, part: Part, split: Split) -> None:
    """Writes the sorted digests of a part's held-out texts as one whole file of uint64, 8 bytes of memory per text."""
    documents = (document for document in corpus.documents(part) if split.is_held_out(document))
    found = array("Q", (_digest(document.text) for document in documents))
    _write_sorted(path, np.asarray(found, np.uint64))


def merge_digests(paths: Sequence[Path], merged: Path) -> None:
    """Merges files of digests into one: 8 bytes of memory per digest in them."""
    counts = [path.stat().st_size // 8 for path in paths]
    digests = np.empty(sum(counts), np.uint64)
    for path, place in zip(paths, np.split(digests, np.cumsum(counts)), strict=False):
        with path.open("rb") as file:
            file.readinto(place.data)
    _write_sorted(merged, digests)


def _write_sorted(path: Path, digests: UInt64Array) -> None:
    """Sorts digests in place, and writes each once."""
    digests.sort()
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        for start in range(0, len(digests), DIGESTS_AT_A_TIME):
            chunk = digests[start : start + DIGESTS_AT_A_TIME]
            is_first = np.append(start == 0 or digests[start - 1] != chunk[0], chunk[1:] != chunk[:-1])
            chunk[is_first].tofile(file)


def read_digests(path: Path) -> UInt64Array:
    """Sorted digests, memory-mapped."""
    if not path.stat().st_size:
        return np.empty(0, np.uint64)
    return np.asarray(np.memmap(path, np.uint64, "r"))  # a plain view is three times as fast for one number


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
