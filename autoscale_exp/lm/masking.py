"""Which tokens a masked language model predicts, and what it sees in their place (Devlin et al., 2019).

Every draw is a hash of the row's key and the place in the row. Nothing depends on the other rows of a batch, on
the device or on earlier draws. So a mask is the same however rows are batched, accumulated, spread over
devices or resumed. Letters in shapes: B rows, T tokens per row, V entries of the tokenizer.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch

from autoscale_exp.base.hashing import derive_key

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # splitmix64's step, which sets neighbouring inputs far apart
SELECTION, ACTION, REPLACEMENT = range(3)  # what is drawn at each place


class MaskedRows(NamedTuple):
    """Rows as a masked language model is shown them.

    Attributes:
        inputs: (B, T) int64 token ids with masks and replacements in place.
        selected: (B, T) bool, the tokens to predict; some of them are shown unchanged.
    """

    inputs: torch.Tensor
    selected: torch.Tensor


def row_keys(numbers: torch.Tensor, *parts: str | int) -> torch.Tensor:
    """Returns (B,) int64 keys for all draws of rows: a pure function of `parts` and the rows' numbers."""
    key = derive_key(*parts)
    return numbers ^ (key - 2**64 if key >= 2**63 else key)


class Masking(torch.nn.Module):
    """Chooses a share of each row's tokens. Of these, 80 % become the mask token, 10 % a random token, and 10 % stay.

    Each row has round(probability x its tokens that are not special), and at least one if it has any. This is a fixed
    share, not a coin for each token, so that all rows have equally much to learn from. Special tokens are never chosen
    and never put in. With `whole_words`, whole words are chosen. A word is a token and its continuations, as far as
    they are in the row. The number of tokens is then within half a word of the same number.

    Args:
        vocab_size: V.
        mask_token: id of the mask token.
        special_tokens: ids of all special tokens.
        continuations: ids of the tokens that continue a word, such as WordPiece's ##ing.
        probability: share of the tokens to predict.
        whole_words: whether the tokens of a word are chosen together.
    """

    special: torch.Tensor  # (V,) bool
    continues: torch.Tensor  # (V,) bool
    regular: torch.Tensor  # ids that are not special

    def __init__(
        self,
        vocab_size: int,
        *,
        mask_token: int,
        special_tokens: Collection[int],
        continuations: Collection[int],
        probability: float,
        whole_words: bool,
    ) -> None:
        super().__init__()
        self.mask_token = mask_token
        self.probability = probability
        special = torch.zeros(vocab_size, dtype=torch.bool)
        special[list(special_tokens)] = True
        continues = torch.zeros(vocab_size, dtype=torch.bool)
        if whole_words:
            continues[list(continuations)] = True
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("continues", continues, persistent=False)
        self.register_buffer("regular", (~special).nonzero().squeeze(1), persistent=False)

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> MaskedRows:
        """Masks rows.

        Args:
            tokens: (B, T) token ids.
            keys: (B,) keys from `row_keys`.
        """
        selected = self._select(tokens, keys)
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        action = _draws(keys, places, ACTION) % 10
        replacements = self.regular[_draws(keys, places, REPLACEMENT) % len(self.regular)]
        inputs = tokens.masked_fill(selected & (action < 8), self.mask_token)
        return MaskedRows(torch.where(selected & (action == 8), replacements, inputs), selected)

    def _select(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(B, T) bool: the first words in an order drawn for each row, up to the number of tokens to mask."""
        allowed = ~self.special[tokens]
        behind_allowed = torch.nn.functional.pad(allowed[:, :-1], (1, 0))
        starts = ~(allowed & behind_allowed & self.continues[tokens])  # a special token is a word of its own
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        word = torch.where(starts, places, 0).cummax(1).values  # place of the first token of each token's word
        length = torch.zeros_like(tokens).scatter_add_(1, word, torch.ones_like(tokens)).gather(1, word)
        drawn = _draws(keys, word, SELECTION).masked_fill(~allowed, torch.iinfo(torch.int64).max)
        order = drawn.argsort(dim=1, stable=True)  # the tokens of a word side by side, special tokens at the end
        before = torch.where(starts.gather(1, order), places, 0).cummax(1).values  # tokens in the words before each's
        count = (self.probability * allowed.sum(1, keepdim=True)).round()
        # A word belongs to the first `count` tokens if its middle does, and the first word does in any case.
        chosen = (before + length.gather(1, order) / 2 <= count) | (before == 0)
        return torch.zeros_like(allowed).scatter_(1, order, chosen) & allowed


def _draws(keys: torch.Tensor, places: torch.Tensor, what: int) -> torch.Tensor:
    """(B, T) uniform draws from [0, 2^63): a hash of each row's key, the (B, T) places and what is drawn."""
    row = _mix64(_mix64(keys) + what).unsqueeze(1)  # keys of neighbouring rows differ by one, so they are mixed first
    return _mix64(row + places * GOLDEN) & (2**63 - 1)


def _mix64(values: torch.Tensor) -> torch.Tensor:
    """`mixture.permutation.mix64` on int64 tensors, whose products wrap and whose shifts keep the sign."""
    values = (values ^ _shifted(values, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    values = (values ^ _shifted(values, 27)) * (0x94D049BB133111EB - 2**64)
    return values ^ _shifted(values, 31)


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    return (values >> bits) & (2 ** (64 - bits) - 1)
