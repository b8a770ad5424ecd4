import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.config import FilesConf, FilesDataConf
from autoscale_exp.data import corpus as corpus_module
from autoscale_exp.data.corpus import Corpus, Document, open_corpus
from tests.data.corpora import write_records

KEPT = {"sources": {"web": FilesConf(keep={"set": "web"})}}
TEXTS = ["One.\nTwo.", "Zürich, 東京", "three"]


def corpus_of(
    folder: Path | None,
    domains: tuple[str, ...] = ("web",),
    listing: dict[str, list[str]] | None = None,
    **options: Any,
) -> Corpus:
    conf = FilesDataConf(
        name="test",
        domains=list(domains),
        store="nowhere",
        seq_len=32,
        validation_fraction=0.2,
        validation_rows=5,
        path=None if folder is None else str(folder),
        **options,
    )
    return open_corpus(conf, listing)


def documents_of(corpus: Corpus) -> list[Document]:
    return [document for part in corpus.parts for document in corpus.documents(part)]


def texts(corpus: Corpus, domain: str = "web") -> list[str]:
    return [document.text for document in documents_of(corpus) if document.domain == domain]


def write_texts(path: Path, *contents: str) -> Path:
    return write_records(path, ({"text": text} for text in contents))


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "jsonl.zst", "json.zst", "parquet"])
def test_a_domain_has_the_file_of_its_name(kind, tmp_path: Path):
    write_texts(tmp_path / f"web.{kind}", *TEXTS)
    write_texts(tmp_path / f"web.old.{kind}", "old")
    write_texts(tmp_path / f"web2.{kind}", "other")
    (tmp_path / "web.csv").write_text("text\n")
    assert texts(corpus_of(tmp_path)) == TEXTS


def test_a_domain_may_have_letters_that_globs_take_for_others(tmp_path: Path):
    for name in ("[ab]", "a", "x*", "xy"):
        write_texts(tmp_path / f"{name}.jsonl", name)
    corpus = corpus_of(tmp_path, ("[ab]", "x*"))
    assert documents_of(corpus) == [Document("[ab]", "[ab]"), Document("x*", "x*")]


def test_a_domain_has_the_files_of_the_folder_of_its_name(tmp_path: Path):
    write_texts(tmp_path / "web" / "1" / "a.jsonl.gz", TEXTS[0])
    (tmp_path / "web" / "2").mkdir()
    (tmp_path / "web" / "2" / "page.txt").write_text(TEXTS[1], encoding="utf-8")
    write_texts(tmp_path / "web" / "b.parquet", TEXTS[2])
    (tmp_path / "web" / "photo.jpg").write_bytes(b"\xff\xd8")
    assert texts(corpus_of(tmp_path)) == TEXTS


def test_files_are_named_by_paths_and_globs_under_the_folder(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / "cc" / str(number) / "part.jsonl.zst", text)
    write_texts(tmp_path / "more.jsonl", "more")
    for files in (["cc/**/*.zst", "more.jsonl"], ["cc/*/part.*", str(tmp_path / "more.jsonl")]):
        assert texts(corpus_of(tmp_path, sources={"web": FilesConf(files=files)})) == [*TEXTS, "more"]


def test_without_a_folder_paths_lead_from_where_the_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_texts(tmp_path / "cc.jsonl", "a")
    monkeypatch.chdir(tmp_path)
    assert texts(corpus_of(None, sources={"web": FilesConf(files=["cc.jsonl"])})) == ["a"]


def test_a_file_list_names_files_one_per_line(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / f"{number}.jsonl", text)
    (tmp_path / "list.txt").write_text("0.jsonl\n\n 1.jsonl \r\n2.jsonl")
    assert texts(corpus_of(tmp_path, sources={"web": FilesConf(file_list="list.txt")})) == TEXTS


def test_domains_of_the_same_files_are_told_apart_by_a_field_and_each_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kinds = ["web", "books", "none", "news", "web"]
    write_records(tmp_path / "all.jsonl", ({"text": f"{n}", "meta": {"set": kind}} for n, kind in enumerate(kinds)))
    sources = {"books": FilesConf(keep={"meta.set": ["books", "news"]}), "web": FilesConf(keep={"meta.set": "web"})}
    read, opened = corpus_module.read_records, Counter()
    monkeypatch.setattr(corpus_module, "read_records", lambda *a: opened.update([a[0]]) or read(*a))
    corpus = corpus_of(tmp_path, ("web", "books"), files=["all.jsonl"], sources=sources)
    dropped: Counter[str] = Counter()
    found = [(d.domain, d.text) for part in corpus.parts for d in corpus.documents(part, dropped)]
    assert found == [("web", "0"), ("books", "1"), ("books", "3"), ("web", "4")]
    assert dropped == {"": 1}
    assert set(opened.values()) == {1}


