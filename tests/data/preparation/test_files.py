import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import EnvironmentDataConf, FilesConf, FilesDataConf
from autoscale_exp.data.preparation import files as files_module
from autoscale_exp.data.preparation.corpus import Document
from autoscale_exp.data.preparation.files import open_corpus
from tests.data.preparation.corpora import compress, corpus_of, documents_of, texts, write_entries, write_texts

KEPT = {"sources": {"web": FilesConf(keep={"set": "web"})}}
TEXTS = ["One.\nTwo.", "Zürich, 東京", "three"]


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


def test_a_domains_file_may_have_its_kind_in_capital_letters(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl.gz", *TEXTS).rename(tmp_path / "web.JSONL.GZ")
    assert texts(corpus_of(tmp_path)) == TEXTS


def test_files_of_other_kinds_in_a_domains_folder_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_texts(tmp_path / "web" / "a.jsonl", *TEXTS)
    assert texts(corpus_of(tmp_path)) == TEXTS
    assert not caplog.messages
    for name in ("b.csv", "c.warc"):
        (tmp_path / "web" / name).touch()
    assert texts(corpus_of(tmp_path)) == TEXTS
    assert caplog.messages == [f"files left out: 2 of other kinds, such as '{tmp_path / 'web' / 'b.csv'}'"]


def test_large_files_are_cut_however_their_suffix_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "PART_BYTES", 100)
    write_texts(tmp_path / "web.jsonl", *TEXTS * 10).rename(tmp_path / "web.JSONL")
    corpus = corpus_of(tmp_path)
    assert len(corpus.parts) > 3
    assert texts(corpus) == TEXTS * 10


def test_files_are_named_by_paths_and_globs_under_the_folder(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / "cc" / str(number) / "part.jsonl.zst", text)
    write_texts(tmp_path / "more.jsonl", "more")
    for files in (["cc/**/*.zst", "more.jsonl"], ["cc/*/part.*", str(tmp_path / "more.jsonl")]):
        assert texts(corpus_of(tmp_path, sources={"web": FilesConf(files=files)})) == [*TEXTS, "more"]


def test_brackets_in_the_folder_and_in_a_files_whole_name_are_letters(tmp_path: Path):
    folder = tmp_path / "v[1]*"
    for name in ("x[ab]", "xa", "xb"):
        write_texts(folder / "cc" / f"{name}.jsonl", name)
    for pattern, expected in (("cc/x[ab].jsonl", ["x[ab]"]), ("cc/x[b].jsonl", ["xb"]), ("cc/x?.jsonl", ["xa", "xb"])):
        assert texts(corpus_of(folder, sources={"web": FilesConf(files=[pattern])})) == expected


def test_without_a_folder_paths_lead_from_where_the_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_texts(tmp_path / "cc.jsonl", "a")
    monkeypatch.chdir(tmp_path)
    assert texts(corpus_of(None, sources={"web": FilesConf(files=["cc.jsonl"])})) == ["a"]


def test_a_file_list_names_files_one_per_line(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / f"{number}.jsonl", text)
    (tmp_path / "list.txt").write_text("0.jsonl\n\n 1.jsonl \r\n2.jsonl")
    assert texts(corpus_of(tmp_path, sources={"web": FilesConf(file_list="list.txt")})) == TEXTS


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_list_may_have_a_byte_order_mark_and_any_line_ends(suffix, tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / f"{number}.jsonl", text)
    content = b"\xef\xbb\xbf0.jsonl\r\n1.jsonl\r\n2.jsonl\r\n"
    (tmp_path / f"list.txt{suffix}").write_bytes(compress(content, suffix))
    assert texts(corpus_of(tmp_path, sources={"web": FilesConf(file_list=f"list.txt{suffix}")})) == TEXTS


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "is text in UTF-16; convert it"), ("latin-1", ", byte 1: not UTF-8 .*; convert the file to UTF-8")],
)
def test_a_file_list_in_another_encoding_is_an_error_that_names_it(encoding, message, tmp_path: Path):
    (tmp_path / "list.txt").write_bytes("zürich.jsonl\n".encode(encoding))
    with pytest.raises(UserError, match=f"list.txt'? ?{message}"):
        corpus_of(tmp_path, sources={"web": FilesConf(file_list="list.txt")})


