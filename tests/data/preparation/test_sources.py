"""Every corpus of conf/data, on small files in exactly its published form."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets.config
import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.config import PrepareConf
from autoscale_exp.data.conf import DataConf, FilesDataConf
from autoscale_exp.data.preparation.corpus import Document
from autoscale_exp.data.preparation.files import open_corpus
from autoscale_exp.data.preparation.pipeline import check_data, prepare_store
from autoscale_exp.data.store import TokenStore
from tests.data.preparation.corpora import write_entries
from tests.data.preparation.file_server import serving

SEVEN = ["common_crawl", "github", "books", "wikipedia", "c4", "stackexchange", "arxiv"]
SMALL = [
    "data.seq_len=16",
    "data.validation_fraction=0.2",
    "data.validation_rows=4",
    "data.tokenizer.name=bpe",
    "++data.tokenizer.vocab_size=300",
]


def text_of(domain: str, number: int) -> str:
    return f"{domain} {number}: " + " ".join(f"{domain}{(number * k) % 31}" for k in range(300 if number % 10 else 12))


def composed(name: str, *overrides: str) -> DataConf:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        conf = to_typed(compose("prepare", [f"data={name}", *overrides]))
    assert isinstance(conf, PrepareConf)
    return conf.data


def texts_by_domain(conf: DataConf) -> dict[str, list[str]]:
    corpus = open_corpus(conf)
    documents: list[Document] = [document for part in corpus.parts for document in corpus.documents(part)]
    return {
        domain: [d.text for d in documents if d.domain == domain]
        for domain in dict.fromkeys(d.domain for d in documents)
    }


def assert_all_is_there(conf: DataConf, domains: Sequence[str], numbers: Sequence[int] = range(36)) -> TokenStore:
    """The corpus has just these documents of each domain, and gives a store with rows of each."""
    least = conf.min_characters
    expected = {d: [t for n in numbers if len(t := text_of(d, n)) >= least] for d in domains}
    assert {domain: sorted(texts) for domain, texts in texts_by_domain(conf).items()} == {
        domain: sorted(texts) for domain, texts in expected.items()
    }
    store = prepare_store(conf)
    for domain in store.validation_domains:
        entry = store.manifest.domains[domain]
        documents = [of.documents for of in (entry.train, entry.validation) if of]
        assert sum(documents) == len(expected[domain])
        assert entry.too_short == len(numbers) - len(expected[domain])
    return store


def redpajama_record(domain: str, number: int, meta: Callable[[dict[str, Any]], Any] = dict) -> dict[str, Any]:
    """As the raw files of RedPajama-Data-1T have it."""
    text = text_of(domain, number)
    if domain == "common_crawl":
        source = f"cc/2019-30/en_head_0000.json.gz/line{number}"
        return {"text": text, "pred_label": "__label__wiki", "pred_label_prob": 0.8, "wiki_prob": 0.8, "source": source}
    metas = {
        "c4": {"timestamp": "2019-04-25T12:57:54Z", "url": f"https://host/{number}", "language": "en", "source": "c4"},
        "github": {"repo_name": "a/b", "path": "c.py", "license": "mit", "size": str(len(text)), "copies": "1"},
        "wikipedia": {"title": f"{number}", "url": f"https://en.wikipedia.org/{number}", "language": "en"},
        "stackexchange": {"language": "en", "url": f"https://stackoverflow.com/{number}", "source": "stackexchange"},
        "arxiv": {"timestamp": "2019-04-25", "arxiv_id": f"{number}", "language": "en", "url": "https://arxiv.org"},
        "books": {"short_book_title": f"{number}", "publication_date": 1900, "url": "http://www.gutenberg.org"},
    }
    return {"text": text, "meta": meta(metas[domain])}


def write_redpajama(folder: Path, meta: Callable[[dict[str, Any]], Any] = dict) -> dict[str, list[Path]]:
    """Two files per subset, named like the raw ones; Wikipedia in three languages."""
    files = {}
    for domain in SEVEN:
        suffix = "jsonl.zst" if domain == "common_crawl" else "jsonl"
        entries = [redpajama_record(domain, number, meta) for number in range(36)]
        if domain == "wikipedia":
            for language in ("de", "fr"):
                other = {"title": "x", "url": "https://host", "language": language}
                entries += [{"text": text_of("wikipedia", 100 + n), "meta": meta(other)} for n in range(30)]
        halves = (entries[::2], entries[1::2])
        files[domain] = [write_entries(folder / domain / f"{n}.{suffix}", half) for n, half in enumerate(halves)]
    return files


@pytest.mark.parametrize("meta", [dict, str])
def test_redpajama_from_lists_of_its_raw_files(meta, tmp_path: Path):
    files = write_redpajama(tmp_path / "raw", meta)
    overrides = []
    for domain in SEVEN:
        (tmp_path / f"{domain}.txt").write_text("".join(f"{path}\n" for path in files[domain]))
        key = f"++data.sources.{domain}"
        overrides += [f"{key}.file_list={tmp_path / domain}.txt", *([f"{key}.files=[]"] if domain == "books" else [])]
    conf = composed("redpajama", *SMALL, *overrides, f"data.store={tmp_path / 'store'}")
    assert conf.min_characters == 1000
    store = assert_all_is_there(conf, SEVEN)
    assert store.domains == SEVEN
    assert store.manifest.documents_of_no_domain == 60


def test_redpajama_as_published_has_a_window_of_each_document(tmp_path: Path):
    files = write_redpajama(tmp_path / "raw")
    lists = []
    for domain in SEVEN:
        lists += [f"++data.sources.{domain}.files=[{','.join(map(str, files[domain]))}]"]
        lists += [f"++data.sources.{domain}.file_list=null"] if domain != "books" else []
    conf = composed("redpajama", *SMALL, *lists, f"data.store={tmp_path / 'store'}", "data.preparation=windows")
    store = assert_all_is_there(conf, SEVEN)
    for domain in SEVEN:
        for split in ("train", "validation"):
            entry = store.manifest.domains[domain].split(split)
            assert entry.characters == 1000 * entry.documents


def test_redpajama_without_a_replacement_of_its_books_is_an_error_that_names_the_key():
    conf = composed("redpajama", f"data.domains=[books,{','.join(d for d in SEVEN if d != 'books')}]")
    with pytest.raises(UserError, match=r"data.sources.books.files is not set; give it paths, globs or URLs"):
        open_corpus(conf)


def test_remote_redpajama_that_breaks_is_the_same_as_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0.001)
    files = write_redpajama(tmp_path)
    stores = []
    with serving(tmp_path) as server:
        for place in ("disk", server.address):
            overrides = []
            for domain in SEVEN:
                names = [str(path.relative_to(tmp_path)) for path in files[domain]]
                lines = [f"{tmp_path if place == 'disk' else place}/{name}\n" for name in names]
                (tmp_path / f"{domain}.txt").write_text("".join(lines))
                listed = f"{tmp_path if place == 'disk' else place}/{domain}.txt"
                overrides += [f"++data.sources.{domain}.file_list='{listed}'"]
            server.breaks = 7
            store = tmp_path / f"store {place[:4]}"
            conf = composed("redpajama", *SMALL, *overrides, "++data.sources.books.files=[]", f"data.store='{store}'")
            stores.append(prepare_store(conf))
        assert server.breaks == 0
    on_disk, streamed = stores
    for domain in SEVEN:
        for split in ("train", "validation"):
            entries = [store.manifest.domains[domain].split(split) for store in stores]
            assert len({(entry.documents, entry.characters) for entry in entries}) == 1
    assert on_disk.manifest.tokenizer == streamed.manifest.tokenizer
    assert [len(streamed.manifest.domains[d].train.files) for d in SEVEN] == [2] * 7


def test_the_sample_of_redpajama(tmp_path: Path):
    overrides = []
    for domain, entries in ((d, [redpajama_record(d, n, str) for n in range(36)]) for d in SEVEN):
        if domain == "wikipedia":
            entries.append({"text": text_of("wikipedia", 100), "meta": "{'language': 'sv', 'timestamp': '20230320'}"})
        write_entries(tmp_path / f"{domain}_sample.jsonl", entries)
        overrides.append(f"++data.sources.{domain}.files=['{tmp_path}/{domain}_*.jsonl']")
    store = assert_all_is_there(composed("redpajama_sample", *SMALL, *overrides, f"data.store={tmp_path / 's'}"), SEVEN)
    assert store.manifest.documents_of_no_domain == 1


@pytest.mark.parametrize(
    ("name", "field", "pattern"),
    [
        ("slimpajama", "redpajama_set_name", "train/chunk{chunk}/example_train_{number}.jsonl.zst"),
        ("pile", "pile_set_name", "train/{chunk:02d}{number}.jsonl.zst"),
    ],
)
def test_a_corpus_whose_domains_share_files(name, field, pattern, tmp_path: Path):
    published = composed(name)
    assert isinstance(published, FilesDataConf)
    set_names = {domain: source["keep"][f"meta.{field}"] for domain, source in published.sources.items()}
    assert list(set_names) == published.domains
    entries = [
        {"text": text_of(domain, number), "meta": {field: set_name}}
        for number in range(24)
        for domain, set_name in [*set_names.items(), ("other", "Books3")]
    ]
    for place in range(4):
        path = pattern.format(chunk=1 + place // 2, number=place % 2)
        write_entries(tmp_path / path, entries[place * len(entries) // 4 : (place + 1) * len(entries) // 4])
    own_pattern = published.files[0].split("/train/")[1]
    overrides = [f"data.files=['{tmp_path}/train/{own_pattern}']", f"data.store={tmp_path / 'store'}"]
    store = assert_all_is_there(composed(name, *SMALL, *overrides), published.domains, range(24))
    assert store.manifest.documents_of_no_domain == 24


def test_the_eight_domains_of_bert(tmp_path: Path):
    columns: dict[str, Callable[[str], dict[str, Any]]] = {
        "amazon": lambda text: {"label": 1, "title": "great", "content": text},
        "arxiv": lambda text: {"article": text, "abstract": "short"},
        "books": lambda text: {"id": "1-0", "text": text},
        "wikipedia": lambda text: {"id": "12", "url": "https://host", "title": "A", "text": text},
        "openwebtext": lambda text: {"text": text},
        "pubmed": lambda text: {"article": text, "abstract": "short"},
        "news": lambda text: {"title": "a", "text": text, "domain": "b", "date": "c", "description": None, "url": "d"},
    }
    overrides = []
    for domain, entry in columns.items():
        for half in (0, 1):
            entries = [entry(text_of(domain, number)) for number in range(half, 36, 2)]
            write_entries(tmp_path / domain / f"train-{half:05d}-of-00002.parquet", entries)
        overrides.append(f"++data.sources.{domain}.files=['{tmp_path}/{domain}/train-*.parquet']")
    github = write_entries(tmp_path / "github.jsonl", [redpajama_record("github", number) for number in range(36)])
    (tmp_path / "github.txt").write_text(f"{github}\n")
    overrides += [f"++data.sources.github.file_list={tmp_path}/github.txt", f"data.store={tmp_path / 'store'}"]
    conf = composed("bert_five", *SMALL, *overrides)
    assert conf.held_out_domains == ["pubmed", "news", "github"]
    store = assert_all_is_there(conf, [*conf.domains, *conf.held_out_domains])
    assert store.domains == ["amazon", "arxiv", "books", "wikipedia", "openwebtext"]
    assert store.validation_domains == [*store.domains, "pubmed", "news", "github"]


def test_seven_domains_of_ones_own_in_a_folder(tmp_path: Path):
    domains = ["web", "news", "code", "books", "arxiv", "wikipedia", "stackexchange"]
    for domain in domains:
        entries = [{"text": text_of(domain, n), "source": f"{domain}{n // 3}#{n}"} for n in range(60)]
        write_entries(tmp_path / f"{domain}.jsonl.gz", entries)
    conf = composed("seven", *SMALL, f"data.path={tmp_path}", f"data.store={tmp_path / 'store'}")
    assert_all_is_there(conf, domains, range(60))
    corpus = open_corpus(conf)
    groups = Counter(document.group for part in corpus.parts for document in corpus.documents(part))
    assert groups == {f"{domain}{group}": 3 for domain in domains for group in range(20)}


@pytest.mark.parametrize("path", sorted((CONF_DIR / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_corpus_of_conf_has_values_in_range(path: Path):
    overrides = ["++data.sources.books.files=[x.jsonl]"] if path.stem == "redpajama" else []
    overrides += ["data.path=x"] if path.stem in ("local", "seven") else []
    overrides += ["data.domains=[a,b]"] if path.stem == "local" else []
    check_data(composed(path.stem, *overrides))
