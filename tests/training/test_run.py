import errno
import itertools
import json
import math
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.data.datamodule import MixtureDataModule
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.causal import CausalLanguageModel
from autoscale_exp.training import run
from autoscale_exp.training.callbacks import ProgressFile
from autoscale_exp.training.pack import train_pack
from autoscale_exp.training.packed_trainer import PackedTrainer
from autoscale_exp.training.plan import RunPlan, is_finished, plan_run
from autoscale_exp.training.run import build_trainer, train

# In rows of 16 tokens: the mixture up to row 20, inside the third step; the first domain alone; the two others.
STAGES = "stages=[{start: 320, weights: [1,0,0]}, {start: 800, weights: [0,.75,.25]}]"


class Interrupted(Exception):
    pass


@contextmanager
def interrupted_after(num_batches: int) -> Iterator[None]:
    seen = itertools.count(1)
    original = ProgressFile.on_train_batch_end

    def on_train_batch_end(self: ProgressFile, trainer: Any, module: Any, *args: Any) -> None:
        original(self, trainer, module, *args)
        if next(seen) == num_batches:
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressFile, "on_train_batch_end", on_train_batch_end)
        yield


def interrupted(*_: Any) -> None:
    raise Interrupted


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def weights_of(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def trained(plan: RunPlan, folder: Path) -> dict[str, Any]:
    train(plan, folder)
    return result_of(folder)


@pytest.mark.parametrize(
    ("overrides", "batches", "steps"),
    [
        ([], [5], [4]),  # in the middle of saving step 5: the checkpoint is that of step 4
        ([], [2, 6], [1, 6]),
        (["model.dropout=0.2", "num_validations=5"], [8], [7]),
        (["num_workers=1"], [5], [4]),
        (["micro_batch_rows=4"], [11], [5]),
        (["micro_batch_rows=2", "model.dropout=0.2", "num_validations=4", "num_workers=1"], [30, 6], [7, 8]),
        (["num_workers=2", STAGES, "design.match_repetition=14720", "max_epochs=8", "micro_batch_rows=4"], [13], [6]),
        (["model.optimizer.schedule=linear", "mixture=custom", "mixture.weights=[0.9,0.1,0]"], [12], [11]),
    ],
)
def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(
    overrides, batches, steps, compose_train, store: TokenStore, tmp_path: Path
):
    plan = plan_run(compose_train("checkpoint_minutes=0", "save_model=true", *overrides), store)
    expected = trained(plan, tmp_path / "whole")
    folder = tmp_path / "parts"
    for num_batches, step in zip(batches, steps, strict=True):
        with interrupted_after(num_batches), pytest.raises(Interrupted):
            train(plan, folder)
        assert torch.load(folder / "resume.ckpt")["global_step"] == step
        assert not (folder / "result.json").exists()
    result = trained(plan, folder)
    assert result["losses"] == expected["losses"]
    assert result["tokens"] == expected["tokens"]
    assert result["validation_curve"] == expected["validation_curve"]
    assert weights_of(folder) == weights_of(tmp_path / "whole")
    assert not (folder / "resume.ckpt").exists()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What was compiled, as far as graphs that torch then runs; benchmarks/training.py compiles the rest of the way."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setenv("CXX", sys.executable)  # this backend needs none
    return compiled


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_an_eager_one(compose_train, graphs, store: TokenStore, tmp_path: Path):
    overrides = ["trainer.checkpoint_activations=true", "save_model=true"]
    eager = trained(plan_run(compose_train(), store), tmp_path / "eager")
    assert not graphs
    compiled = trained(plan_run(compose_train("trainer.compile=true", *overrides), store), tmp_path / "compiled")
    assert graphs
    assert compiled["losses"] == pytest.approx(eager["losses"], abs=1e-6)
    assert compiled["params"] == eager["params"]
    GPT2LMHeadModel.from_pretrained(tmp_path / "compiled" / "model")


@pytest.mark.slow
def test_a_compiled_pack_has_the_losses_of_runs_alone(compose_train, graphs, store: TokenStore, tmp_path: Path):
    runs = [["seed=0"], ["seed=1", f"token_budget={16 * 60}", "num_validations=2"]]
    plans = [plan_run(compose_train("trainer.compile=true", *overrides), store) for overrides in runs]
    alone = [trained(plan_run(compose_train(*of), store), tmp_path / of[0])["losses"] for of in runs]
    assert not graphs
    train_pack([(plan, tmp_path / str(index)) for index, plan in enumerate(plans)], PackedTrainer("cpu", compile=True))
    assert graphs
    assert [result_of(tmp_path / str(index))["losses"] for index in range(2)] == [
        pytest.approx(losses, abs=1e-6) for losses in alone
    ]


def test_the_seconds_of_all_parts_of_a_run_are_counted(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train("checkpoint_minutes=0"), store)
    with interrupted_after(6), pytest.raises(Interrupted):
        train(plan, tmp_path)
    checkpoint = torch.load(tmp_path / "resume.ckpt")
    (clock,) = (state for state in checkpoint["callbacks"].values() if "seconds" in state)
    assert 0 < clock["seconds"] < 1000
    clock["seconds"] += 1000
    torch.save(checkpoint, tmp_path / "resume.ckpt")
    assert trained(plan, tmp_path)["seconds"] > 1000


def test_training_is_that_of_a_plain_loop_around_transformers(compose_train, store: TokenStore, tmp_path: Path):
    conf = compose_train(
        "model.optimizer.schedule=linear", "model.optimizer.lr=0.01", "model.optimizer.weight_decay=0.1"
    )
    plan = plan_run(conf, store)
    torch.manual_seed(plan.seed)
    module = CausalLanguageModel(
        conf.model, vocab_size=300, end_of_text=0, seq_len=16, num_steps=plan.num_steps, seed=plan.seed
    )
    model: GPT2LMHeadModel = module.model
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}])
    for step in range(12):
        domain, row = plan.sampler.rows(8 * step, min(8 * step + 8, 92))
        rows = [
            store.rows("train", store.domains[d])[r : r + 1][0].astype("int64")
            for d, r in zip(domain, row, strict=True)
        ]
        tokens = torch.stack([torch.from_numpy(r) for r in rows])
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step if step < 1 else (12 - step) / 11)  # one step of warm-up
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    losses = {}
    for name in store.domains:
        tokens = torch.from_numpy(store.rows("validation", name)[:].astype("int64"))
        with torch.no_grad():
            losses[name] = model(input_ids=tokens, labels=tokens).loss.item()
    assert trained(plan, tmp_path)["losses"] == pytest.approx(losses, abs=1e-5)


