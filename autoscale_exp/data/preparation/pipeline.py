"""From a corpus to a token store, with any number of processes and machines, resumable at any point.

plan.json      what is prepared: another config or other files are refused
parts/         per part of the corpus a summary of what it gave, written last
manifest.json  written once all parts are there
"""

import errno
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.hashing import file_sha256, fingerprint
from autoscale_exp.base.labels import plural
from autoscale_exp.base.ranges import check_range
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.data.conf import DataConf, FilesDataConf
from autoscale_exp.data.preparation.corpus import Corpus, Part
from autoscale_exp.data.preparation.files import open_corpus
from autoscale_exp.data.preparation.packing import RowFormat
from autoscale_exp.data.preparation.parts import Workplace, keys_of, scan_part, write_part
from autoscale_exp.data.preparation.sealing import check_rows, scarce_domains, seal_store
from autoscale_exp.data.preparation.split import Split, merge_digests, needs_digests, read_digests
from autoscale_exp.data.preparation.workers import ProgressDisplay, run_parts
from autoscale_exp.data.store import TokenStore, open_store

log = logging.getLogger(__name__)

PREPARATIONS = ("packed", "windows")
ON_BAD_DOCUMENT = ("error", "skip")
TOKENIZER_CHARACTERS = 2_000_000  # per domain, to train a tokenizer; more change it little
MOST_DIFFERENCES = 5  # in a message


def check_data(conf: DataConf) -> None:
    """Checks the `data` section before any text is read.

    Raises:
        UserError: a value is out of range; the message names the key.
    """
    from autoscale_exp.data.tokenizer import check_tokenizer  # imports transformers, which worker processes do not need

    check_tokenizer(conf.tokenizer)
    domains = [*conf.domains, *conf.held_out_domains]
    for domain in domains:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", domain):
            raise UserError(f"data.domains names '{domain}'; a name has letters, digits, '_', '-' and '.' in it only")
        if domains.count(domain) > 1:
            keys = "data.domains" + " and data.held_out_domains together" * bool(conf.held_out_domains)
            raise UserError(f"{keys} name '{domain}' {domains.count(domain)} times; name each domain once")
    if len(conf.domains) < 2:
        raise UserError(f"data.domains is {conf.domains}; name at least two domains")
    check_range({"data.seq_len": conf.seq_len, "data.validation_rows": conf.validation_rows}, 2)
    check_range({"data.min_characters": conf.min_characters, "data.max_characters": conf.max_characters}, 1)
    if conf.preparation not in PREPARATIONS:
        raise UserError(f"data.preparation is '{conf.preparation}'; allowed are {', '.join(PREPARATIONS)}")
    if isinstance(conf, FilesDataConf) and conf.on_bad_document not in ON_BAD_DOCUMENT:
        raise UserError(f"data.on_bad_document is '{conf.on_bad_document}'; allowed are {', '.join(ON_BAD_DOCUMENT)}")
    if not 0 < conf.validation_fraction < 1:
        raise UserError(f"data.validation_fraction is {conf.validation_fraction}; it must lie between 0 and 1")


def prepare_store(conf: DataConf, *, num_workers: int = 1, shard: int = 0, num_shards: int = 1) -> TokenStore | None:
    """Builds the token store that `conf` describes, or opens it if it is there.

    Several calls may work on one store at a time, here or on other machines with the same file system.

    Args:
        conf: the `data` section.
        num_workers: processes.
        shard: this call writes the rows of parts shard, shard + num_shards, ... of the corpus.
        num_shards: calls that share the parts.

    Returns:
        The store; None if parts of other shards are still missing.

    Raises:
        UserError: the corpus or the config cannot be used, or the store was made from another config.
        UserError: a domain has too little text; for a small domain, this shows before the others are tokenized.
        UserError: the disk is full; what was done stays.
    """
    check_data(conf)
    check_range({"num_workers": num_workers, "num_shards": num_shards}, 1)
    if not 0 <= shard < num_shards:
        raise UserError(f"shard is {shard}; the shards of num_shards={num_shards} are 0 to {num_shards - 1}")
    folder = Path(conf.store)
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with _full_disk_named(folder):
        with FileLock(folder / "prepare.lock"):
            begun = _read_begun(folder)
            corpus = open_corpus(conf, begun.get("listing"))
            if not begun:
                corpus.check_first_entries()
            identity = identity_of(conf, corpus)
            if _is_prepared(folder, begun, identity):
                return open_store(folder)
        place = Workplace(folder, corpus, conf.validation_fraction, tuple(conf.held_out_domains), keys_of(corpus))
        with ProgressDisplay() as progress:
            _find_held_out(place, num_workers, progress)
            with FileLock(folder / "prepare.lock"):
                if place.is_sealed and _is_prepared(folder, _read_begun(folder), identity):
                    return open_store(folder)  # another process was first
                row_format = _make_tokenizer(conf, place, progress)
                made_from = [file_sha256(path) for path in (folder / "tokenizer" / "tokenizer.json", place.digests)]
                place = replace(place, basis=fingerprint(made_from))
            mine = [part for part in corpus.parts if part.index % num_shards == shard]
            _write_parts(conf, place, row_format, mine, num_workers, progress)
        with FileLock(folder / "prepare.lock"):
            begun = _read_begun(folder)
            if not place.is_sealed and begun.get("stamps") != identity["stamps"]:
                raise UserError(f"files were replaced while '{folder}' was prepared; run the same command again")
            if not _is_prepared(folder, begun, identity):
                missing = [part for part in corpus.parts if not place.summary_of(part).exists()]
                if missing:
                    log.info("%d of %d parts are left to other shards", len(missing), len(corpus.parts))
                    return None
                seal_store(conf, identity, place, row_format, time.perf_counter() - started)
                _clean(folder)
            return open_store(folder)


