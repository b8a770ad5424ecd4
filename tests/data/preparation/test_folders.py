import os
from pathlib import Path

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import FilesConf
from autoscale_exp.data.preparation.corpus import Corpus
from tests.data.preparation.corpora import corpus_of, texts, write_texts

TEXTS = ["One.\nTwo.", "Zürich, 東京", "three"]
SOURCES = {"web": FilesConf(files=["web/*"])}


def write_web(folder: Path, *others: str) -> Path:
    """A domain's folder with one file of text, and others that are no text of it."""
    write_texts(folder / "web" / "part-0.jsonl", *TEXTS)
    for name in others:
        path = folder / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "not to be read"}\n')
    return folder / "web"


def assert_left_out(corpus: Corpus, expected: dict[str, int]) -> None:
    assert texts(corpus) == TEXTS
    assert corpus.files_left_out == expected


@pytest.mark.parametrize(
    "name",
    [
        "._part-0.jsonl",
        ".part-0.jsonl.crc",
        ".gitattributes",
        ".x.jsonl.swp",
        ".ipynb_checkpoints/a.jsonl",
        ".git/a/b.txt",
    ],
)
def test_hidden_files_and_folders_are_left_out(name, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    web = write_web(tmp_path, name)
    assert_left_out(corpus_of(tmp_path), {"hidden": 1})
    assert caplog.messages == [f"files left out: 1 hidden, such as '{web / name.split('/')[0]}'"]


@pytest.mark.parametrize(
    "name",
    [
        *("part-0.jsonl~", "#part-0.jsonl#", "part-0.jsonl.bak", "part-0.bak.jsonl", "part-0.tmp.jsonl.gz"),
        *("part-1.jsonl.part", "part-1.jsonl.crdownload", "part-1.parquet.incomplete"),
        *("_SUCCESS", "_metadata", "_common_metadata", "_committed_123", "part-0.jsonl.crc"),
        *("_temporary/0/part-1.jsonl", "_delta_log/00000.json", "_spark_metadata/0"),
    ],
)
def test_what_editors_downloads_and_spark_leave_is_left_out(name, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    web = write_web(tmp_path, name)
    assert_left_out(corpus_of(tmp_path), {"temporary": 1})
    assert len(caplog.messages) == 1
    assert f"such as '{web / name.split('/')[0]}'" in caplog.text
    if not name.endswith(("~", "#", ".bak", ".part", ".crdownload", ".incomplete", ".crc")):
        assert texts(corpus_of(tmp_path, sources={"web": FilesConf(files=["web/**/*"])})) == TEXTS


@pytest.mark.parametrize("depth", ["", "data/"])
def test_cards_infos_and_scripts_beside_or_above_data_are_left_out(depth, tmp_path: Path):
    names = ["README.md", "README_zh.md", "LICENSE.txt", "dataset_infos.json", "config.json", "web.py"]
    web = write_web(tmp_path, *names)
    if depth:
        (web / "data").mkdir()
        (web / "part-0.jsonl").rename(web / "data" / "part-0.jsonl")
    assert_left_out(corpus_of(tmp_path), {"about_data": len(names)})


def test_what_has_the_name_of_a_card_or_a_script_is_text_where_there_are_no_data_beside_it(tmp_path: Path):
    for name in ("README.md", "pkg/__init__.py", "pkg/README.md"):
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_text(name)
    write_texts(tmp_path / "web" / "z" / "part-0.jsonl", "data")
    corpus = corpus_of(tmp_path)
    assert texts(corpus) == ["pkg/README.md", "pkg/__init__.py", "data"]
    assert corpus.files_left_out == {"about_data": 1}
    (tmp_path / "web" / "z" / "part-0.jsonl").unlink()
    corpus = corpus_of(tmp_path)
    assert texts(corpus) == ["README.md", "pkg/README.md", "pkg/__init__.py"]
    assert corpus.files_left_out == {}


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["a.jsonl", "z.jsonl"])
def test_a_link_to_a_file_already_there_is_read_once(link, name, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    web = write_web(tmp_path)
    link(web / "part-0.jsonl", web / name)
    assert_left_out(corpus_of(tmp_path), {"links": 1})
    assert "files left out: 1 leading to files that are read already" in caplog.text
    if link is os.symlink:
        assert list(corpus_of(tmp_path).stamps) == ["web/part-0.jsonl"]


def test_links_to_folders_are_gone_through_but_in_no_circle(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    write_texts(elsewhere / "a.jsonl", *TEXTS)
    (tmp_path / "d" / "web").mkdir(parents=True)
    (tmp_path / "d" / "web" / "2026").symlink_to(elsewhere)
    assert_left_out(corpus_of(tmp_path / "d"), {})
    (tmp_path / "d" / "web" / "latest").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(tmp_path / "d" / "web")
    corpus = corpus_of(tmp_path / "d")
    assert texts(corpus) == TEXTS
    assert corpus.files_left_out["links"] >= 2


def test_a_link_to_nothing_is_an_error_that_names_it(tmp_path: Path):
    web = write_web(tmp_path)
    (web / "part-1.jsonl").symlink_to(tmp_path / "gone.jsonl")
    for sources in ({}, SOURCES):
        with pytest.raises(UserError, match=r"web/part-1.jsonl' is a broken link; put back the file that it leads to"):
            corpus_of(tmp_path, sources=sources)


def test_a_copy_of_a_file_is_left_out_and_another_file_of_the_same_size_is_not(tmp_path: Path):
    web = write_web(tmp_path)
    (web / "part-0 (1).jsonl").write_bytes((web / "part-0.jsonl").read_bytes())
    assert_left_out(corpus_of(tmp_path), {"copies": 1})
    (web / "part-0 (1).jsonl").write_bytes((web / "part-0.jsonl").read_bytes().replace(b"three", b"seven"))
    corpus = corpus_of(tmp_path)
    assert texts(corpus) == [*TEXTS[:2], "seven", *TEXTS]
    assert corpus.files_left_out == {}


@pytest.mark.parametrize("other", ["part-0.jsonl.gz", "part-0.jsonl.zst", "part-0.parquet", "part-0.json"])
def test_two_forms_of_one_file_are_an_error_that_names_both(other, tmp_path: Path):
    write_texts(write_web(tmp_path) / other, *TEXTS, "and more")
    for sources in ({}, SOURCES):
        with pytest.raises(
            UserError, match=r"web/part-0\..* and .*web/part-0\..* look like two forms of the same text"
        ):
            corpus_of(tmp_path, sources=sources)
    sources = {"web": FilesConf(files=["web/part-0.jsonl", f"web/{other}"])}
    assert texts(corpus_of(tmp_path, sources=sources)) == [*TEXTS, *TEXTS, "and more"]


def test_a_file_beside_a_folder_of_the_same_name_is_an_error_that_names_both(tmp_path: Path):
    web = write_web(tmp_path)
    write_texts(tmp_path / "web.jsonl", "a")
    with pytest.raises(UserError, match=r"web.jsonl' and '.*web' both hold domain 'web'; keep one of them, or name"):
        corpus_of(tmp_path)
    (web / "part-0.jsonl").rename(web / "part-0.csv")
    assert texts(corpus_of(tmp_path)) == ["a"]


def test_globs_take_no_by_products_but_files_that_are_named_are_read(tmp_path: Path):
    web = write_web(tmp_path, "README.md", "dataset_infos.json", "_SUCCESS")
    (web / "latest.jsonl").symlink_to(web / "part-0.jsonl")
    assert_left_out(corpus_of(tmp_path, sources=SOURCES), {"temporary": 1, "about_data": 2, "links": 1})
    named = {"web": FilesConf(files=["web/part-0.jsonl", "web/README.md"])}
    corpus = corpus_of(tmp_path, sources=named)
    assert texts(corpus) == [*TEXTS, '{"text": "not to be read"}\n']
    assert corpus.files_left_out == {}


def test_what_several_domains_leave_out_of_the_same_files_counts_once(tmp_path: Path):
    write_web(tmp_path, "_SUCCESS")
    sources = {domain: FilesConf(keep={"set": domain}) for domain in ("a", "b")}
    assert corpus_of(tmp_path, ("a", "b"), files=["web/*"], sources=sources).files_left_out == {"temporary": 1}


@pytest.mark.parametrize("split", ["", "train"])
def test_what_save_to_disk_wrote_is_refused_by_name(split, tmp_path: Path):
    import datasets

    saved = datasets.Dataset.from_dict({"text": TEXTS})
    (datasets.DatasetDict({split: saved}) if split else saved).save_to_disk(tmp_path / "web")
    folder = tmp_path / "web" / split
    message = rf"'{folder}' was written by save_to_disk of Hugging Face datasets, .*load_from_disk\('{folder}'\)"
    with pytest.raises(UserError, match=message):
        corpus_of(tmp_path)
    datasets.load_from_disk(str(folder)).to_parquet(str(tmp_path / "news.parquet"))
    assert texts(corpus_of(tmp_path, ("news",)), "news") == TEXTS


def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    web = write_web(tmp_path, "a/b.txt")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if path == web / "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("autoscale_exp.data.preparation.folders.os.scandir", guarded)
    with pytest.raises(UserError, match=r"web/a' cannot be read: Permission denied; change its permissions"):
        corpus_of(tmp_path)
