"""The plan of a run, checked in full before training starts. Imports no torch, so that mistakes are told at once."""

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
from autoscale_exp.lm.checks import check_model, check_optimizer
from autoscale_exp.lm.conf import ModelConf
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
from autoscale_exp.training.parallelism import check_strategy, micro_batch, num_devices
from autoscale_exp.training.reweighting import check_reweighting, reweighting_identity

RESUME_POINT = "resume.ckpt"
# Keys of `data` that say where the text lay when the store was prepared, which does not matter to a run.
WHEREABOUTS = ("store", "path", "files", "sources", "stamps", "listing")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
# Arguments of Lightning's Trainer that a run sets, by the key that they follow from.
FOLLOWING = {
    "token_budget": ("max_steps", "max_epochs", "max_time", "limit_train_batches", "overfit_batches", "fast_dev_run"),
    "micro_batch_rows": ("accumulate_grad_batches",),
    "model.optimizer.clip_norm": ("gradient_clip_val", "gradient_clip_algorithm"),
    "num_validations": ("limit_val_batches",),
    "checkpoint_minutes": ("enable_checkpointing",),
    "output_dir": ("default_root_dir",),
    "logger": ("logger",),
    "": ("callbacks",),
}


@dataclass(frozen=True)
class RunPlan:
    """All that defines one run, checked.

    Attributes:
        conf: the composed config.
        store: the token store to train on.
        spec: the run of the design.
        requested_tokens: (S, K) tokens asked for in each stage, before rounding to rows; S is 1 without `stages`.
        sampler: the exact rows and their order. With reweighting=ado, the rows are known only at the end.
        seed: seed of initialisation, order and dropout.
        identity: all that the result depends on.
        objective: the objective to log.
        initial: the model that training starts from; None to start from scratch.
        reference: the model that reweighting=doremi compares with; else None.
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
        """Optimiser steps of the run."""
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
    _check_trainer(conf)
    micro_batch(conf.model.optimizer.batch_rows, conf.micro_batch_rows, num_devices(conf))
    _check_mixture_file(conf)
    runs = design_runs(conf.design, RunRequest(store.domains, conf.token_budget, conf.mixture_name, conf.seed))
    spec = select_run(runs, conf.design.index)
    _check_size(conf.model, spec, store)
    requested_tokens, sampler = _sample(conf, spec, store)
    reference = check_reweighting(conf, store, sampler)
    asked = conf.objective
    objective = make_objective(asked.name, asked.metric, asked.weights, store.validation_domains, asked.aggregate)
    identity = _identity(conf, spec, store, sampler, initial, reference)
    return RunPlan(conf, store, spec, requested_tokens, sampler, sampler.seed, identity, objective, initial, reference)


def _sample(conf: TrainConf, spec: RunSpec, store: TokenStore) -> tuple[FloatArray, MixtureSampler]:
    """The (S, K) tokens that a run asks for in each stage, and the exact rows that it gets.

    Raises:
        UserError: the mixture or the stages are not possible, or a domain has too little text.
    """
    pool_rows = [store.num_rows("train", domain) for domain in store.domains]
    target = conf.design.match_repetition
    seen_rows = pool_rows if target is None else matched_pool(pool_rows, spec.token_budget, target)
    num_rows = (target or spec.token_budget) / store.seq_len  # of the run whose repetition is matched
    base = resolve_weights(conf.mixture, store.domains, pool_rows, num_rows)
    caps = conf.max_epochs * np.array(seen_rows) * store.seq_len / spec.token_budget
    requested_tokens, stage_counts = stages_of(conf, spec, spec.weights(base, caps), store)
    try:
        sampler = MixtureSampler(
            store.domains,
            seen_rows,
            stage_counts,
            seed=conf.seed + spec.seed_offset,
            max_epochs=conf.max_epochs,
            unique_rows=pool_rows,
        )
    except UserError as error:
        raise UserError(f"run '{spec.run}': {error}") from None
    return requested_tokens, sampler


def _identity(
    conf: TrainConf,
    spec: RunSpec,
    store: TokenStore,
    sampler: MixtureSampler,
    initial: Checkpoint | None,
    reference: Checkpoint | None,
) -> RunIdentity:
    """All that the result of a run depends on."""
    stage_rows = None
    if conf.stages:
        names = ["mixture", *(f"stages[{stage}]" for stage in range(len(conf.stages)))]
        by_domain = [dict(zip(store.domains, counts, strict=True)) for counts in sampler.stage_counts.tolist()]
        stage_rows = dict(zip(names, by_domain, strict=True))
    pool_rows = dict(zip(store.domains, sampler.pool_rows.tolist(), strict=True))
    is_reduced = pool_rows != {domain: store.num_rows("train", domain) for domain in store.domains}
    return RunIdentity(
        run=spec.run,
        rows=dict(zip(store.domains, sampler.row_counts.tolist(), strict=True)),
        seed=sampler.seed,
        store=store.fingerprint,
        model={key: value for key, value in asdict(conf.model).items() if key != "init_from"},
        num_validations=conf.num_validations,
        precision=str(conf.trainer.get("precision", "32-true")),
        stage_rows=stage_rows,
        pool_rows=pool_rows if is_reduced else None,
        initial_weights=None if initial is None else initial.sha256,  # wherever the weights lie
        reweighting=reweighting_identity(conf, sampler, reference),
    )


def _check_size(model: ModelConf, spec: RunSpec, store: TokenStore) -> None:
    """Checks that a run that was proposed for a model size is trained at that size.

    Raises:
        UserError: the model has another size.
    """
    params = size_of(model, store.vocab_size, store.seq_len, half=False).params
    if spec.params not in (None, params):
        raise UserError(
            f"run '{spec.run}' is proposed for a model of {spec.params} parameters, but model '{model.name}' has "
            f"{params} on this store; choose a model of {spec.params} parameters"
        )


def _check_mixture_file(conf: TrainConf) -> None:
    """Checks that the mixture file of a fit is there.

    Raises:
        UserError: it is missing; the message names those of other budgets, and the fit that writes it.
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
        overrides: the overrides as typed.

    Raises:
        UserError: the store cannot be opened, or the overrides have both `store` and keys of `data`.
    """
    check_data_given_once(conf.store, overrides)
    return open_store(conf.store_folder, "data.store" if conf.store is None else "store")


def check_data_given_once(store: str | None, overrides: Sequence[str]) -> None:
    """Checks that a job that is given a token store is given no keys of `data` as well.

    Raises:
        UserError: it is; no such key would be heeded.
    """
    given = [override for override in overrides if re.match(r"\+*data[.=]", override)]
    if store is not None and given:
        raise UserError(
            f"store is '{store}', which says all about the data, but {', '.join(given)} is given too; "
            "leave out one of the two"
        )


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
    """Returns (S, K) requested tokens and (S, K) rows of a run: those of the design, or of `mixture` and `stages`.

    Raises:
        UserError: `stages` are set and the design is not `single`, or a stage's start or weights are invalid.
    """
    if not conf.stages:
        return spec.domain_tokens(weights)[None], spec.row_counts(weights, store.seq_len)[None]
    if not isinstance(conf.design, SingleConf):
        raise UserError(
            "stages are for design=single: the runs of other designs vary one mixture, which has no stages; leave out "
            "stages, or use design=single"
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


def _check_trainer(conf: TrainConf) -> None:
    """Checks that the `trainer` section has nothing that the run sets, and that what it needs is installed.

    Raises:
        UserError: it has, which would not be heeded; or the precision is unknown, or there is no compiler.
    """
    for key, arguments in FOLLOWING.items():
        for name in (name for name in arguments if name in conf.trainer):
            remedy = f"give {key}" if key else "leave it out"
            raise UserError(f"trainer.{name} is {conf.trainer[name]}, but a run sets it itself; {remedy}")
    precision = conf.trainer.get("precision")
    if precision not in (None, *PRECISIONS):  # None with a plugin for it
        raise UserError(f"trainer.precision is '{precision}'; it can be {', '.join(PRECISIONS)}")
    compiler = os.environ.get("CXX", "g++")
    if conf.trainer.get("compile") and shutil.which(compiler) is None:
        raise UserError(
            f"trainer.compile is true, which needs a C++ compiler, but there is no '{compiler}'; install one, name "
            "another in the environment variable CXX, or leave out trainer.compile"
        )


def is_finished(plan: RunPlan, folder: Path) -> bool:
    """Whether `folder` holds the result of this very run.

    Raises:
        UserError: a run with another config has its result or resume point there, or is being trained there; the
            message names the keys that differ.
    """
    finished = is_recorded(folder)
    if (finished or (folder / RESUME_POINT).exists() or holder(folder)) and (folder / IDENTITY).exists():
        stored = read_identity(folder)
        if differences := differing_keys(stored.content, plan.identity.content):
            of_rows = all(key.startswith("rows.") for key in differences)
            other = "output_dir or name"
            if of_rows and isinstance(plan.conf.design, SingleConf):
                other = "mixture.name, as the run there has another mixture of this name"
            raise UserError(
                f"'{folder}' holds run '{stored.run}' with another config ({'; '.join(differences)}); "
                f"delete that folder, or choose another {other}"
            )
    if finished and read_record(folder).fingerprint != plan.identity.fingerprint:
        raise UserError(f"'{folder}' holds the result of another run; delete that folder, or choose another output_dir")
    return finished
