import json
import re
from collections import Counter
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import FilesConf
from autoscale_exp.data.preparation import corpus as corpus_module
from autoscale_exp.data.preparation import files as files_module
from autoscale_exp.data.preparation.corpus import Document, Dropped
from tests.data.preparation.corpora import corpus_of, documents_of, texts, write_entries, write_texts

TEXTS = ["One.\nTwo.", "Zürich, 東京", "three"]


def test_domains_of_the_same_files_are_told_apart_by_a_field_and_each_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kinds = ["web", "books", "none", "news", "web"]
    write_entries(tmp_path / "all.jsonl", ({"text": f"{n}", "meta": {"set": kind}} for n, kind in enumerate(kinds)))
    sources = {"books": FilesConf(keep={"meta.set": ["books", "news"]}), "web": FilesConf(keep={"meta.set": "web"})}
    read, opened = corpus_module.read_entries, Counter()
    monkeypatch.setattr(corpus_module, "read_entries", lambda *a: opened.update([a[0]]) or read(*a))
    corpus = corpus_of(tmp_path, ("web", "books"), files=["all.jsonl"], sources=sources)
    dropped: Dropped = Counter()
    found = [(d.domain, d.text) for part in corpus.parts for d in corpus.documents(part, dropped)]
    assert found == [("web", "0"), ("books", "1"), ("books", "3"), ("web", "4")]
    assert dropped == {("", "no_domain"): 1}
    assert set(opened.values()) == {1}


