"""Checks of the `model` section before training. Imports no torch."""

import json
import math

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf, OptimizerConf
from autoscale_exp.lm.families import FAMILIES

SCHEDULES = ("linear", "cosine")


def check_model(conf: ModelConf, store: TokenStore) -> None:
    """Checks the `model` section, and that the store's rows suit the model. A causal model takes any rows.

    Raises:
        UserError: a value is out of range, or the tokenizer lacks what a masked model needs.
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
