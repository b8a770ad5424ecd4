"""From a corpus to a token store, by any number of processes and machines, resumable anywhere.

plan.json      what is prepared: another config or other files are refused
parts/         per part of the corpus a record of what it gave, written last
manifest.json  written once all parts are there
"""

import errno
import itertools
import json
import logging
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from autoscale_exp import atomic
from autoscale_exp.config import DataConf
from autoscale_exp.data.corpus import Corpus, Part, open_corpus
from autoscale_exp.data.packing import WINDOW_CHARACTERS, RowFormat
from autoscale_exp.data.parts import Report, Workplace, read_record, scan_part, write_part
from autoscale_exp.data.split import Split, merge_digests, needs_digests, read_digests
from autoscale_exp.data.store import TokenStore, differing_keys, file_sha256, open_store, seal_store
from autoscale_exp.mixture.permutation import Permutation, derive_key

log = logging.getLogger(__name__)

PREPARATIONS = ("packed", "windows")
TOKENIZER_CHARACTERS = 2_000_000  # per domain, for training a tokenizer; more changes it little
MOST_DIFFERENCES = 5  # that a message lists
WAIT_SECONDS = 0.5  # between two looks at what another process is at
Work = Callable[[Part, Report], bool]  # does a part; False if another process is at it


def check_data(conf: DataConf) -> None:
    """Checks the `data` section before any text is read.

    Raises:
        ValueError: a value is out of range; the message names the key.
    """
    from autoscale_exp.data.tokenizer import check_tokenizer  # brings transformers along, which worker processes spare

    check_tokenizer(conf.tokenizer)
    domains = [*conf.domains, *conf.held_out_domains]
    for domain in domains:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", domain):
            raise ValueError(f"data.domains names '{domain}'; a name has letters, digits, '_', '-' and '.' in it only")
    if len(conf.domains) < 2 or len(set(domains)) != len(domains):
        raise ValueError(
            f"data.domains must name at least two different domains, but is {conf.domains}"
            + (f", and data.held_out_domains others, but is {conf.held_out_domains}" if conf.held_out_domains else "")
        )
    for key, value in (("seq_len", conf.seq_len), ("validation_rows", conf.validation_rows)):
        if value < 2:
            raise ValueError(f"data.{key} is {value}; it must be at least 2")
    for key, limit in (("min_characters", conf.min_characters), ("max_characters", conf.max_characters)):
        if limit is not None and limit < 1:
            raise ValueError(f"data.{key} is {limit}; it must be at least 1")
    if conf.preparation not in PREPARATIONS:
        raise ValueError(f"data.preparation is '{conf.preparation}'; allowed are {', '.join(PREPARATIONS)}")
    if conf.preparation == "windows" and conf.min_characters < WINDOW_CHARACTERS:
        raise ValueError(
            f"data.preparation is 'windows', so data.min_characters must be at least {WINDOW_CHARACTERS}, "
            f"but is {conf.min_characters}"
        )
    if not 0 < conf.validation_fraction < 1:
        raise ValueError(f"data.validation_fraction is {conf.validation_fraction}; it must lie between 0 and 1")


def prepare_store(conf: DataConf, *, num_workers: int = 1, shard: int = 0, num_shards: int = 1) -> TokenStore | None:
    """Builds the token store that `conf` describes, or opens it if it is there.

    Several calls may work at one store at a time, here or on other machines with the same file system.

    Args:
        conf: the `data` section.
        num_workers: processes.
        shard: this call writes the rows of parts shard, shard + num_shards, ... of the corpus.
        num_shards: calls that share the parts.

    Returns:
        The store; None if parts of other shards are still missing.

    Raises:
        ValueError: the corpus or the config cannot be used, or the store was made from another config.
        OSError: the disk is full; what was done stays.
    """
    check_data(conf)
    if not 0 <= shard < num_shards or num_workers < 1:
        raise ValueError(
            f"shard is {shard} of num_shards {num_shards}, with num_workers {num_workers}; "
            "shards count from 0, and there is at least one worker"
        )
    folder = Path(conf.store)
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with _full_disk_named(folder):
        with FileLock(folder / "prepare.lock"):
            begun = _read_begun(folder)
            corpus = open_corpus(conf, begun.get("listing"))
            identity = identity_of(conf, corpus)
            if _is_prepared(folder, begun, identity):
                return open_store(folder)
        place = Workplace(folder, corpus, conf.validation_fraction, tuple(conf.held_out_domains))
        with _Progress() as progress:
            _find_held_out(place, num_workers, progress)
            with FileLock(folder / "prepare.lock"):
                row_format = _make_tokenizer(conf, place, progress)
            mine = [part for part in corpus.parts if part.index % num_shards == shard]
            _run(partial(write_part, place, row_format), mine, num_workers, progress)
        with FileLock(folder / "prepare.lock"):
            return _seal(conf, identity, place, row_format, time.perf_counter() - started)


