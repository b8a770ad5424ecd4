"""The file of a fit, fit.json: the mixture at each scale and target, how sure it is, and diagnostics of the fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import short_label
from autoscale_exp.base.versioned import parse, read_versioned, write_versioned
from autoscale_exp.laws.objective import Objective, make_objective
from autoscale_exp.laws.optimum import Optimum

FORMAT = 2
FIT = "fit.json"
LEAST_FALL = 0.01  # in the chance of a wrong choice; more runs are not worth training for less
REMEDY = "run `python -m autoscale_exp.fit` again"


@dataclass(frozen=True)
class FitObjective:
    """The objective of a fit. `metric` and `weights` (by validation domain) are None for given optima."""

    name: str
    metric: str | None
    weights: dict[str, float] | None
    aggregate: str = "mean"

    @staticmethod
    def of(objective: Objective, validation_domains: Sequence[str]) -> "FitObjective":
        """Describes an objective over `validation_domains`."""
        weights = named(validation_domains, objective.weights)
        return FitObjective(objective.name, objective.metric, weights, objective.aggregate)

    def over(self, validation_domains: Sequence[str]) -> Objective | None:
        """Returns the objective over `validation_domains`, in their order; None for given optima."""
        if self.metric is None or self.weights is None:
            return None
        return make_objective(self.name, self.metric, self.weights, validation_domains, self.aggregate)


@dataclass(frozen=True)
class Gain:
    """How much lower the objective is than under a reference mixture.

    Attributes:
        median: the median over draws, which a few extreme draws do not move.
        interval: 90 % interval over draws.
        probability: the share of draws in which the objective is lower.
        relative: the median gain, as a share of the median of the reference's objective.
    """

    median: float
    interval: tuple[float, float]
    probability: float
    relative: float


@dataclass(frozen=True)
class NextRun:
    """A proxy run to train next, which would tell much of the gain.

    Attributes:
        run: the name of the run.
        repeats: the finished run that it repeats with another seed; None if no run has these domain tokens.
        domain_tokens: the domain tokens that it trains on.
        seed: seed of initialisation and order of rows.
        token_budget: token budget of its scale; the domain tokens of a DDO run have another sum.
        params: parameters of its model; None if the runs do not tell theirs.
        explained: share of the gain's variance over draws that its losses would explain, given the runs before it.
        command: the command that trains it; None if the runs' folder does not tell how they were trained.
    """

    run: str
    repeats: str | None
    domain_tokens: dict[str, float]
    seed: int
    token_budget: int
    explained: float
    params: int | None = None
    command: str | None = None


@dataclass(frozen=True)
class Risk:
    """The chance that the choice between the mixture and uniform is wrong.

    Attributes:
        now: the chance with the present runs.
        after: the chance expected once the proposed runs are trained.
    """

    now: float
    after: float

    @property
    def is_enough(self) -> bool:
        """Whether the proposed runs would lower the chance so little that they are not worth training."""
        return self.now - self.after < LEAST_FALL


@dataclass(frozen=True)
class FittedMixture:
    """The mixture offered at a token budget, with what the law tells of it. What it does not tell is None.

    Attributes:
        tokens: token budget.
        weights: shares of the budget by domain; they sum to 1.
        domain_tokens: weights times budget, by domain.
        objective_value: the objective that the law expects.
        active_bounds: the constraints that are active, in words.
        interval: 90 % intervals of the weights, by domain.
        method: the method that found it.
        kkt_residual: largest violation of the optimality conditions, relative.
        converged: whether it is an optimum to tolerance.
        convex: whether that optimum is global.
        point_weights: the optimum of the point estimate, by domain.
        loss_weights: the optimum under mean loss, if the objective is of perplexity.
        perplexity_weights: the optimum under mean perplexity, if the objective is of loss.
        losses: expected losses, by validation domain.
        loss_intervals: 90 % intervals of these.
        objective_interval: 90 % interval of the objective.
        gains: gains over the uniform and the base mixture.
        verdict: the verdict in a sentence.
        next_runs: the proxy runs that would tell most per FLOP of how mixtures compare here, best first.
        risk: the chance that the choice between this mixture and uniform is wrong.
        runs: number of runs at this scale; None for a target.
        params: parameters of the models that it is for; None if the runs do not tell.
    """

    tokens: int
    weights: dict[str, float]
    domain_tokens: dict[str, float]
    objective_value: float | None
    active_bounds: list[str]
    interval: dict[str, tuple[float, float]] | None
    method: str
    kkt_residual: float | None
    converged: bool | None = None
    convex: bool | None = None
    point_weights: dict[str, float] | None = None
    loss_weights: dict[str, float] | None = None
    perplexity_weights: dict[str, float] | None = None
    losses: dict[str, float] | None = None
    loss_intervals: dict[str, tuple[float, float]] | None = None
    objective_interval: tuple[float, float] | None = None
    gains: dict[str, Gain] | None = None
    verdict: str | None = None
    next_runs: list[NextRun] | None = None
    risk: Risk | None = None
    runs: int | None = None
    params: int | None = None

    @staticmethod
    def of(optimum: Optimum, domains: Sequence[str], interval: FloatArray | None = None) -> "FittedMixture":
        """Makes the entry of an optimum over `domains`; `interval` has the (2, K) ends of its weights' intervals."""
        return FittedMixture(
            tokens=optimum.tokens,
            weights=named(domains, optimum.weights),
            domain_tokens=named(domains, optimum.weights * optimum.tokens),
            objective_value=optimum.objective_value,
            active_bounds=optimum.active_bounds,
            interval=None if interval is None else dict(zip(domains, interval.T.tolist(), strict=True)),
            method=optimum.method,
            kkt_residual=optimum.kkt_residual,
        )

    def with_runs(self, count: int) -> "FittedMixture":
        """Returns the entry of a scale with `count` runs."""
        return replace(self, runs=count)

    @property
    def label(self) -> str:
        """The budget and, if it is known, the size, such as '20B tokens, 310M parameters'."""
        return f"{short_label(self.tokens)} tokens" + (
            f", {short_label(self.params)} parameters" if self.params else ""
        )

    @property
    def is_open(self) -> bool:
        """Whether it cannot be told apart from uniform yet, and the proposed runs may change that."""
        untold = self.verdict is not None and self.verdict.startswith("cannot be told apart")
        return untold and bool(self.next_runs) and not (self.risk and self.risk.is_enough)

    def weights_under(self, metric: str) -> dict[str, float] | None:
        """Returns the optimum under the mean of the other metric than the objective's."""
        return self.loss_weights if metric == "loss" else self.perplexity_weights


