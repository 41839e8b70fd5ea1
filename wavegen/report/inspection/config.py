"""A configuration: its values, and the network and training that they describe."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from typing import Any

from wavegen.audio.quantize import Quantizer
from wavegen.config import Config, LayerConfig, ModelConfig, load_config
from wavegen.data.conditioning import list_labels
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.tables import Table, facts, file_size, minutes
from wavegen.text import printable


def inspect_config(source: str) -> Inspection:
    """Resolve a configuration and build its network, without its weights.

    Args:
        source: a file or a preset's name.

    Raises:
        ConfigError: with every problem found.
    """
    config = load_config(source)
    network, training = network_facts(config), _training_facts(config)
    values = {
        "kind": "config",
        "path": source,
        "config": config.model_dump(),
        "network": network,
        "training": training,
    }
    settings = [
        (f"{section}.{key}", as_yaml(value))
        for section, pairs in config.model_dump().items()
        for key, value in pairs.items()
    ]
    tables = [Table(printable(source), (), settings), network_table(network), _training_table(config, training)]
    return Inspection("config", values, tables)


def network_facts(config: Config) -> dict[str, Any]:
    """Size and reach of the network that a configuration describes."""
    import torch

    from wavegen.model.building import build_model

    with torch.device("meta"):  # shapes without memory
        model = build_model(config)
    rate = None if config.is_series else config.audio.sample_rate_hz
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    return {
        "parameters": model.n_parameters,
        "parameters_by_part": dict(parts),
        "kind": config.model.kind,
        "layers": _layers(config.model),
        **_wavenet_facts(config.model),
        "receptive_field_samples": model.receptive_field,
        "receptive_field_ms": None if rate is None else 1000 * model.receptive_field / rate,
        "multiply_adds_per_sample": model.multiply_adds,
        "sample_rate_hz": rate,
        "quantization": None if rate is None else config.quantization.kind,
        "classes": None if rate is None else config.quantization.classes,
        "horizon": config.output.horizon if config.is_series else None,
        "output": output_in_words(config),
        "block": block_in_words(config),
        "labels": None if config.data.labels == "none" else _known_labels(config),
        "mel": config.mel.model_dump() if config.mel.n_mels is not None else None,
    }


def _wavenet_facts(model: ModelConfig) -> dict[str, Any]:
    return {"residual_blocks": len(model.dilations), "dilations": model.dilations} if model.kind == "wavenet" else {}


def _layers(model: ModelConfig) -> list[dict[str, Any]]:
    """What each layer between the input and the output is, and how far it reaches; the lowest first."""
    if model.kind == "wavenet":
        return [
            {"name": "block", "kernel_size": model.kernel_size, "dilation": dilation} for dilation in model.dilations
        ]
    if model.kind == "stack":
        return [_layer(layer) for layer in model.layers]
    return [{"name": model.kind, "kernel_size": None, "dilation": None}] * model.recurrent_layers


def _layer(layer: LayerConfig) -> dict[str, Any]:
    has_taps = layer.kind in ("conv", "average_pool", "max_pool")
    return {
        "name": layer.kind.replace("_", " "),
        "kernel_size": layer.kernel_size if has_taps else 1,
        "dilation": layer.dilation if has_taps else 1,
    }


def _layers_in_words(network: dict[str, Any]) -> str:
    """The layers by their names, equal neighbours counted."""
    names = [layer["name"] for layer in network["layers"]]
    runs = [f"{len(list(run))} x {name}" for name, run in groupby(names)]
    return ", ".join(runs) if runs else "none"


def _known_labels(config: Config) -> list[str] | str:
    """The labels in the model's order, or ``auto`` where no folder has been seen yet."""
    return config.data.label_names


def network_table(network: dict[str, Any]) -> Table:
    """What `network_facts` found."""
    return facts(
        "network",
        parameters=f"{network['parameters']:,}",
        receptive_field=receptive_field(network),
        layers=_layers_in_words(network) + (f": {network['block']}" if network.get("block") else ""),
        sound=None if network["classes"] is None else f"{network['sample_rate_hz']:,} Hz, {resolution(network)}",
        output=network["output"],
        labels=_labels_in_words(network["labels"]),
        mel_spectrograms=_mel_in_words(network["mel"], network["sample_rate_hz"]),
        generation=f"{network['multiply_adds_per_sample']:,} multiply-adds a sample",
    )


