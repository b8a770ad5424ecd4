import contextlib
import errno
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.data.conf import FilesConf, FilesDataConf, TokenizerConf
from autoscale_exp.data.preparation import files, pipeline, workers
from autoscale_exp.data.preparation.files import open_corpus
from autoscale_exp.data.preparation.packing import RowFormat
from autoscale_exp.data.preparation.parts import Workplace, keys_of, scan_part, write_part
from autoscale_exp.data.preparation.pipeline import prepare_store
from autoscale_exp.data.preparation.split import Split
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.data.tokenizer import load_tokenizer, train_bpe
from autoscale_exp.prepare import summary
from tests.data.preparation.corpora import write_entries

DOMAINS = ["web", "books"]
FORK = multiprocessing.get_context("fork")


def entry(domain: str, group: int, number: int) -> dict[str, str]:
    words = " ".join(f"{domain}{(group * k + number) % 37}" for k in range(20))
    return {"text": f"<g{group:03}> {words}", "source": f"g{group:03}#{number}"}


def write_corpus(folder: Path, **extra: list[dict[str, Any]]) -> Path:
    for domain in DOMAINS:
        entries = [entry(domain, group, number) for group in range(40) for number in range(4)]
        write_entries(folder / f"{domain}.jsonl", [*entries, *extra.get(domain, [])])
    return folder