def identity_of(conf: DataConf, corpus: Corpus) -> dict[str, Any]:
    """All that a store depends on; not where it and its text lie."""
    config = {key: value for key, value in asdict(conf).items() if key not in ("store", "path")}
    return config | {"stamps": corpus.stamps, "listing": corpus.listing}


def _read_begun(folder: Path) -> dict[str, Any]:
    """The identity of the store in a folder, finished or begun; empty if there is none."""
    if (folder / "manifest.json").exists():
        return open_store(folder).manifest.config
    plan = folder / "plan.json"
    return json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else {}


def _is_prepared(folder: Path, begun: dict[str, Any], identity: dict[str, Any]) -> bool:
    """Returns whether the store is finished; begins it if it is not begun.

    The validation rows are drawn last, so their number may change until then. Skipping bad documents may be turned on:
    while they were an error, there were none in what was made.

    Raises:
        UserError: it was begun or made from another config or other files.
    """
    if not begun:
        _begin(folder, identity)
        return False
    finished = (folder / "manifest.json").exists()
    if "on_bad_document" in identity and begun.get("on_bad_document", "error") == "error":
        begun = begun | {"on_bad_document": identity["on_bad_document"]}
    if finished:
        begun = begun | {"stamps": _touched(begun["stamps"], identity["stamps"])}
    else:
        begun = begun | {"validation_rows": identity["validation_rows"]}
        if begun["stamps"].keys() == identity["stamps"].keys():
            begun = begun | {"stamps": identity["stamps"]}  # replaced files are prepared anew
    differences = _differences(begun, identity)
    if differences and not finished and not any((folder / name).exists() for name in ("tokenizer", "train")):
        shutil.rmtree(folder / "parts", ignore_errors=True)  # begun with a mistake, and nothing made yet
        _begin(folder, identity)
        return False
    if differences:
        if len(differences) > MOST_DIFFERENCES:
            differences[MOST_DIFFERENCES:] = [f"and {len(differences) - MOST_DIFFERENCES} more"]
        raise UserError(
            f"the store '{folder}' was made from another config or other files ({'; '.join(differences)}); "
            "set data.store to another folder, or delete this one"
        )
    if finished:
        _clean(folder)
    else:
        _go_on(folder, identity)
    return finished


