"""From a configuration to its network and its output distribution: the registries of both.

Nothing here imports torch before it builds: an engine that does without takes the distribution's description alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wavegen.config import Config
from wavegen.model.mixtures import GaussianMixture, LogisticMixture
from wavegen.model.outputs import Distribution, Softmax
from wavegen.model.regression import Regression
from wavegen.model.shapes import Shape, wavenet_shapes

if TYPE_CHECKING:
    from wavegen.model.network import Network
    from wavegen.model.stack import Stack
    from wavegen.model.wavenet import WaveNet

DISTRIBUTIONS: dict[str, Callable[[Config], Distribution]] = {
    "softmax": lambda config: Softmax(config.quantization.classes),
    "logistic_mixture": lambda config: LogisticMixture(config.quantization.classes, config.output.components),
    "gaussian_mixture": lambda config: GaussianMixture(config.quantization.classes, config.output.components),
    "regression": lambda config: Regression(config.output.horizon, config.output.error),
}


def build_distribution(config: Config) -> Distribution:
    """Build the output distribution that a configuration names."""
    return DISTRIBUTIONS[config.output.kind](config)


def build_model(config: Config) -> Network:
    """Build the network that a configuration describes, with fresh weights from torch's current generator."""
    return NETWORKS[config.model.kind](config)


def parameter_shapes(config: Config) -> dict[str, Shape]:
    """Return the shape of each parameter of ``build_model(config)`` by name; of a WaveNet without torch."""
    if config.model.kind == "wavenet":
        return wavenet_shapes(config, build_distribution(config))
    import torch

    with torch.device("meta"):  # no memory, no numbers
        return {name: tuple(parameter.shape) for name, parameter in build_model(config).named_parameters()}


def _build_wavenet(config: Config) -> WaveNet:
    from wavegen.model.wavenet import WaveNet

    model = config.model
    return WaveNet(
        classes=config.n_classes,
        dilations=model.dilations,
        kernel_size=model.kernel_size,
        residual_channels=model.residual_channels,
        gate_channels=model.gate_channels,
        skip_channels=model.skip_channels,
        head_channels=model.head_channels,
        distribution=build_distribution(config),
        input_kind=model.input,
        n_labels=config.n_labels,
        label_channels=model.label_channels,
        n_mels=config.mel.n_mels or 0,
        upsampling=config.mel.upsampling,
        bias=model.bias,
        activation=model.activation,
        weight_norm=model.weight_norm,
    )


def _build_stack(config: Config) -> Stack:
    from wavegen.model.layers import build_raw_input
    from wavegen.model.stack import Stack

    model, classes = config.model, config.n_classes
    entry, width = build_raw_input(model.input, classes, model.embedding_channels)
    return Stack(
        classes=classes,
        entry=entry,
        width=width,
        layers=model.layers,
        context=model.context,
        distribution=build_distribution(config),
    )


NETWORKS: dict[str, Callable[[Config], Network]] = {"wavenet": _build_wavenet, "stack": _build_stack}
