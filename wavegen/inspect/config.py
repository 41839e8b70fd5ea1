"""A configuration: its values, its network and its training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wavegen.config import Config, load_config
from wavegen.inspect.facts import Facts

if TYPE_CHECKING:
    from wavegen.model.network import LayerFacts


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Size and reach of a network.

    Attributes:
        parameters_by_part: by the names of its parts.
        description: its kind, its size, and in what its blocks differ from the paper's, in words.
        layers: between the input and the output, the lowest first.
        has_memory: a prediction depends on all of the past; the receptive field is then what precedes a window.
        multiply_adds_per_sample: in generation.
        sample_rate_hz, quantization, classes: None for series; losses in bits/sample compare where they agree.
        horizon: values in a forecast; None for audio.
        output: the output distribution, in words.
        labels: in the model's order; ``auto`` where no folder has been seen yet; None for a model without labels.
        mel: the section ``mel`` of the configuration; None for a model without spectrograms.
    """

    parameters: int
    parameters_by_part: dict[str, int]
    kind: str
    layers: list[LayerFacts]
    description: str
    has_memory: bool
    receptive_field_samples: int
    receptive_field_ms: float | None
    multiply_adds_per_sample: int
    sample_rate_hz: int | None
    quantization: Literal["mu_law", "linear"] | None
    classes: int | None
    horizon: int | None
    output: str
    labels: list[str] | str | None
    mel: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """The data and the memory of a training step.

    Attributes:
        windows, window_targets: of a batch, and predictions in each; context comes on top.
        audio_seconds_per_step, audio_hours_in_all: None for series.
        steps, minutes: one of them is known; the steps of a number of minutes are measured at the start.
        memory_bytes, memory_precision: an estimate, above what the libraries take.
    """

    windows: int
    window_targets: int
    targets_per_step: int
    audio_seconds_per_step: float | None
    steps: int | None
    audio_hours_in_all: float | None
    minutes: float | None
    memory_bytes: int
    memory_precision: str


@dataclass(frozen=True, kw_only=True)
class ConfigFacts(Facts):
    """A configuration, complete and checked."""

    kind = "config"
    path: str
    config: Config
    network: NetworkFacts
    training: TrainingFacts


def inspect_config(source: str) -> ConfigFacts:
    """Resolve a configuration and build its network, without its weights.

    Args:
        source: a file or a preset's name.

    Raises:
        ConfigError: with every problem found.
    """
    config = load_config(source)
    return ConfigFacts(path=source, config=config, network=inspect_network(config), training=_inspect_training(config))


def inspect_network(config: Config) -> NetworkFacts:
    """Build the network that a configuration describes, and measure it."""
    import torch

    from wavegen.model.building import build_model

    with torch.device("meta"):  # shapes without memory
        model = build_model(config)
    is_audio = config.rate_hz is not None
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    return NetworkFacts(
        parameters=model.n_parameters,
        parameters_by_part=dict(parts),
        kind=model.kind,
        layers=model.layer_facts(),
        description=", ".join(filter(None, [model.describe(), describe_block(config)])),
        has_memory=model.has_memory,
        receptive_field_samples=model.receptive_field,
        receptive_field_ms=1000 * model.receptive_field / config.audio.sample_rate_hz if is_audio else None,
        multiply_adds_per_sample=model.multiply_adds,
        sample_rate_hz=config.audio.sample_rate_hz if is_audio else None,
        quantization=config.quantization.kind if is_audio else None,
        classes=config.quantization.classes if is_audio else None,
        horizon=None if is_audio else config.output.horizon,
        output=describe_output(config),
        labels=None if config.data.labels == "none" else config.data.label_names,
        mel=None if config.mel.n_mels is None else config.mel.model_dump(),
    )


def describe_output(config: Config) -> str:
    """Return the output distribution in words."""
    output = config.output
    if output.kind == "softmax":
        return "softmax"
    if output.kind == "regression":
        values = f"{output.horizon} values" if output.horizon > 1 else "value"
        return f"the next {values}, by {output.error} error"
    shape = output.kind.removesuffix("_mixture").replace("gaussian", "Gaussian")
    return (
        f"one {shape} distribution"
        if output.components == 1
        else f"mixture of {output.components} {shape} distributions"
    )


def describe_block(config: Config) -> str:
    """Describe the differences of the blocks from the paper's; empty for none."""
    model = config.model
    parts = [
        None if model.activation == "gated" else {"relu": "ReLU", "tanh": "tanh"}[model.activation] + " without a gate",
        None if model.bias else "no biases",
        "weight norm" if model.weight_norm else None,
        f"dropout {model.dropout:g}" if model.dropout else None,
    ]
    return ", ".join(part for part in parts if part)


def _inspect_training(config: Config) -> TrainingFacts:
    from wavegen.device import choose_device
    from wavegen.training.compute import resolve_compute, training_bytes

    compute = resolve_compute(config, choose_device("cpu" if config.training.backend == "fused" else "auto"))
    settings = config.training
    per_step = compute.batch_size * settings.window_targets
    seconds = None if config.rate_hz is None else per_step / config.rate_hz
    return TrainingFacts(
        windows=compute.batch_size,
        window_targets=settings.window_targets,
        targets_per_step=per_step,
        audio_seconds_per_step=seconds,
        steps=settings.steps,
        audio_hours_in_all=None if settings.steps is None or seconds is None else settings.steps * seconds / 3600,
        minutes=settings.minutes,
        memory_bytes=training_bytes(config, compute),
        memory_precision=compute.precision,
    )
