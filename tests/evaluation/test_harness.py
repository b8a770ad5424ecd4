import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from autoscale_exp.base.errors import UserError
from autoscale_exp.evaluate import plan
from autoscale_exp.evaluation.evaluation_file import carry_out
from autoscale_exp.evaluation.harness import _task_manager, choose_headline, metrics_by_name
from autoscale_exp.evaluation.subject import find_subject

from .conftest import compose_evaluate, write_jsonl

POSITIONS = 30
QUESTIONS = [
    {"support": " apple is ripe", "question": f"{n} plus {m}?", "correct_answer": f"{n + m}"}
    | {f"distractor{k}": f"{n + m + k} times" for k in (1, 2, 3)}
    for n in (1, 2, 3)
    for m in (4, 5)
]


def planned(*overrides: str):
    conf = compose_evaluate("task=harness", *overrides)
    return plan(conf, find_subject(conf))


def test_without_the_extra_the_error_says_what_to_install(make_gpt2, monkeypatch, tmp_path: Path):
    _task_manager.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(
        ValueError, match=r"task=harness needs .* install it with `pip install 'autoscale_exp\[harness\]'`"
    ):
        planned(f"checkpoint={make_gpt2(64)}", f"output_dir={tmp_path}")


def test_a_masked_model_is_an_error(bert_folder, tmp_path: Path):
    with pytest.raises(UserError, match="is a masked bert model, but task=harness scores causal ones"):
        planned(f"checkpoint={bert_folder}", f"output_dir={tmp_path}")


@pytest.mark.parametrize("key", ["num_fewshot=-1", "limit=0", "batch_size=0"])
def test_a_setting_out_of_range_is_an_error(key, make_gpt2, tmp_path: Path):
    with pytest.raises(UserError, match=rf"task.{key.replace('=', ' is ')}; it must be at least"):
        planned(f"checkpoint={make_gpt2(64)}", f"output_dir={tmp_path}", f"task.{key}")


def test_at_least_one_task_is_needed(make_gpt2, tmp_path: Path):
    with pytest.raises(UserError, match=r"task.tasks is \[\]; name at least one task of the harness"):
        planned(f"checkpoint={make_gpt2(64)}", f"output_dir={tmp_path}", "task.tasks=[]")


def test_metrics_of_every_filter_are_kept_and_those_without_one_have_bare_names():
    results = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.125,
        "exact_match,flexible-extract": 0.5,
        "exact_match_stderr,flexible-extract": "N/A",
        "acc,none": 1,
    }
    metrics, errors = metrics_by_name(results)
    assert metrics == {"exact_match.strict-match": 0.25, "exact_match.flexible-extract": 0.5, "acc": 1.0}
    assert errors == {"exact_match.strict-match": 0.125}


def test_the_headline_is_the_preferred_metric_that_came_back():
    directions = {"bleu": True, "exact_match": True, "acc": True}
    assert choose_headline(["exact_match.strict", "exact_match.flexible"], directions) == {"exact_match.strict": True}
    assert choose_headline(["exact_match.strict", "exact_match"], directions) == {"exact_match": True}
    assert choose_headline(["bleu", "exact_match.strict", "acc"], directions) == {"acc": True}
    assert choose_headline(["bleu.first"], directions | {"bleu": False}) == {"bleu.first": False}
    assert choose_headline(["rouge"], directions) == {}


@pytest.fixture(scope="module")
def local(make_gpt2, tmp_path_factory) -> list[str]:
    """A model and a task of the harness in local files."""
    pytest.importorskip("lm_eval.models.huggingface")
    folder = tmp_path_factory.mktemp("harness")
    for split in ("train", "validation", "test"):
        write_jsonl(folder / "data" / "sciq" / f"{split}.jsonl", QUESTIONS)
    return [f"checkpoint={make_gpt2(POSITIONS)}", f"output_dir={folder}", f"datasets_dir={folder / 'data'}"]


