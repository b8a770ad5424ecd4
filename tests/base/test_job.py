"""A mistake on the command line ends a job with one line that says what is allowed."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from joblib.externals.loky.process_executor import TerminatedWorkerError

from autoscale_exp import fit
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.job import CONF_DIR, _errors_before, describe, to_typed
from autoscale_exp.base.processes import ProcessDied

MISTAKES = {
    "train model=gpt3": "In 'train': Could not find 'model/gpt3'; there are bert_base, bert_large, bert_tiny, gpt2, ",
    "evaluate task=mnli": "In 'evaluate': Could not find 'task/mnli'; there are glue, harness, perplexity, squad",
    "train token_buget=1": "token_buget is not known; allowed there are name, output_dir, run_name, store, data, ",
    "train design.foo=1": "design.foo is not known; allowed there are index, match_repetition",
    "train data.tokenizer.vocab=9": "data.tokenizer.vocab is not known; allowed there are name, vocab_size",
    "train +model.optimizer.rate=3": "model.optimizer.rate is not known; allowed there are lr, betas, ",
    "train ++modell=3": "modell is not known; allowed there are name, ",
    "train +stages=[{start:5,weigths:[1]}]": "weigths is not known; allowed there are start, weights",
    "prepare data.sources.web.keep={}": (
        "data.sources has no 'web' yet; put ++ before the key to add it, as in ++data.sources.web=..."
    ),
    "train data.domains=web,code": "Ambiguous value for argument 'data.domains=web,code'; a list is written [a,b]",
    "fit target_tokens=5": "Error merging override target_tokens=5 Invalid value assigned: int is not a ListConfig, ",
    "train seed=first": "Error merging override seed=first Value 'first' of type 'str' could not be converted",
}
NEEDED = {"train": ["token_budget=1"], "prepare": ["data=local"], "evaluate": [], "fit": ["runs=runs.csv"]}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_told_in_one_line(command):
    job, override = command.split(" ")
    with (
        initialize_config_dir(str(CONF_DIR), version_base="1.3"),
        pytest.raises((HydraException, ValueError)) as error,
    ):
        to_typed(compose(job, [*NEEDED[job], override]))
    line = describe(error.value)
    assert line.startswith(MISTAKES[command])
    assert "\n" not in line
    assert ("a list is written [a,b], also one of a single value" in line) == ("list" in line.lower())


def test_a_value_that_is_not_set_is_named_by_its_whole_key():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(UserError) as error:
        to_typed(compose("prepare", ["data=local", "data.path=x"]))
    assert describe(error.value) == "data.domains is not set; give it a value, as in data.domains=[a,b]"


def test_a_number_with_a_unit_is_told_how_to_write_it():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as error:
        to_typed(compose("fit", ["runs=runs.csv", "target_tokens=[2.5M]"]))
    line = describe(error.value)
    assert "target_tokens=[2.5M] Value '2.5M' of type 'str' could not be converted to Integer" in line
    assert line.endswith("; a whole number is written out, as in 2_500_000")


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("25e9", "25_000_000_000"),
        ("1.5e+6", "1_500_000"),
        ("25B", "25_000_000_000"),
        ("25b", "25_000_000_000"),
        ("10k", "10_000"),
        (".1M", "100_000"),
        ("2.5", "2_500_000"),
    ],
)
def test_a_whole_number_is_told_as_it_is_typed(typed: str, written: str):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as error:
        to_typed(compose("predict", ["law_file=a", "mixtures=b", "output=c", f"tokens={typed}"]))
    assert describe(error.value).endswith(f"; a whole number is written out, as in {written}")


@pytest.mark.parametrize(
    ("typed", "written"), [("10M", "[10_000_000]"), ("1e6", "[1_000_000]"), ("5", "[5]"), ("all", "[all]")]
)
def test_a_single_value_for_a_list_is_told_as_a_list_is_typed(typed: str, written: str):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(HydraException) as error:
        to_typed(compose("fit", ["runs=runs.csv", f"target_tokens={typed}"]))
    line = "; a list is written [a,b], also one of a single value, as in target_tokens="
    assert describe(error.value).endswith(line + written)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            "5,000",
            "for argument 'token_budget=5,000'; a whole number is written out, as in token_budget=5_000",
        ),
        ("5M,10M", "; hydra.mode=MULTIRUN runs the job for each"),
    ],
)
def test_a_number_with_commas_is_one_number_or_several_jobs(typed: str, line: str, refused):
    assert line in refused("train", f"token_budget={typed}")


def test_the_line_is_all_that_is_printed(tmp_path: Path):
    command = [sys.executable, "-m", "autoscale_exp.fit", "runs=runs.csv", "law=best"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: In 'fit': Could not find 'law/best'; there are additive, autoscale, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("multirun", ["hydra.mode=MULTIRUN", "experiment=targets", "-m"])
def test_a_mistake_in_a_sweep_is_told_and_not_that_a_value_has_choices(multirun: str, refused):
    line = refused("train", multirun, "search=x", "seed=0,1", "hydra.launcher.jobs=2")
    assert line.startswith("hydra.launcher.jobs is not known; keys of this launcher: ")
    assert ("n_jobs, hang_minutes; choose" in line) == (multirun == "experiment=targets")
    line = refused("train", "token_budget=1000", "seed=0,1")
    assert line.startswith("Ambiguous value for argument 'seed=0,1'; ")


@pytest.mark.parametrize(
    ("job", "given", "folder"),
    [
        ("fit", ["runs=.", "output_dir=file/out"], "file/out"),
        ("report", ["search=.", "output_dir=file"], "file"),
        ("train", ["token_budget=1000", "run_name=r", "output_dir=file"], "file/runs/r"),
        (
            "prepare",
            ["data=environment", "data.store=file", "shard=0,1", "num_shards=2", "hydra.mode=MULTIRUN"],
            "file",
        ),
        ("prepare", ["data=environment", "data.store=file/store"], "file/store"),
    ],
)
def test_a_job_whose_folder_cannot_be_made_says_so(job, given, folder, refused, tmp_path: Path):
    (tmp_path / "file").touch()
    line = refused(job, *given)
    assert line.startswith(f"the job's folder '{folder}' cannot be made or written: ")
    assert line.endswith("; give another one (output_dir, or data.store for prepare)")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit runs=mistyped", "runs is 'mistyped', which does not exist"),
        ("report search=~/mistyped", "which does not exist"),
        ("report search=mistyped", "search is 'mistyped', which does not exist"),
    ],
)
def test_a_job_that_finds_nothing_to_read_leaves_no_folder(command, message, refused, tmp_path: Path):
    job, override = command.split(" ")
    assert message in refused(job, override)
    assert not list(tmp_path.iterdir())


def test_a_job_whose_log_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "out" / "fit.log").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fit", "runs=.", "output_dir=out"])
    with pytest.raises(SystemExit, match="2"):
        fit.main()
    line = capsys.readouterr().err
    assert "out/fit.log' cannot be made or written: Is a directory; give another one" in line


def test_an_error_of_a_section_that_builds_an_object_names_its_target():
    with pytest.raises(HydraException) as error:
        instantiate({"_target_": "pytorch_lightning.Trainer", "accelerator": "abacus"})
    line = describe(error.value)
    assert line.startswith("pytorch_lightning.trainer.trainer.Trainer does not take its section of the config: ")
    assert "accelerator='abacus'" in line
    assert line.endswith("; correct that section")


def test_an_error_that_is_nobodys_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(fit, "read_runs", broken)
    monkeypatch.setattr("sys.argv", ["fit", f"runs={tmp_path}", f"output_dir={tmp_path}", "hydra/job_logging=none"])
    with pytest.raises(OSError, match="Input/output error"):
        fit.main()


def test_a_target_that_is_not_there_is_named():
    with pytest.raises(HydraException) as error:
        instantiate({"_target_": "nowhere.Logger"})
    assert describe(error.value) == "_target_ is 'nowhere.Logger', which cannot be found; give the full name of a class"


def test_a_worker_that_a_launcher_has_lost_is_told_in_one_line():
    lost = r"the launcher has lost a job \(a worker was killed\); what is finished stays"
    with pytest.raises(UserError, match=lost), _errors_before(lambda: False):
        raise TerminatedWorkerError("a worker was killed\nas memory is short")
    with pytest.raises(UserError, match=r"the launcher has lost a job \(process 7 "), _errors_before(lambda: True):
        raise ProcessDied("process 7 was killed by SIGKILL")
    with pytest.raises(RuntimeError, match="of ours"), _errors_before(lambda: False):
        raise RuntimeError("of ours")


def test_a_disk_that_is_full_while_a_job_runs_is_told_in_one_line():
    full = r"the disk is full \(No space left on device\); free some space and run the same command again"
    with pytest.raises(UserError, match=full), _errors_before(lambda: True):
        raise OSError(errno.ENOSPC, "No space left on device")