@dataclass(frozen=True)
class Response:
    """One domain's response at one scale, in multiples of the base run's tokens and objective.

    Attributes:
        domain: the domain.
        points: (tokens, objective) of proxy runs.
        curve: (tokens, objective) under the law.
        offset: a of DDO's response (a + x)^-gamma + l; None, like the rest, for other laws.
        exponent: gamma.
        floor: l.
        residual: root mean square of the points about the curve.
    """

    domain: str
    points: list[tuple[float, float]]
    curve: list[tuple[float, float]]
    offset: float | None = None
    exponent: float | None = None
    floor: float | None = None
    residual: float | None = None

    @staticmethod
    def of(
        domain: str,
        points: Sequence[tuple[float, float]],
        curve: Callable[[FloatArray], FloatArray],
        **parameters: float,
    ) -> "Response":
        """Makes a response with the law's curve a little beyond the points. A run without the domain has no point."""
        drawn = [(x, y) for x, y in points if x > 0]
        multiples = [x for x, _ in drawn]
        x = np.geomspace(min(multiples) / 1.3, max(multiples) * 1.3, 40)
        return Response(domain, drawn, np.stack([x, curve(x)], axis=1).tolist(), **parameters)


@dataclass(frozen=True)
class Backtest:
    """The errors of a law at runs that it was not fitted to.

    Attributes:
        left_out: the runs left out, in words: those of the largest budget, of the largest model size, or of both.
        tokens: median tokens of the runs left out.
        runs: number of runs left out.
        level_error: mean of the predicted less the true objective.
        difference_error: root mean square error of the runs' differences from their mean.
        difference_spread: root mean square of the true differences, to compare with.
    """

    left_out: str
    tokens: int
    runs: int
    level_error: float
    difference_error: float
    difference_spread: float


@dataclass(frozen=True)
class Diagnostics:
    """What to know before trusting a fit. What the law does not tell is None.

    Attributes:
        notes: notes in words.
        num_runs: number of runs that the law was fitted to.
        converged: whether the fit of the law converged.
        num_params: number of the law's parameters.
        base_mixture: weights by domain of the mixture that proxy runs vary.
        residual: standard deviation of the objective about the law.
        run_noise: standard deviation of a single run's losses, by validation domain.
        seed_noise: standard deviation of the objective over repeated runs.
        path_residual: residual of AutoScale's path through more than two scales, in log tokens.
        backtest: the back-test without the largest budget or, with several model sizes, without the largest size.
        further_backtests: with several model sizes, the back-tests without the largest budget and without both.
        responses: responses by scale and domain, if the runs hold a DDO design.
        scale_identified: whether the runs tell how losses fall with the budget.
        shared_noise: correlation of a run's deviations between validation domains.
        noise_exponent: the power of the budget that noise is proportional to.
    """

    notes: list[str]
    num_runs: int | None = None
    converged: bool | None = None
    num_params: int | None = None
    base_mixture: dict[str, float] | None = None
    residual: float | None = None
    run_noise: dict[str, float] | None = None
    seed_noise: float | None = None
    path_residual: float | None = None
    backtest: Backtest | None = None
    further_backtests: list[Backtest] = field(default_factory=list)
    responses: list[list[Response]] = field(default_factory=list)
    scale_identified: bool | None = None
    shared_noise: float | None = None
    noise_exponent: float | None = None


@dataclass(frozen=True)
class Fit:
    """A fit, as fit.json holds it.

    Attributes:
        law: name of the law.
        objective: the objective.
        domains: (K,) names, in the order of data.domains.
        scales: the optimum at each scale of the runs, smallest first; of models of several sizes, by compute.
        targets: the mixture at each token budget asked for, in that order, then at those of earlier fits.
        diagnostics: what to know before trusting the fit.
        overrides: overrides of the command that made the fit, as typed.
    """

    law: str
    objective: FitObjective
    domains: list[str]
    scales: list[FittedMixture]
    targets: list[FittedMixture]
    diagnostics: Diagnostics
    overrides: list[str] = field(default_factory=list)

    @property
    def most_tokens(self) -> int:
        """Tokens of the scale that has most; a larger model's may have fewer."""
        return max(scale.tokens for scale in self.scales)


def write_fit(folder: Path, fit: Fit) -> None:
    """Writes fit.json."""
    write_versioned(folder / FIT, fit, FORMAT)


def read_fit(folder: Path, key: str) -> Fit:
    """Reads the fit in a folder that the config names by `key`.

    Raises:
        UserError: the folder has no fit, or the file is damaged or of another format.
    """
    path = folder / FIT
    if not path.is_file():
        raise UserError(f"{key} is '{folder}', which has no {FIT}; run `python -m autoscale_exp.fit` first")
    return parse(path, read_versioned(path, FORMAT, REMEDY), Fit, REMEDY)


def named(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    """Returns values by name."""
    return dict(zip(names, values.tolist(), strict=True))
