"""Which runs are of one scale, by their labels or else by their tokens."""

from collections.abc import Sequence

import numpy as np

from autoscale_exp.base.arrays import BoolArray, FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label

SAME = 0.01  # relative difference up to which numbers of tokens count as equal
GAP = 1.2  # ratio of totals from which budgets count as different
SPREAD = 1.5  # largest ratio of totals of one budget
FEWEST = 4  # fewest runs of a budget that only totals tell


def differ_in_budget(domain_tokens: FloatArray) -> bool:
    """Whether the total tokens of runs differ, so that the runs tell anything of the budget.

    Args:
        domain_tokens: (R, K) tokens of each run.
    """
    totals = domain_tokens.sum(axis=1)
    return bool(totals.max() > (1 + SAME) * totals.min())


def group_by_label(labels: Sequence[str]) -> list[Int64Array]:
    """Row indices of each label."""
    return [np.array([r for r, other in enumerate(labels) if other == label]) for label in dict.fromkeys(labels)]


def group_by_tokens(domain_tokens: FloatArray) -> list[Int64Array]:
    """Finds the row indices of each scale of runs without labels.

    Runs whose totals are close, with a gap to all others, are a scale. The runs of a DDO design have various totals,
    and are recognised by their base run, from which each differs in one domain.

    Args:
        domain_tokens: (R, K) tokens of each run.

    Raises:
        UserError: the runs are neither.
    """
    totals = domain_tokens.sum(axis=1)
    order = np.argsort(totals, kind="stable")
    gaps = np.flatnonzero(totals[order][1:] > GAP * totals[order][:-1]) + 1
    budgets = [np.sort(rows) for rows in np.split(order, gaps)]
    apart = all(totals[rows].max() <= SPREAD * totals[rows].min() for rows in budgets)
    if apart and len(budgets) == 1:
        return budgets
    alike = _differ_in_one_domain(domain_tokens)
    if apart and all(len(rows) >= FEWEST and alike[rows].sum() == alike[np.ix_(rows, rows)].sum() for rows in budgets):
        return budgets
    designs = _designs(alike, domain_tokens)
    if designs is None:
        raise UserError(
            f"the runs have from {short_label(totals.min())} to {short_label(totals.max())} tokens in all, and nothing "
            "tells which of them are of one scale; add a column scale to the run table, with the label of each run's "
            "scale, such as 1M"
        )
    return designs


def _differ_in_one_domain(domain_tokens: FloatArray) -> BoolArray:
    """(R, R) whether two runs are equal in all domains but at most one, and share some tokens."""
    alike = np.zeros((len(domain_tokens), len(domain_tokens)), dtype=bool)
    for r, tokens in enumerate(domain_tokens):
        equal = np.abs(domain_tokens - tokens) <= SAME * np.maximum(domain_tokens, tokens)
        shared = (equal & (domain_tokens > 0)).any(axis=1)
        alike[r] = (equal.sum(axis=1) >= domain_tokens.shape[1] - 1) & shared
    return alike


def _designs(alike: BoolArray, domain_tokens: FloatArray) -> list[Int64Array] | None:
    """The runs around each base run; None if they are not all runs, or if a run may belong to two of them."""
    left = np.ones(len(alike), dtype=bool)
    designs: list[BoolArray] = []
    while left.any():
        base = int(np.argmax((alike & left).sum(axis=1)))
        design = alike[base]
        changed = np.abs(domain_tokens[design] - domain_tokens[base]) > SAME * domain_tokens[base]
        if changed.any(axis=0).sum() < 2 or not (design & left).any():
            return None
        designs.append(design)
        left &= ~design
    if np.sum(designs, axis=0).max() > 1:
        return None
    return [np.flatnonzero(design) for design in designs]
