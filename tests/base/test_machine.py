import os

import pytest

from autoscale_exp.base import machine
from autoscale_exp.base.machine import gpus, has_gpu, num_cpus


@pytest.mark.parametrize(
    ("visible", "is_there", "found"),
    [(None, True, ["0", "1"]), ("1", True, ["1"]), ("0,1", True, ["0", "1"]), ("", False, []), ("-1", False, [])],
)
def test_only_the_gpus_that_a_process_may_use_count(visible, is_there, found, tmp_path, monkeypatch):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (has_gpu(), gpus()) == (is_there, found)


def test_a_machine_without_the_driver_has_no_gpu(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "nvidia")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (has_gpu(), gpus()) == (False, [])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells which cores a process may use")
def test_only_the_cores_that_a_process_may_use_count():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert num_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
