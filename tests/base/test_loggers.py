import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from autoscale_exp.base.config_errors import describe
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, to_typed
from autoscale_exp.base.loggers import LoggedRun, open_logger
from autoscale_exp.base.wandb_runs import log_artifact, log_pictures, log_table, mixture_artifact, use_artifact
from tests.wandb_log import offline_runs

RUN = LoggedRun("proxy", "sweep", "search", "abc123")


def logger_conf(name):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_typed(
            compose("train", [f"logger={name}", "token_budget=1000", "name=sweep", "run_name=proxy"])
        ).logger


@pytest.fixture
def wandb_conf(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    return logger_conf("wandb")


def test_a_run_has_its_name_group_type_and_id_at_wandb_and_is_drawn_against_tokens(wandb_conf, tmp_path: Path):
    with open_logger(wandb_conf, tmp_path, RUN) as logger:
        logger.log_metrics({"tokens": 7, "val/objective": 1.5}, step=3)
    (logged,) = offline_runs(tmp_path)
    run = logged.run
    assert (run.display_name, run.run_group, run.job_type, run.run_id) == ("proxy", "sweep", "search", "abc123")
    assert logged.step_metrics == dict.fromkeys(("train/*", "val/*", "mixture/*", "throughput/*"), "tokens")
    assert [row["val/objective"] for row in logged.history] == [1.5]


def test_runs_that_are_open_at_once_are_runs_of_their_own(wandb_conf, tmp_path: Path):
    another = replace(RUN, id="def456")
    with open_logger(wandb_conf, tmp_path / "a", RUN) as one, open_logger(wandb_conf, tmp_path / "b", another) as other:
        one.log_metrics({"loss": 1.0})
        other.log_metrics({"loss": 2.0})
    for name, loss in (("a", 1.0), ("b", 2.0)):
        (logged,) = offline_runs(tmp_path / name)
        assert [row["loss"] for row in logged.history] == [loss]


def test_a_file_is_the_same_artifact_where_it_was_made_and_where_it_is_used(wandb_conf, tmp_path: Path):
    for folder in ("fit", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "25B.yaml").write_text("domains: [a]\nweights: [1]\n")
    for folder, hand_over in (("fit", log_artifact), ("elsewhere", use_artifact)):
        path = tmp_path / folder / "25B.yaml"
        with open_logger(wandb_conf, tmp_path / folder, RUN) as logger:
            hand_over(logger, mixture_artifact(path), "mixture", [path])
    made, used = offline_runs(tmp_path / "fit")[0], offline_runs(tmp_path / "elsewhere")[0]
    assert list(made.made) == list(used.used)
    assert made.digests == used.digests
    assert used.made == made.used == {}
    copies = list(tmp_path.glob("*/wandb/offline-run-*/artifacts/staging/*"))
    assert len(copies) == 2  # beside the run, and not in the home folder
    assert "WANDB_DATA_DIR" not in os.environ


@pytest.mark.parametrize("name", ["my mix (1)", "größe", "m" * 150])
def test_a_mixture_file_of_any_name_can_be_logged(name, wandb_conf, tmp_path: Path):
    path = tmp_path / f"{name}.yaml"
    path.write_text("domains: [a]\nweights: [1]\n")
    with open_logger(wandb_conf, tmp_path, RUN) as logger:
        use_artifact(logger, mixture_artifact(path), "mixture", [path])
    (logged,) = offline_runs(tmp_path)
    assert list(logged.used.values()) == [[path.name]]


def test_a_disabled_run_takes_files_tables_and_pictures_and_keeps_none(wandb_conf, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    path = tmp_path / "25B.yaml"
    path.write_text("domains: [a]\nweights: [1]\n")
    with open_logger(wandb_conf, tmp_path, RUN) as logger:
        use_artifact(logger, mixture_artifact(path), "mixture", [path])
        log_artifact(logger, "law", "law", [path])
        log_table(logger, "table", ["a"], [[1]])
        log_pictures(logger, [tmp_path / "no.png"])
    assert list(tmp_path.iterdir()) == [path]


def test_wandb_is_quiet_and_is_told_neither_key_nor_machine(
    wandb_conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    key, host = "f00dfeed" * 5, "wandb.example.org"
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{host}")
    with open_logger(wandb_conf, tmp_path, RUN) as logger:
        logger.log_metrics({"loss": 1.0})
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    (logged,) = offline_runs(tmp_path)
    assert logged.run.host == "-"
    assert "environment" not in logged.kinds
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        assert key.encode() not in path.read_bytes(), path
        assert host.encode() not in path.read_bytes(), path


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
    with open_logger(conf, tmp_path, RUN):
        pass
    assert Spy.ends == ["success", 0]
    with pytest.raises(KeyboardInterrupt), open_logger(conf, tmp_path, RUN):
        raise KeyboardInterrupt
    assert Spy.ends == ["failed", 1]


def test_an_error_of_the_logger_at_the_end_is_a_warning(tmp_path: Path, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise ConnectionError("the server does not answer\nfor 90 s")

    monkeypatch.setattr(Spy, "finalize", broken)
    with open_logger({"_target_": f"{__name__}.Spy"}, tmp_path, RUN):
        pass
    assert caplog.messages == [f"the log of {RUN.name} is not whole: the server does not answer"]


def test_without_a_logger_there_is_none(tmp_path: Path):
    with open_logger(None, tmp_path, RUN) as logger:
        assert logger is None


@pytest.mark.parametrize("module", ["wandb.errors", "wandb.sdk.lib"])
def test_what_wandb_refuses_is_told_with_the_ways_out(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Unusable:
        def __init__(self, save_dir: str) -> None:
            raise type("UsageError", (Exception,), {"__module__": module})("No API key configured.\nSee wandb login.")

    monkeypatch.setitem(globals(), "Unusable", Unusable)
    remedy = "run `wandb login`, set WANDB_MODE=offline in the environment, or give logger=csv"
    with (
        pytest.raises(UserError, match=f"logger=wandb cannot be used: No API key configured.; {remedy}"),
        open_logger({"_target_": f"{__name__}.Unusable"}, tmp_path, RUN),
    ):
        pytest.fail("the logger was opened")


def test_a_section_without_a_class_is_refused(tmp_path: Path):
    with (
        pytest.raises(UserError, match="logger has no _target_; give the name of a class, or choose logger=csv"),
        open_logger({"name": "mine"}, tmp_path, RUN),
    ):
        pytest.fail("the logger was opened")


def test_a_logger_that_cannot_be_made_is_told_by_its_target(tmp_path: Path):
    for section, message in [
        ({"_target_": "no.such.Logger"}, "_target_ is 'no.such.Logger', which cannot be found"),
        ({"_target_": f"{__name__}.Spy", "name": "x"}, f"{__name__}.Spy does not take its section of the config: "),
    ]:
        with pytest.raises(InstantiationException) as caught, open_logger(section, tmp_path, RUN):
            pytest.fail("the logger was opened")
        assert describe(caught.value).startswith(message)


def test_without_tensorboard_its_logger_is_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from pytorch_lightning.loggers import tensorboard

    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(sys.modules["lightning_fabric.loggers.tensorboard"], name, False)
    assert tensorboard
    with (
        pytest.raises(UserError, match="logger=tensorboard needs the package tensorboard, which is not installed; run"),
        open_logger(logger_conf("tensorboard"), tmp_path, RUN),
    ):
        pytest.fail("the logger was opened")
