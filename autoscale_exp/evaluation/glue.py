"""GLUE (Wang et al., 2019): fine-tuning on each of nine tasks, scored on its validation examples."""

import math
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from transformers import AutoModelForSequenceClassification

from autoscale_exp.base.errors import UserError
from autoscale_exp.data.tokenizer import Tokenizer
from autoscale_exp.evaluation.conf import GlueTaskConf
from autoscale_exp.evaluation.evaluation_file import Evaluation
from autoscale_exp.evaluation.examples import DataSource
from autoscale_exp.evaluation.fine_tuning import Encoded, FineTuned, check_fine_tuning, recipe
from autoscale_exp.evaluation.metrics import METRICS
from autoscale_exp.evaluation.subject import Subject

HUB_PATH = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        columns: the columns of the one or two texts.
        metrics: the official metrics; the first is the one in table 1 of the BERT paper.
        num_labels: number of classes; 1 for regression.
        validation: splits, by the suffix of their metrics' names.
    """

    columns: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    num_labels: int = 2
    validation: tuple[tuple[str, str], ...] = (("", "validation"),)

    @property
    def headline(self) -> list[str]:
        """Names of the metrics that a report shows."""
        return [self.metrics[0] + suffix for suffix, _ in self.validation]

    def has_label(self, label: Any) -> bool:
        """Whether a label is one of the task's: a class or, for regression, any finite number."""
        if self.num_labels > 1:
            return label in range(self.num_labels)
        return isinstance(label, int | float) and math.isfinite(label)


TASKS = {
    "cola": GlueTask(("sentence",), ("matthews_correlation",)),
    "sst2": GlueTask(("sentence",)),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("f1", "accuracy")),
    "stsb": GlueTask(("sentence1", "sentence2"), ("spearman", "pearson"), num_labels=1),
    "qqp": GlueTask(("question1", "question2"), ("f1", "accuracy")),
    "mnli": GlueTask(
        ("premise", "hypothesis"),
        num_labels=3,
        validation=(("_matched", "validation_matched"), ("_mismatched", "validation_mismatched")),
    ),
    "qnli": GlueTask(("question", "sentence")),
    "rte": GlueTask(("sentence1", "sentence2")),
    "wnli": GlueTask(("sentence1", "sentence2")),
}


def plan_glue(conf: GlueTaskConf, subject: Subject) -> list[Evaluation]:
    """One evaluation per task.

    Raises:
        UserError: see `check_fine_tuning`; or a task is unknown, or a local file is missing or has wrong columns.
    """
    tokenizer = check_fine_tuning(conf, subject)
    unknown = [name for name in conf.tasks if name not in TASKS]
    if unknown or not conf.tasks:
        raise UserError(f"task.tasks is {list(conf.tasks)}; GLUE has {', '.join(TASKS)}")
    return [_plan(name, conf, subject, tokenizer) for name in conf.tasks]


def _plan(name: str, conf: GlueTaskConf, subject: Subject, tokenizer: Tokenizer) -> Evaluation:
    task = TASKS[name]
    folder = None if subject.datasets_dir is None else subject.datasets_dir / "glue" / name
    source = DataSource(HUB_PATH, name, folder)
    splits = ["train", *(split for _, split in task.validation)]
    data = source.identity(splits)
    if folder is not None:
        for split in splits:
            load_examples(source, split, task)

    def measure(seed: int | None) -> dict[str, Any]:
        assert seed is not None
        encoded, truncated = {}, 0
        for split in splits:  # so that mistakes in them show before the model is fine-tuned
            encoded[split], longer = encode(load_examples(source, split, task), task, tokenizer, conf.max_length)
            truncated += longer
        counts = {split: len(examples["labels"]) for split, examples in encoded.items()}
        model = FineTuned(
            f"glue/{name}",
            AutoModelForSequenceClassification,
            subject,
            tokenizer,
            encoded["train"],
            conf,
            seed,
            num_labels=task.num_labels,
        )
        metrics: dict[str, float] = {}
        for suffix, split in task.validation:
            labels = np.array(encoded[split].pop("labels"))
            logits = np.stack([row for (row,) in model.predict(encoded[split], lambda output: (output.logits,))])
            predicted = logits[:, 0] if task.num_labels == 1 else logits.argmax(1)
            metrics |= {metric + suffix: METRICS[metric](predicted, labels) for metric in task.metrics}
        return {"metrics": metrics, "examples": counts, "truncated_examples": truncated}

    return Evaluation(
        name=f"glue/{name}",
        settings=subject.settings | recipe(conf) | {"data": data},
        seeds=conf.seeds,
        headline=dict.fromkeys(task.headline, True),
        measure=measure,
    )


def load_examples(source: DataSource, split: str, task: GlueTask) -> datasets.Dataset:
    """Loads the examples of a split, and checks their labels.

    Raises:
        UserError: see `DataSource.load`; or a label is not one of the task's.
    """
    examples = source.load(split, task.columns, ["label"])
    if wrong := [label for label in examples["label"][:] if not task.has_label(label)]:
        where = source.folder or source.identity([])
        allowed = "a finite number" if task.num_labels == 1 else f"one of 0 to {task.num_labels - 1}"
        raise UserError(
            f"{where}, split {split}: label {min(wrong, key=str)!r} is not {allowed}; give GLUE's labelled examples"
        )
    return examples


def encode(examples: datasets.Dataset, task: GlueTask, tokenizer: Tokenizer, max_length: int) -> tuple[Encoded, int]:
    """Tokenizes texts, or pairs of them, and their labels; also returns how many were cut to `max_length`."""
    texts = [examples[column][:] for column in task.columns]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    kind = float if task.num_labels == 1 else int
    return {**encoded.data, "labels": [kind(label) for label in examples["label"]]}, truncated