def identity_of(conf: DataConf, corpus: Corpus) -> dict[str, Any]:
    """All that a store depends on."""
    config = {key: value for key, value in asdict(conf).items() if key != "store"}
    return config | {"stamps": corpus.stamps, "listing": corpus.listing}


def _read_begun(folder: Path) -> dict[str, Any]:
    """The identity of the store that is finished or begun in a folder; empty if there is none."""
    if (folder / "manifest.json").exists():
        return open_store(folder).manifest["config"]
    plan = folder / "plan.json"
    return json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else {}


def _is_prepared(folder: Path, begun: dict[str, Any], identity: dict[str, Any]) -> bool:
    """Whether the store is finished; if it is not begun, begins it.

    The validation rows are drawn last, so their number may change until then.

    Raises:
        ValueError: it was begun or made from another config or other files.
    """
    if not begun:
        for name in ("train", "validation", "tokenizer", "parts"):
            shutil.rmtree(folder / name, ignore_errors=True)
        atomic.write_json(folder / "plan.json", identity)
        return False
    finished = (folder / "manifest.json").exists()
    if finished:
        begun = begun | {"stamps": _touched(begun["stamps"], identity["stamps"])}
    else:
        begun = begun | {"validation_rows": identity["validation_rows"]}
    if differences := differing_keys(begun, identity):
        if len(differences) > MOST_DIFFERENCES:
            differences[MOST_DIFFERENCES:] = [f"and {len(differences) - MOST_DIFFERENCES} more"]
        raise ValueError(
            f"the store '{folder}' was made from another config or other files ({'; '.join(differences)}); "
            "set data.store to another folder, or delete this one"
        )
    if finished:
        _clean(folder)
    return finished


def _touched(stored: dict[str, list[int]], found: dict[str, list[int]]) -> dict[str, list[int]]:
    """The stamps stored, with the time found where the size is the same: of files that were copied, or yet edited."""
    touched = {n: found[n] for n, (size, time_ns) in stored.items() if n in found and found[n][0] == size}
    if changed := [name for name, stamp in touched.items() if stamp != stored[name]]:
        log.warning(
            "%d files have another time than when the store was made but the same size, such as '%s'; they are taken "
            "for unchanged",
            len(changed),
            changed[0],
        )
    return stored | touched


def _find_held_out(place: Workplace, num_workers: int, progress: "_Progress") -> None:
    """Writes the digests of the held-out texts that a training document can be a copy of."""
    parts = [part for part in place.corpus.parts if needs_digests(place.corpus, part, place.held_out_domains)]
    if place.digests.exists():
        return
    with progress.step("finding what is held out"):
        _run(partial(scan_part, place), parts, num_workers, progress)
    with FileLock(place.folder / "prepare.lock"):  # no one seals the store and removes its parts meanwhile
        if not place.digests.exists() and not place.is_sealed:
            merge_digests([place.digests_of(part) for part in parts], place.digests)


def _make_tokenizer(conf: DataConf, place: Workplace, progress: "_Progress") -> RowFormat:
    """Trains or loads the tokenizer, unless it is there; returns how its tokens become rows."""
    from autoscale_exp.data.tokenizer import is_trained, load_tokenizer, row_start_id, separator_id, train_tokenizer

    folder = place.folder / "tokenizer"
    if not folder.exists():
        if is_trained(conf.tokenizer):
            with progress.step("training the tokenizer"):
                tokenizer = train_tokenizer(_tokenizer_texts(conf.domains, place), conf.tokenizer)
        else:
            tokenizer = load_tokenizer(conf.tokenizer.name)
        begun = place.folder / "parts" / "tokenizer"
        shutil.rmtree(begun, ignore_errors=True)
        tokenizer.save_pretrained(begun)
        begun.rename(folder)
    tokenizer = load_tokenizer(folder)
    dtype = "<u2" if len(tokenizer) <= 2**16 else "<u4"
    return RowFormat(conf.seq_len, dtype, separator_id(tokenizer), row_start_id(tokenizer))