def output_in_words(config: Config) -> str:
    """The output distribution."""
    if config.output.kind == "softmax":
        return "softmax"
    if config.output.kind == "regression":
        horizon = config.output.horizon
        return f"the next {f'{horizon} values' if horizon > 1 else 'value'}, by {config.output.error} error"
    n, shape = config.output.components, config.output.kind.removesuffix("_mixture").replace("gaussian", "Gaussian")
    return f"one {shape} distribution" if n == 1 else f"mixture of {n} {shape} distributions"


def block_in_words(config: Config) -> str:
    """In what the blocks are not the paper's; empty for nothing."""
    model = config.model
    parts = [
        None if model.activation == "gated" else {"relu": "ReLU", "tanh": "tanh"}[model.activation] + " without a gate",
        None if model.bias else "no biases",
        "weight norm" if model.weight_norm else None,
        f"dropout {model.dropout:g}" if model.dropout else None,
    ]
    return ", ".join(part for part in parts if part)


def resolution(network: dict[str, Any]) -> str:
    """What a sample can be: figures in bits/sample compare only where this is the same."""
    return str(Quantizer(network["quantization"], network["classes"]))


def unit(network: dict[str, Any]) -> str:
    """Of the network's figures: ``bits/sample``, with the classes named unless they are the usual ones."""
    return "" if network["classes"] is None else Quantizer(network["quantization"], network["classes"]).unit


def _labels_in_words(labels: list[str] | str | None) -> str | None:
    if labels is None or isinstance(labels, str):
        return None if labels is None else "the sub-folders of the recordings"
    return f"{len(labels)}: {list_labels(labels)}"


def _mel_in_words(mel: dict[str, Any] | None, rate: int) -> str | None:
    if mel is None:
        return None
    hop = mel["hop_length"]
    rows = "each repeated" if mel["upsampling"] == 1 else f"{mel['upsampling']} learned steps in each"
    return f"{mel['n_mels']} bands, {rate / hop:.4g} frames a second of {hop} samples, {rows}"


def receptive_field(network: dict[str, Any]) -> str:
    """The receptive field in samples and milliseconds."""
    reach = f"{network['receptive_field_samples']:,} points"
    if network["receptive_field_ms"] is not None:
        reach = f"{network['receptive_field_samples']:,} samples ({network['receptive_field_ms']:.1f} ms)"
    return f"all of the past; {reach} before a window's first target" if has_memory(network["kind"]) else reach


def has_memory(kind: str) -> bool:
    """Whether a prediction of this kind of model depends on all of the past."""
    return kind in ("gru", "lstm")


def _training_facts(config: Config) -> dict[str, Any]:
    """What a training step sees and takes."""
    from wavegen.device import choose_device
    from wavegen.training.memory import training_bytes
    from wavegen.training.settling import settle

    config = settle(config, choose_device("cpu" if config.training.backend == "fused" else "auto"))
    settings, rate = config.training, config.audio.sample_rate_hz
    per_step = int(settings.batch_size) * settings.window_targets
    seconds = None if config.is_series else per_step / rate
    precision = "bfloat16" if settings.precision == "bfloat16" else "float32"
    return {
        "windows": settings.batch_size,
        "targets_per_step": per_step,
        "audio_seconds_per_step": seconds,
        "steps": settings.steps,
        "audio_hours_in_all": None if settings.steps is None or seconds is None else settings.steps * seconds / 3600,
        "minutes": settings.minutes,
        "memory_bytes": training_bytes(config, precision),
        "memory_precision": precision,
    }


def _training_table(config: Config, training: dict[str, Any]) -> Table:
    seconds, hours = training["audio_seconds_per_step"], training["audio_hours_in_all"]
    memory = f"about {file_size(training['memory_bytes'])} ({training['memory_precision']})"
    step = f"{training['targets_per_step']:,} targets" + ("" if seconds is None else f", {seconds:.2f} s of audio")
    windows = f"{training['windows']} x {config.training.window_targets:,} targets, context on top"
    whole = (
        f"{config.training.minutes:g} minutes; the steps are measured at the start"
        if training["steps"] is None
        else f"{training['steps']:,} steps" + ("" if hours is None else f", {minutes(3600 * hours)} of audio")
    )
    return facts(
        "training",
        windows_in_a_step=windows,
        one_step=step,
        whole_training=whole,
        memory=f"{memory}, above the libraries' own",
    )


def as_yaml(value: Any) -> str:
    """A key's value on a line."""
    return value if isinstance(value, str) else json.dumps(value)
