"""Fine-tuning of a pretrained encoder on labelled examples: BERT's recipe (Devlin et al., 2019, appendix A.3)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import get_linear_schedule_with_warmup

from autoscale_exp.base.errors import DivergedError, UserError, first_line
from autoscale_exp.base.ranges import LARGEST_SEED, check_range
from autoscale_exp.data.tokenizer import Tokenizer
from autoscale_exp.evaluation.conf import FineTuningConf
from autoscale_exp.evaluation.subject import Subject
from autoscale_exp.lm.checkpoint import load_model, load_tokenizer

NEW_LAYERS = ("classifier.", "qa_outputs.", "bert.pooler.")  # layers that masked-language modelling does not train
LEAST_LENGTH = 5  # two texts of a token each, with BERT's three special tokens
Encoded = dict[str, list[Any]]  # columns of a tokenized data set


def check_fine_tuning(conf: FineTuningConf, subject: Subject) -> Tokenizer:
    """Checks model and settings, and returns the model's tokenizer.

    Raises:
        UserError: the model is causal, has too few positions or a tokenizer without BERT's special tokens, or a
            setting is out of range.
    """
    checkpoint = subject.checkpoint
    if not checkpoint.masked:
        raise UserError(
            f"'{checkpoint.folder}' is a causal {checkpoint.family} model, but task={conf.name} fine-tunes masked "
            "ones; use task=harness or task=perplexity"
        )
    if conf.max_length > checkpoint.positions:
        raise UserError(
            f"task.max_length is {conf.max_length}, but '{checkpoint.folder}' has only {checkpoint.positions} "
            f"positions; give task.max_length={checkpoint.positions} or less"
        )
    if not conf.seeds or len(set(conf.seeds)) != len(conf.seeds):
        raise UserError(f"task.seeds is {conf.seeds}; give different seeds, at least one")
    check_range({f"task.seeds[{index}]": seed for index, seed in enumerate(conf.seeds)}, 0, LARGEST_SEED)
    check_range({"task.weight_decay": conf.weight_decay}, 0)
    check_range({"task.max_length": conf.max_length}, LEAST_LENGTH)  # a tokenizer does not cut to less
    for key in ("epochs", "batch_size", "lr"):
        if not 0 < getattr(conf, key) < math.inf:
            raise UserError(f"task.{key} is {getattr(conf, key)}; it must be positive and finite")
    if not 0 <= conf.warmup_fraction < 1:
        raise UserError(f"task.warmup_fraction is {conf.warmup_fraction}; allowed are shares below 1")
    tokenizer = load_tokenizer(checkpoint)
    for name in ("cls_token", "sep_token", "pad_token"):
        if getattr(tokenizer, name) is None:
            raise UserError(f"the tokenizer of '{checkpoint.folder}' has no {name}, which task={conf.name} needs")
    return tokenizer


def recipe(conf: FineTuningConf) -> dict[str, Any]:
    """The settings that a fine-tuned score depends on, besides data and seed."""
    keys = ("epochs", "lr", "batch_size", "max_length", "warmup_fraction", "weight_decay", "bf16")
    return {key: getattr(conf, key) for key in keys}


def find_device(device: str) -> torch.device:
    """Finds the device that the config names; auto is the first GPU, or the CPU.

    Raises:
        UserError: torch knows no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device is '{device}', which cannot be used: {first_line(error)}") from None


class FineTuned:
    """A pretrained encoder with a new head, trained on construction.

    Args:
        task: name of the task, for messages.
        model_class: class of transformers, with the head.
        subject: the pretrained model.
        tokenizer: the tokenizer, for padding.
        examples: tokenized examples, with the columns that the head's loss needs.
        conf: the recipe.
        seed: seed of the head, the order of examples and dropout.
        options: options of the model's config.
    """

    def __init__(
        self,
        task: str,
        model_class: Any,
        subject: Subject,
        tokenizer: Tokenizer,
        examples: Encoded,
        conf: FineTuningConf,
        seed: int,
        **options: Any,
    ) -> None:
        torch.manual_seed(seed)
        self.task = task
        self.seed = seed
        self.tokenizer = tokenizer
        self.conf = conf
        self.device = find_device(subject.device)
        self.model = load_model(subject.checkpoint, model_class, new=NEW_LAYERS, **options).to(self.device)
        self._train(examples, np.random.default_rng(seed))

    def _train(self, examples: Encoded, rng: np.random.Generator) -> None:
        """Trains with AdamW, linear warm-up and decay, and gradients clipped to norm 1."""
        conf, num_examples = self.conf, len(examples["input_ids"])
        num_steps = conf.epochs * -(-num_examples // conf.batch_size)
        parameters = list(self.model.parameters())
        decayed = [p for p in parameters if p.ndim >= 2]
        spared = [p for p in parameters if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": conf.weight_decay}, {"params": spared, "weight_decay": 0.0}],
            lr=conf.lr,
        )
        schedule = get_linear_schedule_with_warmup(optimizer, round(conf.warmup_fraction * num_steps), num_steps)
        self.model.train()
        for _ in range(conf.epochs):
            for batch in self._batches(examples, rng.permutation(num_examples)):
                loss = self._forward(batch).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        self.model.eval()

    @torch.no_grad()
    def predict(self, examples: Encoded, outputs: Callable[[Any], tuple[torch.Tensor, ...]]) -> list[tuple[Any, ...]]:
        """Returns the `outputs` of the model for each example, in order, as arrays; examples are padded to their batch.

        Raises:
            DivergedError: an output is not finite, as the fine-tuning diverged.
        """
        rows: list[tuple[Any, ...]] = []
        for batch in self._batches(examples, np.arange(len(examples["input_ids"]))):
            arrays = [output.float().cpu().numpy() for output in outputs(self._forward(batch))]
            if not all(np.isfinite(array).all() for array in arrays):
                raise DivergedError(
                    f"the logits of {self.task}, fine-tuned with seed {self.seed}, are not finite; lower task.lr, "
                    f"which is {self.conf.lr}"
                )
            rows += zip(*arrays, strict=True)
        return rows

    def _forward(self, batch: dict[str, torch.Tensor]) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.conf.bf16):
            return self.model(**batch)

    def _batches(self, examples: Encoded, order: npt.NDArray[np.int64]) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(order), self.conf.batch_size):
            chosen = order[start : start + self.conf.batch_size]
            batch = self.tokenizer.pad(
                {key: [of[i] for i in chosen] for key, of in examples.items()}, return_tensors="pt"
            )
            yield {key: of.to(self.device) for key, of in batch.items()}
