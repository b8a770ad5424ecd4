"""The base of all language models: the optimiser, its schedule, and the weighting of batches.

Letters in shapes: B rows, T tokens per row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from pytorch_lightning import LightningModule
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.modeling_layers import GradientCheckpointingLayer

from autoscale_exp.base.hashing import derive_key
from autoscale_exp.data.datamodule import Batch
from autoscale_exp.data.tokenizer import Tokenizer
from autoscale_exp.lm.conf import ModelConf, OptimizerConf
from autoscale_exp.lm.masking import row_keys

CHUNK_LOGITS = 2**28  # most logits at a time: 1 GiB in float32
SCHEDULES = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}


def build_optimizer(
    conf: OptimizerConf, decayed: Sequence[torch.Tensor], others: Sequence[torch.Tensor], num_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Builds AdamW, with weight decay for the first tensors only, and its schedule by step."""
    optimizer = torch.optim.AdamW(
        [
            {"params": list(decayed), "weight_decay": conf.weight_decay},
            {"params": list(others), "weight_decay": 0.0},
        ],
        lr=conf.lr,
        betas=(conf.betas[0], conf.betas[1]),
        fused=True,
    )
    return optimizer, SCHEDULES[conf.schedule](optimizer, round(conf.warmup_fraction * num_steps), num_steps)


class BatchLoss(Protocol):
    """A loss to train on in place of the mean over a batch's rows."""

    def __call__(self, module: "LanguageModel", batch: Batch, keys: torch.Tensor) -> torch.Tensor:
        """Returns the loss of a batch, whose rows have (B,) keys."""


class LanguageModel(LightningModule):
    """A language model in training. A subclass builds `self.model` and defines its loss.

    Args:
        optimizer: settings of AdamW and its schedule.
        num_steps: optimiser steps of the whole run.
        seed: seed of the run. Draws depend on it and on the place in the run, so a resumed run draws the same.

    Attributes:
        batch_loss: the loss to train on in place of `training_loss`, or None.
        num_models: number of models that `model` stacks; their rows follow one another in a batch.
    """

    model: Any  # a transformers model, whose attributes torch does not declare

    def __init__(self, optimizer: OptimizerConf, *, num_steps: int, seed: int) -> None:
        super().__init__()
        self.optimizer_conf = optimizer
        self.num_steps = num_steps
        self.seed = seed
        self.last_loss = torch.tensor(float("nan"))
        self.batch_loss: BatchLoss | None = None
        self.num_models = 1

    @classmethod
    def for_tokenizer(cls, conf: ModelConf, tokenizer: Tokenizer, **options: Any) -> Self:
        """Makes the model for rows of a tokenizer; `options` are seq_len, num_steps, seed and model."""
        raise NotImplementedError

    def token_losses(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Returns the losses in nats of all predicted tokens, as one flat tensor.

        Args:
            tokens: (B, T) token ids.
            keys: (B,) keys from `row_keys`; all that is drawn for a row, such as its masks, depends on its key alone.
        """
        raise NotImplementedError

    def token_rows(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Returns the row in the batch, from 0, of each of `token_losses`."""
        raise NotImplementedError

    def cross_entropy(self, head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns (M,) losses in nats of predicted tokens; the models of a stack have equally many.

        The logits of many tokens are never in memory at once. The backward pass computes them again. This takes a
        quarter of the memory for a pass of GPT-2 Large, for 3 % more arithmetic.

        Args:
            head: maps hidden states to logits.
            hidden: (M, C) hidden states.
            targets: (M,) token ids.
        """

        def losses_of(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = head(hidden.flatten(0, 1))
            return torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none").view_as(targets)

        of_models = hidden.unflatten(0, (self.num_models, -1)), targets.unflatten(0, (self.num_models, -1))
        most = max(1, CHUNK_LOGITS // (self.num_models * self.model.config.vocab_size))  # tokens of each model
        if of_models[1].shape[1] <= most:
            return losses_of(*of_models).flatten()
        chunks = zip(*(of.split(most, dim=1) for of in of_models), strict=True)
        return torch.cat([checkpoint(losses_of, *chunk, use_reentrant=False) for chunk in chunks], dim=1).flatten()

    def training_loss(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch in which each row counts the same. Here all rows have equally many predicted tokens."""
        return self.token_losses(tokens, keys).mean()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draws dropout from the seed and the place in the run."""
        seed = derive_key(self.seed, "dropout", batch_idx, self.global_rank) >> 1
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a tenth of a tiny model's step
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The batch's part of the mean loss of its optimiser step.

        Lightning divides by the number of accumulated batches and averages over devices. Multiplying by both gives
        each row the same weight, even in a last step that is not full.
        """
        keys = row_keys(batch.positions, self.seed, "row")
        if self.batch_loss is None:
            loss = self.training_loss(batch.tokens.long(), keys)
        else:
            loss = self.batch_loss(self, batch, keys)
        self.last_loss = loss.detach()
        return loss * (batch.share * self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def configure_model(self) -> None:
        """With `trainer.strategy=fsdp`, shards the model over the devices: each layer on its own, and the rest."""
        if self.device_mesh is None:  # each device has the whole model
            return
        mesh = self.device_mesh["data_parallel"]
        for layer in self.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):  # as are the layers of transformers
                fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        for method in ("training_step", "mean_loss"):  # these gather the rest, embedding and head
            register_fsdp_forward_method(self, method)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes whether the model is sharded, since the optimiser's state then has another order."""
        checkpoint["sharded"] = self.device_mesh is not None

    def configure_optimizers(self) -> Any:
        """AdamW without decay for biases and norms, and its schedule per step."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        matrices, vectors = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
        optimizer, schedule = build_optimizer(self.optimizer_conf, matrices, vectors, self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by the norm of all gradients. Lightning 2.6 does not clip for a fused optimizer under autocast."""
        assert gradient_clip_val is not None
        if scaler := getattr(self.trainer.precision_plugin, "scaler", None):  # with trainer=fp16
            scaler.unscale_(optimizer)  # the fused step would do it only after clipping
        torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def mean_loss(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor, bool]]) -> float:
        """Returns the mean loss in nats per predicted token, without dropout.

        Args:
            batches: (B, T) token ids, (B,) keys of their rows (see `token_losses`), and whether the batch counts.
        """
        was_training = self.training
        self.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        count = 0
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for tokens, keys, counts in batches:
                losses = self.token_losses(tokens.to(self.device), keys.to(self.device))
                total += losses.sum(dtype=torch.float64) * counts
                count += losses.numel() * counts
        self.train(was_training)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        count = int(self.trainer.strategy.reduce(torch.tensor(count, device=self.device), reduce_op="sum"))
        return float(total) / count
