"""How large a model is and what training it takes, worked out from its config. No torch.

Letters: T tokens per row, d the width, V entries of the vocabulary, L layers.
"""

from dataclasses import dataclass

from autoscale_exp.lm.conf import MaskedModelConf, ModelConf

STATE_BYTES = 16  # of a parameter: weight, gradient and AdamW's two moments, 4 bytes each, also under autocast
GATHERED_BYTES = 8  # of a parameter that is gathered: weight and gradient
CAST_BYTES = 2  # and its copy in 16 bits under autocast


@dataclass(frozen=True)
class ModelSize:
    """What a model and its training take.

    Attributes:
        params: weights, those that embedding and head share counted once.
        flops_per_token: FLOPs of the matrix products of a forward and a backward pass.
        state_bytes: memory of weights, gradients and optimiser.
        row_bytes: memory of a row's activations, which the forward pass keeps for the backward pass.
        gathered_bytes: memory of what a device gathers of a sharded model: embedding and two layers, with gradients.
    """

    params: int
    flops_per_token: float
    state_bytes: int
    row_bytes: int
    gathered_bytes: int

    def memory(self, rows: int, shards: int = 1) -> int:
        """Bytes of a run with `rows` rows at a time, on each of the `shards` devices that share a sharded model."""
        state = self.state_bytes if shards == 1 else self.state_bytes // shards + self.gathered_bytes
        return state + rows * self.row_bytes


def size_of(conf: ModelConf, vocab_size: int, seq_len: int, *, half: bool) -> ModelSize:
    """Returns the size of a model on rows of a tokenizer.

    A matrix of n parameters takes 6 n FLOPs per token, attention 12 L d T (Chowdhery et al. 2022, arXiv 2204.02311,
    appendix B; a causal mask halves none of it). A layer keeps 34 T d bytes of activations in 16 bits, of which 2 T d
    are masks of dropout (Korthikanti et al. 2022, arXiv 2205.05198, without the attention matrix, which fused attention
    does not keep). The head keeps logits, their softmax and its gradient; in a masked model, for masked tokens only.

    Args:
        conf: architecture.
        vocab_size: entries of the tokenizer.
        seq_len: tokens per row.
        half: whether matrix products are in 16 bits.
    """
    width, tokens = conf.n_embd, seq_len
    in_layers = 12 * width**2 * conf.n_layer
    params = (vocab_size + tokens) * width + in_layers + 13 * width * conf.n_layer
    in_head, predicted = vocab_size * width, 1.0
    if isinstance(conf, MaskedModelConf):
        params += 4 * width + width**2 + 3 * width + vocab_size  # token types, norms, the head's own layer, its bias
        in_head, predicted = in_head + width**2, conf.mask_probability
    else:
        params += 2 * width
    flops = 6 * (in_layers + predicted * in_head) + 12 * conf.n_layer * width * tokens
    of_layers = conf.n_layer * tokens * width * (34 if half else 66)
    of_head = predicted * tokens * vocab_size * (10 if half else 12)
    state = params * (STATE_BYTES + CAST_BYTES * half)
    gathered = GATHERED_BYTES * ((vocab_size + tokens) * width + 2 * in_layers // conf.n_layer)
    return ModelSize(params, flops, state, round(of_layers + of_head), gathered)
