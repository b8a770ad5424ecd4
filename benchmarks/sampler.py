"""Batches of a mixture from five libraries, side by side: rows per second, first batch, memory, shares, resume.

    pip install -r benchmarks/requirements.txt     (see there)
    python benchmarks/sampler.py [--rows 1000000] [--repeats 3]

The same numbered rows of seven unequal domains, stored as each library recommends for pre-tokenised rows of a fixed
length, in a temporary folder that is deleted at the end. Every batch reaches the loop as an int64 (B, T) tensor, as
a language model takes it. Every measurement is a process of its own; speeds are medians of --repeats, one process
at a time, page cache warm. Memory is the proportional set size of the process and its workers, less that after
imports; "own" leaves out pages of the stores' files, which the kernel takes back under pressure.
Writes benchmarks/sampler.json and benchmarks/sampler.png.
"""

import argparse
import importlib.metadata
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, WeightedRandomSampler

HERE = Path(__file__).parent
WEIGHTS = (0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02)
POOL_FACTORS = (1.1, 1.15, 1.3, 3.0, 1.2, 1.5, 2.0)  # rows that a domain has, in rows that the mixture asks for
DOMAINS = tuple(f"domain{index}" for index in range(len(WEIGHTS)))
SEED = 7
WINDOW_SECONDS = 1.5
WARM_UP_BATCHES = 20
COMPARED_BATCHES = 100


@dataclass(frozen=True)
class Shape:
    """Rows of a run and how they are batched."""

    rows: int
    seq_len: int
    batch_rows: int

    @property
    def pools(self) -> list[int]:
        return [int(self.rows * weight * factor) + 64 for weight, factor in zip(WEIGHTS, POOL_FACTORS, strict=True)]


def numbered_rows(domain: int, rows: int, seq_len: int) -> np.ndarray:
    """(rows, seq_len) uint16; the first three tokens say which row of which domain it is."""
    tokens = np.random.default_rng(domain).integers(0, 50_000, (rows, seq_len), dtype=np.uint16)
    number = np.arange(rows)
    tokens[:, 0], tokens[:, 1], tokens[:, 2] = domain, number % 65_536, number // 65_536
    return tokens


def torch_loader(resumable: bool) -> type[DataLoader]:
    """torchdata's loader adds a state to torch's, and costs some speed."""
    if not resumable:
        return DataLoader
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader


