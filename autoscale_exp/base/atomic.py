"""Files that exist only whole. They are written beside their place, flushed to disk, then renamed into it."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoscale_exp.base.errors import UserError, refusal

FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk or quota


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; renames it to `path` if the block succeeds.

    So a reader sees the old file, the new file or none, never a part of one, whatever kills the writer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # unique on all machines
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Flushes a written file to disk, then renames it to `path`."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as a whole file.

    Raises:
        UserError: `path` is a folder or cannot be written, or the disk is full.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; give the path of a file")
    with refusals_named(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that do not exist.

    Raises:
        UserError: the folder cannot be made.
    """
    with refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turns an OSError into a UserError that names the path, what the file system said, and what can be done."""
    try:
        yield
    except OSError as error:
        remedy = (
            "free some space and run the same command again"
            if error.errno in FULL
            else "give a path that can be written"
        )
        raise UserError(f"'{path}' cannot be written: {refusal(error)}; {remedy}") from None


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns the OSError of a full disk, and no other, into a UserError as `refusals_named` does."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        with refusals_named(path):
            raise


def write_json(path: Path, content: Any) -> None:
    """Writes strict JSON (no NaN or infinity) as a whole file, keys in the order given; raises as `write_text`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
