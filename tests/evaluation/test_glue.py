from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.data.store import TokenStore
from autoscale_exp.evaluate import plan
from autoscale_exp.evaluation.evaluation_file import Evaluation
from autoscale_exp.evaluation.glue import TASKS
from autoscale_exp.evaluation.subject import find_subject
from autoscale_exp.training.plan import plan_run
from autoscale_exp.training.run import train

from .conftest import compose_evaluate, write_jsonl

FILLER = ["film", "plot", "actor", "scene", "the", "is"]


def write_task(folder: Path, name: str, num_examples: int, seed: int = 0, **columns: str) -> None:
    """Examples whose label is the word in their last text: good, bad or neither."""
    task, rng = TASKS[name], np.random.default_rng(seed)
    for split in ("train", *(split for _, split in task.validation)):
        rows = []
        for index in range(num_examples):
            label = int(rng.integers(max(2, task.num_labels)))
            words = [*rng.choice(FILLER, size=rng.integers(3, 8)), ["bad", "good", "hill"][label]]
            texts = {column: " ".join(rng.permutation(words)) for column in task.columns}
            texts[task.columns[0]] = " ".join(rng.choice(FILLER, size=3)) if len(texts) > 1 else texts[task.columns[0]]
            rows.append({**texts, "label": label if task.num_labels > 1 else 2.0 * label, "idx": index})
        write_jsonl(folder / "glue" / name / f"{split}.jsonl", rows)


def planned(bert_folder: Path, data: Path, *overrides: str) -> list[Evaluation]:
    where = [f"checkpoint={bert_folder}", f"output_dir={data}", f"datasets_dir={data}"]
    conf = compose_evaluate("task=glue", "task.max_length=32", *where, *overrides)
    return plan(conf, find_subject(conf))


def test_fine_tuning_learns_what_the_label_depends_on(bert_folder, tmp_path: Path):
    write_task(tmp_path, "sst2", 160)
    (untrained,) = planned(bert_folder, tmp_path, "task.tasks=[sst2]", "task.lr=1e-9", "task.epochs=1")
    (trained,) = planned(bert_folder, tmp_path, "task.tasks=[sst2]", "task.lr=1e-2", "task.batch_size=16")
    before, after = untrained.measure(0)["metrics"]["accuracy"], trained.measure(0)["metrics"]["accuracy"]
    assert before < 0.7 < 0.95 < after


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_learnt_and_has_its_official_metrics(name, bert_folder, tmp_path: Path):
    write_task(tmp_path, name, 128)
    (evaluation,) = planned(
        bert_folder, tmp_path, f"task.tasks=[{name}]", "task.lr=3e-3", "task.batch_size=8", "task.epochs=8"
    )
    measured = evaluation.measure(1)
    expected = {
        "cola": {"matthews_correlation"},
        "mrpc": {"accuracy", "f1"},
        "qqp": {"accuracy", "f1"},
        "stsb": {"pearson", "spearman"},
        "mnli": {"accuracy_matched", "accuracy_mismatched"},
    }
    assert set(measured["metrics"]) == expected.get(name, {"accuracy"})
    assert set(evaluation.headline) <= set(measured["metrics"])
    assert min(measured["metrics"].values()) > 0.6
    assert measured["examples"]["train"] == 128


def test_a_seed_gives_the_same_score_and_another_a_different_model(bert_folder, tmp_path: Path):
    write_task(tmp_path, "stsb", 64)
    (evaluation,) = planned(bert_folder, tmp_path, "task.tasks=[stsb]", "task.lr=1e-3")
    first, again, other = (evaluation.measure(seed)["metrics"] for seed in (0, 0, 1))
    assert first == again != other


def test_examples_that_are_cut_are_counted(bert_folder, tmp_path: Path):
    rows = [{"sentence": " ".join(["film"] * n), "label": n % 2} for n in range(1, 13)]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "glue" / "sst2" / f"{split}.jsonl", rows)
    (evaluation,) = planned(bert_folder, tmp_path, "task.tasks=[sst2]", "task.max_length=10")
    assert evaluation.measure(0)["truncated_examples"] == 2 * 4  # 9 to 12 words and two special tokens


def test_parquet_files_do_as_well(bert_folder, tmp_path: Path):
    folder = tmp_path / "glue" / "rte"
    folder.mkdir(parents=True)
    rows = Dataset.from_dict({"sentence1": ["the film"] * 8, "sentence2": ["good", "bad"] * 4, "label": [1, 0] * 4})
    for split in ("train", "validation"):
        rows.to_parquet(folder / f"{split}.parquet")
    (evaluation,) = planned(bert_folder, tmp_path, "task.tasks=[rte]")
    assert evaluation.measure(0)["examples"] == {"train": 8, "validation": 8}


def test_a_model_that_was_trained_here_is_fine_tuned(
    compose_train, masked_overrides, masked_store: TokenStore, tmp_path: Path
):
    train(plan_run(compose_train(*masked_overrides, "save_model=true"), masked_store), tmp_path)
    write_task(tmp_path, "rte", 8)
    conf = compose_evaluate("task=glue", "task.tasks=[rte]", "task.max_length=16", f"run={tmp_path}")
    conf.datasets_dir = str(tmp_path)
    (evaluation,) = plan(conf, find_subject(conf))
    assert 0 <= evaluation.measure(0)["metrics"]["accuracy"] <= 1


