"""The token store: fixed-length rows of token ids per domain, memory-mapped, with counts, hashes and provenance.

<store>/manifest.json            written last: a store without it is unfinished
        tokenizer/               as transformers saves it
        train/<domain>.bin       rows x seq_len little-endian uint16 or uint32
        validation/<domain>.bin
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1
SPLITS = ("train", "validation")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """16 hexadecimal digits that identify JSON-like content, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TokenStore:
    """An open token store.

    Attributes:
        folder: where it lies.
        manifest: the content of manifest.json.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in the order of the config that the store was prepared with."""
        return list(self.manifest["domains"])

    @property
    def seq_len(self) -> int:
        """Tokens per row."""
        return self.manifest["config"]["seq_len"]

    @property
    def vocab_size(self) -> int:
        """Entries of the tokenizer."""
        return self.manifest["tokenizer"]["vocab_size"]

    @property
    def fingerprint(self) -> str:
        """Identifies the rows and the tokenizer, wherever the store lies."""
        return self.manifest["fingerprint"]

    def num_rows(self, split: str, domain: str) -> int:
        """Rows that a domain has in a split."""
        return self.manifest["domains"][domain][split]["rows"]

    def rows(self, split: str, domain: str) -> npt.NDArray[Any]:
        """(rows, seq_len) token ids, read-only and memory-mapped."""
        shape = (self.num_rows(split, domain), self.seq_len)
        return np.memmap(self.folder / split / f"{domain}.bin", np.dtype(self.manifest["dtype"]), "r", shape=shape)


def seal_store(manifest: dict[str, Any]) -> dict[str, Any]:
    """Adds format, fingerprint and checksum to a manifest; the caller writes it as the last file of the store."""
    hashes = {d: {split: entry[split]["sha256"] for split in SPLITS} for d, entry in manifest["domains"].items()}
    identity = {
        "seq_len": manifest["config"]["seq_len"],
        "tokenizer": manifest["tokenizer"]["sha256"],
        "rows": hashes,
    }
    return {"format": FORMAT, "fingerprint": fingerprint(identity), "checksum": fingerprint(manifest), **manifest}


def open_store(folder: Path | str) -> TokenStore:
    """Opens a store and checks every file against its hash.

    Raises:
        ValueError: there is no finished store, or a file of it is missing, truncated or altered; the message
            names the file and says what to do.
    """
    folder = Path(folder)
    remedy = f"delete '{folder}' and run `python -m autoscale_exp.prepare` again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"data.store is '{folder}', which has no finished token store; "
            "run `python -m autoscale_exp.prepare` with the same data options first"
        ) from None
    except json.JSONDecodeError:
        raise ValueError(f"'{folder}/manifest.json' is damaged; {remedy}") from None
    if manifest.get("format") != FORMAT:
        raise ValueError(f"'{folder}' has format {manifest.get('format')}, this version reads {FORMAT}; {remedy}")
    body = {key: value for key, value in manifest.items() if key not in ("format", "fingerprint", "checksum")}
    if fingerprint(body) != manifest.get("checksum") or seal_store(body) != manifest:
        raise ValueError(f"'{folder}/manifest.json' has been altered; {remedy}")
    expected = {folder / "tokenizer" / "tokenizer.json": manifest["tokenizer"]["sha256"]}
    for domain, entry in manifest["domains"].items():
        expected |= {folder / split / f"{domain}.bin": entry[split]["sha256"] for split in SPLITS}
    for path, sha256 in expected.items():
        if not path.is_file():
            raise ValueError(f"'{path}' is missing from the token store; {remedy}")
        if file_sha256(path) != sha256:
            raise ValueError(f"'{path}' is not what was written: it is truncated or altered; {remedy}")
    return TokenStore(folder, manifest)


def differing_keys(stored: Any, asked: Any, prefix: str = "") -> list[str]:
    """Keys at which two nested mappings differ, each as 'key: stored value, not asked value'."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        differences = []
        for key in dict.fromkeys([*stored, *asked]):
            name = f"{prefix}.{key}" if prefix else key
            differences += differing_keys(stored.get(key), asked.get(key), name)
        return differences
    return [] if stored == asked else [f"{prefix}: {stored}, not {asked}"]
