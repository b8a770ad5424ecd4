"""Reads run tables and known optima: a CSV of any origin, checked cell by cell, or a sweep's folder."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.weights import check_weights
from autoscale_exp.runs.record import RECORD, read_records
from autoscale_exp.runs.sheet import PREFIXES, Sheet, parse_sheet, read_sheet
from autoscale_exp.runs.sweep_folder import remarks_on
from autoscale_exp.runs.table import TABLE, RunTable, table_of_records

log = logging.getLogger(__name__)

LEAST_TOKENS = 1000  # of a run; a smaller number is a share, a percentage or a number of millions
SUM_TOLERANCE = 0.01  # by which shares may miss a sum of 1: RegMix's rows, rounded to .001, sum to 0.996 to 1.003
LARGEST_LOSS = 12.5  # nats per token; a model that knows nothing needs a vocabulary of 268 thousand to reach it
OPTIONAL_NUMBERS = {"seed": 0.0, "params": 1.0}  # optional columns, with the least number allowed in each
OWN_COLUMNS = ("model", "params", "steps", "seconds")  # that `train` writes for people
READ_COLUMNS = "run, scale, seed, params, tokens.<domain>, unique.<domain>, loss.<domain> or perplexity.<domain>"


def read_runs(path: Path) -> RunTable:
    """Reads the runs of a sweep's folder or of a run table, and logs what is odd about them.

    Raises:
        UserError: see `parse_run_table`; or the path does not exist, or the folder has no finished run.
    """
    if path.is_dir():
        records = read_records(path)
        for remark in remarks_on(path, records):
            log.warning("'%s': %s", path, remark)
        return table_of_records(records)
    table = table_of_sheet(read_sheet(path, "runs"))
    if path.name == TABLE:
        finished = {record.parent.name for record in path.parent.glob(f"runs/*/{RECORD}")}
        if missing := sorted(finished - set(table.runs)):
            named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            remedy = f"runs={path.parent} reads all of them"
            log.warning("'%s' lacks %d finished runs of its folder (%s); %s", path, len(missing), named, remedy)
    return table


def parse_run_table(text: str, name: str) -> RunTable:
    """Parses a run table, one row per finished run; `name` says in messages where it came from.

    Columns: `run`; `tokens.<domain>` for each training domain, or `tokens` and shares `weights.<domain>`;
    `loss.<validation domain>` in nats per token or `perplexity.<validation domain>`; optional `scale`,
    `seed`, `params` and `unique.<domain>`, the tokens of a domain's text, which more tokens repeat.
    Other columns are left out, and the log says which.

    Raises:
        UserError: a column is missing or doubled, or an entry is missing, negative, not finite or a duplicate;
            the message names the row and the column.
    """
    return table_of_sheet(parse_sheet(text, name))


def table_of_sheet(sheet: Sheet) -> RunTable:
    """The run table in a sheet; see `parse_run_table`."""
    _check_columns(sheet)
    metric = "loss" if sheet.suffixes("loss") else "perplexity"
    validation_domains = sheet.suffixes(metric)
    least = token_columns(sheet) | {f"{metric}.{v}": 0.0 if metric == "loss" else 1.0 for v in validation_domains}
    has_scale = "scale" in sheet.columns and any(sheet.cells("scale"))
    has_params = "params" in sheet.columns and any(sheet.cells("params"))
    optional = {"scale": has_scale, "seed": "seed" in sheet.columns, "params": has_params}
    fixed = ["run", *(column for column, is_there in optional.items() if is_there)]
    least |= dict.fromkeys((f"unique.{d}" for d in sheet.suffixes("unique")), 0.0)
    sheet.tell_unread([*least, *fixed, "scale", *OWN_COLUMNS], READ_COLUMNS)
    runs = sheet.names("run")
    numbers = sheet.numbers(least | {c: OPTIONAL_NUMBERS[c] for c in fixed if c in OPTIONAL_NUMBERS})
    domains, tokens = domain_tokens(sheet, numbers)
    values = np.stack([numbers[f"{metric}.{v}"] for v in validation_domains], axis=1)
    losses = values if metric == "loss" else np.log(values)
    _check_losses(sheet, validation_domains, losses, metric)
    _tell_copies(sheet, runs, np.hstack([tokens, losses]))
    pools = _pool_tokens(sheet, numbers, domains, tokens)
    return RunTable(
        runs=runs,
        domains=domains,
        validation_domains=validation_domains,
        domain_tokens=tokens,
        losses=losses,
        scales=_scale_labels(sheet) if has_scale else None,
        seeds=_seeds(sheet, numbers["seed"]) if "seed" in fixed else None,
        params=numbers["params"] if has_params else None,
        unique_tokens=None if pools is None else [round(most) for most in pools.max(axis=0).tolist()],
        pool_tokens=pools,
    )


def token_columns(sheet: Sheet) -> dict[str, float]:
    """Finds the columns that say what runs were trained on, each with the least number allowed in it.

    Raises:
        UserError: there are none, of fewer than two domains, or both tokens and shares.
    """
    shares, tokens = sheet.suffixes("weights"), sheet.suffixes("tokens")
    if shares and tokens:
        raise UserError(f"'{sheet.name}' has columns tokens.* and weights.*; keep one kind of the two")
    if len(shares or tokens) < 2:
        raise UserError(
            f"'{sheet.name}' needs a column tokens.<domain> for each of at least two training domains; its columns "
            f"are {', '.join(name or '(no name)' for name in sheet.columns)}"
        )
    columns = [f"weights.{d}" for d in shares] + ["tokens"] * bool(shares) + [f"tokens.{d}" for d in tokens]
    return dict.fromkeys(columns, 0.0)


def domain_tokens(sheet: Sheet, numbers: Mapping[str, FloatArray]) -> tuple[list[str], FloatArray]:
    """Returns (K,) domains and (R, K) tokens from the numbers of `token_columns`.

    Raises:
        UserError: a row's shares do not sum to 1, or it has too few tokens to be a run.
    """
    shares = sheet.suffixes("weights")
    domains = shares or sheet.suffixes("tokens")
    if shares:
        weights = rounded_shares(sheet, np.stack([numbers[f"weights.{d}"] for d in shares], axis=1))
        tokens = weights * numbers["tokens"][:, None]
    else:
        tokens = np.stack([numbers[f"tokens.{d}"] for d in domains], axis=1)
    for (number, _), total in zip(sheet.rows, tokens.sum(axis=1), strict=True):
        if total == 0:
            raise UserError(
                f"'{sheet.name}', row {number}: all tokens are 0; a run must have been trained on something"
            )
        if total < LEAST_TOKENS:
            raise UserError(
                f"'{sheet.name}', row {number}: {total:.6g} tokens in all, but a run has at least {LEAST_TOKENS}; if "
                "these are shares, name the columns weights.<domain> and add a column tokens with the tokens of each "
                "run; if they are millions or billions, write them out"
            )
    return domains, tokens


def rounded_shares(sheet: Sheet, weights: FloatArray) -> FloatArray:
    """Returns (R, K) shares that sum to 1, from shares that a table may have rounded.

    Raises:
        UserError: a row's sum differs from 1 by more than 0.01.
    """
    totals = weights.sum(axis=1)
    for (number, _), total in zip(sheet.rows, totals, strict=True):
        if abs(total - 1) > SUM_TOLERANCE:
            raise UserError(f"'{sheet.name}', row {number}: the weights sum to {total:.6g}, not to 1; correct them")
    return weights / totals[:, None]


def read_optima(path: Path) -> tuple[list[str], list[int], FloatArray]:
    """Reads known optima: a CSV with columns `tokens` and `weights.<domain>`, one row per token budget.

    Returns:
        (K,) domains, (S,) budgets and (S, K) weights.

    Raises:
        UserError: a column or a number is missing, or weights are not shares of 1; names row and column.
    """
    sheet = read_sheet(path, "optima")
    domains = sheet.suffixes("weights")
    if "tokens" not in sheet.columns or len(domains) < 2:
        raise UserError(
            f"'{path}' needs the columns tokens and weights.<domain>, but has {', '.join(sheet.columns) or 'none'}"
        )
    least = {"tokens": 1.0, **dict.fromkeys((f"weights.{d}" for d in domains), 0.0)}
    sheet.tell_unread(least, "tokens and weights.<domain>")
    numbers = sheet.numbers(least)
    weights = np.stack([numbers[f"weights.{d}"] for d in domains], axis=1)
    for (number, _), row in zip(sheet.rows, weights, strict=True):
        check_weights(row.tolist(), domains, key=f"'{path}', row {number}: the weights")
    return domains, [round(budget) for budget in numbers["tokens"].tolist()], weights / weights.sum(axis=1)[:, None]


def _check_columns(sheet: Sheet) -> None:
    if "run" not in sheet.columns:
        raise UserError(f"'{sheet.name}' has no column 'run'; its columns are {', '.join(sheet.columns)}")
    for name in sheet.columns:
        near = re.match(r"(tokens?|loss(es)?|ppl|perplexit(y|ies)|(weight|share)s?)\.", name, re.IGNORECASE)
        if near and not name.startswith(tuple(f"{prefix}." for prefix in PREFIXES)):
            raise UserError(f"'{sheet.name}' has column '{name}'; allowed are tokens.*, loss.* and perplexity.*")
    if sheet.suffixes("weights") and "tokens" not in sheet.columns:
        raise UserError(f"'{sheet.name}' has columns weights.* and needs a column tokens with the tokens of each run")
    if bool(sheet.suffixes("loss")) == bool(sheet.suffixes("perplexity")):
        raise UserError(
            f"'{sheet.name}' needs columns loss.<validation domain> (nats per token) or perplexity.<validation "
            "domain>, one kind of the two"
        )


def _check_losses(sheet: Sheet, validation_domains: Sequence[str], losses: FloatArray, metric: str) -> None:
    for domain, least in zip(validation_domains, losses.min(axis=0).tolist(), strict=True):
        if least > LARGEST_LOSS:
            raise UserError(
                f"'{sheet.name}', column {metric}.{domain}: no run is below {least:.6g} nats per token, which is no "
                f"language model's loss; name the column perplexity.{domain} if it is one, or leave it out"
            )


def _tell_copies(sheet: Sheet, runs: Sequence[str], numbers: FloatArray) -> None:
    """Says which runs have the same tokens and losses to the last digit, as no two runs have."""
    first: dict[bytes, str] = {}
    for run, row in zip(runs, numbers, strict=True):
        if (before := first.setdefault(row.tobytes(), run)) != run:
            log.warning(
                "'%s': run '%s' has the tokens and losses of run '%s' to the last digit; if it is the same run, leave "
                "it out, because copies make the runs look free of noise",
                sheet.name,
                run,
                before,
            )


def _pool_tokens(
    sheet: Sheet, numbers: Mapping[str, FloatArray], domains: Sequence[str], tokens: FloatArray
) -> FloatArray | None:
    """(R, K) tokens of text that runs may see; None if no column tells."""
    named = sheet.suffixes("unique")
    if not named:
        return None
    if odd := sorted(set(named) ^ set(domains)):
        raise UserError(
            f"'{sheet.name}' has columns unique.* for {', '.join(named)}, and trains on {', '.join(domains)}; give one "
            f"for each training domain ('{odd[0]}' is in only one of the two)"
        )
    pools = np.stack([numbers[f"unique.{d}"] for d in domains], axis=1)
    for row, k in np.argwhere((pools < 1) & (tokens > 0)):
        raise UserError(
            f"'{sheet.name}', row {sheet.rows[row][0]}, column unique.{domains[k]}: {pools[row, k]:g} unique tokens, "
            f"but {tokens[row, k]:_.0f} were trained on; give the tokens of the domain's text, each counted once"
        )
    return pools


def _scale_labels(sheet: Sheet) -> list[str]:
    labels = sheet.cells("scale")
    for (number, _), label in zip(sheet.rows, labels, strict=True):
        if not label:
            raise UserError(f"'{sheet.name}', row {number}, column scale: it is empty; give every run a scale, or none")
    return labels


def _seeds(sheet: Sheet, seeds: FloatArray) -> list[int]:
    for (number, _), seed in zip(sheet.rows, seeds.tolist(), strict=True):
        if seed != int(seed):
            raise UserError(f"'{sheet.name}', row {number}, column seed: {seed} is no integer; correct that cell")
    return [int(seed) for seed in seeds.tolist()]
