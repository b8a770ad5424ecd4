from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.base.loggers import open_logger


@pytest.fixture
def wandb_conf():
    overrides = ["logger=wandb", "token_budget=1000", "name=sweep", "run_name=proxy"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(compose("train", overrides)).logger


def test_runs_of_a_sweep_in_one_process_are_runs_of_their_own_at_wandb(wandb_conf, tmp_path: Path):
    ids = []
    for name in ("a", "b"):
        with open_logger(wandb_conf, tmp_path / name) as logger:
            logger.log_metrics({"loss": 1.0})
            ids.append(logger.experiment.id)
            assert (logger.experiment.name, logger.experiment.group) == ("proxy", "sweep")
        assert len(list((tmp_path / name).glob(f"wandb/offline-run-*/run-{ids[-1]}.wandb"))) == 1
    assert len(set(ids)) == 2


class Spy:
    """A logger that notes how it ends."""

    ends: list[object]

    def __init__(self, save_dir: str) -> None:
        self.experiment = self
        Spy.ends = []

    def finalize(self, status: str) -> None:
        self.ends.append(status)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)


def test_a_logger_is_told_how_the_run_ended(tmp_path: Path):
    conf = {"_target_": f"{__name__}.Spy"}
    with open_logger(conf, tmp_path):
        pass
    assert Spy.ends == ["success", 0]
    with pytest.raises(KeyboardInterrupt), open_logger(conf, tmp_path):
        raise KeyboardInterrupt
    assert Spy.ends == ["failed", 1]


def test_without_a_logger_there_is_none(tmp_path: Path):
    with open_logger(None, tmp_path) as logger:
        assert logger is None


@pytest.mark.parametrize("module", ["wandb.errors", "wandb.sdk.lib"])
def test_what_wandb_refuses_is_told_with_the_ways_out(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Unusable:
        def __init__(self, save_dir: str) -> None:
            pass

        @property
        def experiment(self) -> None:
            raise type("UsageError", (Exception,), {"__module__": module})("No API key configured.\nSee wandb login.")

    monkeypatch.setitem(globals(), "Unusable", Unusable)
    remedy = "run `wandb login`, set WANDB_MODE=offline in the environment, or give logger=csv"
    with (
        pytest.raises(UserError, match=f"logger=wandb cannot be used: No API key configured.; {remedy}"),
        open_logger({"_target_": f"{__name__}.Unusable"}, tmp_path),
    ):
        pytest.fail("the logger was opened")


def test_wandb_does_not_warn_of_what_lightning_hands_on(wandb_conf, tmp_path: Path, capfd: pytest.CaptureFixture):
    with open_logger(wandb_conf, tmp_path) as logger:
        logger.log_metrics({"loss": 1.0})
    assert "anonymous" not in capfd.readouterr().err
