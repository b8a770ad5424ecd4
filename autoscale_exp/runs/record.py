"""Records of runs: the result.json of one, and the run table that laws are fitted to."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_exp import atomic
from autoscale_exp.mixture.allocation import FloatArray

RESULT = "result.json"
FAILURE = "failed.json"
KNOWN_COLUMNS = ("run", "scale", "seed", "model", "params", "steps")


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
        others: (R,) the columns that are only carried along.
    """

    runs: list[str]
    domains: list[str]
    validation_domains: list[str]
    domain_tokens: FloatArray
    losses: FloatArray
    scales: list[str] | None
    seeds: list[int] | None
    others: list[dict[str, str]]


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The result.json of every finished run under `folder`, sorted by folder.

    Raises:
        ValueError: there is none.
    """
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"runs/*/{RESULT}"))]
    if not results:
        raise ValueError(
            f"'{folder}' has no finished run (no runs/*/{RESULT}); run `python -m autoscale_exp.train` first"
        )
    return results


def table_of_results(results: Sequence[dict[str, Any]]) -> str:
    """The run table of finished runs, as CSV text."""
    domains = list(results[0]["tokens"])
    validation_domains = list(results[0]["losses"])
    for result in results:
        if list(result["tokens"]) != domains or list(result["losses"]) != validation_domains:
            raise ValueError(f"run '{result['run']}' has other domains than run '{results[0]['run']}'")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"tokens.{d}" for d in domains] + [f"loss.{v}" for v in validation_domains]
    writer.writerow(["run", "scale", "seed", "model", "params", "steps", *columns, "seconds"])
    for r in results:
        fixed = [r[key] for key in ("run", "scale", "seed", "model", "params", "steps")]
        writer.writerow([*fixed, *r["tokens"].values(), *(repr(x) for x in r["losses"].values()), r["seconds"]])
    return text.getvalue()


def read_run_table(path: Path) -> RunTable:
    """Reads a run table, one row per finished run.

    Columns: `run`; `tokens.<domain>` for each training domain; `loss.<validation domain>` in nats per token or
    `perplexity.<validation domain>`; optional `scale` and `seed`; others are carried along.

    Raises:
        ValueError: a column is missing or doubled, or an entry is missing, negative, not finite or a duplicate;
            the message names the row and the column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"runs is '{path}', which does not exist") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not UTF-8 text: {error}") from None
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(rows) < 2:
        raise ValueError(f"'{path}' has no runs; it needs a header and a row per run")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    _check_header(path, header)
    domains = _suffixes(header, "tokens")
    metric = "loss" if _suffixes(header, "loss") else "perplexity"
    validation_domains = _suffixes(header, metric)
    cells: list[dict[str, str]] = []
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(f"'{path}', row {number}: {len(row)} cells, but the header has {len(header)} columns")
        cells.append(dict(zip(header, (cell.strip() for cell in row), strict=True)))
    runs = [row["run"] for row in cells]
    for number, run in enumerate(runs, start=2):
        if not run or runs.index(run) != number - 2:
            what = f"'{run}' is also in row {runs.index(run) + 2}" if run else "the name is missing"
            raise ValueError(f"'{path}', row {number}, column run: {what}; give every run a name of its own")

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
            raise ValueError(f"'{path}', row {number}: all tokens are 0; a run must have been trained on something")
    special = {
        "run",
        "scale",
        "seed",
        *(f"tokens.{d}" for d in domains),
        *(f"{metric}.{v}" for v in validation_domains),
    }
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
        others=[{key: row[key] for key in header if key not in special} for row in cells],
    )


def _check_header(path: Path, header: Sequence[str]) -> None:
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise ValueError(f"'{path}' has column '{doubled[0]}' more than once")
    if "run" not in header:
        raise ValueError(f"'{path}' has no column 'run'; its columns are {', '.join(header)}")
    if len(_suffixes(header, "tokens")) < 2:
        raise ValueError(f"'{path}' needs a column tokens.<domain> for each of at least two training domains")
    if bool(_suffixes(header, "loss")) == bool(_suffixes(header, "perplexity")):
        raise ValueError(
            f"'{path}' needs columns loss.<validation domain> (nats per token) or perplexity.<validation domain>, "
            "one kind of the two"
        )
    for name in header:
        if re.match(r"(token|losses|ppl|perplexities|weights?)\.", name):
            raise ValueError(f"'{path}' has column '{name}'; allowed are tokens.*, loss.* and perplexity.*")


def _suffixes(header: Sequence[str], prefix: str) -> list[str]:
    return [name.removeprefix(f"{prefix}.") for name in header if name.startswith(f"{prefix}.")]


def _number(path: Path, row: int, column: str, cell: str, minimum: float) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"'{path}', row {row}, column {column}: '{cell}' is not a number") from None
    if not math.isfinite(value) or value < minimum:
        raise ValueError(f"'{path}', row {row}, column {column}: {cell} must be finite and at least {minimum:g}")
    return value


def write_failure(folder: Path, run: str, error: BaseException) -> None:
    """Marks a run as failed; fits never read it, and it is tried again when asked for again."""
    atomic.write_json(folder / FAILURE, {"run": run, "error": f"{type(error).__name__}: {error}"})
