"""Which files hold which domains, by name, path, glob or URL, and how files are cut into the parts of a corpus."""

import copy
import glob
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoscale_exp.base.errors import UserError, first_line
from autoscale_exp.base.overrides import dotted_override
from autoscale_exp.data.conf import DataConf, EnvironmentDataConf, FilesConf, FilesDataConf
from autoscale_exp.data.preparation.corpus import Corpus, Listing, Part, Source
from autoscale_exp.data.preparation.entries import (
    FileSpan,
    can_be_cut,
    compression_of,
    decoded,
    is_remote,
    kind_of,
    open_binary,
)
from autoscale_exp.data.preparation.environment import write_environment_corpus
from autoscale_exp.data.preparation.folders import LeftOut, described, sorted_out, text_files
from autoscale_exp.data.preparation.packing import WINDOW_CHARACTERS

log = logging.getLogger(__name__)

MOST_PARTS = 1024  # of remote files with the same domains, whose sizes are unknown; more files share parts
# What YAML reads as true or false without quotes.
SPELLINGS = {
    value: [spelt for word in words for spelt in (word, word.capitalize(), word.upper())]
    for value, words in {"False": ("no", "off", "false"), "True": ("yes", "on", "true")}.items()
}
PART_BYTES = 2**26  # of local files; a larger file of plain JSON lines is cut, smaller ones are put together


def open_corpus(conf: DataConf, listing: Listing | None = None) -> Corpus:
    """Opens the corpus that a `data` config describes. For data=environment it is written first, if need be.

    Args:
        conf: the `data` section.
        listing: listing of the corpus when it was first opened. The Hub, which may have changed, is not asked again.

    Raises:
        UserError: a domain has no files, or a file is of a kind that cannot be read.
    """
    if isinstance(conf, EnvironmentDataConf):
        folder = Path(conf.store) / "text"
        if conf.max_characters is None:
            raise UserError(
                "data.max_characters is null, but what the installed packages bring along is taken up to a limit; "
                "give the most characters per domain, as in data.max_characters=4_000_000"
            )
        write_environment_corpus([*conf.domains, *conf.held_out_domains], conf.max_characters, folder)
        shared = {f.name: getattr(conf, f.name) for f in fields(DataConf)}
        conf = FilesDataConf(**shared, path=str(folder), group_field="group")
    assert isinstance(conf, FilesDataConf), type(conf)
    if conf.path is not None and not Path(conf.path).is_dir():
        raise UserError(
            f"data.path is '{conf.path}', which is not a folder; give the one that holds the domains' files"
        )
    listing = dict(listing or {})
    windows = conf.preparation == "windows"
    sources_of: dict[str, list[Source]] = {}
    spellings: dict[str, str] = {}  # the first spelling of each file's path
    local_lists: list[str] = []
    left_out: LeftOut = {}
    for domain, given in _given(conf).items():
        if given.file_list is not None and not is_remote(given.file_list):
            local_lists.append(_beneath(conf, given.file_list))
        keep = tuple(_conditions(given.keep, f"data.sources.{domain}.keep"))
        for path in _files_of(conf, domain, given, listing, left_out):
            text_field = given.text_field or conf.text_field
            source = Source(domain, text_field if kind_of(path) != "text" else "text", keep)
            before = sources_of.setdefault(spellings.setdefault(_place(path), path), [])
            _check_something_is_left(before, domain, path)
            before.append(source)
    if left_out:
        log.warning("files left out: %s", described(left_out))
    return Corpus(
        parts=_cut(sources_of),
        stamps={_name(conf, path): _stamp(path) for path in (*sources_of, *local_lists) if not is_remote(path)},
        listing=listing,
        group_field=conf.group_field,
        group_separator=conf.group_separator,
        min_characters=max(conf.min_characters, WINDOW_CHARACTERS if windows else 1),
        max_characters=_limits(conf),
        windows=windows,
        skips_bad=conf.on_bad_document == "skip",
        files_left_out={reason: len(paths) for reason, paths in left_out.items()},
    )


