"""From the finished parts of a corpus to a finished store, and whether there is enough text for one."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import derive_key, file_sha256
from autoscale_exp.data.conf import DataConf
from autoscale_exp.data.manifest import (
    DomainEntry,
    FileEntry,
    Manifest,
    TokenizerEntry,
    TrainEntry,
    ValidationEntry,
    write_manifest,
)
from autoscale_exp.data.preparation.corpus import Corpus, Part
from autoscale_exp.data.preparation.packing import RowFormat
from autoscale_exp.data.preparation.parts import Workplace, read_summary
from autoscale_exp.mixture.permutation import Permutation

log = logging.getLogger(__name__)

SCARCE_BYTES = 20  # in files, per token needed; a token takes two to six bytes of text, and not all of a file is text
DOMAIN_REASONS = ("too_short", "no_text", "half_surrogates", "no_group", "duplicates_of_validation")
IN_WORDS = {  # why documents are left out, in the words that follow their number
    "too_short": "shorter than data.min_characters or blank",
    "no_text": "without a text",
    "half_surrogates": "with half a surrogate pair",
    "no_group": "without a group",
    "duplicates_of_validation": "whose text is held out",
    "no_domain": "that no domain's keep takes",
    "no_keep_field": "without a field that keep names",
}


def scarce_domains(conf: DataConf, corpus: Corpus) -> list[str]:
    """Domains whose text may be too little, by the size of their files: under SCARCE_BYTES for each token needed.

    The tokens needed are those whose held-out share fills the validation rows. This is a guess;
    `check_rows` is exact. If the guess misses a domain, as most of its text is left out or its files are remote and
    of unknown size, the lack shows when the store is sealed.
    """
    scarce = []
    for domain in [*conf.domains, *conf.held_out_domains]:
        fraction = 1 if domain in conf.held_out_domains else conf.validation_fraction
        needed = conf.validation_rows * conf.seq_len / fraction
        sizes = [part.num_bytes for part in corpus.parts_of(domain)]
        if sum(size if size is not None else math.inf for size in sizes) < needed * SCARCE_BYTES:
            scarce.append(domain)
    return scarce


def check_rows(conf: DataConf, place: Workplace, domains: Iterable[str]) -> None:
    """Checks that domains have the rows that are asked for. A domain with a missing part is not checked.

    Raises:
        UserError: a domain has too little text, or none because of its `keep`.
    """
    for domain in domains:
        try:
            summaries = {part: read_summary(place, part) for part in place.corpus.parts_of(domain)}
        except FileNotFoundError:  # another shard's, or another process has sealed the store
            continue
        _check_domain(conf, domain, {part: s["domains"][domain] for part, s in summaries.items()})


def seal_store(
    conf: DataConf, identity: dict[str, Any], place: Workplace, row_format: RowFormat, seconds: float
) -> None:
    """Writes the validation rows and then the manifest of a store whose parts are all there.

    Raises:
        UserError: a domain has too little text, or none because of its `keep`.
    """
    from autoscale_exp.data.tokenizer import load_tokenizer, vocabulary_size

    folder = place.folder
    summaries = {part: read_summary(place, part) for part in place.corpus.parts}
    domains = {}
    for domain in [*conf.domains, *conf.held_out_domains]:
        entries = {part: s["domains"][domain] for part, s in summaries.items() if domain in s["domains"]}
        _check_domain(conf, domain, entries)
        domains[domain] = DomainEntry(
            train=_train_entry(conf, entries) if domain in conf.domains else None,
            validation=_validation_entry(conf, domain, entries, place, row_format),
            **_left_out(f" of '{domain}'", entries.values(), DOMAIN_REASONS),
        )
    of_no_domain = _left_out("", summaries.values(), ("no_domain", "no_keep_field"))
    tokenizer = load_tokenizer(folder / "tokenizer")
    sha256 = file_sha256(folder / "tokenizer" / "tokenizer.json")
    manifest = Manifest(
        config=identity,
        dtype=row_format.dtype,
        tokenizer=TokenizerEntry(conf.tokenizer.name, vocabulary_size(tokenizer), sha256),
        domains=domains,
        documents_of_no_domain=of_no_domain["no_domain"],
        documents_without_keep_field=of_no_domain["no_keep_field"],
        files_left_out=place.corpus.files_left_out,
        seconds=round(seconds, 1),
    )
    write_manifest(folder, manifest)


def _left_out(whose: str, summaries: Iterable[dict[str, Any]], reasons: Iterable[str]) -> dict[str, int]:
    """Counts the documents that were left out, by reason, and logs them."""
    total = _count(summaries)
    if total:
        log.info("documents left out%s: %s", whose, _in_words(total))
    return {reason: total[reason] for reason in reasons}


def _count(summaries: Iterable[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary["left_out"])
    return total


def _in_words(left_out: Counter[str]) -> str:
    return ", ".join(f"{left_out[reason]:,} {words}" for reason, words in IN_WORDS.items() if left_out[reason])


def _check_domain(conf: DataConf, domain: str, entries: dict[Part, dict[str, Any]]) -> None:
    """Checks that a domain has a training row and the validation rows; `entries` are those of its parts."""
    _check_kept(domain, entries)
    left_out = _in_words(_count(entries.values()))
    but = f" (documents left out: {left_out})" if left_out else ""
    if domain in conf.domains and not _rows(entries, "train"):
        raise UserError(f"domain '{domain}' has no row of {conf.seq_len} tokens to train on{but}; give it more text")
    if (rows := _rows(entries, "validation")) < conf.validation_rows:
        raise UserError(
            f"data.validation_rows is {conf.validation_rows}, but the held-out documents of '{domain}' make only "
            f"{rows} rows{but}; lower it, raise data.validation_fraction or give more text"
        )


def _rows(entries: dict[Part, dict[str, Any]], side: str) -> int:
    return sum(entry[side]["rows"] for entry in entries.values())


def _check_kept(domain: str, entries: dict[Part, dict[str, Any]]) -> None:
    """Checks that a domain with `keep` got some document, even if this was left out later."""
    keep = {name: list(v) for part in entries for s in part.sources if s.domain == domain for name, v in s.keep}
    documents = (
        entry[side]["documents"] for entry in entries.values() for side in ("train", "validation") if side in entry
    )
    if keep and not any(documents) and not any(entry["left_out"] for entry in entries.values()):
        raise UserError(
            f"domain '{domain}' has no document: no document of its files has keep {keep}, or domains before it have "
            f"taken those; correct data.sources.{domain}.keep"
        )


def _train_entry(conf: DataConf, entries: dict[Part, dict[str, Any]]) -> TrainEntry:
    parts = {part: entry["train"] for part, entry in entries.items()}
    rows = _rows(entries, "train")
    return TrainEntry(
        rows=rows,
        tokens=rows * conf.seq_len,
        **{k: sum(entry[k] for entry in parts.values()) for k in ("documents", "characters", "dropped_tokens")},
        files={
            f"{part.index:05d}": FileEntry(entry["rows"], entry["sha256"])
            for part, entry in parts.items()
            if entry["rows"]
        },
    )


def _validation_entry(
    conf: DataConf, domain: str, entries: dict[Part, dict[str, Any]], place: Workplace, row_format: RowFormat
) -> ValidationEntry:
    """Draws `validation_rows` rows from those of the held-out documents. No run trains on the others."""
    parts = {part: entry["validation"] for part, entry in entries.items()}
    total = _rows(entries, "validation")
    chosen = np.sort(Permutation(total, derive_key("validation rows", domain))(np.arange(conf.validation_rows)))
    path = place.folder / "validation" / f"{domain}.bin"
    first = 0
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        for part, entry in parts.items():
            mine = chosen[(chosen >= first) & (chosen < first + entry["rows"])] - first
            if mine.size:
                rows = np.memmap(place.rows_of(part, "validation", domain), row_format.dtype, "r")
                file.write(rows.reshape(-1, conf.seq_len)[mine].tobytes())
            first += entry["rows"]
    dropped = sum(entry["dropped_tokens"] for entry in parts.values())
    return ValidationEntry(
        rows=conf.validation_rows,
        tokens=conf.validation_rows * conf.seq_len,
        **{k: sum(entry[k] for entry in parts.values()) for k in ("documents", "characters")},
        dropped_tokens=dropped + (total - conf.validation_rows) * conf.seq_len,
        sha256=file_sha256(path),
    )
