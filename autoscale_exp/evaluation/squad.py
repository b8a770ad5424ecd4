"""SQuAD v1.1 (Rajpurkar et al., 2016): fine-tuning to mark the answer in a paragraph, and reading the answer off.

A paragraph that is too long becomes several overlapping windows. A window is one input of the model.
"""

from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import AutoModelForQuestionAnswering

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.data.tokenizer import Tokenizer
from autoscale_exp.evaluation.conf import SquadTaskConf
from autoscale_exp.evaluation.evaluation_file import Evaluation
from autoscale_exp.evaluation.examples import DataSource
from autoscale_exp.evaluation.fine_tuning import Encoded, FineTuned, check_fine_tuning, recipe
from autoscale_exp.evaluation.metrics import answer_f1, exact_match
from autoscale_exp.evaluation.subject import Subject

HUB_PATH = "rajpurkar/squad"
SPLITS = ("train", "validation")


def plan_squad(conf: SquadTaskConf, subject: Subject) -> list[Evaluation]:
    """Plans the evaluation.

    Raises:
        UserError: see `check_fine_tuning`; or a local file is missing or has wrong columns.
    """
    tokenizer = check_fine_tuning(conf, subject)
    check_range({f"task.{key}": getattr(conf, key) for key in ("stride", "n_best", "max_answer_length")}, 1)
    folder = None if subject.datasets_dir is None else subject.datasets_dir / "squad"
    source = DataSource(HUB_PATH, None, folder)
    data = source.identity(SPLITS)
    if folder is not None:
        for split in SPLITS:
            load_examples(source, split)

    def measure(seed: int | None) -> dict[str, Any]:
        assert seed is not None
        train, validation = (load_examples(source, split) for split in SPLITS)
        windows = encode(train, tokenizer, conf)
        inputs = windows.inputs | answer_positions(train, windows)
        windows = encode(validation, tokenizer, conf)  # so that mistakes show before the model is fine-tuned
        model = FineTuned("squad", AutoModelForQuestionAnswering, subject, tokenizer, inputs, conf, seed)
        logits = model.predict(windows.inputs, lambda output: (output.start_logits, output.end_logits))
        answers = best_answers(validation, windows, logits, conf.n_best, conf.max_answer_length)
        references = [entry["text"] for entry in validation["answers"]]
        pairs = list(zip(answers, references, strict=True))
        return {
            "metrics": {
                "f1": float(np.mean([answer_f1(*pair) for pair in pairs])),
                "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
            },
            "examples": {"train": len(train), "validation": len(validation)},
        }

    own = {key: getattr(conf, key) for key in ("stride", "n_best", "max_answer_length")}
    return [
        Evaluation(
            name="squad",
            settings=subject.settings | recipe(conf) | own | {"data": data},
            seeds=conf.seeds,
            headline={"f1": True, "exact_match": True},
            measure=measure,
        )
    ]


def load_examples(source: DataSource, split: str) -> datasets.Dataset:
    """Loads the examples of a split, and checks that all have an answer.

    Raises:
        UserError: see `DataSource.load`; or a question has no answer, as in SQuAD v2, or answers of another form.
    """
    examples = source.load(split, ("context", "question"), ("id", "answers"))
    for name, answers in zip(examples["id"], examples["answers"], strict=True):
        if not _are_answers(answers):
            where = source.folder or source.identity([])
            raise UserError(
                f"{where}, split {split}: question '{name}' has no answer like {{'text': ['Rome'], 'answer_start': "
                f"[12]}}, but {answers!r}; give the examples of SQuAD v1.1"
            )
    return examples


def _are_answers(answers: Any) -> bool:
    """Whether these are texts, at least one, each with the place where it starts."""
    if not isinstance(answers, dict):
        return False
    texts, starts = (answers.get(key) or [] for key in ("text", "answer_start"))
    pairs = len(texts) == len(starts) > 0
    return pairs and all(isinstance(t, str) and isinstance(s, int) for t, s in zip(texts, starts, strict=True))


@dataclass(frozen=True)
class Windows:
    """Tokenized questions, with windows of their paragraphs.

    Attributes:
        inputs: columns for the model.
        example: number of each window's example.
        offsets: per window, (tokens, 2) characters of the paragraph that each token covers.
        in_context: per window, (tokens,) bool, whether a token is of the paragraph.
    """

    inputs: Encoded
    example: list[int]
    offsets: list[npt.NDArray[np.int64]]
    in_context: list[npt.NDArray[np.bool_]]


