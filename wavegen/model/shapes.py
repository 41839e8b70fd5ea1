"""The parameters of a network by name and shape, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.errors import ModelError
from wavegen.model.outputs import Distribution, build_distribution

Shape = tuple[int, ...]

ACTIVATIONS = ("gated", "relu", "tanh")


def output_has_bias(bias: bool, distribution: Distribution) -> bool:
    """Whether the output layer has biases in a network with or without others: a mixture's first scales are in them."""
    return bias or distribution.kind != "softmax"


def parameter_shapes(config: Config) -> dict[str, Shape]:
    """What ``build_model(config)`` has, name by name."""
    if config.model.kind == "wavenet":
        return _wavenet_shapes(config)
    return _stack_shapes(config) if config.model.kind == "stack" else _recurrent_shapes(config)


def _raw_input(config: Config) -> tuple[dict[str, Shape], int]:
    """The input's parameters and its width, in the kinds whose own first layer has the weights."""
    classes, width = config.n_classes, config.model.embedding_channels
    if config.model.input == "embedding":
        return {"input.weight": (classes, width)}, width
    return {}, classes if config.model.input == "one_hot" else 1


def layer_widths(config: Config) -> list[int]:
    """Channels of a stack's input, and of each layer's output."""
    widths = [_raw_input(config)[1]]
    named = {"input": widths[0]}
    for layer in config.model.layers:
        widths.append(layer.width(widths[-1], named.get(layer.source or "", 0)))
        if layer.name is not None:
            named[layer.name] = widths[-1]
    return widths


def _stack_shapes(config: Config) -> dict[str, Shape]:
    shapes, widths = _raw_input(config)[0], layer_widths(config)
    for i, layer in enumerate(config.model.layers):
        if layer.channels is not None:
            taps = layer.kernel_size if layer.kind == "conv" else 1
            shapes[f"layers.{i}.weight"] = (taps, layer.channels, widths[i])
            shapes[f"layers.{i}.bias"] = (layer.channels,)
    n_parameters = build_distribution(config).n_parameters
    return {**shapes, "output.weight": (n_parameters, widths[-1]), "output.bias": (n_parameters,)}


def _recurrent_shapes(config: Config) -> dict[str, Shape]:
    shapes, width = _raw_input(config)
    channels, n_parameters = config.model.recurrent_channels, build_distribution(config).n_parameters
    gates = (4 if config.model.kind == "lstm" else 3) * channels
    for layer in range(config.model.recurrent_layers):
        shapes[f"recurrent.weight_ih_l{layer}"] = (gates, channels if layer else width)
        shapes[f"recurrent.weight_hh_l{layer}"] = (gates, channels)
        shapes[f"recurrent.bias_ih_l{layer}"] = shapes[f"recurrent.bias_hh_l{layer}"] = (gates,)
    return {**shapes, "output.weight": (n_parameters, channels), "output.bias": (n_parameters,)}


def _wavenet_shapes(config: Config) -> dict[str, Shape]:
    model, classes = config.model, config.n_classes
    distribution = build_distribution(config)
    residual, gate, dilations = model.residual_channels, model.gate_channels, model.dilations
    convolved = model.conv_channels
    entry: dict[str, dict[str, Shape]] = {
        "embedding": {"input.weight": (classes, residual)},
        "one_hot": {"input.weight": (classes, residual), "input.bias": (residual,)},
        "scalar": {"input.linear.weight": (residual, 1), "input.linear.bias": (residual,)},
    }
    shapes = entry[model.input]
    for block in range(len(dilations)):
        shapes[f"blocks.{block}.conv.weight"] = (model.kernel_size, convolved, residual)
        if model.bias:
            shapes[f"blocks.{block}.conv.bias"] = (convolved,)
        if block + 1 < len(dilations):
            shapes[f"blocks.{block}.residual.weight"] = (residual, gate)
    widths = [len(dilations) * gate, model.skip_channels, model.head_channels, distribution.n_parameters]
    for name, inputs, outputs in zip(("skip", "head", "output"), widths[:-1], widths[1:], strict=True):
        shapes[f"{name}.weight"] = (outputs, inputs)
        if model.bias or (name == "output" and output_has_bias(model.bias, distribution)):
            shapes[f"{name}.bias"] = (outputs,)
    n_labels, n_mels = config.n_labels, config.mel.n_mels or 0
    if n_labels:
        shapes["conditioning.labels"] = (n_labels, model.label_channels)
    if n_mels and config.mel.upsampling > 1:
        shapes["conditioning.interpolation"] = (n_mels, 2 * config.mel.upsampling)
    if columns := condition_columns(config):
        shapes["conditioning.projection"] = (len(dilations) * convolved, sum(columns.values()))
    if model.weight_norm:
        for name in [name for name in shapes if _is_normed(name)]:
            layer, shape = name.removesuffix(".weight"), shapes.pop(name)
            shapes[f"{layer}.direction"] = shape
            shapes[f"{layer}.gain"] = (shape[-2] * (len(dilations) if layer == "skip" else 1),)
    return shapes


