"""Which proxy runs to train next: those that tell most, per FLOP, of how mixtures compare at the target.

A law's draws show what the runs leave open: the objectives of mixtures at the target, and the losses of runs that might
be trained. If both are jointly normal, the draws say how much a run, measured with the law's noise, would narrow the
differences between objectives. Runs are chosen one by one, each given those before it. This is a greedy V-optimal
design for the decision, over mixtures, token budgets, model sizes and seeds.

D draws, C candidates, M differences, V validation domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy.stats import multivariate_normal, norm

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.laws.candidates import Candidate
from autoscale_exp.laws.fit_file import NextRun, Risk, named
from autoscale_exp.laws.gains import INTERVAL, MIDDLE_AND_ENDS
from autoscale_exp.laws.law import LossLaw
from autoscale_exp.laws.objective import Objective
from autoscale_exp.laws.solver.ensemble import Ensemble


@dataclass(frozen=True)
class Choice:
    """A run chosen among candidates.

    Attributes:
        index: position of the candidate.
        explained: (M,) share of each difference's variance over draws that the run explains, given those chosen before.
    """

    index: int
    explained: FloatArray


def differences_at(
    draws: Sequence[LossLaw], objective: Objective, mixtures: Sequence[FloatArray], budget: float
) -> FloatArray:
    """(D, M) objectives less that of the mixture offered, under each draw.

    Args:
        draws: D laws.
        objective: what is minimised.
        mixtures: the reference, the mixture offered, then others; M + 1 in all.
        budget: tokens.
    """
    tokens = np.stack(mixtures) * budget
    objectives = objective(Ensemble(draws).predict(tokens))
    return np.delete(objectives - objectives[:, [1]], 1, axis=1)


def propose_runs(
    draws_of: Mapping[int | None, Sequence[LossLaw]],
    candidates: Sequence[Candidate],
    differences: FloatArray,
    num_runs: int,
    taken: Sequence[str] = (),
) -> tuple[list[NextRun], Risk]:
    """Proposes the candidates that would tell most per FLOP, best first, and says what they would do to the decision.

    If these would not change the decision, those that tell most at any cost are proposed instead, if they would.

    Args:
        draws_of: D laws by model size; the same draws at each size.
        candidates: runs that are not trained yet.
        differences: (D, M) differences between objectives under each draw; the first is the gain over the reference.
        num_runs: how many to propose.
        taken: names of the runs that exist.
    """
    law, outcomes = next(iter(draws_of.values()))[0], losses_of(draws_of, candidates)

    def chosen_by(costs: FloatArray) -> tuple[list[Choice], Risk]:
        chosen = choose_runs(outcomes, costs, law.run_noise, differences, num_runs)
        return chosen, risk_of(differences[:, 0], float(sum(choice.explained[0] for choice in chosen)))

    chosen, risk = chosen_by(np.array([candidate.flops for candidate in candidates]))
    if risk.is_enough:
        at_any_cost, lower = chosen_by(np.ones(len(candidates)))
        if not lower.is_enough:
            chosen, risk = at_any_cost, lower
    return _next_runs(chosen, candidates, law.domains, taken), risk


def losses_of(draws_of: Mapping[int | None, Sequence[LossLaw]], candidates: Sequence[Candidate]) -> FloatArray:
    """(D, C, V) losses that each draw predicts for each candidate, at the size of its model."""
    sizes = [candidate.place.params for candidate in candidates]
    tokens = np.stack([candidate.tokens for candidate in candidates])
    first = next(iter(draws_of.values()))
    losses = np.empty((len(first), len(candidates), len(first[0].validation_domains)))
    for size in set(sizes):
        here = [index for index, params in enumerate(sizes) if params == size]
        losses[:, here] = Ensemble(draws_of[size]).predict(tokens[here])
    return losses


def _next_runs(
    chosen: Sequence[Choice], candidates: Sequence[Candidate], domains: Sequence[str], taken: Sequence[str]
) -> list[NextRun]:
    """The chosen candidates, each with a seed and a name of its own, and no name in `taken`."""
    runs: list[NextRun] = []
    for position, choice in enumerate(chosen):
        candidate, before = candidates[choice.index], [other.index for other in chosen[:position]]
        seed = candidate.seed + before.count(choice.index)
        runs.append(
            NextRun(
                run=_name_of(candidate, seed, [*taken, *(run.run for run in runs)]),
                repeats=candidate.repeats,
                domain_tokens=named(domains, candidate.tokens),
                seed=seed,
                token_budget=candidate.place.token_budget,
                params=candidate.place.params,
                explained=float(choice.explained[0]),
            )
        )
    return runs


def _name_of(candidate: Candidate, seed: int, taken: Sequence[str]) -> str:
    """The candidate's name, with the seed if that differs; for a new mixture, the next free number at its place."""
    if candidate.run:
        return candidate.run if seed == candidate.seed else f"{candidate.repeats or candidate.run}_seed{seed}"
    names = (f"next{number}_{candidate.place.label}" for number in count())
    return next(name for name in names if name not in taken)


