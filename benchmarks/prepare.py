"""How fast `prepare` is beside the bare tokenizer, how its memory grows, and how long a large store takes to open.

    python benchmarks/prepare.py [--data FOLDER] [--sections throughput memory opening] [--documents 100_000_000]

Throughput: the texts of FOLDER (<domain>.jsonl.gz and the like; by default those of data/environment.py) in five
forms on the disk, through `prepare_store` with as many processes as cores; in between, the same texts in memory through
`encode_batch_fast` with as many threads. The ratio is the median over pairs of runs that follow each other; the CPU
ratio says the same of the processor time, which other work on the machine disturbs less.
Memory: short documents made on the way, never on the disk; PSS of all processes, sampled while parts are finished.
Opening: stores of sparse files, opened for the first time, which reads every byte, and again.
Writes benchmarks/prepare.json; a section that is not asked for stays as it was.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import tokenizers

from autoscale_exp.data.conf import FilesConf, FilesDataConf, TokenizerConf
from autoscale_exp.data.manifest import Manifest
from autoscale_exp.data.preparation import pipeline
from autoscale_exp.data.preparation.corpus import Corpus, Document, Part, Source
from autoscale_exp.data.preparation.entries import FileSpan, kind_of, read_entries
from autoscale_exp.data.preparation.environment import EXTRACTORS, write_environment_corpus
from autoscale_exp.data.preparation.files import PART_BYTES
from autoscale_exp.data.store import open_store, seal_store

RESULTS = Path(__file__).parent / "prepare.json"
CORES = len(os.sched_getaffinity(0))
SECTIONS = ("memory", "throughput", "opening")  # memory first, while this process is small
VOCAB_SIZES = (512, 50_000)
BARE_BATCH = 1000  # documents; all at once would take gigabytes for the encodings
SHORT_DOCUMENT_BYTES = 64  # of a JSON line with about 8 tokens of text
SIZES = ("Pss", "Pss_Anon")  # of /proc/<pid>/smaps_rollup
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")


# Throughput


def read_documents(folder: Path, megabytes: float) -> dict[str, list[Document]]:
    """Documents of each <domain>.jsonl(.gz, .zst) by domain, the same share of each; megabytes in all, at most."""
    paths = {path.name.split(".")[0]: path for path in sorted(folder.iterdir()) if kind_of(path.name) == "json"}
    paths.pop("manifest", None)  # of the environment's corpus
    found = {}
    for domain, path in paths.items():
        entries = (entry for entry, _ in read_entries(FileSpan(str(path)), ()))
        every = [Document(domain, r["text"], (r.get("group") or r["source"]).split("#")[0]) for r in entries]
        found[domain] = every
    share = min(1.0, megabytes * 1e6 / text_bytes(found))
    return {domain: every[: max(1, round(len(every) * share))] for domain, every in found.items()}


def text_bytes(documents: dict[str, list[Document]]) -> int:
    return sum(len(document.text.encode()) for every in documents.values() for document in every)


def write_lines(path: Path, documents: list[Document]) -> None:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.OSFile(str(path), "wb") as raw:
        file = pa.CompressedOutputStream(raw, codec) if codec else raw
        for document in documents:
            file.write((json.dumps(asdict(document), ensure_ascii=False) + "\n").encode())
        file.close()


def write_forms(documents: dict[str, list[Document]], folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the documents in each form; returns the `data` options that read it."""
    import pyarrow.parquet as pq

    forms: dict[str, dict[str, Any]] = {}
    together = [d for row in itertools.zip_longest(*documents.values()) for d in row if d is not None]
    by_field = {domain: FilesConf(keep={"domain": domain}) for domain in documents}
    for form, suffix in (("a .jsonl.gz per domain", ".jsonl.gz"), ("a .jsonl per domain", ".jsonl")):
        place = folder / suffix[1:]
        place.mkdir()
        for domain, every in documents.items():
            write_lines(place / f"{domain}{suffix}", every)
        forms[form] = {"domains": list(documents), "path": str(place)}
    shared = {"domains": list(documents), "path": str(folder), "sources": by_field}
    write_lines(folder / "all.jsonl.zst", together)
    forms["all in one .jsonl.zst"] = {**shared, "files": ["all.jsonl.zst"]}
    table = pa.table({k: [getattr(d, k) for d in together] for k in ("domain", "text", "group")})
    pq.write_table(table, folder / "all.parquet", row_group_size=10_000)
    forms["all in one .parquet"] = {**shared, "files": ["all.parquet"]}
    small = list(documents)[-3:]
    (folder / "uneven").mkdir()
    write_lines(folder / "uneven" / "large.jsonl.zst", [d for d in together if d.domain not in small])
    for domain in small:
        write_lines(folder / "uneven" / f"{domain}.jsonl", documents[domain])
    forms["a large .jsonl.zst, three small .jsonl"] = {"domains": ["large", *small], "path": str(folder / "uneven")}
    return forms


