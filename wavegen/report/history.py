"""What a run's `metrics.jsonl` says: every step and every validation."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from wavegen.training.run_folder import RunFolder

RECENT_STEPS = 100  # whose mean smooths the training figure and the speed


@dataclass
class History:
    """A training's steps and validations, in order.

    Attributes:
        steps: their numbers; the lists below run parallel.
        train_bits: bits/sample of each step's batch; None where it was not finite.
        learning_rates: of each step.
        speeds: targets per second of each step.
        hours_heard: of audio, up to each step.
        seconds: of training, up to each step.
        skipped: steps so far whose loss was not finite.
        validations: as `validation_facts`, with the training's mean since the validation before, and the hours heard
            and minutes trained by then.
    """

    steps: list[int] = field(default_factory=list)
    train_bits: list[float | None] = field(default_factory=list)
    learning_rates: list[float | None] = field(default_factory=list)
    speeds: list[float | None] = field(default_factory=list)
    hours_heard: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The last step."""
        return self.steps[-1] if self.steps else 0

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the lowest figure."""
        scored = [each for each in self.validations if each["bits_per_sample"] is not None]
        return min(scored, key=lambda each: float(each["bits_per_sample"]), default=None)

    @property
    def recent(self) -> list[float]:
        """The training figure of the last steps, those left out that were not finite."""
        last = deque((bits for bits in self.train_bits if bits is not None), maxlen=RECENT_STEPS)
        return list(last)

    @property
    def recent_speed(self) -> float | None:
        """Targets per second, the median of the last steps."""
        speeds = [speed for speed in self.speeds[-RECENT_STEPS:] if speed is not None]
        return median(speeds) if speeds else None

    @property
    def baselines(self) -> dict[str, float]:
        """The trivial baselines on the audio that every validation hears, the highest first.

        The last validation of a finished run hears all held-out audio besides, and its baselines are those of all:
        they stand in only where there is no other.
        """
        usual = [each for each in self.validations if each["all_bits_per_sample"] is None]
        figures = (usual or self.validations)[-1]["baselines_bits_per_sample"] if self.validations else {}
        known = {name: bits for name, bits in figures.items() if bits is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))


def read_history(path: Path) -> History:
    """Read the metrics of a run's folder; there need not be any yet."""
    history = History()
    since: list[float] = []  # the training figure since the last validation
    for entry in RunFolder(path).metrics():
        if "train_bits" in entry:
            bits = finite(entry["train_bits"])
            history.steps.append(entry["step"])
            history.train_bits.append(bits)
            history.learning_rates.append(finite(entry.get("learning_rate")))
            history.speeds.append(finite(entry.get("targets_per_second")))
            history.hours_heard.append(entry["hours_heard"])
            history.seconds.append(entry["seconds"])
            history.skipped = entry["skipped"]
            since += [] if bits is None else [bits]
        elif "validation_bits" in entry:
            history.validations.append(
                {
                    **validation_facts(entry),
                    "train_bits_per_sample": fmean(since) if since else None,
                    "hours_heard": history.hours_heard[-1] if history.steps else 0.0,
                    "minutes_trained": history.seconds[-1] / 60 if history.steps else 0.0,
                }
            )
            since = []
    return history


def validation_facts(entry: dict[str, Any]) -> dict[str, Any]:
    """A validation's line of `metrics.jsonl`.

    Its last one also hears all held-out audio, and its baselines are those of all; the best is chosen by what every
    validation hears.
    """
    return {
        "step": entry["step"],
        "bits_per_sample": finite(entry["validation_bits"]),
        "all_bits_per_sample": finite(entry.get("held_out_bits")),
        "baselines_bits_per_sample": {name: finite(bits) for name, bits in entry.get("baselines", {}).items()},
        "held_out_seconds": entry.get("held_out_seconds"),
    }


def finite(value: float | None) -> float | None:
    """The value, or None where it is not finite: JSON has no word for that."""
    return value if value is not None and math.isfinite(value) else None
