"""The schemas of all jobs, and their registration with Hydra. This is the one place where config meets code.

Our own sections are dataclasses, so a wrong key or type fails before a job starts. A job's schema is here. A section's
schema is beside the code that it configures, in its package's conf.py or in the module of a design.
Third-party objects (`trainer`, `logger`) stay open and are built from their `_target_`.
Importing this module registers the schemas and resolvers, which sweep workers rely on.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from autoscale_exp.data.conf import DataConf, EnvironmentDataConf, FilesDataConf
from autoscale_exp.evaluation.conf import (
    GlueTaskConf,
    HarnessTaskConf,
    PerplexityTaskConf,
    SquadTaskConf,
    SubjectConf,
    TaskConf,
)
from autoscale_exp.laws.conf import BoundsConf, LawConf, ObjectiveConf, RequestConf
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf
from autoscale_exp.mixture.conf import MixtureConf, StageConf
from autoscale_exp.reporting.conf import PublishedConf
from autoscale_exp.resolvers import RESOLVERS
from autoscale_exp.reweighting.conf import AdoConf, DogeConf, DoremiConf, ReweightingConf
from autoscale_exp.runs.design import DesignConf
from autoscale_exp.runs.designs import DESIGNS
from autoscale_exp.runs.rival import RivalConf


@dataclass
class PrepareConf:
    """The `prepare` job: text to token store."""

    data: DataConf = MISSING
    num_workers: int = MISSING  # processes
    shard: int = 0  # of num_shards jobs that share the work: --multirun ... shard=range(0,8) num_shards=8
    num_shards: int = 1  # jobs that share the work


@dataclass
class PlanConf:
    """What to tell of runs before any of them starts."""

    only: bool = False  # tell what the runs will take, and start nothing
    accelerator: str | None = None  # what the runs will train on: a100, h100 or h200; null: this machine, measured
    price: float | None = None  # price of an hour of one accelerator, in any currency


@dataclass
class TrainingConf:
    """The keys that all runs of a study share."""

    name: str = MISSING  # name of the experiment
    output_dir: str = MISSING  # folder of the sweep, with its run table and runs/<run_name>/
    run_name: str = MISSING  # unique in the sweep; the name of the run's folder
    store: str | None = None  # folder of the token store, which replaces the `data` section; null: that of `data`
    data: DataConf = MISSING
    model: ModelConf = MISSING
    design: DesignConf = MISSING
    max_epochs: int = 4  # most epochs over a domain's pool
    micro_batch_rows: int | None = None  # rows per device and forward pass; null: the whole share of a step
    num_workers: int = 0  # data loader processes
    num_threads: int | None = None  # CPU threads of a run; null: torch's choice
    checkpoint_minutes: float = 5.0  # minutes between checkpoints for resuming
    retries: int = 0  # how often to try a run again from its checkpoint after an error, unless the config is at fault
    fail_fast: bool = False  # end a sweep at the first run that fails; the others keep their checkpoints
    save_model: bool = False  # keep the trained weights as a Hugging Face folder
    trainer: dict[str, Any] = MISSING  # arguments of Lightning's Trainer
    logger: dict[str, Any] | None = None  # a Lightning logger; null: none
    plan: PlanConf = field(default_factory=PlanConf)

    @property
    def store_folder(self) -> str:
        """The folder of the token store."""
        return self.data.store if self.store is None else self.store


@dataclass
class TrainConf(TrainingConf):
    """The `train` job: a single run, or one of a design; a multirun trains all of a design."""

    mixture: MixtureConf = MISSING
    search: str | None = None  # folder of a search whose fits give mixture=fitted and mixture=autoscale
    token_budget: int | None = None  # for design=single; a design over scales brings its own
    stages: list[StageConf] = field(default_factory=list)  # mixture, then these weights; for design=single
    reweighting: ReweightingConf | None = None  # sets the weights from the losses during the run; null: they are fixed
    objective: ObjectiveConf = MISSING  # objective of the validation losses, for the logger
    seed: int = 0  # seed of initialisation, order of rows and dropout
    num_validations: int = 1  # points of the validation curve, evenly spaced in tokens; the last is the end

    @property
    def mixture_name(self) -> str:
        """The name in results and run names: that of the mixture, or of the method that sets the weights."""
        return self.reweighting.name if self.reweighting else self.mixture.name


@dataclass
class StudyConf(TrainingConf):
    """The `study` job: prepare, search, fit, target runs, evaluation and report, as commands of the other jobs."""

    search: str | None = None  # folder of another study or search, whose proxy runs serve this one; null: its own
    rivals: dict[str, RivalConf] = field(default_factory=dict)  # the mixtures to compare: rivals=[uniform,fitted]
    objective: ObjectiveConf = MISSING
    bounds: BoundsConf = field(default_factory=BoundsConf)
    token_budgets: list[int] = MISSING  # of target runs; the last is the target, smaller ones tell what is saved
    seeds: list[int] = field(default_factory=list)  # seeds of target runs
    num_validations: int = 20  # points of the validation curve of a target run
    reference: str = "uniform"  # the rival that the others are compared with
    published: PublishedConf | None = None  # a published study whose numbers the report also shows; null: none
    evaluations: dict[str, list[str]] = field(default_factory=dict)  # for every target run: {glue: [task=glue, ...]}


@dataclass
class FitConf(RequestConf):
    """The `fit` job: run records, or known optima, to optima per scale and mixtures at any budget."""

    output_dir: str = MISSING  # folder of fit.json, law.json, mixtures/ and figures
    optima: str | None = None  # a CSV of known optima, instead of runs
    law: LawConf = MISSING
    objectives: list[str] = field(default_factory=list)  # more objectives, each into <output_dir>/<objective>/
    next_models: list[str] = field(default_factory=list)  # models of proposed runs; empty: those of the runs
    logger: dict[str, Any] = field(default_factory=dict)  # a Lightning logger; empty: none


@dataclass
class DesignJobConf:
    """The `design` job: proxy runs for another trainer."""

    format: str = MISSING  # megatron (Megatron-LM), nemo (NeMo's Megatron Bridge), olmo (OLMo-core) or torchtitan
    output_dir: str = MISSING  # folder of a file per run, design.csv and results.csv
    domains: list[str] = MISSING  # training domains
    paths: list[str] | None = None  # path of each domain's data, as the trainer takes it; null: the domains' names
    validation_domains: list[str] | None = None  # domains whose losses the trainer reports; null: the training domains
    unique_tokens: Any = None  # tokens of text: a list or {web: 5_000_000, code: 2_000_000}; null: no limit
    max_epochs: int = 4  # most epochs over these
    design: DesignConf = MISSING
    mixture: MixtureConf = MISSING  # base mixture of the design
    token_budget: int | None = None  # for design=single
    seed: int = 0  # seed of the runs; repeats of a base run have the next ones
    seq_len: int = MISSING  # tokens per sequence
    batch_rows: int = MISSING  # sequences per optimiser step, over all devices


@dataclass
class ImportRunsConf:
    """The `import_runs` job: a run table from other people's files."""

    source: str = MISSING  # regmix, olmix, sweep, wandb or design
    output: str = MISSING  # the run table to write
    mixtures: str | None = None  # CSV with a row of weights per run
    losses: str | None = None  # CSV with a row of losses per run
    tokens: int | None = None  # tokens that each of these runs was trained on
    domains: list[str] | None = None  # domains to import; null: all that the format's rules find in `mixtures`
    validation_domains: list[str] | None = None  # likewise, from `losses`
    folder: str | None = None  # folder of a sweep, or of the files of `design`
    project: str | None = None  # entity/project at W&B
    table: str | None = None  # CSV that W&B's table view exports, instead of project


