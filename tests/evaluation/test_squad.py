from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer

from autoscale_exp.base.errors import DivergedError, UserError
from autoscale_exp.evaluate import plan
from autoscale_exp.evaluation.squad import answer_positions, best_answers, encode
from autoscale_exp.evaluation.subject import find_subject

from .conftest import compose_evaluate, write_jsonl

FILLER = ["film", "plot", "actor", "scene", "the", "is", "of"]


def examples(num_examples: int, num_words: int = 12, seed: int = 0) -> list[dict]:
    """Paragraphs with one name of a city among other words, which is the answer."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(num_examples):
        words = list(rng.choice(FILLER, size=num_words))
        words[rng.integers(num_words)] = answer = str(rng.choice(["rome", "oslo", "lima", "cairo"]))
        context = " ".join(words)
        start = context.index(answer)
        answers = {"text": [answer], "answer_start": [start]}
        rows.append({"id": str(index), "title": "x", "context": context, "question": " where is the river?"})
        rows[-1]["answers"] = answers
    return rows


def planned(bert_folder: Path, data: Path, *overrides: str):
    where = [f"checkpoint={bert_folder}", f"output_dir={data}", f"datasets_dir={data}"]
    small = ["task.max_length=20", "task.stride=4", "task.max_answer_length=3", "task.seeds=[0]"]
    conf = compose_evaluate("task=squad", *where, *small, *overrides)
    (evaluation,) = plan(conf, find_subject(conf))
    return evaluation


def test_fine_tuning_learns_to_find_the_answer(bert_folder, tmp_path: Path):
    for number, split in enumerate(("train", "validation")):
        write_jsonl(tmp_path / "squad" / f"{split}.jsonl", examples(200, num_words=16, seed=number))
    before = planned(bert_folder, tmp_path, "task.lr=1e-9", "task.epochs=1").measure(0)["metrics"]
    after = planned(bert_folder, tmp_path, "task.lr=1e-2", "task.batch_size=16").measure(0)["metrics"]
    assert before["exact_match"] < 0.3 < 0.9 < after["exact_match"] <= after["f1"]


def settings(**options) -> SimpleNamespace:
    return SimpleNamespace(**{"max_length": 20, "stride": 4, **options})


@pytest.mark.parametrize("max_length", [16, 20, 40])
def test_answers_marked_by_their_positions_are_read_back(max_length, bert_folder):
    """Logits that are one at the answer's tokens, in the windows that have it, give the answer's text."""
    rows = examples(50, num_words=20)
    rows.append({**rows[0], "context": "Rome, oslo. LIMA?", "answers": {"text": ["oslo. LIMA"], "answer_start": [6]}})
    data = datasets.Dataset.from_list(rows)
    windows = encode(data, AutoTokenizer.from_pretrained(bert_folder), settings(max_length=max_length))
    positions = answer_positions(data, windows)
    assert (max_length == 40) == (len(windows.example) == len(rows))
    logits = []
    for start, end, ids in zip(
        positions["start_positions"], positions["end_positions"], windows.inputs["input_ids"], strict=True
    ):
        marked = np.zeros((2, len(ids)))
        marked[[0, 1], [start, end]] = 1
        logits.append(tuple(marked))
    answers = best_answers(data, windows, logits, n_best=20, max_answer_length=30)
    assert answers == [row["answers"]["text"][0] for row in rows]


def test_the_best_answer_is_that_of_a_search_over_all_spans(bert_folder):
    data = datasets.Dataset.from_list(examples(8, num_words=20))
    windows = encode(data, AutoTokenizer.from_pretrained(bert_folder), settings())
    rng = np.random.default_rng(0)
    logits = [tuple(rng.normal(size=(2, len(ids)))) for ids in windows.inputs["input_ids"]]
    expected = []
    for example in range(8):
        spans = {}
        for number, (start, end) in enumerate(logits):
            if windows.example[number] != example:
                continue
            for s in np.flatnonzero(windows.in_context[number]):
                for e in range(s, min(s + 4, len(start))):
                    if windows.in_context[number][e]:
                        text = data[example]["context"][windows.offsets[number][s][0] : windows.offsets[number][e][1]]
                        spans[start[s] + end[e]] = text
        expected.append(spans[max(spans)])
    assert best_answers(data, windows, logits, n_best=99, max_answer_length=4) == expected


def test_only_the_n_best_starts_and_ends_are_considered(bert_folder):
    data = datasets.Dataset.from_list(examples(1, num_words=5))
    windows = encode(data, AutoTokenizer.from_pretrained(bert_folder), settings())
    first = int(np.flatnonzero(windows.in_context[0])[0])
    start, end = np.zeros((2, len(windows.inputs["input_ids"][0])))
    start[first + 3], end[first] = 2.0, 2.0  # the best of each run backwards
    assert best_answers(data, windows, [(start, end)], n_best=1, max_answer_length=30) == [""]
    assert best_answers(data, windows, [(start, end)], n_best=2, max_answer_length=30) != [""]


def test_an_answer_that_a_window_does_not_hold_whole_is_marked_by_the_class_token(bert_folder):
    context = "film plot actor rome oslo scene the is"  # of which four words fit
    answers = {"text": ["rome oslo"], "answer_start": [context.index("rome")]}
    rows = [{"id": "0", "context": context, "question": "where", "answers": answers}]
    data = datasets.Dataset.from_list(rows)
    windows = encode(
        data, AutoTokenizer.from_pretrained(bert_folder), settings(max_length=8, stride=2)
    )  # 4 words of the paragraph
    positions = answer_positions(data, windows)
    held = [
        "rome oslo" in context[o[m][0][0] : o[m][-1][1]]
        for o, m in zip(windows.offsets, windows.in_context, strict=True)
    ]
    assert held == [False, True, False]
    assert [start > 0 for start in positions["start_positions"]] == held


def test_wrong_requests_are_errors_before_training(bert_folder, make_gpt2, tmp_path: Path):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "squad" / f"{split}.jsonl", examples(4))
    bare = tmp_path / "bare"
    for split in ("train", "validation"):
        write_jsonl(bare / "squad" / f"{split}.jsonl", [{"id": "0", "context": "a", "question": "b"}])
    unanswered = tmp_path / "unanswered"
    write_jsonl(unanswered / "squad" / "train.jsonl", examples(4))
    without = {**examples(1)[0], "answers": {"text": [], "answer_start": []}}
    write_jsonl(unanswered / "squad" / "validation.jsonl", [*examples(1), {**without, "id": "x7"}])
    for overrides, message in {
        (f"datasets_dir={unanswered}",): "split validation: question 'x7' has no answer like",
        (f"checkpoint={make_gpt2(64)}",): "is a causal gpt2 model, but task=squad fine-tunes masked",
        ("task.n_best=0",): "task.n_best is 0; it must be at least 1",
        (f"datasets_dir={bare}",): "has no column 'answers'; needed are context, question, id, answers",
        ("task.max_length=99",): "has only 48 positions",
    }.items():
        with pytest.raises(UserError, match=message):
            planned(bert_folder, tmp_path, *overrides)
    with pytest.raises(
        ValueError, match=r"a question of 5 tokens leaves 3 for its paragraph, less than task.stride, 4"
    ):
        planned(bert_folder, tmp_path, "task.max_length=11").measure(0)


@pytest.mark.parametrize(
    "answers",
    [None, "rome", {"text": ["rome"]}, {"text": ["rome"], "answer_start": [None]}, {"text": [], "answer_start": []}],
)
def test_answers_of_another_form_are_an_error_before_training(answers, bert_folder, tmp_path: Path):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "squad" / f"{split}.jsonl", [{**examples(1)[0], "answers": answers}])
    with pytest.raises(
        UserError, match=r"split train: question '0' has no answer like .*, but .*; give the examples of"
    ):
        planned(bert_folder, tmp_path)


@pytest.mark.parametrize(
    ("num_words", "max_length", "stride"), [(20, 16, 4), (20, 16, 8), (8, 16, 8), (9, 16, 8), (21, 40, 3)]
)
def test_windows_cover_the_paragraph_and_begin_every_stride_tokens(num_words, max_length, stride, bert_folder):
    data = datasets.Dataset.from_list(examples(1, num_words=num_words))
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    windows = encode(data, tokenizer, settings(max_length=max_length, stride=stride))
    room = max_length - 8  # a question of five tokens and three special ones
    starts = [0]
    while starts[-1] + room < num_words:
        starts.append(starts[-1] + stride)
    words = data[0]["context"].split()
    for ids, start in zip(windows.inputs["input_ids"], starts, strict=True):
        text = f"[CLS] where is the river ? [SEP] {' '.join(words[start : start + room])} [SEP]"
        assert tokenizer.decode(ids) == tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    pair = tokenizer("where is the river?", data[0]["context"])
    if len(starts) == 1:
        assert {key: of[0] for key, of in windows.inputs.items()} == pair.data


def test_validation_questions_are_encoded_before_the_model_is_fine_tuned(bert_folder, tmp_path: Path, monkeypatch):
    write_jsonl(tmp_path / "squad" / "train.jsonl", examples(4))
    long = {**examples(1)[0], "question": "where is the river? " * 4}
    write_jsonl(tmp_path / "squad" / "validation.jsonl", [long])
    evaluation = planned(bert_folder, tmp_path)
    monkeypatch.setattr("autoscale_exp.evaluation.squad.FineTuned", None)
    with pytest.raises(UserError, match="a question of 20 tokens leaves 0 for its paragraph"):
        evaluation.measure(0)


@pytest.mark.parametrize("blanks", [(1, 0), (0, 1), (1, 1)])
def test_blanks_around_an_answer_are_not_part_of_it(blanks, bert_folder):
    row = {"id": "0", "context": "film rome oslo plot", "question": "where"}
    positions = []
    for before, after in ((0, 0), blanks):
        text = row["context"][5 - before : 14 + after]
        data = datasets.Dataset.from_list([{**row, "answers": {"text": [text], "answer_start": [5 - before]}}])
        windows = encode(data, AutoTokenizer.from_pretrained(bert_folder), settings())
        positions.append(answer_positions(data, windows))
    assert positions[0] == positions[1] == {"start_positions": [4], "end_positions": [5]}


def test_a_fine_tuning_that_diverges_is_not_scored(bert_folder, tmp_path: Path):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "squad" / f"{split}.jsonl", examples(8))
    with pytest.raises(DivergedError, match=r"the logits of squad, fine-tuned with seed 3, .* lower task.lr"):
        planned(bert_folder, tmp_path, "task.lr=1e30").measure(3)
