"""DoGE: domain weights by how much a step on each domain lowers the losses of the others.

Source: Fan et al. 2024, arXiv 2310.15393, algorithm 1, in the form of the authors' code (github.com/Olivia-fsm/DoGE,
src/trainer.py). At step t, with weights w over K domains and the gradients g_i of the domains' mean losses,

    score_i = sum over j other than i of <g_i, g_j>, over the mean norm of the gradients, no less than 0
    w_i <- w_i exp(learning rate of the step x score_i / mu), over its sum

and the model takes a step on sum_i w_i mean loss_i. The result is the mean of w over all steps.

Departures: rows are drawn as `mixture` says, where the paper has the uniform mixture; a row of domain i counts
w_i / share_i. A domain without a row in a step scores 0. The summed gradient is clipped, not that of each
domain. The model's step uses the weights from before the step, as DoReMi's does here.
"""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.nn.utils import parameters_to_vector

from autoscale_exp.base.arrays import FloatArray
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.reweighting.conf import DogeConf
from autoscale_exp.reweighting.domain_losses import mean_of_rows
from autoscale_exp.reweighting.step_callback import StepCallback

LEAST_NORM = 1e-6  # added to the mean norm of the gradients


def next_weights(weights: FloatArray, products: FloatArray, *, rate: float, largest_score: float) -> FloatArray:
    """(K,) weights after a step with (K, K) inner products of the domains' gradients; see the module.

    Args:
        weights: (K,) weights before the step.
        products: products of each two gradients.
        rate: the step's learning rate over mu.
        largest_score: higher scores count as this.
    """
    squares = products.diagonal()
    scores = (products.sum(axis=1) - squares) / (np.sqrt(squares).mean() + LEAST_NORM)
    ascended = weights * np.exp(rate * np.clip(scores, 0, largest_score))
    return ascended / ascended.sum()


class Doge(StepCallback):
    """Weights the training loss by domain, and moves the weights after each optimiser step.

    The rows of each domain take a pass of their own. So a step takes no more time, but the memory of K gradients.

    Args:
        conf: mu and the largest score.
        shares: (K,) shares of the domains in the run's rows, all positive.

    Attributes:
        weights: (K,) present weights.
        mean_weights: (K,) mean weights over the steps so far.
    """

    def __init__(self, conf: DogeConf, shares: FloatArray) -> None:
        self.conf = conf
        self.shares = shares
        self.weights = np.full(len(shares), 1 / len(shares))
        self.mean_weights = np.zeros(len(shares))
        self._gradients = torch.zeros(0)  # (K, P) gradients of the domains' summed row losses, since the last step
        self._rows = torch.zeros(len(shares))
        self._learning_rate = 0.0

    def batch_loss(self, module: LanguageModel, batch: Batch, keys: torch.Tensor) -> torch.Tensor:
        """Returns the batch's mean loss, each row weighted by its domain, and notes the gradient of each domain."""
        tokens, parameters = batch.tokens.long(), [p for p in module.model.parameters() if p.requires_grad]
        self._learning_rate = module.trainer.optimizers[0].param_groups[0]["lr"]
        loss, gradient = torch.zeros((), device=tokens.device), torch.zeros_like(parameters_to_vector(parameters))
        if not self._gradients.numel():
            self._gradients = gradient.expand(len(self.shares), -1).clone()
        for domain in batch.domains.unique().tolist():
            own = batch.domains == domain
            of_domain = sum_of_rows(module, tokens[own], keys[own])
            parts = torch.autograd.grad(of_domain, parameters, allow_unused=True, materialize_grads=True)
            of_parameters = parameters_to_vector(parts)
            factor = float(self.weights[domain] / self.shares[domain]) / len(tokens)
            loss, gradient = loss + factor * of_domain.detach(), gradient + factor * of_parameters
            if batch.share > 0:
                self._gradients[domain] += of_parameters
                self._rows[domain] += int(own.sum())
        # A loss of this value, whose gradient is the one computed above.
        carrier = parameters_to_vector(parameters) @ gradient.detach()
        return loss + carrier - carrier.detach()

    def on_step_end(self, trainer: Trainer) -> None:
        """Moves the weights."""
        sums, rows = (
            trainer.strategy.reduce(of_devices, reduce_op="sum")
            for of_devices in (self._gradients, self._rows.to(self._gradients.device))
        )
        gradients = sums / rows.clamp(min=1)[:, None]
        self.take_step((gradients @ gradients.T).double().cpu().numpy(), trainer.global_step)
        self._gradients, self._rows = torch.zeros_like(self._gradients), torch.zeros_like(self._rows)

    def take_step(self, products: FloatArray, step: int) -> None:
        """Moves the weights after step number `step`, with (K, K) inner products of the domains' gradients."""
        rate = self._learning_rate / self.conf.mu
        self.weights = next_weights(self.weights, products, rate=rate, largest_score=self.conf.largest_score)
        self.mean_weights += (self.weights - self.mean_weights) / step

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return {"arrays": [array.tolist() for array in (self.weights, self.mean_weights)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the weights of an interrupted run."""
        self.weights, self.mean_weights = (np.array(array) for array in state["arrays"])


def sum_of_rows(module: LanguageModel, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The sum of the mean losses of (B, T) rows."""
    losses, rows = module.token_losses(tokens, keys), module.token_rows(tokens, keys)
    return mean_of_rows(losses, rows, torch.ones(len(tokens), device=losses.device)) * len(tokens)
