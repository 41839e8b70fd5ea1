"""What a run's `metrics.jsonl` says: every step and every validation."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from wavegen.evaluation.measure import BITS, Measure, measure_in
from wavegen.runs.run_folder import RunFolder

RECENT_STEPS = 100  # whose mean smooths the training figure and the speed


@dataclass
class History:
    """A training's steps and validations, in order.

    Attributes:
        steps: their numbers; the lists below run parallel.
        train: the figure of each step's batch; None where it was not finite.
        learning_rates: of each step.
        speeds: targets per second of each step.
        heard: up to each step, in the unit of `measure.heard`.
        seconds: of training, up to each step.
        skipped: steps so far whose loss was not finite.
        validations: as `validation_facts`, with the training's mean since the validation before, and what was heard
            and the minutes trained by then.
        measure: what the figures are.
    """

    steps: list[int] = field(default_factory=list)
    train: list[float | None] = field(default_factory=list)
    learning_rates: list[float | None] = field(default_factory=list)
    speeds: list[float | None] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    measure: Measure = BITS

    @property
    def step(self) -> int:
        """The last step."""
        return self.steps[-1] if self.steps else 0

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the lowest figure."""
        return min(self.scored, key=lambda each: float(each[self.measure.fact]), default=None)

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The validations that have a finite figure."""
        return [each for each in self.validations if each[self.measure.fact] is not None]

    @property
    def recent(self) -> list[float]:
        """The training figure of the last steps, those left out that were not finite."""
        last = deque((figure for figure in self.train if figure is not None), maxlen=RECENT_STEPS)
        return list(last)

    @property
    def recent_speeds(self) -> list[float]:
        """Targets per second of the last steps, skipped ones too."""
        return [speed for speed in self.speeds[-RECENT_STEPS:] if speed is not None]

    @property
    def recent_speed(self) -> float | None:
        """Targets per second, the median of the last steps."""
        return median(self.recent_speeds) if self.recent_speeds else None

    @property
    def baselines(self) -> dict[str, float]:
        """The trivial baselines on the audio that every validation hears, the highest first.

        The last validation of a finished run hears all held-out audio besides, and its baselines are those of all:
        they stand in only where there is no other.
        """
        fact = self.measure.fact
        usual = [each for each in self.validations if each[f"all_{fact}"] is None]
        figures = (usual or self.validations)[-1][f"baselines_{fact}"] if self.validations else {}
        known = {name: figure for name, figure in figures.items() if figure is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))


def read_history(path: Path) -> History:
    """Read the metrics of a run's folder; there need not be any yet."""
    history = History()
    since: list[float] = []  # the training figure since the last validation
    for entry in RunFolder(path).metrics():
        history.measure = measure = measure_in(entry)
        if "train_loss" in entry:
            figure = finite(entry["train_loss"])
            history.steps.append(entry["step"])
            history.train.append(figure)
            history.learning_rates.append(finite(entry.get("learning_rate")))
            history.speeds.append(finite(entry.get("targets_per_second")))
            history.heard.append(entry["hours_of_audio"] if measure.is_bits else entry["points_seen"])
            history.seconds.append(entry["seconds"])
            history.skipped = entry["skipped"]
            since += [] if figure is None else [figure]
        elif "validation_loss" in entry:
            history.validations.append(
                {
                    **validation_facts(entry),
                    f"train_{measure.fact}": fmean(since) if since else None,
                    measure.heard: history.heard[-1] if history.steps else 0.0,
                    "minutes_trained": history.seconds[-1] / 60 if history.steps else 0.0,
                }
            )
            since = []
    return history


def validation_facts(entry: dict[str, Any]) -> dict[str, Any]:
    """A validation's line of `metrics.jsonl`.

    In runs of older versions the last one has a second figure, on all held-out audio, and baselines of the same.
    """
    measure = measure_in(entry)
    held_out = "held_out_seconds" if measure.is_bits else "held_out_points"
    return {
        "step": entry["step"],
        measure.fact: finite(entry["validation_loss"]),
        f"all_{measure.fact}": finite(entry.get("held_out_loss")),
        f"baselines_{measure.fact}": {name: finite(each) for name, each in entry.get("baselines", {}).items()},
        held_out: entry.get(held_out),
        "all_held_out_seconds": entry.get("all_held_out_seconds"),
    }


def finite(value: float | None) -> float | None:
    """The value, or None where it is not finite: JSON has no word for that."""
    return value if value is not None and math.isfinite(value) else None