def test_accumulation_does_not_change_the_losses(compose_train, store: TokenStore, tmp_path: Path):
    whole, *parts = (
        trained(plan_run(compose_train(f"micro_batch_rows={rows}"), store), tmp_path / str(rows))["losses"]
        for rows in (8, 4, 1)
    )
    assert parts == [pytest.approx(whole, abs=1e-5)] * 2


FP16 = {  # what trainer=fp16 is on a GPU
    "_target_": "pytorch_lightning.plugins.MixedPrecision",
    "precision": "16-mixed",
    "device": "cpu",
    "scaler": {"_target_": "torch.amp.GradScaler", "device": "cpu"},
}


@pytest.mark.parametrize("trainer", [{"precision": "bf16-mixed"}, {"plugins": [FP16], "precision": None}])
def test_mixed_precision_trains_as_full_precision_up_to_rounding(
    trainer, compose_train, store: TokenStore, tmp_path: Path
):
    conf = compose_train("model.optimizer.clip_norm=0.01")  # far below the gradients' norm
    full = trained(plan_run(conf, store), tmp_path / "full")["losses"]
    mixed = trained(plan_run(replace(conf, trainer=conf.trainer | trainer), store), tmp_path / "mixed")["losses"]
    assert mixed == pytest.approx(full, rel=2e-3)
    assert mixed != full


def test_a_run_that_ended_just_before_its_result_was_written_has_it_when_asked_again(
    compose_train, store: TokenStore, tmp_path: Path
):
    plan = plan_run(compose_train("checkpoint_minutes=0"), store)
    expected = trained(plan, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "record_of", interrupted)
        with pytest.raises(Interrupted):
            train(plan, tmp_path)
    result = trained(plan, tmp_path)
    for key in ("tokens", "losses", "validation_curve"):
        assert result[key] == expected[key]