def test_the_hub_is_asked_once_for_all_domains_and_not_again_when_the_answer_is_known(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def from_patterns(patterns: list[str]) -> list[str]:
        asked.extend(patterns)
        return [f"hf://datasets/some/one@{len(asked)}/{name}.jsonl.zst" for name in "ab"]

    monkeypatch.setattr("datasets.data_files.DataFilesList.from_patterns", from_patterns)
    pattern = "hf://datasets/some/one/*.jsonl.zst"
    sources = {domain: FilesConf(keep={"set": domain}) for domain in ("web", "books", "news")}
    first = corpus_of(None, tuple(sources), files=[pattern], sources=sources)
    assert asked == [pattern]
    assert [part.spans[0].path for part in first.parts] == first.listing[pattern]
    again = corpus_of(None, tuple(sources), listing=first.listing, files=[pattern], sources=sources)
    assert asked == [pattern]
    assert again == first


@pytest.mark.parametrize("num_files", [3, 4, 5, 1000])
def test_files_behind_addresses_share_parts_where_they_are_many(num_files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus_module, "MOST_PARTS", 4)
    addresses = [f"https://example.org/{number}.jsonl.gz" for number in range(num_files)]
    corpus = corpus_of(None, sources={"web": FilesConf(files=addresses)})
    assert len(corpus.parts) <= 4
    assert [span.path for part in corpus.parts for span in part.spans] == addresses


@pytest.mark.parametrize("meta", [{"language": "en"}, '{"language": "en"}', "{'language': 'en', 'date': None}"])
def test_fields_may_be_nested_or_printed_as_text(meta, tmp_path: Path):
    write_records(tmp_path / "web.jsonl", [{"text": "a", "meta": meta}])
    for language, expected in (("en", ["a"]), ("de", [])):
        corpus = corpus_of(tmp_path, sources={"web": FilesConf(keep={"meta.language": language})})
        assert texts(corpus) == expected


def test_the_text_may_be_in_another_field_of_each_domain(tmp_path: Path):
    write_records(tmp_path / "web.jsonl", [{"body": "a"}])
    write_records(tmp_path / "books.parquet", [{"page": {"content": "b"}}])
    sources = {"books": FilesConf(text_field="page.content")}
    corpus = corpus_of(tmp_path, ("web", "books"), text_field="body", sources=sources)
    assert documents_of(corpus) == [Document("web", "a"), Document("books", "b")]


@pytest.mark.parametrize(("separator", "groups"), [(None, ["a#1", "a#2", "b", None]), ("#", ["a", "a", "b", None])])
def test_a_group_is_the_part_of_its_field_before_the_separator_and_text_files_have_none(
    separator, groups, tmp_path: Path
):
    write_records(tmp_path / "web" / "a.jsonl", ({"text": "x", "source": source} for source in ("a#1", "a#2", "b")))
    (tmp_path / "web" / "b.txt").write_text("x")
    corpus = corpus_of(tmp_path, group_field="source", group_separator=separator)
    assert [document.group for document in documents_of(corpus)] == groups


def test_blank_and_short_texts_are_left_out_and_counted(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", " \n", "abc", "", "ab", "東京1")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "blank.txt").write_text("\n")
    for least, expected in ((1, ["abc", "ab", "東京1"]), (3, ["abc", "東京1"])):
        corpus = corpus_of(tmp_path, ("web", "books"), min_characters=least)
        dropped: Counter[str] = Counter()
        assert [d.text for part in corpus.parts for d in corpus.documents(part, dropped)] == expected
        assert dropped == {"web": 5 - len(expected), "books": 1}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    part_bytes=st.integers(20, 2000),
    suffix=st.sampled_from(["jsonl", "jsonl.gz"]),
)
def test_parts_hold_every_document_once_and_in_order_however_large_they_are(
    tmp_path_factory, sizes, part_bytes, suffix
):
    folder = tmp_path_factory.mktemp("parts")
    expected = []
    for number, size in enumerate(sizes):
        contents = [f"{number} {line} " + "é" * (line % 17) for line in range(size)]
        write_texts(folder / "web" / f"{number}.{suffix}", *contents)
        expected += contents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "PART_BYTES", part_bytes)
        corpus = corpus_of(folder)
    assert texts(corpus) == expected
    assert [part.index for part in corpus.parts] == list(range(len(corpus.parts)))
    if suffix == "jsonl":
        assert all(part.size <= part_bytes for part in corpus.parts)
    assert sum(part.size for part in corpus.parts) == sum(p.stat().st_size for p in folder.glob("web/*"))