@pytest.mark.parametrize("meta", [{"language": "en"}, '{"language": "en"}', "{'language': 'en', 'date': None}"])
def test_fields_may_be_nested_or_printed_as_text(meta, tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", [{"text": "a", "meta": meta}])
    for language, expected in (("en", ["a"]), ("de", [])):
        corpus = corpus_of(tmp_path, sources={"web": FilesConf(keep={"meta.language": language})})
        assert texts(corpus) == expected


def test_nested_values_to_keep_are_those_of_nested_fields(tmp_path: Path):
    metas = [{"language": "en", "year": 1}, {"language": "en", "year": 3}, {"language": "de", "year": 2}]
    write_entries(tmp_path / "web.jsonl", ({"text": f"{n}", "meta": meta} for n, meta in enumerate(metas)))
    for keep in ({"meta": {"language": "en", "year": [1, 2]}}, {"meta.language": "en", "meta": {"year": [1, 2]}}):
        assert texts(corpus_of(tmp_path, sources={"web": FilesConf(keep=keep)})) == ["0"]


@pytest.mark.parametrize("name", ["web.parquet", "web.jsonl"])
def test_a_field_may_have_dots_in_its_name(name, tmp_path: Path):
    entries = [{"raw.text": "a", "meta.language": "en", "meta": {"language": "x", "date": 1}}]
    entries += [{"raw.text": "b", "meta.language": "de", "meta": {"language": "en", "date": 1}}]
    write_entries(tmp_path / name, entries)
    for keep, expected in (({"meta.language": "en"}, ["a"]), ({"meta.date": 1}, ["a", "b"])):
        corpus = corpus_of(tmp_path, text_field="raw.text", sources={"web": FilesConf(keep=keep)})
        assert texts(corpus) == expected


def test_the_text_may_be_in_another_field_of_each_domain(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", [{"body": "a"}])
    write_entries(tmp_path / "books.parquet", [{"page": {"content": "b"}}])
    sources = {"books": FilesConf(text_field="page.content")}
    corpus = corpus_of(tmp_path, ("web", "books"), text_field="body", sources=sources)
    assert documents_of(corpus) == [Document("web", "a"), Document("books", "b")]


@pytest.mark.parametrize(("separator", "groups"), [(None, ["a#1", "a#2", "b", None]), ("#", ["a", "a", "b", None])])
def test_a_group_is_the_part_of_its_field_before_the_separator_and_text_files_have_none(
    separator, groups, tmp_path: Path
):
    write_entries(tmp_path / "web" / "a.jsonl", ({"text": "x", "source": source} for source in ("a#1", "a#2", "b")))
    (tmp_path / "web" / "b.txt").write_text("x")
    corpus = corpus_of(tmp_path, group_field="source", group_separator=separator)
    assert [document.group for document in documents_of(corpus)] == groups


@pytest.mark.parametrize("name", ["web.parquet", "web.jsonl"])
def test_a_group_may_be_an_integer(name, tmp_path: Path):
    write_entries(tmp_path / name, ({"text": "x", "book": book} for book in (7, 7, -12)))
    corpus = corpus_of(tmp_path, group_field="book")
    assert [document.group for document in documents_of(corpus)] == ["7", "7", "-12"]


@pytest.mark.parametrize("group", [True, 1.5, None, ["a"]])
def test_a_group_that_is_neither_text_nor_integer_is_an_error_that_names_file_and_byte(group, tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", [{"text": "x", "book": group}])
    message = re.escape(f"web.jsonl', line at byte 0: field 'book' is {group!r}, which is not a text")
    with pytest.raises(UserError, match=message):
        documents_of(corpus_of(tmp_path, group_field="book"))


def test_blank_and_short_texts_are_left_out_and_counted(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", " \n", "abc", "", "ab", "東京1")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "blank.txt").write_text("\n")
    for least, expected in ((1, ["abc", "ab", "東京1"]), (3, ["abc", "東京1"])):
        corpus = corpus_of(tmp_path, ("web", "books"), min_characters=least)
        dropped: Dropped = Counter()
        assert [d.text for part in corpus.parts for d in corpus.documents(part, dropped)] == expected
        assert dropped == {("web", "too_short"): 5 - len(expected), ("books", "too_short"): 1}


def test_most_characters_are_taken_from_all_of_a_domains_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "PART_BYTES", 20_000)
    for number, lines in enumerate((1000, 300, 50)):
        write_texts(tmp_path / "web" / f"{number}.jsonl", *(f"{number}" * 50 for _ in range(lines)))
    corpus = corpus_of(tmp_path, max_characters=20_000)
    taken = [sum(len(document.text) for document in corpus.documents(part)) for part in corpus.parts]
    size = sum(part.size for part in corpus.parts)
    assert len({part.size for part in corpus.parts}) > 2
    for part, characters in zip(corpus.parts, taken, strict=True):
        assert 0 <= characters - 20_000 * part.size / size < 50  # the document that exceeds it is the last
    assert sum(taken) >= 20_000


def test_a_domain_with_fewer_characters_than_the_most_gives_all(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", *TEXTS)
    assert texts(corpus_of(tmp_path, max_characters=sum(map(len, TEXTS)))) == TEXTS


def test_empty_files_change_nothing_of_what_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "PART_BYTES", 20_000)
    for number, lines in enumerate((1000, 300, 50)):
        write_texts(tmp_path / "web" / f"{number}.jsonl", *(f"{number}" * 50 for _ in range(lines)))
    before = corpus_of(tmp_path, max_characters=20_000)
    for name in ("0.txt", "1.json"):
        (tmp_path / "web" / name).touch()
    after = corpus_of(tmp_path, max_characters=20_000)
    assert after.parts == before.parts
    assert texts(after) == texts(before)
    assert after.stamps.keys() - before.stamps.keys() == {"web/0.txt", "web/1.json"}


def test_a_domain_of_empty_files_has_no_documents(tmp_path: Path):
    (tmp_path / "web.jsonl").touch()
    write_texts(tmp_path / "books.jsonl", "a")
    corpus = corpus_of(tmp_path, ("web", "books"), max_characters=10)
    assert documents_of(corpus) == [Document("books", "a")]


@pytest.mark.parametrize("name", ["web.parquet", "web.jsonl.gz"])
def test_an_empty_file_of_a_kind_that_is_never_empty_is_an_error(name, tmp_path: Path):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name}' is cut off or damaged"):
        texts(corpus_of(tmp_path, max_characters=10))


def test_a_domain_that_has_its_share_takes_nothing_from_others_of_the_same_file(tmp_path: Path):
    lines = [{"text": "x" * 10, "set": "web" if n < 50 else "books"} for n in range(60)]
    write_entries(tmp_path / "all.jsonl", lines)
    sources = {domain: FilesConf(keep={"set": domain}) for domain in ("web", "books")}
    corpus = corpus_of(tmp_path, ("web", "books"), files=["all.jsonl"], sources=sources, max_characters=80)
    assert Counter(d.domain for d in documents_of(corpus)) == {"web": 8, "books": 8}


def test_a_held_out_domain_gives_as_much_as_others_hold_out(tmp_path: Path):
    for domain in ("web", "news"):
        write_texts(tmp_path / f"{domain}.jsonl", *("x" * 10 for _ in range(100)))
    corpus = corpus_of(tmp_path, held_out_domains=["news"], max_characters=500)
    assert Counter(d.domain for d in documents_of(corpus)) == {"web": 50, "news": 10}


def test_a_window_counts_as_its_own_characters_only(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", *("x" * 5000 for _ in range(20)))
    corpus = corpus_of(tmp_path, preparation="windows", min_characters=1000, max_characters=7000)
    assert len(documents_of(corpus)) == 7


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"body": "x", "id": "y"},
            "no field 'text', there is body, id; see data.text_field, data.group_field and keep",
        ),
        ({"text": 3}, "field 'text' is 3, which is not a text"),
        ({"text": None}, "field 'text' is None, which is not a text"),
        ({"text": ["a"]}, "field 'text' is ['a'], which is not a text"),
        ({}, "no field 'text', there is nothing"),
    ],
)
@pytest.mark.parametrize("name", ["web.jsonl", "web.jsonl.gz", "web.jsonl.zst"])
def test_a_record_without_a_text_is_an_error_that_names_file_and_byte(name, entry, message, tmp_path: Path):
    write_entries(tmp_path / name, [{"text": "fine"}, entry])
    with pytest.raises(UserError, match=re.escape(f"{name}', line at byte 17: {message}")):
        texts(corpus_of(tmp_path))


