import sys

import pytest
import torch

from autoscale_exp import train as train_job
from autoscale_exp.base.errors import UserError
from autoscale_exp.training import parallelism
from autoscale_exp.training.claim import SWEEP
from autoscale_exp.training.parallelism import check_devices, lacking_device
from autoscale_exp.training.watch import SweepWatch

NO_GPU = "trainer.accelerator is 'gpu', but torch finds no GPU; give trainer.accelerator=cpu"
NO_FP16 = "trainer.precision is '16-mixed', which needs a GPU; give bf16-mixed or 32-true"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    def found(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(parallelism, "has_gpu", lambda: count > 0)

    return found


@pytest.mark.parametrize(
    ("count", "overrides", "reason"),
    [
        (0, ["trainer.accelerator=auto"], None),
        (0, ["trainer.accelerator=gpu"], NO_GPU),
        (0, ["trainer.accelerator=gpu", "trainer.devices=2"], NO_GPU),
        (0, ["trainer.accelerator=gpu", "trainer=packed"], NO_GPU),
        (1, ["trainer.accelerator=gpu"], None),
        (0, ["trainer.accelerator=auto", "trainer.devices=2"], None),
        (0, ["trainer.accelerator=auto", "trainer=fp16"], NO_FP16),
        (1, ["trainer.accelerator=cpu", "trainer=fp16"], NO_FP16),
        (1, ["trainer.accelerator=auto", "trainer=fp16"], None),
        (0, ["trainer.accelerator=auto", "trainer=bf16"], None),
        (
            1,
            ["trainer.accelerator=auto", "trainer.devices=2"],
            "trainer.devices is 2, but torch finds 1 GPU; give 1 or fewer",
        ),
        (2, ["trainer.accelerator=gpu", "trainer.devices=4", "trainer.num_nodes=2"], "finds 2 GPUs; give 2 or fewer"),
        (2, ["trainer.accelerator=gpu", "trainer.devices=2", "trainer.num_nodes=2"], None),
    ],
)
def test_what_a_machine_lacks_is_told(count: int, overrides: list[str], reason: str | None, gpus, compose_train):
    gpus(count)
    conf = compose_train(*overrides)
    if reason is None:
        assert lacking_device(conf) is None
    else:
        with pytest.raises(UserError, match=reason):
            check_devices(conf)


def test_under_torchrun_a_process_may_see_only_its_own_gpu(gpus, compose_train, monkeypatch: pytest.MonkeyPatch):
    gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert lacking_device(compose_train("trainer.accelerator=gpu", "trainer.devices=2")) is None


def test_torch_is_not_imported_for_a_run_on_the_cpu(compose_train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # so that its import fails
    assert lacking_device(compose_train("trainer.accelerator=cpu", "trainer.devices=2")) is None
    with pytest.raises(ImportError):
        lacking_device(compose_train("trainer.accelerator=gpu"))


@pytest.mark.parametrize("trainer", ["default", "packed"])
@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_a_gpu_that_is_not_there_is_told_before_anything_starts(
    trainer: str, mode: str, gpus, store, train_overrides, refused, tmp_path
):
    gpus(0)
    asked = [f"trainer={trainer}", "trainer.accelerator=gpu", f"hydra.mode={mode}"]
    assert refused("train", *train_overrides, "output_dir=out", *asked) == NO_GPU
    assert not list(tmp_path.glob("out/runs/*/identity.json"))


@pytest.mark.parametrize("is_full", [False, True])
def test_a_sweep_says_why_a_run_cannot_begin_where_its_launcher_has_put_it(
    is_full: bool, store, train_overrides, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(_) -> None:
        raise UserError(NO_GPU)

    monkeypatch.setattr(train_job, "check_devices", refuse)
    if is_full:
        monkeypatch.setattr(train_job, "write_failure", lambda *_: refuse(None))
    monkeypatch.setattr(SweepWatch, "current", None)
    monkeypatch.setenv(SWEEP, "0")
    sweep = [f"output_dir={tmp_path}", "seed=0,1", "hydra.mode=MULTIRUN"]
    monkeypatch.setattr(sys, "argv", ["train", *train_overrides, *sweep])
    with pytest.raises(SystemExit) as end:
        train_job.main()
    assert end.value.code == 1
    told = capsys.readouterr().out
    reason = "it wrote no result" if is_full else f"UserError: {NO_GPU}"
    assert all(f"uniform_1.472K_seed{seed} failed: {reason}\n" in told for seed in (0, 1))


def test_a_study_without_its_gpu_ends_before_anything_starts(gpus, store, refused, tmp_path):
    gpus(0)
    asked = [f"store={store.folder}", "token_budgets=[1600]", "design.scales=[320,960]", "trainer.accelerator=gpu"]
    assert refused("study", *asked, "output_dir=out") == NO_GPU
    assert not (tmp_path / "out" / "runs").exists()


def test_a_study_without_its_gpu_prepares_no_text(gpus, data_overrides, refused, tmp_path):
    gpus(0)
    asked = ["token_budgets=[1600]", "design.scales=[320,960]", "trainer.accelerator=gpu", "data.store=none"]
    assert refused("study", *data_overrides, *asked, "output_dir=out") == NO_GPU
    assert not (tmp_path / "none").exists()
