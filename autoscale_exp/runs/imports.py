"""Run tables from other people's files. Mixtures and losses from two CSVs are joined by run, never by position."""

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.run_sheet import LEAST_TOKENS, SUM_TOLERANCE, rounded_shares
from autoscale_exp.runs.sheet import Sheet, read_sheet
from autoscale_exp.runs.trainer_files import DESIGN, RESULTS

log = logging.getLogger(__name__)

METADATA = ("run", "run_id", "name", "index")  # that Olmix's fit skips, beside columns without a name
# Of training logs and of W&B's and pandas' exports. A domain of such a name has to be asked for.
NO_DOMAIN = re.compile(
    r"_.*|Unnamed: \d+|lr|learning[ _]?rate|weight[ _]?decay|(trainer/)?(global_?)?steps?|epochs?|seed|tokens|params"
    r"|(train|training|eval|total)[/_. ]loss|loss|time(stamp)?|runtime|seconds|created|state|status|model|scale",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Choice:
    """The domains and validation domains to import; None for all that the format's rules find."""

    domains: Sequence[str] | None = None
    validation_domains: Sequence[str] | None = None


def join_regmix(mixtures: Path, losses: Path, tokens: int, choice: Choice | None = None) -> str:
    """Joins RegMix's two tables: `index` and train_<domain> weights; `index` and metric/<domain>_val_loss.

    RegMix's tables of the Pile have the bare names of domains. Source: github.com/sail-sg/regmix, data/ and
    data/pile/. See `join_mixtures_and_losses` for arguments, result and errors.
    """
    return join_mixtures_and_losses(
        mixtures,
        losses,
        tokens,
        keys=("index",),
        domain_pattern=r"train_(?P<domain>.+)",
        validation_pattern=r"(metric/)?(?P<domain>.+)_val_loss",
        choice=choice or Choice(),
    )


def join_olmix(ratios: Path, metrics: Path, tokens: int, choice: Choice | None = None) -> str:
    """Joins Olmix's ratios.csv and metrics.csv by `run` or `run_id`; they have a column per domain or metric.

    Source: github.com/allenai/olmix, docs/cli/fit.md. See `join_mixtures_and_losses`.
    """
    return join_mixtures_and_losses(
        ratios,
        metrics,
        tokens,
        keys=("run", "run_id"),
        domain_pattern=None,
        validation_pattern=None,
        choice=choice or Choice(),
    )


def join_mixtures_and_losses(
    mixtures: Path,
    losses: Path,
    tokens: int,
    *,
    keys: Sequence[str],
    domain_pattern: str | None,
    validation_pattern: str | None,
    choice: Choice,
) -> str:
    """Joins two CSVs into a run table.

    If columns of a file match its pattern, these are its domains. Else all columns are, except for metadata of the
    format, such as `index`, and other known columns, such as `lr`. The log says what is left out.

    Args:
        mixtures: a row per run with a key and a weight per domain.
        losses: a row per run with a key and a loss in nats per token per validation domain.
        tokens: tokens that every run was trained on.
        keys: columns that identify a run; each file has one of them.
        domain_pattern: pattern of a domain's column in `mixtures`; its group `domain` is the name.
        validation_pattern: pattern of a validation domain's column in `losses`, likewise.
        choice: the domains to take, instead of all.

    Returns:
        The run table as CSV text.

    Raises:
        UserError: a run is in one table only or twice in one, a column is missing or doubled, a cell is missing or no
            number, or weights do not sum to 1 within 0.01; the message names file and row.
    """
    check_range({"tokens": tokens}, LEAST_TOKENS)
    weights = _read_part(mixtures, "mixtures", keys, domain_pattern, choice.domains, "domains")
    values = _read_part(losses, "losses", keys, validation_pattern, choice.validation_domains, "validation_domains")
    alone = sorted(set(weights.runs) ^ set(values.runs))
    if alone:
        where = mixtures if alone[0] in weights.runs else losses
        raise UserError(
            f"run '{alone[0]}' is only in '{where}'; {len(alone)} runs are in one file only; remove or complete them"
        )
    totals = weights.numbers.sum(axis=1)
    shares = rounded_shares(weights.sheet, weights.numbers)
    log.info("weights summed to %.4f - %.4f and were divided by that", totals.min(), totals.max())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(f"tokens.{d}" for d in weights.domains), *(f"loss.{v}" for v in values.domains)])
    loss_rows = dict(zip(values.runs, values.numbers.tolist(), strict=True))
    for run, row in zip(weights.runs, (shares * tokens).tolist(), strict=True):
        writer.writerow([run, *map(repr, row), *map(repr, loss_rows[run])])
    return text.getvalue()


