"""The constraints on a mixture: bounds of shares, caps by unique tokens and by groups, and no domain made worse."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq, linprog

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.base.errors import UserError
from autoscale_exp.laws.optimum import SUM_TOLERANCE, Bounds

ON_LIMIT = 1e-6  # relative distance; a share this near to a limit is on it, as in Bounds.active


@dataclass(frozen=True)
class GroupCap:
    """The largest share of the budget for several domains together.

    Attributes:
        name: for people.
        members: indices of domains.
        share: largest sum of their shares.
    """

    name: str
    members: Sequence[int]
    share: float


@dataclass(frozen=True)
class Constraints:
    """All constraints on a mixture.

    Attributes:
        bounds: smallest and largest share of each domain.
        unique_tokens: (K,) tokens of each domain's text; None for no limit.
        max_epochs: most epochs over these tokens; needed with unique_tokens.
        groups: caps on sums of shares; a domain may be in several groups.
        no_worse_than: (K,) shares of a reference mixture; no validation domain's loss may exceed its loss under it.
        reference_name: name of the reference mixture, for people.
    """

    bounds: Bounds
    unique_tokens: FloatArray | None = None
    max_epochs: float | None = None
    groups: Sequence[GroupCap] = ()
    no_worse_than: FloatArray | None = None
    reference_name: str = "uniform"

    def caps(self, budget: float) -> FloatArray:
        """(K,) largest shares that the unique tokens allow at `budget`; inf without a limit.

        Raises:
            UserError: max_epochs is missing or not above 0, or the unique tokens are malformed.
        """
        if self.unique_tokens is None:
            return np.full(len(self.bounds.lower), np.inf)
        if self.max_epochs is None or not self.max_epochs > 0:
            raise UserError(
                f"bounds.max_epochs is {self.max_epochs}; with bounds.unique_tokens it must be a number above 0"
            )
        return check_text(self.unique_tokens, len(self.bounds.lower)) * self.max_epochs / budget

    def upper(self, budget: float) -> FloatArray:
        """(K,) largest shares: bounds and caps together."""
        return np.minimum(self.bounds.upper, self.caps(budget))

    def violation(self, weights: FloatArray, budget: float) -> float:
        """Largest amount by which shares break the sum, bounds, caps or groups. It leaves no_worse_than out."""
        sums = [weights[list(group.members)].sum() - group.share for group in self.groups]
        outside = [*(self.bounds.lower - weights), *(weights - self.upper(budget)), *sums, abs(weights.sum() - 1)]
        return float(max(0.0, *outside))

    def describe(self, weights: FloatArray, budget: float, domains: Sequence[str]) -> list[str]:
        """Lists the bounds, caps and groups that shares are on, in words, such as 'books: cap of 4 epochs 0.12'."""
        caps, upper = self.caps(budget), self.upper(budget)
        side = Bounds(self.bounds.lower, upper).active(weights)
        notes = []
        for i, domain in enumerate(domains):
            if side[i] < 0:
                notes.append(f"{domain}: lower {self.bounds.lower[i]:.4g}")
            elif side[i] > 0 and caps[i] < self.bounds.upper[i]:
                notes.append(f"{domain}: cap of {self.max_epochs:g} epochs {caps[i]:.4g}")
            elif side[i] > 0:
                notes.append(f"{domain}: upper {upper[i]:.4g}")
        full = [g for g in self.groups if weights[list(g.members)].sum() >= g.share * (1 - ON_LIMIT)]
        return notes + [f"group {group.name}: {group.share:.4g}" for group in full]


def check_text(unique_tokens: Any, num_domains: int) -> FloatArray:
    """Checks the tokens of each domain's text, and returns them as a (K,) array.

    Raises:
        UserError: they are not one number per domain, or one is below 0.
    """
    try:
        text = np.asarray(unique_tokens, dtype=np.float64)
    except (TypeError, ValueError):
        text = np.empty(0)
    if text.shape != (num_domains,) or not (text >= 0).all():
        raise UserError(f"bounds.unique_tokens must be {num_domains} numbers of at least 0, one per domain")
    return text


def check_constraints(constraints: Constraints, budget: float, domains: Sequence[str]) -> None:
    """Refuses bounds, caps and groups that no mixture meets together. It leaves out no_worse_than, which needs a law.

    Raises:
        UserError: an entry is malformed, or entries clash; the message names them, by how much, and the remedies.
    """
    if not budget > 0:
        raise UserError(f"the token budget is {budget}; it must be above 0")
    if len(constraints.bounds.lower) != len(domains):
        raise UserError(f"bounds are for {len(constraints.bounds.lower)} domains, but the law has {len(domains)}")
    reference = constraints.no_worse_than
    if reference is not None:
        check_shares(reference, len(domains), f"the reference mixture '{constraints.reference_name}'")
    _check_domains(constraints, budget, domains)
    _check_groups(constraints, budget, domains)


def check_shares(weights: FloatArray, num_domains: int, name: str) -> None:
    """Refuses anything but `num_domains` shares that sum to 1.

    Raises:
        UserError: its message starts with `name`.
    """
    shares = np.asarray(weights)
    if shares.shape != (num_domains,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise UserError(f"{name} must be {num_domains} shares of at least 0 that sum to 1, but is {shares.tolist()}")


def _check_domains(constraints: Constraints, budget: float, domains: Sequence[str]) -> None:
    lower, caps = constraints.bounds.lower, constraints.caps(budget)
    upper = constraints.upper(budget)
    if lower.sum() > 1 + SUM_TOLERANCE:
        raise UserError(f"bounds.lower sum to {lower.sum():.6g}; they must leave room within 1")
    for i in np.flatnonzero(lower > upper + SUM_TOLERANCE).tolist():
        if caps[i] >= constraints.bounds.upper[i]:
            raise UserError(f"bounds.lower of '{domains[i]}' is {lower[i]:g}, above its bounds.upper {upper[i]:g}")
        assert constraints.max_epochs is not None
        enough = constraints.max_epochs * lower[i] / caps[i] if caps[i] > 0 else np.inf
        raise UserError(
            f"'{domains[i]}' has unique tokens for a share of {caps[i]:.4g} in {constraints.max_epochs:g} epochs at "
            f"{_tokens(budget)} tokens, below its bounds.lower {lower[i]:g}; lower that bound or the budget"
            + (f", or raise bounds.max_epochs to {_four_digits(enough, up=True):.4g}" if caps[i] > 0 else "")
        )
    if upper.sum() >= 1 - SUM_TOLERANCE:
        return
    capped = np.flatnonzero(caps < constraints.bounds.upper)
    if not len(capped):
        raise UserError(f"bounds.upper sum to {upper.sum():.6g}; they must reach 1")
    raise UserError(
        f"caps from unique tokens in {constraints.max_epochs:g} epochs and bounds.upper sum to {upper.sum():.4g}, "
        f"below 1, at {_tokens(budget)} tokens (capped: {_named(capped, domains, caps)}); "
        + _remedy(constraints, budget)
    )


def _remedy(constraints: Constraints, budget: float) -> str:
    """Says to which value max_epochs or the budget must move for the largest shares to reach 1."""
    assert constraints.max_epochs is not None

    def excess(log_factor: float) -> float:
        assert constraints.max_epochs is not None
        more = replace(constraints, max_epochs=constraints.max_epochs * float(np.exp(log_factor)))
        return float(more.upper(budget).sum()) - 1

    if excess(60.0) <= 0:
        return "raise bounds.upper too: those of the domains that have tokens do not sum to 1"
    factor = float(np.exp(brentq(excess, 0.0, 60.0)))
    enough, most = _four_digits(constraints.max_epochs * factor, up=True), _four_digits(budget / factor, up=False)
    return f"raise bounds.max_epochs to {enough:.4g} or lower the budget to {_tokens(most)}"


def _four_digits(value: float, *, up: bool) -> float:
    """Rounds to four digits in the direction that still meets the constraints; what is nearly round stays."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 3)
    return float(np.ceil(value / unit - 1e-7) * unit if up else np.floor(value / unit + 1e-7) * unit)


