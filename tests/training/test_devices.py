"""A run on several devices, and on several machines, trains as on one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.processes import ProcessDied, WorkProcess
from autoscale_exp.data.store import TokenStore
from autoscale_exp.runs.record import RunRecord, read_record, write_record
from autoscale_exp.train import train_once
from autoscale_exp.training import devices
from autoscale_exp.training.claim import claimed
from autoscale_exp.training.devices import train_on_devices
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import check_resume_point, train
from tests.runs.records import make_record
from tests.training.processes import LOCAL, LONG, Start, ended, wait_for
from tests.training.test_run import STAGES

pytestmark = pytest.mark.slow

# 97 rows in three mixtures: in the last step the second device has none.
ROWS = [STAGES, "token_budget=1552", "num_validations=4"]


def assert_equal(record: RunRecord, other: RunRecord, error: float) -> None:
    assert record.tokens == other.tokens
    assert [point.tokens for point in record.validation_curve] == [point.tokens for point in other.validation_curve]
    for point, others in zip(record.validation_curve, other.validation_curve, strict=True):
        assert point.losses == pytest.approx(others.losses, abs=error)


@pytest.fixture
def one_device(compose_train, store: TokenStore, tmp_path: Path) -> RunRecord:
    train(plan_run(compose_train(*ROWS, "save_model=true"), store), tmp_path / "one")
    return read_record(tmp_path / "one")


@pytest.mark.parametrize(("strategy", "other"), [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_two_devices_train_as_one_and_go_on_exactly_when_one_is_killed(
    strategy, other, one_device, compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    of_run = [*ROWS, "trainer.devices=2", "checkpoint_minutes=0", "save_model=true"]
    plan = plan_run(compose_train(*of_run, f"trainer.strategy={strategy}"), store)
    train_on_devices(plan, tmp_path / "whole")
    whole = read_record(tmp_path / "whole")
    assert_equal(whole, one_device, 1e-5)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "one"))
    assert weights.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(weights[name], values, atol=1e-5, rtol=0)

    folder, started = tmp_path / "parts", []

    def start(*args, **options) -> WorkProcess:
        started.append(WorkProcess(*args, **options))
        return started[-1]

    def kill_the_second() -> None:
        while not (folder / "resume.ckpt").exists():
            time.sleep(0.001)
        os.kill(started[1].pid, signal.SIGKILL)

    monkeypatch.setattr(devices, "WorkProcess", start)
    threading.Thread(target=kill_the_second, daemon=True).start()
    with pytest.raises(ProcessDied, match=r"was killed by SIGKILL"):
        train_on_devices(plan, folder)
    assert not (folder / "result.json").exists()
    with pytest.raises(UserError, match=r"run with(out)? trainer.strategy=fsdp; finish it that way, or delete"):
        check_resume_point(folder / "resume.ckpt", compose_train(f"trainer.strategy={other}"))
    of_one = r"interrupted with micro_batch_rows 4, not 8 and devices 2, not 1|a run with trainer.strategy=fsdp"
    with pytest.raises(UserError, match=of_one):
        train(plan_run(compose_train(*ROWS), store), folder)
    train_on_devices(plan, folder)
    assert_equal(read_record(folder), whole, 0)


def test_a_run_of_a_sweep_on_two_devices_is_trained_once(one_device, start: Start, tmp_path: Path):
    folder = tmp_path / "out"
    done = ended(start(folder, *ROWS, *LOCAL, "trainer.devices=2", "trainer.strategy=fsdp"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1 runs are finished" in done.stdout
    assert len(list(folder.glob("runs/*/metrics/version_*"))) == 1
    assert_equal(read_record(folder / "runs" / "uniform_1.552K_seed0"), one_device, 1e-5)


def test_a_run_on_two_devices_that_is_told_to_end_writes_a_checkpoint_first(start: Start, tmp_path: Path):
    process = start(tmp_path / "out", *LONG, "trainer.devices=2", mode="RUN")
    wait_for(process, lambda: list(tmp_path.glob("out/runs/*/progress.json")))
    os.killpg(process.pid, signal.SIGTERM)  # to all of its processes, as a scheduler does
    done = ended(process)
    assert done.returncode == 143
    assert done.stderr.startswith("stopped: uniform_4M_seed0 has a checkpoint of ")
    assert done.stderr.count("\n") == 1


def test_an_error_on_a_device_is_that_of_the_run(compose_train, store: TokenStore, tmp_path: Path):
    plan = plan_run(compose_train(*ROWS, "trainer.devices=2", "model.optimizer.lr=1e12"), store)
    with pytest.raises(UserError, match=r"the (training|validation) loss .* lower the learning rate"):
        train_on_devices(plan, tmp_path)


def test_several_machines_need_a_place_to_meet(compose_train, store: TokenStore, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NODE_RANK", "0")
    plan = plan_run(compose_train("trainer.devices=2", "trainer.num_nodes=2", "micro_batch_rows=2"), store)
    with pytest.raises(UserError, match=r"num_nodes is 2, but MASTER_ADDR, MASTER_PORT are not set; start the run"):
        train_on_devices(plan, tmp_path)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them: what two machines see of each other."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"machine{index}_{os.getpid()}" for index in range(2)]
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add cable0 netns {names[0]} type veth peer name cable1 netns {names[1]}")
    for index, name in enumerate(names):
        commands += [f"-n {name} addr add 10.77.0.{index + 1}/24 dev cable{index}"]
        commands += [f"-n {name} link set {link} up" for link in ("lo", f"cable{index}")]
    try:
        for command in commands:
            if subprocess.run(["ip", *command.split()], capture_output=True).returncode:
                pytest.skip("this container allows no network namespaces")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines_under_torchrun_train_as_one_device(machines, one_device, train_overrides, tmp_path: Path):
    run = [*train_overrides, *ROWS, f"output_dir={tmp_path}", "run_name=two", "~logger", "trainer.num_nodes=2"]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1"]
    job = ["--master-port=29511", "-m", "autoscale_exp.train", *run, "trainer.strategy=fsdp"]
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *torchrun, f"--node-rank={index}", *job],
            env={**os.environ, "GLOO_SOCKET_IFNAME": f"cable{index}"},
            cwd=tmp_path,
        )
        for index, name in enumerate(machines)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert_equal(read_record(tmp_path / "runs" / "two"), one_device, 1e-5)
    assert json.loads((tmp_path / "runs" / "two" / "progress.json").read_text())["tokens"] > 0


def test_under_torchrun_no_process_waits_for_a_run_that_another_command_finishes(
    compose_train, store: TokenStore, train_overrides, tmp_path: Path
):
    fingerprint = plan_run(compose_train(*ROWS), store).identity.fingerprint
    folder, out = tmp_path / "runs" / "two", tmp_path / "out.txt"
    run = [*train_overrides, *ROWS, f"output_dir={tmp_path}", "run_name=two", "~logger", "trainer.devices=2"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29512"]
    with claimed(folder):
        with out.open("w") as told:
            command = [sys.executable, *torchrun, "-m", "autoscale_exp.train", *run]
            process = subprocess.Popen(command, cwd=tmp_path, stdout=told)
        while "waiting for the result" not in out.read_text():
            assert process.poll() is None
            time.sleep(0.1)
        write_record(folder, replace(make_record("two"), fingerprint=fingerprint))
    try:
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(("elsewhere", "calls"), [(False, 3), (True, 1)])
def test_the_first_process_of_torchrun_does_not_try_again_alone(
    elsewhere: bool, calls: int, compose_train, store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = []

    def fail(*_) -> None:
        trained.append(1)
        raise OSError("lost")

    monkeypatch.setattr("autoscale_exp.train.train_here", fail)
    if elsewhere:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    plan = plan_run(compose_train(*ROWS, "trainer.devices=2", "retries=2"), store)
    with pytest.raises(OSError, match="lost"):
        train_once(plan, tmp_path / "runs" / "run")
    assert len(trained) == calls


def test_a_sweep_under_torchrun_is_refused(store, train_overrides, refused, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    line = refused("train", *train_overrides, "output_dir=out", "seed=0,1", "hydra.mode=MULTIRUN")
    assert line.startswith("torchrun would start this sweep once per device; start it without torchrun")