@dataclass
class PredictConf:
    """The `predict` job: losses and objective of mixtures under a fitted law."""

    law_file: str = MISSING  # a law.json
    mixtures: Any = MISSING  # CSV with run and tokens.<domain> or weights.<domain>; or mixture files, a list or folder
    output: str = MISSING  # CSV to write
    tokens: int | None = None  # token budget of mixtures given as shares; null: the one they bring
    params: int | None = None  # model size to predict for; null: the largest of the runs
    objective: ObjectiveConf | None = None  # null: that of the fit beside law_file
    num_draws: int = 100  # draws of the law for intervals; with the number of the fit they are the same draws
    seed: int = 0  # seed of the draws


@dataclass
class ExportConf:
    """The `export` job: a mixture for another training stack."""

    mixture_file: str = MISSING  # a mixture file, as fit writes it
    # megatron: --data-path of Megatron-LM (tried with Megatron Core 0.16);
    # hugging_face: datasets.interleave_datasets (datasets 5.2);
    # mosaic: streams of MosaicML Streaming and LLM Foundry (Streaming 0.13);
    # litdata: CombinedStreamingDataset of LitData (0.2.76);
    # olmo: SourceMixtureList of OLMo-core (3.0; 2.3 and later)
    format: str = MISSING
    output: str | None = None  # file to write, which megatron takes as --data-args-path; null: the terminal