class Ours:
    """MixtureBatches through a ResumableLoader: whole batches, from the batch's index."""

    label = "autoscale_exp"

    @staticmethod
    def write(folder: Path, shape: Shape) -> None:
        for index, rows in enumerate(shape.pools):
            (folder / "train" / DOMAINS[index]).mkdir(parents=True)
            numbered_rows(index, rows, shape.seq_len).tofile(folder / "train" / DOMAINS[index] / "00000.bin")

    @staticmethod
    def store(folder: Path, shape: Shape) -> Any:
        """The token store over what `write` wrote; the only place that knows its layout."""
        from autoscale_exp.data.store import TokenStore

        domains = {
            name: {"train": {"rows": rows, "files": {"00000": {"rows": rows}}}}
            for name, rows in zip(DOMAINS, shape.pools, strict=True)
        }
        return TokenStore(folder, {"domains": domains, "config": {"seq_len": shape.seq_len}, "dtype": "<u2"})

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        from autoscale_exp.data.datamodule import MixtureBatches, ResumableLoader
        from autoscale_exp.mixture.allocation import allocate_rows
        from autoscale_exp.mixture.sampler import MixtureSampler

        counts = allocate_rows(np.array(WEIGHTS) * shape.rows, 1)
        sampler = MixtureSampler(DOMAINS, shape.pools, counts, seed=SEED, max_epochs=4)
        rows = shape.batch_rows
        batches = MixtureBatches(
            self.store(folder, shape), sampler, step_rows=rows, micro_batch_rows=rows, rank=0, world_size=1
        )
        self.consumed = 0
        self.loader = ResumableLoader(batches, lambda: self.consumed, num_workers=workers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self.loader:
            self.consumed += 1
            yield batch.tokens.long()


class IterableDatasets:
    """interleave_datasets over iterable datasets on Arrow files.

    Formatted, then batched inside the dataset: faster than rows that the loader collates. Four shards per
    domain, for its workers need one each. No shuffle buffer, which would halve the speed: a domain's rows come in
    the order of the store.
    """

    label = "datasets, iterable"

    @staticmethod
    def write(folder: Path, shape: Shape) -> None:
        import datasets
        import pyarrow as pa

        datasets.disable_progress_bars()
        for index, rows in enumerate(shape.pools):
            flat = pa.array(numbered_rows(index, rows, shape.seq_len).ravel())
            table = pa.table({"tokens": pa.FixedSizeListArray.from_arrays(flat, shape.seq_len)})
            datasets.Dataset(table).save_to_disk(folder / DOMAINS[index])

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        import datasets

        parts = [datasets.load_from_disk(folder / name).to_iterable_dataset(num_shards=4) for name in DOMAINS]
        mixture = datasets.interleave_datasets(
            parts, probabilities=list(WEIGHTS), seed=SEED, stopping_strategy="all_exhausted"
        )
        mixture = mixture.with_format("torch").batch(shape.batch_rows)
        self.loader = torch_loader(resumable)(mixture, batch_size=None, num_workers=workers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (batch["tokens"] for batch in self.loader)


class MapDatasets:
    """interleave_datasets over map-style datasets: an index of the whole run, whole batches read by it."""

    label = "datasets, map-style"
    write = IterableDatasets.write

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        import datasets

        parts = [datasets.load_from_disk(folder / name) for name in DOMAINS]
        mixture = datasets.interleave_datasets(
            parts, probabilities=list(WEIGHTS), seed=SEED, stopping_strategy="all_exhausted"
        ).with_format("torch")
        batches = BatchSampler(SequentialSampler(mixture), shape.batch_rows, drop_last=False)
        self.loader = torch_loader(resumable)(mixture, batch_size=None, sampler=batches, num_workers=workers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (batch["tokens"] for batch in self.loader)


def stack_int64(rows: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(rows).astype(np.int64))


class Mosaic:
    """StreamingDataset over local MDS shards of fixed-shape arrays, a Stream and proportion per domain.

    One copy when a batch is put together.
    """

    label = "MosaicML streaming"

    @staticmethod
    def import_streaming() -> Any:
        # Images need torchvision, which has no build for CPU-only torch on every index; tokens need none of it.
        sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
        import streaming

        return streaming

    @classmethod
    def write(cls, folder: Path, shape: Shape) -> None:
        streaming = cls.import_streaming()
        for index, rows in enumerate(shape.pools):
            columns = {"tokens": f"ndarray:uint16:{shape.seq_len}"}
            with streaming.MDSWriter(out=str(folder / DOMAINS[index]), columns=columns) as out:
                for row in numbered_rows(index, rows, shape.seq_len):
                    out.write({"tokens": row})

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        streaming = self.import_streaming()
        streams = [
            streaming.Stream(local=str(folder / name), proportion=weight)
            for name, weight in zip(DOMAINS, WEIGHTS, strict=True)
        ]
        dataset = streaming.StreamingDataset(
            streams=streams,
            batch_size=shape.batch_rows,
            epoch_size=shape.rows,
            shuffle=True,
            shuffle_seed=SEED,
            num_canonical_nodes=1,
        )
        self.loader = streaming.StreamingDataLoader(
            dataset,
            batch_size=shape.batch_rows,
            num_workers=workers,
            collate_fn=lambda rows: {"tokens": stack_int64([row["tokens"] for row in rows])},
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (batch["tokens"] for batch in self.loader)


def token_blocks(index: int, shape: Shape) -> Iterator[np.ndarray]:
    rows = numbered_rows(index, shape.pools[index], shape.seq_len)
    for start in range(0, len(rows), 256):
        yield rows[start : start + 256].ravel()


class LitData:
    """CombinedStreamingDataset over chunks of tokens (about 64 MB, as documented) that TokensLoader cuts into rows."""

    label = "litdata"

    @staticmethod
    def write(folder: Path, shape: Shape) -> None:
        import litdata

        for index, name in enumerate(DOMAINS):
            litdata.optimize(
                fn=partial(token_blocks, shape=shape),
                inputs=[index],
                output_dir=str(folder / name),
                chunk_size=32 * 1024 * 1024,
                num_workers=1,
                item_loader=litdata.TokensLoader(block_size=shape.seq_len),
                verbose=False,
            )

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        import litdata

        parts = [
            litdata.StreamingDataset(
                str(folder / name),
                item_loader=litdata.TokensLoader(block_size=shape.seq_len),
                shuffle=True,
                drop_last=True,
                seed=SEED,
            )
            for name in DOMAINS
        ]
        mixture = litdata.CombinedStreamingDataset(parts, seed=SEED, weights=list(WEIGHTS), iterate_over_all=False)
        self.loader = litdata.StreamingDataLoader(
            mixture, batch_size=shape.batch_rows, num_workers=workers, collate_fn=stack_int64
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.loader)


class MappedRows(torch.utils.data.Dataset[torch.Tensor]):
    """Rows of all domains in one memory-mapped array, read a batch at a time."""

    def __init__(self, path: Path, seq_len: int) -> None:
        self.tokens = np.memmap(path, np.uint16, "r").reshape(-1, seq_len)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.tokens[rows].astype(np.int64))


class Torch:
    """WeightedRandomSampler with replacement over one memory-mapped array; rows of a domain weigh the same."""

    label = "torch WeightedRandomSampler"

    @staticmethod
    def write(folder: Path, shape: Shape) -> None:
        with (folder / "tokens.bin").open("wb") as file:
            for index, rows in enumerate(shape.pools):
                numbered_rows(index, rows, shape.seq_len).tofile(file)

    def __init__(self, folder: Path, shape: Shape, workers: int, resumable: bool) -> None:
        weights = np.repeat(np.array(WEIGHTS) / shape.pools, shape.pools)
        sampler = WeightedRandomSampler(
            torch.from_numpy(weights), shape.rows, replacement=True, generator=torch.Generator().manual_seed(SEED)
        )
        batches = BatchSampler(sampler, shape.batch_rows, drop_last=False)
        rows = MappedRows(folder / "tokens.bin", shape.seq_len)
        self.loader = torch_loader(resumable)(rows, batch_size=None, sampler=batches, num_workers=workers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.loader)


CONTENDERS = {kind.__name__: kind for kind in (Ours, Torch, MapDatasets, LitData, Mosaic, IterableDatasets)}
STORES = {"MapDatasets": "IterableDatasets"}  # reads the store that another contender writes


def memory_mib() -> dict[str, float]:
    """Proportional set size of this process and its workers, in all and without pages of files."""
    total = {"all": 0.0, "own": 0.0}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in [str(os.getpid()), *children]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total["all"] += kib["Pss"] / 1024
        total["own"] += (kib["Pss_Anon"] + kib["Pss_Shmem"]) / 1024
    return total


def measure_speed(kind: type, folder: Path, shape: Shape, workers: int) -> dict[str, float]:
    before = memory_mib()
    started = time.perf_counter()
    batches = iter(kind(folder, shape, workers, resumable=False))
    first = next(batches)
    first_seconds = time.perf_counter() - started
    assert first.dtype == torch.int64
    assert first.shape == (shape.batch_rows, shape.seq_len), first.shape
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    num_rows, started = 0, time.perf_counter()
    for batch in batches:
        num_rows += len(batch)
        if (seconds := time.perf_counter() - started) > WINDOW_SECONDS:
            break
    after = memory_mib()
    return {
        "rows_per_second": num_rows / seconds,
        "first_batch_seconds": first_seconds,
        "memory_mib": after["all"] - before["all"],
        "own_memory_mib": after["own"] - before["own"],
    }


def measure_shares(numbers: np.ndarray, shape: Shape) -> dict[str, Any]:
    """Deviations from the weights and rows that came again before their domain was exhausted, from (n, 3) tokens."""
    domain, row = numbers[:, 0], numbers[:, 1] + 65_536 * numbers[:, 2]
    deviations = {
        num: float(np.abs(np.bincount(domain[:num], minlength=len(WEIGHTS)) / num - WEIGHTS).max())
        for num in (10_000, 100_000, 1_000_000)
        if num <= len(domain)
    }
    repeated = 0
    for index, pool in enumerate(shape.pools):
        drawn = row[domain == index][:pool]
        repeated += len(drawn) - len(np.unique(drawn))
    return {"rows": len(domain), "largest_deviation": deviations, "repeated_rows": repeated}


def measure_run(kind: type, folder: Path, shape: Shape, workers: int, stop: int, state: Path) -> dict[str, Any]:
    """Reads the run, or as far as the comparison goes; leaves a state in its middle and the batches after it."""
    loader = kind(folder, shape, workers, resumable=True)
    numbers, after, num_rows = [], [], 0
    for batch in loader:
        num_rows += len(batch)
        numbers.append(batch[:, :3].numpy().copy())
        if num_rows == stop:
            saved = loader.loader.state_dict()
        elif num_rows > stop and len(after) < COMPARED_BATCHES:
            after.append(batch.clone())
        if num_rows >= (shape.rows if workers == 0 else stop + COMPARED_BATCHES * shape.batch_rows):
            break
    state.write_bytes(pickle.dumps((saved, torch.stack(after))))
    return measure_shares(np.concatenate(numbers)[: shape.rows], shape) if workers == 0 else {}


def measure_resume(kind: type, folder: Path, shape: Shape, workers: int, state: Path) -> dict[str, Any]:
    saved, after = pickle.loads(state.read_bytes())
    loader = kind(folder, shape, workers, resumable=True)
    started = time.perf_counter()
    loader.loader.load_state_dict(saved)
    batches = iter(loader)
    resumed = [next(batches)]
    seconds = time.perf_counter() - started
    for batch in batches:
        resumed.append(batch)
        if len(resumed) == len(after):
            break
    equal = [bool(torch.equal(a, b)) for a, b in zip(resumed, after, strict=False)]
    return {"exact": equal == [True] * len(after), "equal_batches": sum(equal), "seconds": seconds}


def measure(task: dict[str, Any]) -> Any:
    kind, shape, folder = CONTENDERS[task["contender"]], Shape(**task["shape"]), Path(task["folder"])
    # Everything that a contender needs is imported before its clock and its memory count.
    import torchdata.stateful_dataloader  # noqa: F401

    if kind is Ours:
        import autoscale_exp.data.datamodule  # noqa: F401
    elif kind is Mosaic:
        Mosaic.import_streaming()
    elif kind is LitData:
        import litdata  # noqa: F401
    elif kind is not Torch:
        import datasets  # noqa: F401
    if task["what"] == "write":
        return kind.write(folder, shape)
    what = {"speed": measure_speed, "run": measure_run, "resume": measure_resume}[task["what"]]
    options = {key: Path(value) if key == "state" else value for key, value in task["options"].items()}
    return what(kind, folder, shape, **options)


def in_process(what: str, contender: str, folder: Path, shape: Shape, **options: Any) -> Any:
    """The result of one measurement in a fresh process."""
    task = {
        "what": what,
        "contender": contender,
        "folder": str(folder),
        "shape": asdict(shape),
        "options": {key: str(value) if key == "state" else value for key, value in options.items()},
    }
    # Peers look for caches and updates; none of it belongs in a home folder or on the network.
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf")}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(HERE.parent), "TMPDIR": str(folder.parent)}
    command = [sys.executable, __file__, "--measure", json.dumps(task)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "no result in 400 s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][-300:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def middle(results: list[dict[str, Any]]) -> dict[str, Any]:
    failed = [result for result in results if "error" in result]
    return failed[0] if failed else {key: median(result[key] for result in results) for key in results[0]}


def write_store(folder: Path, name: str, shape: Shape) -> None:
    (folder / name).mkdir(parents=True)
    result = in_process("write", name, folder / name, shape)
    if result:
        raise RuntimeError(f"{name} could not write its store: {result['error']}")


def run_benchmark(rows: int, repeats: int, temporary: Path) -> dict[str, Any]:
    speeds = {"64 x 1024": Shape(65_536, 1024, 64), "16 x 64": Shape(rows, 64, 16)}
    long = speeds["16 x 64"]
    results: dict[str, Any] = {name: {"label": kind.label} for name, kind in CONTENDERS.items()}

    def place(name: str, shape: Shape) -> Path:
        return temporary / str(shape.seq_len) / STORES.get(name, name)

    def report(*words: object) -> None:
        print(f"{time.perf_counter() - began:5.0f} s", *words, flush=True)

    began = time.perf_counter()
    stores = [(name, shape) for shape in speeds.values() for name in CONTENDERS if name not in STORES]
    with ThreadPoolExecutor(2) as pool:  # neither writing nor the shares are timed
        list(pool.map(lambda store: write_store(temporary / str(store[1].seq_len), *store), stores))
        report("stores written")

        def long_run(name: str, workers: int) -> Any:
            stop = (
                (long.rows // 2 if workers == 0 else min(long.rows // 2, 50_000)) // long.batch_rows * long.batch_rows
            )
            state = temporary / f"{name}-{workers}.state"
            return in_process("run", name, place(name, long), long, workers=workers, stop=stop, state=state)

        # The slowest first, so that it shares the time of all others.
        jobs = [(name, workers) for workers in (0, 2) for name in reversed(CONTENDERS)]
        runs = dict(zip(jobs, pool.map(lambda job: long_run(*job), jobs), strict=True))
    report("runs read")
    for name in CONTENDERS:
        results[name]["shares"] = runs[name, 0]
        for workers in (0, 2):
            state = temporary / f"{name}-{workers}.state"
            error = runs[name, workers].get("error")
            results[name][f"resume, {workers} workers"] = (
                {"error": error}
                if error
                else in_process("resume", name, place(name, long), long, workers=workers, state=state)
            )
        report(name, results[name])
    settings = [("64 x 1024", workers) for workers in (0, 1, 2)] + [("16 x 64", 0)]
    samples: dict[tuple[str, str, int], list] = {}
    for _ in range(repeats):  # in turns, so that what else the machine does falls on all alike
        for batch, workers in settings:
            for name in CONTENDERS:
                result = in_process("speed", name, place(name, speeds[batch]), speeds[batch], workers=workers)
                samples.setdefault((name, batch, workers), []).append(result)
    for (name, batch, workers), of_setting in samples.items():
        results[name][f"{batch}, {workers} workers"] = middle(of_setting)
    report("done")
    return results


def draw(results: dict[str, dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from autoscale_exp.reporting.figures import COLOURS, MARKERS, STYLE

    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
        for index, result in enumerate(results.values()):
            style = {"color": COLOURS[index], "marker": MARKERS[index], "ms": 5, "lw": 1.4}
            speeds = [result[f"64 x 1024, {workers} workers"].get("rows_per_second") for workers in (0, 1, 2)]
            left.plot(
                [0, 1, 2], [np.nan if speed is None else speed for speed in speeds], label=result["label"], **style
            )
            deviation = result["shares"].get("largest_deviation", {})
            right.plot([int(num) for num in deviation], [max(value, 1e-6) for value in deviation.values()], **style)
        left.set(xlabel="loader processes (0: in the training process)", ylabel="rows of 1,024 tokens per second")
        left.set(xticks=[0, 1, 2], yscale="log")
        right.set(
            xlabel="rows read",
            ylabel="largest deviation of a share (0 is drawn at $10^{-6}$)",
            xscale="log",
            yscale="log",
        )
        figure.legend(loc="outside right center", fontsize=8)
        figure.savefig(path, dpi=150)


def print_table(results: dict[str, dict]) -> None:
    def cell(result: dict, text: Callable[[dict], str]) -> str:
        return "fails" if "error" in result else text(result)

    columns = (
        "rows/s, 0 / 1 / 2 workers",
        "16 x 64: rows/s",
        "first batch",
        "memory (own)",
        "largest deviation after 10k / 100k / 1M rows",
        "repeated rows",
        "resume, 0 workers",
        "resume, 2 workers",
    )
    print("| |", " | ".join(columns), "|")
    print("|---|---|---|---|---|---|---|---|---|")
    for result in results.values():
        alone, small = result["64 x 1024, 0 workers"], result["16 x 64, 0 workers"]
        cells = [
            " / ".join(
                cell(result[f"64 x 1024, {workers} workers"], lambda r: f"{r['rows_per_second']:,.0f}")
                for workers in (0, 1, 2)
            ),
            cell(small, lambda r: f"{r['rows_per_second']:,.0f}"),
            cell(alone, lambda r: f"{1000 * r['first_batch_seconds']:.0f} ms"),
            cell(alone, lambda r: f"{r['memory_mib']:.0f} ({r['own_memory_mib']:.0f}) MiB"),
            cell(result["shares"], lambda r: " / ".join(f"{value:.1e}" for value in r["largest_deviation"].values())),
            cell(result["shares"], lambda r: f"{r['repeated_rows']:,}"),
        ]
        cells += [
            cell(
                result[f"resume, {workers} workers"],
                lambda r: f"{'exact' if r['exact'] else 'differs'}, {1000 * r['seconds']:,.0f} ms",
            )
            for workers in (0, 2)
        ]
        print(f"| {result['label']} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the run whose shares are counted")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each speed")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one measurement, in the process started for it
    arguments = parser.parse_args()
    if arguments.measure:
        print("\n" + json.dumps(measure(json.loads(arguments.measure))), flush=True)
        os._exit(0)  # workers of an unfinished epoch are not waited for
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="sampler-") as temporary:
        results = run_benchmark(arguments.rows, arguments.repeats, Path(temporary))
    packages = ("torch", "numpy", "datasets", "mosaicml-streaming", "litdata", "torchdata")
    content = {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "cores": os.cpu_count(),
        "load_average": {"before": load, "after": os.getloadavg()},
        "rows": arguments.rows,
        "repeats": arguments.repeats,
        "weights": WEIGHTS,
        "pool_factors": POOL_FACTORS,
        "results": results,
    }
    (HERE / "sampler.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(results, HERE / "sampler.png")
    print_table(results)


if __name__ == "__main__":
    main()
