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

FOLDER = "next_runs"  # in the folder of a fit


@dataclass(frozen=True)
class Proposal:
    """A proposed run.

    Attributes:
        run: unique name.
        token_budget: token budget of its scale.
        seed: added to that of the experiment.
        tokens: (K,) domain tokens; they need not sum to the budget.
        params: parameters of its model; None if the runs do not tell theirs.
    """

    run: str
    token_budget: int
    seed: int
    tokens: tuple[float, ...]
    params: int | None = None


def write_proposals(path: Path, domains: Sequence[str], proposals: Sequence[Proposal]) -> None:
    """Writes a table of proposed runs over `domains`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sized = all(proposal.params is not None for proposal in proposals)
    columns = ["run", "token_budget", *["params"] * sized, "seed"]
    writer.writerow([*columns, *(f"tokens.{domain}" for domain in domains)])
    for proposal in proposals:
        fixed = [getattr(proposal, column) for column in columns]
        writer.writerow([*fixed, *map(repr, proposal.tokens)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text.getvalue())


def read_proposals(path: Path, domains: Sequence[str]) -> list[Proposal]:
    """Reads the proposed runs in a table, with tokens in the order of `domains`.

    Raises:
        UserError: the table cannot be read, has other domains or columns, or a cell is no number or out of range.
    """
    sheet = read_sheet(path, "design.path")
    wanted = ["run", "token_budget", "seed", *(f"tokens.{domain}" for domain in domains)]
    sized = "params" in sheet.columns
    if set(sheet.columns) - {"params"} != set(wanted):
        raise UserError(
            f"design.path is '{path}' with the columns {', '.join(sheet.columns)}; needed are {', '.join(wanted)}, as "
            "`fit` writes them for the same domains"
        )
    least = {"token_budget": 1.0, "params": 1.0, **dict.fromkeys(wanted[2:], 0.0)}
    numbers = sheet.numbers({column: number for column, number in least.items() if column in sheet.columns})
    tokens = np.stack([numbers[column] for column in wanted[3:]], axis=1)
    proposals = []
    for index, name in enumerate(sheet.names("run")):
        whole = {column: numbers[column][index] for column in ("token_budget", "seed", *["params"] * sized)}
        if any(number % 1 for number in whole.values()) or not tokens[index].sum():
            told = " and ".join(f"{column} {number:g}" for column, number in whole.items())
            raise UserError(
                f"'{path}', run '{name}': {told} must be integers, and its tokens above 0, but they sum to "
                f"{tokens[index].sum():g}"
            )
        params = int(whole["params"]) if sized else None
        budget, seed = int(whole["token_budget"]), int(whole["seed"])
        proposals.append(Proposal(name, budget, seed, tuple(tokens[index].tolist()), params))
    return proposals
