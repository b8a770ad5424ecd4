"""What a fit found, fit.json: the mixture at each scale and target, how sure it is, and what to know of the fit."""

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
LEAST_FALL = 0.01  # of the chance of a wrong choice, below which more runs are not worth it
REMEDY = "run `python -m autoscale_exp.fit` again"


@dataclass(frozen=True)
class FitObjective:
    """What was minimised. `metric` and `weights` (by validation domain) are None for given optima."""

    name: str
    metric: str | None
    weights: dict[str, float] | None
    aggregate: str = "mean"

    @staticmethod
    def of(objective: Objective, validation_domains: Sequence[str]) -> "FitObjective":
        """An objective over `validation_domains` as a fit tells of it."""
        weights = named(validation_domains, objective.weights)
        return FitObjective(objective.name, objective.metric, weights, objective.aggregate)

    def over(self, validation_domains: Sequence[str]) -> Objective | None:
        """The objective over `validation_domains`, in their order; None for given optima."""
        if self.metric is None or self.weights is None:
            return None
        return make_objective(self.name, self.metric, self.weights, validation_domains, self.aggregate)


@dataclass(frozen=True)
class Gain:
    """How much lower the objective is than under a reference mixture.

    Attributes:
        median: over draws, which a few draws that are far off do not move.
        interval: 90 % of draws.
        probability: share of draws in which it is lower.
        relative: median, as a share of the median of the reference's objective.
    """

    median: float
    interval: tuple[float, float]
    probability: float
    relative: float


@dataclass(frozen=True)
class NextRun:
    """A proxy run that is not trained yet and would tell much of the gain.

    Attributes:
        run: name that it would have.
        repeats: the finished run that it repeats with another seed; None for amounts that no run has.
        domain_tokens: that it trains on.
        seed: of initialisation and order.
        token_budget: of its scale; a DDO run's amounts sum to another number.
        params: parameters of its model; None where the runs do not tell theirs.
        explained: share of the gain's variance over draws that its losses would explain, given the runs before it.
        command: that trains it; None where the runs' folder does not tell how they were trained.
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
        now: with the runs there are.
        after: expected once the proposed runs are trained.
    """

    now: float
    after: float

    @property
    def is_enough(self) -> bool:
        """Whether the proposed runs would change so little that they are not worth training."""
        return self.now - self.after < LEAST_FALL


@dataclass(frozen=True)
class FittedMixture:
    """The mixture offered at a token budget, and what is known of it; by domain. None: the law does not tell.

    Attributes:
        tokens: the budget.
        weights: shares of the budget; they sum to 1.
        domain_tokens: weights times budget.
        objective_value: that the law expects of it.
        active_bounds: what holds it, in words.
        interval: 90 % intervals of the weights.
        method: how it was found.
        kkt_residual: largest violation of the optimality conditions.
        converged: whether it is an optimum to tolerance.
        convex: whether that optimum is global.
        point_weights: the optimum of the point estimate.
        loss_weights: the optimum under mean loss, if the objective is of perplexity.
        perplexity_weights: the optimum under mean perplexity, if the objective is of loss.
        losses: expected, by validation domain.
        loss_intervals: 90 % intervals of these.
        objective_interval: 90 % interval of the objective.
        gains: over the uniform and the base mixture.
        verdict: a sentence for whoever decides.
        next_runs: the proxy runs that would tell most per FLOP of how mixtures compare here, best first.
        risk: that the choice between this mixture and uniform is wrong.
        runs: at this scale; None for a target.
        params: parameters of the models that it is for; None where the runs do not tell.
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
        """An optimum over `domains`; `interval` (2, K) is of its weights."""
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
        """The same, of a scale with so many runs."""
        return replace(self, runs=count)

    @property
    def label(self) -> str:
        """Budget and, where it is known, size, such as '20B tokens, 310M parameters'."""
        return f"{short_label(self.tokens)} tokens" + (
            f", {short_label(self.params)} parameters" if self.params else ""
        )

    @property
    def is_open(self) -> bool:
        """Whether it cannot be told apart from uniform yet, and the proposed runs may change that."""
        untold = self.verdict is not None and self.verdict.startswith("cannot be told apart")
        return untold and bool(self.next_runs) and not (self.risk and self.risk.is_enough)

    def weights_under(self, metric: str) -> dict[str, float] | None:
        """The optimum under the mean of the metric that the objective is not of."""
        return self.loss_weights if metric == "loss" else self.perplexity_weights


@dataclass(frozen=True)
class Response:
    """One domain's response at one scale, in multiples of the base run's tokens and objective.

    Attributes:
        domain: name.
        points: (tokens, objective) of proxy runs.
        curve: the same of the law.
        offset: a of DDO's response (a + x)^-gamma + l; None, like the rest, of other laws.
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
        """Points and the curve of a law, drawn a little beyond them; a run without the domain is on no log axis."""
        drawn = [(x, y) for x, y in points if x > 0]
        multiples = [x for x, _ in drawn]
        x = np.geomspace(min(multiples) / 1.3, max(multiples) * 1.3, 40)
        return Response(domain, drawn, np.stack([x, curve(x)], axis=1).tolist(), **parameters)


@dataclass(frozen=True)
class Backtest:
    """Errors at runs that a law has not seen, which was fitted to the others.

    Attributes:
        left_out: which runs: of the largest budget, the largest size of model, or both.
        tokens: of the runs left out, the median.
        runs: predicted.
        level_error: mean of predicted less true objective.
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
    """What to know before trusting a fit. None: the law does not tell.

    Attributes:
        notes: in words.
        num_runs: fitted to.
        converged: whether the law's fit did.
        num_params: of the law.
        base_mixture: that proxy runs vary.
        residual: standard deviation of the objective about the law.
        run_noise: of a single run's losses, by validation domain.
        seed_noise: standard deviation of the objective over repeated runs.
        path_residual: of AutoScale's path through more than two scales, in log tokens.
        backtest: without the largest budget, or, of runs of several sizes, without the largest size.
        further_backtests: of runs of several sizes, without the largest budget, and without both.
        responses: by scale and domain, where the runs hold a DDO design.
        scale_identified: whether the runs tell how losses fall with the budget.
        shared_noise: correlation of a run's deviations between validation domains.
        noise_exponent: noise goes as the budget to this power.
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
    """A fit: see the classes above.

    Attributes:
        law: name.
        objective: what was minimised.
        domains: (K,) names, in the order of data.domains.
        scales: the optimum at each scale of the runs, smallest first.
        targets: the mixture at each token budget asked for, in that order, then at those of earlier fits.
        diagnostics: what to know.
        overrides: of the command that made it, as typed.
    """

    law: str
    objective: FitObjective
    domains: list[str]
    scales: list[FittedMixture]
    targets: list[FittedMixture]
    diagnostics: Diagnostics
    overrides: list[str] = field(default_factory=list)


def write_fit(folder: Path, fit: Fit) -> None:
    """Writes fit.json."""
    write_versioned(folder / FIT, fit, FORMAT)


def read_fit(folder: Path, key: str) -> Fit:
    """The fit in a folder that the config names by `key`.

    Raises:
        UserError: there is none, or it is damaged or of another format.
    """
    path = folder / FIT
    if not path.is_file():
        raise UserError(f"{key} is '{folder}', which has no {FIT}; run `python -m autoscale_exp.fit` first")
    return parse(path, read_versioned(path, FORMAT, REMEDY), Fit, REMEDY)


def named(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    """Values by name."""
    return dict(zip(names, values.tolist(), strict=True))