def _tokenizer_texts(domains: Sequence[str], place: Workplace) -> Iterator[str]:
    """Training texts, the same number of characters from each domain as far as it has them."""
    split = Split(place.fraction, place.held_out_domains, read_digests(place.digests))
    for domain in domains:
        documents = itertools.chain.from_iterable(map(place.corpus.documents, place.corpus.parts_of(domain)))
        characters = 0
        for document in documents:
            if document.domain != domain or split.is_held_out(document) or split.is_copy(document):
                continue
            yield document.text
            characters += len(document.text)
            if characters >= TOKENIZER_CHARACTERS:
                break


def _seal(
    conf: DataConf, identity: dict[str, Any], place: Workplace, row_format: RowFormat, seconds: float
) -> TokenStore | None:
    """Writes validation rows and manifest once all parts are there; None if some are missing."""
    from autoscale_exp.data.tokenizer import load_tokenizer

    folder = place.folder
    if _is_prepared(folder, _read_begun(folder), identity):
        return open_store(folder)  # another process was first
    missing = [part for part in place.corpus.parts if not place.record_of(part).exists()]
    if missing:
        log.info("%d of %d parts are left to other shards", len(missing), len(place.corpus.parts))
        return None
    records = {part: read_record(place, part) for part in place.corpus.parts}
    domains = {}
    for domain in [*conf.domains, *conf.held_out_domains]:
        entries = {part: r["domains"][domain] for part, r in records.items() if domain in r["domains"]}
        domains[domain] = {
            **({"train": _train_entry(conf, domain, entries)} if domain in conf.domains else {}),
            "validation": _validation_entry(conf, domain, entries, place, row_format),
            "too_short": sum(entry["too_short"] for entry in entries.values()),
            "duplicates_of_validation": sum(entry["duplicates_of_validation"] for entry in entries.values()),
        }
    tokenizer = load_tokenizer(folder / "tokenizer")
    manifest = {
        "config": identity,
        "dtype": row_format.dtype,
        "tokenizer": {
            "name": conf.tokenizer.name,
            "vocab_size": len(tokenizer),
            "sha256": file_sha256(folder / "tokenizer" / "tokenizer.json"),
        },
        "domains": domains,
        "documents_of_no_domain": sum(record["unmatched"] for record in records.values()),
        "seconds": round(seconds, 1),  # of the call that finished it
    }
    atomic.write_json(folder / "manifest.json", seal_store(manifest))
    _clean(folder)
    return open_store(folder)


