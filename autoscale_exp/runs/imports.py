"""Run tables from other people's files: mixtures in one CSV, losses in another, joined by run and never by position."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.table import read_text

SUM_TOLERANCE = 0.01  # of a mixture's weights about 1: RegMix's rows, rounded to .001, sum to 0.996 to 1.003


def join_regmix(mixtures: Path, losses: Path, tokens: int) -> tuple[str, str]:
    """RegMix's two tables: `index` and train_<domain> weights; `index` and metric/<domain>_val_loss.

    Source: github.com/sail-sg/regmix, data/. See `join_mixtures_and_losses` for arguments, result and errors.
    """
    return join_mixtures_and_losses(
        mixtures,
        losses,
        tokens,
        key="index",
        domain_of=lambda column: _strip(column, r"^train_"),
        validation_domain_of=lambda column: _strip(column, r"^metric/|_val_loss$"),
    )


def join_olmix(ratios: Path, metrics: Path, tokens: int) -> tuple[str, str]:
    """Olmix's ratios.csv and metrics.csv, joined by `run_id`; a `name` column is left out.

    Source: github.com/allenai/olmix, `fit` from CSV. See `join_mixtures_and_losses`.
    """
    return join_mixtures_and_losses(
        ratios, metrics, tokens, key="run_id", domain_of=lambda c: c, validation_domain_of=lambda c: c
    )


def join_mixtures_and_losses(
    mixtures: Path,
    losses: Path,
    tokens: int,
    *,
    key: str,
    domain_of: Callable[[str], str],
    validation_domain_of: Callable[[str], str],
) -> tuple[str, str]:
    """Joins two CSVs into a run table.

    Args:
        mixtures: a row per run with `key` and a weight per domain.
        losses: a row per run with `key` and a loss in nats per token per validation domain.
        tokens: that every run was trained on.
        key: column that identifies a run in both.
        domain_of: domain of a column of `mixtures`.
        validation_domain_of: validation domain of a column of `losses`.

    Returns:
        The run table as CSV text, and a sentence on what was done to the weights.

    Raises:
        UserError: a run is in one table only or twice in one, a cell is missing or no number, or weights do not sum to
            1 within 0.01; the message names file and row.
    """
    if tokens < 1:
        raise UserError(f"tokens is {tokens}; give the tokens that each run was trained on, at least 1")
    weight_rows, loss_rows = _read_keyed(mixtures, "mixtures", key), _read_keyed(losses, "losses", key)
    alone = sorted(set(weight_rows) ^ set(loss_rows))
    if alone:
        where = mixtures if alone[0] in weight_rows else losses
        raise UserError(
            f"run '{alone[0]}' stands only in '{where}'; {len(alone)} runs have no partner; remove these or add theirs"
        )
    domains = [column for column in next(iter(weight_rows.values())) if column not in (key, "name")]
    validation_domains = [column for column in next(iter(loss_rows.values())) if column not in (key, "name")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run"]
        + [f"tokens.{domain_of(column)}" for column in domains]
        + [f"loss.{validation_domain_of(column)}" for column in validation_domains]
    )
    sums = []
    for run, row in weight_rows.items():
        weights = [_number(mixtures, run, column, row[column]) for column in domains]
        total = sum(weights)
        if abs(total - 1) > SUM_TOLERANCE:
            raise UserError(f"'{mixtures}', run {run}: the weights sum to {total:.6g}, not to 1; correct them")
        sums.append(total)
        values = [_number(losses, run, column, loss_rows[run][column]) for column in validation_domains]
        writer.writerow([run, *(repr(weight / total * tokens) for weight in weights), *map(repr, values)])
    return (
        text.getvalue(),
        f"{len(sums)} runs; weights summed to {min(sums):.4f} - {max(sums):.4f} and were divided by that",
    )


def table_of_wandb_runs(runs: Iterable[Any]) -> str:
    """The run table of W&B runs that `train` logged: tokens from their config, final `val/<domain>` losses.

    Args:
        runs: objects with `name`, `state`, `config` and `summary`, as `wandb.Api().runs(...)` gives them.

    Raises:
        UserError: no run is finished, or one lacks tokens or losses; the message names it.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        if run.state != "finished":
            continue
        tokens = _flat(run.config, "tokens")
        losses = {name: value for name, value in _flat(run.summary, "val").items() if name != "tokens"}
        if not tokens or not losses:
            raise UserError(
                f"W&B run '{run.name}' has no config tokens.<domain> or no summary val/<domain>, "
                "which `train` logs; remove it from the project"
            )
        fixed = {"run": run.name, "scale": run.config.get("scale", ""), "seed": run.config.get("seed", 0)}
        rows.append(fixed | {f"tokens.{d}": n for d, n in tokens.items()} | {f"loss.{v}": x for v, x in losses.items()})
    if not rows:
        raise UserError("the W&B project has no finished run; train with logger=wandb, or give another project")
    columns = list(rows[0])
    for row in rows:
        if set(row) != set(columns):
            raise UserError(f"W&B run '{row['run']}' has other domains than '{rows[0]['run']}'; leave one of them out")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries under `prefix`, whether nested or written with '/' or '.'."""
    nested = dict(mapping.get(prefix) or {})
    written = {k[len(prefix) + 1 :]: v for k, v in mapping.items() if k.startswith((f"{prefix}/", f"{prefix}."))}
    return nested | written


def _read_keyed(path: Path, config_key: str, key: str) -> dict[str, dict[str, str]]:
    """Cells by column of every row of a CSV, by the row's `key`."""
    reader = csv.DictReader(io.StringIO(read_text(path, config_key), newline=""))
    rows: dict[str, dict[str, str]] = {}
    try:
        if key not in (reader.fieldnames or ()):
            raise UserError(
                f"'{path}' has no column '{key}' to join by; it has {', '.join(reader.fieldnames or ['none'])}"
            )
        for row in reader:
            if row[key] in rows:
                raise UserError(f"'{path}' has run '{row[key]}' more than once; keep one row of it")
            rows[row[key]] = row
    except csv.Error as error:
        raise UserError(f"'{path}' is no CSV: {error}; give a table with commas and a header") from None
    if not rows:
        raise UserError(f"'{path}' has no runs; it needs a header and a row per run")
    return rows


def _number(path: Path, run: str, column: str, cell: str | None) -> float:
    try:
        return float(cell or "")
    except ValueError:
        raise UserError(f"'{path}', run {run}, column {column}: '{cell}' is not a number; correct that cell") from None


def _strip(column: str, pattern: str) -> str:
    return re.sub(pattern, "", column)
