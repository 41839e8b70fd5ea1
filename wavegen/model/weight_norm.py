"""Weight normalization: lengths and directions are separate parameters (Salimans and Kingma, 2016, equation 2).

    w = g v / |v|          for each output of a layer: v its weights' direction, g its gain, a number

The layers below take the place of others and begin as the same function, with v = w and g = |w|. Their ``weight`` is
what comes of both. Of the skips, which are one product for all blocks, each block's have gains of their own. The output
layer is left as it is: it begins with zeros, which have no direction.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from wavegen.model.layers import CausalConv

Model = TypeVar("Model", bound=nn.Module)


def normalized(direction: Tensor, gain: Tensor) -> Tensor:
    """Compute w = g v / |v|; ``wavegen.model.building.fold_weight_norm`` is its twin without torch.

    Args:
        direction: v: (taps, outputs, inputs), or (outputs, inputs).
        gain: g: one number for each output; or for each of several equal parts of an output's inputs, (outputs parts,).

    Returns:
        w, in v's shape.
    """
    if direction.dim() == 3:
        # (taps, outputs, inputs) times (outputs, 1): all taps of an output share its gain
        return direction * (gain / lengths(direction))[:, None]
    # (outputs, inputs) -> (outputs parts, inputs / parts): each part of an output has a gain
    return (direction.view(len(gain), -1) * (gain / lengths(direction, len(gain)))[:, None]).view(direction.shape)


def lengths(direction: Tensor, n: int | None = None) -> Tensor:
    """Compute the lengths |v| of n vectors, (n,); by default one vector for each output."""
    rows, axes = (direction, (0, 2)) if direction.dim() == 3 else (direction.view(n or len(direction), -1), (1,))
    norm: Tensor = torch.linalg.vector_norm(rows, dim=axes)
    return norm


class NormedConv(CausalConv):
    """A causal convolution under weight normalization.

    Args:
        plain: begins as its function; its bias is taken over.
    """

    direction: nn.Parameter
    gain: nn.Parameter

    def __init__(self, plain: CausalConv) -> None:
        nn.Module.__init__(self)  # not the parent's, which would draw a weight
        self.dilation, self.kernel_size, self.out_channels = plain.dilation, plain.kernel_size, plain.out_channels
        _take_over(self, plain, plain.out_channels)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(kernel_size, out_channels, in_channels)."""
        return normalized(self.direction, self.gain)


class NormedLinear(nn.Linear):
    """A linear layer under weight normalization.

    Args:
        plain: begins as its function; its bias is taken over.
        parts: equal parts of the inputs, each with gains of its own.
    """

    direction: nn.Parameter
    gain: nn.Parameter

    def __init__(self, plain: nn.Linear, parts: int = 1) -> None:
        nn.Module.__init__(self)  # not the parent's, which would draw a weight
        self.in_features, self.out_features = plain.in_features, plain.out_features
        _take_over(self, plain, parts * plain.out_features)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(out_features, in_features)."""
        return normalized(self.direction, self.gain)


def _take_over(layer: NormedConv | NormedLinear, plain: CausalConv | nn.Linear, n_gains: int) -> None:
    """Give a layer the parameters of a plain one."""
    weight = plain.weight.detach()
    layer.direction = nn.Parameter(weight.clone())
    layer.gain = nn.Parameter(lengths(weight, n_gains))
    layer.bias = plain.bias


def trained_matrix(layer: CausalConv | nn.Linear) -> Tensor:
    """Return the parameter that is a layer's matrix: its direction, or its weight."""
    return layer.direction if isinstance(layer, NormedConv | NormedLinear) else layer.weight


@torch.no_grad()
def folded(model: Model) -> Model:
    """Return the same function with plain weights: the model itself if it has no others, or else a copy."""
    if not any(isinstance(layer, NormedConv | NormedLinear) for layer in model.modules()):
        return model
    plain = deepcopy(model)
    for module in plain.modules():
        for name, layer in module.named_children():
            if isinstance(layer, NormedConv | NormedLinear):
                setattr(module, name, _plain(layer))
    return plain


def _plain(layer: NormedConv | NormedLinear) -> CausalConv | nn.Linear:
    """Build a layer without normalization that computes the same."""
    weight, with_bias = layer.weight, layer.bias is not None
    plain: CausalConv | nn.Linear
    if isinstance(layer, NormedConv):
        taps, outputs, inputs = weight.shape
        plain = CausalConv(inputs, outputs, taps, layer.dilation, with_bias)
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=with_bias)
    plain.weight = nn.Parameter(weight, requires_grad=layer.direction.requires_grad)
    plain.bias = layer.bias
    return plain.train(layer.training)
