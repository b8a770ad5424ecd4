"""DoReMi: domain weights by Group DRO on the excess loss of a proxy run over a reference run.

Source: Xie et al. 2023, arXiv 2305.10429, algorithm 1. At step t, with weights w over K domains,

    excess_i = mean over the step's tokens of domain i of max(loss - loss of the reference, 0)
    w_i <- w_i exp(step_size excess_i), over its sum
    w_i <- (1 - smoothing) w_i + smoothing / K

and the model takes a step on sum_i w_i mean loss_i. The result is the mean of w over all steps.

As in the authors' code, a domain with no token in a step keeps its excess, which is log(vocabulary) before its first.
Departures: rows are drawn as `mixture` says, where the paper has the uniform mixture; a row of domain i counts
w_i / share_i, whose expectation is the paper's sum of means, even if batches lack a domain. The model's step uses
the weights from before the step, which are known and the same for all its micro-batches.
"""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer

from autoscale_exp.base.arrays import FloatArray, Int64Array
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.reweighting.conf import DoremiConf
from autoscale_exp.reweighting.domain_losses import DomainLosses, mean_of_rows
from autoscale_exp.reweighting.step_callback import StepCallback

CURVE_POINTS = 100  # points of the curve of weights in the record


def next_weights(weights: FloatArray, excess: FloatArray, *, step_size: float, smoothing: float) -> FloatArray:
    """(K,) weights after a step with (K,) excess losses in nats; arXiv 2305.10429, algorithm 1."""
    ascended = weights * np.exp(step_size * (excess - excess.max()))  # normalising cancels the constant
    return (1 - smoothing) * ascended / ascended.sum() + smoothing / len(weights)


class Doremi(StepCallback):
    """Weights the training loss by domain, and moves the weights after each optimiser step.

    Args:
        conf: step size and smoothing.
        reference: model that losses are compared with; its vocabulary and masks are those of the run's model.
        shares: (K,) shares of the domains in the run's rows, all positive.
        num_steps: optimiser steps of the run.
        vocab_size: entries of the tokenizer.

    Attributes:
        weights: (K,) present weights.
        mean_weights: (K,) mean weights over the steps so far.
        curve: weights and excess losses at evenly spaced steps: {"step", "weights", "excess_losses"}.
    """

    def __init__(
        self, conf: DoremiConf, reference: LanguageModel, shares: FloatArray, *, num_steps: int, vocab_size: int
    ) -> None:
        self.conf = conf
        self.reference = reference.eval().requires_grad_(False)
        self.shares = shares
        self.weights = np.full(len(shares), 1 / len(shares))
        self.mean_weights = np.zeros(len(shares))
        self.excess = np.full(len(shares), np.log(vocab_size))
        self.curve: list[dict[str, Any]] = []
        self._steps_of_curve = {round(num_steps * point / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)}
        self._losses = DomainLosses(len(shares))

    def batch_loss(self, module: LanguageModel, batch: Batch, keys: torch.Tensor) -> torch.Tensor:
        """Returns the batch's mean loss, each row weighted by its domain, and notes the excess over the reference."""
        tokens = batch.tokens.long()
        losses, rows = module.token_losses(tokens, keys), module.token_rows(tokens, keys)
        with torch.no_grad():
            excess = (losses - self.reference.token_losses(tokens, keys)).clamp(min=0)
        self._losses.add(excess, batch.domains[rows], counted=batch.share > 0)
        factors = torch.as_tensor(self.weights / self.shares, dtype=losses.dtype, device=losses.device)  # (K,)
        return mean_of_rows(losses, rows, factors[batch.domains])

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Moves the reference to the run's device."""
        super().on_train_start(trainer, module)
        self.reference.to(module.device)

    def on_step_end(self, trainer: Trainer) -> None:
        """Moves the weights."""
        self.take_step(*self._losses.take(trainer), trainer.global_step)

    def take_step(self, sums: FloatArray, counts: Int64Array, step: int) -> None:
        """Moves the weights after step number `step`, with (K,) sums of excess losses over (K,) tokens."""
        self.excess = np.where(counts > 0, sums / np.maximum(counts, 1), self.excess)
        self.weights = next_weights(
            self.weights, self.excess, step_size=self.conf.step_size, smoothing=self.conf.smoothing
        )
        self.mean_weights += (self.weights - self.mean_weights) / step
        if step in self._steps_of_curve:
            self.curve.append({"step": step, "weights": self.weights.tolist(), "excess_losses": self.excess.tolist()})

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, and the curve."""
        arrays = (self.weights, self.mean_weights, self.excess)
        return {"arrays": [array.tolist() for array in arrays], "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the weights of an interrupted run."""
        self.weights, self.mean_weights, self.excess = (np.array(array) for array in state["arrays"])
        self.curve = state["curve"]