def _check_groups(constraints: Constraints, budget: float, domains: Sequence[str]) -> None:
    lower, upper = constraints.bounds.lower, constraints.upper(budget)
    for group in constraints.groups:
        members = list(group.members)
        if not members or len(set(members)) != len(members) or not set(members) <= set(range(len(domains))):
            raise UserError(f"group '{group.name}' has members {members}; allowed are indices 0 to {len(domains) - 1}")
        if not 0 <= group.share <= 1:
            raise UserError(f"the cap of group '{group.name}' is {group.share}; allowed are shares from 0 to 1")
        least = lower[members].sum()
        if least > group.share + SUM_TOLERANCE:
            raise UserError(
                f"lower bounds of members of group '{group.name}' sum to {least:.4g} "
                f"({_named(members, domains, lower)}) but its cap is {group.share:g}; lower those "
                "bounds or raise the cap"
            )
    if not constraints.groups:
        return
    # All groups allow the shares `lower`. So a mixture exists if and only if shares can grow from these to a sum of 1.
    rows = group_rows(constraints)
    shares = np.array([group.share for group in constraints.groups])
    most = linprog(
        -np.ones(len(lower)),
        A_ub=rows,
        b_ub=np.maximum(shares, rows @ lower),
        bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
    )
    total = 1.0 if most.x is None else float(most.x.sum())
    if total < 1 - SUM_TOLERANCE:
        full = [g for g, row in zip(constraints.groups, rows, strict=True) if row @ most.x >= g.share - 1e-9]
        outside = np.flatnonzero(rows.sum(axis=0) == 0)
        rest = f"; upper bounds and caps of the domains in no group sum to {upper[outside].sum():.4g}"
        raise UserError(
            f"caps of groups {', '.join(f'{g.name} ({g.share:g})' for g in full)} and the largest shares of domains "
            f"leave at most {total:.4g} of the budget to mix{rest}; raise the caps of the groups or those of domains"
        )


