"""ADO: power laws of the domains' training losses steer the mixture during the run.

Source: Jiang et al. 2024, arXiv 2410.11820, algorithm 1. With the prior p, at each step t,

    history h <- (1 - history_rate) h + history_rate w, w the weights of the step before
    preference r_i in proportion to p_i h_i^credit_exponent speed_i, none below least_weight
    weights w <- policy_rate r + (1 - policy_rate) mean of r

where speed_i = -dL_i/dn by the domain's law, with n the rows of all domains. History, weights and mean begin as the
prior. As in the authors' code (github.com/yidingjiang/ado) the running mean is of the preferences, and a domain that a
step lacks keeps its last loss. The laws are fitted again after each interval. Between two fits the weights of all steps
are known. So an interval is one stage of the sampler, with exactly the rows that its steps' weights add up to.

Departures: the code has sqrt(h (1 - h)) for sqrt(h), and no exponent below .05. A domain whose pool has been used
`max_epochs` times gives its rows to the others; the record has requested and realised tokens.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.mixture.growing_sampler import GrowingSampler, rows_within
from autoscale_exp.reweighting.conf import AdoConf
from autoscale_exp.reweighting.domain_losses import DomainLosses, mean_of_rows
from autoscale_exp.reweighting.loss_law import LossLaw, fit_loss_law, smoothed
from autoscale_exp.reweighting.step_callback import StepCallback

FITTED_STEPS = 10  # every tenth loss is fitted, or ten losses of an interval that is shorter

log = logging.getLogger(__name__)


class Policy:
    """Sets the weights of each step; see the module.

    Args:
        conf: rates, exponent and least weight.
        prior: (K,) weights that the run starts with.

    Attributes:
        weights: (K,) weights of the last step.
    """

    def __init__(self, conf: AdoConf, prior: FloatArray) -> None:
        self.conf = conf
        self.prior = self.weights = self.history = self.mean_preference = prior

    def take_step(self, speeds: FloatArray, step: int) -> FloatArray:
        """Returns the (K,) weights after `step` steps, at (K,) speeds; if no loss falls, the prior is preferred."""
        conf = self.conf
        self.history = (1 - conf.history_rate) * self.history + conf.history_rate * self.weights
        preference = self.prior * self.history**conf.credit_exponent * speeds
        preference = preference / preference.sum() if preference.sum() > 0 else self.prior
        preference = np.maximum(preference, conf.least_weight)
        preference /= preference.sum()
        self.weights = conf.policy_rate * preference + (1 - conf.policy_rate) * self.mean_preference
        self.mean_preference = self.mean_preference + (preference - self.mean_preference) / (step + 1)
        return self.weights

    def of_interval(self, laws: Sequence[LossLaw], steps: range, step_rows: int) -> FloatArray:
        """(K,) mean weights of the steps of an interval."""
        num_rows = np.arange(steps.start, steps.stop, dtype=np.float64) * step_rows
        speeds = np.stack([law.speed(num_rows) for law in laws], axis=1)  # (steps, K)
        return np.mean([self.take_step(*of_step) for of_step in zip(speeds, steps, strict=True)], axis=0)


class Ado(StepCallback):
    """Notes the losses of each step, and gives the sampler its next stage at the end of each interval.

    Args:
        conf: config of the method.
        sampler: the sampler of the run, to which the method adds stages.
        prior: (K,) weights that the run starts with.
        domains: (K,) names.
        step_rows: rows of an optimiser step.
        num_steps: optimiser steps of the run.

    Attributes:
        stage_weights: (K,) requested weights of each stage so far.
    """

    def __init__(
        self,
        conf: AdoConf,
        sampler: GrowingSampler,
        prior: FloatArray,
        *,
        domains: Sequence[str],
        step_rows: int,
        num_steps: int,
    ) -> None:
        self.sampler = sampler
        self.policy = Policy(conf, prior)
        self.domains = domains
        self.step_rows = step_rows
        self.stage_weights: list[FloatArray] = []
        edges = [round(num_steps * edge / conf.num_intervals) for edge in range(conf.num_intervals + 1)]
        self._ignored_steps = edges[conf.ignored_intervals]
        self._edges = edges[conf.ignored_intervals + 1 :]  # steps at which stages end
        self._stride = max(1, min(FITTED_STEPS, edges[1] // FITTED_STEPS))
        self._losses = DomainLosses(len(prior))
        self._of_steps: list[FloatArray] = []  # (K,) mean losses of each step
        self._tell_stage(prior)

    def batch_loss(self, module: LanguageModel, batch: Batch, keys: torch.Tensor) -> torch.Tensor:
        """Returns the batch's mean loss, and notes the losses by domain."""
        tokens = batch.tokens.long()
        losses, rows = module.token_losses(tokens, keys), module.token_rows(tokens, keys)
        self._losses.add(losses, batch.domains[rows], counted=batch.share > 0)
        return mean_of_rows(losses, rows, torch.ones(len(tokens), device=losses.device))

    def on_step_end(self, trainer: Trainer) -> None:
        """Notes the losses of the step, and adds the next stage at the end of an interval."""
        self.take_step(*self._losses.take(trainer))

    def take_step(self, sums: FloatArray, counts: Int64Array) -> None:
        """Takes (K,) sums of losses over (K,) tokens of a step."""
        before = self._of_steps[-1] if self._of_steps else np.full(len(sums), sums.sum() / counts.sum())
        self._of_steps.append(np.where(counts > 0, sums / np.maximum(counts, 1), before))
        step = len(self._of_steps)
        if step in self._edges[:-1]:
            steps = range(step, self._edges[len(self.stage_weights)])
            self._tell_stage(self.policy.of_interval(self._fit_laws(), steps, self.step_rows))

    def _fit_laws(self) -> list[LossLaw]:
        """Fits (K,) laws to the losses so far."""
        fitted = slice(self._ignored_steps, None, self._stride)
        num_rows = np.arange(1, len(self._of_steps) + 1, dtype=np.float64)[fitted] * self.step_rows
        return [fit_loss_law(num_rows, losses) for losses in smoothed(np.array(self._of_steps))[fitted].T]

    def _tell_stage(self, weights: FloatArray) -> None:
        """Adds the stage that ends at the next edge."""
        end = min(self._edges[len(self.stage_weights)] * self.step_rows, self.sampler.num_rows)
        num_rows, limits = end - self.sampler.known_rows, self.sampler.left()
        short = [d for d, asked, left in zip(self.domains, weights * num_rows, limits, strict=True) if asked > left]
        if short:
            log.warning(
                "from row %d on, %s cannot give what ADO asks for: the text has been gone through max_epochs times; "
                "the other domains give it",
                self.sampler.known_rows,
                " and ".join(f"'{domain}'" for domain in short),
            )
        self.stage_weights.append(weights)
        self.sampler.append(rows_within(weights, num_rows, limits))

    def requested_rows(self) -> FloatArray:
        """(S, K) requested rows of each stage."""
        return np.array(self.stage_weights) * self.sampler.sampler.stage_counts.sum(axis=1, keepdims=True)

    def state_dict(self) -> dict[str, Any]:
        """The stages, and all that the next ones depend on."""
        policy = self.policy
        return {
            "stage_counts": self.sampler.sampler.stage_counts.tolist(),
            "stage_weights": [weights.tolist() for weights in self.stage_weights],
            "policy": [of.tolist() for of in (policy.weights, policy.history, policy.mean_preference)],
            "losses": torch.from_numpy(np.array(self._of_steps)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the stages of an interrupted run."""
        self.sampler.sampler = self.sampler.sampler.with_stages(state["stage_counts"])
        self.stage_weights = [np.array(weights) for weights in state["stage_weights"]]
        policy = self.policy
        policy.weights, policy.history, policy.mean_preference = (np.array(of) for of in state["policy"])
        self._of_steps = list(state["losses"].numpy())