@pytest.fixture
def conf(tmp_path: Path) -> FilesDataConf:
    return FilesDataConf(
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


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five parts per domain."""
    monkeypatch.setattr(files, "PART_BYTES", 6000)
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.01)


def groups_in(store: TokenStore, split: str) -> set[str]:
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    decoded = (tokenizer.decode(row) for domain in store.domains for row in store.rows(split, domain)[:])
    return {group for text in decoded for group in re.findall(r"<g\d{3}>", text)}


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a finished store that do not depend on when and where it was made."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock" and p.name != "verified.json"]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    manifest = json.loads(files.pop("manifest.json"))
    kept = {key: value for key, value in manifest.items() if key not in ("seconds", "checksum")}
    return files | {"manifest": json.dumps(kept).encode()}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*"))}


def in_process(conf: FilesDataConf, before: Callable[[], None] = lambda: None) -> Any:
    """A process that prepares a store and has begun to."""

    def prepare() -> None:
        before()
        prepare_store(conf)
        os._exit(0)  # no exit handlers of the test session

    process = FORK.Process(target=prepare)
    process.start()
    return process


def documents_by_part(conf: FilesDataConf, domain: str, held_out: bool) -> Iterator[list[str]]:
    """What each part gives to a side of the split; no text is twice in the corpora here."""
    corpus = open_corpus(conf)
    split = Split(conf.validation_fraction, conf.held_out_domains)
    for part in corpus.parts_of(domain):
        yield [d.text for d in corpus.documents(part) if d.domain == domain and split.is_held_out(d) == held_out]


@pytest.mark.usefixtures("small_parts")
def test_training_rows_decode_to_the_documents_of_each_part_in_order(conf):
    store = prepare_store(conf)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    for domain in DOMAINS:
        parts = list(documents_by_part(conf, domain, held_out=False))
        assert len(parts) > 3
        expected = []
        for texts in parts:
            tokens = [t for text in texts for t in (*tokenizer.encode(text), tokenizer.eos_token_id)]
            expected += tokens[: len(tokens) // 32 * 32]
        assert store.rows("train", domain)[:].ravel().tolist() == expected
        entry = store.manifest.domains[domain].train
        assert entry.rows * 32 == entry.tokens == len(expected)
        assert entry.documents == sum(map(len, parts))
        assert entry.characters == sum(len(text) for texts in parts for text in texts)
        first = "".join(text + "<|endoftext|>" for text in parts[0])
        assert first.startswith(tokenizer.decode(store.rows("train", domain)[0:3].ravel()))


@pytest.mark.usefixtures("small_parts")
def test_rows_for_a_masked_model_begin_with_cls_and_have_sep_behind_documents(conf):
    store = prepare_store(replace(conf, tokenizer=TokenizerConf("wordpiece", 300)))
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    for domain in DOMAINS:
        expected = []
        for texts in documents_by_part(conf, domain, held_out=False):
            tokens = []
            for text in texts:
                tokens += [*tokenizer.encode(text, add_special_tokens=False), tokenizer.sep_token_id]
            expected += tokens[: len(tokens) // 31 * 31]
        rows = store.rows("train", domain)[:]
        assert (rows[:, 0] == tokenizer.cls_token_id).all()
        assert rows[:, 1:].ravel().tolist() == expected


def test_validation_rows_are_whole_rows_of_held_out_documents(conf):
    store = prepare_store(conf)
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    for domain in DOMAINS:
        rows, num_tokens = [], 0
        for texts in documents_by_part(conf, domain, held_out=True):
            tokens = [t for text in texts for t in (*tokenizer.encode(text), tokenizer.eos_token_id)]
            rows += [tokens[i : i + 32] for i in range(0, len(tokens) - 31, 32)]
            num_tokens += len(tokens)
        chosen = store.rows("validation", domain)[:].tolist()
        assert len(chosen) == 5 < len(rows)
        places = [rows.index(row) for row in chosen]
        assert places == sorted(set(places))
        entry = store.manifest.domains[domain].validation
        assert entry.tokens + entry.dropped_tokens == num_tokens


def test_no_group_is_in_both_splits(conf):
    store = prepare_store(conf)
    trained_on, held_out = groups_in(store, "train"), groups_in(store, "validation")
    assert len(trained_on) > 25
    assert held_out
    assert not trained_on & held_out


def test_copies_of_held_out_texts_are_not_trained_on_and_are_counted(conf, tmp_path: Path):
    plain = prepare_store(conf)
    held_out = min(groups_in(plain, "validation"))
    trained_on = min(groups_in(plain, "train"))
    copies = [entry("books", int(held_out[2:5]), n) | {"source": f"{trained_on[1:5]}#{n}"} for n in range(3)]
    write_corpus(tmp_path / "corpus", web=copies)
    store = prepare_store(replace(conf, store=str(tmp_path / "again")))
    assert store.manifest.domains["web"].duplicates_of_validation == 3
    assert store.manifest.domains["books"].duplicates_of_validation == 0
    assert held_out not in groups_in(store, "train")


@pytest.mark.usefixtures("small_parts")
def test_a_held_out_domain_has_validation_rows_only_and_its_texts_are_nowhere_in_training(conf, tmp_path: Path):
    write_entries(tmp_path / "corpus" / "news.jsonl", (entry("news", 100 + g, 0) for g in range(60)))
    copies = [entry("news", 100 + g, 0) | {"source": f"copy{g}"} for g in range(60)]
    write_corpus(tmp_path / "corpus", web=copies)
    for group_field in ("source", None):
        folder = str(tmp_path / f"store of {group_field}")
        store = prepare_store(replace(conf, held_out_domains=["news"], store=folder, group_field=group_field))
        assert store.domains == DOMAINS
        assert store.validation_domains == [*DOMAINS, "news"]
        assert store.num_rows("validation", "news") == 5
        assert not (store.folder / "train" / "news").exists()
        assert {group for group in groups_in(store, "train") if int(group[2:5]) >= 100} == set()
        counted = store.manifest.domains["web"].duplicates_of_validation
        assert counted + sum(d.endswith("news") for d in groups_in(store, "train")) <= 60
        assert counted >= 30


def test_windows_are_one_piece_of_the_published_length_of_each_long_document(conf, tmp_path: Path):
    texts = {d: [f"{d} {n} " + " ".join(str(n * k) for k in range(n * 8)) for n in range(80)] for d in DOMAINS}
    for domain in DOMAINS:
        write_entries(tmp_path / "corpus" / f"{domain}.jsonl", ({"text": text} for text in texts[domain]))
    store = prepare_store(replace(conf, preparation="windows", group_field=None))
    tokenizer = load_tokenizer(store.folder / "tokenizer")
    split = Split(0.2, [])
    for domain in DOMAINS:
        documents = [d for d in open_documents(conf, domain) if len(d.text) >= 1000]
        expected = [d.text for d in documents if not split.is_held_out(d)]
        windows = tokenizer.decode(store.rows("train", domain)[:].ravel()).split("<|endoftext|>")
        assert len(expected) - 1 <= len(windows) <= len(expected) + 1
        for window, text in zip(windows[:-1], expected, strict=False):
            assert len(window) == 1000
            assert window in text
        entry = store.manifest.domains[domain]
        assert entry.train.characters == 1000 * len(expected)
        assert entry.too_short == sum(len(text) < 1000 for text in texts[domain])


def open_documents(conf: FilesDataConf, domain: str) -> list[Any]:
    corpus = open_corpus(replace(conf, group_field=None))
    return [d for part in corpus.parts for d in corpus.documents(part) if d.domain == domain]


@pytest.mark.usefixtures("small_parts")
def test_any_number_of_shards_in_any_order_gives_the_same_store(conf, tmp_path: Path):
    whole = prepare_store(conf)
    for name, shards in {"two": [1, 0], "three": [2, 0, 1], "many": [*range(16, -1, -1)]}.items():
        asked = replace(conf, store=str(tmp_path / name))
        for shard in shards[:-1]:
            store = prepare_store(asked, shard=shard, num_shards=len(shards))
            if shards[-1] < 10:
                assert store is None
                with pytest.raises(UserError, match="no finished token store"):
                    open_store(asked.store)
        store = prepare_store(asked, shard=shards[-1], num_shards=len(shards))
        assert contents(store.folder) == contents(whole.folder)
        assert not (store.folder / "parts").exists()


@pytest.mark.usefixtures("small_parts")
def test_any_number_of_worker_processes_gives_the_same_store(conf, tmp_path: Path):
    conf = replace(conf, group_field=None, group_separator=None)  # nothing to find first, so one pool is enough
    whole = prepare_store(conf)
    store = prepare_store(replace(conf, store=str(tmp_path / "again")), num_workers=2)
    assert contents(store.folder) == contents(whole.folder)
    assert store.fingerprint == whole.fingerprint


@pytest.mark.usefixtures("small_parts")
def test_killed_before_any_file_is_whole_preparation_goes_on_to_the_same_store(conf, tmp_path: Path):
    whole = contents(prepare_store(conf).folder)

    def kill_at(number: int) -> Callable[[], None]:
        def patch() -> None:
            replacing, left = atomic.replacing, iter(range(number, -1, -1))

            @contextlib.contextmanager
            def killing(path: Path) -> Iterator[Path]:
                with replacing(path) as temporary:
                    yield temporary
                    if not next(left, 1):
                        os.kill(os.getpid(), signal.SIGKILL)

            atomic.replacing = killing

        return patch

    kills = 0
    for number in range(0, 100, 7):
        asked = replace(conf, store=str(tmp_path / f"killed {number}"))
        process = in_process(asked, kill_at(number))
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        assert contents(prepare_store(asked).folder) == whole
    assert kills > 5


@pytest.mark.usefixtures("small_parts")
def test_processes_that_prepare_one_store_at_a_time_share_the_work_and_all_end_well(conf, tmp_path: Path):
    whole = prepare_store(conf)
    asked = replace(conf, store=str(tmp_path / "shared"))
    processes = [in_process(asked) for _ in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(Path(asked.store)) == contents(whole.folder)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", ["_find_held_out", "run_parts"])
def test_a_process_that_another_overtakes_has_the_store(step, conf, monkeypatch: pytest.MonkeyPatch):
    do = getattr(pipeline, step)

    def overtaken(*args):
        do(*args)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, step, do)
            process = in_process(conf)
            process.join()
            assert process.exitcode == 0

    monkeypatch.setattr(pipeline, step, overtaken)
    assert prepare_store(conf) == open_store(conf.store)


@pytest.mark.usefixtures("small_parts")
def test_files_that_another_process_found_replaced_are_an_error(conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    do = pipeline.run_parts

    def replacing(work, *args):
        do(work, *args)
        if work.func is write_part:
            with (tmp_path / "corpus" / "web.jsonl").open("a") as file:
                file.write(json.dumps(entry("web", 77, 1)) + "\n")
            with monkeypatch.context() as patch:
                patch.setattr(pipeline, "run_parts", do)
                assert prepare_store(conf, shard=1, num_shards=2) is None

    monkeypatch.setattr(pipeline, "run_parts", replacing)
    with pytest.raises(UserError, match=r"files were replaced while '.*' was prepared; run the same command again"):
        prepare_store(conf, shard=0, num_shards=2)


@pytest.mark.usefixtures("small_parts")
def test_a_process_that_comes_late_leaves_a_finished_store_alone(conf):
    store = prepare_store(conf)
    before = state_of(store.folder / "train")
    corpus = open_corpus(conf)
    place = Workplace(store.folder, corpus, 0.2, (), keys_of(corpus))
    for part in place.corpus.parts:
        assert scan_part(place, part)
        assert write_part(place, RowFormat(32, "<u2", 0), part, print, lambda: 1)
    assert state_of(store.folder / "train") == before
    assert prepare_store(conf).fingerprint == store.fingerprint
    assert not (store.folder / "parts").exists()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("number", [0, 9, 13, 30])
def test_a_full_disk_is_one_line_and_when_there_is_space_again_preparation_goes_on(
    number, conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = contents(prepare_store(replace(conf, store=str(tmp_path / "whole"))).folder)
    left = iter(range(number, -1, -1))

    def fsync(_: int) -> None:
        if not next(left, 1):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(
            UserError, match=r"(is full|No space left on device); free some space and run the same command again"
        ) as error:
            prepare_store(conf)
    assert "\n" not in str(error.value)
    assert not list(Path(conf.store).rglob("*.tmp"))
    assert contents(prepare_store(conf).folder) == whole


def test_text_that_cannot_be_written_whole_leaves_no_rows_behind(conf, monkeypatch: pytest.MonkeyPatch):
    def replacing_full(path: Path) -> Any:
        return (
            contextlib.nullcontext(Path("/dev/full")) if path.suffix == ".bin" and "train" in str(path) else real(path)
        )

    real = atomic.replacing
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replacing", replacing_full)
        with pytest.raises(UserError, match="is full"):
            prepare_store(conf)
    assert not list(Path(conf.store).glob("train/*/*"))
    assert prepare_store(conf)


@pytest.mark.usefixtures("small_parts")
def test_a_bad_line_is_an_error_that_names_file_and_byte_and_leaves_no_part_of_a_file(conf, tmp_path: Path):
    path = tmp_path / "corpus" / "books.jsonl"
    size = path.stat().st_size
    with path.open("a") as file:
        file.write('{"text": 1, "source": "a"}\n')
    with pytest.raises(UserError, match=rf"books.jsonl', line at byte {size}: field 'text' is 1, which is not a text"):
        prepare_store(conf)
    assert not list(Path(conf.store).rglob("*.tmp"))


def test_a_mistake_that_is_noticed_before_anything_is_made_may_be_corrected(conf):
    with pytest.raises(UserError, match=r"data.tokenizer.name is 'bppe', which cannot be loaded"):
        prepare_store(replace(conf, tokenizer=TokenizerConf(name="bppe")))
    assert prepare_store(conf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_field": "content"}, r"line at byte 0: no field 'content', there is source, text"),
        ({"group_field": "meta.url"}, r"line at byte 0: no field 'meta.url', there is source, text"),
        ({"sources": {"books": {"keep": {"language": "en"}}}}, r"books.jsonl', line at byte 0: no field 'language'"),
    ],
)
def test_a_wrong_field_is_an_error_before_a_store_is_begun(change, message, conf):
    with pytest.raises(UserError, match=message):
        prepare_store(replace(conf, **change))
    assert not (Path(conf.store) / "plan.json").exists()
    assert prepare_store(conf)


def test_domains_in_the_same_compressed_files_give_what_files_of_their_own_give(conf, tmp_path: Path):
    own = prepare_store(conf)
    mixed = [entry(d, group, number) | {"set": d} for group in range(40) for number in range(4) for d in DOMAINS]
    write_entries(tmp_path / "mixed" / "all.jsonl.zst", mixed)
    sources = {domain: FilesConf(keep={"set": domain}) for domain in DOMAINS}
    asked = replace(conf, path=str(tmp_path / "mixed"), files=["*.zst"], sources=sources, store=str(tmp_path / "again"))
    store = prepare_store(asked)
    assert store.fingerprint == own.fingerprint


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
    with pytest.raises(UserError, match=rf"made from another config or other files \({message}\)"):
        prepare_store(replace(conf, **change))
    assert state_of(store.folder) == before


@pytest.mark.usefixtures("small_parts")
def test_another_config_of_a_store_that_is_begun_is_an_error_too(conf):
    assert prepare_store(conf, shard=0, num_shards=2) is None
    with pytest.raises(UserError, match=r"made from another config or other files \(seq_len: 32, not 64\)"):
        prepare_store(replace(conf, seq_len=64), shard=1, num_shards=2)


def test_changed_text_is_an_error_that_names_the_file(conf, tmp_path: Path):
    prepare_store(conf)
    write_corpus(tmp_path / "corpus", books=[{"text": "one more", "source": "g001#9"}])
    with pytest.raises(UserError, match=r"other files \(1 file of text, such as 'books.jsonl'\); "):
        prepare_store(conf)


def test_a_file_of_the_same_size_with_another_time_is_said_to_be_taken_for_unchanged(conf, tmp_path: Path, caplog):
    store = prepare_store(conf)
    os.utime(tmp_path / "corpus" / "books.jsonl")
    assert prepare_store(conf) == store
    assert (
        "1 files have another time than when the store was made but the same size, such as 'books.jsonl'" in caplog.text
    )


def test_a_corpus_that_was_moved_is_the_same(conf, tmp_path: Path):
    store = prepare_store(conf)
    moved = (tmp_path / "corpus").rename(tmp_path / "moved")
    assert prepare_store(replace(conf, path=str(moved))) == store


def test_a_tokenizer_is_trained_in_one_pass_over_files_that_domains_share(conf, tmp_path: Path, monkeypatch):
    mixed = [entry(d, group, number) | {"set": d} for group in range(40) for number in range(4) for d in DOMAINS]
    write_entries(tmp_path / "corpus" / "all.jsonl", mixed)
    read = []

    class Counted(Split):
        def is_held_out(self, document):
            read.append(document)
            return super().is_held_out(document)

    monkeypatch.setattr(pipeline, "Split", Counted)
    prepare_store(replace(conf, files=["all.jsonl"], sources={d: FilesConf(keep={"set": d}) for d in DOMAINS}))
    assert len(read) == len(mixed)


def test_many_changed_files_are_counted_and_one_is_named(conf, tmp_path: Path):
    for domain in DOMAINS:
        for number in range(60):
            page = tmp_path / "text" / domain / str(number) / "page.txt"
            page.parent.mkdir(parents=True)
            page.write_text(f"page {number} says {domain} {number**7} " * 10)
    conf = replace(conf, path=str(tmp_path / "text"), group_field=None, group_separator=None, validation_rows=2)
    store = prepare_store(conf)
    assert prepare_store(conf) == store
    for page in (tmp_path / "text").rglob("*.txt"):
        page.write_text(page.read_text() + "and more")
    changed = len(DOMAINS) * 60
    with pytest.raises(
        UserError, match=rf"\({changed} files of text, such as '[^']*/page.txt'\); set data.store"
    ) as error:
        prepare_store(conf)
    assert str(error.value).count("page.txt") == 1


def test_fewer_validation_rows_may_be_asked_for_when_there_are_not_enough(conf):
    with pytest.raises(UserError, match=r"validation_rows is 5000, but the held-out documents of '\w+' make only \d+"):
        prepare_store(replace(conf, validation_rows=5000))
    folder = Path(conf.store)
    before = state_of(folder / "train")
    assert [name for name in before if name.endswith(".bin")]
    with pytest.raises(UserError, match="no finished token store"):
        open_store(folder)
    store = prepare_store(conf)
    assert before.items() <= state_of(folder / "train").items()
    assert store.num_rows("validation", "web") == store.manifest.config["validation_rows"] == 5
    assert open_store(folder) == store


@pytest.mark.usefixtures("small_parts")
def test_too_little_text_of_a_small_domain_is_told_before_a_large_one_is_tokenized(conf, tmp_path: Path):
    write_corpus(tmp_path / "corpus", books=[entry("books", group, 5) for group in range(200)])
    write_entries(tmp_path / "corpus" / "web.jsonl", [entry("web", group, n) for group in range(10) for n in range(4)])
    asked = replace(conf, domains=["books", "web"])
    with pytest.raises(
        UserError, match=r"validation_rows is 12, but the held-out documents of 'web' make only 11 rows"
    ):
        prepare_store(replace(asked, validation_rows=12))
    assert not (Path(conf.store) / "train" / "books").exists()
    assert prepare_store(replace(asked, validation_rows=11)).num_rows("validation", "web") == 11


@pytest.mark.usefixtures("small_parts")
def test_a_shard_does_not_judge_a_domain_whose_other_parts_are_not_there(conf):
    asked = replace(conf, validation_rows=5000)
    assert prepare_store(asked, shard=0, num_shards=2) is None
    with pytest.raises(UserError, match="validation_rows is 5000"):
        prepare_store(asked, shard=1, num_shards=2)


@pytest.mark.parametrize("name", ["train", "validation", "tokenizer", "parts"])
def test_a_folder_with_something_else_in_it_is_left_alone(name, conf):
    precious = Path(conf.store) / name / "web.jsonl"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(UserError, match=f"store', which has a '{name}' in it but is no token store; give another"):
        prepare_store(conf)
    assert precious.read_text() == "mine"


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("group_field", ["source", None])
def test_when_a_damaged_file_is_replaced_only_what_it_gave_is_made_anew(
    group_field, conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "TOKENIZER_CHARACTERS", 2000)  # so that its training does not get that far
    conf = replace(conf, group_field=group_field, validation_rows=2, tokenizer=TokenizerConf(vocab_size=280))
    whole = prepare_store(replace(conf, store=str(tmp_path / "whole")))
    path = tmp_path / "corpus" / "web.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])  # the smaller one, whose parts come last
    with pytest.raises(UserError, match="the file seems to be cut off there, get it again"):
        prepare_store(conf)
    finished = {
        name: state for name, state in state_of(Path(conf.store) / "train" / "books").items() if "." in name[-5:]
    }
    path.write_bytes(content)
    store = prepare_store(conf)
    assert {n: b for n, b in contents(store.folder).items() if n != "manifest"} == {
        n: b for n, b in contents(whole.folder).items() if n != "manifest"
    }
    if group_field is None:  # else the scan of all text finds it first
        assert len(finished) == 6
    assert finished.items() <= state_of(Path(conf.store) / "train" / "books").items()


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_gave_rows_already_may_be_replaced_by_a_shorter_one(conf, tmp_path: Path):
    with pytest.raises(UserError, match="validation_rows is 5000"):
        prepare_store(replace(conf, validation_rows=5000))
    assert list(Path(conf.store).glob("train/books/*.bin"))
    path = tmp_path / "corpus" / "books.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:90]))
    store = prepare_store(replace(conf, validation_rows=2))
    fresh = prepare_store(replace(conf, validation_rows=2, store=str(tmp_path / "fresh")))
    assert contents(store.folder) == contents(fresh.folder)


def test_a_damaged_store_is_not_taken_for_finished(conf):
    store = prepare_store(conf)
    (store.folder / "train" / "web" / "00000.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/web/00000.bin' is not what was written"):
        prepare_store(conf)


def test_rows_have_four_bytes_where_the_vocabulary_needs_them(conf, tmp_path: Path):
    entries = {"<|endoftext|>": 0} | {f"w{n}": n for n in range(1, 70_000)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(entries, unk_token="w1"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(tmp_path / "words")
    for domain in DOMAINS:
        texts = (" ".join(f"w{69_999 - n * 7 - k}" for k in range(60)) for n in range(100))
        write_entries(tmp_path / "corpus" / f"{domain}.jsonl", ({"text": f"{domain} {text}"} for text in texts))
    tokenizer = TokenizerConf(name=str(tmp_path / "words"))
    store = prepare_store(replace(conf, tokenizer=tokenizer, group_field=None, group_separator=None))
    rows = store.rows("train", "web")[:]
    assert rows.dtype == np.uint32
    assert rows.max() > 2**16
    assert set(rows.ravel().tolist()) <= {0, 1, *range(69_999 - 99 * 7 - 59, 70_000)}


def test_a_saved_tokenizer_is_used_by_path(conf, tmp_path: Path):
    trained = train_bpe(["web1 web2 books1 books2"] * 50, 260)
    trained.save_pretrained(tmp_path / "saved")
    store = prepare_store(replace(conf, tokenizer=TokenizerConf(name=str(tmp_path / "saved"))))
    assert store.vocab_size == 260
    assert load_tokenizer(store.folder / "tokenizer").encode("web36") == trained.encode("web36")


def test_documents_are_whole_though_the_tokenizer_was_saved_with_a_length(conf, tmp_path: Path):
    for name, length in (("plain", None), ("cutting", 5)):
        trained = train_bpe(["web1 web2 books1 books2"] * 50, 260)
        if length:
            trained.backend_tokenizer.enable_truncation(length)
            trained.backend_tokenizer.enable_padding(length=8)
        trained.save_pretrained(tmp_path / name)
    stores = [
        prepare_store(
            replace(conf, tokenizer=TokenizerConf(name=str(tmp_path / name)), store=str(tmp_path / f"of {name}"))
        )
        for name in ("plain", "cutting")
    ]
    assert (stores[0].rows("train", "web")[:] == stores[1].rows("train", "web")[:]).all()


def test_a_text_that_mentions_the_end_of_text_does_not_end_there(conf, tmp_path: Path):
    write_corpus(tmp_path / "corpus", web=[{"text": "<|endoftext|>" * 200, "source": f"h{n}#"} for n in range(10)])
    store = prepare_store(conf)
    end = load_tokenizer(store.folder / "tokenizer").eos_token_id
    ends = sum(int((store.rows("train", d)[:] == end).sum()) for d in DOMAINS)
    assert ends <= sum(store.manifest.domains[d].train.documents for d in DOMAINS)


def test_a_tokenizer_that_cannot_be_had_is_an_error(conf):
    with pytest.raises(UserError, match=r"data.tokenizer.name is 'no-one/nothing'"):
        prepare_store(replace(conf, tokenizer=TokenizerConf(name="no-one/nothing")))
    with pytest.raises(UserError, match="no finished token store"):
        open_store(conf.store)


@pytest.mark.parametrize("entries", [[], [{"text": "short", "source": "g001"}], [{"text": " ", "source": "g001"}]])
def test_a_domain_without_a_row_is_an_error_that_names_it(entries, conf, tmp_path: Path):
    write_entries(tmp_path / "corpus" / "books.jsonl", entries)
    with pytest.raises(UserError, match="domain 'books' has no row of 32 tokens to train on"):
        prepare_store(conf)


def test_a_missing_domain_is_an_error_that_names_it(conf):
    with pytest.raises(UserError, match=r"data.domains names 'wiki'"):
        prepare_store(replace(conf, domains=[*DOMAINS, "wiki"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": ["web"]}, r"data.domains is \['web'\]; name at least two domains"),
        ({"domains": ["web", "books", "web"]}, "data.domains name 'web' 2 times; name each domain once"),
        (
            {"held_out_domains": ["web"]},
            "data.domains and data.held_out_domains together name 'web' 2 times; name each",
        ),
        (
            {"domains": ["web", "a/b"]},
            "data.domains names 'a/b'; a name has letters, digits, '_', '-' and '.' in it only",
        ),
        ({"seq_len": 1}, "data.seq_len is 1; it must be at least 2"),
        ({"validation_rows": 0}, "data.validation_rows is 0; it must be at least 2"),
        ({"validation_fraction": 0.0}, "data.validation_fraction is 0.0; it must lie between 0 and 1"),
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0; it must lie between 0 and 1"),
        ({"min_characters": 0}, "data.min_characters is 0; it must be at least 1"),
        ({"max_characters": 0}, "data.max_characters is 0; it must be at least 1"),
        ({"preparation": "window"}, "data.preparation is 'window'; allowed are packed, windows"),
        ({"on_bad_document": "warn"}, "data.on_bad_document is 'warn'; allowed are error, skip"),
        ({"tokenizer": TokenizerConf(vocab_size=256)}, "data.tokenizer.vocab_size is 256"),
    ],
)
def test_a_value_out_of_range_is_an_error_before_anything_is_written(change, message, conf):
    with pytest.raises(UserError, match=message):
        prepare_store(replace(conf, **change))
    assert not Path(conf.store).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": 2, "num_shards": 2}, "shard is 2; the shards of num_shards=2 are 0 to 1"),
        ({"shard": -1}, "shard is -1; the shards of num_shards=1 are 0 to 0"),
        ({"num_shards": 0}, "num_shards is 0; it must be at least 1"),
        ({"num_workers": 0}, "num_workers is 0; it must be at least 1"),
    ],
)
def test_a_shard_or_number_of_workers_out_of_range_is_an_error(options, message, conf):
    with pytest.raises(UserError, match=message):
        prepare_store(conf, **options)
    assert not Path(conf.store).exists()


def test_the_summary_has_the_training_tokens_of_each_domain(store: TokenStore):
    millions = [f"{d} {store.rows('train', d)[:].size / 1e6:.2f}M" for d in store.domains]
    assert summary(store) == f"{', '.join(millions)} tokens in rows of 16, 300 entries"
