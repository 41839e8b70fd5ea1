"""From a configuration to its network and its output distribution, and the parameters by name and shape.

Nothing here imports torch before it builds: an engine that does without takes arrays and a description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.errors import ModelError
from wavegen.model.outputs import Distribution, GaussianMixture, LogisticMixture, Regression, Softmax

if TYPE_CHECKING:
    from wavegen.model.network import Network

DISTRIBUTIONS: dict[str, Callable[[Config], Distribution]] = {
    "softmax": lambda config: Softmax(config.quantization.classes),
    "logistic_mixture": lambda config: LogisticMixture(config.quantization.classes, config.output.components),
    "gaussian_mixture": lambda config: GaussianMixture(config.quantization.classes, config.output.components),
    "regression": lambda config: Regression(config.output.horizon, config.output.error),
}

Shape = tuple[int, ...]

OLD_RECURRENT_NAME = re.compile(r"recurrent\.(?P<parameter>\w+)_l(?P<layer>\d+)")
ACTIVATIONS = ("gated", "relu", "tanh")


def build_distribution(config: Config) -> Distribution:
    """Build the output distribution that a configuration names."""
    return DISTRIBUTIONS[config.output.kind](config)


def build_model(config: Config) -> Network:
    """Build the network that a configuration describes, with fresh weights from torch's current generator."""
    classes, distribution, frames = config.n_classes, build_distribution(config), config.frames
    if config.model.kind == "stack":
        from wavegen.model.stack import Stack

        return Stack(classes, distribution, config.model)
    from wavegen.model.wavenet import WaveNet

    of_frames = (0, 1) if frames is None else (frames.width, frames.upsampling)
    return WaveNet(classes, distribution, config.model, config.n_labels, *of_frames)


def parameter_shapes(config: Config) -> dict[str, Shape]:
    """Return the shape of each parameter of ``build_model(config)`` by name; of a WaveNet without torch."""
    if config.model.kind == "wavenet":
        return wavenet_shapes(config, build_distribution(config))
    import torch

    with torch.device("meta"):  # no memory, no numbers
        return {name: tuple(parameter.shape) for name, parameter in build_model(config).named_parameters()}


def wavenet_shapes(config: Config, distribution: Distribution) -> dict[str, Shape]:
    """Return the shape of each of a WaveNet's parameters by name."""
    model, classes, depth = config.model, config.n_classes, len(config.model.dilations)
    residual, gate, convolved = model.residual_channels, model.gate_channels, model.conv_channels
    entry: dict[str, dict[str, Shape]] = {
        "embedding": {"input.weight": (classes, residual)},
        "one_hot": {"input.weight": (classes, residual), "input.bias": (residual,)},
        "scalar": {"input.linear.weight": (residual, 1), "input.linear.bias": (residual,)},
    }
    shapes = entry[model.input]
    layers: dict[str, Shape] = {}
    for block in range(depth):
        layers[f"blocks.{block}.conv"] = (model.kernel_size, convolved, residual)
        if block + 1 < depth:
            layers[f"blocks.{block}.residual"] = (residual, gate)
    layers["skip"] = (model.skip_channels, depth * gate)
    layers["head"] = (model.head_channels, model.skip_channels)
    layers["output"] = (distribution.n_parameters, model.head_channels)
    for layer, shape in layers.items():
        if model.weight_norm and layer != "output":
            shapes[f"{layer}.direction"] = shape
            shapes[f"{layer}.gain"] = (shape[-2] * (depth if layer == "skip" else 1),)
        else:
            shapes[f"{layer}.weight"] = shape
        if (layer == "output" and distribution.is_precise) or (model.bias and not layer.endswith("residual")):
            shapes[f"{layer}.bias"] = (shape[-2],)
    if config.n_labels:
        shapes["conditioning.labels"] = (config.n_labels, model.label_channels)
    if config.frames is not None and config.frames.upsampling > 1:
        shapes["conditioning.interpolation"] = (config.frames.width, 2 * config.frames.upsampling)
    if columns := condition_columns(config):
        shapes["conditioning.projection"] = (depth * convolved, sum(columns.values()))
    return shapes


def current_name(name: str) -> str:
    """Return today's name of a parameter in a file of an older version, whose recurrent networks were no stacks."""
    old = OLD_RECURRENT_NAME.fullmatch(name)
    return name if old is None else f"layers.{old['layer']}.cell.{old['parameter']}_l0"


def condition_columns(config: Config) -> dict[str, int]:
    """Return the columns of ``conditioning.projection`` by kind of condition, in order; empty without conditions."""
    widths = {
        "label": config.model.label_channels if config.n_labels else 0,
        "mel": config.mel.width,
        "feature": config.features.width,
    }
    return {kind: width for kind, width in widths.items() if width}


def fold_weight_norm(weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Fold every direction and gain of ``wavegen.model.layers.WeightNorm`` into a plain weight.

    Args:
        weights: as a checkpoint has them; those without any are returned as they are.
    """
    plain = {}
    for name, array in weights.items():
        layer, _, part = name.rpartition(".")
        if part == "direction":
            gain = weights[f"{layer}.gain"]
            # (taps, outputs, inputs) -> (outputs, taps, inputs) -> (gains, the rest): a vector for each gain;
            # a matrix of (outputs, inputs) stays as it is
            by_output = array.swapaxes(0, -2)
            rows = by_output.reshape(len(gain), -1)
            # w = g v / |v|
            weight = rows * (gain / np.linalg.norm(rows, axis=1))[:, None]
            plain[f"{layer}.weight"] = np.ascontiguousarray(weight.reshape(by_output.shape).swapaxes(0, -2))
        elif part != "gain":
            plain[name] = array
    return plain


def with_gains(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]) -> dict[str, npt.NDArray[Any]]:
    """Split weights into directions and gains where these shapes have them; the inverse of ``fold_weight_norm``.

    Args:
        weights: plain, by name.
        shapes: of the parameters wanted.
    """
    parted = dict(weights)
    for name in [name for name in shapes if name.endswith(".direction")]:
        layer = name.removesuffix(".direction")
        if (weight := parted.pop(f"{layer}.weight", None)) is not None and f"{layer}.gain" in shapes:
            # likewise: g = |w| for each vector, v = w
            by_output = weight.swapaxes(0, -2)
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
    misfit = "the checkpoint does not fit its configuration"
    for name in shapes.keys() ^ weights.keys():
        where = "the checkpoint lacks" if name in shapes else "the checkpoint has, and the model lacks,"
        raise ModelError(f"{misfit}: {where} '{name}'")
    for name, shape in shapes.items():
        if weights[name].shape != tuple(shape):
            raise ModelError(f"{misfit}: '{name}': expected the shape {tuple(shape)}, found {weights[name].shape}")
        if not np.isfinite(weights[name]).all():
            raise ModelError(f"the checkpoint's weights are not finite: '{name}'")


def load_weights(model: Network, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model's parameters, all of them.

    Raises:
        ModelError: a name or a shape does not fit, or a weight is not finite.
    """
    import torch

    parameters = dict(model.named_parameters())
    check_weights(weights, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(weights[name].copy()))
