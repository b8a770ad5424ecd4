"""manifest.json, the contents of a token store: counts, hashes, provenance. A store without it is unfinished.

The file has its format number, a fingerprint of tokenizer and rows, and a checksum of the rest, by which an edited
manifest is noticed. It is written last.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.base.versioned import parse, read_versioned, write_versioned
from autoscale_exp.data.conf import DataConf, TokenizerConf

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class TokenizerEntry:
    """The store's tokenizer: its name in the config, one more than its largest id, and the hash of its file."""

    name: str
    vocab_size: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    """One file of training rows."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class SplitEntry:
    """The rows of one domain and split.

    Attributes:
        rows: number of rows, of seq_len tokens each.
        tokens: tokens in the rows.
        documents: documents that the rows are made of.
        characters: characters of those documents.
        dropped_tokens: tokens that filled no row, or were not drawn for validation.
    """

    rows: int
    tokens: int
    documents: int
    characters: int
    dropped_tokens: int


@dataclass(frozen=True)
class TrainEntry(SplitEntry):
    """Training rows: one file per part of the corpus, by the part's number."""

    files: dict[str, FileEntry]


@dataclass(frozen=True)
class ValidationEntry(SplitEntry):
    """Validation rows: one file."""

    sha256: str


@dataclass(frozen=True)
class DomainEntry:
    """One domain. `train` is None for a domain that is only held out.

    Attributes:
        too_short: documents left out because of data.min_characters.
        duplicates_of_validation: training documents left out because their text is held out.
        no_text: documents left out because their text is missing, null or no text; with data.on_bad_document=skip.
        half_surrogates: with half a surrogate pair in their text or group, which is no text; likewise.
        no_group: without the group field, or with neither text nor an integer in it; likewise.
    """

    validation: ValidationEntry
    too_short: int
    duplicates_of_validation: int
    train: TrainEntry | None = None
    no_text: int = 0
    half_surrogates: int = 0
    no_group: int = 0

    def split(self, name: str) -> TrainEntry | ValidationEntry:
        """The entry of the split 'train' or 'validation'."""
        entry = self.train if name == "train" else self.validation
        assert entry is not None, "a domain that is only held out has no training rows"
        return entry


@dataclass(frozen=True)
class Manifest:
    """All that is known of a store.

    Attributes:
        config: the `data` section that it was made from, without folders, with size and time of its source files.
        dtype: type of a token id, little-endian.
        tokenizer: the tokenizer.
        domains: the training domains, then those that are only held out.
        documents_of_no_domain: documents that no domain's `keep` takes.
        seconds: time of the call that finished the store.
        documents_without_keep_field: documents without a field that `keep` names; with data.on_bad_document=skip.
        files_left_out: number of files that are no text or copies of others, by reason.
    """

    config: dict[str, Any]
    dtype: str
    tokenizer: TokenizerEntry
    domains: dict[str, DomainEntry]
    documents_of_no_domain: int
    seconds: float
    documents_without_keep_field: int = 0
    files_left_out: dict[str, int] = field(default_factory=dict)

    @property
    def seq_len(self) -> int:
        """Tokens per row."""
        return self.config["seq_len"]

    @property
    def fingerprint(self) -> str:
        """A hash of tokenizer and rows. It does not depend on where the store lies or when it was made."""
        rows = {
            domain: {
                "train": None if entry.train is None else [file.sha256 for file in entry.train.files.values()],
                "validation": entry.validation.sha256,
            }
            for domain, entry in self.domains.items()
        }
        return fingerprint({"seq_len": self.seq_len, "tokenizer": self.tokenizer.sha256, "rows": rows})

    def data_conf(self, folder: Path) -> DataConf:
        """The `data` section of the store, for a run that is given only its folder."""
        keys = DataConf.__dataclass_fields__
        section = {key: value for key, value in self.config.items() if key in keys and key != "tokenizer"}
        return DataConf(**section, store=str(folder), tokenizer=TokenizerConf(**self.config["tokenizer"]))

    def files_of(self, domain: str, split: str) -> list[tuple[str, FileEntry]]:
        """Names within the store, and rows and hash, of the files of a domain and split."""
        entry = self.domains[domain].split(split)
        if isinstance(entry, ValidationEntry):
            return [(f"validation/{domain}.bin", FileEntry(entry.rows, entry.sha256))]
        return [(f"train/{domain}/{part}.bin", file) for part, file in entry.files.items()]

    def files(self) -> Iterator[tuple[str, str, int | None]]:
        """Yields name within the folder, hash and size in bytes (None: any) of every file of the store."""
        yield "tokenizer/tokenizer.json", self.tokenizer.sha256, None
        row_bytes = self.seq_len * np.dtype(self.dtype).itemsize
        for domain, entry in self.domains.items():
            for split in ("train", "validation") if entry.train else ("validation",):
                for name, file in self.files_of(domain, split):
                    yield name, file.sha256, file.rows * row_bytes


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of a store whose files are all there."""
    body = asdict(manifest)
    seals = {"fingerprint": manifest.fingerprint, "checksum": fingerprint(body)}
    write_versioned(folder / MANIFEST, seals | body, FORMAT)


def read_manifest(folder: Path, key: str = "data.store") -> Manifest:
    """Reads the manifest in a folder that the config names by `key`.

    Raises:
        UserError: there is none, or it is damaged, was altered, or has another format.
    """
    path = folder / MANIFEST
    remedy = f"delete '{folder}' and run `python -m autoscale_exp.prepare` again"
    if not path.is_file():
        raise UserError(
            f"{key} is '{folder}', which has no finished token store; run `python -m autoscale_exp.prepare` "
            + ("with the same data options first" if key == "data.store" else "first, or give its folder")
        )
    body = read_versioned(path, FORMAT, remedy)
    seals = {key: body.pop(key, None) for key in ("fingerprint", "checksum")}
    if seals["checksum"] != fingerprint(body):
        raise UserError(f"'{path}' has been altered; {remedy}")
    manifest = parse(path, body, Manifest, remedy)
    if seals["fingerprint"] != manifest.fingerprint:
        raise UserError(f"'{path}' has been altered; {remedy}")
    return manifest