@dataclass(frozen=True)
class _Part:
    """One of the two files: (R,) runs, (D,) names of its domains, (R, D) numbers."""

    sheet: Sheet
    runs: list[str]
    domains: list[str]
    numbers: FloatArray


def _read_part(
    path: Path, config_key: str, keys: Sequence[str], pattern: str | None, chosen: Sequence[str] | None, choice_key: str
) -> _Part:
    sheet = read_sheet(path, config_key)
    key = next((key for key in keys if key in sheet.columns), None)
    if key is None:
        raise UserError(
            f"'{path}' has no column '{' or '.join(keys)}' to join by; it has {', '.join(sheet.columns) or 'none'}"
        )
    columns = _columns_by_domain(sheet, key, pattern, chosen, choice_key)
    if not columns:
        raise UserError(f"'{path}' has no column of a domain; it has {', '.join(sheet.columns)}")
    metadata = [name for name in sheet.columns if name in METADATA]
    read = f"{key} and {', '.join(columns.values())}; {choice_key}=[...] chooses others"
    sheet.tell_unread([*columns.values(), *metadata], read)
    runs = sheet.names(key)
    numbers = sheet.numbers(dict.fromkeys(columns.values(), 0.0))
    return _Part(sheet, runs, list(columns), np.stack([numbers[name] for name in columns.values()], axis=1))


def _columns_by_domain(
    sheet: Sheet, key: str, pattern: str | None, chosen: Sequence[str] | None, choice_key: str
) -> dict[str, str]:
    """Finds the column of each domain.

    Raises:
        UserError: two columns are of one domain, or a chosen domain has none.
    """
    names = [name for name in sheet.columns if name and name != key and name not in METADATA]
    pairs = [(match["domain"], name) for name in names if pattern and (match := re.fullmatch(pattern, name))]
    if not pairs:
        usable = [
            name for name in names if chosen is not None or not (NO_DOMAIN.fullmatch(name) or _counts(sheet, name))
        ]
        pairs = [(name, name) for name in usable]
    columns: dict[str, str] = {}
    for domain, name in pairs:
        if domain in columns and (chosen is None or domain in chosen):
            raise UserError(
                f"'{sheet.name}' has {domain} more than once, in '{columns[domain]}' and '{name}'; keep one"
            )
        columns[domain] = name
    if chosen is None:
        return columns
    columns |= {name: name for name in names if name not in columns}  # by a name that the rules do not take
    if unknown := [domain for domain in chosen if domain not in columns]:
        raise UserError(f"{choice_key} names '{unknown[0]}', but '{sheet.name}' has {', '.join(columns)}")
    return {domain: columns[domain] for domain in chosen}


def _counts(sheet: Sheet, column: str) -> bool:
    """Whether a column numbers the rows, from 0 or 1."""
    cells = sheet.cells(column) if sheet.columns.count(column) == 1 else []
    return len(cells) > 2 and any(cells == [str(start + r) for r in range(len(cells))] for start in (0, 1))


def join_design(folder: Path) -> str:
    """Makes a run table from the runs that `design` planned and another trainer reported: design.csv and results.csv.

    Runs without a loss are not trained yet. They are left out, and the log says which.

    Raises:
        UserError: a file cannot be read, no run is trained, one was not planned, or it was trained on other tokens.
    """
    plan, results = read_sheet(folder / DESIGN, "folder"), read_sheet(folder / RESULTS, "folder")
    columns = [name for name in results.columns if name.startswith(("loss.", "perplexity."))]
    cells = {name: dict(zip(results.names("run"), results.cells(name), strict=True)) for name in columns}
    planned = plan.names("run")
    if unknown := [run for run in results.names("run") if run not in planned]:
        raise UserError(f"'{results.name}' has run '{unknown[0]}', which '{plan.name}' does not plan; remove that row")
    trained = [run for run in planned if any(column.get(run) for column in cells.values())]
    if not trained:
        raise UserError(f"'{results.name}' has no loss of any run; fill in loss.<domain>, in nats per token")
    if waiting := [run for run in planned if run not in trained]:
        log.warning("runs left out, without losses: %s", ", ".join(waiting))
    kept = ["scale", "seed", *(f"tokens.{domain}" for domain in plan.suffixes("tokens"))]
    of_plan = {name: dict(zip(planned, plan.cells(name), strict=True)) for name in kept}
    if "tokens" in results.columns:
        _check_tokens(results, of_plan, trained)
    rows = [
        [run, *(of_plan[name][run] for name in kept), *(cells[name].get(run, "") for name in columns)]
        for run in trained
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["run", *kept, *columns], *rows])
    return text.getvalue()