def _differences(begun: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """What tells two identities apart: keys with both values, and files with how many others there are."""
    stamps: list[dict[str, list[int]]] = [begun["stamps"], identity["stamps"]]
    others = [name for name in sorted({*stamps[0], *stamps[1]}) if stamps[0].get(name) != stamps[1].get(name)]
    more = [f"{plural(len(others), 'file')} of text, such as '{others[0]}'"] if others else []
    return differing_keys(begun | {"stamps": {}}, identity | {"stamps": {}}) + more


def _begin(folder: Path, identity: dict[str, Any]) -> None:
    """Begins a store.

    Raises:
        UserError: the folder has something in it that a store would overwrite.
    """
    for name in ("train", "validation", "tokenizer", "parts"):
        if (folder / name).exists():
            raise UserError(
                f"data.store is '{folder}', which has a '{name}' in it but is no token store; give another folder, or "
                "delete this one if nothing in it is needed"
            )
    atomic.write_json(folder / "plan.json", identity)


def _go_on(folder: Path, identity: dict[str, Any]) -> None:
    """Resumes a store, of which some files may have changed since."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    replaced = [name for name, stamp in identity["stamps"].items() if plan["stamps"][name] != stamp]
    if plan.get("on_bad_document") != identity.get("on_bad_document"):
        atomic.write_json(folder / "plan.json", plan | {"on_bad_document": identity["on_bad_document"]})
    if not replaced:
        return
    log.info(
        "%d files have changed since the store was begun, such as '%s'; what was made from them is made anew",
        len(replaced),
        replaced[0],
    )
    shutil.rmtree(folder / "tokenizer", ignore_errors=True)  # with the same text it becomes the same again
    atomic.write_json(folder / "plan.json", identity)


def _touched(stored: dict[str, list[int]], found: dict[str, list[int]]) -> dict[str, list[int]]:
    """The stored stamps, with the new times of files whose size is the same, as after a copy (or an edit)."""
    touched = {n: found[n] for n, (size, time_ns) in stored.items() if n in found and found[n][0] == size}
    if changed := [name for name, stamp in touched.items() if stamp != stored[name]]:
        log.warning(
            "%d files have another time than when the store was made but the same size, such as '%s'; they are taken "
            "for unchanged",
            len(changed),
            changed[0],
        )
    return stored | touched


def _find_held_out(place: Workplace, num_workers: int, progress: ProgressDisplay) -> None:
    """Writes the digests of the held-out texts that a training document can be a copy of."""
    parts = [part for part in place.corpus.parts if needs_digests(place.corpus, part, place.held_out_domains)]
    if place.digests.exists():
        return
    with progress.step("finding what is held out"):
        run_parts(partial(scan_part, place), parts, num_workers, progress)
    with FileLock(place.folder / "prepare.lock"):  # so that no one seals the store and removes its parts meanwhile
        if not place.digests.exists() and not place.is_sealed:
            merge_digests([place.digests_of(part) for part in parts], place.digests)


def _make_tokenizer(conf: DataConf, place: Workplace, progress: ProgressDisplay) -> RowFormat:
    """Trains or loads the tokenizer if it is not there; returns the format of its rows."""
    from autoscale_exp.data.tokenizer import (
        is_trained,
        load_tokenizer,
        row_start_id,
        separator_id,
        train_tokenizer,
        vocabulary_size,
    )

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
    dtype = "<u2" if vocabulary_size(tokenizer) <= 2**16 else "<u4"
    return RowFormat(conf.seq_len, dtype, separator_id(tokenizer), row_start_id(tokenizer))


def _write_parts(
    conf: DataConf,
    place: Workplace,
    row_format: RowFormat,
    parts: Sequence[Part],
    num_workers: int,
    progress: ProgressDisplay,
) -> None:
    """Writes the rows of parts, first of those with small domains, so that too little text shows early.

    Raises:
        UserError: a file cannot be read, or a small domain has too little text.
    """
    scarce = scarce_domains(conf, place.corpus)
    first = {part for part in parts if any(source.domain in scarce for source in part.sources)}
    check = partial(check_rows, conf, place, scarce)
    check()  # some domains have no parts, and a resumed job has those of others
    run_parts(partial(write_part, place, row_format), parts, num_workers, progress, first, check)


def _tokenizer_texts(domains: Sequence[str], place: Workplace) -> Iterator[str]:
    """Yields training texts, with the same number of characters from each domain that has as many."""
    split = Split(place.fraction, place.held_out_domains, read_digests(place.digests))
    wanted = dict.fromkeys(domains, TOKENIZER_CHARACTERS)  # characters still wanted of each domain
    for part in place.corpus.parts:
        if wanted.keys().isdisjoint(source.domain for source in part.sources):
            continue
        for document in place.corpus.documents(part):
            if document.domain not in wanted or split.is_held_out(document) or split.is_copy(document):
                continue
            yield document.text
            wanted[document.domain] -= len(document.text)
            if wanted[document.domain] <= 0:
                del wanted[document.domain]
                if wanted.keys().isdisjoint(source.domain for source in part.sources):
                    break


def _clean(folder: Path) -> None:
    """Removes what was only needed to make a store."""
    if (folder / "parts").exists():
        listed = {name for name, *_ in open_store(folder).manifest.files()}
        for rows in folder.glob("train/*/*.bin"):  # of parts that no longer exist since a file was replaced
            if rows.relative_to(folder).as_posix() not in listed:
                rows.unlink(missing_ok=True)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "plan.json").unlink(missing_ok=True)
    for killed in folder.glob("**/.*.tmp"):
        killed.unlink(missing_ok=True)


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of '{folder}' is full; free some space and run the same command again: it goes on where it "
            "stopped"
        ) from None
