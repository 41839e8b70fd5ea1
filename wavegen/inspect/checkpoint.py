"""A checkpoint: its training's progress, its losses, and its training data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wavegen.audio.levels import RecordingProfile
from wavegen.config import Config
from wavegen.evaluation.loss_unit import LossUnit, loss_unit_of
from wavegen.inspect.config import NetworkFacts, inspect_network
from wavegen.inspect.facts import Facts
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint
from wavegen.runs.history import Validation, finite


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
        splits = {}
        for split in ("train", "validation"):
            lengths = [clip["n_samples"] for clip in manifest if clip["split"] == split]
            rate, total = config.rate_hz, sum(lengths)
            in_minutes = SplitFacts(len(lengths), minutes=total / rate / 60, points=None) if rate else None
            splits[split] = in_minutes or SplitFacts(len(lengths), minutes=None, points=total)
        held_out = sorted((clip["content_hash"], clip["n_samples"]) for clip in manifest if clip["split"] != "train")
        return cls(
            folder=config.data_source,
            train=splits["train"],
            validation=splits["validation"],
            held_out_hash=hashlib.sha256(repr(held_out).encode()).hexdigest()[:16] if held_out else None,
            labels=sorted({clip["label"] for clip in manifest if clip.get("label") is not None}),
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts(TrainingState, Facts):
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
