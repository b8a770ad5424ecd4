"""Training speed on one GPU, in one run of at most nine minutes: python benchmarks/gpu.py

For each model `train` as it is, with trainer.compile, and in packs, beside a bare loop, the same compiled, and Hugging
Face's Trainer: the same rows of random tokens in bf16, one after the other in this process. A speed is in tokens per
second of the clock without the first steps, and beside it as a share of the 8192³ matrix product in bf16 that is
measured first, by 6 x parameters per token. What no longer fits the nine minutes is left out and named. Writes
benchmarks/gpu.json. `--small` tries the same on a CPU with tiny models, whose figures mean nothing.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from training import (
    HERE,
    Times,
    bare_loop,
    hugging_face,
    machine,
    packed,
    plan_of,
    random_store,
    tokens_per_second,
    trained,
)

from autoscale_exp.base.errors import UserError
from autoscale_exp.training.pack import Pack
from autoscale_exp.training.packed_trainer import PackedTrainer
from autoscale_exp.training.plan import RunPlan

SECONDS = 500  # after which nothing new is begun
BF16 = ["trainer.precision=bf16-mixed", "model.dropout=0"]


@dataclass(frozen=True)
class Model:
    """A model to measure, in the order of worth."""

    name: str
    overrides: list[str]
    vocab_size: int
    seq_len: int
    steps: int
    packs: tuple[int, ...] = ()
    micro_rows: tuple[int, ...] = ()  # rows at a time to try; the first is that of the other contenders


def proxy(n_layer: int, n_embd: int, n_head: int, batch_rows: int) -> list[str]:
    """Overrides of a small GPT-2."""
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "optimizer.batch_rows": batch_rows}
    return ["model=gpt2_tiny", *(f"model.{key}={value}" for key, value in sizes.items())]


MODELS = [
    Model("14M", proxy(6, 384, 6, 32), 8192, 256, 40, packs=(1, 8, 15, 34)),
    Model("gpt2_large", ["model=gpt2_large", "model.optimizer.batch_rows=40"], 50_257, 1024, 12, micro_rows=(20, 40)),
    Model("gpt2", ["model=gpt2", "model.optimizer.batch_rows=64"], 50_257, 1024, 16, micro_rows=(32, 64)),
    Model("RegMix-sized", proxy(2, 256, 4, 16), 50_257, 2048, 25, packs=(1, 8, 16)),
    Model("bert_base", ["model=bert_base", "model.optimizer.batch_rows=128"], 30_522, 512, 16, micro_rows=(64,)),
]
SMALL = [
    Model("tiny", proxy(1, 32, 2, 8), 300, 32, 12, packs=(1, 3)),
    Model("tiny in parts", proxy(1, 32, 2, 8), 300, 32, 12, micro_rows=(4, 8)),
    Model("tiny BERT", ["model=bert_tiny", "model.optimizer.batch_rows=8"], 300, 32, 12, packs=(2,), micro_rows=(4,)),
]


def clock() -> float:
    """Seconds, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_product_flops(size: int) -> float:
    """FLOP/s of the product of two square bf16 matrices, the best of five."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        start = clock()
        for _ in range(5):
            a @ b
        seconds.append((clock() - start) / 5)
    return 2 * size**3 / min(seconds)


def contenders(model: Model, plan: Callable[..., RunPlan]) -> dict[str, Callable[[], tuple[Times, int]]]:
    """What is measured of a model: each returns times and the runs whose tokens they are of."""
    micro = [f"micro_batch_rows={model.micro_rows[0]}"] if model.micro_rows else []
    of_train: dict[str, Callable[[], Times]] = {
        "train": lambda: trained(plan(*micro), clock),
        "bare loop": lambda: bare_loop(plan(*micro), clock),
        "train, compiled": lambda: trained(plan(*micro, "trainer.compile=true"), clock),
        "bare loop, compiled": lambda: bare_loop(plan(*micro), clock, compiled=True),
    }
    if "model=bert" not in model.overrides[0]:
        of_train["Hugging Face Trainer"] = lambda: hugging_face(plan(*micro), clock)
    for rows in model.micro_rows[1:]:
        size = [f"micro_batch_rows={rows}", "trainer.compile=true"]
        of_train[f"train, compiled, {rows} rows at a time"] = partial(lambda size: trained(plan(*size), clock), size)
    found = {name: partial(lambda of: (of(), 1), of) for name, of in of_train.items()}
    trainer = PackedTrainer(precision="bf16-mixed")
    for number in model.packs:
        for compiled in ("", "trainer.compile=true"):
            plans = partial(lambda n, c: [plan(f"seed={k}", *filter(None, [c])) for k in range(n)], number, compiled)
            name = f"{number} packed" + ", compiled" * bool(compiled)
            found[name] = partial(lambda of, n: (packed(of(), clock, trainer), n), plans, number)
    return found


def measured(model: Model, store: Any, peak: float, deadline: float) -> dict[str, Any]:
    """Speeds of a model's contenders, and the memory that each took at most."""
    plan = partial(plan_of, store, model.steps, model.overrides, *BF16)
    step_tokens = plan().conf.model.optimizer.batch_rows * store.seq_len
    pack = Pack([(plan(), Path())], torch.device("cuda" if torch.cuda.is_available() else "cpu"), "bf16-mixed")
    pack.stack_models(1)
    params = pack.num_params
    del pack
    results: dict[str, Any] = {"params": params}
    for name, contender in contenders(model, plan).items():
        gc.collect()
        if time.perf_counter() > deadline:
            results[name] = "left out: no time"
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch.compiler.reset()
        try:
            times, runs = contender()
        except (UserError, torch.OutOfMemoryError) as error:
            results[name] = f"failed: {error}"
            continue
        speed = tokens_per_second(times, step_tokens * runs)
        results[name] = {"tokens_per_second": round(speed), "share_of_product": round(6 * params * speed / peak, 3)}
        if torch.cuda.is_available():
            results[name]["peak_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        print(model.name, name, results[name], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models on a CPU, to try the code")
    parser.add_argument("--output", type=Path, default=HERE / "gpu.json")
    given = parser.parse_args()
    if not (given.small or torch.cuda.is_available()):
        parser.error("there is no GPU; --small tries the code on a CPU")
    deadline = time.perf_counter() + SECONDS
    peak = matrix_product_flops(256 if given.small else 8192)
    results: dict[str, Any] = {"machine": machine(), "matrix_product_flops": peak}
    with tempfile.TemporaryDirectory() as folder:
        for model in SMALL if given.small else MODELS:
            store = random_store(Path(folder) / model.name, model.vocab_size, model.seq_len)
            results[model.name] = measured(model, store, peak, deadline)
            given.output.write_text(
                json.dumps(results, indent=1) + "\n"
            )  # after each, as nine minutes may be cut short


if __name__ == "__main__":
    main()