def _given(conf: FilesDataConf) -> dict[str, FilesConf]:
    """What the config says of each domain's files, checked before any file is looked for.

    Raises:
        UserError: the config says nothing of a domain, or not which documents are its own in files that several share.
    """
    names = [*conf.domains, *conf.held_out_domains]
    sources = _by_domain(conf.sources, names)
    given_of = {domain: _typed(sources, domain) for domain in names}
    if conf.path is not None:
        for domain in sources:  # a misspelt one would be ignored, and its files looked for by name
            if domain not in given_of:
                raise UserError(
                    f"data.sources names '{domain}', which is not among {', '.join(given_of)}{_spelling(given_of)}"
                )
    for domain, given in given_of.items():
        if given.files or given.file_list:
            continue
        if conf.path is None and not conf.files:
            example = dotted_override("data.sources", domain, "files", "[hf://datasets/<owner>/<name>/*.parquet]")
            raise UserError(
                f"data.sources.{domain}.files is not set; give it paths, globs or URLs, as in {example}, or set "
                f"data.path{_spelling([domain])}"
            )
        if conf.files and not given.keep:
            raise UserError(
                f"data.sources.{domain}.keep is not set, but data.files are shared by all domains; say which of their "
                f"documents are its own, as in {_keep_override(domain)}"
            )
    return given_of


def _by_domain(sources: Mapping[str, Any], domains: Sequence[str]) -> dict[str, Any]:
    """`data.sources` by domain. An override ++data.sources.cc.v2.files=[...] puts cc.v2's entry into a mapping cc."""
    found = copy.deepcopy(dict(sources))
    for domain in domains:
        *parents, last = domain.split(".")
        sections: list[Any] = [found]
        for name in parents:
            section = sections[-1].get(name)
            if not isinstance(section, dict):
                break
            sections.append(section)
        else:
            if parents and last in sections[-1]:
                found[domain] = sections[-1].pop(last)
                for name, section in zip(reversed(parents), reversed(sections[:-1]), strict=True):
                    if not section[name]:
                        del section[name]
    return found


def _keep_override(domain: str) -> str:
    """An example of an override that tells a domain's documents from others in the same files."""
    return dotted_override("data.sources", domain, "keep", f"{{meta.source: {domain}}}")


def _spelling(domains: Iterable[str]) -> str:
    """A hint for a name that YAML has probably read as something else."""
    for domain in domains:
        if domain in SPELLINGS:
            return f"; YAML reads {', '.join(SPELLINGS[domain][:4])} as {domain}: put such a name in quotes"
    return ""


def _typed(sources: Mapping[str, Any], domain: str) -> FilesConf:
    """The entry of `data.sources` for a domain, with its keys and types checked."""
    given = sources.get(domain) or {}
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(FilesConf), given))
    except (OmegaConfBaseException, ValueError) as error:
        known = ", ".join(f.name for f in fields(FilesConf))
        reason = first_line(error)
        raise UserError(f"data.sources.{domain} is {given}: {reason}; its keys are {known}") from None
    return typed


