"""A corpus: which files hold which domains, cut into parts prepared one by one, and the documents of a part."""

import ast
import glob
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from autoscale_exp.config import DataConf, EnvironmentDataConf, FilesConf, FilesDataConf
from autoscale_exp.data.environment import write_environment_corpus
from autoscale_exp.data.packing import WINDOW_CHARACTERS
from autoscale_exp.data.records import COMPRESSIONS, FileSpan, is_address, kind_of, open_binary, read_records

PART_BYTES = 2**26  # of local files; a larger file of plain JSON lines is cut, smaller ones are put together


@dataclass(frozen=True)
class Document:
    """A text, its domain, and the group that keeps it with its kin on one side of the split; None: none."""

    domain: str
    text: str
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """What a domain takes of a file.

    Attributes:
        domain: its name.
        text_field: path of the field with the text, its keys joined by dots.
        keep: allowed values by field; documents with others are not the domain's.
    """

    domain: str
    text_field: str
    keep: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True)
class Part:
    """The unit of work: some files, or a stretch of one.

    Attributes:
        index: number within the corpus.
        spans: what to read.
        sources: domains that the records may belong to; the first that fits has it.
        size: bytes, 0 where unknown.
    """

    index: int
    spans: tuple[FileSpan, ...]
    sources: tuple[Source, ...]
    size: int


@dataclass(frozen=True)
class Corpus:
    """All parts, and what makes a record a document.

    Attributes:
        parts: in a fixed order.
        files: size in bytes and time of modification in ns of each file by path; of an address only that it is one.
        group_field: path of the field that holds the group; None: each document by itself.
        group_separator: only the part of the group before it counts; None keeps it whole.
        min_characters: shorter documents are left out.
        max_characters: of a domain, taken evenly from all its text; a domain that is not named gives all.
        windows: whether a document gives one window instead of all its text.
    """

    parts: list[Part]
    files: dict[str, list[int]]
    group_field: str | None = None
    group_separator: str | None = None
    min_characters: int = 1
    max_characters: dict[str, float] = field(default_factory=dict)
    windows: bool = False
    _sizes: dict[str, list[int]] = field(init=False, default_factory=dict)  # parts, bytes, parts of unknown size

    def __post_init__(self) -> None:
        for part in self.parts:
            for source in part.sources:
                total = self._sizes.setdefault(source.domain, [0, 0, 0])
                total[:] = total[0] + 1, total[1] + part.size, total[2] + (part.size == 0)

    def parts_of(self, domain: str) -> list[Part]:
        """The parts that may hold documents of a domain."""
        return [part for part in self.parts if any(source.domain == domain for source in part.sources)]

    def quota(self, part: Part, domain: str) -> float:
        """Characters that a part gives to a domain at most: by its size, or the same as others where one is unknown."""
        count, size, unknown = self._sizes[domain]
        return self.max_characters.get(domain, math.inf) * (1 / count if unknown else part.size / size)

    def documents(self, part: Part, dropped: Counter[str] | None = None) -> Iterator[Document]:
        """The documents of a part, in a fixed order; `dropped` counts those left out, by domain and '' for no one's.

        Blank texts are no documents. A domain that has had its share of `max_characters` gets no more; the document
        that exceeds it is the last.

        Raises:
            ValueError: a file cannot be read or a record lacks a field; names file, byte and field.
        """
        dropped = Counter() if dropped is None else dropped
        taken: Counter[str] = Counter()
        quotas = {source.domain: self.quota(part, source.domain) for source in part.sources}
        columns = {name.split(".")[0] for source in part.sources for name in (source.text_field, *dict(source.keep))}
        columns |= {self.group_field.split(".")[0]} if self.group_field else set()
        for span in part.spans:
            for record, where in read_records(span, sorted(columns)):
                source = next((s for s in part.sources if _is_kept(s, record, where)), None)
                if source is None:
                    dropped[""] += 1
                    continue
                if taken[source.domain] >= quotas[source.domain]:
                    if all(taken[s.domain] >= quotas[s.domain] for s in part.sources):
                        return
                    continue
                text = _text(record, source.text_field, where)
                if len(text) < self.min_characters or not text.strip():
                    dropped[source.domain] += 1
                    continue
                taken[source.domain] += WINDOW_CHARACTERS if self.windows else len(text)
                has_fields = kind_of(span.path) != "text"
                yield Document(source.domain, text, self._group(record, where) if has_fields else None)

    def _group(self, record: dict[str, Any], where: str) -> str | None:
        if self.group_field is None:
            return None
        group = _text(record, self.group_field, where)
        return group.split(self.group_separator)[0] if self.group_separator else group