def test_without_a_network_the_error_names_the_data_set_and_the_way_out(bert_folder, tmp_path: Path):
    conf = compose_evaluate("task=glue", "task.max_length=16", f"checkpoint={bert_folder}", f"output_dir={tmp_path}")
    evaluation = plan(conf, find_subject(conf))[0]
    with pytest.raises(UserError, match=r"nyu-mll/glue/cola, split train cannot be read: .* give datasets_dir="):
        evaluation.measure(0)


def test_wrong_requests_are_errors_before_training(bert_folder, make_gpt2, tmp_path: Path):
    write_task(tmp_path, "sst2", 4)
    write_task(tmp_path, "rte", 4)
    write_jsonl(tmp_path / "glue" / "rte" / "train.jsonl", [{"sentence1": "a", "text": "b", "label": 0}])
    write_jsonl(tmp_path / "glue" / "wnli" / "train.jsonl", [])
    write_task(tmp_path, "qnli", 4)
    write_jsonl(tmp_path / "glue" / "qnli" / "validation.jsonl", [{"question": "a", "sentence": "b", "label": -1}])
    for overrides, message in {
        ("task.tasks=[sst5]",): r"task.tasks is \['sst5'\]; GLUE has cola, sst2, mrpc",
        ("task.tasks=[sst2]", "task.max_length=49"): "has only 48 positions; give task.max_length=48 or less",
        ("task.tasks=[sst2]", "task.max_length=4"): "task.max_length is 4; it must be at least 5",
        ("task.tasks=[sst2]", "task.seeds=[]"): r"task.seeds is \[\]; give different seeds, at least one",
        ("task.tasks=[sst2]", "task.epochs=0"): "task.epochs is 0; it must be positive",
        ("task.tasks=[sst2]", "task.lr=nan"): "task.lr is nan; it must be positive and finite",
        ("task.tasks=[sst2]", "task.weight_decay=-1"): "task.weight_decay is -1.0; it must be at least 0",
        ("task.tasks=[sst2]", "task.seeds=[0,-1]"): r"task.seeds\[1\] is -1; it must lie between 0 and",
        ("task.tasks=[sst2]", "task.warmup_fraction=1"): "task.warmup_fraction is 1.0",
        ("task.tasks=[rte]",): "train.jsonl' has no column 'sentence2'; needed are sentence1, sentence2, label",
        ("task.tasks=[cola]",): r"cola' has no train.jsonl or train.parquet \(there is no folder\)",
        ("task.tasks=[wnli]",): r"wnli' has no validation.jsonl or validation.parquet \(there is train.jsonl\)",
        ("task.tasks=[qnli]",): "label -1 is not one of 0 to 1",
        ("task.tasks=[sst2]", f"checkpoint={make_gpt2(64)}"): "is a causal gpt2 model, but task=glue fine-tunes masked",
        ("task.tasks=[sst2]", "datasets_dir=nowhere"): "datasets_dir is 'nowhere', which is no folder",
    }.items():
        with pytest.raises(UserError, match=message):
            planned(bert_folder, tmp_path, *overrides)


def test_validation_labels_are_checked_before_the_model_is_fine_tuned(bert_folder, tmp_path: Path, monkeypatch):
    write_task(tmp_path, "sst2", 4)
    (evaluation,) = planned(bert_folder, tmp_path, "task.tasks=[sst2]")
    write_jsonl(tmp_path / "glue" / "sst2" / "validation.jsonl", [{"sentence": "film", "label": 2}])  # as on the Hub
    monkeypatch.setattr("autoscale_exp.evaluation.glue.FineTuned", None)
    with pytest.raises(UserError, match="split validation: label 2 is not one of 0 to 1"):
        evaluation.measure(0)


@pytest.mark.parametrize(
    ("name", "label", "allowed"),
    [("rte", None, "one of 0 to 1"), ("rte", "1", "one of 0 to 1"), ("stsb", None, "a finite"), ("stsb", "high", "a")],
)
def test_a_label_of_another_kind_is_an_error(name, label, allowed, bert_folder, tmp_path: Path):
    write_task(tmp_path, name, 4)
    rows = [{"sentence1": "film", "sentence2": "plot", "label": label}]
    write_jsonl(tmp_path / "glue" / name / "train.jsonl", rows)
    with pytest.raises(UserError, match=f"split train: label {label!r} is not {allowed}"):
        planned(bert_folder, tmp_path, f"task.tasks=[{name}]")


def test_a_fine_tuning_that_diverges_is_not_scored(bert_folder, tmp_path: Path):
    write_task(tmp_path, "sst2", 8)
    (evaluation,) = planned(bert_folder, tmp_path, "task.tasks=[sst2]", "task.lr=1e30")
    with pytest.raises(DivergedError, match=r"logits of glue/sst2, fine-tuned with seed 1, .* lower task.lr"):
        evaluation.measure(1)
