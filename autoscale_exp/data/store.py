"""The token store: fixed-length rows of token ids per domain, with counts, hashes and provenance.

<store>/manifest.json                written last; a store without it is unfinished
        tokenizer/                   as transformers saves it
        train/<domain>/<part>.bin    rows x seq_len little-endian uint16 or uint32, a file per part of the corpus
        validation/<domain>.bin      the same
        verified.json                size and time of the files whose hashes have been checked
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.data.manifest import Manifest, read_manifest
from autoscale_exp.data.rows import Rows, Stamp, stamp_of


@dataclass(frozen=True)
class TokenStore:
    """An open token store.

    Attributes:
        folder: folder of the store.
        manifest: its content.
        stamps: size and time of its files when they were checked.
    """

    folder: Path
    manifest: Manifest
    stamps: dict[Path, Stamp] = field(default_factory=dict, compare=False)

    @property
    def domains(self) -> list[str]:
        """Names of the training domains, in the order of every list of weights."""
        return [domain for domain, entry in self.manifest.domains.items() if entry.train]

    @property
    def validation_domains(self) -> list[str]:
        """Names of the validation domains: the training domains, then those that are only held out."""
        return list(self.manifest.domains)

    @property
    def seq_len(self) -> int:
        """Tokens per row."""
        return self.manifest.seq_len

    @property
    def vocab_size(self) -> int:
        """One more than the largest id of the tokenizer."""
        return self.manifest.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        """A hash of tokenizer and rows; it does not depend on where the store lies."""
        return self.manifest.fingerprint

    @property
    def num_bytes(self) -> int:
        """Size of its rows on disk, in bytes."""
        return sum(size or 0 for _, _, size in self.manifest.files())

    def num_rows(self, split: str, domain: str) -> int:
        """Number of rows that a domain has in a split."""
        return self.manifest.domains[domain].split(split).rows

    def rows(self, split: str, domain: str) -> Rows:
        """The rows of a domain in a split, read on demand."""
        files = [(self.folder / name, file.rows) for name, file in self.manifest.files_of(domain, split)]
        return Rows(files, self.seq_len, self.manifest.dtype, self.stamps)


def open_store(folder: Path | str, key: str = "data.store") -> TokenStore:
    """Opens a store, and checks that every file is as it was written.

    A file whose size and time have not changed since its hash was last checked is not read again, so that opening
    takes no longer for a large store than for a small one.

    Args:
        folder: folder of the store.
        key: key of the config that names it, for messages.

    Raises:
        UserError: there is no finished store, or a file of it is missing, truncated or altered; the message
            names the file and says what to do.
    """
    folder = Path(folder)
    remedy = f"delete '{folder}' and run `python -m autoscale_exp.prepare` again"
    manifest = read_manifest(folder, key)
    verified = _read_verified(folder)
    stamps = {}
    for name, sha256, size in manifest.files():
        path = folder / name
        if not path.is_file():
            raise UserError(f"'{path}' is missing from the token store; {remedy}")
        stamps[name] = now = stamp_of(path)
        if (size is not None and now[0] != size) or (verified.get(name) != list(now) and file_sha256(path) != sha256):
            raise UserError(f"'{path}' is not what was written: it is truncated or altered; {remedy}")
    if verified != {name: list(of_file) for name, of_file in stamps.items()}:
        with suppress(UserError):  # a store that is read-only is checked again next time
            atomic.write_json(folder / "verified.json", stamps)
    return TokenStore(folder, manifest, {folder / name: of_file for name, of_file in stamps.items()})


def _read_verified(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "verified.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