def _value(record: Any, name: str, where: str) -> Any:
    """The field of a record at a path such as meta.language."""
    value = record
    for depth, key in enumerate(name.split(".")):
        if depth and isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, dict) or key not in value:
            has = ", ".join(sorted(value)) if isinstance(value, dict) else repr(value)[:60]
            raise ValueError(
                f"{where}: no field '{name}', there is {has or 'nothing'}; "
                "see data.text_field, data.group_field and keep"
            )
        value = value[key]
    return value


def _parsed(text: str) -> Any:
    """A nested record that was written as text: JSON, or as Python prints it, as some copies of RedPajama have it."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = _value(record, name, where)
    if not isinstance(value, str):
        raise ValueError(f"{where}: field '{name}' is {repr(value)[:60]}, which is not a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may hold an escaped half of a surrogate pair
        raise ValueError(f"{where}: field '{name}' has half a surrogate pair, which is no text") from None
    return value


def _is_kept(source: Source, record: dict[str, Any], where: str) -> bool:
    return all(_value(record, name, where) in allowed for name, allowed in source.keep)


def open_corpus(conf: DataConf) -> Corpus:
    """The corpus that a `data` config describes; for data=environment it is written first, if need be.

    Raises:
        ValueError: a domain has no files, or a file is of no kind that can be read.
    """
    if isinstance(conf, EnvironmentDataConf):
        folder = Path(conf.store) / "text"
        assert conf.max_characters is not None, "conf/data/environment.yaml sets it"
        write_environment_corpus([*conf.domains, *conf.held_out_domains], conf.max_characters, folder)
        shared = {f.name: getattr(conf, f.name) for f in fields(DataConf)}
        conf = FilesDataConf(**shared, path=str(folder), group_field="group")
    assert isinstance(conf, FilesDataConf), type(conf)
    if conf.path is not None and not Path(conf.path).is_dir():
        raise ValueError(
            f"data.path is '{conf.path}', which is not a folder; give the one that holds the domains' files"
        )
    domains = [*conf.domains, *conf.held_out_domains]
    for domain in conf.sources:
        if domain not in domains:
            raise ValueError(f"data.sources names '{domain}', which is not among the domains {', '.join(domains)}")
    given_of = {domain: conf.sources.get(domain) or FilesConf() for domain in domains}
    for domain, given in given_of.items():  # before anything is looked for, which can take a while on the Hub
        if conf.path is None and not (given.files or given.file_list or conf.files):
            raise ValueError(
                f"data.sources.{domain}.files is not set; give it paths, globs or addresses, as in "
                f"data.sources.{domain}.files=[hf://datasets/<owner>/<name>/*.parquet], or set data.path"
            )
    sources_of: dict[str, list[Source]] = {}
    of_all: list[str] | None = None  # looked up once, as the Hub takes long to list many
    for domain, given in given_of.items():
        keep = tuple((name, tuple(v) if isinstance(v, list) else (v,)) for name, v in given.keep.items())
        if (found := _files_of(conf, domain, given)) is None:
            found = of_all = of_all or _found(conf, conf.files, "data.files")
        for path in found:
            text_field = given.text_field or conf.text_field
            source = Source(domain, text_field if kind_of(path) != "text" else "text", keep)
            sources_of.setdefault(path, []).append(source)
    return Corpus(
        parts=_cut(sources_of),
        files={_name(conf, path): _stamp(path) for path in sources_of},
        group_field=conf.group_field,
        group_separator=conf.group_separator,
        min_characters=conf.min_characters,
        max_characters=_limits(conf),
        windows=conf.preparation == "windows",
    )


def _limits(conf: DataConf) -> dict[str, float]:
    """Most characters of each domain; a held-out domain gives as many as the others hold out."""
    if conf.max_characters is None:
        return {}
    trained_on = dict.fromkeys(conf.domains, float(conf.max_characters))
    return trained_on | dict.fromkeys(conf.held_out_domains, conf.max_characters * conf.validation_fraction)


def _files_of(conf: FilesDataConf, domain: str, given: FilesConf) -> list[str] | None:
    """Paths and addresses of a domain's own files: those named, or in data.path those that have its name; else None."""
    key = f"data.sources.{domain}"
    listed = []
    if given.file_list is not None:
        with open_binary(_beneath(conf, given.file_list)) as file:
            listed = [line.strip() for line in file.read().decode().splitlines() if line.strip()]
        if not listed:
            raise ValueError(f"{key}.file_list is '{given.file_list}', which names no files")
    if named := [*given.files, *listed]:
        return _found(conf, named, key)
    return None if conf.files else _by_name(conf, domain)


