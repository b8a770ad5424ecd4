"""result.json, the record of a run. It is written last, so it is there only if the run is finished."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.versioned import parse, read_versioned, write_versioned

FORMAT = 2
RECORD = "result.json"
FAILURE = "failed.json"
PROGRESS = "progress.json"  # written once a second during a run
MIXTURE = "mixture.yaml"  # the mixture that a run with reweighting=doremi or doge has found
REMEDY = "delete the run's folder and train it again"


@dataclass(frozen=True)
class CurvePoint:
    """A point of the validation curve: losses by validation domain, in nats per token, after `tokens`."""

    tokens: int
    losses: dict[str, float]


@dataclass(frozen=True)
class StageRecord:
    """A stage of a run whose weights change: the tokens before it, and its own tokens by domain."""

    start: int
    requested_tokens: dict[str, float]
    planned_tokens: dict[str, int]


@dataclass(frozen=True)
class WeightsPoint:
    """A point of the curve of DoReMi's weights: weights of the loss and excess losses (nats per token), by domain."""

    tokens: int
    weights: dict[str, float]
    excess_losses: dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """The record of a finished run. Mappings by domain have the order of data.domains.

    Attributes:
        run: name of the run, unique in its sweep.
        experiment: name of its sweep.
        mixture: name of its mixture; of the design's base mixture for a proxy run; or of the method that sets weights.
        scale: label of `token_budget`.
        token_budget: tokens asked for; in a design, those of the scale's base run.
        seed: seed of initialisation, order and dropout.
        model: name of the model.
        params: parameters of the model.
        steps: optimiser steps.
        requested_weights: requested shares of the run's tokens; they sum to 1.
        requested_tokens: tokens asked for.
        tokens: tokens trained on, counted from the batches.
        unique_tokens: tokens in the store.
        pool_tokens: the part of these that the run may see.
        epochs: epochs over the pool.
        losses: final validation losses, nats per token, by validation domain.
        validation_curve: the losses during the run; the last point is the end.
        seconds: training time, over all parts of an interrupted run; for a packed run, its share of the pack's.
        tokens_per_second: over those seconds.
        finished: UTC time.
        versions: versions of the packages that decide the result.
        git_commit: commit of the checkout, with '+' if it had changes; None without a checkout.
        store: folder of the token store.
        fingerprint: hash of the run's identity; see `runs.identity`.
        stages: None for a run of one mixture.
        weights_curve: curve of the weights in a run with reweighting=doremi; None in others.
    """

    run: str
    experiment: str
    mixture: str
    scale: str
    token_budget: int
    seed: int
    model: str
    params: int
    steps: int
    requested_weights: dict[str, float]
    requested_tokens: dict[str, float]
    tokens: dict[str, int]
    unique_tokens: dict[str, int]
    pool_tokens: dict[str, int]
    epochs: dict[str, float]
    losses: dict[str, float]
    validation_curve: list[CurvePoint]
    seconds: float
    tokens_per_second: float
    finished: str
    versions: dict[str, str]
    git_commit: str | None
    store: str
    fingerprint: str
    stages: list[StageRecord] | None = None
    weights_curve: list[WeightsPoint] | None = None


def is_recorded(folder: Path) -> bool:
    """Whether the run in a folder is finished."""
    return (folder / RECORD).exists()


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes the record of the run in a folder."""
    write_versioned(folder / RECORD, record, FORMAT)


def read_record(folder: Path) -> RunRecord:
    """Reads the record of the run in a folder.

    Raises:
        UserError: it is missing, damaged or of an unknown format.
    """
    path = folder / RECORD
    return parse(path, read_versioned(path, FORMAT, REMEDY, {1: _with_requested_weights}), RunRecord, REMEDY)


def _with_requested_weights(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had only the requested tokens."""
    requested = content.get("requested_tokens") or {}
    total = sum(requested.values())
    return content | {"requested_weights": {domain: tokens / total for domain, tokens in requested.items()}}


def read_records(sweep: Path) -> list[RunRecord]:
    """Reads the records of all finished runs of a sweep, sorted by folder.

    Raises:
        UserError: there is none, or one is damaged.
    """
    records = [read_record(path.parent) for path in sorted(sweep.glob(f"runs/*/{RECORD}"))]
    if not records:
        raise UserError(
            f"'{sweep}' has no finished run (no runs/*/{RECORD}); run `python -m autoscale_exp.train` first"
        )
    return records


def write_failure(folder: Path, run: str, error: BaseException) -> None:
    """Marks a run as failed. Fits never read this, and the run is tried again when it is asked for again."""
    atomic.write_json(folder / FAILURE, {"run": run, "error": f"{type(error).__name__}: {error}"})


def read_failure(folder: Path) -> str:
    """Why the run in a folder failed."""
    path = folder / FAILURE
    return json.loads(path.read_text(encoding="utf-8"))["error"] if path.exists() else "it wrote no result"