def _clean(folder: Path) -> None:
    """Removes from a finished store what only its making needed."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "plan.json").unlink(missing_ok=True)
    for killed in folder.glob("**/.*.tmp"):
        killed.unlink(missing_ok=True)


def _train_entry(conf: DataConf, domain: str, entries: dict[Part, dict[str, Any]]) -> dict[str, Any]:
    parts = {part: entry["train"] for part, entry in entries.items()}
    rows = sum(entry["rows"] for entry in parts.values())
    if not rows:
        raise ValueError(f"domain '{domain}' has no row of {conf.seq_len} tokens to train on; give it more text")
    return {
        "rows": rows,
        "tokens": rows * conf.seq_len,
        **{k: sum(entry[k] for entry in parts.values()) for k in ("documents", "characters", "dropped_tokens")},
        "files": {
            f"{part.index:05d}": {"rows": entry["rows"], "sha256": entry["sha256"]}
            for part, entry in parts.items()
            if entry["rows"]
        },
    }


def _validation_entry(
    conf: DataConf, domain: str, entries: dict[Part, dict[str, Any]], place: Workplace, row_format: RowFormat
) -> dict[str, Any]:
    """Draws `validation_rows` rows from all that the held-out documents gave; the others are trained on by no one."""
    parts = {part: entry["validation"] for part, entry in entries.items()}
    total = sum(entry["rows"] for entry in parts.values())
    if total < conf.validation_rows:
        raise ValueError(
            f"data.validation_rows is {conf.validation_rows}, but the held-out documents of '{domain}' make only "
            f"{total} rows; lower it, raise data.validation_fraction or give more text"
        )
    chosen = np.sort(Permutation(total, derive_key("validation rows", domain))(np.arange(conf.validation_rows)))
    path = place.folder / "validation" / f"{domain}.bin"
    first = 0
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        for part, entry in parts.items():
            mine = chosen[(chosen >= first) & (chosen < first + entry["rows"])] - first
            if mine.size:
                rows = np.memmap(place.rows_of(part, "validation", domain), row_format.dtype, "r")
                file.write(rows.reshape(-1, conf.seq_len)[mine].tobytes())
            first += entry["rows"]
    dropped = sum(entry["dropped_tokens"] for entry in parts.values())
    return {
        "rows": conf.validation_rows,
        "tokens": conf.validation_rows * conf.seq_len,
        **{k: sum(entry[k] for entry in parts.values()) for k in ("documents", "characters")},
        "dropped_tokens": dropped + (total - conf.validation_rows) * conf.seq_len,
        "sha256": file_sha256(path),
    }


def _run(work: Work, parts: Sequence[Part], num_workers: int, progress: "_Progress") -> None:
    """Does every part, the largest first; waits for those that another process is at.

    A part alone is done here, where the tokenizer spreads a batch over the cores. Else each process has one core,
    until fewer parts are left than there are processes.
    """
    waiting = sorted(parts, key=lambda part: -part.size)
    told = False
    while waiting:
        if min(num_workers, len(waiting)) == 1:
            busy = [part for part in waiting if not work(part, progress.report)]
        else:
            busy = _run_in_pool(work, waiting, num_workers, progress)
        if busy and not told:
            log.info("another process is at work on %d parts of this store; waiting for it", len(busy))
            told = True
        if busy:
            time.sleep(WAIT_SECONDS)
        waiting = busy


def _run_in_pool(work: Work, parts: Sequence[Part], num_workers: int, progress: "_Progress") -> list[Part]:
    """Does the parts in processes; returns those that someone else is at."""
    context = multiprocessing.get_context("spawn")  # threads of the tokenizer and the display do not survive a fork
    reports = context.SimpleQueue()
    unfinished = context.Value("q", len(parts))
    initargs = (work, reports, unfinished, num_workers)
    with (
        progress.listening(reports),
        ProcessPoolExecutor(num_workers, context, initializer=_begin_worker, initargs=initargs) as pool,
    ):
        futures = {pool.submit(_do_in_worker, part): part for part in parts}
        try:
            return [futures[future] for future in as_completed(futures) if not future.result()]
        except BrokenProcessPool:
            raise OSError(
                "a worker process was killed, as happens when memory runs out; run the same command again with fewer "
                "num_workers: it goes on where it stopped"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # parts in progress are finished, others not begun
            raise


_in_worker: tuple[Work, Any, Any, int]  # in a worker process: what to do, where to tell, parts left, processes


def _begin_worker(work: Work, reports: Any, unfinished: Any, num_workers: int) -> None:
    global _in_worker
    _in_worker = work, reports, unfinished, num_workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers call this"
    parent.join()
    os._exit(1)


def _do_in_worker(part: Part) -> bool:
    work, reports, unfinished, num_workers = _in_worker

    def report(domain: str, tokens: int) -> None:
        if tokens:
            reports.put((domain, tokens))
            share_cores()

    def share_cores() -> None:
        """Cores whose processes have nothing left to do help with the next batch; the tokenizer looks each time."""
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if unfinished.value < num_workers else "false"

    share_cores()
    try:
        return work(part, report)
    finally:
        with unfinished.get_lock():
            unfinished.value -= 1


class _Progress:
    """A line per domain on the terminal: tokens written and how fast."""

    def __init__(self) -> None:
        columns = ("{task.description:<28}", BarColumn(bar_width=24), "{task.fields[rate]}", TimeElapsedColumn())
        self._display = Progress(*columns)
        self._tasks: dict[str, Any] = {}
        self._tokens: Counter[str] = Counter()
        self._started: dict[str, float] = {}

    def __enter__(self) -> "_Progress":
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            self._display.update(task, total=1, completed=1)
        self._display.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Shows that something is done that has no count."""
        task = self._display.add_task(name, total=None, rate="")
        yield
        self._display.update(task, total=1, completed=1)

    def report(self, domain: str, tokens: int) -> None:
        """Adds tokens written for a domain."""
        if not tokens:
            return
        if domain not in self._tasks:
            self._tasks[domain] = self._display.add_task(f"tokenizing {domain}", total=None, rate="")
            self._started[domain] = time.perf_counter()
        self._tokens[domain] += tokens
        seconds = max(time.perf_counter() - self._started[domain], 0.1)  # the first report comes after the first batch
        rate = self._tokens[domain] / seconds / 1e6
        text = f"{self._tokens[domain] / 1e6:.2f}M tokens, {rate:.2f}M tokens/s"
        self._display.update(self._tasks[domain], rate=text)

    @contextmanager
    def listening(self, reports: Any) -> Iterator[None]:
        """Shows what worker processes put into a queue."""

        def listen() -> None:
            for domain, tokens in iter(reports.get, None):
                self.report(domain, tokens)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            reports.put(None)
            thread.join()


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of '{folder}' is full; free some space and run the same command again: it goes on where it "
            "stopped"
        ) from None