def _found(conf: FilesDataConf, patterns: Sequence[str], key: str) -> list[str]:
    """The files that paths, globs and addresses stand for."""
    found = [path for pattern in patterns for path in _matches(_beneath(conf, pattern), key)]
    for path, count in Counter(found).items():
        if kind_of(path) is None:
            raise ValueError(
                f"{key} names '{path}', whose kind its name does not tell; "
                "files are .jsonl, .json, .parquet or text, and may end in .gz or .zst"
            )
        if count > 1:
            raise ValueError(f"{key} names '{path}' twice")
    return found


def _by_name(conf: FilesDataConf, domain: str) -> list[str]:
    """<domain>.jsonl, <domain>.parquet and the like, or all files in the folder <domain>."""
    folder = Path(str(conf.path))
    found = [p for p in sorted(folder.glob(f"{_literally(domain)}.*")) if p.is_file() and _is_file_of(domain, p.name)]
    if len(found) > 1:
        raise ValueError(
            f"'{found[0]}' and '{found[1]}' both hold domain '{domain}'; keep one of them, or name both in "
            f"data.sources.{domain}.files"
        )
    if not found and (folder / domain).is_dir():
        found = sorted(p for p in (folder / domain).rglob("*") if p.is_file() and kind_of(p.name) is not None)
    if not found:
        raise ValueError(
            f"data.domains names '{domain}', but '{folder}' has no {domain}.jsonl, {domain}.jsonl.gz, .zst or .parquet "
            f"and no folder {domain}/ with such or text files; set data.path, name files with "
            f"+data.sources.{domain}.files=[...], or correct data.domains"
        )
    return [str(path) for path in found]


def _is_file_of(domain: str, name: str) -> bool:
    """Whether a file is called <domain>.<kind>, compressed or not; web.old.jsonl is none of web's."""
    suffixes = name.removeprefix(domain).split(".")[1:]
    if f".{suffixes[-1]}" in COMPRESSIONS:
        suffixes.pop()
    return len(suffixes) == 1 and kind_of(name) is not None


def _literally(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _beneath(conf: FilesDataConf, path: str) -> str:
    return path if is_address(path) or conf.path is None else str(Path(conf.path) / path)


def _matches(pattern: str, key: str) -> list[str]:
    """The files that a path, glob or address stands for; those of the Hub by the commit they are of now."""
    if pattern.startswith(("http://", "https://")):
        return [pattern]
    if not is_address(pattern):
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise ValueError(f"{key} names '{pattern}', where there is no file; correct it or data.path")
        return found
    from datasets.data_files import DataFilesList  # takes a second to import

    try:
        return list(DataFilesList.from_patterns([pattern]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{key} names '{pattern}', which cannot be had: {reason}") from None


def _name(conf: FilesDataConf, path: str) -> str:
    if is_address(path) or conf.path is None or not Path(path).is_relative_to(conf.path):
        return path
    return Path(path).relative_to(conf.path).as_posix()


def _stamp(path: str) -> list[int]:
    if is_address(path):
        return []
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns]


def _cut(sources_of: dict[str, list[Source]]) -> list[Part]:
    """Parts of about PART_BYTES of local files with the same sources; each address is a part."""
    parts: list[Part] = []
    for path, sources in sources_of.items():
        for span, size in _spans(path):
            last = parts[-1] if parts else None
            if last and last.size and size and last.sources == tuple(sources) and last.size + size <= PART_BYTES:
                parts[-1] = Part(last.index, (*last.spans, span), last.sources, last.size + size)
            else:
                parts.append(Part(len(parts), (span,), tuple(sources), size))
    return parts


def _spans(path: str) -> Sequence[tuple[FileSpan, int]]:
    """The stretches that a file is read in, with their bytes."""
    if is_address(path):
        return [(FileSpan(path), 0)]
    size = Path(path).stat().st_size
    if not path.endswith((".jsonl", ".json")) or size <= PART_BYTES:  # only plain lines can be entered in the middle
        return [(FileSpan(path), size)]
    count = math.ceil(size / PART_BYTES)
    bounds = [size * k // count for k in range(count + 1)]
    return [(FileSpan(path, a, b), b - a) for a, b in pairwise(bounds)]
