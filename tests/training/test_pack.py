"""Runs that are trained together: each ends as it would alone."""

import itertools
import json
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoscale_exp import train as train_job
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.stopping import Stopped, StopRequest
from autoscale_exp.data.store import TokenStore
from autoscale_exp.training import run
from autoscale_exp.training.claim import SWEEP, claimed, claimed_if_free
from autoscale_exp.training.pack import CPU_RUNS, Pack, most_runs, train_pack
from autoscale_exp.training.packed_trainer import PackedTrainer, check_packing
from autoscale_exp.training.packing import train_in_packs
from autoscale_exp.training.plan import RunPlan, plan_run
from autoscale_exp.training.sweep import SweepCallback
from autoscale_exp.training.watch import SweepWatch
from tests.raised_errors import NOTES

CPU = PackedTrainer(accelerator="cpu")
OF_THE_CLOCK = {"seconds", "tokens_per_second", "finished"}
# Runs of other rows, lengths, seeds, schedules and steps; the last step of none is full.
RUNS = [
    ["mixture=custom", "mixture.weights=[.8,.1,.1]", "num_validations=3"],
    ["seed=1", f"token_budget={16 * 60}", "model.optimizer.lr=1e-2", "model.optimizer.clip_norm=.1"],
    ["seed=2", "model.optimizer.weight_decay=.3", "model.optimizer.schedule=linear", "num_validations=2"],
]


class Interrupted(Exception):
    pass


@contextmanager
def interrupted_after(num_steps: int) -> Iterator[None]:
    seen = itertools.count(1)
    original = Pack._step

    def step(self: Pack) -> torch.Tensor:
        if next(seen) > num_steps:
            raise Interrupted
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pack, "_step", step)
        yield


@pytest.fixture
def planned(compose_train):
    """Plans of runs by their overrides beside `common`, and their folders."""

    def plans(folder: Path, store: TokenStore, *common: str, runs=RUNS) -> list[tuple[RunPlan, Path]]:
        confs = [compose_train("save_model=true", *common, *overrides) for overrides in runs]
        return [(plan_run(conf, store), folder / str(index)) for index, conf in enumerate(confs)]

    return plans


def record_in(folder: Path):
    return json.loads((folder / "result.json").read_text())


