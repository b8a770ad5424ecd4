"""What all language models here share: the optimiser, its schedule, and the weighting of batches.

Letters in shapes: B rows, T tokens per row.
"""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch
from pytorch_lightning import LightningModule
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from autoscale_exp.base.hashing import derive_key
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.data.tokenizer import Tokenizer
from autoscale_exp.lm.conf import ModelConf, OptimizerConf
from autoscale_exp.lm.masking import row_keys

SCHEDULES = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}


class BatchLoss(Protocol):
    """A loss that takes the place of the mean over a batch's rows."""

    def __call__(self, module: "LanguageModel", batch: Batch, keys: torch.Tensor) -> torch.Tensor:
        """The loss of a batch whose rows have these (B,) keys."""


class LanguageModel(LightningModule):
    """A language model in training; a subclass builds `self.model` and says what its loss is.

    Args:
        optimizer: settings of AdamW and its schedule.
        num_steps: optimiser steps of the whole run.
        seed: of the run; what is drawn is a function of it and the place in the run, so a resumed run draws the same.

    Attributes:
        batch_loss: what a batch is trained on in place of `training_loss`; None: nothing.
    """

    model: Any  # a transformers model, whose attributes torch does not declare

    def __init__(self, optimizer: OptimizerConf, *, num_steps: int, seed: int) -> None:
        super().__init__()
        self.optimizer_conf = optimizer
        self.num_steps = num_steps
        self.seed = seed
        self.last_loss = torch.tensor(float("nan"))
        self.batch_loss: BatchLoss | None = None

    @classmethod
    def for_tokenizer(cls, conf: ModelConf, tokenizer: Tokenizer, **options: Any) -> Self:
        """The model for rows of this tokenizer; `options` are seq_len, num_steps and seed."""
        raise NotImplementedError

    def token_losses(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Losses in nats of all predicted tokens, as one flat tensor.

        Args:
            tokens: (B, T) token ids.
            keys: (B,) from `row_keys`; what is drawn for a row, such as its masks, is a function of its key.
        """
        raise NotImplementedError

    def token_rows(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The row of the batch, from 0, that each of `token_losses` is of."""
        raise NotImplementedError

    def training_loss(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch in which each row counts the same; here all rows have as many predicted tokens."""
        return self.token_losses(tokens, keys).mean()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draws dropout from the seed and the place in the run."""
        torch.manual_seed(derive_key(self.seed, "dropout", batch_idx, self.global_rank) >> 1)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The batch's part of the mean loss of its optimiser step.

        Lightning divides by the number of accumulated batches and averages over devices; multiplying by both leaves
        each row with the same weight, also in a last step that is not full.
        """
        keys = row_keys(batch.positions, self.seed, "row")
        if self.batch_loss is None:
            loss = self.training_loss(batch.tokens.long(), keys)
        else:
            loss = self.batch_loss(self, batch, keys)
        self.last_loss = loss.detach()
        return loss * (batch.share * self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def configure_optimizers(self) -> Any:
        """AdamW without decay for biases and norms, and its schedule per step."""
        conf = self.optimizer_conf
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": conf.weight_decay},
                {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=conf.lr,
            betas=(conf.betas[0], conf.betas[1]),
            fused=True,
        )
        num_warmup_steps = round(conf.warmup_fraction * self.num_steps)
        schedule = SCHEDULES[conf.schedule](optimizer, num_warmup_steps, self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by the norm of all gradients together; Lightning 2.6 does not for a fused optimizer under autocast."""
        assert gradient_clip_val is not None
        if scaler := getattr(self.trainer.precision_plugin, "scaler", None):  # of trainer=fp16
            scaler.unscale_(optimizer)  # else left to the fused step, after the clipping
        torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def mean_loss(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Mean loss in nats per predicted token, without dropout, each token counting once.

        Args:
            batches: (B, T) token ids and (B,) keys of their rows; see `token_losses`.
        """
        was_training = self.training
        self.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        count = 0
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for tokens, keys in batches:
                losses = self.token_losses(tokens.to(self.device), keys.to(self.device))
                total += losses.sum(dtype=torch.float64)
                count += losses.numel()
        self.train(was_training)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        count = int(self.trainer.strategy.reduce(torch.tensor(count, device=self.device), reduce_op="sum"))
        return float(total) / count
