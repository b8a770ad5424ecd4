"""The model families. Each has a line here, a LightningModule in lm/, and YAMLs in conf/model. Imports no torch."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from autoscale_exp.lm.conf import MaskedModelConf, ModelConf

if TYPE_CHECKING:
    from autoscale_exp.lm.language_model import LanguageModel


@dataclass(frozen=True)
class Family:
    """A family of models, with the names of its parts in transformers.

    Attributes:
        schema: schema of its `model` section.
        module: module in lm/ and class of its LightningModule.
        architecture: class of the language model.
        masked: whether it predicts masked tokens instead of the next one.
        sizes: keys of config.json by key of `ModelConf`.
        positions: key of config.json with the longest sequence.
        dropouts: keys of config.json with dropout probabilities.
    """

    schema: type[ModelConf]
    module: tuple[str, str]
    architecture: str
    masked: bool
    sizes: dict[str, str]
    positions: str
    dropouts: tuple[str, ...]

    @property
    def module_class(self) -> "type[LanguageModel]":
        """The class of its LightningModule; imports torch."""
        module, name = self.module
        return getattr(import_module(f"autoscale_exp.lm.{module}"), name)


FAMILIES = {
    "gpt2": Family(
        schema=ModelConf,
        module=("causal", "CausalLanguageModel"),
        architecture="GPT2LMHeadModel",
        masked=False,
        sizes={"n_layer": "n_layer", "n_embd": "n_embd", "n_head": "n_head"},
        positions="n_positions",
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    ),
    "bert": Family(
        schema=MaskedModelConf,
        module=("masked", "MaskedLanguageModel"),
        architecture="BertForMaskedLM",
        masked=True,
        sizes={"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads"},
        positions="max_position_embeddings",
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    ),
}
