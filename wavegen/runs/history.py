"""The history of a training: every step and validation in ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from wavegen.evaluation import BITS, LossUnit, loss_unit_in
from wavegen.runs.run_folder import RunFolder

RECENT_STEPS = 100  # their mean smooths the training loss and the speed
THIS_MODEL = "this model"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A validation, and the training up to it.

    Attributes:
        step: of the training.
        loss: on held-out clips, in the unit of ``loss_unit``; None where it was not finite.
        baselines: the same of the trivial baselines, on the same clips.
        held_out_seconds, all_held_out_seconds: of the audio that was scored, and of all that is held out.
        held_out_points: of the series that were scored.
        train_loss: mean of the training loss since the validation before; None in a checkpoint, which has no history.
        seen: what was trained on by then, as ``Task.trained_on``.
        minutes_trained: by then.
        frames_gain: bits/sample that the right frames save against shuffled ones; None where that was not measured.
        loss_unit: what the losses are.
    """

    step: int
    loss: float | None
    baselines: dict[str, float | None]
    held_out_seconds: float | None = None
    all_held_out_seconds: float | None = None
    held_out_points: int | None = None
    train_loss: float | None = None
    seen: float | None = None
    minutes_trained: float | None = None
    frames_gain: float | None = None
    loss_unit: LossUnit = BITS

    @classmethod
    def from_entry(cls, entry: dict[str, Any], **training: Any) -> Validation:
        """Read a validation's line of ``metrics.jsonl``.

        Runs of older versions have a second loss in the last one, on all held-out audio, and baselines of the same:
        those two compare.
        """
        loss = entry.get("held_out_loss")
        return cls(
            step=entry["step"],
            loss=finite(entry["validation_loss"] if loss is None else loss),
            baselines={name: finite(each) for name, each in entry.get("baselines", {}).items()},
            held_out_seconds=entry.get("held_out_seconds") if loss is None else None,
            all_held_out_seconds=entry.get("all_held_out_seconds"),
            held_out_points=entry.get("held_out_points"),
            frames_gain=finite(entry.get("frames_gain")),
            loss_unit=loss_unit_in(entry),
            **training,
        )

    def ranking(self) -> list[tuple[str, float | None]]:
        """Return the model, as ``THIS_MODEL``, among the trivial baselines; the worst first."""
        models = {**self.baselines, THIS_MODEL: self.loss}
        return sorted(models.items(), key=lambda item: -math.inf if item[1] is None else -item[1])


@dataclass
class History:
    """A training's steps and validations, in order.

    Attributes:
        steps: their numbers; the lists below run parallel.
        train: the loss of each step's batch; None where it was not finite.
        learning_rates: of each step.
        speeds: targets per second of each step.
        seen: up to each step, as ``Task.trained_on``.
        epochs: passes over the training data by the last step; 0 where that was not recorded.
        seconds: of training, up to each step.
        skipped: steps so far whose loss was not finite.
        validations: every one.
        loss_unit: what the losses are.
    """

    steps: list[int] = field(default_factory=list)
    train: list[float | None] = field(default_factory=list)
    learning_rates: list[float | None] = field(default_factory=list)
    speeds: list[float | None] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    epochs: float = 0.0
    seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[Validation] = field(default_factory=list)
    loss_unit: LossUnit = BITS

    @property
    def step(self) -> int:
        """The last step."""
        return self.steps[-1] if self.steps else 0

    @property
    def minutes_trained(self) -> float:
        """Minutes of training so far."""
        return self.seconds[-1] / 60 if self.seconds else 0.0

    @property
    def scored(self) -> list[tuple[Validation, float]]:
        """The validations that have a finite loss, each with its loss."""
        return [(each, each.loss) for each in self.validations if each.loss is not None]

    @property
    def best(self) -> Validation | None:
        """The validation with the lowest loss."""
        return min(self.scored, key=lambda item: item[1], default=(None, 0.0))[0]

    @property
    def recent(self) -> list[float]:
        """The training loss of the last steps where it was finite."""
        return list(deque((loss for loss in self.train if loss is not None), maxlen=RECENT_STEPS))

    @property
    def recent_speeds(self) -> list[float]:
        """Targets per second of the last steps, skipped ones too."""
        return [speed for speed in self.speeds[-RECENT_STEPS:] if speed is not None]

    @property
    def baselines(self) -> dict[str, float]:
        """The trivial baselines on what every validation scores, the highest first."""
        figures = self.validations[-1].baselines if self.validations else {}
        known = {name: figure for name, figure in figures.items() if figure is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))


def read_history(path: Path) -> History:
    """Read the metrics of a run folder; it may have none yet."""
    history = History()
    since: list[float] = []  # the training loss since the last validation
    for entry in RunFolder(path).metrics():
        history.loss_unit = loss_unit_in(entry)
        if "train_loss" in entry:
            loss = finite(entry["train_loss"])
            history.steps.append(entry["step"])
            history.train.append(loss)
            history.learning_rates.append(finite(entry.get("learning_rate")))
            history.speeds.append(finite(entry.get("targets_per_second")))
            history.seen.append(entry["hours_of_audio"] if history.loss_unit.is_bits else entry["points_seen"])
            history.epochs = entry.get("epochs", 0.0)
            history.seconds.append(entry["seconds"])
            history.skipped = entry["skipped"]
            since += [] if loss is None else [loss]
        elif "validation_loss" in entry:
            seen = history.seen[-1] if history.seen else 0.0
            trained = {"train_loss": fmean(since) if since else None, "minutes_trained": history.minutes_trained}
            history.validations.append(Validation.from_entry(entry, seen=seen, **trained))
            since = []
    return history


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is not finite: JSON cannot hold that."""
    return value if value is not None and math.isfinite(value) else None
