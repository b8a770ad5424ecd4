import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.versioned import differing_keys, read_versioned, write_versioned


def test_a_file_is_read_without_its_number(tmp_path):
    write_versioned(tmp_path / "x.json", {"a": 1}, 7)
    assert read_versioned(tmp_path / "x.json", 7, "make it again") == {"a": 1}


def test_an_older_file_is_brought_to_the_present_format_step_by_step(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    upgrades = {1: lambda c: {"b": c["a"] + 1}, 2: lambda c: {"c": c["b"] * 10}}
    assert read_versioned(tmp_path / "x.json", 3, "make it again", upgrades) == {"c": 20}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x.json' is damaged .*; make it again"),
        ("[1]", "x.json' is damaged: it holds no JSON object; make it again"),
        ("{}", "x.json' has format 1, but this version reads format 3; make it again"),
        ('{"format": 4}', "x.json' has format 4, but this version reads format 3"),
        (None, "x.json' cannot be read: No such file or directory; make it again"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, text, message):
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_versioned(tmp_path / "x.json", 3, "make it again")


def test_keys_that_differ_are_named_with_both_values():
    assert differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": None}) == ["a.c: 2, not 3"]
