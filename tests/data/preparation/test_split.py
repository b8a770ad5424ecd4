import hashlib
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_exp.data.conf import FilesDataConf
from autoscale_exp.data.preparation import files as files_module
from autoscale_exp.data.preparation import split as split_module
from autoscale_exp.data.preparation.corpus import Corpus, Document
from autoscale_exp.data.preparation.files import open_corpus
from autoscale_exp.data.preparation.split import Split, merge_digests, needs_digests, read_digests, write_digests
from tests.data.preparation.corpora import write_entries

GROUPS = [Document("web", f"text {number}", f"g{number}") for number in range(1000)]


def peak_memory(work: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held for it at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def digests_of(folder: Path, corpus: Corpus, split: Split, held_out_domains: list[str]) -> np.ndarray:
    """As preparation finds them, part by part."""
    parts = [part for part in corpus.parts if needs_digests(corpus, part, held_out_domains)]
    for part in parts:
        write_digests(folder / f"{part.index}.bin", corpus, part, split)
    merge_digests([folder / f"{part.index}.bin" for part in parts], folder / "merged.bin")
    return read_digests(folder / "merged.bin")


@st.composite
def corpora(draw: st.DrawFn) -> tuple[dict[str, list[dict[str, str]]], bool, list[str]]:
    """Entries by domain with many copies, whether they have groups, and the domains that are held out."""
    entry = st.fixed_dictionaries(
        {"text": st.sampled_from([f"text {n}" for n in range(8)]), "group": st.sampled_from("abcdef")}
    )
    domains = ["one", "two", "three"][: draw(st.integers(1, 3))]
    entries = {domain: draw(st.lists(entry, min_size=1, max_size=15)) for domain in domains}
    return entries, draw(st.booleans()), draw(st.lists(st.sampled_from(domains), unique=True, max_size=2))


@settings(max_examples=80, deadline=None)
@given(drawn=corpora(), fraction=st.sampled_from([0.1, 0.3, 0.6]), part_bytes=st.sampled_from([60, 2**20]))
def test_no_text_and_no_group_is_on_both_sides(tmp_path_factory, drawn, fraction, part_bytes):
    entries, has_groups, held_out_domains = drawn
    folder = tmp_path_factory.mktemp("split")
    for domain in entries:
        write_entries(folder / f"{domain}.jsonl", entries[domain])
    conf = FilesDataConf(path=str(folder), domains=list(entries), validation_fraction=fraction)
    conf.group_field = "group" if has_groups else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_module, "PART_BYTES", part_bytes)
        corpus = open_corpus(conf)
    digests = digests_of(folder, corpus, Split(fraction, held_out_domains), held_out_domains)
    split = Split(fraction, held_out_domains, digests)
    documents = [document for part in corpus.parts for document in corpus.documents(part)]
    assert len(documents) == sum(map(len, entries.values()))

    held_out = [d for d in documents if split.is_held_out(d)]
    candidates = [d for d in documents if not split.is_held_out(d)]
    trained_on = [d for d in candidates if not split.is_copy(d)]
    texts_held_out = {d.text for d in held_out}
    assert trained_on == [d for d in candidates if d.text not in texts_held_out]
    of_split = [d for d in held_out if d.domain not in held_out_domains]
    assert {d.domain for d in trained_on}.isdisjoint(held_out_domains)
    if has_groups:
        assert {d.group for d in of_split}.isdisjoint(d.group for d in candidates)
    else:
        assert {d.text for d in of_split}.isdisjoint(d.text for d in candidates)


def test_about_the_fraction_of_the_groups_is_held_out():
    held_out = sum(Split(0.2, []).is_held_out(document) for document in GROUPS)
    assert abs(held_out - 200) < 5 * np.sqrt(1000 * 0.2 * 0.8)


def test_a_larger_fraction_holds_out_more_groups_and_the_same_ones():
    smaller, larger = ({d.group for d in GROUPS if Split(f, []).is_held_out(d)} for f in (0.1, 0.3))
    assert smaller < larger


