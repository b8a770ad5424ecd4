"""Models of one architecture as one model: stacked parameters, and batched matrix products in place of layers.

The modules of transformers run unchanged on the rows of all models, one model after the other. Only layers with
parameters are replaced, each by one that multiplies a model's rows by this model's weights. Letters in shapes: N
models, R rows of each in a pass, T tokens per row, C units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


class Stack:
    """The parameters of N models, in blocks with a row for each model, and one model that has them all.

    Each embedding is a block; all other matrices are one block, and all vectors are one. A model's row of a block is a
    tensor for the model's optimiser, which works elementwise, so that the result is the same as with the parameters.

    Args:
        model: model of transformers, whose layers are replaced.
        num_models: N.
        device: device of the parameters.

    Attributes:
        blocks: (N, size) tensors.
        grads: gradients, of the same shapes.
        decays: whether a block has weight decay.
    """

    def __init__(self, model: nn.Module, num_models: int, device: torch.device) -> None:
        embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
        sizes: dict[Any, int] = {}
        self._places: dict[int, _Place] = {}
        for parameter in model.parameters():
            block = id(parameter) if id(parameter) in embeddings else parameter.ndim >= 2
            start = sizes.setdefault(block, 0)
            sizes[block] += parameter.numel()
            self._places[id(parameter)] = _Place(list(sizes).index(block), start, parameter.shape)
        self.decays = [block is not False for block in sizes]
        self.blocks = [torch.zeros(num_models, size, device=device) for size in sizes.values()]
        self.grads = [torch.zeros_like(block) for block in self.blocks]
        self._parameters = list(map(id, model.parameters()))
        self._layout = _Layout()
        self._layers: list[tuple[nn.Module, dict[str, int]]] = []
        for name, layer in list(model.named_modules()):
            own = {key: id(parameter) for key, parameter in layer.named_parameters(recurse=False)}
            if own and type(layer) in LAYERS:
                stacked = LAYERS[type(layer)](layer, self._layout)
                self._layers.append((stacked, own))
                model.set_submodule(name, stacked)
            else:  # such as BERT's head, which holds the bias of its decoder
                for key in own:
                    setattr(layer, key, None)
        replaced = {parameter for _, own in self._layers for parameter in own.values()}
        assert replaced == set(self._places), "a parameter is in no layer that can be stacked"
        self.point()

    def point(self, chosen: Sequence[int] | None = None) -> None:
        """Points the model at all models, or, for evaluation, at a copy of the parameters of the `chosen` ones."""
        blocks = self.blocks if chosen is None else [block[list(chosen)] for block in self.blocks]
        parameters = {}
        for key, place in self._places.items():
            parameters[key] = nn.Parameter(place.of(blocks), requires_grad=chosen is None)
            if chosen is None:
                parameters[key].grad = place.of(self.grads)
        for layer, own in self._layers:
            for name, key in own.items():
                setattr(layer, name, parameters[key])

    def keep(self, chosen: Sequence[int]) -> None:
        """Drops all models but the `chosen` ones."""
        self.blocks = [block[list(chosen)] for block in self.blocks]
        self.grads = [torch.zeros_like(block) for block in self.blocks]
        self.point()

    def expect(self, num_rows: int) -> None:
        """Tells the layers how many rows a model has in the next pass."""
        self._layout.num_rows = num_rows

    def put(self, index: int, model: nn.Module) -> None:
        """Copies the parameters of a single model into the stack."""
        for own, parameter in self._pairs(index, model):
            own.copy_(parameter.detach())

    def take(self, index: int, model: nn.Module) -> None:
        """Copies parameters from the stack into a single model."""
        for own, parameter in self._pairs(index, model):
            parameter.data.copy_(own)

    def _pairs(self, index: int, model: nn.Module) -> list[tuple[torch.Tensor, nn.Parameter]]:
        places = [self._places[key] for key in self._parameters]
        return [(place.of(self.blocks)[index], own) for place, own in zip(places, model.parameters(), strict=True)]


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies in a row of its block."""

    block: int
    start: int
    shape: torch.Size

    def of(self, blocks: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, *shape) view of the parameter of all models."""
        return blocks[self.block][:, self.start : self.start + self.shape.numel()].unflatten(1, self.shape)


@dataclass
class _Layout:
    """The number of rows of each model in a pass."""

    num_rows: int = 0


class _Linear(nn.Module):
    weight: torch.Tensor  # (N, out, in), of a Conv1D (N, in, out)
    bias: torch.Tensor | None  # (N, out)

    def __init__(self, layer: nn.Module, _: _Layout) -> None:
        super().__init__()
        self.transposed = isinstance(layer, nn.Linear)
        self.bias = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weight = self.weight.transpose(1, 2) if self.transposed else self.weight
        of_runs = inputs.reshape(len(weight), -1, inputs.shape[-1])
        if self.bias is None:
            return torch.bmm(of_runs, weight).view(*inputs.shape[:-1], -1)
        return torch.baddbmm(self.bias.unsqueeze(1), of_runs, weight).view(*inputs.shape[:-1], -1)


class _LayerNorm(nn.Module):
    weight: torch.Tensor  # (N, C)
    bias: torch.Tensor  # (N, C)

    def __init__(self, layer: nn.LayerNorm, _: _Layout) -> None:
        super().__init__()
        self.eps = layer.eps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        num_models, width = self.weight.shape
        normed = functional.layer_norm(inputs, (width,), eps=self.eps).view(num_models, -1, width)
        return torch.addcmul(self.bias.unsqueeze(1), normed, self.weight.unsqueeze(1)).view(inputs.shape)


class _Embedding(nn.Module):
    """A stack of embeddings. It does not skip gradients of the padding token, which rows do not have."""

    weight: torch.Tensor  # (N, entries, C), contiguous as it is a block

    def __init__(self, _: nn.Embedding, layout: _Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        num_models, entries, width = self.weight.shape
        first = torch.arange(num_models, device=ids.device).mul(entries).unsqueeze(1)
        shared = len(ids) == 1 < num_models * self.layout.num_rows  # the places in a row, of all rows
        of_models = ids.expand(num_models, -1) if shared else ids.reshape(num_models, -1)
        embedded = functional.embedding(of_models + first, self.weight.view(-1, width))
        if shared:
            embedded = embedded.unsqueeze(1).expand(-1, self.layout.num_rows, -1, -1)
        return embedded.reshape(-1, ids.shape[-1], width)


LAYERS: dict[type[nn.Module], Callable[[Any, _Layout], nn.Module]] = {
    nn.Linear: _Linear,
    Conv1D: _Linear,
    nn.LayerNorm: _LayerNorm,
    nn.Embedding: _Embedding,
}