def test_a_local_file_list_is_read_every_time_and_has_a_stamp(tmp_path: Path):
    for number, text in enumerate(TEXTS):
        write_texts(tmp_path / f"{number}.jsonl", text)
    sources = {"web": FilesConf(file_list="list.txt")}
    (tmp_path / "list.txt").write_text("0.jsonl\n1.jsonl\n")
    before = corpus_of(tmp_path, sources=sources)
    (tmp_path / "list.txt").write_text("0.jsonl\n1.jsonl\n2.jsonl\n")
    after = corpus_of(tmp_path, listing=before.listing, sources=sources)
    assert texts(after) == TEXTS
    assert after.listing == {}
    assert [stamps["list.txt"][0] for stamps in (before.stamps, after.stamps)] == [16, 24]


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
def test_remote_files_share_parts_where_they_are_many(num_files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "MOST_PARTS", 4)
    addresses = [f"https://example.org/{number}.jsonl.gz" for number in range(num_files)]
    corpus = corpus_of(None, sources={"web": FilesConf(files=addresses)})
    assert len(corpus.parts) <= 4
    assert [span.path for part in corpus.parts for span in part.spans] == addresses


@settings(max_examples=30, deadline=None)
@given(
    # Two empty files are copies of one another, and copies are left out.
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda sizes: sizes.count(0) <= 1),
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
        patch.setattr(files_module, "PART_BYTES", part_bytes)
        corpus = corpus_of(folder)
    assert texts(corpus) == expected
    assert [part.index for part in corpus.parts] == list(range(len(corpus.parts)))
    if suffix == "jsonl":
        assert all(part.size <= part_bytes for part in corpus.parts)
    assert sum(part.size for part in corpus.parts) == sum(p.stat().st_size for p in folder.glob("web/*"))


def test_a_missing_domain_is_an_error_that_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "books").mkdir()
    for domain in ("web", "books"):
        with pytest.raises(UserError, match=f"data.domains names '{domain}', but .* no {domain}.jsonl.* no folder"):
            corpus_of(tmp_path, (domain,))


def test_two_files_of_one_domain_are_an_error_that_names_both(tmp_path: Path):
    for kind in ("jsonl", "parquet"):
        write_texts(tmp_path / f"web.{kind}", "a")
    with pytest.raises(UserError, match=r"web.jsonl' and '.*web.parquet' both hold domain 'web'; keep one"):
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
        (
            {"sources": {"web": FilesConf(file_list="none.txt")}},
            r"web.file_list is '.*none.txt', where there is no file; correct it or data.path",
        ),
        ({"sources": {"books": FilesConf()}}, r"data.sources names 'books', which is not among web"),
        (
            {"files": ["hf://datasets/no/one/*.jsonl"], **KEPT},
            r"data.files names 'hf://datasets/no/one/\*.jsonl', which cannot",
        ),
        ({"sources": {"web": {"fils": ["a.jsonl"]}}}, r"data.sources.web is .*'fils'.*; its keys are files, file_list"),
        ({"sources": {"web": {"files": {"a": 1}}}}, r"data.sources.web is .*; its keys are files, file_list"),
        (
            {"sources": {"web": {"files": ["a.jsonl"], "keep": {"meta": {"set": [{"a": 1}]}}}}},
            r"data.sources.web.keep.meta.set is \[{'a': 1}\]; give the value that documents must have, or a list",
        ),
        ({"sources": {"web": {"files": ["a.jsonl"], "keep": {"meta": {}}}}}, r"data.sources.web.keep.meta is {}; give"),
        ({"files": ["a.jsonl"]}, r"data.sources.web.keep is not set, but data.files are shared by all domains"),
    ],
)
def test_files_that_cannot_be_meant_are_an_error_that_names_the_key(options, message, tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", "a")
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=message):
        corpus_of(tmp_path, **options)


@pytest.mark.parametrize("other", ["./a.jsonl", "cc/../a.jsonl", "link.jsonl", "{folder}/cc/../a.jsonl"])
def test_a_file_named_twice_in_two_spellings_is_an_error_that_has_both(other, tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", "a")
    (tmp_path / "cc").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=r"data.sources.web names '.*a.jsonl' twice.*; name each file once"):
        corpus_of(tmp_path, sources={"web": FilesConf(files=[other.format(folder=tmp_path), "a.jsonl"])})