def risk_of(gains: FloatArray, explained: float) -> Risk:
    """The chance that the sign of the expected gain picks the worse of two mixtures, now and after more runs.

    Gains are taken as normal, with the draws' median and 90 % interval, as a few draws can be far off. After runs that
    explain a share R^2 of their variance, the expected gain is normal too: its mean is the present one, and its
    correlation with the true gain is R. The choice is wrong if the two differ in sign.

    Args:
        gains: (D,) gain under each draw.
        explained: R^2.
    """
    low, median, high = np.quantile(gains, MIDDLE_AND_ENDS)
    deviation = (high - low) / (norm.ppf(INTERVAL[1]) - norm.ppf(INTERVAL[0]))
    if deviation == 0:
        return Risk(0.0, 0.0)
    apart = abs(float(median / deviation))
    below = float(norm.cdf(-apart))
    if not 1e-9 < explained < 1 - 1e-9:
        return Risk(below, below if explained < 0.5 else 0.0)
    root = np.sqrt(explained)
    both = multivariate_normal([apart] * 2, [[explained, explained], [explained, 1.0]]).cdf([0.0, 0.0])
    return Risk(below, float(below + norm.cdf(-apart / root) - 2 * both))


def choose_runs(
    outcomes: FloatArray,
    costs: FloatArray,
    run_noise: FloatArray,
    differences: FloatArray,
    num_runs: int,
    *,
    repeatable: bool = True,
) -> list[Choice]:
    """Chooses runs one by one, each for the largest fall in the summed variance of the differences per cost.

    Let g be a difference, Y (V,) the losses of a run, and N the diagonal matrix of the law's squared noise. The run
    lowers the variance of g over draws by cov(g, Y) (cov(Y) + N)^-1 cov(Y, g). The next run is judged by the variance
    that is left.

    Args:
        outcomes: (D, C, V) losses of the runs that might be trained, under each of D draws of a law.
        costs: (C,) costs of these runs, in any unit.
        run_noise: (V,) standard deviation of a run's losses about the law.
        differences: (D, M) differences between objectives of mixtures at the target, under each draw.
        num_runs: how many to choose.
        repeatable: whether a run may be chosen again, with another seed.
    """
    root = np.sqrt(len(outcomes))
    open_losses = (outcomes - outcomes.mean(axis=0)) / root
    open_differences = (differences - differences.mean(axis=0)) / root
    variance = np.sum(open_differences**2, axis=0)  # (M,)
    noise = np.diag(run_noise**2)
    chosen: list[Choice] = []
    for _ in range(num_runs if repeatable else min(num_runs, len(costs))):
        covariance = np.einsum("dcv,dcw->cvw", open_losses, open_losses) + noise
        shared = np.einsum("dm,dcv->cvm", open_differences, open_losses)
        falls = np.sum(shared * np.linalg.solve(covariance, shared), axis=1)  # (C, M)
        value = falls.sum(axis=1) / costs
        if not repeatable:
            value[[choice.index for choice in chosen]] = -1.0
        best = int(np.argmax(value))
        chosen.append(Choice(best, falls[best] / np.maximum(variance, 1e-300)))
        kept = what_is_left(open_losses[:, best], noise)
        open_losses = np.tensordot(kept, open_losses, axes=1)
        open_differences = kept @ open_differences
    return chosen


def what_is_left(deviations: FloatArray, noise: FloatArray) -> FloatArray:
    """(D, D) symmetric matrix that maps deviations over draws to those that a run leaves open.

    Its square is 1 - Y (Y'Y + N)^-1 Y', the update of a normal distribution by the run's losses.

    Args:
        deviations: (D, V) Y, deviations of the run's losses over draws, divided by the root of D.
        noise: (V, V) N, the covariance of the run's noise.
    """
    told = deviations @ np.linalg.solve(deviations.T @ deviations + noise, deviations.T)
    sizes, directions = np.linalg.eigh(np.eye(len(deviations)) - told)
    return (directions * np.sqrt(np.maximum(sizes, 0))) @ directions.T
