import gzip
import json
import re
from pathlib import Path

import pytest

from autoscale_exp.config import LocalDataConf
from autoscale_exp.data.corpus import Corpus, Document, open_corpus

TEXTS = ["One.\nTwo.", "Zürich, 東京", "three"]


def write_lines(path: Path, *lines: bytes | str | dict) -> None:
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    content = b"".join(line + b"\n" for line in encoded)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def texts(corpus: Corpus, domain: str = "web") -> list[str]:
    return [document.text for document in corpus.documents(domain)]


@pytest.mark.parametrize("name", ["web.jsonl", "web.jsonl.gz"])
def test_each_json_line_is_a_document(name, tmp_path: Path):
    write_lines(tmp_path / name, *({"text": text} for text in TEXTS))
    assert texts(Corpus(tmp_path)) == TEXTS


def test_each_text_file_of_a_folder_is_a_document(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        path = tmp_path / "web" / str(number) / "page.txt"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "web" / "photo.jpg").write_bytes(b"\xff\xd8")
    assert list(Corpus(tmp_path).documents("web")) == [
        Document(text, f"web/{number}/page.txt") for number, text in enumerate(TEXTS)
    ]


def test_blank_texts_are_no_documents(tmp_path: Path):
    write_lines(tmp_path / "web.jsonl", {"text": " \n"}, {"text": "a"}, {"text": ""})
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "blank.txt").write_text("\n")
    (tmp_path / "books" / "full.txt").write_text("b")
    assert texts(Corpus(tmp_path)) == ["a"]
    assert texts(Corpus(tmp_path), "books") == ["b"]


def test_without_a_group_field_every_document_is_its_own_group(tmp_path: Path):
    write_lines(tmp_path / "web.jsonl", *({"text": "same"} for _ in range(5)))
    assert len({document.group for document in Corpus(tmp_path).documents("web")}) == 5


@pytest.mark.parametrize(("separator", "groups"), [(None, ["a#1", "a#2", "b"]), ("#", ["a", "a", "b"])])
def test_a_group_is_the_part_of_its_field_before_the_separator(separator, groups, tmp_path: Path):
    write_lines(tmp_path / "web.jsonl", *({"body": "x", "source": source} for source in ("a#1", "a#2", "b")))
    corpus = Corpus(tmp_path, "body", "source", separator)
    assert [document.group for document in corpus.documents("web")] == groups


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"body": "x", "id": "y"},
            "expected a JSON object with the text field 'text', found body, id; see data.text_field",
        ),
        ({"text": 3}, "the text field 'text', found text"),
        ('["text"]', "expected a JSON object with the text field 'text', found list"),
        ('{"text": "x"', "Expecting ',' delimiter"),
        (b'{"text": "\xff\xfe"}', "codec can't decode"),
        ('{"text": "\\ud800"}', "surrogates not allowed"),
        ("", "Expecting value"),
    ],
)
@pytest.mark.parametrize("name", ["web.jsonl", "web.jsonl.gz"])
def test_a_bad_line_is_an_error_that_names_file_and_line(name, line, message, tmp_path: Path):
    write_lines(tmp_path / name, {"text": "fine"}, {"text": "fine"}, line, {"text": "fine"})
    with pytest.raises(ValueError, match=re.escape(f"{name}', line 3: ") + ".*" + re.escape(message)):
        texts(Corpus(tmp_path))


def test_a_missing_group_is_an_error_that_names_file_and_line(tmp_path: Path):
    write_lines(tmp_path / "web.jsonl", {"text": "x", "source": "a"}, {"text": "x"})
    with pytest.raises(ValueError, match=r"web.jsonl', line 2: .* field 'source'"):
        texts(Corpus(tmp_path, group_field="source"))


def test_a_text_file_that_is_not_utf8_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "latin1.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(ValueError, match=r"web/latin1.txt' is not UTF-8 text"):
        texts(Corpus(tmp_path))


def test_a_gz_file_that_is_none_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "web.jsonl.gz").write_text('{"text": "x"}\n')
    with pytest.raises(ValueError, match=r"web.jsonl.gz', line 0: Not a gzipped file"):
        texts(Corpus(tmp_path))


@pytest.mark.parametrize("position", range(1000, 20_000, 2000))
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_gz_file_is_an_error_that_names_it(damage, position, tmp_path: Path):
    path = tmp_path / "web.jsonl.gz"
    write_lines(path, *({"text": f"{number} {number**5}"} for number in range(2000)))
    content = path.read_bytes()
    assert len(content) > 20_000
    path.write_bytes(content[:position] + (bytes(40) + content[position + 40 :] if damage == "altered" else b""))
    with pytest.raises(ValueError, match=r"web.jsonl.gz', line \d+"):
        texts(Corpus(tmp_path))


def test_a_missing_domain_is_an_error_that_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "books").mkdir()
    for domain in ("web", "books"):
        with pytest.raises(ValueError, match=f"data.domains names '{domain}', but .* no {domain}.jsonl.* no folder"):
            Corpus(tmp_path).files(domain)


def test_a_corpus_that_is_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data.path is '.*nowhere', which is not a folder"):
        open_corpus(LocalDataConf(path=str(tmp_path / "nowhere")))
