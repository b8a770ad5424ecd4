"""One part of a corpus, prepared by one process: the digests of its held-out texts, and its rows.

Everything a part leaves is written whole or not at all, and is the same whoever writes it; its summary comes last. A
lock keeps others from doing the same work, and is gone with the process that holds it.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
from filelock import FileLock, Timeout

from autoscale_exp.base import atomic
from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.data.preparation.corpus import Corpus, Dropped, Part
from autoscale_exp.data.preparation.encoding import Encoder, Threads
from autoscale_exp.data.preparation.entries import is_remote
from autoscale_exp.data.preparation.packing import RowFormat, RowWriter, draw_window
from autoscale_exp.data.preparation.split import Split, read_digests, write_digests
from autoscale_exp.data.rows import stamp_of

Report = Callable[[str, int], None]  # domain and tokens written since the last time


@dataclass(frozen=True)
class Workplace:
    """All that a process needs to prepare parts of a store.

    What a part leaves on the way is named by what it was made from, so that nothing of a file that was replaced is
    taken for what the new one gives.

    Attributes:
        folder: folder of the store.
        corpus: the text.
        fraction: fraction of the groups to hold out.
        held_out_domains: domains that are held out as a whole.
        keys: keys of each part, from `keys_of`.
        basis: identifies the tokenizer and the held-out digests, once they are there.
    """

    folder: Path
    corpus: Corpus
    fraction: float
    held_out_domains: tuple[str, ...]
    keys: tuple[str, ...]
    basis: str = ""

    @property
    def is_sealed(self) -> bool:
        """Whether the store is finished, and its parts gone."""
        return (self.folder / "manifest.json").exists()

    @property
    def digests(self) -> Path:
        """Merged digests of the held-out texts; empty if no copy can be in training."""
        return self.folder / "parts" / f"held_out.{fingerprint(self.keys)}.bin"

    def digests_of(self, part: Part) -> Path:
        """Digests of one part's held-out texts."""
        return self.folder / "parts" / f"{part.index:05d}.{self.keys[part.index]}.bin"

    def summary_of(self, part: Part) -> Path:
        """What a part gave; exists once its rows are written."""
        made_from = fingerprint([self.keys[part.index], self.basis])
        return self.folder / "parts" / f"{part.index:05d}.{made_from}.json"

    def rows_of(self, part: Part, split: str, domain: str) -> Path:
        """The rows that a part gave to a domain."""
        return self.folder / ("train" if split == "train" else "parts/validation") / domain / f"{part.index:05d}.bin"


def keys_of(corpus: Corpus) -> tuple[str, ...]:
    """What identifies the text of each part: its stretches of files, these files' sizes and times, and its quotas."""
    keys = []
    for part in corpus.parts:
        spans = [(*astuple(span), *([] if is_remote(span.path) else stamp_of(Path(span.path)))) for span in part.spans]
        keys.append(fingerprint([spans, [str(corpus.quota(part, source.domain)) for source in part.sources]]))
    return tuple(keys)


def scan_part(place: Workplace, part: Part, *_: object) -> bool:
    """Writes the digests of a part's held-out texts, unless they are there; False if another process is at it."""
    try:
        with _lock(place, part):
            if not place.digests_of(part).exists() and not place.is_sealed:  # sealed, then removed: ask in that order
                split = Split(place.fraction, place.held_out_domains)
                write_digests(place.digests_of(part), place.corpus, part, split)
        return True
    except Timeout:
        return False


def write_part(place: Workplace, row_format: RowFormat, part: Part, report: Report, threads: Threads) -> bool:
    """Writes a part's rows and its summary, unless they are there; False if another process is at it.

    Raises:
        UserError: a file cannot be read; nothing of the part is left.
    """
    try:
        with _lock(place, part):
            if not place.summary_of(part).exists() and not place.is_sealed:
                atomic.write_json(place.summary_of(part), _write_rows(place, row_format, part, report, threads))
        return True
    except Timeout:
        return False


def read_summary(place: Workplace, part: Part) -> dict[str, Any]:
    """The summary of a finished part: what it gave, by domain and split."""
    return json.loads(place.summary_of(part).read_text(encoding="utf-8"))


def _lock(place: Workplace, part: Part) -> FileLock:
    folder = place.folder / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{part.index:05d}.lock", blocking=False)


@lru_cache(maxsize=1)
def _load_tokenizer(path: Path, _: int) -> tokenizers.Tokenizer:
    """The tokenizer in a file of this time, once per process: each one keeps 4 MB for good (tokenizers 0.23)."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # a text that mentions <|endoftext|> does not end there
    tokenizer.no_truncation()  # some are saved with the length of their model
    tokenizer.no_padding()
    return tokenizer


def _write_rows(
    place: Workplace, row_format: RowFormat, part: Part, report: Report, threads: Threads
) -> dict[str, Any]:
    path = place.folder / "tokenizer" / "tokenizer.json"
    tokenizer = _load_tokenizer(path, path.stat().st_mtime_ns)
    split = Split(place.fraction, place.held_out_domains, read_digests(place.digests))
    writers: dict[tuple[str, str], RowWriter] = {}
    dropped: Dropped = Counter()
    with Encoder(tokenizer, row_format.separator, row_format.dtype, threads) as encoder, ExitStack() as files:
        for domain in dict.fromkeys(source.domain for source in part.sources):
            for side in ("validation",) if domain in place.held_out_domains else ("train", "validation"):
                path = place.rows_of(part, side, domain)
                temporary = files.enter_context(atomic.replacing(path))
                writers[domain, side] = RowWriter(temporary, row_format, encoder)
        with ExitStack() as open_files:
            for writer in writers.values():
                open_files.callback(writer.discard)
            for document in place.corpus.documents(part, dropped):
                side = "validation" if split.is_held_out(document) else "train"
                if side == "train" and split.is_copy(document):
                    dropped[document.domain, "duplicates_of_validation"] += 1
                    continue
                text = draw_window(document.text) if place.corpus.windows else document.text
                report(document.domain, writers[document.domain, side].add(text))
            for (domain, _), writer in writers.items():
                report(domain, writer.close())
    summary: dict[str, Any] = {"left_out": _left_out(dropped, ""), "domains": {}}
    for (domain, side), writer in writers.items():
        entry = summary["domains"].setdefault(domain, {"left_out": _left_out(dropped, domain)})
        entry[side] = {
            "rows": writer.rows,
            "documents": writer.documents,
            "characters": writer.characters,
            "dropped_tokens": writer.dropped_tokens,
            "sha256": writer.sha256,
        }
        if not writer.rows:
            place.rows_of(part, side, domain).unlink()
    return summary


def _left_out(dropped: Dropped, domain: str) -> dict[str, int]:
    return {reason: number for (whose, reason), number in dropped.items() if whose == domain}
