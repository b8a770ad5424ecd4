import errno
import os
from pathlib import Path

import pytest

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError


def test_a_file_is_written_with_the_folders_above_it(tmp_path: Path):
    atomic.write_text(tmp_path / "new" / "x.txt", "é\n")
    assert (tmp_path / "new" / "x.txt").read_bytes() == "é\n".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/x.txt", "file/x.txt' cannot be written: '.*/file' is no folder; give a path that can be written"),
        ("file/deep/x.txt", "file/deep/x.txt' cannot be written: Not a directory; give a path that can be written"),
        (".", "' is a folder; give the path of a file"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_an_error_that_names_it(path, message, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        atomic.write_text(tmp_path / path, "x")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free some space and run the same command again"),
        (errno.EACCES, "Permission denied; give a path that can be written"),
    ],
)
def test_a_disk_that_refuses_leaves_the_old_file_and_no_part_of_a_new_one(code, remedy, monkeypatch, tmp_path: Path):
    path = tmp_path / "result.json"
    atomic.write_json(path, {"loss": 1})
    before = path.read_text()

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=f"result.json' cannot be written: {remedy}"):
        atomic.write_json(path, {"loss": 2})
    assert path.read_text() == before
    assert [left.name for left in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path):
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file' cannot be written: '.*/file' is no folder; give a path that can be"):
        atomic.make_folder(tmp_path / "file")