@dataclass
class EvaluateConf(SubjectConf):
    """The `evaluate` job: what a trained model is worth."""

    task: TaskConf = MISSING
    num_threads: int | None = None  # CPU threads; null: torch's choice
    logger: dict[str, Any] = field(default_factory=dict)  # a Lightning logger; empty: none


@dataclass
class ReportConf:
    """The `report` job: a search, its fit and its target runs as one page."""

    output_dir: str = MISSING  # folder of summary.json and report.html
    search: str = MISSING  # folder of a study, or of a search with its fit and target runs
    fit: str = MISSING  # folder of the fit
    autoscale: str | None = None  # folder of a fit with law=autoscale, to show beside `fit`
    targets: str = MISSING  # folder of the target runs
    reference: str = "uniform"  # the mixture that the others are compared with
    published: PublishedConf | None = None  # a published study whose numbers are also shown; null: none
    logger: dict[str, Any] = field(default_factory=dict)  # a Lightning logger; empty: none


@dataclass
class DashboardConf:
    """The `dashboard` job: a study's workspace and report at W&B."""

    sweep: str = MISSING  # folder of the study or sweep
    fit: str | None = None  # folder of its fit; null: none
    output: str = MISSING  # JSON file to write offline, with what W&B would get
    project: str = "autoscale_exp"  # project at W&B
    entity: str | None = None  # user or team at W&B
    offline: bool = True  # write `output`; false: save both pages at W&B


@dataclass
class StatusConf:
    """The `status` job: how far the runs of a sweep or study are."""

    sweep: str = MISSING  # folder of a sweep or study, whose runs may be on other machines
    watch: bool = False  # go on until all runs are finished
    seconds: float = 2.0  # seconds between two looks with watch=true


JOB_SCHEMAS = {
    "prepare": PrepareConf,
    "train": TrainConf,
    "study": StudyConf,
    "fit": FitConf,
    "report": ReportConf,
    "design": DesignJobConf,
    "import_runs": ImportRunsConf,
    "predict": PredictConf,
    "export": ExportConf,
    "evaluate": EvaluateConf,
    "dashboard": DashboardConf,
    "status": StatusConf,
}
SECTION_SCHEMAS = {
    "environment": EnvironmentDataConf,
    "files": FilesDataConf,
    "model": ModelConf,
    "masked_model": MaskedModelConf,
    "mixture": MixtureConf,
    "rival": RivalConf,
    "published": PublishedConf,
    "doremi": DoremiConf,
    "doge": DogeConf,
    "ado": AdoConf,
    "law": LawConf,
    "objective": ObjectiveConf,
    "perplexity": PerplexityTaskConf,
    "glue": GlueTaskConf,
    "squad": SquadTaskConf,
    "harness": HarnessTaskConf,
    **{name: schema for name, (schema, _) in DESIGNS.items()},
}


def _register() -> None:
    store = ConfigStore.instance()
    for job, schema in JOB_SCHEMAS.items():
        store.store(name=f"base_{job}", node=schema)
    for name, section in SECTION_SCHEMAS.items():
        store.store(group="schema", name=name, node=section)  # in a group of their own, so that none is a choice
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


_register()
