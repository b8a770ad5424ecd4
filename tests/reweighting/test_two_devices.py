from pathlib import Path

import pytest

from autoscale_exp.training.devices import train_on_devices
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train
from tests.training.test_run import result_of, trained


@pytest.mark.slow
@pytest.mark.parametrize(("method", "strategy"), [("doremi", "fsdp"), ("doge", "ddp"), ("ado", "ddp")])
def test_two_devices_reweight_as_one(method, strategy, compose_contrast, contrast_store, tmp_path: Path):
    of_method = {
        "doremi": [f"reweighting.reference={tmp_path / 'reference'}"],
        "doge": [],
        "ado": ["reweighting.num_intervals=6"],
    }[method]
    if method == "doremi":
        train(plan_run(compose_contrast("save_model=true", steps=20), contrast_store), tmp_path / "reference")
    options = [f"reweighting={method}", *of_method]
    budget = f"token_budget={16 * (8 * 40 + 1)}"  # of the last step's row the second device has none
    alone = trained(plan_run(compose_contrast(*options, budget, steps=41), contrast_store), tmp_path / "one")
    devices = ["trainer.devices=2", f"trainer.strategy={strategy}"]
    train_on_devices(plan_run(compose_contrast(*options, budget, *devices, steps=41), contrast_store), tmp_path / "two")
    together = result_of(tmp_path / "two")
    assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert together["tokens"] == alone["tokens"]
    if method == "ado":
        assert [stage["planned_tokens"] for stage in together["stages"]] == [
            stage["planned_tokens"] for stage in alone["stages"]
        ]
    if method == "doremi":
        for point, expected in zip(together["weights_curve"], alone["weights_curve"], strict=True):
            assert point["weights"] == pytest.approx(expected["weights"], abs=1e-4)
