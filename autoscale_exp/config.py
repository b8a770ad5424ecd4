"""The schemas of all jobs: the one place where configuration meets code.

Our own sections are dataclasses, so a wrong key or type fails before a job starts; `to_typed` turns the composed
config into them. Third-party objects (`trainer`, `logger`) stay open and are built from their `_target_`.
Importing this module registers the schemas and resolvers with Hydra, which sweep workers rely on.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from autoscale_exp.mixture.weights import MixtureConf
from autoscale_exp.runs.design import DdoConf, DesignConf, SingleConf, budget_label, probes_of, select_probe

_INSTALLED = Path(__file__).parent / "conf"
# Looked for in the package first, so that a stranger's site-packages/conf is never picked up.
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parent.parent / "conf"


@dataclass
class TokenizerConf:
    """A tokenizer trained on the training split, or a Hugging Face tokenizer."""

    name: str = "bpe"  # "bpe" (byte-level) and "wordpiece" (BERT's, uncased) train one; else a Hub name or a folder
    vocab_size: int | None = None  # entries of a trained tokenizer; null for a Hugging Face tokenizer


@dataclass
class DataConf:
    """A set of domains and how their text becomes rows."""

    name: str = MISSING
    domains: list[str] = MISSING  # trained on; the order of every list of weights, bounds and columns
    held_out_domains: list[str] = field(default_factory=list)  # only validated on
    store: str = MISSING  # folder of the token store
    seq_len: int = MISSING  # tokens per row
    preparation: str = "packed"  # whole documents; or windows: 1,000 characters of each that has so many, as published
    min_characters: int = 1  # shorter documents are left out
    # Per domain; null: all; held out: this x validation_fraction. Each part of the files gives its share by size, so a
    # domain that is unevenly spread over files that it shares with others may get less.
    max_characters: int | None = None
    validation_fraction: float = MISSING  # of the documents or their groups, chosen by a hash, is held out
    validation_rows: int = MISSING  # rows per domain that are drawn from what is held out
    tokenizer: TokenizerConf = field(default_factory=TokenizerConf)


@dataclass
class EnvironmentDataConf(DataConf):
    """Text that the installed dependencies bring along; see data/environment.py."""


@dataclass
class FilesConf:
    """Where the documents of a domain are."""

    files: list[str] = field(default_factory=list)  # paths and globs under data.path; hf:// and https:// addresses
    file_list: str | None = None  # a file that names them, one per line
    text_field: str | None = None  # null: data.text_field
    keep: dict[str, Any] = field(
        default_factory=dict
    )  # {meta.language: en}: only documents with that, or one of a list


@dataclass
class FilesDataConf(DataConf):
    """Files of JSON lines, parquet or text, plain or compressed, on the disk or behind an address."""

    path: str | None = None  # folder; a domain for which no files are named has <domain>.jsonl or the like in it
    files: list[str] = field(default_factory=list)  # of all domains that name none of their own
    sources: dict[str, Any] = field(
        default_factory=dict
    )  # FilesConf by domain; Any, so that +data.sources.web... may begin one
    text_field: str = "text"  # keys joined by dots lead into nested fields
    group_field: str | None = None  # documents that share it stay on one side of the split; null: copies of a text do
    group_separator: str | None = None  # only the part of the group field before it counts


@dataclass
class OptimizerConf:
    """AdamW with linear warm-up, then decay to zero; weight decay spares biases and norms."""

    lr: float = MISSING
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1  # of the run's steps
    schedule: str = "linear"  # linear or cosine
    clip_norm: float = 1.0
    batch_rows: int = MISSING  # rows per optimiser step, over all devices and accumulation


@dataclass
class ModelConf:
    """Architecture and the optimiser settings that suit it."""

    name: str = MISSING
    family: str = MISSING  # gpt2 or bert
    n_layer: int = MISSING
    n_embd: int = MISSING
    n_head: int = MISSING
    dropout: float = MISSING
    optimizer: OptimizerConf = field(default_factory=OptimizerConf)
    init_from: str | None = None  # Hugging Face folder whose weights training starts from; null: from scratch


@dataclass
class MaskedModelConf(ModelConf):
    """A model that predicts masked tokens; see lm/masking.py."""

    mask_probability: float = 0.15  # share of a row's tokens that are predicted
    whole_word_masking: bool = False  # the tokens of a word are masked together; needs a WordPiece tokenizer


@dataclass
class PrepareConf:
    """The `prepare` job: text to token store."""

    data: DataConf = MISSING
    num_workers: int = MISSING  # processes
    shard: int = 0  # of num_shards jobs that share the work: --multirun ... shard=range(0,8) num_shards=8
    num_shards: int = 1


@dataclass
class StageConf:
    """Domain weights that take the place of `mixture` from some point of the run on."""

    start: int = MISSING  # tokens trained on before it
    weights: list[float] = MISSING  # in the order of data.domains


@dataclass
class TrainConf:
    """The `train` job: one run, or one probe of a design."""

    name: str = MISSING  # of the experiment
    output_dir: str = MISSING
    run_name: str = MISSING
    data: DataConf = MISSING
    model: ModelConf = MISSING
    mixture: MixtureConf = MISSING
    design: DesignConf = MISSING
    token_budget: int | None = None  # for design=single; a design over scales brings its own
    stages: list[StageConf] = field(default_factory=list)  # mixture, then these weights; for design=single
    seed: int = 0
    max_epochs: int = 4  # times that a domain's pool may be repeated
    num_validations: int = 1  # points of the validation curve, evenly spaced in tokens; the last is the end
    micro_batch_rows: int | None = None  # rows per device and forward pass; null: the whole share of a step
    num_workers: int = 0  # data loader processes
    num_threads: int | None = None  # CPU threads of the run; null: torch's choice
    checkpoint_minutes: float = 5.0  # between checkpoints for resumption
    save_model: bool = False  # keep the trained weights as a Hugging Face folder
    trainer: dict[str, Any] = MISSING
    logger: dict[str, Any] | None = None


@dataclass
class LawConf:
    """How losses are modelled; see laws/."""

    name: str = MISSING


@dataclass
class ObjectiveConf:
    """What is minimised: a mean, or the worst, over the validation domains of loss or of perplexity."""

    name: str = MISSING
    metric: str = MISSING  # loss (nats per token) or perplexity
    aggregate: str = "mean"  # mean or worst
    weights: dict[str, float] = field(default_factory=dict)  # +objective.weights={web: 0.7, code: 0.3}; none: equal
    kl_weight: float = 0.0  # times the divergence of the mixture from `prior`, added to the objective
    prior: list[float] | None = None  # weights in domain order; null: uniform
    no_worse_than_uniform: bool = False  # for no validation domain


@dataclass
class BoundsConf:
    """Limits of each domain's share of the budget: one number, or a list in domain order."""

    lower: Any = 0.0
    upper: Any = 1.0
    max_epochs: float | None = None  # a domain's unique tokens may be repeated so often at the target; null: no limit
    unique_tokens: list[int] | None = None  # in domain order; null: from the sweep's results
    groups: dict[str, Any] = field(default_factory=dict)  # +bounds.groups.<name>={domains: [...], upper: <share>}