@pytest.mark.slow  # the harness reads 13,000 files before it starts
def test_a_local_task_is_scored_by_the_likelihood_of_its_choices(local):
    (evaluation,) = planned(*local, "task.tasks=[sciq]")
    measured = evaluation.measure(None)
    folder = local[0].removeprefix("checkpoint=")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    right = truncated = 0
    for row in QUESTIONS:
        context = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
        scores = []
        for choice in (*(row[f"distractor{k}"] for k in (1, 2, 3)), row["correct_answer"]):
            start, tokens = len(tokenizer(context)["input_ids"]), tokenizer(f"{context} {choice}")["input_ids"]
            truncated += len(tokens) > POSITIONS + 1
            with torch.no_grad():
                log_probabilities = model(torch.tensor([tokens[-POSITIONS - 1 : -1]])).logits[0].log_softmax(-1)
            answer = tokens[start:]
            of_answer = log_probabilities[-len(answer) :][range(len(answer)), answer]
            scores.append(of_answer.sum().item())
        right += scores.index(max(scores)) == 3
    assert measured["metrics"]["acc"] == pytest.approx(right / len(QUESTIONS))
    assert set(measured["metrics"]) == {"acc", "acc_norm"} == set(measured["standard_errors"])
    assert evaluation.headline_of(measured["metrics"]) == {"acc_norm": True}
    assert 0 < measured["truncated_requests"] == truncated < 4 * len(QUESTIONS)
    assert measured["examples"] == {"scored": len(QUESTIONS)}


@pytest.mark.slow
def test_unknown_tasks_and_data_that_are_missing_or_damaged_are_errors(local, tmp_path: Path):
    with pytest.raises(UserError, match=r"names 'sciqq', which is none of the \d+ tasks .* near it: sciq"):
        planned(*local, "task.tasks=[sciqq]")
    with pytest.raises(UserError, match=r"piqa' has no train, validation, test with ending .jsonl or .parquet"):
        planned(*local, "task.tasks=[piqa]")
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa" / "train.jsonl").write_text("not JSON")
    with pytest.raises(UserError, match="the data of the harness's task 'piqa' cannot be had: "):
        planned(*local, f"datasets_dir={tmp_path}", "task.tasks=[piqa]")[0].measure(None)


@pytest.mark.slow
def test_an_answer_that_the_model_cannot_hold_is_an_error(local, make_gpt2):
    (evaluation,) = planned(*local, f"checkpoint={make_gpt2(3)}", "task.tasks=[sciq]")
    with pytest.raises(UserError, match=r"an answer of \d+ tokens is longer than the 3 positions of"):
        evaluation.measure(None)


def generating(checkpoint: Path, folder: Path):
    """The evaluation of a task whose answers are generated, with 256 tokens at most."""
    rows = [{"question": f"{n} plus 4?", "answer": f"It is so. #### {n + 4}"} for n in range(2)]
    for split in ("train", "test"):
        write_jsonl(folder / "gsm8k" / f"{split}.jsonl", rows)
    where = [f"checkpoint={checkpoint}", f"output_dir={folder}", f"datasets_dir={folder}"]
    (evaluation,) = planned(*where, "task.tasks=[gsm8k]", "task.num_fewshot=0")
    return evaluation


@pytest.mark.slow
def test_a_task_with_filters_of_generated_text_is_recorded(local, make_gpt2, tmp_path: Path):
    entry = carry_out(generating(make_gpt2(400), tmp_path), tmp_path / "evaluation.json")
    assert entry["headline"] == {"exact_match.strict-match": True}
    assert set(entry["mean"]) == {"exact_match.strict-match", "exact_match.flexible-extract"}
    assert entry["values"][0]["truncated_requests"] == 0


@pytest.mark.slow
def test_prompts_are_cut_to_leave_room_for_a_generated_answer_if_there_is_any(local, make_gpt2, tmp_path: Path):
    assert generating(make_gpt2(258), tmp_path).measure(None)["truncated_requests"] == 2
    with pytest.raises(UserError, match=r"generates answers of 256 tokens, but .* has 256 positions; leave it out"):
        generating(make_gpt2(256), tmp_path).measure(None)