def _check_tokens(results: Sheet, plan: Mapping[str, Mapping[str, str]], trained: Sequence[str]) -> None:
    """Checks the tokens that runs report against those planned; a blank cell reports none.

    Raises:
        UserError: they differ by more than `SUM_TOLERANCE`.
    """
    for run, cell in zip(results.names("run"), results.cells("tokens"), strict=True):
        asked = sum(float(column[run]) for name, column in plan.items() if name.startswith("tokens."))
        told = _number(cell) if cell else asked
        if run in trained and (isinstance(told, str) or abs(told / asked - 1) > SUM_TOLERANCE):
            raise UserError(
                f"'{results.name}', run '{run}': tokens is '{cell}', but {asked:,.0f} were planned; train it on these, "
                "or correct the cell"
            )


@dataclass(frozen=True)
class ExportedRun:
    """A row of the CSV that W&B's table view exports, with the attributes that `table_of_wandb_runs` needs."""

    name: str
    state: str
    config: dict[str, Any]
    summary: dict[str, Any]


def read_wandb_export(path: Path) -> list[ExportedRun]:
    """Reads the runs in a CSV that W&B's table view exports. Its columns are keys of both config and summary.

    Raises:
        UserError: the file cannot be read, or lacks names or states.
    """
    sheet = read_sheet(path, "table")
    if missing := [column for column in ("Name", "State") if column not in sheet.columns]:
        raise UserError(
            f"'{path}' has no column {' and '.join(missing)}; show them in W&B's table view, with tokens.<domain> and "
            "val/loss/<domain>, before you export it"
        )
    runs = []
    for _, cells in sheet.rows:
        row = {column: _number(cell) for column, cell in zip(sheet.columns, cells, strict=True) if cell}
        runs.append(ExportedRun(str(row.get("Name", "")), str(row.get("State", "")), row, row))
    return runs


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def table_of_wandb_runs(runs: Iterable[Any]) -> str:
    """Makes a run table from W&B runs that `train` logged, with tokens from their config and final `val/loss/<domain>`.

    Runs that are not finished, or have no tokens or no losses, such as those of `evaluate`, are left out, and the log
    says which.

    Args:
        runs: objects with `name`, `state`, `config` and `summary`, as `wandb.Api().runs(...)` or `read_wandb_export`
            gives them.

    Raises:
        UserError: no run is left, two have one name or other domains, or a value is no number; the message names it.
    """
    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {
        "not finished": [],
        "without config tokens.<domain> or summary val/loss/<domain>": [],
    }
    unfinished, others = left_out.values()
    for run in runs:
        if run.state != "finished":
            unfinished.append(run.name)
            continue
        tokens = _flat(run.config, "tokens")
        # Older runs have their losses as val/<domain>, and no other metric of validation.
        losses = _flat(run.summary, "val/loss") or {
            name: value for name, value in _flat(run.summary, "val").items() if name != "tokens"
        }
        if not tokens or not losses:
            others.append(run.name)
            continue
        fixed = {"run": run.name, "scale": run.config.get("scale", ""), "seed": run.config.get("seed", 0)}
        fixed |= {"params": run.config["params"]} if "params" in run.config else {}
        numbers = {f"tokens.{d}": n for d, n in tokens.items()} | {f"loss.{v}": x for v, x in losses.items()}
        for key, value in numbers.items():
            if not isinstance(value, int | float) or not math.isfinite(value):  # W&B writes "NaN" for one
                raise UserError(f"W&B run '{run.name}' has {key} {value}, which is no number; remove the run")
        if run.name in [row["run"] for row in rows]:
            raise UserError(f"two W&B runs are called '{run.name}'; rename or remove one of them")
        rows.append(fixed | numbers)
    for reason, names in left_out.items():
        if names:
            log.warning("W&B runs left out, %s: %s", reason, ", ".join(names))
    if not rows:
        raise UserError(
            "there is no finished W&B run of `train`, with config tokens.<domain> and summary val/loss/<domain>; train "
            "with logger=wandb, or give another project or table"
        )
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
