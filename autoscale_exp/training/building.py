"""The parts of a run, built from its plan: the model, the reweighting, and the files that they leave."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from autoscale_exp.base import atomic
from autoscale_exp.config import TrainConf
from autoscale_exp.data.tokenizer import Tokenizer, vocabulary_size
from autoscale_exp.lm.checkpoint import Checkpoint, load_model
from autoscale_exp.lm.families import FAMILIES
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.mixture.growing_sampler import GrowingSampler
from autoscale_exp.mixture.weights import write_mixture_file
from autoscale_exp.reweighting.ado import Ado
from autoscale_exp.reweighting.conf import AdoConf, DogeConf, DoremiConf
from autoscale_exp.reweighting.doge import Doge
from autoscale_exp.reweighting.doremi import Doremi
from autoscale_exp.runs.identity import write_identity
from autoscale_exp.runs.record import FAILURE, MIXTURE, PROGRESS, WeightsPoint
from autoscale_exp.training.plan import RESUME_POINT, RunPlan

Reweighting = Doremi | Doge | Ado | None  # None for a run that keeps the weights of its mixture


def begin_folder(folder: Path, plan: RunPlan) -> None:
    """Makes a run's folder ready for training, and removes what an interrupted or failed part has left there."""
    for left in (folder / FAILURE, folder / PROGRESS, *folder.glob(f".{RESUME_POINT}*.tmp")):
        left.unlink(missing_ok=True)
    write_identity(folder, plan.identity)


def keep_model(folder: Path, model: Any, weights: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Writes a trained model of transformers, with `weights` by name, into the folder of its run.

    Raises:
        UserError: the model cannot be written, or the disk is full.
    """
    transformers.utils.logging.disable_progress_bar()  # it would break the sweep's own display for a file or two
    with atomic.refusals_named(folder / "model"):
        try:
            model.save_pretrained(folder / "model", state_dict=weights)
        except SafetensorError as error:
            if (refused := re.search(r"\(os error (\d+)\)", str(error))) is None:
                raise
            raise OSError(number := int(refused[1]), os.strerror(number)) from error
        tokenizer.save_pretrained(folder / "model")


def build_module(plan: RunPlan, tokenizer: Tokenizer) -> LanguageModel:
    """Builds the model of a run, from scratch or with the weights of `model.init_from`."""
    if not plan.initial:
        return _module(plan, tokenizer)
    dropout: dict[str, Any] = dict.fromkeys(FAMILIES[plan.initial.family].dropouts, plan.conf.model.dropout)
    return _module(plan, tokenizer, _loaded(plan.initial, **dropout).train())


def make_fast(model: Any, conf: TrainConf) -> None:
    """Applies `trainer.compile` and `trainer.checkpoint_activations` to a model of transformers."""
    if conf.trainer.get("checkpoint_activations"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if conf.trainer.get("compile"):
        model.base_model.compile()


def _module(plan: RunPlan, tokenizer: Tokenizer, model: Any = None) -> LanguageModel:
    """The LightningModule of a run, around a model from scratch if none is given."""
    conf = plan.conf.model
    return FAMILIES[conf.family].module_class.for_tokenizer(
        conf, tokenizer, seq_len=plan.store.seq_len, num_steps=plan.num_steps, seed=plan.seed, model=model
    )


def _loaded(checkpoint: Checkpoint, **options: Any) -> Any:
    return load_model(checkpoint, getattr(transformers, FAMILIES[checkpoint.family].architecture), **options)


def build_reweighting(plan: RunPlan, tokenizer: Tokenizer) -> Reweighting:
    """Builds what sets the domain weights during a run; None if the run keeps those of its mixture."""
    conf = plan.conf.reweighting
    if isinstance(conf, AdoConf):
        prior = plan.requested_tokens[0] / plan.requested_tokens[0].sum()
        step_rows = plan.conf.model.optimizer.batch_rows
        growing = GrowingSampler(plan.sampler)
        return Ado(conf, growing, prior, domains=plan.store.domains, step_rows=step_rows, num_steps=plan.num_steps)
    shares = plan.sampler.row_counts / plan.sampler.num_rows
    if isinstance(conf, DogeConf):
        return Doge(conf, shares)
    if isinstance(conf, DoremiConf):
        assert plan.reference is not None
        reference = _module(plan, tokenizer, _loaded(plan.reference))  # its losses are of the same tokens as the run's
        return Doremi(conf, reference, shares, num_steps=plan.num_steps, vocab_size=vocabulary_size(tokenizer))
    return None


def as_realised(plan: RunPlan, reweighting: Reweighting) -> RunPlan:
    """The plan of a run that has ended, with the stages that reweighting made."""
    if not isinstance(reweighting, Ado):
        return plan
    requested_tokens = reweighting.requested_rows() * plan.store.seq_len
    return replace(plan, sampler=reweighting.sampler.sampler, requested_tokens=requested_tokens)


def write_mixture(folder: Path, plan: RunPlan, reweighting: Reweighting) -> None:
    """Writes the mixture that DoReMi or DoGE has found."""
    if isinstance(reweighting, Doremi | Doge):
        method = "DoReMi" if isinstance(reweighting, Doremi) else "DoGE"
        origin = f"mean weights of {plan.conf.run_name}, by {method}"
        write_mixture_file(folder / MIXTURE, plan.store.domains, reweighting.mean_weights, None, origin)


def weights_curve_of(plan: RunPlan, reweighting: Reweighting) -> list[WeightsPoint] | None:
    """The curve of DoReMi's weights over the tokens trained on; None for other runs."""
    if not isinstance(reweighting, Doremi):
        return None
    step_rows, domains = plan.conf.model.optimizer.batch_rows, plan.store.domains
    return [
        WeightsPoint(
            min(point["step"] * step_rows, plan.sampler.num_rows) * plan.store.seq_len,  # the last step may not be full
            dict(zip(domains, point["weights"], strict=True)),
            dict(zip(domains, point["excess_losses"], strict=True)),
        )
        for point in reweighting.curve
    ]