@dataclass
class FitConf:
    """The `fit` job: run records, or known optima, to optima per scale and mixtures at any budget."""

    output_dir: str = MISSING
    runs: str | None = None  # a runs.csv or the folder of a sweep
    optima: str | None = None  # a CSV of known optima, instead of runs
    target_tokens: list[int] = field(default_factory=list)
    law: LawConf = MISSING
    objective: ObjectiveConf = MISSING
    bounds: BoundsConf = field(default_factory=BoundsConf)
    uncertainty: str = "intervals"  # or none, which is faster
    num_draws: int = 100  # fits, or draws of a fit, behind the intervals
    seed: int = 0


@dataclass
class ImportRunsConf:
    """The `import_runs` job: a run table from other people's files."""

    source: str = MISSING  # regmix, olmix, sweep or wandb
    output: str = MISSING  # the run table to write
    mixtures: str | None = None  # CSV with a row of weights per run
    losses: str | None = None  # CSV with a row of losses per run
    tokens: int | None = None  # that each of those runs was trained on
    folder: str | None = None  # of a sweep
    project: str | None = None  # entity/project at W&B


@dataclass
class PredictConf:
    """The `predict` job: losses of mixtures under a fitted law."""

    law: str = MISSING  # a law.json
    runs: str = MISSING  # CSV with columns run and tokens.<domain>
    output: str = MISSING  # CSV to write
    num_draws: int = 200  # for the spread of predictions
    seed: int = 0


