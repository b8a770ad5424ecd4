from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.evaluation.examples import DataSource

from .conftest import write_jsonl


def test_a_file_without_a_line_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match=r"train.jsonl' is empty; give it at least one example"):
        DataSource("a/b", None, tmp_path).load("train", ["text"], [])


@pytest.mark.parametrize(
    ("name", "content"), [("train.parquet", b"PAR1"), ("train.jsonl", b"\n"), ("train.jsonl", b"{")]
)
def test_a_file_that_is_damaged_is_an_error_that_names_it(name, content, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}' cannot be read: "):
        DataSource("a/b", None, tmp_path).load("train", ["text"], [])


@pytest.mark.parametrize(("texts", "told"), [(["a", None], "example 2: text is None"), ([3], "example 1: text is 3")])
def test_an_example_without_a_text_is_an_error_that_names_it(texts, told, tmp_path: Path):
    write_jsonl(tmp_path / "train.jsonl", [{"text": text} for text in texts])
    with pytest.raises(UserError, match=f"train.jsonl', {told}; give each example a text"):
        DataSource("a/b", None, tmp_path).load("train", ["text"], [])