def group_rows(constraints: Constraints) -> FloatArray:
    """(G, K) 1 for the members of each group, else 0."""
    rows = np.zeros((len(constraints.groups), len(constraints.bounds.lower)))
    for row, group in zip(rows, constraints.groups, strict=True):
        row[list(group.members)] = 1
    return rows


def implied_limits(constraints: Constraints, budget: float) -> tuple[FloatArray, FloatArray]:
    """(K,) smallest and largest shares that all constraints together leave each domain.

    They are tighter than the bounds. For example, lower bounds that sum to 1 leave no domain any room.
    """
    lower, upper = constraints.bounds.lower.copy(), constraints.upper(budget)
    upper = np.maximum(upper, lower)
    for _ in range(4):
        upper = np.minimum(upper, 1 - (lower.sum() - lower))
        for group, row in zip(constraints.groups, group_rows(constraints), strict=True):
            inside = row > 0
            room = group.share - lower[inside].sum() + lower[inside]
            upper[inside] = np.minimum(upper[inside], room)
            if not inside.all():  # what the group leaves has to fit into the others
                spare = upper[~inside].sum() - upper[~inside]
                lower[~inside] = np.maximum(lower[~inside], 1 - group.share - spare)
        lower = np.maximum(lower, 1 - (upper.sum() - upper))
        upper = np.maximum(upper, lower)
    return lower, upper


def _named(indices: Sequence[int] | Int64Array, domains: Sequence[str], shares: FloatArray) -> str:
    shown = [f"{domains[i]} {shares[i]:.4g}" for i in indices[:8]]
    return ", ".join(shown) + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")


def _tokens(count: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{int(count):_}"