def assert_same_runs(packed: Path, alone: Path) -> None:
    ours, theirs = record_in(packed), record_in(alone)
    assert list(ours) == list(theirs)
    curves = [[(point["tokens"], point["losses"]) for point in of["validation_curve"]] for of in (ours, theirs)]
    assert curves[0] == [(tokens, pytest.approx(losses, abs=1e-5)) for tokens, losses in curves[1]]
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing <= {*OF_THE_CLOCK, "losses", "validation_curve"}
    weights = load_file(alone / "model" / "model.safetensors")
    for name, tensor in load_file(packed / "model" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("common", [[], ["micro_batch_rows=2"]])
def test_causal_models_trained_together_are_those_trained_alone(common, planned, store: TokenStore, tmp_path: Path):
    packed, alone = (planned(tmp_path / place, store, *common) for place in ("packed", "alone"))
    train_pack(packed, CPU)
    for (_, ours), (plan, theirs) in zip(packed, alone, strict=True):
        run.train(plan, theirs)
        assert_same_runs(ours, theirs)


def test_masked_models_trained_together_are_those_trained_alone(
    planned, masked_overrides, masked_store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("autoscale_exp.lm.language_model.CHUNK_LOGITS", 5000)  # 15 tokens, 5 of each model
    common = [*masked_overrides, "micro_batch_rows=4", "model.n_layer=1", "model.n_embd=16", "model.dropout=0"]
    packed, alone = (planned(tmp_path / place, masked_store, *common) for place in ("packed", "alone"))
    train_pack(packed, CPU)
    for (_, ours), (plan, theirs) in zip(packed, alone, strict=True):
        run.train(plan, theirs)
        assert_same_runs(ours, theirs)


def test_bfloat16_changes_the_losses_by_its_rounding_alone(planned, store: TokenStore, tmp_path: Path):
    packed, exact = (planned(tmp_path / place, store) for place in ("packed", "exact"))
    train_pack(packed, PackedTrainer("cpu", precision="bf16-mixed"))
    train_pack(exact, CPU)
    for (_, ours), (_, theirs) in zip(packed, exact, strict=True):
        assert record_in(ours)["losses"] == pytest.approx(record_in(theirs)["losses"], abs=0.02)
        assert record_in(ours)["losses"] != record_in(theirs)["losses"]


def test_an_interrupted_pack_ends_exactly_as_an_uninterrupted_one(planned, store: TokenStore, tmp_path: Path):
    whole, parts = (planned(tmp_path / place, store, "checkpoint_minutes=0") for place in ("whole", "parts"))
    train_pack(whole, CPU)
    with interrupted_after(5), pytest.raises(Interrupted):
        train_pack(parts, CPU)
    assert [torch.load(folder / "resume.ckpt")["step"] for _, folder in parts] == [5, 5, 5]
    with interrupted_after(4), pytest.raises(Interrupted):
        train_pack(parts, CPU)
    assert record_in(parts[1][1])["losses"] == record_in(whole[1][1])["losses"]
    train_pack([parts[0], parts[2]], CPU)
    for (_, ours), (_, theirs) in zip(parts, whole, strict=True):
        a, b = record_in(ours), record_in(theirs)
        assert (a["validation_curve"], a["tokens"]) == (b["validation_curve"], b["tokens"])
        assert (ours / "model/model.safetensors").read_bytes() == (theirs / "model/model.safetensors").read_bytes()
        assert not (ours / "resume.ckpt").exists()


@pytest.mark.parametrize(
    ("look_seconds", "minutes", "error"),
    [(0, 5, "the training loss is"), (1000, 5, "the validation loss of"), (1000, 0, "the weights are not finite")],
)
def test_a_run_that_diverges_is_marked_and_the_others_go_on(
    look_seconds, minutes, error, planned, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("autoscale_exp.training.pack.PROGRESS_SECONDS", look_seconds)
    common = f"checkpoint_minutes={minutes}"
    others, all_runs = (planned(tmp_path / place, store, common) for place in ("others", "all"))
    diverging = planned(tmp_path / "diverging", store, common, runs=[["model.optimizer.lr=1e30"]])
    train_pack(others, CPU)
    train_pack([all_runs[0], *diverging, *all_runs[1:]], CPU)
    ((_, folder),) = diverging
    assert not (folder / "result.json").exists()
    assert error in json.loads((folder / "failed.json").read_text())["error"]
    for (_, ours), (_, theirs) in zip(all_runs, others, strict=True):
        assert record_in(ours)["losses"] == pytest.approx(record_in(theirs)["losses"], abs=1e-6)


def test_a_sweep_trains_its_runs_in_packs(train_overrides, store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packs = []
    original = Pack.train

    def train(self: Pack, *arguments) -> None:
        packs.append([folder.name for _, folder in self.planned])
        original(self, *arguments)

    monkeypatch.setattr(Pack, "train", train)
    monkeypatch.setattr(SweepWatch, "current", None)
    monkeypatch.setenv(SWEEP, "0")
    sweep = ["design=ddo", "design.scales=[640]", "design.base_repeats=0", "design.index=range(0,7)"]
    packed = ["trainer=packed", "trainer.max_runs=4", f"output_dir={tmp_path}", "hydra.mode=MULTIRUN"]
    monkeypatch.setattr(sys, "argv", ["train", *train_overrides, *sweep, *packed])
    train_job.main()
    assert [len(pack) for pack in packs] == [4, 3]
    assert packs[0][0] == "base_0.64K"
    assert len({name for pack in packs for name in pack}) == 7
    assert (tmp_path / "runs.csv").read_text().count("\n") == 8


def test_workers_are_told_of_the_runs_of_their_sweep(planned, store, tmp_path: Path):
    callback = pickle.loads(pickle.dumps(SweepCallback(planned(tmp_path, store, "trainer=packed"))))
    assert callback.__reduce__()[1] == ([],)  # a worker's own is not sent on


def test_a_claim_that_is_taken_is_not_waited_for(tmp_path: Path):
    with claimed(tmp_path / "run"), claimed_if_free(tmp_path / "run") as held:
        assert not held
    with claimed_if_free(tmp_path / "run") as held:
        assert held
        assert (tmp_path / "run" / ".holder.json").exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.dropout=0.1"], "model.dropout is 0.1, but packed runs would draw other dropout than alone; "),
        (["trainer.accelerator=tpu"], "trainer.accelerator is 'tpu'; packed runs can have auto, cpu, gpu, cuda"),
        (["reweighting=ado"], "reweighting=ado needs a run that is trained alone; give trainer=default"),
        (["trainer.devices=2"], "trainer.devices is 2, but packed runs share one device; give 1"),
        (["trainer.precision=16-mixed"], "trainer.precision is '16-mixed'; packed runs can have 32-true or bf16-mixed"),
        (
            ["model.n_layer=2"],
            "trainer=packed trains runs of one token store and architecture, but 'run' and 'run' differ "
            "(model.n_layer: 1, not 2); ",
        ),
        (
            ["data.store=a", "data.name=b"],
            "trainer=packed trains runs of one token store and architecture, but 'run' and 'run' differ (store: ",
        ),
    ],
)
def test_runs_that_cannot_be_packed_are_refused(overrides, line, compose_train):
    with pytest.raises(UserError) as error:
        check_packing(compose_train("trainer=packed", *overrides), compose_train("trainer=packed"))
    assert str(error.value).startswith(line)


def test_a_run_begun_alone_is_not_finished_in_a_pack(planned, store: TokenStore, tmp_path: Path):
    ((plan, folder),) = planned(tmp_path, store, runs=RUNS[:1])
    folder.mkdir()
    torch.save({"global_step": 3}, folder / "resume.ckpt")
    with pytest.raises(UserError, match="is from a run that was trained alone"):
        train_pack([(plan, folder)], CPU)
    (folder / "resume.ckpt").write_bytes(b"half")
    with pytest.raises(UserError, match=r"resume.ckpt' is damaged; delete it to start the run over"):
        train_pack([(plan, folder)], CPU)


def test_a_run_begun_in_a_pack_is_not_finished_alone(planned, store: TokenStore, tmp_path: Path):
    ((plan, folder),) = planned(tmp_path, store, runs=RUNS[:1])
    folder.mkdir()
    torch.save({"packed": True}, folder / "resume.ckpt")
    with pytest.raises(UserError, match="is from a run in a pack; finish the run with trainer=packed"):
        run.train(plan, folder)


def test_more_runs_than_fit_the_device_are_refused(planned, store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ((plan, _),) = planned(tmp_path, store, runs=RUNS[:1])
    assert most_runs(plan, CPU) == CPU_RUNS
    monkeypatch.setattr("autoscale_exp.training.pack._device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(Pack, "bytes_per_run", lambda _: 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20 * 2**30, 0))
    assert most_runs(plan, CPU) == 17
    with pytest.raises(UserError, match=r"trainer.max_runs is 40, but 17 runs of 1.00 GiB fit the device"):
        most_runs(plan, PackedTrainer(max_runs=40))


def test_a_pack_that_fails_marks_its_runs(planned, store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = planned(tmp_path, store, "trainer=packed")

    def train(*_) -> None:
        raise torch.OutOfMemoryError("tried to allocate\nmuch")

    monkeypatch.setattr(Pack, "train", train)
    with pytest.raises(UserError, match="3 runs at a time are too many for the device's memory"):
        train_in_packs(runs[0], runs)
    assert all((folder / "failed.json").exists() for _, folder in runs)
    with pytest.raises(UserError, match="run failed: UserError: 3 runs at a time"):
        train_in_packs(runs[1], runs)


def test_a_pack_that_fails_is_tried_again_without_the_runs_that_have_ended(
    planned, store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = planned(tmp_path, store, "trainer=packed", "trainer.accelerator=cpu", "retries=1")
    loop, packs = Pack._loop, []

    def fail_once(self: Pack, request: StopRequest) -> None:
        packs.append(len(self.runs))
        if len(packs) == 1:
            with interrupted_after(9):  # the second run has ended, after eight steps
                loop(self, request)
        loop(self, request)

    monkeypatch.setattr(Pack, "_loop", fail_once)
    train_in_packs(runs[0], runs)
    assert packs == [3, 2]
    assert all((folder / "result.json").exists() and not (folder / "failed.json").exists() for _, folder in runs)


def test_a_signal_that_comes_while_a_run_ends_waits_for_the_checkpoints(
    planned, store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    end, request = Pack._end, StopRequest()

    def signalled(self: Pack, ended) -> None:
        end(self, ended)
        if ended:
            request.signum = signal.SIGTERM

    monkeypatch.setattr(Pack, "_end", signalled)
    runs = planned(tmp_path, store)
    with pytest.raises(Stopped):
        Pack(runs, torch.device("cpu"), "32-true").train(request)
    assert [(folder / "result.json").exists() for _, folder in runs] == [False, True, False]
    assert [torch.load(runs[index][1] / "resume.ckpt")["step"] for index in (0, 2)] == [9, 9]


def test_a_pack_leaves_out_a_run_that_another_config_has_begun(planned, store, tmp_path: Path):
    own, other = planned(tmp_path, store, "trainer=packed", "trainer.accelerator=cpu", runs=RUNS[:2])
    foreign, folder = planned(tmp_path, store, runs=[["seed=7"]])[0][0], other[1]
    with interrupted_after(2), pytest.raises(Interrupted):
        train_pack([(replace(foreign, conf=replace(foreign.conf, checkpoint_minutes=0)), folder)], CPU)
    train_in_packs(own, [own, other])
    assert (own[1] / "result.json").exists()
    assert (folder / "resume.ckpt").exists()
    assert not (folder / "result.json").exists()


@pytest.fixture
def only_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))  # those of the whole suite are a large file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("minutes", "file"), [(0, "resume.ckpt"), (5, "model")], ids=["the checkpoint", "the trained model"]
)
@pytest.mark.parametrize("trained", [lambda run_: train_pack([run_], CPU), lambda run_: run.train(*run_)])
def test_what_cannot_be_written_is_told_in_one_line(minutes, file, trained, planned, store, tmp_path, only_small_files):
    (of_run,) = planned(tmp_path, store, f"checkpoint_minutes={minutes}", "~logger", runs=RUNS[:1])
    with pytest.raises(UserError, match=rf"{file}' cannot be written: File too large; give a path that can be"):
        trained(of_run)
