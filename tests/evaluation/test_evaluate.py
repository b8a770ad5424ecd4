import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoscale_exp.base.errors import UserError
from autoscale_exp.evaluate import log_results, logged_run, main
from autoscale_exp.evaluation.fine_tuning import find_device
from autoscale_exp.evaluation.subject import Subject, find_subject
from autoscale_exp.lm.checkpoint import open_checkpoint
from autoscale_exp.runs.record import write_record
from tests.runs.records import make_record

from .conftest import compose_evaluate, write_jsonl

evaluate: Any = main.__wrapped__  # the job without Hydra around it


@pytest.fixture
def arguments(bert_folder: Path, tmp_path: Path) -> list[str]:
    for name in ("rte", "wnli"):
        for split in ("train", "validation"):
            rows = [{"sentence1": "the film", "sentence2": ("bad", "good")[k % 2], "label": k % 2} for k in range(16)]
            write_jsonl(tmp_path / "data" / "glue" / name / f"{split}.jsonl", rows)
    where = [f"checkpoint={bert_folder}", f"output_dir={tmp_path}", f"datasets_dir={tmp_path / 'data'}"]
    return [*where, "task=glue", "task.tasks=[rte,wnli]", "task.max_length=16", "task.epochs=1"]


def test_a_finished_evaluation_is_kept_and_only_what_is_missing_is_measured(arguments, tmp_path: Path):
    path = tmp_path / "evaluation.json"
    for seeds, done in (("[0]", [0]), ("[0,1]", [0, 1])):
        evaluate(compose_evaluate(*arguments, f"task.seeds={seeds}"))
        tasks = json.loads(path.read_text())["tasks"]
        assert set(tasks) == {"glue/rte", "glue/wnli"}
        assert [value["seed"] for value in tasks["glue/rte"]["values"]] == done
    before = path.read_bytes()
    evaluate(compose_evaluate(*arguments, "task.seeds=[1]"))
    assert path.read_bytes() == before


def test_other_settings_are_refused_before_anything_is_measured(arguments, refused, tmp_path: Path):
    evaluate(compose_evaluate(*arguments, "task.tasks=[wnli]"))
    line = refused("evaluate", *arguments, "task.epochs=2", f"hydra.run.dir={tmp_path}/log")
    path = tmp_path / "evaluation.json"
    assert line.startswith(f"'{path}' holds glue/wnli with other settings (epochs: 1, not 2); give those")
    assert set(json.loads(path.read_text())["tasks"]) == {"glue/wnli"}


def test_scores_go_to_the_logger_by_task_and_metric(bert_folder, tmp_path: Path):
    conf = compose_evaluate(f"checkpoint={bert_folder}", f"output_dir={tmp_path}", "logger=csv")
    log_results(conf, find_subject(conf), {"glue/rte": {"mean": {"accuracy": 0.75}}, "squad": {"mean": {"f1": 0.5}}})
    (path,) = tmp_path.glob("metrics/version_0/metrics.csv")
    (row,) = csv.DictReader(path.open())
    assert (float(row["glue/rte/accuracy"]), float(row["squad/f1"])) == (0.75, 0.5)


def test_a_logged_evaluation_is_named_like_the_model_and_goes_on_with_further_tasks(bert_folder, tmp_path: Path):
    conf = compose_evaluate(f"checkpoint={bert_folder}", f"output_dir={tmp_path}", "logger=wandb")
    run = logged_run(find_subject(conf))
    assert (run.name, run.group, run.job_type) == (bert_folder.name, "evaluation", "evaluation")
    assert run == logged_run(find_subject(conf))
    log_results(conf, find_subject(conf), {"squad": {"mean": {"f1": 0.5}}})


@pytest.mark.parametrize("given", ["targets/runs/one", "../one", "."])
def test_an_evaluation_is_in_the_group_of_its_study_wherever_it_is_run(given, bert_folder, tmp_path: Path, monkeypatch):
    record = make_record("one", experiment="targets")
    write_record(tmp_path / "runs" / "base", replace(record, experiment="search"))
    folder = tmp_path / "targets" / "runs" / "one"
    shutil.copytree(bert_folder, folder / "model")
    monkeypatch.chdir(tmp_path if given.startswith("targets") else folder)
    subject = Subject(open_checkpoint(Path(given) / "model", "run"), Path("x"), record, None, None, "cpu")
    assert logged_run(subject).group == "search"


def test_any_logger_can_be_given_to_a_job_that_has_none_by_default():
    conf = compose_evaluate("run=x", "++logger={_target_: my.Logger, name: mine}")
    assert conf.logger == {"_target_": "my.Logger", "name": "mine"}
    assert compose_evaluate("run=x").logger == {}


def test_a_device_that_torch_does_not_have_is_refused_with_its_reason():
    with pytest.raises(UserError, match=r"device is 'abacus', which cannot be used: .*device type.*abacus"):
        find_device("abacus")


def test_threads_are_at_least_one(refused):
    assert refused("evaluate", "run=x", "num_threads=0") == "num_threads is 0; it must be at least 1"
