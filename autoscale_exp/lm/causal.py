"""Causal language models: GPT-2."""

from typing import Any, Self

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from autoscale_exp.data.tokenizer import Tokenizer, separator_id, vocabulary_size
from autoscale_exp.lm.conf import ModelConf
from autoscale_exp.lm.language_model import LanguageModel


class CausalLanguageModel(LanguageModel):
    """GPT-2, which predicts each token after a row's first from those before it.

    Args:
        conf: architecture and optimiser settings.
        vocab_size: entries of the tokenizer.
        end_of_text: id of the token between documents.
        seq_len: tokens per row, the model's context.
        num_steps: optimiser steps of the run.
        seed: seed of the run.
        model: the model to go on with; None for one from scratch.
    """

    def __init__(
        self,
        conf: ModelConf,
        *,
        vocab_size: int,
        end_of_text: int,
        seq_len: int,
        num_steps: int,
        seed: int,
        model: GPT2LMHeadModel | None = None,
    ) -> None:
        super().__init__(conf.optimizer, num_steps=num_steps, seed=seed)
        self.model = model or GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=seq_len,
                n_layer=conf.n_layer,
                n_embd=conf.n_embd,
                n_head=conf.n_head,
                activation_function="gelu_pytorch_tanh",  # GPT-2's own function, as one kernel
                resid_pdrop=conf.dropout,
                embd_pdrop=conf.dropout,
                attn_pdrop=conf.dropout,
                bos_token_id=end_of_text,
                eos_token_id=end_of_text,
                use_cache=False,
            )
        )

    @classmethod
    def for_tokenizer(cls, conf: ModelConf, tokenizer: Tokenizer, **options: Any) -> Self:
        """Makes the model for rows of a tokenizer."""
        return cls(conf, vocab_size=vocabulary_size(tokenizer), end_of_text=separator_id(tokenizer), **options)

    def token_losses(self, tokens: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the (B (T - 1),) losses in nats of the tokens after each row's first; `keys` are not used."""
        hidden = self.model.transformer(tokens).last_hidden_state[:, :-1]  # (B, T - 1, n_embd)
        return self.cross_entropy(self.model.lm_head, hidden.flatten(0, 1), tokens[:, 1:].flatten())

    def token_rows(self, tokens: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """(B (T - 1),) row of each loss."""
        num_rows, seq_len = tokens.shape
        return torch.arange(num_rows, device=tokens.device).repeat_interleave(seq_len - 1)
