"""A corpus in parts that are prepared one by one, and the documents of a part."""

import ast
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.preparation.entries import FileSpan, kind_of, read_entries
from autoscale_exp.data.preparation.packing import WINDOW_CHARACTERS

Listing = dict[str, list[str]]
Dropped = Counter[tuple[str, str]]  # documents left out, by domain ('' for none) and reason
FIRST_ENTRIES = 100  # one of which must be good, if bad documents are skipped
SKIP = "data.on_bad_document=skip leaves such documents out and counts them"


class BadField(UserError):
    """A field is missing, null or no text. data.on_bad_document says what happens to the document."""


class HalfSurrogate(BadField):
    """A text has half a surrogate pair, which cannot be encoded."""


@dataclass(frozen=True)
class Document:
    """A text, its domain, and its group, whose documents are split together; None without a group."""

    domain: str
    text: str
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """What a domain takes from a file.

    Attributes:
        domain: name of the domain.
        text_field: path of the field with the text, its keys joined by dots.
        keep: allowed values by field; documents with other values are not the domain's.
    """

    domain: str
    text_field: str
    keep: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True)
class Part:
    """The unit of work: some files, or a span of one file.

    Attributes:
        index: number within the corpus.
        spans: the spans to read.
        sources: domains that the entries may belong to; the first that fits takes an entry.
        num_bytes: bytes to read; None if unknown, as for remote files.
    """

    index: int
    spans: tuple[FileSpan, ...]
    sources: tuple[Source, ...]
    num_bytes: int | None

    @property
    def size(self) -> int:
        """Bytes to read; 0 for a remote file, whose size is unknown."""
        return self.num_bytes or 0


@dataclass(frozen=True)
class _Extent:
    """The parts that a domain may have text in, and their size in bytes; None if the size of one is unknown."""

    num_parts: int
    num_bytes: int | None