def test_a_checkpoint_that_a_kill_left_in_writing_is_gone_with_the_next_start(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    original = atomic.put_in_place

    def put_in_place(temporary: Path, path: Path) -> None:
        written.append(temporary)
        original(temporary, path)

    monkeypatch.setattr(atomic, "put_in_place", put_in_place)
    plan = plan_run(compose_train("checkpoint_minutes=0"), store)
    with interrupted_after(2), pytest.raises(Interrupted):
        train(plan, tmp_path)
    killed = next(path for path in written if "resume" in path.name)
    killed.write_bytes(b"a part of a checkpoint")
    trained(replace(plan, conf=replace(plan.conf, checkpoint_minutes=60.0)), tmp_path)
    assert not killed.exists()


def test_a_run_that_is_fed_other_rows_than_planned_has_no_result(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = plan_run(compose_train(), store)
    other = plan_run(compose_train("mixture=custom", "mixture.weights=[0.5,0.5,0]"), store).sampler
    monkeypatch.setattr(
        run, "MixtureDataModule", lambda store, sampler, **options: MixtureDataModule(store, other, **options)
    )
    with pytest.raises(RuntimeError, match=r"\(fruit: 46, not 31; code: 46, not 31; sums: 0, not 30\); the run has no"):
        train(plan, tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_a_run_on_one_device_trains_where_slurm_allots_several_tasks(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "salloc", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    plan = plan_run(compose_train("token_budget=64"), store)
    assert trained(plan, tmp_path / "run")["tokens"] == {"fruit": 32, "code": 16, "sums": 16}


def test_training_lowers_the_loss_of_what_is_trained_on(compose_train, store: TokenStore, tmp_path: Path):
    overrides = ["mixture=custom", "mixture.weights=[0,0,1]", "token_budget=32_000", "model.optimizer.lr=0.01"]
    losses = trained(plan_run(compose_train(*overrides), store), tmp_path)["losses"]
    assert losses["sums"] < 3.5 < math.log(300) - 1 < min(losses["fruit"], losses["code"])


def test_a_result_has_what_was_asked_and_what_was_done(compose_train, store: TokenStore, tmp_path: Path):
    conf = compose_train("mixture=custom", "mixture.weights=[0.5,0.3,0.2]", "mixture.name=mine", "seed=4")
    plan = plan_run(conf, store)
    result = trained(plan, tmp_path)
    assert list(result) == [
        "format",
        "run",
        "experiment",
        "mixture",
        "scale",
        "token_budget",
        "seed",
        "model",
        "params",
        "steps",
        "requested_weights",
        "requested_tokens",
        "tokens",
        "unique_tokens",
        "pool_tokens",
        "epochs",
        "losses",
        "validation_curve",
        "seconds",
        "tokens_per_second",
        "finished",
        "versions",
        "git_commit",
        "store",
        "fingerprint",
        "stages",
        "weights_curve",
    ]
    assert (result["experiment"], result["mixture"], result["model"]) == ("tiny", "mine", "gpt2_tiny")
    assert (result["scale"], result["token_budget"], result["seed"], result["steps"]) == ("1.472K", 1472, 4, 12)
    assert result["requested_weights"] == pytest.approx({"fruit": 0.5, "code": 0.3, "sums": 0.2})
    assert result["requested_tokens"] == pytest.approx({"fruit": 736, "code": 441.6, "sums": 294.4})
    assert result["tokens"] == {"fruit": 46 * 16, "code": 28 * 16, "sums": 18 * 16}  # quotas 46, 27.6 and 18.4 rows
    pools = {domain: store.rows("train", domain)[:].size for domain in store.domains}
    assert result["unique_tokens"] == result["pool_tokens"] == pools
    assert result["epochs"] == pytest.approx({d: tokens / pools[d] for d, tokens in result["tokens"].items()})
    assert result["params"] == (300 + 16) * 16 + 12 * 16**2 + 13 * 16 + 2 * 16
    assert 1472 / result["tokens_per_second"] == pytest.approx(result["seconds"], abs=6e-4)  # told to a millisecond
    assert result["versions"]["torch"] == torch.__version__
    other = plan_run(compose_train("seed=5"), store)
    assert result["fingerprint"] != trained(other, tmp_path / "other")["fingerprint"]


def test_the_result_of_a_run_in_stages_has_them_and_their_totals(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train(STAGES, "design.match_repetition=2944"), store)
    result = trained(plan, tmp_path)
    domain, _ = plan.sampler.rows(0, 92)
    assert list(result["tokens"].values()) == (np.bincount(domain) * 16).tolist() == [16 * 37, 16 * 39, 16 * 16]
    assert list(result["requested_tokens"].values()) == pytest.approx([320 / 3 + 480, 320 / 3 + 504, 320 / 3 + 168])
    assert [stage["start"] for stage in result["stages"]] == [0, 320, 800]
    assert [list(stage["planned_tokens"].values()) for stage in result["stages"]] == [
        [112, 112, 96],
        [480, 0, 0],
        [0, 512, 160],
    ]
    assert list(result["stages"][2]["requested_tokens"].values()) == [0, 504, 168]
    for name, unique in result["unique_tokens"].items():
        assert unique == store.rows("train", name)[:].size
        assert result["pool_tokens"][name] == (unique // 16 + 1) // 2 * 16  # half of its rows
        assert result["epochs"][name] == result["tokens"][name] / result["pool_tokens"][name]


def test_a_run_is_named_by_its_run_name(compose_train, store: TokenStore, tmp_path: Path):
    assert trained(plan_run(compose_train("run_name=lr_2e-3"), store), tmp_path)["run"] == "lr_2e-3"


def test_the_result_is_written_last_but_for_the_end_of_the_log(compose_train, store: TokenStore, tmp_path: Path):
    conf = compose_train("save_model=true", "num_validations=3", "checkpoint_minutes=0")
    logger = {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": None, "version": "metrics"}
    train(plan_run(replace(conf, logger=logger), store), tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "metrics"]
    assert len(files) > 5
    assert max(files, key=lambda path: path.stat().st_mtime_ns).name == "result.json"


def test_a_finished_run_is_skipped_and_another_is_refused(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train(), store)
    train(plan, tmp_path)
    assert is_finished(plan, tmp_path)
    with pytest.raises(UserError, match=r"model.optimizer.lr: 0.002, not 0.003"):
        is_finished(plan_run(compose_train("model.optimizer.lr=0.003"), store), tmp_path)


def test_an_interrupted_run_is_not_resumed_with_another_config(compose_train, store: TokenStore, tmp_path: Path):
    with interrupted_after(4), pytest.raises(Interrupted):
        train(plan_run(compose_train("checkpoint_minutes=0"), store), tmp_path)
    with pytest.raises(UserError, match="seed: 0, not 1"):
        is_finished(plan_run(compose_train("seed=1"), store), tmp_path)


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8)])
def test_an_interrupted_run_is_not_resumed_with_batches_of_another_size(
    before, after, compose_train, store: TokenStore, tmp_path: Path
):
    with interrupted_after(8), pytest.raises(Interrupted):
        train(plan_run(compose_train("checkpoint_minutes=0", f"micro_batch_rows={before}"), store), tmp_path)
    with pytest.raises(UserError, match=f"interrupted with micro_batch_rows {before}, not {after}; give these again"):
        train(plan_run(compose_train(f"micro_batch_rows={after}"), store), tmp_path)


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_a_damaged_resume_point_is_an_error_that_names_it(kept, compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train("checkpoint_minutes=0"), store)
    with interrupted_after(8), pytest.raises(Interrupted):
        train(plan, tmp_path)
    point = tmp_path / "resume.ckpt"
    point.write_bytes(point.read_bytes()[: int(kept * point.stat().st_size)])
    with pytest.raises(UserError, match=r"resume.ckpt' is damaged; delete it to start the run over"):
        train(plan, tmp_path)


def test_a_full_disk_ends_a_run_in_one_line_and_keeps_the_checkpoint_before(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save = Trainer.save_checkpoint

    def saved(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        if trainer.global_step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", saved)
    plan = plan_run(compose_train("checkpoint_minutes=0"), store)
    with pytest.raises(UserError, match=r"resume.ckpt' cannot be written: No space left on device; free some space"):
        train(plan, tmp_path)
    assert torch.load(tmp_path / "resume.ckpt")["global_step"] == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_too_little_device_memory_is_an_error_that_says_what_to_lower(
    compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore")

    monkeypatch.setattr(CausalLanguageModel, "token_losses", full)
    with pytest.raises(UserError, match=r"8 rows at a time are too many .*20 GiB.\); lower micro_batch_rows"):
        train(plan_run(compose_train(), store), tmp_path)


def test_a_trainer_that_lightning_refuses_is_told_in_a_line_that_passes_between_processes(compose_train):
    with pytest.raises(UserError) as error:
        build_trainer(compose_train("+trainer.profiler=all"))
    line = str(pickle.loads(pickle.dumps(error.value)))
    assert line.startswith("pytorch_lightning.trainer.trainer.Trainer does not take its section of the config: When")


def test_an_absurd_learning_rate_leaves_no_result(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train("model.optimizer.lr=1e12"), store)
    with pytest.raises(DivergedError, match="loss"):
        train(plan, tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert not is_finished(plan, tmp_path)


def test_a_saved_model_is_loaded_by_transformers_with_the_same_loss(compose_train, store: TokenStore, tmp_path: Path):
    losses = trained(plan_run(compose_train("save_model=true", "model.dropout=0.1"), store), tmp_path)["losses"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    for domain, loss in losses.items():
        tokens = torch.from_numpy(store.rows("validation", domain)[:].astype("int64"))
        with torch.no_grad():
            assert model(input_ids=tokens, labels=tokens).loss.item() == pytest.approx(loss, abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("override", ["seed=1", "model.n_layer=2"])
def test_runs_that_differ_have_other_losses(override, compose_train, store: TokenStore, tmp_path: Path):
    first, second = (
        trained(plan_run(compose_train(*overrides), store), tmp_path / str(number))["losses"]
        for number, overrides in enumerate(([], [override]))
    )
    assert all(first[domain] != second[domain] for domain in store.domains)


def test_the_same_run_has_the_same_losses(compose_train, store: TokenStore, tmp_path: Path):
    plans = [plan_run(compose_train("model.dropout=0.2"), store) for _ in range(2)]
    first, second = (trained(plan, tmp_path / str(number))["losses"] for number, plan in enumerate(plans))
    assert first == second