def test_most_characters_are_taken_from_all_of_a_domains_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus_module, "PART_BYTES", 20_000)
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


def test_a_domain_that_has_its_share_takes_nothing_from_others_of_the_same_file(tmp_path: Path):
    lines = [{"text": "x" * 10, "set": "web" if n < 50 else "books"} for n in range(60)]
    write_records(tmp_path / "all.jsonl", lines)
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
    ("record", "message"),
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
def test_a_record_without_a_text_is_an_error_that_names_file_and_byte(name, record, message, tmp_path: Path):
    write_records(tmp_path / name, [{"text": "fine"}, record])
    with pytest.raises(ValueError, match=re.escape(f"{name}', line at byte 17: {message}")):
        texts(corpus_of(tmp_path))


def test_a_null_text_of_a_parquet_file_is_an_error_that_names_file_and_row(tmp_path: Path):
    write_texts(tmp_path / "web.parquet", "a", None, "b")
    with pytest.raises(ValueError, match=r"web.parquet', row 1: field 'text' is None, which is not a text"):
        texts(corpus_of(tmp_path))


def test_half_a_surrogate_pair_is_an_error_that_names_file_and_byte(tmp_path: Path):
    (tmp_path / "web.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\ud800"}\n')
    with pytest.raises(ValueError, match=r"web.jsonl', line at byte 25: field 'text' has half a surrogate pair"):
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
    with pytest.raises(ValueError, match=rf"web.jsonl', line at byte 0: {message}"):
        texts(corpus_of(tmp_path, **options))


def test_a_field_within_something_else_is_an_error_that_shows_it(tmp_path: Path):
    write_records(tmp_path / "web.jsonl", [{"text": "a", "meta": None}])
    with pytest.raises(ValueError, match=r"line at byte 0: no field 'meta.language', there is None"):
        texts(corpus_of(tmp_path, sources={"web": FilesConf(keep={"meta.language": "en"})}))


def test_a_missing_domain_is_an_error_that_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "books").mkdir()
    for domain in ("web", "books"):
        with pytest.raises(ValueError, match=f"data.domains names '{domain}', but .* no {domain}.jsonl.* no folder"):
            corpus_of(tmp_path, (domain,))


def test_two_files_of_one_domain_are_an_error_that_names_both(tmp_path: Path):
    for kind in ("jsonl", "parquet"):
        write_texts(tmp_path / f"web.{kind}", "a")
    with pytest.raises(ValueError, match=r"web.jsonl' and '.*web.parquet' both hold domain 'web'; keep one"):
        corpus_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": {"web": FilesConf(files=["none.jsonl"])}}, r"data.sources.web names '.*none.jsonl', where there"),
        ({"sources": {"web": FilesConf(files=["*.zst"])}}, r"data.sources.web names '.*/\*.zst', where there is no"),
        ({"files": ["none.jsonl"], **KEPT}, r"data.files names '.*none.jsonl', where there is no file"),
        ({"sources": {"web": FilesConf(files=["a.csv"])}}, r"data.sources.web names '.*a.csv', whose kind its name"),
        (
            {"files": ["a.csv"], **KEPT},
            r"data.files names '.*a.csv', whose kind its name does not tell; files are .jsonl",
        ),
        ({"sources": {"web": FilesConf(files=["a.jsonl", "*.jsonl"])}}, r"data.sources.web names '.*a.jsonl' twice"),
        (
            {"sources": {"web": FilesConf(file_list="empty.txt")}},
            r"web.file_list is '.*empty.txt', which names no files",
        ),
        ({"sources": {"books": FilesConf()}}, r"data.sources names 'books', which is not among web"),
        (
            {"files": ["hf://datasets/no/one/*.jsonl"], **KEPT},
            r"data.files names 'hf://datasets/no/one/\*.jsonl', which cannot",
        ),
        ({"files": ["a.jsonl"]}, r"data.sources.web.keep is not set, but data.files are shared by all domains"),
    ],
)
def test_files_that_cannot_be_meant_are_an_error_that_names_the_key(options, message, tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", "a")
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=message):
        corpus_of(tmp_path, **options)


def test_a_corpus_that_is_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data.path is '.*nowhere', which is not a folder"):
        corpus_of(tmp_path / "nowhere")


def test_a_corpus_without_folder_and_files_is_an_error():
    with pytest.raises(ValueError, match=r"data.sources.web.files is not set; give it paths, globs or addresses"):
        corpus_of(None)
