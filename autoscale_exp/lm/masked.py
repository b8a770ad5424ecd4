"""Masked language models: BERT."""

from typing import Any, Self

import torch
from transformers import BertConfig, BertForMaskedLM

from autoscale_exp.data.tokenizer import Tokenizer, continuation_ids, vocabulary_size
from autoscale_exp.lm.conf import MaskedModelConf, ModelConf
from autoscale_exp.lm.language_model import LanguageModel
from autoscale_exp.lm.masking import Masking


class MaskedLanguageModel(LanguageModel):
    """BERT without next-sentence prediction, which predicts masked tokens from those around them.

    The masks of a training row are drawn from the seed and the row's place in the run, those of a validation row
    from its domain and its number only.

    Args:
        conf: architecture, masking and optimiser settings; the intermediate size is four times `n_embd`.
        masking: which tokens are predicted and what is shown instead.
        vocab_size: entries of the tokenizer.
        padding: id of the padding token, which fine-tuning needs, though no row here has it; None without one.
        seq_len: tokens per row, the model's positions.
        num_steps: optimiser steps of the run.
        seed: seed of the run.
        model: the model to go on with; None for one from scratch.
    """

    def __init__(
        self,
        conf: ModelConf,
        masking: Masking,
        *,
        vocab_size: int,
        padding: int | None,
        seq_len: int,
        num_steps: int,
        seed: int,
        model: BertForMaskedLM | None = None,
    ) -> None:
        super().__init__(conf.optimizer, num_steps=num_steps, seed=seed)
        self.masking = masking
        self.model = model or BertForMaskedLM(
            BertConfig(
                vocab_size=vocab_size,
                max_position_embeddings=seq_len,
                num_hidden_layers=conf.n_layer,
                hidden_size=conf.n_embd,
                intermediate_size=4 * conf.n_embd,
                num_attention_heads=conf.n_head,
                hidden_dropout_prob=conf.dropout,
                attention_probs_dropout_prob=conf.dropout,
                pad_token_id=padding,
            )
        )

    @classmethod
    def for_tokenizer(cls, conf: ModelConf, tokenizer: Tokenizer, **options: Any) -> Self:
        """Makes the model for rows of a tokenizer with a mask token."""
        assert isinstance(conf, MaskedModelConf), conf.family
        masking = Masking(
            vocabulary_size(tokenizer),
            mask_token=tokenizer.mask_token_id,
            special_tokens=tokenizer.all_special_ids,
            continuations=continuation_ids(tokenizer),
            probability=conf.mask_probability,
            whole_words=conf.whole_word_masking,
        )
        return cls(conf, masking, vocab_size=vocabulary_size(tokenizer), padding=tokenizer.pad_token_id, **options)

    def token_losses(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Returns the losses in nats of all masked tokens, row by row, as one flat tensor."""
        inputs, selected = self.masking(tokens, keys)
        return self._losses(inputs, tokens, selected)

    def token_rows(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Returns the row of each masked token."""
        _, selected = self.masking(tokens, keys)
        return selected.nonzero()[:, 0]

    def training_loss(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Mean over the rows of each row's mean loss over its masked tokens.

        Rows with fewer special tokens have more to predict. With equal weights of rows, a domain's weight is what
        the mixture says, and the loss of a step does not depend on how it is cut into batches, because a row's
        weight does not depend on the rows beside it. A row of special tokens only counts as 0.
        """
        inputs, selected = self.masking(tokens, keys)
        weights = selected / selected.sum(1, keepdim=True).clamp(min=1)  # (B, T); those of each row sum to 1
        return (self._losses(inputs, tokens, selected) * weights[selected]).sum() / len(tokens)

    def _losses(self, inputs: torch.Tensor, tokens: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        predicted = selected if self.num_models == 1 else as_many_each(selected, self.num_models)
        hidden = self.model.bert(inputs).last_hidden_state[predicted]  # (predicted tokens, n_embd)
        losses = self.cross_entropy(self.model.cls, hidden, tokens[predicted])
        return losses if predicted is selected else losses[selected[predicted]]


def as_many_each(selected: torch.Tensor, num_models: int) -> torch.Tensor:
    """The (B, T) selected tokens, filled up with each model's first others so that all models have equally many."""
    of_models = selected.view(num_models, -1)
    most = int(of_models.sum(1).max())
    order = of_models.byte().argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(of_models).scatter_(1, order[:, :most], True).view_as(selected)
