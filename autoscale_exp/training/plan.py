"""What a run will do, checked in full before it starts. Imports no torch, so a user's mistake is told at once."""

import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.by_domain import in_order
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.base.versioned import differing_keys
from autoscale_exp.base.weights import check_weights
from autoscale_exp.config import TrainConf
from autoscale_exp.data.conf import DataConf
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.lm.checkpoint import Checkpoint, check_initial
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf, OptimizerConf
from autoscale_exp.lm.families import FAMILIES
from autoscale_exp.lm.size import size_of
from autoscale_exp.mixture.allocation import allocate_stages
from autoscale_exp.mixture.sampler import MixtureSampler
from autoscale_exp.mixture.weights import resolve_weights
from autoscale_exp.reporting.next_steps import fit_again, next_command
from autoscale_exp.runs.design import RunRequest, RunSpec, matched_pool
from autoscale_exp.runs.designs import design_runs, select_run
from autoscale_exp.runs.designs.single import SingleConf
from autoscale_exp.runs.identity import IDENTITY, RunIdentity, read_identity
from autoscale_exp.runs.record import is_recorded, read_record
from autoscale_exp.training.claim import holder
from autoscale_exp.training.reweighting import check_reweighting, reweighting_identity

SCHEDULES = ("linear", "cosine")
STRATEGIES = ("auto", "ddp", "fsdp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
RESUME_POINT = "resume.ckpt"
# Where the text lay when the store was prepared does not matter to a run.
WHEREABOUTS = ("store", "path", "files", "sources", "stamps", "listing")


@dataclass(frozen=True)
class RunPlan:
    """All that defines one run, checked.

    Attributes:
        conf: the composed config.
        store: rows to train on.
        spec: which run of the design.
        requested_tokens: (S, K) tokens asked for in each stage, not in whole rows; without `stages`, S is 1.
        sampler: exact rows and their order; what reweighting=ado makes of them is known only at the end.
        seed: of initialisation, order and dropout.
        identity: what the result depends on.
        objective: that the logger is told of.
        initial: the model that training starts from, or None to start from scratch.
        reference: the model that reweighting=doremi compares with.
    """

    conf: TrainConf
    store: TokenStore
    spec: RunSpec
    requested_tokens: FloatArray
    sampler: MixtureSampler
    seed: int
    identity: RunIdentity
    objective: Objective
    initial: Checkpoint | None = None
    reference: Checkpoint | None = None

    @property
    def num_steps(self) -> int:
        """Optimiser steps."""
        return -(-self.sampler.num_rows // self.conf.model.optimizer.batch_rows)


def plan_run(conf: TrainConf, store: TokenStore) -> RunPlan:
    """Checks everything that can be checked before training starts.

    Raises:
        UserError: a section does not fit the store or itself; the message names key, value and remedy.
    """
    if conf.store is None:
        _check_data(conf.data, store)
    else:
        conf = replace(conf, data=store.manifest.data_conf(store.folder))
    check_model(conf.model, store)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", conf.run_name):
        raise UserError(f"run_name is '{conf.run_name}'; it may only have letters, digits, '_', '.' and '-'")
    check_optimizer(conf.model.optimizer)
    initial = check_initial(conf.model, store)
    _check_numbers(conf)
    check_strategy(conf)
    _check_compiler(conf)
    micro_batch(conf.model.optimizer.batch_rows, conf.micro_batch_rows, num_devices(conf))
    pool_rows = [store.num_rows("train", domain) for domain in store.domains]
    _check_mixture_file(conf)
    runs = design_runs(conf.design, RunRequest(store.domains, conf.token_budget, conf.mixture_name, conf.seed))
    spec = select_run(runs, conf.design.index)
    _check_size(conf.model, spec, store)
    target = conf.design.match_repetition
    seen_rows = pool_rows if target is None else matched_pool(pool_rows, spec.token_budget, target)
    num_rows = (target or spec.token_budget) / store.seq_len  # of the run whose repetition counts
    base = resolve_weights(conf.mixture, store.domains, pool_rows, num_rows)
    caps = conf.max_epochs * np.array(seen_rows) * store.seq_len / spec.token_budget
    weights = spec.weights(base, caps)
    requested_tokens, stage_counts = stages_of(conf, spec, weights, store)
    seed = conf.seed + spec.seed_offset
    try:
        sampler = MixtureSampler(
            store.domains,
            seen_rows,
            stage_counts,
            seed=seed,
            max_epochs=conf.max_epochs,
            unique_rows=pool_rows,
        )
    except UserError as error:
        raise UserError(f"run '{spec.run}': {error}") from None
    reference = check_reweighting(conf, store, sampler)
    asked = conf.objective
    objective = make_objective(asked.name, asked.metric, asked.weights, store.validation_domains, asked.aggregate)
    stage_rows = None
    if conf.stages:
        names = ["mixture", *(f"stages[{stage}]" for stage in range(len(conf.stages)))]
        by_domain = [dict(zip(store.domains, counts, strict=True)) for counts in stage_counts.tolist()]
        stage_rows = dict(zip(names, by_domain, strict=True))
    is_reduced = sampler.pool_rows.tolist() != pool_rows
    identity = RunIdentity(
        run=spec.run,
        rows=dict(zip(store.domains, sampler.row_counts.tolist(), strict=True)),
        seed=seed,
        store=store.fingerprint,
        model={key: value for key, value in asdict(conf.model).items() if key != "init_from"},
        num_validations=conf.num_validations,
        precision=str(conf.trainer.get("precision", "32-true")),
        stage_rows=stage_rows,
        pool_rows=dict(zip(store.domains, sampler.pool_rows.tolist(), strict=True)) if is_reduced else None,
        initial_weights=None if initial is None else initial.sha256,  # wherever they lie
        reweighting=reweighting_identity(conf, reference),
    )
    return RunPlan(conf, store, spec, requested_tokens, sampler, seed, identity, objective, initial, reference)


def _check_size(model: ModelConf, spec: RunSpec, store: TokenStore) -> None:
    """Checks that a run that was proposed for a model of some size is trained with one.

    Raises:
        UserError: it is not.
    """
    params = size_of(model, store.vocab_size, store.seq_len, half=False).params
    if spec.params not in (None, params):
        raise UserError(
            f"run '{spec.run}' is proposed for a model of {spec.params} parameters, but model '{model.name}' has "
            f"{params} on this store; choose the model of that size"
        )


def _check_mixture_file(conf: TrainConf) -> None:
    """Checks that the mixture file that a fit was to write is there.

    Raises:
        UserError: it is not; the message names those of other budgets, and the fit that writes it.
    """
    path = Path(conf.mixture.path or "")
    if conf.mixture.kind != "file" or path.is_file() or path.parent.name != "mixtures" or conf.token_budget is None:
        return
    there = ", ".join(sorted(other.name for other in path.parent.glob("*.yaml"))) or "no other"
    target = f"target_tokens=[{conf.token_budget:_}]"
    runs = [] if conf.search is None else [f"runs={conf.search}"]
    command = (fit_again(None, path.parent.parent, target) or next_command("fit", *runs, target)).removeprefix("next: ")
    raise UserError(f"mixture.path is '{path}', which does not exist (there is {there}); this fit writes it: {command}")


def store_of(conf: TrainConf, overrides: Sequence[str]) -> TokenStore:
    """Opens the token store of a run.

    Args:
        conf: the composed config.
        overrides: as typed, to tell a user who asks for data in two ways.

    Raises:
        UserError: the store cannot be opened, or `store` and keys of `data` are given.
    """
    given = [override for override in overrides if re.match(r"\+*data[.=]", override)]
    if conf.store is not None and given:
        raise UserError(
            f"store is '{conf.store}', which says all about the data, but {', '.join(given)} is given too; "
            "leave one of the two away"
        )
    return open_store(conf.data.store) if conf.store is None else open_store(conf.store, "store")


def _check_data(conf: DataConf, store: TokenStore) -> None:
    """Checks that the `data` section is the one that the store was made from."""
    if store.domains != conf.domains:
        raise UserError(
            f"data.domains is {conf.domains}, but the store '{store.folder}' was prepared with {store.domains}"
        )
    asked = {key: value for key, value in asdict(conf).items() if key not in WHEREABOUTS}
    stored = {key: value for key, value in store.manifest.config.items() if key not in WHEREABOUTS}
    if differences := differing_keys(stored, asked):
        raise UserError(
            f"the store '{store.folder}' was prepared with another config ({'; '.join(differences)}); "
            "set data.store to another folder and prepare it, or use the stored values"
        )


def stages_of(conf: TrainConf, spec: RunSpec, weights: FloatArray, store: TokenStore) -> tuple[FloatArray, Int64Array]:
    """(S, K) requested tokens and (S, K) rows of a run: those of the design, or of `mixture` and then `stages`.

    Raises:
        UserError: the design is not of a single run, or a stage's start or weights cannot be.
    """
    if not conf.stages:
        return spec.domain_tokens(weights)[None], spec.row_counts(weights, store.seq_len)[None]
    if not isinstance(conf.design, SingleConf):
        raise UserError(
            "stages are for design=single: a run of another design changes the domain amounts of one mixture, which "
            "has no stages; leave stages away or use design=single"
        )
    starts = [0, *(stage.start for stage in conf.stages)]
    of_stages = [
        check_weights(in_order(stage.weights, store.domains, key=key), store.domains, key=key)
        for key, stage in ((f"stages[{number}].weights", stage) for number, stage in enumerate(conf.stages))
    ]
    return allocate_stages(starts, [weights, *of_stages], spec.token_budget, store.seq_len)


def _check_numbers(conf: TrainConf) -> None:
    check_range({"seed": conf.seed}, 0, LARGEST_SEED)
    counts = ("max_epochs", "num_validations", "micro_batch_rows", "num_threads")
    check_range({key: getattr(conf, key) for key in counts}, 1)
    check_range({key: getattr(conf, key) for key in ("num_workers", "checkpoint_minutes", "retries")}, 0)


def _check_compiler(conf: TrainConf) -> None:
    compiler = os.environ.get("CXX", "g++")
    if conf.trainer.get("compile") and shutil.which(compiler) is None:
        raise UserError(
            f"trainer.compile is true, which needs a C++ compiler, but there is no '{compiler}'; install one, name "
            "another in the environment as CXX, or leave trainer.compile away"
        )


def num_devices(conf: TrainConf) -> int:
    """Devices over all nodes that the trainer section asks for.

    Raises:
        UserError: it asks for none, or for what is no number.
    """
    devices = conf.trainer.get("devices", 1)
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if devices in ("auto", -1, "-1"):
        import torch

        devices = max(1, torch.cuda.device_count())
    nodes = conf.trainer.get("num_nodes", 1)
    try:
        count = int(devices if not isinstance(devices, list) else len(devices)) * int(nodes)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise UserError(
            f"trainer.devices is {conf.trainer.get('devices', 1)} and trainer.num_nodes is {nodes}; devices are a "
            "number of at least 1, auto or -1 for all, or a list of indices, and nodes a number of at least 1"
        )
    return count


def is_started_elsewhere(conf: TrainConf) -> bool:
    """Whether torchrun, or srun with a task per device, has started this process as one of a run's."""
    of_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == num_devices(conf) > 1
    return "TORCHELASTIC_RUN_ID" in os.environ or of_srun


def is_first_process(conf: TrainConf) -> bool:
    """Whether this is the only process of a run, or the first of those for its devices: the one that holds the run."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    return num_devices(conf) == 1 or all(rank == "0" for rank in ranks)


def check_strategy(conf: TrainConf) -> None:
    """Checks that `trainer.strategy` is one that a run is known to train the same with as on one device.

    Raises:
        UserError: it is not, would start processes of its own, or needs more devices.
    """
    strategy = conf.trainer.get("strategy", "auto")
    named = strategy.get("_target_", "") if isinstance(strategy, dict) else str(strategy)
    if named not in STRATEGIES and not named.endswith(".DDPStrategy"):
        raise UserError(
            f"trainer.strategy is '{named}', which shards the model in a way of its own or starts processes of its "
            f"own; allowed are {', '.join(STRATEGIES)}, or a _target_ of Lightning's DDPStrategy"
        )
    if named == "fsdp" and num_devices(conf) == 1:
        raise UserError(
            "trainer.strategy is 'fsdp', by which several devices share a model, but the run has one; give more "
            "(trainer.devices), or leave the strategy away"
        )


def micro_batch(step_rows: int, micro_batch_rows: int | None, num_devices: int) -> tuple[int, int]:
    """Rows per device and forward pass, and forward passes per optimiser step.

    Raises:
        UserError: the rows of a step cannot be divided so.
    """
    rows = micro_batch_rows or step_rows // num_devices
    if rows < 1 or step_rows % (rows * num_devices):
        raise UserError(
            f"model.optimizer.batch_rows is {step_rows}, which {num_devices} devices x micro_batch_rows {rows} do not "
            "divide; choose micro_batch_rows so that they do"
        )
    return rows, step_rows // (rows * num_devices)


def check_model(conf: ModelConf, store: TokenStore) -> None:
    """Checks the `model` section, and that the store's rows suit it. A causal model takes rows of any tokenizer.

    Raises:
        UserError: a value is out of range, or a masked model lacks what it needs of the tokenizer.
    """
    if conf.family not in FAMILIES:
        raise UserError(f"model.family is '{conf.family}'; allowed are {', '.join(FAMILIES)}")
    if type(conf) is not FAMILIES[conf.family].schema:
        raise UserError(
            f"model.family is '{conf.family}', but model '{conf.name}' has the keys of another family; "
            "choose a model of that family, as in model=gpt2_tiny or model=bert_tiny"
        )
    check_range({f"model.{key}": getattr(conf, key) for key in ("n_layer", "n_embd", "n_head")}, 1)
    check_range({"model.dropout": conf.dropout}, 0, 1)
    if conf.n_embd % conf.n_head:
        raise UserError(
            f"model.n_embd is {conf.n_embd}, which model.n_head {conf.n_head} does not divide; change one of them"
        )
    if not isinstance(conf, MaskedModelConf):
        return
    if not 0 < conf.mask_probability < 1:
        raise UserError(f"model.mask_probability is {conf.mask_probability}; it must lie between 0 and 1")
    saved, name = store.folder / "tokenizer", store.manifest.tokenizer.name
    remedy = "prepare a store with data.tokenizer.name=wordpiece or a BERT tokenizer, as in data=environment_bert"
    if not json.loads((saved / "tokenizer_config.json").read_text(encoding="utf-8")).get("mask_token"):
        raise UserError(
            f"model '{conf.name}' predicts masked tokens, but the store's data.tokenizer.name is '{name}', which has "
            f"no mask token; {remedy}"
        )
    kind = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))["model"]["type"]
    if conf.whole_word_masking and kind != "WordPiece":
        raise UserError(
            f"model.whole_word_masking needs a WordPiece tokenizer, but the store's data.tokenizer.name is '{name}', "
            f"a {kind} tokenizer; {remedy}, or set model.whole_word_masking=false"
        )


def check_optimizer(conf: OptimizerConf) -> None:
    """Checks the `model.optimizer` section before training.

    Raises:
        UserError: a value is out of range; the message names key, value and what is allowed.
    """
    if conf.schedule not in SCHEDULES:
        raise UserError(f"model.optimizer.schedule is '{conf.schedule}'; allowed are {', '.join(SCHEDULES)}")
    if not 0 <= conf.warmup_fraction < 1:
        raise UserError(f"model.optimizer.warmup_fraction is {conf.warmup_fraction}; allowed are shares below 1")
    for key, value in (("lr", conf.lr), ("clip_norm", conf.clip_norm), ("batch_rows", conf.batch_rows)):
        if not 0 < value < math.inf:
            raise UserError(f"model.optimizer.{key} is {value}; it must be positive and finite")
    check_range({"model.optimizer.weight_decay": conf.weight_decay}, 0)
    if len(conf.betas) != 2 or not all(0 <= beta < 1 for beta in conf.betas):
        raise UserError(f"model.optimizer.betas is {conf.betas}; it must be two numbers from 0 to below 1")


def is_finished(plan: RunPlan, folder: Path) -> bool:
    """Whether `folder` holds the result of this very run.

    Raises:
        UserError: it holds the result or the resume point of a run with another config, or another process trains
            one there; names what differs.
    """
    finished = is_recorded(folder)
    if (finished or (folder / RESUME_POINT).exists() or holder(folder)) and (folder / IDENTITY).exists():
        stored = read_identity(folder)
        if differences := differing_keys(stored.content, plan.identity.content):
            of_rows = all(key.startswith("rows.") for key in differences)
            other = "output_dir or name"
            if of_rows and isinstance(plan.conf.design, SingleConf):
                other = "mixture.name, as the run there is of another mixture of this name"
            raise UserError(
                f"'{folder}' holds run '{stored.run}' with another config ({'; '.join(differences)}); "
                f"delete that folder, or choose another {other}"
            )
    if finished and read_record(folder).fingerprint != plan.identity.fingerprint:
        raise UserError(f"'{folder}' holds the result of another run; delete that folder, or choose another output_dir")
    return finished
