import pytest

from autoscale_exp.base.errors import first_line, refusal


def test_only_the_first_line_of_a_message_is_told():
    assert first_line(ValueError("\nno such file\nat line 3")) == "no such file"


def test_an_error_without_a_message_is_told_by_its_type():
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError(" \n")) == "ValueError"


def test_a_file_where_a_folder_should_be_made_is_told_as_such(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as error:
        (tmp_path / "file").mkdir()
    assert refusal(error.value) == f"'{tmp_path}/file' is no folder"


def test_what_the_file_system_said_is_told_without_its_number():
    assert refusal(PermissionError(13, "Permission denied", "x")) == "Permission denied"
    assert refusal(OSError("the disk is gone")) == "the disk is gone"