def test_a_null_text_of_a_parquet_file_is_an_error_that_names_file_and_row(tmp_path: Path):
    write_texts(tmp_path / "web.parquet", "a", None, "b")
    with pytest.raises(UserError, match=r"web.parquet', row 1: field 'text' is None, which is not a text"):
        texts(corpus_of(tmp_path))


def test_half_a_surrogate_pair_is_an_error_that_names_file_and_byte(tmp_path: Path):
    (tmp_path / "web.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\ud800"}\n')
    with pytest.raises(UserError, match=r"web.jsonl', line at byte 25: field 'text' has half a surrogate pair"):
        texts(corpus_of(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_field": "source"}, "no field 'source', there is text"),
        ({"sources": {"web": FilesConf(keep={"meta.language": "en"})}}, "no field 'meta.language', there is text"),
    ],
)
def test_a_missing_field_is_an_error_that_names_file_and_byte(options, message, tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", "a")
    with pytest.raises(UserError, match=rf"web.jsonl', line at byte 0: {message}"):
        texts(corpus_of(tmp_path, **options))


def test_a_field_within_something_else_is_an_error_that_shows_it(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", [{"text": "a", "meta": None}])
    with pytest.raises(UserError, match=r"line at byte 0: no field 'meta.language', there is None"):
        texts(corpus_of(tmp_path, sources={"web": FilesConf(keep={"meta.language": "en"})}))


BAD = [
    ({"id": 1}, "no_text"),
    ({"text": None, "source": "s"}, "no_text"),
    ({"text": 3, "source": "s"}, "no_text"),
    ({"text": "x"}, "no_group"),
    ({"text": "x", "source": None}, "no_group"),
    ({"text": "\ud800", "source": "s"}, "half_surrogates"),
    ({"text": "x", "source": "\udfff"}, "half_surrogates"),
    ({"text": "", "source": "s"}, "too_short"),
]


def test_bad_documents_are_left_out_by_choice_and_counted_by_reason(tmp_path: Path):
    good = [{"text": f"good {number}", "source": "s"} for number in range(len(BAD))]
    lines = (json.dumps(entry) for pair in zip((entry for entry, _ in BAD), good, strict=True) for entry in pair)
    (tmp_path / "web.jsonl").write_text("\n".join(lines))
    corpus = corpus_of(tmp_path, group_field="source", on_bad_document="skip")
    corpus.check_first_entries()
    dropped: Dropped = Counter()
    found = [document.text for part in corpus.parts for document in corpus.documents(part, dropped)]
    assert found == [entry["text"] for entry in good]
    assert dropped == Counter(("web", reason) for _, reason in BAD)


def test_null_texts_of_a_parquet_file_are_left_out_by_choice(tmp_path: Path):
    write_texts(tmp_path / "web.parquet", "a", None, "b")
    assert texts(corpus_of(tmp_path, on_bad_document="skip")) == ["a", "b"]


def test_a_document_without_the_field_that_one_domain_keeps_by_is_by_choice_for_the_next(tmp_path: Path):
    entries = [{"text": "a", "set": "web"}, {"text": "b", "meta": {"set": "books"}}, {"text": "c"}]
    write_entries(tmp_path / "all.jsonl", entries)
    sources = {"web": FilesConf(keep={"set": "web"}), "books": FilesConf(keep={"meta.set": "books"})}
    options = {"files": ["all.jsonl"], "sources": sources}
    corpus = corpus_of(tmp_path, ("web", "books"), on_bad_document="skip", **options)
    dropped: Dropped = Counter()
    found = [(d.domain, d.text) for part in corpus.parts for d in corpus.documents(part, dropped)]
    assert found == [("web", "a"), ("books", "b")]
    assert dropped == {("", "no_keep_field"): 1}
    with pytest.raises(
        UserError, match=r"no field 'set', there is meta, text; .*data.on_bad_document=skip leaves such"
    ):
        documents_of(corpus_of(tmp_path, ("web", "books"), **options))


def test_a_field_that_none_of_the_first_documents_has_is_an_error_even_if_bad_documents_are_skipped(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", ({"text": None if number < 99 else "x"} for number in range(100)))
    corpus_of(tmp_path, on_bad_document="skip").check_first_entries()
    corpus = corpus_of(tmp_path, on_bad_document="skip", text_field="body")
    with pytest.raises(UserError, match=r"web.jsonl', line at byte 0: no field 'body', there is text"):
        corpus.check_first_entries()
