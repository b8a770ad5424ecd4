"""The run table that laws are fitted to: a CSV with a row per finished run, or a sweep's folder."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError, refusal
from autoscale_exp.base.weights import check_weights
from autoscale_exp.runs.record import RunRecord, read_records


@dataclass(frozen=True)
class RunTable:
    """Finished runs: what each was trained on and how well it does.

    Attributes:
        runs: (R,) unique names.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        domain_tokens: (R, K) tokens trained on.
        losses: (R, V) validation losses in nats per token.
        scales: (R,) labels of the scale, or None where the table has none.
        seeds: (R,) seeds, or None.
        unique_tokens: (K,) tokens that the store of the runs has of each domain, or None where that is not known.
    """

    runs: list[str]
    domains: list[str]
    validation_domains: list[str]
    domain_tokens: FloatArray
    losses: FloatArray
    scales: list[str] | None = None
    seeds: list[int] | None = None
    unique_tokens: list[int] | None = None


def select_runs(table: RunTable, rows: Int64Array) -> RunTable:
    """The runs at `rows`, in that order."""
    return replace(
        table,
        runs=[table.runs[r] for r in rows],
        domain_tokens=table.domain_tokens[rows],
        losses=table.losses[rows],
        scales=None if table.scales is None else [table.scales[r] for r in rows],
        seeds=None if table.seeds is None else [table.seeds[r] for r in rows],
    )


def scales_of(table: RunTable) -> list[Int64Array]:
    """Row indices of each scale, smallest first.

    Scales are the labels of the table's `scale` column. Without one, runs of equal total tokens are a scale if every
    total has at least four runs; else, as in a single DDO design, all runs are one.
    """
    totals = table.domain_tokens.sum(axis=1)
    if table.scales is not None:
        labels = list(table.scales)
    else:
        rounded = np.round(np.log(totals) / np.log(1.01)).astype(int).tolist()  # equal to about 1 %
        labels = [str(total) for total in rounded]
        if min(labels.count(label) for label in labels) < 4:
            labels = [""] * len(labels)
    groups = [np.array([r for r, other in enumerate(labels) if other == label]) for label in dict.fromkeys(labels)]
    return sorted(groups, key=lambda rows: float(np.median(totals[rows])))


def table_of_records(records: Sequence[RunRecord]) -> RunTable:
    """The run table of finished runs.

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
        unique_tokens=list(first.unique_tokens.values()),
    )


def format_run_table(records: Sequence[RunRecord]) -> str:
    """The run table of finished runs as CSV text, losses in full precision."""
    table = table_of_records(records)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"tokens.{d}" for d in table.domains] + [f"loss.{v}" for v in table.validation_domains]
    writer.writerow(["run", "scale", "seed", "model", "params", "steps", *columns, "seconds"])
    for r in records:
        fixed = [r.run, r.scale, r.seed, r.model, r.params, r.steps]
        writer.writerow([*fixed, *r.tokens.values(), *(repr(x) for x in r.losses.values()), r.seconds])
    return text.getvalue()


def read_runs(path: Path) -> RunTable:
    """Reads the runs of a sweep's folder, or of a run table.

    Raises:
        UserError: see `parse_run_table`; or the path does not exist, or the folder has no finished run.
    """
    if path.is_dir():
        return table_of_records(read_records(path))
    return parse_run_table(read_text(path, "runs"), str(path))


def parse_run_table(text: str, path: str) -> RunTable:
    """Parses a run table, one row per finished run.

    Columns: `run`; `tokens.<domain>` for each training domain; `loss.<validation domain>` in nats per token or
    `perplexity.<validation domain>`; optional `scale` and `seed`; others do not matter.

    Args:
        text: CSV with a header.
        path: where it came from, for messages.

    Raises:
        UserError: a column is missing or doubled, or an entry is missing, negative, not finite or a duplicate;
            the message names the row and the column.
    """
    header, body = _header_and_rows(text, path)
    if not body:
        raise UserError(f"'{path}' has no runs; it needs a header and a row per run")
    _check_header(path, header)
    domains = _suffixes(header, "tokens")
    metric = "loss" if _suffixes(header, "loss") else "perplexity"
    validation_domains = _suffixes(header, metric)
    cells = [row for _, row in _named_cells(path, header, body)]
    runs = [row["run"] for row in cells]
    for number, run in enumerate(runs, start=2):
        if not run or runs.index(run) != number - 2:
            what = f"'{run}' is also in row {runs.index(run) + 2}" if run else "the name is missing"
            raise UserError(f"'{path}', row {number}, column run: {what}; give every run a name of its own")

    def numbers(prefix: str, names: Sequence[str], minimum: float) -> FloatArray:
        return np.array(
            [
                [_number(path, number, f"{prefix}.{name}", row[f"{prefix}.{name}"], minimum) for name in names]
                for number, row in enumerate(cells, start=2)
            ]
        )

    values = numbers(metric, validation_domains, 0.0 if metric == "loss" else 1.0)
    tokens = numbers("tokens", domains, 0.0)
    for number, total in enumerate(tokens.sum(axis=1), start=2):
        if total <= 0:
            raise UserError(f"'{path}', row {number}: all tokens are 0; a run must have been trained on something")
    return RunTable(
        runs=runs,
        domains=domains,
        validation_domains=validation_domains,
        domain_tokens=tokens,
        losses=values if metric == "loss" else np.log(values),
        scales=[row["scale"] for row in cells] if "scale" in header else None,
        seeds=[int(_number(path, n, "seed", row["seed"], 0)) for n, row in enumerate(cells, start=2)]
        if "seed" in header
        else None,
    )


