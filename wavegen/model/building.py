"""From a configuration to its network."""

from __future__ import annotations

from wavegen.config import Config
from wavegen.model.layers import build_raw_input
from wavegen.model.network import Network
from wavegen.model.outputs import build_distribution
from wavegen.model.recurrent import Recurrent
from wavegen.model.stack import Stack
from wavegen.model.wavenet import WaveNet


def build_model(config: Config) -> Network:
    """The network that a configuration describes, with fresh weights from torch's current generator."""
    model = config.model
    if model.kind == "wavenet":
        return build_wavenet(config)
    classes, distribution = config.n_classes, build_distribution(config)
    entry, width = build_raw_input(model.input, classes, model.embedding_channels)
    if model.kind == "stack":
        return Stack(classes=classes, entry=entry, width=width, layers=model.layers, distribution=distribution)
    return Recurrent(
        classes=classes,
        entry=entry,
        width=width,
        kind=model.kind,
        channels=model.recurrent_channels,
        n_layers=model.recurrent_layers,
        context=model.context,
        distribution=distribution,
    )


def build_wavenet(config: Config) -> WaveNet:
    """The same, for a configuration of that kind."""
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
