"""The design of the runs that a fit proposes: those that tell most per FLOP of how mixtures compare at its target."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.errors import UserError
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import DesignConf, RunRequest, RunSpec
from autoscale_exp.runs.proposal import Proposal, read_proposals


@dataclass
class OptimalConf(DesignConf):
    """The runs that a fit proposes, in its order, the most telling first."""

    path: str = ""  # next_runs/<target tokens>.csv in the folder of a fit
    num_runs: int | None = None  # how many to train, from the first; null: all
    params: int | None = None  # only the runs of models with so many parameters; null: all, if they have one size


@dataclass(frozen=True, kw_only=True)
class ProposedRun(RunSpec):
    """A proposed run.

    Attributes:
        proposal: the proposal that the run carries out.
    """

    proposal: Proposal

    def weights(self, base: FloatArray, caps: FloatArray) -> FloatArray:
        """(K,) domain tokens as shares of the budget; see `RunSpec`. Those of a DDO run need not sum to 1."""
        return np.array(self.proposal.tokens) / self.token_budget


def optimal_runs(design: OptimalConf, request: RunRequest) -> list[RunSpec]:
    """Lists the proposed runs.

    Source: greedy V-optimal design; see `laws.next_runs`, which chooses them.

    Raises:
        UserError: their table cannot be read, has fewer than num_runs, or not those of one size of models.
    """
    path, all_proposals = (
        Path(design.path).expanduser(),
        read_proposals(Path(design.path).expanduser(), request.domains),
    )
    sizes = list(dict.fromkeys(proposal.params for proposal in all_proposals))
    if (design.params is None and len(sizes) > 1) or (design.params is not None and design.params not in sizes):
        listed = ", ".join(map(str, sizes))
        raise UserError(
            f"design.params is {design.params}, but '{path}' has runs of models with {listed} parameters; give one of "
            "these, and train a size at a time with its model"
        )
    proposals = [proposal for proposal in all_proposals if design.params in (None, proposal.params)]
    check_range({"design.num_runs": design.num_runs}, 1, len(proposals))
    unchanged = (1.0,) * len(request.domains)
    return [
        ProposedRun(p.run, p.token_budget, unchanged, p.seed, p.params, proposal=p)
        for p in proposals[: design.num_runs]
    ]
