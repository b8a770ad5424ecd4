"""The `task` section of the `evaluate` job, and the keys that name the model."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class SubjectConf:
    """The model to evaluate, where results go, and where examples come from."""

    run: str | None = None  # folder of a finished run with save_model=true
    checkpoint: str | None = None  # or any Hugging Face folder
    output_dir: str | None = None  # folder of evaluation.json; null: the run's folder
    datasets_dir: str | None = None  # <datasets_dir>/glue/rte/train.jsonl and so on; null: the Hugging Face Hub
    device: str = "auto"  # a torch device; auto: the first GPU, or the CPU


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
    lr: float = MISSING  # peak learning rate
    batch_size: int = MISSING  # examples per step
    max_length: int = MISSING  # tokens of an input
    warmup_fraction: float = 0.1  # fraction of the steps; then linear decay to zero
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
    n_best: int = MISSING  # best starts and ends of answers to consider in a window
    max_answer_length: int = MISSING  # tokens


@dataclass
class HarnessTaskConf(TaskConf):
    """Tasks of the lm-evaluation-harness."""

    tasks: list[str] = MISSING  # names in the harness
    num_fewshot: int = 0  # examples before each question, where the task does not fix it
    limit: int | None = None  # examples per task, for trying out; null: all
    batch_size: int = 8
