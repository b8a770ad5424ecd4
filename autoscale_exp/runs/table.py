"""The run table that laws are fitted to, and the CSV of a sweep with a row per finished run."""

import csv
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.record import RECORD, RunRecord, read_records
from autoscale_exp.runs.scales import group_by_label, group_by_tokens

log = logging.getLogger(__name__)

TABLE = "runs.csv"


@dataclass(frozen=True)
class RunTable:
    """Finished runs: what each was trained on, and its losses.

    Attributes:
        runs: (R,) unique names.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        domain_tokens: (R, K) tokens trained on.
        losses: (R, V) validation losses in nats per token.
        scales: (R,) labels of the runs' scales; None if the table has none.
        seeds: (R,) seeds; None if the table has none.
        params: (R,) model sizes, in parameters; None if the table has none.
        unique_tokens: (K,) tokens of each domain's text; None if unknown.
        pool_tokens: (R, K) the part of these that each run may see; more tokens repeat it. None if unknown.
    """

    runs: list[str]
    domains: list[str]
    validation_domains: list[str]
    domain_tokens: FloatArray
    losses: FloatArray
    scales: list[str] | None = None
    seeds: list[int] | None = None
    params: FloatArray | None = None
    unique_tokens: list[int] | None = None
    pool_tokens: FloatArray | None = None


def select_runs(table: RunTable, rows: Int64Array) -> RunTable:
    """The runs at `rows`, in that order."""
    return replace(
        table,
        runs=[table.runs[r] for r in rows],
        domain_tokens=table.domain_tokens[rows],
        losses=table.losses[rows],
        scales=None if table.scales is None else [table.scales[r] for r in rows],
        seeds=None if table.seeds is None else [table.seeds[r] for r in rows],
        params=None if table.params is None else table.params[rows],
        pool_tokens=None if table.pool_tokens is None else table.pool_tokens[rows],
    )


def has_sizes(table: RunTable) -> bool:
    """Whether the runs have models of several sizes."""
    return table.params is not None and bool((table.params != table.params[0]).any())


def scales_of(table: RunTable) -> list[Int64Array]:
    """Row indices of each scale, smallest first, by the labels of the column `scale` or else by the runs' tokens.

    Runs of different model sizes are of different scales, which are sorted by tokens times parameters.

    Raises:
        UserError: there are no labels, and the tokens do not tell either.
    """
    totals = table.domain_tokens.sum(axis=1)
    if table.params is not None and has_sizes(table):
        compute = totals * table.params
        of_sizes = [np.flatnonzero(table.params == params) for params in np.unique(table.params)]
        scales = [rows[scale] for rows in of_sizes for scale in scales_of(select_runs(table, rows))]
        return sorted(scales, key=lambda rows: float(np.median(compute[rows])))
    labels = table.scales
    groups = group_by_tokens(table.domain_tokens) if labels is None else group_by_label(labels)
    return sorted(groups, key=lambda rows: float(np.median(totals[rows])))


def table_of_records(records: Sequence[RunRecord]) -> RunTable:
    """Makes the run table of finished runs.

    Raises:
        UserError: a run has other domains than the first, or the name of another.
    """
    first = records[0]
    for record in records:
        if list(record.tokens) != list(first.tokens) or list(record.losses) != list(first.losses):
            raise UserError(
                f"run '{record.run}' has other domains than run '{first.run}'; fit each set of domains alone"
            )
    names = [record.run for record in records]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two of the runs are called '{doubled[0]}'; give every run a name of its own")
    for record in records:
        numbers = {f"tokens.{d}": n for d, n in record.tokens.items()} | {
            f"loss.{v}": x for v, x in record.losses.items()
        }
        for key, number in numbers.items():
            if not math.isfinite(number) or number < 0:
                raise UserError(f"run '{record.run}', {key}: {number} must be finite and at least 0; train it again")
        if not sum(record.tokens.values()):
            raise UserError(f"run '{record.run}' was trained on no tokens; train it again")
    return RunTable(
        runs=names,
        domains=list(first.tokens),
        validation_domains=list(first.losses),
        domain_tokens=np.array([list(record.tokens.values()) for record in records], dtype=np.float64),
        losses=np.array([list(record.losses.values()) for record in records]),
        scales=[record.scale for record in records],
        seeds=[record.seed for record in records],
        params=np.array([record.params for record in records], dtype=np.float64),
        unique_tokens=list(first.unique_tokens.values()),
        pool_tokens=np.array([list(record.pool_tokens.values()) for record in records], dtype=np.float64),
    )


def format_run_table(records: Sequence[RunRecord]) -> str:
    """Formats the run table of finished runs as CSV text, with losses in full precision."""
    table = table_of_records(records)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{kind}.{d}" for kind in ("tokens", "unique") for d in table.domains]
    columns += [f"loss.{v}" for v in table.validation_domains]
    writer.writerow(["run", "scale", "seed", "model", "params", "steps", *columns, "seconds"])
    for r in records:
        fixed = [r.run, r.scale, r.seed, r.model, r.params, r.steps]
        writer.writerow(
            [*fixed, *r.tokens.values(), *r.pool_tokens.values(), *(repr(x) for x in r.losses.values()), r.seconds]
        )
    return text.getvalue()


def write_run_table(sweep: Path) -> None:
    """Writes the run table of all runs of a sweep that are finished by now.

    Runs may end at the same time in several processes: each looks again after it has written, so that whoever writes
    last has seen every record.

    Raises:
        UserError: their records make no table; see `table_of_records`.
    """
    before: list[Path] = []
    while (finished := sorted(sweep.glob(f"runs/*/{RECORD}"))) != before:
        before = finished
        atomic.write_text(sweep / TABLE, format_run_table(read_records(sweep)))


def refresh_run_table(sweep: Path) -> None:
    """Writes the run table after a run. If there can be none, it logs why, since the finished run is not affected."""
    try:
        write_run_table(sweep)
    except UserError as error:
        log.warning("'%s' is not written: %s", sweep / TABLE, error)