def _conditions(keep: dict[str, Any], key: str, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields fields and their allowed values; {meta: {language: en}} is the same as {meta.language: en}.

    YAML reads an unquoted no or 2024 as false or a number. The text that was written is then allowed, too.

    Raises:
        UserError: an entry is neither a value nor a list of values.
    """
    for field, allowed in keep.items():
        if isinstance(allowed, dict) and allowed:
            yield from _conditions(allowed, f"{key}.{field}", f"{prefix}{field}.")
            continue
        values = tuple(allowed) if isinstance(allowed, list) else (allowed,)
        if any(isinstance(value, dict | list) for value in values):
            raise UserError(f"{key}.{field} is {allowed}; give the value that documents must have, or a list of some")
        yield f"{prefix}{field}", tuple(reading for value in values for reading in _readings(value))


def _readings(allowed: Any) -> list[Any]:
    """An allowed value, and the texts that YAML reads as this value."""
    if isinstance(allowed, bool):
        return [allowed, *SPELLINGS[str(allowed)]]
    return [allowed, str(allowed)] if isinstance(allowed, int | float) else [allowed]


def _check_something_is_left(before: Sequence[Source], domain: str, path: str) -> None:
    """Checks that no domain that comes before another one takes all documents of a file."""
    for source in before:
        if not source.keep:
            raise UserError(
                f"domains '{source.domain}' and '{domain}' both take '{path}', but '{source.domain}' comes first and "
                f"has no keep, so it would get all of it; say which documents are its own, as in "
                f"{_keep_override(source.domain)}, or name other files"
            )


def _limits(conf: DataConf) -> dict[str, float]:
    """The most characters of each domain. A held-out domain gives as many as the others hold out."""
    if conf.max_characters is None:
        return {}
    trained_on = dict.fromkeys(conf.domains, float(conf.max_characters))
    return trained_on | dict.fromkeys(conf.held_out_domains, conf.max_characters * conf.validation_fraction)


def _files_of(conf: FilesDataConf, domain: str, given: FilesConf, listing: Listing, left_out: LeftOut) -> list[str]:
    """Paths and URLs of a domain's files: its own, or those of all domains, or those with its name in data.path."""
    key, named = f"data.sources.{domain}", list(given.files)
    if given.file_list is not None:
        named += _lines_of(_beneath(conf, given.file_list), f"{key}.file_list", listing)
    if not named:
        if not conf.files:
            return _by_name(conf, domain, left_out)
        key, named = "data.files", conf.files
    found = [path for pattern in named for path in _matches(conf, pattern, key, listing, left_out)]
    spellings: dict[str, str] = {}  # by the file that they lead to
    for path in found:
        if kind_of(path) is None:
            raise UserError(
                f"{key} names '{path}', whose kind its name does not tell; "
                "files are .jsonl, .json, .parquet or text, and may end in .gz or .zst"
            )
        place = _place(path)
        if place in spellings:
            as_well = f", also as '{spellings[place]}'" if spellings[place] != path else ""
            raise UserError(f"{key} names '{path}' twice{as_well}; name each file once")
        spellings[place] = path
    return found


def _place(path: str) -> str:
    """The file that a path leads to, however the path is spelt."""
    return path if is_remote(path) else os.path.realpath(path)


def _by_name(conf: FilesDataConf, domain: str, left_out: LeftOut) -> list[str]:
    """Finds <domain>.jsonl, <domain>.parquet and the like, or all files with text in the folder <domain>."""
    folder = Path(str(conf.path))
    files = [p for p in sorted(folder.glob(f"{glob.escape(domain)}.*")) if p.is_file() and _is_file_of(domain, p.name)]
    inside = text_files(folder / domain, left_out) if (folder / domain).is_dir() else []
    found = [str(path) for path in files] + ([str(folder / domain)] if files and inside else [])
    if len(found) > 1:
        raise UserError(
            f"'{found[0]}' and '{found[1]}' both hold domain '{domain}'; keep one of them, or name both in "
            f"data.sources.{domain}.files"
        )
    if not found and not inside:
        raise UserError(
            f"data.domains names '{domain}', but '{folder}' has no {domain}.jsonl, {domain}.jsonl.gz, .zst or .parquet "
            f"and no folder {domain}/ with such or text files; set data.path, name files with "
            f"{dotted_override('data.sources', domain, 'files', '[...]')}, or correct data.domains{_spelling([domain])}"
        )
    return found or inside


def _is_file_of(domain: str, name: str) -> bool:
    """Whether a file is called <domain>.<kind>, compressed or not; web.old.jsonl is not."""
    num_suffixes = name.removeprefix(domain).count(".")
    return num_suffixes == (1 if compression_of(name) is None else 2) and kind_of(name) is not None


def _beneath(conf: FilesDataConf, path: str) -> str:
    return path if is_remote(path) or conf.path is None else str(Path(conf.path) / path)


def _lines_of(path: str, key: str, listing: Listing) -> list[str]:
    """The lines of a file that names files. A local one is read every time, as it may have changed."""
    if path in listing and is_remote(path):
        return listing[path]
    if not is_remote(path) and not Path(path).is_file():
        raise UserError(f"{key} is '{path}', where there is no file; correct it or data.path")
    with open_binary(path) as file:
        lines = [line.strip() for line in decoded(file.read(), path).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{key} is '{path}', which names no files; write a path or an address on each line")
    if is_remote(path):
        listing[path] = lines
    return lines


def _matches(conf: FilesDataConf, pattern: str, key: str, listing: Listing, left_out: LeftOut) -> list[str]:
    """The files that a path, glob or URL stands for. Those of the Hub are named with their present commit."""
    if pattern.startswith(("http://", "https://")):
        return [pattern]
    if not is_remote(pattern):
        named = _beneath(conf, pattern)
        if Path(named).is_file():  # even if its letters have a meaning in globs
            return [named]
        folder = "" if conf.path is None else glob.escape(conf.path)
        found = sorted(p for p in glob.glob(str(Path(folder) / pattern), recursive=True) if not Path(p).is_dir())
        if not found:
            raise UserError(f"{key} names '{named}', where there is no file; correct it or data.path")
        return sorted_out(found, left_out)
    if pattern not in listing:
        from datasets.data_files import DataFilesList  # takes a second to import

        try:
            listing[pattern] = list(DataFilesList.from_patterns([pattern]))
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise UserError(f"{key} names '{pattern}', which cannot be had: {reason}") from None
    return listing[pattern]


def _name(conf: FilesDataConf, path: str) -> str:
    if is_remote(path) or conf.path is None or not Path(path).is_relative_to(conf.path):
        return path
    return Path(path).relative_to(conf.path).as_posix()


def _stamp(path: str) -> list[int]:
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns]


@dataclass
class _Gathered:
    """Spans that make up a part."""

    sources: tuple[Source, ...]
    spans: list[FileSpan]
    num_bytes: int | None

    def has_room_for(self, sources: tuple[Source, ...], num_bytes: int | None, num_remote: int) -> bool:
        """Whether a span fits in; `num_remote` remote files have its sources."""
        if self.sources != sources:
            return False
        if self.num_bytes is None or num_bytes is None:
            return self.num_bytes == num_bytes and len(self.spans) * MOST_PARTS < num_remote
        return self.num_bytes + num_bytes <= PART_BYTES

    def add(self, span: FileSpan, num_bytes: int | None) -> None:
        """Takes in a span that fits."""
        self.spans.append(span)
        self.num_bytes = None if self.num_bytes is None or num_bytes is None else self.num_bytes + num_bytes


def _cut(sources_of: dict[str, list[Source]]) -> list[Part]:
    """Makes parts of local files with the same sources, of about PART_BYTES, and parts of remote files, few enough."""
    num_remote = Counter(tuple(sources) for path, sources in sources_of.items() if is_remote(path))
    gathered: list[_Gathered] = []
    for path, listed in sources_of.items():
        sources = tuple(listed)
        for span, num_bytes in _spans(path):
            if gathered and gathered[-1].has_room_for(sources, num_bytes, num_remote[sources]):
                gathered[-1].add(span, num_bytes)
            else:
                gathered.append(_Gathered(sources, [span], num_bytes))
    return [Part(i, tuple(part.spans), part.sources, part.num_bytes) for i, part in enumerate(gathered)]


def _spans(path: str) -> Sequence[tuple[FileSpan, int | None]]:
    """The spans in which a file is read, with their sizes in bytes; None for an unknown size."""
    if is_remote(path):
        return [(FileSpan(path), None)]
    size = Path(path).stat().st_size
    if not size and kind_of(path) != "parquet" and compression_of(path) is None:  # an empty file of those is damaged
        return []
    if size <= PART_BYTES or not can_be_cut(path):
        return [(FileSpan(path), size)]
    count = math.ceil(size / PART_BYTES)
    bounds = [size * k // count for k in range(count + 1)]
    return [(FileSpan(path, a, b), b - a) for a, b in pairwise(bounds)]
