"""The `model` section: an architecture, and the optimiser settings that suit it."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class OptimizerConf:
    """AdamW with linear warm-up, then decay to zero. Weight decay leaves out biases and norms."""

    lr: float = MISSING  # peak learning rate
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of AdamW
    weight_decay: float = 0.01  # of all but biases and norms
    warmup_fraction: float = 0.1  # fraction of the run's steps
    schedule: str = "linear"  # linear or cosine
    clip_norm: float = 1.0  # largest norm of a step's gradient
    batch_rows: int = MISSING  # rows per optimiser step, over all devices and accumulation


@dataclass
class ModelConf:
    """Architecture and the optimiser settings that suit it."""

    name: str = MISSING  # name in results
    family: str = MISSING  # gpt2 or bert
    n_layer: int = MISSING  # layers
    n_embd: int = MISSING  # width
    n_head: int = MISSING  # attention heads
    dropout: float = MISSING  # probability of dropout in all places
    optimizer: OptimizerConf = field(default_factory=OptimizerConf)
    init_from: str | None = None  # Hugging Face folder with the weights to start from; null: from scratch


@dataclass
class MaskedModelConf(ModelConf):
    """A model that predicts masked tokens; see lm/masking.py."""

    mask_probability: float = 0.15  # share of a row's tokens that are predicted
    whole_word_masking: bool = False  # the tokens of a word are masked together; needs a WordPiece tokenizer
