"""Training speed on a CPU: `train`, a bare loop and Hugging Face's Trainer, and packed runs beside separate ones.

    python benchmarks/training.py [--steps 200] [--rounds 3]

All train the same models on the same rows of random tokens with one thread, one after the other in this process, round
by round; a speed is the median over the rounds, without each one's first steps. It is counted in tokens per second of
this process's CPU time, which other processes on the machine change less than the clock. A start is the CPU time of a
new process up to its first optimiser step. Then runs are compiled, for what that changes of their losses. Writes
benchmarks/training.json.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir

from autoscale_exp.base.hashing import file_sha256
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.data.conf import DataConf
from autoscale_exp.data.datamodule import MixtureBatches
from autoscale_exp.data.manifest import (
    DomainEntry,
    FileEntry,
    Manifest,
    TokenizerEntry,
    TrainEntry,
    ValidationEntry,
    write_manifest,
)
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.data.tokenizer import load_tokenizer
from autoscale_exp.lm.masking import row_keys
from autoscale_exp.training import run
from autoscale_exp.training.building import build_module
from autoscale_exp.training.callbacks import ProgressFile
from autoscale_exp.training.pack import Pack, train_pack
from autoscale_exp.training.packed_trainer import PackedTrainer
from autoscale_exp.training.parallelism import micro_batch
from autoscale_exp.training.plan import RunPlan, plan_run

HERE = Path(__file__).parent
WARM_UP = 5  # steps that are not counted
DOMAINS = ("a", "b")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Times = list[float]  # after each step
Clock = Callable[[], float]


def random_store(folder: Path, vocab_size: int, seq_len: int, rows: int = 4096) -> TokenStore:
    """A token store of random rows, with a tokenizer for causal and for masked models."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *map(str, range(vocab_size - len(SPECIAL)))])}
    backend = transformers.BertTokenizer(vocab=vocabulary)
    backend.save_pretrained(folder / "tokenizer")
    random = np.random.default_rng(0)
    entries = {}

    def written(path: Path, num_rows: int) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        random.integers(len(SPECIAL), vocab_size, (num_rows, seq_len), dtype=np.uint16).tofile(path)
        return file_sha256(path)

    for domain in DOMAINS:
        train = FileEntry(rows, written(folder / "train" / domain / "00000.bin", rows))
        held_out = written(folder / "validation" / f"{domain}.bin", 8)
        counts = {"documents": rows, "characters": rows * seq_len, "dropped_tokens": 0}
        entries[domain] = DomainEntry(
            ValidationEntry(rows=8, tokens=8 * seq_len, sha256=held_out, **counts),
            too_short=0,
            duplicates_of_validation=0,
            train=TrainEntry(rows=rows, tokens=rows * seq_len, files={"00000": train}, **counts),
        )
    tokenizer = TokenizerEntry("random", vocab_size, file_sha256(folder / "tokenizer" / "tokenizer.json"))
    conf = asdict(DataConf(name="random", store="", domains=list(DOMAINS), seq_len=seq_len))
    del conf["store"]
    write_manifest(folder, Manifest(conf, "<u2", tokenizer, entries, documents_of_no_domain=0, seconds=0.0))
    return open_store(folder)


def plan_of(store: TokenStore, num_steps: int, model: list[str], *overrides: str) -> RunPlan:
    """A run of so many steps of a model."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        given = [f"store={store.folder}", *model, *overrides, "~logger", "max_epochs=100000"]
        step_rows = to_typed(compose("train", [*given, "token_budget=100000"])).model.optimizer.batch_rows
        budget = f"token_budget={num_steps * step_rows * store.seq_len}"
        return plan_run(to_typed(compose("train", [*given, budget])), store)


@contextmanager
def noting(owner: Any, method: str, clock: Clock) -> Iterator[Times]:
    """Notes the time after each call of a method."""
    times: Times = []
    original = getattr(owner, method)

    def noted(*arguments: Any) -> Any:
        result = original(*arguments)
        times.append(clock())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, noted)
        yield times


def trained(plan: RunPlan, clock: Clock) -> Times:
    """The `train` job's part after its checks."""
    _, parts = micro_batch(plan.conf.model.optimizer.batch_rows, plan.conf.micro_batch_rows, 1)
    with tempfile.TemporaryDirectory() as folder, noting(ProgressFile, "on_train_batch_end", clock) as times:
        run.train(plan, Path(folder))
    return times[parts - 1 :: parts]


def bare_loop(plan: RunPlan, clock: Clock, *, compiled: bool = False) -> Times:
    """The same model, batches, optimiser and clipping, in a loop of ten lines."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(plan.seed)
    module = build_module(plan, load_tokenizer(plan.store.folder / "tokenizer")).to(device)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    step_rows = plan.conf.model.optimizer.batch_rows
    rows, parts = micro_batch(step_rows, plan.conf.micro_batch_rows, 1)
    options = {"step_rows": step_rows, "micro_batch_rows": rows, "rank": 0, "world_size": 1}
    loss_of = torch.compile(module.training_loss) if compiled else module.training_loss
    times = []
    for index, batch in enumerate(MixtureBatches(plan.store, plan.sampler, **options).batches_from(0)):
        keys = row_keys(batch.positions, plan.seed, "row").to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16, enabled=plan.identity.precision == "bf16-mixed"):
            loss = loss_of(batch.tokens.to(device, non_blocking=True).long(), keys)
        (loss * batch.share).backward()
        if (index + 1) % parts == 0:
            torch.nn.utils.clip_grad_norm_(module.parameters(), plan.conf.model.optimizer.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            times.append(clock())
    return times


def hugging_face(plan: RunPlan, clock: Clock) -> Times:
    """transformers' Trainer on the same rows, of a causal model."""
    module = build_module(plan, load_tokenizer(plan.store.folder / "tokenizer"))
    conf = plan.conf.model.optimizer
    rows, parts = micro_batch(conf.batch_rows, plan.conf.micro_batch_rows, 1)
    options = {"step_rows": conf.batch_rows, "micro_batch_rows": conf.batch_rows, "rank": 0, "world_size": 1}
    batches = MixtureBatches(plan.store, plan.sampler, **options).batches_from(0)
    tokens = torch.cat([batch.tokens for batch in batches]).long()
    times: Times = []

    class Noting(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clock())

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=parts,
            max_steps=plan.num_steps,
            learning_rate=conf.lr,
            warmup_steps=round(conf.warmup_fraction * plan.num_steps),
            optim="adamw_torch_fused",
            bf16=plan.identity.precision == "bf16-mixed",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        data = [{"input_ids": row, "labels": row} for row in tokens]
        transformers.Trainer(module.model, arguments, train_dataset=data, callbacks=[Noting()]).train()
    return times


