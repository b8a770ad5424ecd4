"""The `task` section: what the `evaluate` job measures."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class TaskConf:
    """What the `evaluate` job measures; see evaluation/."""

    name: str = MISSING  # perplexity, glue, squad or harness


@dataclass
class PerplexityTaskConf(TaskConf):
    """Loss and perplexity per domain on the validation rows of a token store."""

    store: str | None = None  # folder of the token store; null: the run's own
    stride: int | None = None  # tokens from one window of the model's positions to the next; null: whole rows
    batch_rows: int = 64  # rows per forward pass


@dataclass
class FineTuningConf(TaskConf):
    """Fine-tuning of a masked model with a new head, once per seed."""

    seeds: list[int] = MISSING
    epochs: int = MISSING
    lr: float = MISSING  # at its peak
    batch_size: int = MISSING  # examples per step
    max_length: int = MISSING  # tokens of an input
    warmup_fraction: float = 0.1  # of the steps; then linear decay to zero
    weight_decay: float = 0.01
    bf16: bool = False  # mixed precision


@dataclass
class GlueTaskConf(FineTuningConf):
    """GLUE."""

    tasks: list[str] = MISSING


@dataclass
class SquadTaskConf(FineTuningConf):
    """SQuAD v1.1."""

    stride: int = MISSING  # tokens from one window of a paragraph to the next
    n_best: int = MISSING  # starts, and ends, of answers that are considered in a window
    max_answer_length: int = MISSING  # tokens


@dataclass
class HarnessTaskConf(TaskConf):
    """Tasks of the lm-evaluation-harness."""

    tasks: list[str] = MISSING  # names in the harness
    num_fewshot: int = 0  # examples before each question, where the task does not fix it
    limit: int | None = None  # of examples per task, for trying out; null: all
    batch_size: int = 8