@dataclass(frozen=True)
class Timing:
    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Any]) -> tuple[Timing, Any]:
    def cpu() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    cpu_before, before = cpu(), time.perf_counter()
    result = work()
    return Timing(time.perf_counter() - before, cpu() - cpu_before), result


def bare(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    for start in range(0, len(texts), BARE_BATCH):
        tokenizer.encode_batch_fast(texts[start : start + BARE_BATCH], add_special_tokens=False)


def prepared_tokens(manifest: Manifest) -> int:
    splits = [entry.split(name) for entry in manifest.domains.values() for name in ("train", "validation")]
    return sum(split.tokens + split.dropped_tokens for split in splits)


def measure_throughput(documents: dict[str, list[Document]], scratch: Path, repeats: int) -> dict[str, Any]:
    from autoscale_exp.data.tokenizer import train_bpe  # not above: worker processes import this file, too

    texts = [document.text for every in documents.values() for document in every]
    megabytes = text_bytes(documents) / 1e6
    forms = write_forms(documents, scratch)
    results = []
    for vocab_size in VOCAB_SIZES:
        trained = train_bpe((text for every in documents.values() for text in first_characters(every)), vocab_size)
        trained.save_pretrained(scratch / f"bpe-{vocab_size}")
        tokenizer = tokenizers.Tokenizer.from_file(str(scratch / f"bpe-{vocab_size}" / "tokenizer.json"))
        chosen = forms if vocab_size == VOCAB_SIZES[-1] else dict(list(forms.items())[:1])
        pairs: dict[str, list[tuple[Timing, Timing]]] = {form: [] for form in chosen}
        tokens = 0
        for _, (form, options) in itertools.product(range(repeats), chosen.items()):
            alone, _ = timed(lambda tokenizer=tokenizer: bare(tokenizer, texts))
            name = TokenizerConf(str(scratch / f"bpe-{vocab_size}"))
            whole, store = prepare_once(options, name, scratch)
            tokens = prepared_tokens(store)
            pairs[form].append((alone, whole))
            print(f"{vocab_size}, {form}: bare {alone.seconds:.1f} s, prepare {whole.seconds:.1f} s", flush=True)
        for form, timings in pairs.items():
            seconds = statistics.median(whole.seconds for _, whole in timings)
            results.append(
                {
                    "form": form,
                    "vocab_size": tokenizer.get_vocab_size(),
                    "tokens_per_second": tokens / seconds,
                    "megabytes_per_second": megabytes / seconds,
                    "bare_megabytes_per_second": megabytes / statistics.median(alone.seconds for alone, _ in timings),
                    "ratio": statistics.median(alone.seconds / whole.seconds for alone, whole in timings),
                    "cpu_ratio": statistics.median(alone.cpu_seconds / whole.cpu_seconds for alone, whole in timings),
                    "ratios": [alone.seconds / whole.seconds for alone, whole in timings],
                }
            )
    form, options = next(iter(forms.items()))
    in_all, store = prepare_once(options, TokenizerConf("bpe", VOCAB_SIZES[0]), scratch)
    training = {"form": form, "vocab_size": VOCAB_SIZES[0], "seconds": in_all.seconds}
    return {
        "megabytes": megabytes,
        "documents": len(texts),
        "repeats": repeats,
        "measured": results,
        "with_training_of_the_tokenizer": training | {"tokens_per_second": prepared_tokens(store) / in_all.seconds},
    }


def first_characters(documents: list[Document]) -> Iterator[str]:
    """What prepare trains a tokenizer on: the first TOKENIZER_CHARACTERS."""
    characters = 0
    for document in documents:
        yield document.text
        characters += len(document.text)
        if characters >= pipeline.TOKENIZER_CHARACTERS:
            return


def prepare_once(options: dict[str, Any], tokenizer: TokenizerConf, scratch: Path) -> tuple[Timing, dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        conf = FilesDataConf(
            name="benchmark",
            store=folder,
            seq_len=128,
            validation_fraction=0.05,
            validation_rows=2,
            tokenizer=tokenizer,
            group_field="group",
            **options,
        )
        timing, store = timed(lambda: pipeline.prepare_store(conf, num_workers=CORES))
        return timing, store.manifest


# Memory


@dataclass(frozen=True)
class SyntheticCorpus(Corpus):
    """Short documents that are made when they are asked for.

    Attributes:
        num_documents: per part.
    """

    num_documents: int = 0

    def documents(self, part: Part, dropped: Counter[str] | None = None) -> Iterator[Document]:
        domains = [source.domain for source in part.sources]
        for number in range(part.index * self.num_documents, (part.index + 1) * self.num_documents):
            words = f"{WORDS[number % 13]} {WORDS[number // 13 % 13]} {WORDS[number // 169 % 13]}"
            yield Document(domains[number % 2], f"{words} {number}")


def measure_memory(num_documents: int, scratch: Path) -> dict[str, Any]:
    from autoscale_exp.data.tokenizer import train_bpe

    part_documents = min(PART_BYTES // SHORT_DOCUMENT_BYTES, max(1, num_documents // (8 * CORES)))
    sources = (Source("even", "text"), Source("odd", "text"))
    count = -(-num_documents // part_documents)
    parts = [Part(i, (), sources, part_documents * SHORT_DOCUMENT_BYTES) for i in range(count)]
    corpus = SyntheticCorpus(parts, {}, num_documents=part_documents)
    texts = (document.text for document in itertools.islice(corpus.documents(parts[0]), 20_000))
    train_bpe(texts, 2048).save_pretrained(scratch / "bpe")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        conf = FilesDataConf(
            name="benchmark",
            domains=["even", "odd"],
            store=folder,
            seq_len=256,
            validation_fraction=0.005,
            validation_rows=2,
            tokenizer=TokenizerConf(str(scratch / "bpe")),
        )
        with mock.patch.object(pipeline, "open_corpus", return_value=corpus), sampling(Path(folder)) as samples:
            timing, store = timed(lambda: pipeline.prepare_store(conf, num_workers=CORES))
        manifest = store.manifest
    documents = sum(e.split(s).documents for e in manifest.domains.values() for s in ("train", "validation"))
    steps = [n for k in range(5, 9) for n in (10**k, 3 * 10**k) if part_documents <= n < documents] + [documents]
    peaks = {}
    for step in steps:
        seen = [peak for done, peak in samples.items() if done * part_documents <= step]
        peaks[f"{step}"] = {name: max(peak[name] for peak in seen) / 1e6 for name in SIZES}
    return {
        "documents": documents,
        "tokens": prepared_tokens(manifest),
        "parts": len(parts),
        "processes": CORES + 1,
        "seconds": timing.seconds,
        "peak_megabytes_by_documents_done": peaks,
    }


@contextmanager
def sampling(folder: Path) -> Iterator[dict[int, dict[str, int]]]:
    """Collects the most memory in bytes of this process and its children, by the number of finished parts."""
    samples: dict[int, dict[str, int]] = {}  # as few numbers as possible, which count, too
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.5):
            peak = samples.setdefault(len(list(folder.glob("parts/*.json"))), dict.fromkeys(SIZES, 0))
            now = memory_of_family()
            peak.update({name: max(peak[name], now[name]) for name in SIZES})

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def memory_of_family() -> dict[str, int]:
    family = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    total: Counter[str] = Counter()
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total.update({name.rstrip(":"): int(size) * 1024 for name, size, *_ in map(str.split, lines)})
    return total


# Opening


def write_sparse_store(folder: Path, num_files: int, file_bytes: int) -> None:
    """A store that looks finished: files of zeros, which take no room on the disk."""
    zeros = hashlib.sha256(bytes(file_bytes)).hexdigest()
    seq_len = 1024
    rows = file_bytes // (2 * seq_len)
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    names = [f"{number:05d}" for number in range(num_files // 2)]
    domains = {}
    for domain in ("a", "b"):
        for path in [*(folder / "train" / domain / f"{n}.bin" for n in names), folder / "validation" / f"{domain}.bin"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, file_bytes)
        train = {"rows": rows * len(names), "files": {name: {"rows": rows, "sha256": zeros} for name in names}}
        domains[domain] = {"train": train, "validation": {"rows": rows, "sha256": zeros}}
    manifest = {
        "config": {"seq_len": seq_len, "domains": ["a", "b"], "held_out_domains": []},
        "dtype": "<u2",
        "tokenizer": {"name": "bpe", "vocab_size": 512, "sha256": hashlib.sha256(b"{}").hexdigest()},
        "domains": domains,
    }
    (folder / "manifest.json").write_text(json.dumps(seal_store(manifest)))


def measure_opening(scratch: Path) -> list[dict[str, Any]]:
    results = []
    for num_files, file_megabytes in ((100, 4), (100, 40), (1000, 4), (10_000, 0.4)):
        file_bytes = int(file_megabytes * 1e6) // 2048 * 2048
        folder = scratch / f"{num_files}-{file_bytes}"
        write_sparse_store(folder, num_files, file_bytes)
        first, _ = timed(lambda folder=folder: open_store(folder))
        again = [timed(lambda folder=folder: open_store(folder))[0].seconds for _ in range(5)]
        gigabytes = num_files * file_bytes / 1e9
        times = {"first_seconds": first.seconds, "again_seconds": statistics.median(again)}
        results.append({"files": num_files, "gigabytes": gigabytes, **times})
    return results


def print_tables(content: dict[str, Any]) -> None:
    if throughput := content.get("throughput"):
        print("| text | entries | prepare, M tokens/s | prepare, MB/s | bare, MB/s | ratio | ratio of CPU time |")
        print("|---|---|---|---|---|---|---|")
        for row in throughput["measured"]:
            speeds = f"{row['megabytes_per_second']:.2f} | {row['bare_megabytes_per_second']:.2f}"
            print(
                f"| {row['form']} | {row['vocab_size']} | {row['tokens_per_second'] / 1e6:.2f} | {speeds} "
                f"| {row['ratio']:.2f} | {row['cpu_ratio']:.2f} |"
            )
    if memory := content.get("memory"):
        print(f"\n{memory['documents']} documents, {memory['tokens']} tokens, {memory['seconds']:.0f} s")
        for documents, peak in memory["peak_megabytes_by_documents_done"].items():
            print(f"up to {documents} documents: PSS {peak['Pss']:.0f} MB, anonymous {peak['Pss_Anon']:.0f} MB")
    for row in content.get("opening", {}).get("measured", []):
        first, again = f"{row['first_seconds']:.2f} s", f"{row['again_seconds']:.3f} s"
        print(f"{row['files']} files, {row['gigabytes']:.2f} GB: first opened in {first}, again in {again}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of <domain>.jsonl(.gz, .zst) with text and source or group")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--documents", type=int, default=10_000_000, help="of the memory section")
    parser.add_argument("--megabytes", type=float, default=100, help="of text, at most, of the throughput section")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
        "cores": CORES,
    }
    for section in (section for section in SECTIONS if section in arguments.sections):
        load = os.getloadavg()
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            if section == "throughput":
                data = arguments.data or scratch / "environment"
                if arguments.data is None:
                    write_environment_corpus(list(EXTRACTORS), 4_000_000, data)
                result = measure_throughput(read_documents(data, arguments.megabytes), scratch, arguments.repeats)
            elif section == "memory":
                result = measure_memory(arguments.documents, scratch)
            else:
                result = {"measured": measure_opening(scratch)}
        content[section] = machine | {"load_before": load, "load_after": os.getloadavg()} | result
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print_tables({section: content[section] for section in arguments.sections})


if __name__ == "__main__":
    main()
