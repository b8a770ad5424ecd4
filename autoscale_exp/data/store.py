"""The token store: fixed-length rows of token ids per domain, with counts, hashes and provenance.

<store>/manifest.json                written last: a store without it is unfinished
        tokenizer/                   as transformers saves it
        train/<domain>/<part>.bin    rows x seq_len little-endian uint16 or uint32, a file per part of the corpus
        validation/<domain>.bin      the same
        verified.json                size and time of the files whose hashes have been checked
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from io import FileIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import file_sha256, fingerprint

FORMAT = 2
MAPPED_FILES = 16  # most of a domain that stay mapped: a store may have more files than a process may have open
Stamp = tuple[int, int]  # size in bytes, time of modification in ns


class Rows:
    """The rows of one domain and split: `rows[numbers]` or `rows[start:stop]` reads (n, seq_len) token ids.

    Args:
        files: paths and the rows of each.
        seq_len: tokens per row.
        dtype: of a token id.
        stamps: what the files must still be like when they are read; none: like at the first read.
    """

    def __init__(
        self, files: list[tuple[Path, int]], seq_len: int, dtype: npt.DTypeLike, stamps: dict[Path, Stamp]
    ) -> None:
        self._files = files
        self._ends = np.cumsum([rows for _, rows in files], dtype=np.int64)
        self._seq_len = seq_len
        self.dtype = np.dtype(dtype)
        self._stamps = dict(stamps)
        self._mapped = cache(self._map)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._files else 0

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Reads rows.

        Raises:
            IndexError: there is no such row.
            UserError: a file has changed since the store was opened.
        """
        numbers = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} are outside the {len(self)} rows there are")
        rows = np.empty((len(numbers), self._seq_len), self.dtype)
        self.read_into(numbers, rows)
        return rows

    def read_into(self, numbers: npt.NDArray[np.int64], rows: npt.NDArray[Any]) -> None:
        """Reads the rows of these numbers, which are not checked, into a (n, seq_len) array of the store's type.

        Raises:
            UserError: a file has changed since the store was opened.
        """
        if len(self._files) == 1:
            self._file(0).take(numbers, axis=0, out=rows, mode="clip")  # the mode that needs no copy
            return
        if len(self._files) > MAPPED_FILES:
            self._read_unmapped(numbers, rows)
            return
        place = np.searchsorted(self._ends, numbers, side="right")
        for file in np.unique(place).tolist():
            mine = np.flatnonzero(place == file)
            rows[mine] = self._file(file)[numbers[mine] - (self._ends[file] - self._files[file][1])]

    def _read_unmapped(self, numbers: npt.NDArray[np.int64], rows: npt.NDArray[Any]) -> None:
        """Opens each file once, and reads rows that follow one another in one call."""
        order = np.argsort(numbers)
        ascending = numbers[order]
        place = np.searchsorted(self._ends, ascending, side="right")
        starts = np.flatnonzero((np.diff(ascending, prepend=-2) != 1) | (np.diff(place, prepend=-1) != 0))
        read = np.empty((len(numbers), self._seq_len), self.dtype)
        stretches = zip(place[starts].tolist(), ascending[starts].tolist(), np.split(read, starts[1:]), strict=False)
        for file, stretches_of_file in groupby(stretches, key=itemgetter(0)):
            first = int(self._ends[file]) - self._files[file][1]
            with self._opened(file) as raw:
                for _, number, stretch in stretches_of_file:
                    raw.seek((number - first) * stretch[0].nbytes)
                    self._fill(stretch, file, raw)
        rows[order] = read

    def _fill(self, stretch: npt.NDArray[Any], file: int, raw: FileIO) -> None:
        """Reads as many bytes as an array has."""
        content = stretch.data.cast("B")
        while content:  # a call reads 2 GB at most
            num_bytes = raw.readinto(content)
            if not num_bytes:  # cut off since it was opened
                raise self._changed(file)
            content = content[num_bytes:]

    def _file(self, index: int) -> npt.NDArray[Any]:
        """All rows of a file, if it is what it was; to read behind the end of a shortened one kills the process."""
        self._check(index, stamp_of(self._files[index][0]))
        return self._mapped(index)

    @contextmanager
    def _opened(self, index: int) -> Iterator[FileIO]:
        """A file, unbuffered, if it is what it was."""
        try:
            raw = self._files[index][0].open("rb", buffering=0)
        except FileNotFoundError:
            raise self._changed(index) from None
        with raw:
            self._check(index, stamp_of(raw.fileno()))
            yield raw

    def _check(self, index: int, stamp: Stamp) -> None:
        if self._stamps.setdefault(self._files[index][0], stamp) != stamp:
            raise self._changed(index)

    def _changed(self, index: int) -> UserError:
        return UserError(
            f"'{self._files[index][0]}' has changed since the token store was opened; let a store be while runs read "
            "it, and start the run again: it goes on from its last checkpoint"
        )

    def _map(self, index: int) -> npt.NDArray[Any]:
        path, num_rows = self._files[index]
        return np.asarray(np.memmap(path, self.dtype, "r", shape=(num_rows, self._seq_len)))


