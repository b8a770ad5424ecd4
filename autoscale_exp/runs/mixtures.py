"""Mixtures to predict losses for, from a table of tokens or shares, or from mixture files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.base.weights import check_weights
from autoscale_exp.mixture.weights import read_mixture_file
from autoscale_exp.runs.run_sheet import LEAST_TOKENS, OWN_COLUMNS, domain_tokens, token_columns
from autoscale_exp.runs.sheet import read_sheet

YAML = (".yaml", ".yml")


def read_mixtures(
    source: str | Sequence[str], domains: Sequence[str], budget: int | None
) -> tuple[list[str], FloatArray]:
    """Reads mixtures over `domains`, each at a token budget.

    Args:
        source: a CSV with columns `run` and `tokens.<domain>`, or `run` and shares `weights.<domain>`; or a mixture
            file, a folder of them, or a list of them.
        domains: (K,) domains of the law.
        budget: token budget of mixtures that are shares; None if they bring their own (`tokens` or token_budget).

    Returns:
        (R,) names and (R, K) tokens in the order of `domains`.

    Raises:
        UserError: a file is none of these, a domain is missing or unknown, or a budget is missing or given twice.
    """
    check_range({"tokens": budget}, LEAST_TOKENS)
    if isinstance(source, str) and not Path(source).is_dir() and Path(source).suffix not in YAML:
        return _read_table(Path(source), domains, budget)
    if isinstance(source, str) and Path(source).is_dir():
        paths = sorted(path for path in Path(source).iterdir() if path.suffix in YAML and path.name[0] != ".")
    else:
        paths = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    if not paths:
        raise UserError(f"mixtures is '{source}', which has no mixture file; give one with *.yaml, or a CSV")
    names = [path.stem for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return names, np.stack([_read_file(path, domains, budget) for path in paths])


def _read_table(path: Path, domains: Sequence[str], budget: int | None) -> tuple[list[str], FloatArray]:
    sheet = read_sheet(path, "mixtures")
    shares, tokens = sheet.suffixes("weights"), sheet.suffixes("tokens")
    if "run" not in sheet.columns or set(shares or tokens) != set(domains):
        raise UserError(
            f"'{path}' needs the columns run and tokens.<domain>, or weights.<domain>, for {', '.join(domains)}, but "
            f"has {', '.join(sheet.columns)}"
        )
    columns = token_columns(sheet)
    if budget is not None and tokens:
        raise UserError(f"tokens is {budget}, but '{path}' says tokens.<domain>; give shares as weights.<domain>")
    if budget is not None:
        columns.pop("tokens")
    elif shares and "tokens" not in sheet.columns:
        raise UserError(f"'{path}' has shares without a budget; give tokens=..., or a column tokens")
    losses = [f"{metric}.{name}" for metric in ("loss", "perplexity") for name in sheet.suffixes(metric)]
    sheet.tell_unread(
        ["run", *columns, "scale", "seed", "tokens", *losses, *OWN_COLUMNS],  # a run table may be given
        "run and tokens.<domain> or weights.<domain>",
    )
    names, numbers = sheet.names("run"), sheet.numbers(columns)
    if budget is not None:
        numbers["tokens"] = np.full(len(names), float(budget))
    found, amounts = domain_tokens(sheet, numbers)
    return names, amounts[:, [found.index(domain) for domain in domains]]


def _read_file(path: Path, domains: Sequence[str], budget: int | None) -> FloatArray:
    file = read_mixture_file(path, "mixtures")
    if sorted(file.domains) != sorted(domains):
        raise UserError(f"'{path}' is a mixture of {', '.join(file.domains)}, but the law is of {', '.join(domains)}")
    weights = check_weights(file.weights, file.domains, key=f"the weights in '{path}'")
    tokens = budget or file.token_budget
    if tokens is None:
        raise UserError(f"'{path}' has no token_budget; give tokens=...")
    check_range({f"token_budget in '{path}'": tokens}, LEAST_TOKENS)
    return weights[[file.domains.index(domain) for domain in domains]] * tokens