def test_a_group_is_on_the_same_side_whatever_its_domain_and_texts():
    split = Split(0.5, [])
    for document in GROUPS[:100]:
        others = [Document(domain, text, document.group) for domain in ("web", "books") for text in ("a", "b", "c")]
        assert {split.is_held_out(other) for other in others} == {split.is_held_out(document)}


def test_all_of_a_held_out_domain_is_held_out():
    assert all(Split(0.001, ["web"]).is_held_out(document) for document in GROUPS)


def test_copies_within_training_are_kept():
    split = Split(0.2, [], np.sort(np.arange(10, dtype=np.uint64)))
    assert not any(split.is_copy(document) for document in GROUPS)


def test_only_parts_whose_held_out_texts_can_be_elsewhere_are_scanned(tmp_path: Path):
    for domain in ("web", "news"):
        write_entries(tmp_path / f"{domain}.jsonl", [{"text": "a", "group": "b"}])
    conf = FilesDataConf(path=str(tmp_path), domains=["web"], held_out_domains=["news"], validation_fraction=0.1)
    corpus = open_corpus(conf)
    assert [needs_digests(corpus, part, ["news"]) for part in corpus.parts] == [False, True]
    conf.group_field = "group"
    corpus = open_corpus(conf)
    assert [needs_digests(corpus, part, ["news"]) for part in corpus.parts] == [True, True]


def test_digests_are_the_sorted_hashes_of_the_held_out_texts(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", ({"text": f"text {n % 50}"} for n in range(80)))
    corpus = open_corpus(FilesDataConf(path=str(tmp_path), domains=["web"], validation_fraction=0.1))
    write_digests(tmp_path / "0.bin", corpus, corpus.parts[0], Split(0.1, ["web"]))
    hashes = [hashlib.blake2b(f"text {n}".encode(), digest_size=8).digest() for n in range(50)]
    assert read_digests(tmp_path / "0.bin").tolist() == sorted(int.from_bytes(h, "little") for h in hashes)


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**56, 2**63, 2**64 - 1])), max_size=5),
    chunk=st.sampled_from([1, 3, 2**20]),
)
def test_merged_digests_are_those_of_all_files_sorted_and_each_once(tmp_path_factory, parts, chunk):
    folder = tmp_path_factory.mktemp("digests")
    for number, part in enumerate(parts):
        np.unique(np.array(part, np.uint64)).tofile(folder / f"{number}.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_module, "DIGESTS_AT_A_TIME", chunk)
        merge_digests([folder / f"{number}.bin" for number in range(len(parts))], folder / "merged.bin")
    assert read_digests(folder / "merged.bin").tolist() == sorted({digest for part in parts for digest in part})


def test_digests_are_merged_in_little_more_memory_than_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(split_module, "DIGESTS_AT_A_TIME", 2**12)
    digests = np.random.default_rng(0).integers(0, 2**64, 2**19, np.uint64)
    for number, part in enumerate(np.split(digests, 4)):
        part.tofile(tmp_path / f"{number}.bin")
    assert peak_memory(lambda: merge_digests([tmp_path / f"{n}.bin" for n in range(4)], tmp_path / "m")) < 9 * 2**19
    assert (read_digests(tmp_path / "m") == np.sort(digests)).all()


def test_digests_are_found_in_little_more_memory_than_they_take(tmp_path: Path):
    write_entries(tmp_path / "web.jsonl", ({"text": f"text {n}"} for n in range(2**15)))
    corpus = open_corpus(FilesDataConf(path=str(tmp_path), domains=["web"], validation_fraction=0.1))
    part, split = corpus.parts[0], Split(0.1, ["web"])
    reading = peak_memory(lambda: deque(corpus.documents(part), maxlen=0))
    assert peak_memory(lambda: write_digests(tmp_path / "0.bin", corpus, part, split)) - reading < 24 * 2**15