def test_a_file_of_which_a_domain_leaves_nothing_to_another_is_an_error_that_names_both(tmp_path: Path):
    write_texts(tmp_path / "web.jsonl", "a")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "web.jsonl")
    sources = {"books": FilesConf(files=["link.jsonl"], keep={"set": "books"})}
    with pytest.raises(UserError, match=r"domains 'web' and 'books' both take '.*link.jsonl', but 'web' comes first"):
        corpus_of(tmp_path, ("web", "books"), sources=sources)
    write_entries(tmp_path / "web.jsonl", [{"text": "a", "set": "web"}, {"text": "b", "set": "books"}])
    corpus = corpus_of(tmp_path, ("books", "web"), sources=sources)
    assert len(corpus.parts) == 1
    assert documents_of(corpus) == [Document("web", "a"), Document("books", "b")]


def test_a_corpus_that_is_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"data.path is '.*nowhere', which is not a folder"):
        corpus_of(tmp_path / "nowhere")


def test_a_corpus_without_folder_and_files_is_an_error():
    with pytest.raises(UserError, match=r"data.sources.web.files is not set; give it paths, globs or URLs"):
        corpus_of(None)


def test_text_of_the_environment_without_a_limit_is_an_error_that_names_the_key(tmp_path: Path):
    conf = EnvironmentDataConf(name="test", domains=["python", "docs"], store=str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"data.max_characters is null, but .*; give the most characters per domain"):
        open_corpus(conf)
    assert not (tmp_path / "store").exists()


def test_a_list_of_files_that_is_not_text_is_an_error(tmp_path: Path):
    (tmp_path / "files.txt").write_bytes(b"web.jsonl\n\xff")
    sources = {"web": {"file_list": "files.txt"}}
    conf = FilesDataConf(name="test", domains=["web", "code"], path=str(tmp_path), sources=sources)
    with pytest.raises(UserError, match=r"files.txt', byte 10: not UTF-8 \(invalid start byte\); convert the file to"):
        open_corpus(conf)


def test_a_source_that_is_no_section_is_an_error(tmp_path: Path):
    conf = FilesDataConf(name="test", domains=["web", "code"], path=str(tmp_path), sources={"web": "web.jsonl"})
    with pytest.raises(UserError, match=r"data.sources.web is web.jsonl: .*; its keys are files, file_list"):
        open_corpus(conf)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (False, ["no", "off", False]),
        ([False, "sv"], ["no", "off", "sv", False]),
        ("no", ["no"]),
        (2024, ["2024", 2024]),
        (1.5, ["1.5", 1.5]),
        ("2024", ["2024"]),
    ],
)
def test_a_value_that_yaml_has_read_as_something_else_keeps_the_texts_it_was_written_as(keep, kept, tmp_path: Path):
    values = ["no", "off", "sv", "2024", "1.5", False, 2024, 1.5, None]
    write_entries(tmp_path / "all.jsonl", [{"text": json.dumps(value), "set": value} for value in values])
    corpus = corpus_of(tmp_path, files=["all.jsonl"], sources={"web": FilesConf(keep={"set": keep})})
    assert sorted(texts(corpus)) == sorted(map(json.dumps, kept))


@pytest.mark.parametrize(
    "sources",
    [
        {"cc": {"v2": {"files": ["a.jsonl"]}, "files": ["b.jsonl"]}},  # as ++data.sources.cc.v2.files=[...] makes it
        {"cc.v2": {"files": ["a.jsonl"]}, "cc": {"files": ["b.jsonl"]}},
    ],
)
def test_a_domain_with_a_dot_in_its_name_may_be_given_files(sources, tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", "a")
    write_texts(tmp_path / "b.jsonl", "b")
    corpus = corpus_of(tmp_path, ("cc.v2", "cc"), sources=sources)
    assert documents_of(corpus) == [Document("cc.v2", "a"), Document("cc", "b")]
    (tmp_path / "cc.jsonl").write_text((tmp_path / "b.jsonl").read_text())
    corpus = corpus_of(tmp_path, ("cc.v2",), sources={"cc": {"v2": sources.get("cc.v2") or sources["cc"]["v2"]}})
    assert documents_of(corpus) == [Document("cc.v2", "a")]


@pytest.mark.parametrize(
    ("domain", "advice"),
    [
        ("cc.v2", "++data.sources.cc.v2.files=[...]"),
        ("2024-05", "'++data.sources={2024-05: {files: [...]}}'"),
        ("False", "; YAML reads no, No, NO, off as False: put such a name in quotes"),
    ],
)
def test_the_error_of_a_domain_without_files_says_how_to_name_them(domain, advice, tmp_path: Path):
    with pytest.raises(UserError) as error:
        corpus_of(tmp_path, (domain,))
    assert advice in str(error.value)