def read_optima(path: Path) -> tuple[list[str], list[int], FloatArray]:
    """Reads known optima: a CSV with columns `tokens` and `weights.<domain>`, one row per token budget.

    Returns:
        (K,) domains, (S,) budgets and (S, K) weights.

    Raises:
        UserError: a column or a number is missing, or weights are not shares of 1; names row and column.
    """
    header, rows = _header_and_rows(read_text(path, "optima"), str(path))
    domains = _suffixes(header, "weights")
    if "tokens" not in header or len(domains) < 2:
        raise UserError(
            f"'{path}' needs the columns tokens and weights.<domain>, but has {', '.join(header) or 'none'}"
        )
    budgets, weights = [], []
    for number, cells in _named_cells(str(path), header, rows):
        budgets.append(round(_number(str(path), number, "tokens", cells["tokens"], 1)))
        shares = [_number(str(path), number, f"weights.{d}", cells[f"weights.{d}"], 0) for d in domains]
        weights.append(check_weights(shares, domains, key=f"'{path}', row {number}: the weights"))
    return domains, budgets, np.array(weights)


def read_mixtures(path: Path, domains: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Reads mixtures to predict: a CSV with columns `run` and `tokens.<domain>`; others do not matter.

    Returns:
        (R,) names and (R, K) tokens in the order of `domains`.

    Raises:
        UserError: a column or a number is missing, or a domain is unknown; names row and column.
    """
    header, rows = _header_and_rows(read_text(path, "mixtures"), str(path))
    named = _suffixes(header, "tokens")
    if "run" not in header or set(named) != set(domains):
        raise UserError(
            f"'{path}' needs the columns run and tokens.<domain> for {', '.join(domains)}, "
            f"but has {', '.join(header) or 'none'}"
        )
    names, tokens = [], []
    for number, cells in _named_cells(str(path), header, rows):
        names.append(cells["run"])
        tokens.append([_number(str(path), number, f"tokens.{d}", cells[f"tokens.{d}"], 0) for d in domains])
    return names, np.array(tokens).reshape(len(names), len(domains))


def _header_and_rows(text: str, path: str) -> tuple[list[str], list[list[str]]]:
    """The column names of a CSV, empty if it has none, and its rows without blank ones."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        raise UserError(f"'{path}' is no CSV: {error}; give a table with commas and a header") from None
    return [name.strip() for name in rows[0]] if rows else [], rows[1:]


def _named_cells(
    path: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells by column of every row; the header is row 1."""
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f"'{path}', row {number}: {len(row)} cells, but the header has {len(header)} columns")
        yield number, dict(zip(header, (cell.strip() for cell in row), strict=True))


def read_text(path: Path, key: str) -> str:
    """The text of a file that the config names by `key`.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key} is '{path}', which does not exist; give the path of a CSV file") from None
    except OSError as error:
        raise UserError(f"{key} is '{path}', which cannot be read: {refusal(error)}; give a CSV file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{key} is '{path}', which is not UTF-8 text: {error}; give a CSV file in UTF-8") from None


def _check_header(path: str, header: Sequence[str]) -> None:
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise UserError(f"'{path}' has column '{doubled[0]}' more than once")
    if "run" not in header:
        raise UserError(f"'{path}' has no column 'run'; its columns are {', '.join(header)}")
    if len(_suffixes(header, "tokens")) < 2:
        raise UserError(f"'{path}' needs a column tokens.<domain> for each of at least two training domains")
    if bool(_suffixes(header, "loss")) == bool(_suffixes(header, "perplexity")):
        raise UserError(
            f"'{path}' needs columns loss.<validation domain> (nats per token) or perplexity.<validation domain>, "
            "one kind of the two"
        )
    for name in header:
        if re.match(r"(token|losses|ppl|perplexities|weights?)\.", name):
            raise UserError(f"'{path}' has column '{name}'; allowed are tokens.*, loss.* and perplexity.*")


def _suffixes(header: Sequence[str], prefix: str) -> list[str]:
    return [name.removeprefix(f"{prefix}.") for name in header if name.startswith(f"{prefix}.")]


def _number(path: str, row: int, column: str, cell: str, minimum: float) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise UserError(f"'{path}', row {row}, column {column}: '{cell}' is not a number") from None
    if not math.isfinite(value) or value < minimum:
        raise UserError(f"'{path}', row {row}, column {column}: {cell} must be finite and at least {minimum:g}")
    return value
