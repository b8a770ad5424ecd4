import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from autoscale_exp.config import LocalDataConf, TokenizerConf
from autoscale_exp.data.corpus import open_corpus
from autoscale_exp.data.packing import Split
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.data.tokenizer import load_tokenizer, train_bpe
from autoscale_exp.prepare import prepare_store, summary

DOMAINS = ["web", "books"]


def record(domain: str, group: int, number: int) -> dict[str, str]:
    words = " ".join(f"{domain}{(group * k + number) % 37}" for k in range(20))
    return {"text": f"<g{group:03}> {words}", "source": f"g{group:03}#{number}"}


def write_corpus(folder: Path, **extra: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for domain in DOMAINS:
        records = [record(domain, group, number) for group in range(40) for number in range(4)]
        lines = [json.dumps(r) + "\n" for r in records + extra.get(domain, [])]
        (folder / f"{domain}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def conf(tmp_path: Path) -> LocalDataConf:
    return LocalDataConf(
        name="test",
        domains=DOMAINS,
        store=str(tmp_path / "store"),
        seq_len=32,
        validation_fraction=0.2,
        validation_rows=5,
        tokenizer=TokenizerConf(vocab_size=300),
        path=str(write_corpus(tmp_path / "corpus")),
        group_field="source",
        group_separator="#",
    )


def groups_in(store: TokenStore, split: str) -> set[str]:
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    decoded = (tokenizer.decode(row) for domain in store.domains for row in store.rows(split, domain))
    return {group for text in decoded for group in re.findall(r"<g\d{3}>", text)}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*"))}


def test_no_group_is_in_both_splits(conf):
    store = prepare_store(conf)
    trained_on, held_out = groups_in(store, "train"), groups_in(store, "validation")
    assert len(trained_on) > 25
    assert held_out
    assert not trained_on & held_out


def test_training_rows_decode_to_the_documents_in_order(conf):
    store = prepare_store(conf)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    split = Split(open_corpus(conf), DOMAINS, 0.2)
    for domain in DOMAINS:
        texts = [document.text for document in split.training(domain)]
        decoded = tokenizer.decode(store.rows("train", domain).ravel())
        expected = "".join(text + "<|endoftext|>" for text in texts)
        assert expected.startswith(decoded)
        assert len(tokenizer.encode(expected[len(decoded) :])) < 32
        entry = store.manifest["domains"][domain]["train"]
        assert entry["documents"] == len(texts)
        assert entry["characters"] == sum(map(len, texts))


def test_validation_rows_are_whole_rows_of_held_out_documents(conf):
    store = prepare_store(conf)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    split = Split(open_corpus(conf), DOMAINS, 0.2)
    for domain in DOMAINS:
        text = "".join(document.text + "<|endoftext|>" for document in split.validation(domain))
        tokens = tokenizer.encode(text)
        rows = [tokens[i : i + 32] for i in range(0, len(tokens) - 31, 32)]
        chosen = store.rows("validation", domain).tolist()
        assert len(chosen) == 5 < len(rows)
        places = [rows.index(row) for row in chosen]
        assert places == sorted(set(places))
        entry = store.manifest["domains"][domain]["validation"]
        assert entry["tokens"] + entry["dropped_tokens"] == len(tokens)


def test_copies_of_held_out_texts_are_not_trained_on_and_are_counted(conf, tmp_path: Path):
    plain = prepare_store(conf)
    held_out = min(groups_in(plain, "validation"))
    trained_on = min(groups_in(plain, "train"))
    copies = [record("books", int(held_out[2:5]), n) | {"source": f"{trained_on[1:5]}#{n}"} for n in range(3)]
    write_corpus(tmp_path / "corpus", web=copies)
    store = prepare_store(replace(conf, store=str(tmp_path / "again")))
    assert store.manifest["domains"]["web"]["duplicates_of_validation"] == 3
    assert store.manifest["domains"]["books"]["duplicates_of_validation"] == 0
    assert held_out not in groups_in(store, "train")


def test_the_same_text_gives_the_same_store_anywhere(conf, tmp_path: Path):
    first = prepare_store(conf)
    moved = write_corpus(tmp_path / "elsewhere")
    second = prepare_store(replace(conf, store=str(tmp_path / "again"), path=str(moved)))
    assert second.fingerprint == first.fingerprint


def test_prepared_twice_nothing_is_touched(conf):
    store = prepare_store(conf)
    before = state_of(store.folder)
    assert prepare_store(conf) == store
    assert state_of(store.folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq_len": 64}, "seq_len: 32, not 64"),
        ({"validation_rows": 6}, "validation_rows: 5, not 6"),
        ({"tokenizer": TokenizerConf(vocab_size=310)}, "tokenizer.vocab_size: 300, not 310"),
        ({"group_separator": None}, "group_separator: #, not None"),
        ({"domains": ["books", "web"]}, r"domains: \['web', 'books'\], not \['books', 'web'\]"),
    ],
)
def test_another_config_is_an_error_that_names_the_key(change, message, conf):
    store = prepare_store(conf)
    before = state_of(store.folder)
    with pytest.raises(ValueError, match=rf"made from another config or other files \({message}\)"):
        prepare_store(replace(conf, **change))
    assert state_of(store.folder) == before


def test_changed_text_is_an_error_that_names_the_file(conf, tmp_path: Path):
    prepare_store(conf)
    write_corpus(tmp_path / "corpus", books=[{"text": "one more", "source": "g001#9"}])
    with pytest.raises(ValueError, match=r"other files \(files.books.books.jsonl: \d+, not \d+\)"):
        prepare_store(conf)


def test_a_changed_text_is_found_also_where_files_have_the_same_name(conf, tmp_path: Path):
    pages = [tmp_path / "text" / domain / str(number) / "page.txt" for domain in DOMAINS for number in range(60)]
    for number, page in enumerate(pages):
        page.parent.mkdir(parents=True)
        page.write_text(f"page {number} says {number**7} " * 10)
    conf = replace(conf, path=str(tmp_path / "text"), group_field=None, group_separator=None, validation_rows=2)
    store = prepare_store(conf)
    assert prepare_store(conf) == store
    pages[3].write_text(pages[3].read_text() + "and more")
    with pytest.raises(ValueError, match=r"other files \(files.web.web/3/page.txt: \d+, not \d+\)"):
        prepare_store(conf)


def test_rows_have_four_bytes_where_the_vocabulary_needs_them(conf, tmp_path: Path):
    entries = {"<|endoftext|>": 0} | {f"w{n}": n for n in range(1, 70_000)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(entries, unk_token="w1"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(tmp_path / "words")
    for domain in DOMAINS:
        lines = (json.dumps({"text": " ".join(f"w{69_999 - n * 7 - k}" for k in range(60))}) for n in range(100))
        (tmp_path / "corpus" / f"{domain}.jsonl").write_text("\n".join(lines))
    tokenizer = TokenizerConf(name=str(tmp_path / "words"))
    store = prepare_store(replace(conf, tokenizer=tokenizer, group_field=None, group_separator=None))
    rows = store.rows("train", "web")
    assert rows.dtype == np.uint32
    assert rows.max() > 2**16
    assert set(rows.ravel().tolist()) <= {0, *range(69_999 - 99 * 7 - 59, 70_000)}


def test_a_saved_tokenizer_is_used_by_path(conf, tmp_path: Path):
    trained = train_bpe(["web1 web2 books1 books2"] * 50, 260)
    trained.save_pretrained(tmp_path / "saved")
    store = prepare_store(replace(conf, tokenizer=TokenizerConf(name=str(tmp_path / "saved"))))
    assert store.vocab_size == 260
    assert load_tokenizer(store.folder / "tokenizer").encode("web36") == trained.encode("web36")


def test_a_tokenizer_that_cannot_be_had_is_an_error(conf):
    with pytest.raises(ValueError, match=r"data.tokenizer.name is 'no-one/nothing'"):
        prepare_store(replace(conf, tokenizer=TokenizerConf(name="no-one/nothing")))
    with pytest.raises(ValueError, match="no finished token store"):
        open_store(conf.store)


def test_a_store_left_half_written_is_written_anew(conf):
    with pytest.raises(ValueError, match=r"validation_rows is 5000, but the held-out documents of 'web' make only \d+"):
        prepare_store(replace(conf, validation_rows=5000))
    folder = Path(conf.store)
    assert (folder / "train" / "web.bin").stat().st_size
    with pytest.raises(ValueError, match="no finished token store"):
        open_store(folder)
    (folder / "train" / "leftover.bin").write_text("x")
    store = prepare_store(conf)
    assert open_store(folder) == store
    assert not (folder / "train" / "leftover.bin").exists()


def test_a_damaged_store_is_not_taken_for_finished(conf):
    store = prepare_store(conf)
    (store.folder / "train" / "web.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train/web.bin' is not what was written"):
        prepare_store(conf)


@pytest.mark.parametrize("content", ["", '{"text": "short", "source": "g001"}\n'])
def test_a_domain_without_a_row_is_an_error_that_names_it(content, conf, tmp_path: Path):
    (tmp_path / "corpus" / "books.jsonl").write_text(content)
    with pytest.raises(ValueError, match="domain 'books' has no row of 32 tokens to train on"):
        prepare_store(conf)


def test_a_missing_domain_is_an_error_that_names_it(conf):
    with pytest.raises(ValueError, match=r"data.domains names 'wiki'"):
        prepare_store(replace(conf, domains=[*DOMAINS, "wiki"]))


def test_a_bad_line_is_an_error_that_names_it(conf, tmp_path: Path):
    with (tmp_path / "corpus" / "books.jsonl").open("a") as file:
        file.write('{"text": 1}\n')
    with pytest.raises(ValueError, match=r"books.jsonl', line 161: expected a JSON object with the text field 'text'"):
        prepare_store(conf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": ["web"]}, "data.domains must name at least two different domains"),
        ({"domains": ["web", "web"]}, "data.domains must name at least two different domains"),
        ({"seq_len": 1}, "data.seq_len is 1; it must be at least 2"),
        ({"validation_rows": 0}, "data.validation_rows is 0; it must be at least 2"),
        ({"validation_fraction": 0.0}, "data.validation_fraction is 0.0; it must lie between 0 and 1"),
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0; it must lie between 0 and 1"),
        ({"tokenizer": TokenizerConf(vocab_size=256)}, "data.tokenizer.vocab_size is 256"),
    ],
)
def test_a_value_out_of_range_is_an_error_before_anything_is_written(change, message, conf):
    with pytest.raises(ValueError, match=message):
        prepare_store(replace(conf, **change))
    assert not Path(conf.store).exists()


def test_the_summary_has_the_training_tokens_of_each_domain(store: TokenStore):
    millions = [f"{d} {store.rows('train', d).size / 1e6:.2f}M" for d in store.domains]
    assert summary(store) == f"{', '.join(millions)} tokens in rows of 16, 300 entries"
