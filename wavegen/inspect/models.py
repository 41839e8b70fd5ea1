"""Configurations and checkpoints: values, network, training, losses, and the training data."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.audio.levels import RecordingProfile
from wavegen.config import DEFAULT_PRESET, Config, all_preset_names, differences, load_config
from wavegen.device import choose_device
from wavegen.evaluation.scores import LossUnit, loss_unit_of
from wavegen.model.building import build_distribution, build_model
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint
from wavegen.runs.run_folder import Validation, finite
from wavegen.text import list_first

if TYPE_CHECKING:
    from wavegen.model.network import LayerFacts

ACTIVATIONS = {"relu": "ReLU without a gate", "tanh": "tanh without a gate"}


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Size and reach of a network.

    Attributes:
        parameters_by_part: by the names of its parts.
        description: its kind, its size, and in what its blocks differ from the paper's, in words.
        layers: between the input and the output, the lowest first.
        has_memory: a prediction depends on all of the past; the receptive field is then what precedes a window.
        multiply_adds_per_sample: in generation.
        output: the output distribution, in words.
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
    output: str


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """The data and the memory of a training step.

    Attributes:
        windows: of a batch.
        audio_seconds_per_step, audio_hours_in_all: None for series.
        memory_bytes, memory_precision: an estimate, above what the libraries take.
    """

    windows: int
    targets_per_step: int
    audio_seconds_per_step: float | None
    audio_hours_in_all: float | None
    memory_bytes: int
    memory_precision: str


@dataclass(frozen=True, kw_only=True)
class ConfigFacts:
    """A configuration, complete and checked.

    Attributes:
        preset: the one that it was made from, by its values; None if it is one.
        differences: from that, a line each.
    """

    kind = "config"
    path: str
    config: Config
    preset: str | None
    differences: list[str]
    network: NetworkFacts
    training: TrainingFacts


def inspect_config(source: str) -> ConfigFacts:
    """Resolve a configuration, a file or a preset's name, and build its network, without its weights.

    Raises:
        ConfigError: with every problem found.
    """
    config, preset, changes = load_config(source), None, list[str]()
    if source not in all_preset_names():
        of_preset = {name: differences(load_config(name), config) for name in (DEFAULT_PRESET, *all_preset_names())}
        nearest = min(of_preset, key=lambda name: len(of_preset[name]))
        # a file that was not made from another preset takes what it leaves out from the default one
        preset = nearest if 2 * len(of_preset[nearest]) < len(of_preset[DEFAULT_PRESET]) else DEFAULT_PRESET
        changes = of_preset[preset]
    return ConfigFacts(
        path=source,
        config=config,
        preset=preset,
        differences=changes,
        network=inspect_network(config),
        training=_inspect_training(config),
    )


def inspect_network(config: Config) -> NetworkFacts:
    """Build the network that a configuration describes, and measure it."""
    import torch

    with torch.device("meta"):  # shapes without memory
        model = build_model(config)
    rate = config.rate_hz
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    return NetworkFacts(
        parameters=model.n_parameters,
        parameters_by_part=dict(parts),
        kind=config.model.kind,
        layers=model.layer_facts(),
        description=", ".join(filter(None, [model.describe(), describe_block(config)])),
        has_memory=model.has_memory,
        receptive_field_samples=model.receptive_field,
        receptive_field_ms=1000 * model.receptive_field / rate if rate else None,
        multiply_adds_per_sample=model.multiply_adds,
        output=build_distribution(config).describe(),
    )


def describe_block(config: Config) -> str:
    """Describe the differences of the blocks from the paper's; empty for none."""
    model = config.model
    bias, norm = "" if model.bias else "no biases", "weight norm" if model.weight_norm else ""
    dropout = f"dropout {model.dropout:g}" if model.dropout else ""
    return ", ".join(filter(None, [ACTIVATIONS.get(model.activation), bias, norm, dropout]))


def _inspect_training(config: Config) -> TrainingFacts:
    from wavegen.training.compute import resolve_compute, training_bytes

    settings = config.training
    compute = resolve_compute(config, choose_device("cpu" if settings.backend == "fused" else "auto"))
    per_step = compute.batch_size * settings.window_targets
    seconds = None if config.rate_hz is None else per_step / config.rate_hz
    return TrainingFacts(
        windows=compute.batch_size,
        targets_per_step=per_step,
        audio_seconds_per_step=seconds,
        audio_hours_in_all=None if settings.steps is None or seconds is None else settings.steps * seconds / 3600,
        memory_bytes=training_bytes(config, compute),
        memory_precision=compute.precision,
    )