@dataclass
class ExportConf:
    """The `export` job: a mixture for another training stack."""

    mixture: str = MISSING  # a mixture file
    format: str = MISSING  # megatron, hugging_face, mosaic, litdata or olmo
    output: str | None = None  # file to write; null: the terminal


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


@dataclass
class EvaluateConf:
    """The `evaluate` job: what a trained model is worth."""

    task: TaskConf = MISSING
    run: str | None = None  # folder of a finished run with save_model=true
    checkpoint: str | None = None  # or any Hugging Face folder
    output_dir: str | None = None  # of evaluation.json; null: the run's folder
    datasets_dir: str | None = None  # <datasets_dir>/glue/rte/train.jsonl and so on; null: the Hugging Face Hub
    device: str = "auto"  # a torch device; auto: the first GPU, or the CPU
    num_threads: int | None = None  # CPU threads; null: torch's choice
    name: str = MISSING  # of the experiment, for the logger
    run_name: str = MISSING  # of the run, for the logger
    logger: dict[str, Any] | None = None


@dataclass
class ReportConf:
    """The `report` job: a search, its fit and its target runs as one page."""

    output_dir: str = MISSING
    search: str = MISSING  # folder of the sweep
    fit: str = MISSING  # folder of the fit
    published: str | None = None  # folder of the published law's fit, to be shown beside it
    targets: str = MISSING  # folder of the target runs
    reference: str = "uniform"  # the mixture that the others are compared with


def _register() -> None:
    store = ConfigStore.instance()
    for name, schema in {
        "base_prepare": PrepareConf,
        "base_train": TrainConf,
        "base_fit": FitConf,
        "base_report": ReportConf,
        "base_import_runs": ImportRunsConf,
        "base_predict": PredictConf,
        "base_export": ExportConf,
        "base_evaluate": EvaluateConf,
    }.items():
        store.store(name=name, node=schema)
    # In a group of their own: `export mixture=<file>` must not be taken for a choice from a group named mixture.
    for name, schema in {
        "environment": EnvironmentDataConf,
        "files": FilesDataConf,
        "model": ModelConf,
        "masked_model": MaskedModelConf,
        "mixture": MixtureConf,
        "single": SingleConf,
        "ddo": DdoConf,
        "law": LawConf,
        "objective": ObjectiveConf,
        "perplexity": PerplexityTaskConf,
        "glue": GlueTaskConf,
        "squad": SquadTaskConf,
        "harness": HarnessTaskConf,
    }.items():
        store.store(group="schema", name=name, node=schema)
    resolvers: dict[str, Callable[..., Any]] = {
        "budget_label": budget_label,
        "design_size": _design_size,
        "folder_name": lambda *paths: Path(next((path for path in paths if path), "")).name,
        "num_cpus": lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "run_name": _run_name,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _design_size(design: Any, domains: Any) -> int:
    """How many probes a design has; a design of a single run has one whatever its budget."""
    typed: Any = OmegaConf.to_object(design)
    return len(probes_of(typed, list(domains), 1, "", 0))


def _run_name(design: Any, domains: Any, token_budget: int | None, mixture: str, seed: int) -> str:
    typed: Any = OmegaConf.to_object(design)
    probes = probes_of(typed, list(domains), token_budget, mixture, seed)
    return select_probe(probes, design.index).run


_register()


def to_typed(composed: Any) -> Any:
    """The dataclass that a composed config stands for.

    Raises:
        ValueError: a key was added to a section that does not have it.
    """
    typed = OmegaConf.to_object(composed)
    _check_keys(typed, "")
    return typed


def _check_keys(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_keys(item, f"{path}{index}.")
    if is_dataclass(value):
        known = [field.name for field in fields(value)]
        for key, item in vars(value).items():
            if key not in known:
                raise ValueError(unknown_key(path + key, known))
            _check_keys(item, f"{path}{key}.")


def unknown_key(path: str, known: Iterable[str]) -> str:
    """What to tell of a key that its section does not have."""
    return f"{path} is not known; allowed there are {', '.join(known)}"
