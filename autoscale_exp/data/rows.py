"""The rows of one domain and split, read from its files on demand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import FileIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_exp.base.arrays import Int64Array
from autoscale_exp.base.errors import UserError

MAPPED_FILES = 16  # files of a domain that stay mapped at most, since a process may not open all files of a store
Stamp = tuple[int, int]  # size in bytes, time of modification in ns


class Rows:
    """The rows of one domain and split: `rows[numbers]` or `rows[start:stop]` reads (n, seq_len) token ids.

    Args:
        files: paths, and the number of rows of each.
        seq_len: tokens per row.
        dtype: type of a token id.
        stamps: size and time that the files must have when they are read; None for those at the first read.
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

    def __getitem__(self, index: slice | Int64Array) -> npt.NDArray[Any]:
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

    def read_into(self, numbers: Int64Array, rows: npt.NDArray[Any]) -> None:
        """Reads rows by their numbers, which are not checked, into a (n, seq_len) array of the store's type.

        Raises:
            UserError: a file has changed since the store was opened.
        """
        if len(self._files) == 1:
            self._file(0).take(numbers, axis=0, out=rows, mode="clip")  # this mode needs no copy
            return
        if len(self._files) > MAPPED_FILES:
            self._read_unmapped(numbers, rows)
            return
        place = np.searchsorted(self._ends, numbers, side="right")
        for file in np.unique(place).tolist():
            mine = np.flatnonzero(place == file)
            rows[mine] = self._file(file)[numbers[mine] - (self._ends[file] - self._files[file][1])]

    def _read_unmapped(self, numbers: Int64Array, rows: npt.NDArray[Any]) -> None:
        """Opens each file once, and reads consecutive rows in one call."""
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
        """Fills an array with the next bytes of a file."""
        content = stretch.data.cast("B")
        while content:  # a call reads at most 2 GB
            num_bytes = raw.readinto(content)
            if not num_bytes:  # the file was cut off since it was opened
                raise self._changed(file)
            content = content[num_bytes:]

    def _file(self, index: int) -> npt.NDArray[Any]:
        """All rows of a file, if it is unchanged; reading past the end of a shortened file would kill the process."""
        self._check(index, stamp_of(self._files[index][0]))
        return self._mapped(index)

    @contextmanager
    def _opened(self, index: int) -> Iterator[FileIO]:
        """Opens a file, unbuffered, if it is unchanged."""
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


def stamp_of(file: Path | int) -> Stamp:
    """Size and time of a file, by its path or descriptor; (-1, -1) if it is not there."""
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