def condition_columns(config: Config) -> dict[str, int]:
    """How many columns of ``conditioning.projection`` each kind of condition has, in their order; none without any."""
    widths = {"label": config.model.label_channels if config.n_labels else 0, "mel": config.mel.n_mels or 0}
    return {kind: width for kind, width in widths.items() if width}


def _is_normed(name: str) -> bool:
    """Whether weight normalization makes two of a parameter."""
    return name.endswith(".weight") and name.startswith(("blocks.", "skip.", "head."))


def fold_weight_norm(weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Plain weights by name: every direction and gain of ``wavegen.model.weight_norm`` made the weight they stand for.

    Args:
        weights: as a checkpoint has them; those without any are returned as they are.
    """
    plain = {name: array for name, array in weights.items() if not name.endswith((".direction", ".gain"))}
    for name in weights.keys() - plain.keys():
        layer, _, part = name.rpartition(".")
        if part == "direction":
            direction, gain = weights[name], weights[f"{layer}.gain"]
            by_output = direction.swapaxes(0, 1) if direction.ndim == 3 else direction  # outputs first
            rows = by_output.reshape(len(gain), -1)
            weight = rows * (gain / np.linalg.norm(rows, axis=1))[:, None]
            weight = weight.reshape(by_output.shape)
            plain[f"{layer}.weight"] = np.ascontiguousarray(weight.swapaxes(0, 1) if direction.ndim == 3 else weight)
    return plain


def with_gains(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]) -> dict[str, npt.NDArray[Any]]:
    """The reverse of ``fold_weight_norm``: a direction and a gain for each weight of which these shapes have them.

    Args:
        weights: plain, by name.
        shapes: of the parameters wanted.
    """
    parted = dict(weights)
    for name in [name for name in shapes if name.endswith(".direction")]:
        layer = name.removesuffix(".direction")
        if (weight := parted.pop(f"{layer}.weight", None)) is not None and f"{layer}.gain" in shapes:
            by_output = weight.swapaxes(0, 1) if weight.ndim == 3 else weight
            n_gains = shapes[f"{layer}.gain"][0]
            if by_output.size % n_gains == 0:
                parted[f"{layer}.gain"] = np.linalg.norm(by_output.reshape(n_gains, -1), axis=1)
            parted[name] = weight
    return parted


def check_weights(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]) -> None:
    """Make sure that weights fit a network.

    Raises:
        ModelError: a name or a shape does not fit, or a weight is not finite.
    """
    for name in shapes.keys() ^ weights.keys():
        where = "the checkpoint lacks" if name in shapes else "the checkpoint has, and the model lacks,"
        raise ModelError(f"the checkpoint does not fit its configuration: {where} '{name}'")
    for name, shape in shapes.items():
        if weights[name].shape != tuple(shape):
            raise ModelError(
                f"the checkpoint does not fit its configuration: '{name}': "
                f"expected the shape {tuple(shape)}, found {weights[name].shape}"
            )
        if not np.isfinite(weights[name]).all():
            raise ModelError(f"the checkpoint's weights are not finite: '{name}'")