@dataclass(frozen=True)
class Corpus:
    """All parts of a corpus, and how entries become documents.

    Attributes:
        parts: the parts, in a fixed order.
        stamps: size in bytes and time of modification in ns of each file and list of files on the disk, by path.
        listing: what remote globs, and remote lists of files, stand for.
        group_field: path of the field with the group; None if each document is a group of its own.
        group_separator: only the part of the group before this counts; None for the whole.
        min_characters: shorter documents are left out.
        max_characters: characters to take of a domain, from each part by its size; domains not named give all.
        windows: whether a document gives one window instead of all its text.
        skips_bad: whether documents that lack a field or their text are left out; if not, they are an error.
        files_left_out: number of files that are no text or belong to no domain, by reason.
    """

    parts: list[Part]
    stamps: dict[str, list[int]]
    listing: Listing = field(default_factory=dict)
    group_field: str | None = None
    group_separator: str | None = None
    min_characters: int = 1
    max_characters: dict[str, float] = field(default_factory=dict)
    windows: bool = False
    skips_bad: bool = False
    files_left_out: dict[str, int] = field(default_factory=dict)
    _extents: dict[str, _Extent] = field(init=False, default_factory=dict)  # by domain

    def __post_init__(self) -> None:
        for domain in {source.domain for part in self.parts for source in part.sources}:
            parts = self.parts_of(domain)
            is_known = all(part.num_bytes is not None for part in parts)
            self._extents[domain] = _Extent(len(parts), sum(part.size for part in parts) if is_known else None)

    def parts_of(self, domain: str) -> list[Part]:
        """The parts that may hold documents of a domain."""
        return [part for part in self.parts if any(source.domain == domain for source in part.sources)]

    def quota(self, part: Part, domain: str) -> float:
        """The most characters that a part gives to a domain: by its size, or the same for all if a size is unknown.

        The size is that of all text of the part. So a domain that is unevenly spread over files that it
        shares with others may get less than `max_characters`, as no part makes up for what another lacks.
        """
        extent = self._extents[domain]
        share = part.size / extent.num_bytes if extent.num_bytes else 1 / extent.num_parts
        return self.max_characters.get(domain, math.inf) * share

    def documents(self, part: Part, dropped: Dropped | None = None) -> Iterator[Document]:
        """Yields the documents of a part, in a fixed order; `dropped` counts those left out.

        The reasons are 'no_domain' and 'no_keep_field' for documents of no domain, and 'too_short', 'no_text',
        'half_surrogates' and 'no_group' for the others. Blank texts are no documents. A domain that has its share
        of `max_characters` gets no more; the document that exceeds the share is the last.

        Raises:
            UserError: a file cannot be read, or an entry lacks a field; the message names file, byte and field.
        """
        dropped = Counter() if dropped is None else dropped
        taken: Counter[str] = Counter()
        quotas = {source.domain: self.quota(part, source.domain) for source in part.sources}
        for span in part.spans:
            group_field = None if kind_of(span.path) == "text" else self.group_field
            for entry, where in read_entries(span, self._fields(part)):
                source = self._source(part, entry, where, dropped)
                if source is None:
                    continue
                domain = source.domain
                if taken[domain] >= quotas[domain]:
                    if all(taken[s.domain] >= quotas[s.domain] for s in part.sources):
                        return
                    continue
                lacking = "no_text"
                try:
                    text = _text(entry, source.text_field, where)
                    if len(text) < self.min_characters or not text.strip():
                        dropped[domain, "too_short"] += 1
                        continue
                    lacking = "no_group"
                    group = None if group_field is None else self._group(entry, group_field, where)
                except BadField as error:
                    if not self.skips_bad:
                        raise
                    dropped[domain, "half_surrogates" if isinstance(error, HalfSurrogate) else lacking] += 1
                    continue
                taken[domain] += WINDOW_CHARACTERS if self.windows else len(text)
                yield Document(domain, text, group)

    def check_first_entries(self) -> None:
        """Reads one entry of each kind of part, so that mistakes show before any work.

        If bad documents are skipped, one good entry among the first ones is enough.

        Raises:
            UserError: it cannot be read, or lacks a field; the message names file, byte and field.
        """
        for part in {part.sources: part for part in reversed(self.parts)}.values():
            entries = itertools.chain.from_iterable(read_entries(s, self._fields(part)) for s in part.spans[:1])
            first_error: BadField | None = None
            for entry, where in itertools.islice(entries, FIRST_ENTRIES if self.skips_bad else 1):
                try:
                    self._check_entry(part, entry, where)
                    break
                except BadField as error:
                    first_error = first_error or error
            else:
                if first_error is not None:
                    raise first_error

    def _check_entry(self, part: Part, entry: dict[str, Any], where: str) -> None:
        for source in part.sources:
            if _is_kept(source, entry, where):
                _text(entry, source.text_field, where)
        if self.group_field is not None and kind_of(part.spans[0].path) != "text":
            self._group(entry, self.group_field, where)

    def _source(self, part: Part, entry: dict[str, Any], where: str, dropped: Dropped) -> Source | None:
        """The first source that takes an entry; None if none does, which is counted."""
        reason = "no_domain"
        for source in part.sources:
            try:
                if _is_kept(source, entry, where):
                    return source
            except BadField:
                if not self.skips_bad:
                    raise
                reason = "no_keep_field"
        dropped["", reason] += 1
        return None

    def _fields(self, part: Part) -> list[str]:
        """Paths of the fields that the documents of a part are made from."""
        names = {name for source in part.sources for name in (source.text_field, *dict(source.keep))}
        return sorted(names | ({self.group_field} if self.group_field else set()))

    def _group(self, entry: dict[str, Any], name: str, where: str) -> str:
        group = _value(entry, name, where)
        is_integer = isinstance(group, int) and not isinstance(group, bool)
        group = _as_text(str(group) if is_integer else group, name, where)
        return group.split(self.group_separator)[0] if self.group_separator else group


def _value(entry: dict[str, Any], name: str, where: str) -> Any:
    """The field of an entry that is called `name`, such as meta.language, or else the one at this path."""
    if name in entry:
        return entry[name]
    value: Any = entry
    for depth, key in enumerate(name.split(".")):
        if depth and isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, dict) or key not in value:
            has = ", ".join(sorted(value)) if isinstance(value, dict) else repr(value)[:60]
            raise BadField(
                f"{where}: no field '{name}', there is {has or 'nothing'}; "
                f"see data.text_field, data.group_field and keep, or {SKIP}"
            )
        value = value[key]
    return value


def _parsed(text: str) -> Any:
    """A nested entry that was written as text, as JSON or as a Python literal, which some copies of RedPajama have."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _text(entry: dict[str, Any], name: str, where: str) -> str:
    return _as_text(_value(entry, name, where), name, where)


def _as_text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise BadField(
            f"{where}: field '{name}' is {repr(value)[:60]}, which is not a text; see data.text_field, or {SKIP}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may hold an escaped half of a surrogate pair
        raise HalfSurrogate(f"{where}: field '{name}' has half a surrogate pair, which is no text; {SKIP}") from None
    return value


def _is_kept(source: Source, entry: dict[str, Any], where: str) -> bool:
    return all(_value(entry, name, where) in allowed for name, allowed in source.keep)
