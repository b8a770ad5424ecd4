"""What a store tells of documents and files that were left out."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import fingerprint
from autoscale_exp.data.conf import FilesDataConf, TokenizerConf
from autoscale_exp.data.preparation.pipeline import prepare_store
from autoscale_exp.data.store import TokenStore, open_store
from tests.data.preparation.corpora import write_entries

DOMAINS = ["web", "books"]


def good(domain: str) -> list[dict[str, Any]]:
    return [
        {"text": f"{domain} {number} " + " ".join(f"w{number * k % 31}" for k in range(30))} for number in range(40)
    ]


@pytest.fixture
def conf(tmp_path: Path) -> FilesDataConf:
    bad = [{"text": None}, {"body": "x"}, {"text": "  "}, {"text": 1}]
    write_entries(tmp_path / "corpus" / "web" / "a.jsonl", good("web") + bad)
    (tmp_path / "corpus" / "web" / ".a.jsonl.swp").touch()
    write_entries(tmp_path / "corpus" / "books.jsonl", good("books"))
    return FilesDataConf(
        name="test",
        domains=DOMAINS,
        store=str(tmp_path / "store"),
        seq_len=16,
        validation_fraction=0.3,
        validation_rows=2,
        tokenizer=TokenizerConf(vocab_size=300),
        path=str(tmp_path / "corpus"),
        on_bad_document="skip",
    )


def num_documents(store: TokenStore, domain: str) -> int:
    entry = store.manifest.domains[domain]
    assert entry.train is not None
    return entry.train.documents + entry.validation.documents


def finished(conf: FilesDataConf) -> TokenStore:
    store = prepare_store(conf)
    assert store is not None
    return store


def test_manifest_and_log_count_what_was_left_out_by_reason(conf, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    store = finished(conf)
    web, books = (store.manifest.domains[domain] for domain in DOMAINS)
    assert num_documents(store, "web") == num_documents(store, "books") == 40
    assert (web.no_text, web.too_short, web.half_surrogates, web.no_group, web.duplicates_of_validation) == (
        3,
        1,
        0,
        0,
        0,
    )
    assert (books.no_text, books.too_short) == (0, 0)
    assert store.manifest.files_left_out == {"hidden": 1}
    assert [message for message in caplog.messages if "left out" in message] == [
        f"files left out: 1 hidden, such as '{conf.path}/web/.a.jsonl.swp'",
        "documents left out of 'web': 1 shorter than data.min_characters or blank, 3 without a text",
    ]


def test_an_error_about_a_document_is_mended_by_skipping_it_in_the_same_folder(conf):
    with pytest.raises(
        UserError, match=r"field 'text' is None, .*or data.on_bad_document=skip leaves such documents out"
    ):
        finished(replace(conf, on_bad_document="error"))
    assert num_documents(finished(conf), "web") == 40


def test_a_store_begun_with_documents_skipped_is_not_gone_on_with_as_if_they_were_an_error(conf):
    assert prepare_store(conf, num_shards=2) is None
    with pytest.raises(UserError, match=r"on_bad_document: skip, not error"):
        prepare_store(replace(conf, on_bad_document="error"), num_shards=2)


def test_a_store_without_bad_documents_is_the_same_whether_they_are_skipped(conf, tmp_path: Path):
    write_entries(tmp_path / "corpus" / "web" / "a.jsonl", good("web"))
    store = finished(replace(conf, on_bad_document="error"))
    assert finished(conf).manifest == store.manifest


@pytest.fixture
def older(conf, tmp_path: Path) -> Path:
    """A store whose manifest has none of the newer keys."""
    write_entries(tmp_path / "corpus" / "web" / "a.jsonl", good("web"))
    path = finished(replace(conf, on_bad_document="error")).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("documents_without_keep_field", "files_left_out"):
        del manifest[key]
    del manifest["config"]["on_bad_document"]
    for domain in manifest["domains"].values():
        for key in ("no_text", "half_surrogates", "no_group"):
            del domain[key]
    body = {key: value for key, value in manifest.items() if key not in ("format", "fingerprint", "checksum")}
    path.write_text(json.dumps(manifest | {"checksum": fingerprint(body)}))
    return path.parent


def test_a_store_made_before_these_counts_is_read_and_is_still_finished(conf, older: Path):
    manifest = open_store(older).manifest
    assert manifest.files_left_out == {}
    assert [entry.no_text for entry in manifest.domains.values()] == [0, 0]
    for choice in ("error", "skip"):
        assert finished(replace(conf, on_bad_document=choice)).manifest == manifest


def test_a_domain_whose_documents_all_lack_their_text_says_so_in_the_error(conf, tmp_path: Path):
    entries = [{"text": "x"}, *({"body": "x"} for _ in range(200))]
    write_entries(tmp_path / "corpus" / "web" / "a.jsonl", entries)
    message = (
        r"domain 'web' has no row of 16 tokens to train on \(documents left out: 200 without a text\); give it more"
    )
    with pytest.raises(UserError, match=message):
        finished(conf)
