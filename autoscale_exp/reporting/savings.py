"""How many tokens of the reference's target run a mixture saves, and what its search costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.reporting.comparison import Difference, compare
from autoscale_exp.reporting.searches import Searches
from autoscale_exp.reporting.target_runs import MixtureRuns
from autoscale_exp.runs.record import RunRecord


@dataclass(frozen=True)
class Saving:
    """What a mixture saves, as shares of the tokens of the reference's target run.

    A mixture that ends above the reference has negative shares: what the reference saves to reach the mixture's end.

    Attributes:
        on_curves: read off the validation curves; None if one of them is a single point.
        annealed: read off runs that end at several budgets; None if there are fewer than two.
        is_bound: whether the smallest of these budgets was more than enough, so that `annealed` is nearer to 0 than
            the share is.
        interval: 90 % interval of `annealed`, from that of the difference at the target; None if the difference is
            within the noise. An end is None where the smallest budget was more than enough.
        search_tokens: tokens of the search that found the mixture, with any model; 0 without a search.
        search_cost: these tokens times parameters, as a share of the target run's, less the same of the reference.
    """

    on_curves: float | None
    annealed: float | None
    is_bound: bool
    interval: tuple[float | None, float | None] | None
    search_tokens: int
    search_cost: float

    @property
    def share(self) -> float | None:
        """The share from the annealed runs if there are any, else from the curves."""
        return self.on_curves if self.annealed is None else self.annealed

    def charged(self, num_targets: int) -> float | None:
        """What is left of each target run's saving if `num_targets` runs share the cost of the search."""
        return None if self.share is None else self.share - self.search_cost / num_targets


def savings_of(
    budgets: Mapping[int, Mapping[str, MixtureRuns]], reference: str, searches: Searches
) -> dict[str, Saving]:
    """Measures what each of the other mixtures saves at the largest budget.

    Args:
        budgets: target runs by token budget, smallest first, and mixture.
        reference: the mixture that the others are compared with.
        searches: the searches that mixtures were found with.
    """
    mixtures = [*budgets.values()][-1]
    base = mixtures[reference]
    differences = compare(mixtures, reference)
    charge = {name: _cost(searches.of(name), base.records[0]) for name in mixtures}
    found = {}
    for name, mixture in mixtures.items():
        if name != reference:
            annealed, is_bound = annealed_speedup(budgets, name, reference)
            tokens = sum(sum(record.tokens.values()) for record in searches.of(name))
            cost = charge[name] - charge[reference]
            interval = _annealed_interval(budgets, differences[name])
            found[name] = Saving(speedup(mixture, base), annealed, is_bound, interval, tokens, cost)
    return found


def _cost(search: Sequence[RunRecord], target: RunRecord) -> float:
    """The cost of a search, in tokens times parameters, as a share of a target run's."""
    spent = sum(sum(record.tokens.values()) * record.params for record in search)
    return spent / (target.token_budget * target.params)


def tokens_to_reach(tokens: FloatArray, curve: FloatArray, level: float) -> float | None:
    """Tokens after which a curve first is at `level` or below, linear between its points; None if it never is."""
    below = np.flatnonzero(curve <= level)
    if not below.size:
        return None
    k = int(below[0])
    if k == 0:
        return float(tokens[0])
    fraction = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
    return float(tokens[k - 1] + fraction * (tokens[k] - tokens[k - 1]))


def speedup(mixture: MixtureRuns, reference: MixtureRuns) -> float | None:
    """Share of the reference's tokens that the mixture saves to reach the objective that the reference ends with.

    Source: AutoScale, arXiv 2407.20177, section 5. Read off the mean validation curves. A mixture that ends above the
    reference has a negative one: the share that the reference saves to reach what the mixture ends with. None if
    either curve is a single point, which tells nothing of the way there.
    """
    if min(len(mixture.tokens), len(reference.tokens)) < 2:
        return None
    is_ahead = mixture.mean_curve[-1] < reference.mean_curve[-1]
    ahead, other = (mixture, reference) if is_ahead else (reference, mixture)
    reached = tokens_to_reach(ahead.tokens, ahead.mean_curve, float(other.mean_curve[-1]))
    assert reached is not None  # it ends there or below
    saved = 1 - reached / float(reference.tokens[-1])
    return saved if is_ahead else -saved


def annealed_speedup(
    budgets: Mapping[int, Mapping[str, MixtureRuns]], name: str, reference: str, gap: float | None = None
) -> tuple[float | None, bool]:
    """As `speedup`, but from finished runs at several budgets, whose learning rates have decayed.

    The mean objective of finished runs is interpolated between budgets, its logarithm linear in that of the budget. So
    a power law is met exactly. Nothing is extrapolated.

    Args:
        budgets: target runs by token budget, smallest first, and mixture.
        name: name of the mixture.
        reference: the mixture that it is compared with.
        gap: how far apart the two end at the largest budget, in either direction; None for the gap of their means.

    Returns:
        The share, or None with fewer than two budgets of the mixture that is ahead; and whether the share is only a
        bound (at least that or, if negative, at most), because a run of the smallest budget already reaches the level.
    """
    *_, (target, mixtures) = budgets.items()
    ends = {n: float(mixtures[n].final.mean()) for n in (name, reference)}
    is_ahead = ends[name] < ends[reference]
    ahead, other = (name, reference) if is_ahead else (reference, name)
    points = [(budget, float(of[ahead].final.mean())) for budget, of in budgets.items() if ahead in of]
    if len(points) < 2:
        return None, False
    tokens, values = np.log(np.array(points)).T
    level = math.log(ends[other] if gap is None else ends[ahead] + abs(gap))
    reached = tokens_to_reach(tokens, values, level)
    assert reached is not None  # it ends there or below
    saved = 1 - math.exp(reached) / target
    return (saved if is_ahead else -saved), bool(values[0] < level)


def _annealed_interval(
    budgets: Mapping[int, Mapping[str, MixtureRuns]], difference: Difference
) -> tuple[float | None, float | None] | None:
    """The shares at both ends of the interval of a difference."""
    if difference.within_noise or difference.interval is None:
        return None
    names = (difference.mixture, difference.reference)
    ends = [annealed_speedup(budgets, *names, gap) for gap in difference.interval]
    if any(share is None for share, _ in ends):
        return None
    low, high = (None if is_bound else share for share, is_bound in reversed(ends))
    return low, high