@dataclass(frozen=True)
class SplitFacts:
    """One part of a corpus; its length in minutes of audio, or points of series."""

    clips: int
    minutes: float | None
    points: int | None


@dataclass(frozen=True)
class DataFacts:
    """The data that a model was trained and validated on.

    Attributes:
        folder: None where it is not known.
        held_out_hash: losses compare between runs where the held-out clips, and so their hash, are the same.
        labels: of the clips, in alphabetical order.
    """

    folder: str | None
    train: SplitFacts
    validation: SplitFacts
    held_out_hash: str | None
    labels: list[str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> DataFacts:
        """Sum up the manifest of a checkpoint."""
        config, manifest = checkpoint.config, checkpoint.manifest

        def part(split: str) -> SplitFacts:
            lengths = [clip["n_samples"] for clip in manifest if clip["split"] == split]
            total, rate = sum(lengths), config.rate_hz
            return SplitFacts(len(lengths), total / rate / 60 if rate else None, None if rate else total)

        held_out = sorted((clip["content_hash"], clip["n_samples"]) for clip in manifest if clip["split"] != "train")
        return cls(
            folder=list_first(config.data_sources, 3) or None,
            train=part("train"),
            validation=part("validation"),
            held_out_hash=hashlib.sha256(repr(held_out).encode()).hexdigest()[:16] if held_out else None,
            labels=sorted({clip["label"] for clip in manifest if clip.get("label") is not None}),
        )


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The progress of a training, and its held-out losses.

    Attributes:
        total_steps: None where only its minutes are known yet.
        seen: the data trained on so far, repeated passes included: hours of audio, or points of series.
        skipped_steps: whose loss was not finite.
        best_loss, best_step: of the validation with the lowest loss.
        last_validation: None before the first.
        loss_unit: what the losses are.
    """

    step: int
    total_steps: int | None
    seen: float
    minutes_trained: float
    skipped_steps: int
    best_loss: float | None
    best_step: int | None
    last_validation: Validation | None
    loss_unit: LossUnit


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts(TrainingState):
    """A checkpoint.

    Attributes:
        for_use_only: averaged weights alone; training cannot resume from it.
        versions: of the packages that wrote it.
        recordings: the profile of the prepared recordings; None in files of older versions.
        data: None where the checkpoint does not know its clips.
    """

    kind = "checkpoint"
    path: str
    file_bytes: int
    for_use_only: bool
    versions: dict[str, str]
    recordings: RecordingProfile | None
    network: NetworkFacts
    data: DataFacts | None
    config: Config


def inspect_checkpoint(path: Path) -> CheckpointFacts:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: it is damaged, none of wavegen, or of another version.
    """
    checkpoint = load_checkpoint(path)
    recordings = checkpoint.metrics.get("recordings")
    return CheckpointFacts(
        path=str(path),
        file_bytes=path.stat().st_size,
        for_use_only=checkpoint.is_for_use_only,
        versions=dict(checkpoint.versions),
        recordings=None if recordings is None else RecordingProfile.from_dict(recordings),
        network=inspect_network(checkpoint.config),
        data=DataFacts.of(checkpoint) if checkpoint.manifest else None,
        config=checkpoint.config,
        **vars(training_state(checkpoint)),
    )


def training_state(checkpoint: Checkpoint) -> TrainingState:
    """Read the progress of a training from its checkpoint."""
    metrics, loss_unit = checkpoint.metrics, loss_unit_of(checkpoint.config)
    n_targets = metrics.get("targets", 0)
    return TrainingState(
        step=checkpoint.step,
        total_steps=checkpoint.config.training.steps,
        seen=n_targets / checkpoint.config.audio.sample_rate_hz / 3600 if loss_unit.is_bits else n_targets,
        minutes_trained=metrics.get("seconds", 0.0) / 60,
        skipped_steps=checkpoint.step - metrics.get("updates", checkpoint.step),
        best_loss=finite(metrics.get("best_loss")),
        best_step=metrics.get("best_step"),
        last_validation=Validation.from_entry(metrics["validation"]) if metrics.get("validation") else None,
        loss_unit=loss_unit,
    )
