"""Checks of the `reweighting` section in the plan of a run. Imports no torch."""

import shlex
from dataclasses import asdict
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.config import TrainConf
from autoscale_exp.data.store import TokenStore
from autoscale_exp.lm.checkpoint import Checkpoint
from autoscale_exp.mixture.sampler import MixtureSampler
from autoscale_exp.reweighting.checks import check_ado, check_doge, check_doremi
from autoscale_exp.reweighting.conf import AdoConf, DogeConf, DoremiConf
from autoscale_exp.runs.designs.single import SingleConf


def check_reweighting(conf: TrainConf, store: TokenStore, sampler: MixtureSampler) -> Checkpoint | None:
    """Checks the section against the run, and opens the model of the reference run if the section asks for one.

    Args:
        conf: the composed config.
        store: the token store of the run.
        sampler: the rows of the run with the weights of its mixture.

    Raises:
        UserError: the run cannot be reweighted this way; the message says why.
    """
    if conf.reweighting is None:
        return None
    if conf.stages or not isinstance(conf.design, SingleConf):
        given = "stages are set" if conf.stages else "the design is not single"
        raise UserError(
            f"reweighting={conf.reweighting.name} sets the weights of a run of one mixture, but {given}; use "
            "design=single without stages"
        )
    if unseen := [d for d, rows in zip(store.domains, sampler.row_counts, strict=True) if rows == 0]:
        raise UserError(
            f"reweighting={conf.reweighting.name} compares the losses of all domains, but the mixture has no row of "
            f"{', '.join(unseen)}; give each domain a weight or leave it out of data.domains"
        )
    if isinstance(conf.reweighting, AdoConf):
        num_steps = -(-sampler.num_rows // conf.model.optimizer.batch_rows)
        check_ado(conf.reweighting, num_steps=num_steps, num_workers=conf.num_workers)
        return None
    if isinstance(conf.reweighting, DogeConf):
        of_trainer = {key: str(conf.trainer.get(key)) for key in ("precision", "strategy")}
        check_doge(conf.reweighting, **of_trainer)
        return None
    assert isinstance(conf.reweighting, DoremiConf)
    return check_doremi(conf.reweighting, store, family=conf.model.family, command=_reference_command(conf, store))


def reweighting_identity(
    conf: TrainConf, sampler: MixtureSampler, reference: Checkpoint | None
) -> dict[str, Any] | None:
    """The part of the section that a result depends on, with the reference model named by the hash of its weights.

    With ADO a result also depends on `max_epochs`, if a domain that got all rows of the run would exceed it.
    """
    if conf.reweighting is None:
        return None
    content = {key: value for key, value in asdict(conf.reweighting).items() if key != "name"}
    if isinstance(conf.reweighting, AdoConf) and sampler.num_rows > conf.max_epochs * sampler.pool_rows.min():
        content["max_epochs"] = conf.max_epochs
    return content if reference is None else content | {"reference": reference.sha256}


def _reference_command(conf: TrainConf, store: TokenStore) -> str:
    arguments = [f"store={store.folder}", f"model={conf.model.name}", f"token_budget={conf.token_budget}"]
    return shlex.join(["python", "-m", "autoscale_exp.train", *arguments, "save_model=true"])
