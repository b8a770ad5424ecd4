"""The table of proposed runs, next_runs/<budget>.csv, which `fit` writes and `train` reads."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_exp.base import atomic
from autoscale_exp.base.errors import UserError
from autoscale_exp.runs.sheet import read_sheet

FOLDER = "next_runs"  # of a fit


@dataclass(frozen=True)
class Proposal:
    """A proposed run.

    Attributes:
        run: unique name.
        token_budget: of its scale.
        seed: added to that of the experiment.
        tokens: (K,) domain tokens; they need not sum to the budget.
    """

    run: str
    token_budget: int
    seed: int
    tokens: tuple[float, ...]


def write_proposals(path: Path, domains: Sequence[str], proposals: Sequence[Proposal]) -> None:
    """Writes a table of proposed runs over `domains`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "token_budget", "seed", *(f"tokens.{domain}" for domain in domains)])
    for proposal in proposals:
        writer.writerow([proposal.run, proposal.token_budget, proposal.seed, *map(repr, proposal.tokens)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text.getvalue())


def read_proposals(path: Path, domains: Sequence[str]) -> list[Proposal]:
    """The proposed runs in a table, their tokens in the order of `domains`.

    Raises:
        UserError: it cannot be read, has other domains or columns, or a number that is none or out of range.
    """
    sheet = read_sheet(path, "design.path")
    wanted = ["run", "token_budget", "seed", *(f"tokens.{domain}" for domain in domains)]
    if set(sheet.columns) != set(wanted):
        raise UserError(
            f"design.path is '{path}' with the columns {', '.join(sheet.columns)}; needed are {', '.join(wanted)}, as "
            "`fit` writes them for the same domains"
        )
    names, numbers = sheet.names("run"), sheet.numbers({"token_budget": 1.0, **dict.fromkeys(wanted[2:], 0.0)})
    tokens = np.stack([numbers[column] for column in wanted[3:]], axis=1)
    for name, budget, seed, total in zip(
        names, numbers["token_budget"], numbers["seed"], tokens.sum(axis=1), strict=True
    ):
        if budget % 1 or seed % 1 or not total:
            raise UserError(
                f"'{path}', run '{name}': token_budget {budget:g} and seed {seed:g} must be integers, and its tokens "
                f"above 0, but they sum to {total:g}"
            )
    return [
        Proposal(name, int(budget), int(seed), tuple(row.tolist()))
        for name, budget, seed, row in zip(names, numbers["token_budget"], numbers["seed"], tokens, strict=True)
    ]
