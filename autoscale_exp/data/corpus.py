"""Text as documents: which files hold a domain, and how they are read."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_exp.config import DataConf, EnvironmentDataConf, LocalDataConf
from autoscale_exp.data.environment import write_environment_corpus

TEXT_SUFFIXES = {
    ".txt",
    ".md",
    ".rst",
    ".html",
    ".py",
    ".tex",
    ".c",
    ".cc",
    ".cpp",
    ".cu",
    ".h",
    ".hpp",
    ".java",
    ".js",
}


@dataclass(frozen=True)
class Document:
    """A text and the group that keeps it together with its kin on one side of the split."""

    text: str
    group: str


@dataclass(frozen=True)
class Corpus:
    """A folder with one <domain>.jsonl, <domain>.jsonl.gz or sub-folder of text files per domain.

    Attributes:
        folder: where the files lie.
        text_field: field of a JSON line that holds the text.
        group_field: field that holds the group; None makes every document a group of its own.
        group_separator: only the part of the group before it counts; None keeps it whole.
    """

    folder: Path
    text_field: str = "text"
    group_field: str | None = None
    group_separator: str | None = None

    def files(self, domain: str) -> list[Path]:
        """The files of a domain, sorted.

        Raises:
            ValueError: there is none; the message names what was looked for.
        """
        candidates = [self.folder / f"{domain}.jsonl", self.folder / f"{domain}.jsonl.gz"]
        found = [path for path in candidates if path.is_file()]
        if len(found) > 1:
            raise ValueError(f"'{found[0]}' and '{found[1]}' both hold domain '{domain}'; keep one of them")
        if not found and (self.folder / domain).is_dir():
            found = sorted(p for p in (self.folder / domain).rglob("*") if p.suffix in TEXT_SUFFIXES and p.is_file())
        if not found:
            raise ValueError(
                f"data.domains names '{domain}', but '{self.folder}' has no {domain}.jsonl, no {domain}.jsonl.gz "
                f"and no folder {domain}/ with text files; set data.path or correct data.domains"
            )
        return found

    def documents(self, domain: str) -> Iterator[Document]:
        """All documents of a domain that are not blank, in a fixed order.

        Raises:
            ValueError: a line is not a JSON object with the text field, or is not UTF-8; names file and line.
        """
        for path in self.files(domain):
            if path.suffix in (".jsonl", ".gz"):
                yield from self._json_lines(path)
            else:
                try:
                    text = path.read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(f"'{path}' is not UTF-8 text: {error}") from None
                if text.strip():
                    yield Document(text, str(path.relative_to(self.folder)))

    def _json_lines(self, path: Path) -> Iterator[Document]:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            try:
                for number, line in enumerate(file, start=1):
                    record = json.loads(line)
                    text = self._field(record, self.text_field)
                    if text.strip():
                        group = f"{path.name}:{number}"
                        if self.group_field is not None:
                            group = self._field(record, self.group_field)
                        yield Document(text, group.split(self.group_separator)[0] if self.group_separator else group)
            except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, TypeError) as error:
                raise ValueError(f"'{path}', line {number}: {error}") from None

    @staticmethod
    def _field(record: Any, name: str) -> str:
        if not isinstance(record, dict) or not isinstance(record.get(name), str):
            has = ", ".join(sorted(record)) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f"expected a JSON object with the text field '{name}', found {has}; see data.text_field")
        record[name].encode()  # JSON may hold an escaped half of a surrogate pair, which is no text
        return record[name]


def open_corpus(conf: DataConf) -> Corpus:
    """The corpus that a `data` config describes; for data=environment it is written first, if need be."""
    if isinstance(conf, EnvironmentDataConf):
        folder = Path(conf.store) / "text"
        write_environment_corpus(conf.domains, conf.max_characters, folder)
        return Corpus(folder, group_field="group")
    assert isinstance(conf, LocalDataConf), type(conf)
    folder = Path(conf.path)
    if not folder.is_dir():
        raise ValueError(f"data.path is '{folder}', which is not a folder; give the one that holds the domains' files")
    return Corpus(folder, conf.text_field, conf.group_field, conf.group_separator)