def encode(examples: datasets.Dataset, tokenizer: Tokenizer, conf: SquadTaskConf) -> Windows:
    """Tokenizes to [CLS] question [SEP] window [SEP], with a window every `stride` tokens over the whole paragraph.

    The tokenizer's own windows are not used because some versions lose the last one (tokenizers 0.23.2).

    Raises:
        UserError: a question leaves less than `stride` tokens for its paragraph, so that some would be in no window.
    """
    questions = tokenizer([q.strip() for q in examples["question"]], add_special_tokens=False)["input_ids"]
    contexts = tokenizer(examples["context"][:], add_special_tokens=False, return_offsets_mapping=True)
    cls, sep = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    windows = Windows({"input_ids": [], "token_type_ids": [], "attention_mask": []}, [], [], [])
    for number, question in enumerate(questions):
        context, offsets = contexts["input_ids"][number], contexts["offset_mapping"][number]
        room = conf.max_length - len(question) - 3
        if room < conf.stride:
            raise UserError(
                f"task.max_length is {conf.max_length}, of which a question of {len(question)} tokens leaves "
                f"{max(0, room)} for its paragraph, less than task.stride, {conf.stride}; raise task.max_length or "
                "lower task.stride"
            )
        for start in range(0, max(1, len(context) - room + conf.stride), conf.stride):
            before, inside = [*cls, *question, *sep], context[start : start + room]
            length = len(before) + len(inside) + 1
            windows.inputs["input_ids"].append([*before, *inside, *sep])
            windows.inputs["token_type_ids"].append([0] * len(before) + [1] * (length - len(before)))
            windows.inputs["attention_mask"].append([1] * length)
            windows.example.append(number)
            covered = np.zeros((length, 2), np.int64)
            covered[len(before) : -1] = np.array(offsets[start : start + room]).reshape(-1, 2)
            windows.offsets.append(covered)
            windows.in_context.append((np.arange(length) >= len(before)) & (np.arange(length) < length - 1))
    return windows


def answer_positions(examples: datasets.Dataset, windows: Windows) -> Encoded:
    """First and last token of the answer in each window; 0, the class token, if the answer is not wholly in it."""
    starts, ends = [], []
    answers = examples["answers"][:]
    for example, offsets, in_context in zip(windows.example, windows.offsets, windows.in_context, strict=True):
        text = answers[example]["text"][0]
        first = answers[example]["answer_start"][0] + len(text) - len(text.lstrip())  # no token covers a blank
        last = first + len(text.strip())
        covering = np.flatnonzero(in_context & (offsets[:, 1] > first) & (offsets[:, 0] < last))
        whole = len(covering) and offsets[covering[0], 0] <= first and offsets[covering[-1], 1] >= last
        starts.append(int(covering[0]) if whole else 0)
        ends.append(int(covering[-1]) if whole else 0)
    return {"start_positions": starts, "end_positions": ends}


def best_answers(
    examples: datasets.Dataset,
    windows: Windows,
    logits: list[tuple[npt.NDArray[Any], ...]],
    n_best: int,
    max_answer_length: int,
) -> list[str]:
    """Finds, for each example, the span with the largest sum of start and end logit over all its windows.

    Spans run from one of a window's `n_best` starts to one of its `n_best` ends, lie in the paragraph and have at most
    `max_answer_length` tokens. An example without such a span gets an empty answer.
    """
    contexts = examples["context"][:]
    best = [(-np.inf, "")] * len(contexts)
    for number, (start_logits, end_logits) in enumerate(logits):
        inside = np.flatnonzero(windows.in_context[number])
        starts = inside[np.argsort(-start_logits[inside], kind="stable")[:n_best]]
        ends = inside[np.argsort(-end_logits[inside], kind="stable")[:n_best]]
        length = ends[None, :] - starts[:, None] + 1
        if not inside.size:  # an empty paragraph
            continue
        scores = start_logits[starts][:, None] + end_logits[ends][None, :]
        scores = np.where((length >= 1) & (length <= max_answer_length), scores, -np.inf)
        s, e = np.unravel_index(scores.argmax(), scores.shape)
        example = windows.example[number]
        if scores[s, e] > best[example][0]:
            offsets = windows.offsets[number]
            best[example] = (scores[s, e], contexts[example][offsets[starts[s], 0] : offsets[ends[e], 1]])
    return [text for _, text in best]
