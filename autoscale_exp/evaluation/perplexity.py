"""Loss and perplexity per domain on the validation rows of a token store.

Letters in shapes: B rows, T tokens per row, W tokens per window.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.data.manifest import MANIFEST
from autoscale_exp.data.store import TokenStore, open_store
from autoscale_exp.evaluation.conf import PerplexityTaskConf
from autoscale_exp.evaluation.evaluation_file import Evaluation
from autoscale_exp.evaluation.fine_tuning import find_device
from autoscale_exp.evaluation.subject import Subject
from autoscale_exp.lm.checkpoint import Checkpoint, load_model, load_tokenizer
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf, OptimizerConf
from autoscale_exp.lm.families import FAMILIES
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.lm.masking import row_keys


def plan_perplexity(conf: PerplexityTaskConf, subject: Subject) -> list[Evaluation]:
    """Plans the evaluation, and checks that the model can read the store.

    Raises:
        UserError: there is no such store, it is not that of the run or has another tokenizer, its rows are too long, or
            the stride does not fit.
    """
    checkpoint = subject.checkpoint
    store = _open(conf, subject)
    checkpoint.require_store(store, "run" if subject.run else "checkpoint", "task.store")
    _check(conf, checkpoint, store)
    section = model_conf(subject)
    settings: dict[str, Any] = {"store": store.fingerprint, "stride": conf.stride}
    if isinstance(section, MaskedModelConf):
        settings |= {"mask_probability": section.mask_probability, "whole_word_masking": section.whole_word_masking}

    def measure(_: int | None) -> dict[str, Any]:
        module = language_model(section, checkpoint).to(find_device(subject.device))
        losses = {
            domain: domain_loss(module, store, domain, checkpoint.positions, conf)
            for domain in store.validation_domains
        }
        metrics = {f"loss.{domain}": loss for domain, loss in losses.items()}
        return {"metrics": metrics | {f"perplexity.{domain}": math.exp(loss) for domain, loss in losses.items()}}

    return [
        Evaluation(
            name=f"perplexity/{store.manifest.config['name']}",
            settings=subject.settings | settings,
            seeds=[None],
            headline={f"perplexity.{domain}": False for domain in store.validation_domains},
            measure=measure,
        )
    ]


def _check(conf: PerplexityTaskConf, checkpoint: Checkpoint, store: TokenStore) -> None:
    """Checks that rows, windows and positions fit each other."""
    window = min(store.seq_len, checkpoint.positions)
    check_range({"task.batch_rows": conf.batch_rows}, 1)
    if conf.stride is not None and checkpoint.masked:
        raise UserError(f"task.stride is {conf.stride}, but '{checkpoint.folder}' is a masked model; leave it null")
    if conf.stride is not None and not 1 <= conf.stride < window:
        raise UserError(f"task.stride is {conf.stride}; allowed are 1 to {window - 1} in windows of {window} tokens")
    if conf.stride is not None and store.seq_len <= checkpoint.positions:
        raise UserError(
            f"task.stride is {conf.stride}, but rows of the store '{store.folder}' have {store.seq_len} tokens, which "
            f"one window of the model's {checkpoint.positions} positions holds; leave it null"
        )
    if store.seq_len > checkpoint.positions and conf.stride is None:
        remedy = "use a store of shorter rows" if checkpoint.masked else f"give task.stride=<1 to {window - 1}>"
        raise UserError(
            f"rows of the store '{store.folder}' have {store.seq_len} tokens, but '{checkpoint.folder}' has only "
            f"{checkpoint.positions} positions; {remedy}"
        )
    if checkpoint.masked and load_tokenizer(checkpoint).mask_token_id is None:
        raise UserError(f"the tokenizer of '{checkpoint.folder}' has no mask token, which a masked model needs")


def _open(conf: PerplexityTaskConf, subject: Subject) -> TokenStore:
    if conf.store is not None:
        return open_store(conf.store, "task.store")
    if subject.run is None or subject.identity is None:
        raise UserError("task.store is not set, and no run says which; give the token store to read validation rows of")
    remedy = "give task.store=<its folder>"
    if not (Path(subject.run.store) / MANIFEST).is_file():  # it may be relative to where the run was trained
        raise UserError(
            f"run '{subject.run.run}' was trained on the store '{subject.run.store}', which is not there; {remedy}"
        )
    store = open_store(subject.run.store, "task.store")
    if store.fingerprint != subject.identity.store:
        raise UserError(
            f"the store '{store.folder}' is no longer the one that run '{subject.run.run}' was trained on; {remedy}"
        )
    return store


def model_conf(subject: Subject) -> ModelConf:
    """A `model` section for the subject's family, with masking as in its run, or by default without a run.

    Its sizes are the smallest, because the checkpoint's model replaces the one that is made of it.
    """
    smallest = {"n_layer": 1, "n_embd": 1, "n_head": 1, "dropout": 0.0}
    section: dict[str, Any] = {"name": "checkpoint", "family": subject.checkpoint.family, **smallest}
    section["optimizer"] = OptimizerConf(lr=0.0, batch_rows=1)
    if not subject.checkpoint.masked:
        return ModelConf(**section)
    of_run = subject.identity.model if subject.identity else {}
    masking = {key: of_run[key] for key in ("mask_probability", "whole_word_masking") if key in of_run}
    return MaskedModelConf(**section, **masking)


def language_model(conf: ModelConf, checkpoint: Checkpoint) -> LanguageModel:
    """The LightningModule of the model's family, with the checkpoint's weights."""
    tokenizer = load_tokenizer(checkpoint)
    family = FAMILIES[checkpoint.family]
    model = load_model(checkpoint, getattr(transformers, family.architecture))
    module = family.module_class.for_tokenizer(conf, tokenizer, seq_len=1, num_steps=1, seed=0, model=model)
    return module.eval()


@torch.no_grad()
def domain_loss(
    module: LanguageModel, store: TokenStore, domain: str, positions: int, conf: PerplexityTaskConf
) -> float:
    """Mean loss in nats per predicted token over a domain's validation rows."""
    rows = store.rows("validation", domain)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for numbers in torch.arange(len(rows)).split(conf.batch_rows):
        tokens = torch.from_numpy(rows[numbers.numpy()].astype("int64")).to(module.device)
        keys = row_keys(numbers, "validation", domain).to(module.device)  # so that masks are those of training
        for losses in _row_losses(module, tokens, keys, positions, conf.stride):
            total += losses.sum(dtype=torch.float64).cpu()
            count += losses.numel()
    return float(total) / count


def _row_losses(
    module: LanguageModel, tokens: torch.Tensor, keys: torch.Tensor, positions: int, stride: int | None
) -> Iterator[torch.Tensor]:
    """Yields the losses of (B, T) tokens: of whole rows, or of the new tokens of each window.

    Windows of W tokens, the model's `positions`, begin every `stride` tokens. A token is predicted in the first window
    that has it, so from at least W - stride tokens before it. Every token but a row's first is predicted once.
    """
    if stride is None:
        yield module.token_losses(tokens, keys)
        return
    length, size, done = tokens.shape[1], positions, 1
    for start in range(0, length, stride):
        stop = min(start + size, length)
        window = tokens[:, start:stop]
        losses = module.token_losses(window, keys).view(len(tokens), -1)  # (B, W - 1), of tokens start + 1 to stop - 1
        yield losses[:, done - start - 1 :]
        done = stop
        if stop == length:
            return