def packed(plans: list[RunPlan], clock: Clock, trainer: PackedTrainer) -> Times:
    """All runs at once; as many times the tokens a step."""
    with tempfile.TemporaryDirectory() as folder, noting(Pack, "_step", clock) as times:
        train_pack([(plan, Path(folder) / "runs" / str(index)) for index, plan in enumerate(plans)], trainer)
    return times


def tokens_per_second(times: Times, step_tokens: int) -> float:
    return step_tokens * (len(times) - 1 - WARM_UP) / (times[-1] - times[WARM_UP])


def compare(contenders: dict[str, Callable[[], tuple[Times, int]]], rounds: int) -> dict[str, float]:
    """Median tokens per second of contenders that return times and tokens a step; each in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            speeds[name].append(tokens_per_second(*contender()))
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return {name: round(median(of), 1) for name, of in speeds.items()}


def validation_losses(store: TokenStore, compiled: bool) -> dict[str, list[float]]:
    """At the ends of short runs of a GPT-2 of one layer, by how they were trained."""
    overrides = [f"trainer.compile={str(compiled).lower()}", "num_threads=1", "num_validations=2"]
    plans = [
        plan_of(store, 6 * (1 + seed), ["model=gpt2_tiny", "model.n_layer=1"], f"seed={seed}", *overrides)
        for seed in range(2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        alone, *pack = [Path(folder) / name for name in ("alone/runs/0", "packed/runs/0", "packed/runs/1")]
        run.train(plans[0], alone)
        train_pack(list(zip(plans, pack, strict=True)), PackedTrainer(accelerator="cpu", compile=compiled))
        read = [list(json.loads((path / "result.json").read_text())["losses"].values()) for path in (alone, *pack)]
    return {"alone": read[0], "packed": read[1] + read[2]}


def change_by_compiling(store: TokenStore) -> dict[str, float]:
    """Largest difference in nats of a validation loss."""
    eager, compiled = (validation_losses(store, compiled) for compiled in (False, True))
    return {name: float(np.abs(np.subtract(eager[name], compiled[name])).max()) for name in eager}


def start_seconds(store: TokenStore) -> dict[str, float]:
    """CPU time of a new process to its first step, and of a second run in it without its training."""
    steps = [f"token_budget={16 * store.seq_len}", "mixture=uniform", "seed=0,1", "num_threads=1", "~logger"]
    code = (
        "import sys, time; from autoscale_exp.training import callbacks; from autoscale_exp import train\n"
        "def noted(*_): print('TIME', time.process_time(), flush=True)\n"
        "callbacks.ProgressFile.on_train_batch_end = noted\ntrain.main()"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, f"store={store.folder}", f"output_dir={folder}", *steps, "-m"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    first, second = (float(line.split()[1]) for line in output.splitlines() if line.startswith("TIME"))
    return {"first_step": round(first, 2), "next_run": round(second - first, 2)}


def machine() -> dict[str, Any]:
    """What the figures were read on."""
    packages = ("torch", "pytorch-lightning", "transformers")
    of_gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    versions = {name: version(name) for name in packages}
    return {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), **of_gpu, **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "training.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time
    cpu = PackedTrainer(accelerator="cpu")
    results: dict[str, Any] = {"machine": machine(), "steps": given.steps, "rounds": given.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for model in ("gpt2_tiny", "bert_tiny"):
            store = random_store(Path(folder) / model, 512, 64 if model == "gpt2_tiny" else 32)
            plans = [
                plan_of(store, given.steps, [f"model={model}"], f"seed={seed}", "num_threads=1") for seed in range(8)
            ]
            step_tokens = plans[0].conf.model.optimizer.batch_rows * store.seq_len
            contenders = {
                "train": lambda of=plans, size=step_tokens: (trained(of[0], clock), size),
                "bare loop": lambda of=plans, size=step_tokens: (bare_loop(of[0], clock), size),
            }
            if model == "gpt2_tiny":  # inductor's code for BERT's masks crashes on CPUs (torch 2.13)
                contenders["bare loop, compiled"] = lambda of=plans, size=step_tokens: (
                    bare_loop(of[0], clock, compiled=True),
                    size,
                )
                contenders["Hugging Face Trainer"] = lambda of=plans, size=step_tokens: (
                    hugging_face(of[0], clock),
                    size,
                )
            for num_runs in (2, 4, 8):
                contenders[f"{num_runs} packed"] = lambda of=plans, size=step_tokens, number=num_runs: (
                    packed(of[:number], clock, cpu),
                    size * number,
                )
            results[model] = compare(contenders, given.rounds)
            print(model, results[model], flush=True)
        store = open_store(Path(folder) / "gpt2_tiny")
        results["start_seconds"] = start_seconds(store)
        results["change_by_compiling"] = change_by_compiling(store)
    given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
