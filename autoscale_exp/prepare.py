"""The `prepare` job: text to token store. Run again with the same config, it does nothing."""

import itertools
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from autoscale_exp import atomic
from autoscale_exp.config import DataConf, PrepareConf, job
from autoscale_exp.data.corpus import Corpus, open_corpus
from autoscale_exp.data.packing import RowWriter, Split
from autoscale_exp.data.store import SPLITS, TokenStore, differing_keys, file_sha256, open_store, seal_store
from autoscale_exp.data.tokenizer import Tokenizer, check_tokenizer, load_tokenizer, train_bpe
from autoscale_exp.mixture.permutation import Permutation, derive_key

log = logging.getLogger(__name__)

BPE_CHARACTERS = 2_000_000  # per domain, for training a tokenizer; more changes it little


@job("prepare")
def main(conf: PrepareConf) -> None:
    """Prepares the token store of `data`."""
    prepare_store(conf.data)


def prepare_store(conf: DataConf) -> TokenStore:
    """Builds the token store that `conf` describes, or opens it if it is there.

    Raises:
        ValueError: the corpus or the config cannot be used, or the store was made from another config.
    """
    check_data(conf)
    folder = Path(conf.store)
    started = time.perf_counter()
    corpus = open_corpus(conf)
    identity = {key: value for key, value in asdict(conf).items() if key != "store"}
    identity["files"] = {
        d: {p.relative_to(corpus.folder).as_posix(): p.stat().st_size for p in corpus.files(d)} for d in conf.domains
    }
    if (folder / "manifest.json").exists():
        store = open_store(folder)
        differences = differing_keys(store.manifest["config"], identity)
        if differences:
            raise ValueError(
                f"the store '{folder}' was made from another config or other files ({'; '.join(differences)}); "
                "set data.store to another folder, or delete this one"
            )
    else:
        columns = (
            "{task.description:<28}",
            BarColumn(bar_width=24),
            "{task.fields[rate]}",
            TimeElapsedColumn(),
        )
        with Progress(*columns) as progress:
            manifest = {"config": identity, **_write_rows(conf, corpus, folder, progress)}
        manifest["seconds"] = round(time.perf_counter() - started, 1)
        atomic.write_json(folder / "manifest.json", seal_store(manifest))
        store = open_store(folder)
    log.info("'%s' is ready: %s", folder, summary(store))
    return store


def check_data(conf: DataConf) -> None:
    """Checks the `data` section before any text is read.

    Raises:
        ValueError: a value is out of range; the message names the key.
    """
    check_tokenizer(conf.tokenizer)
    if len(set(conf.domains)) != len(conf.domains) or len(conf.domains) < 2:
        raise ValueError(f"data.domains must name at least two different domains, but is {conf.domains}")
    for key, value in (("seq_len", conf.seq_len), ("validation_rows", conf.validation_rows)):
        if value < 2:
            raise ValueError(f"data.{key} is {value}; it must be at least 2")
    if not 0 < conf.validation_fraction < 1:
        raise ValueError(f"data.validation_fraction is {conf.validation_fraction}; it must lie between 0 and 1")


def summary(store: TokenStore) -> str:
    """One line: training tokens of each domain."""
    sizes = (f"{d} {store.num_rows('train', d) * store.seq_len / 1e6:.2f}M" for d in store.domains)
    return f"{', '.join(sizes)} tokens in rows of {store.seq_len}, {store.vocab_size} entries"


def _write_rows(conf: DataConf, corpus: Corpus, folder: Path, progress: Progress) -> dict[str, Any]:
    """Writes tokenizer and rows; returns their part of the manifest."""
    for name in ("train", "validation", "tokenizer"):
        shutil.rmtree(folder / name, ignore_errors=True)  # what a killed run left behind
        (folder / name).mkdir(parents=True)
    split = Split(corpus, conf.domains, conf.validation_fraction)
    if conf.tokenizer.name == "bpe":
        task = progress.add_task("training the tokenizer", total=None, rate="")
        assert conf.tokenizer.vocab_size is not None
        tokenizer = train_bpe(_tokenizer_texts(conf.domains, split), conf.tokenizer.vocab_size)
        progress.update(task, total=1, completed=1)
    else:
        tokenizer = load_tokenizer(conf.tokenizer.name)
    tokenizer.save_pretrained(folder / "tokenizer")
    dtype = np.dtype("<u2" if len(tokenizer) <= 2**16 else "<u4")
    return {
        "dtype": dtype.str,
        "tokenizer": {
            "name": conf.tokenizer.name,
            "vocab_size": len(tokenizer),
            "sha256": file_sha256(folder / "tokenizer" / "tokenizer.json"),
        },
        "domains": {d: _write_domain(conf, d, split, tokenizer, dtype, progress) for d in conf.domains},
    }


def _tokenizer_texts(domains: list[str], split: Split) -> Iterator[str]:
    """Training texts, the same number of characters from each domain as far as it has them."""
    for domain in domains:
        characters = 0
        for document in split.training(domain):
            yield document.text
            characters += len(document.text)
            if characters >= BPE_CHARACTERS:
                break


def _write_domain(
    conf: DataConf, domain: str, split: Split, tokenizer: Tokenizer, dtype: np.dtype[Any], progress: Progress
) -> dict[str, Any]:
    """Writes both splits of one domain; returns its entry in the manifest."""
    folder = Path(conf.store)
    writers = {name: RowWriter(folder / name / f"{domain}.bin", conf.seq_len, dtype) for name in SPLITS}
    task = progress.add_task(f"tokenizing {domain}", total=None, rate="")
    written, started = 0, time.perf_counter()
    for num_tokens in itertools.chain(
        writers["validation"].write(split.validation(domain), tokenizer),
        writers["train"].write(split.training(domain), tokenizer),
    ):
        written += num_tokens
        rate = written / (time.perf_counter() - started)
        progress.update(task, rate=f"{written / 1e6:.2f}M tokens, {rate / 1e6:.2f}M tokens/s")
    progress.update(task, total=1, completed=1)
    if writers["train"].rows == 0:
        raise ValueError(f"domain '{domain}' has no row of {conf.seq_len} tokens to train on; give it more text")
    _keep_validation_rows(conf.validation_rows, domain, writers["validation"])
    return {
        name: {
            "rows": writer.rows,
            "tokens": writer.tokens,
            "documents": writer.documents,
            "characters": writer.characters,
            "dropped_tokens": writer.dropped_tokens,
            "sha256": file_sha256(writer.path),
        }
        for name, writer in writers.items()
    } | {"duplicates_of_validation": split.duplicates[domain]}


def _keep_validation_rows(num_rows: int, domain: str, writer: RowWriter) -> None:
    """Draws `num_rows` rows from all that the held-out documents gave; the others are trained on by no one."""
    if writer.rows < num_rows:
        raise ValueError(
            f"data.validation_rows is {num_rows}, but the held-out documents of '{domain}' make only {writer.rows} "
            "rows; lower it, raise data.validation_fraction or give more text"
        )
    chosen = Permutation(writer.rows, derive_key("validation rows", domain))(np.arange(num_rows))
    rows = np.fromfile(writer.path, dtype=writer.dtype).reshape(-1, writer.seq_len)[np.sort(chosen)]
    rows.tofile(writer.path)
    writer.dropped_tokens += writer.tokens - rows.size
    writer.tokens = rows.size


if __name__ == "__main__":
    main()
