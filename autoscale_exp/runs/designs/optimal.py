"""The design of the runs that a fit proposes, to tell most per token of how mixtures compare at its target."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.base.ranges import check_range
from autoscale_exp.runs.design import DesignConf, RunRequest, RunSpec
from autoscale_exp.runs.proposal import Proposal, read_proposals


@dataclass
class OptimalConf(DesignConf):
    """The runs that a fit proposes, in its order: the more of them, the more is known."""

    path: str = ""  # next_runs/<target tokens>.csv in the folder of a fit
    num_runs: int | None = None  # the first so many; null: all


@dataclass(frozen=True, kw_only=True)
class ProposedRun(RunSpec):
    """A proposed run.

    Attributes:
        proposal: what it is to be trained on.
    """

    proposal: Proposal

    def weights(self, base: FloatArray, caps: FloatArray) -> FloatArray:
        """(K,) its domain tokens as shares of the budget; see `RunSpec`. Those of a DDO run need not sum to 1."""
        return np.array(self.proposal.tokens) / self.token_budget


def optimal_runs(design: OptimalConf, request: RunRequest) -> list[RunSpec]:
    """The proposed runs.

    Source: greedy V-optimal design; see `laws.next_runs`, which chooses them.

    Raises:
        UserError: their table cannot be read, or has fewer than num_runs.
    """
    proposals = read_proposals(Path(design.path).expanduser(), request.domains)
    check_range({"design.num_runs": design.num_runs}, 1, len(proposals))
    unchanged = (1.0,) * len(request.domains)
    return [
        ProposedRun(proposal.run, proposal.token_budget, unchanged, proposal.seed, proposal=proposal)
        for proposal in proposals[: design.num_runs]
    ]