@dataclass(frozen=True)
class TokenStore:
    """An open token store.

    Attributes:
        folder: where it lies.
        manifest: the content of manifest.json.
        stamps: size and time of its files when they were checked.
    """

    folder: Path
    manifest: dict[str, Any]
    stamps: dict[Path, Stamp] = field(default_factory=dict, compare=False)

    @property
    def domains(self) -> list[str]:
        """Names of the training domains, in the order of every list of weights."""
        return [domain for domain, entry in self.manifest["domains"].items() if "train" in entry]

    @property
    def validation_domains(self) -> list[str]:
        """Names of the validation domains: the training domains, then those that are only held out."""
        return list(self.manifest["domains"])

    @property
    def seq_len(self) -> int:
        """Tokens per row."""
        return self.manifest["config"]["seq_len"]

    @property
    def vocab_size(self) -> int:
        """One more than the largest id of the tokenizer."""
        return self.manifest["tokenizer"]["vocab_size"]

    @property
    def fingerprint(self) -> str:
        """Identifies tokenizer and rows, wherever the store lies."""
        return self.manifest["fingerprint"]

    def num_rows(self, split: str, domain: str) -> int:
        """Rows that a domain has in a split."""
        return self.manifest["domains"][domain][split]["rows"]

    def rows(self, split: str, domain: str) -> Rows:
        """The rows of a domain in a split, read when they are asked for."""
        files = [(self.folder / name, entry["rows"]) for name, entry in self._files(split, domain)]
        return Rows(files, self.seq_len, self.manifest["dtype"], self.stamps)

    def files(self) -> Iterator[tuple[str, str, int | None]]:
        """Name within the folder, hash and bytes (None: any) of every file that the manifest vouches for."""
        yield "tokenizer/tokenizer.json", self.manifest["tokenizer"]["sha256"], None
        row_bytes = self.seq_len * np.dtype(self.manifest["dtype"]).itemsize
        for domain, entry in self.manifest["domains"].items():
            for split in ("train", "validation"):
                for name, file in self._files(split, domain) if split in entry else ():
                    yield name, file["sha256"], file["rows"] * row_bytes

    def _files(self, split: str, domain: str) -> list[tuple[str, dict[str, Any]]]:
        entry = self.manifest["domains"][domain][split]
        if split == "validation":
            return [(f"validation/{domain}.bin", entry)]
        return [(f"train/{domain}/{part}.bin", file) for part, file in entry["files"].items()]


def seal_store(manifest: dict[str, Any]) -> dict[str, Any]:
    """Adds format, fingerprint and checksum to a manifest; the caller writes it as the last file of the store."""
    identity = {
        "seq_len": manifest["config"]["seq_len"],
        "tokenizer": manifest["tokenizer"]["sha256"],
        "rows": {
            domain: {
                "train": [file["sha256"] for file in entry["train"]["files"].values()] if "train" in entry else None,
                "validation": entry["validation"]["sha256"],
            }
            for domain, entry in manifest["domains"].items()
        },
    }
    return {"format": FORMAT, "fingerprint": fingerprint(identity), "checksum": fingerprint(manifest), **manifest}


def open_store(folder: Path | str) -> TokenStore:
    """Opens a store and checks that every file is what was written.

    A file whose size and time have not changed since its hash was last checked is not read again, so that opening
    takes no longer for a large store than for a small one.

    Raises:
        UserError: there is no finished store, or a file of it is missing, truncated or altered; the message
            names the file and says what to do.
    """
    folder = Path(folder)
    remedy = f"delete '{folder}' and run `python -m autoscale_exp.prepare` again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"data.store is '{folder}', which has no finished token store; "
            "run `python -m autoscale_exp.prepare` with the same data options first"
        ) from None
    except ValueError:
        raise UserError(f"'{folder}/manifest.json' is damaged; {remedy}") from None
    if manifest.get("format") != FORMAT:
        raise UserError(f"'{folder}' has format {manifest.get('format')}, this version reads {FORMAT}; {remedy}")
    body = {key: value for key, value in manifest.items() if key not in ("format", "fingerprint", "checksum")}
    if fingerprint(body) != manifest.get("checksum") or seal_store(body) != manifest:
        raise UserError(f"'{folder}/manifest.json' has been altered; {remedy}")
    store = TokenStore(folder, manifest)
    verified = _read_verified(folder)
    stamps = {}
    for name, sha256, size in store.files():
        path = folder / name
        if not path.is_file():
            raise UserError(f"'{path}' is missing from the token store; {remedy}")
        stamps[name] = now = stamp_of(path)
        if (size is not None and now[0] != size) or (verified.get(name) != list(now) and file_sha256(path) != sha256):
            raise UserError(f"'{path}' is not what was written: it is truncated or altered; {remedy}")
    if verified != {name: list(of_file) for name, of_file in stamps.items()}:
        with suppress(OSError):  # a store that is read-only is checked again next time
            atomic.write_json(folder / "verified.json", stamps)
    return TokenStore(folder, manifest, {folder / name: of_file for name, of_file in stamps.items()})


def _read_verified(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "verified.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def stamp_of(file: Path | int) -> Stamp:
    """Size and time of a file, by its path or descriptor; (-1, -1) if it is not there."""
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
