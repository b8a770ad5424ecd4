"""The design of a swarm: mixtures drawn at random about the base mixture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.labels import budget_label
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import RunRequest, RunSpec, ScaledDesignConf, base_runs, check_scales

NUM_STRENGTHS = 15  # evenly spaced in their logarithm, as in RegMix and Olmix
NUM_ATTEMPTS = 2000  # draws for one run at most


@dataclass
class DirichletConf(ScaledDesignConf):
    """At each scale a base run, and mixtures drawn from Dirichlet distributions about the base mixture."""

    num_runs: int = 0  # mixtures to draw for each scale
    min_strength: float = 0.1  # times the base weights: parameters of the distribution; low ones give lopsided mixtures
    max_strength: float = 5.0  # a run has one of 15 strengths between the two, evenly spaced in their logarithm
    min_weight: float = 2e-3  # smaller weights are set to 0
    min_distance: float = 0.01  # least Euclidean distance between the weights of any two runs of a scale
    draw_seed: int = 0  # seed of the mixtures; `seed` is that of training


@dataclass(frozen=True)
class Swarm:
    """The distribution of the mixtures of one scale.

    Attributes:
        budget: tokens of each run.
        domains: (K,) training domains.
        base: (K,) weights of the base mixture.
        caps: (K,) largest weights that the text allows with max_epochs.
        strengths: the lowest and the highest strength.
        min_weight: smaller weights are 0.
        min_distance: least distance between any two mixtures.
        seed: seed of the draws.
    """

    budget: int
    domains: tuple[str, ...]
    base: tuple[float, ...]
    caps: tuple[float, ...]
    strengths: tuple[float, float]
    min_weight: float
    min_distance: float
    seed: int

    def draw(self, number: int, before: FloatArray) -> FloatArray:
        """Draws the (K,) weights of mixture `number`, at a distance from the (N, K) mixtures `before`.

        Each mixture has random numbers of its own, so it does not depend on how many mixtures there are.

        Raises:
            UserError: no drawn mixture is within the caps and away from the others.
        """
        rng = np.random.default_rng([self.seed, self.budget, number])
        strengths, base = np.geomspace(*self.strengths, NUM_STRENGTHS), np.array(self.base)
        refused: Counter[str] = Counter()
        for _ in range(NUM_ATTEMPTS):
            weights = np.zeros(len(base))
            weights[base > 0] = rng.dirichlet(strengths[rng.integers(NUM_STRENGTHS)] * base[base > 0])
            weights[weights < self.min_weight] = 0
            weights /= weights.sum()
            excess = weights - self.caps
            if excess.max() > 0:
                refused[f"ask for more than max_epochs of '{self.domains[int(excess.argmax())]}'"] += 1
            elif np.linalg.norm(before - weights, axis=1).min() < self.min_distance:
                refused[f"are nearer than design.min_distance {self.min_distance:g} to another run"] += 1
            else:
                return weights
        listed = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        raise UserError(
            f"design.scales has {self.budget}: none of {NUM_ATTEMPTS} mixtures drawn for run {number} of the swarm "
            f"can be used: {listed}; raise max_epochs, or lower that budget, design.num_runs or design.min_distance"
        )


@lru_cache(maxsize=10_000)  # a sweep plans its runs one after the other, and each keeps away from all before it
def swarm_mixture(swarm: Swarm, number: int) -> FloatArray:
    """(K,) weights of mixture `number` of a swarm."""
    return swarm.draw(number, np.array([swarm.base, *(swarm_mixture(swarm, before) for before in range(number))]))


@dataclass(frozen=True, kw_only=True)
class SwarmRun(RunSpec):
    """A run of a swarm.

    Attributes:
        number: number of the run in the swarm of its scale.
        design: the design of the run.
        domains: (K,) training domains.
    """

    number: int
    design: DirichletConf
    domains: Sequence[str]

    def weights(self, base: FloatArray, caps: FloatArray) -> FloatArray:
        """(K,) weights drawn for this run; see `RunSpec`.

        Raises:
            UserError: the domains have too little text for the run, or for its swarm.
        """
        if caps.sum() < 1:
            raise UserError(
                f"run '{self.run}': max_epochs of all text are only {caps.sum():.3g} of its tokens; raise "
                "max_epochs, or lower that budget in design.scales"
            )
        design = self.design
        swarm = Swarm(
            self.token_budget,
            tuple(self.domains),
            tuple(base.tolist()),
            tuple(caps.tolist()),
            (design.min_strength, design.max_strength),
            design.min_weight,
            design.min_distance,
            design.draw_seed,
        )
        return swarm_mixture(swarm, self.number)


def dirichlet_runs(design: DirichletConf, request: RunRequest) -> list[RunSpec]:
    """Lists the base runs of each scale, then mixture after mixture at each scale. Run k does not depend on num_runs.

    Source: RegMix (arXiv 2407.01492; sail-sg/regmix, mixture_config/synthesize_mixture.py) and Olmix (arXiv 2602.12237;
    allenai/olmix, olmix/launch/synthesize_mixture.py): weights are Dirichlet with parameters strength x prior, small
    ones are set to 0, mixtures beyond what the domains' text allows or near to another are drawn again. The prior is
    the base mixture: RegMix's are the natural shares to the power 1/2, mixture=temperature mixture.temperature=2, and
    Olmix's mixture=natural. Departures: a base run, nesting, and no rounding of weights, as rows are whole anyway.

    Raises:
        UserError: a value is out of range.
    """
    check_scales(design.scales)
    check_range({"design.num_runs": design.num_runs, "design.base_repeats": design.base_repeats}, 0)
    check_range({"design.draw_seed": design.draw_seed, "design.min_distance": design.min_distance}, 0)
    if not 0 < design.min_strength <= design.max_strength < np.inf:
        raise UserError(
            f"design.min_strength is {design.min_strength} and design.max_strength {design.max_strength}; they must be "
            "positive numbers, the second not below the first"
        )
    if not 0 <= design.min_weight < 1 / len(request.domains):
        raise UserError(
            f"design.min_weight is {design.min_weight}; it must be at least 0 and below 1 / {len(request.domains)}, "
            "what each domain has in a uniform mixture"
        )
    runs = [run for budget in design.scales for run in base_runs(budget, design.base_repeats, request)]
    unchanged = (1.0,) * len(request.domains)
    return runs + [
        SwarmRun(
            f"swarm{number:03d}_{budget_label(budget)}",
            budget,
            unchanged,
            number=number,
            design=design,
            domains=request.domains,
        )
        for number in range(design.num_runs)
        for budget in design.scales
    ]
