"""What a model's quality is measured in: its name in files and tables, and its unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wavegen.audio.quantize import Quantizer
from wavegen.config import Config


@dataclass(frozen=True)
class Measure:
    """A figure of which less is better.

    Attributes:
        key: in ``metrics.jsonl``, behind ``train_``, ``validation_`` and ``held_out_``.
        fact: in ``--json``, behind ``best_`` and the like.
        unit: in words, behind a number.
        material: what a model of this measure hears.
        heard: the key of how much of it a training has heard.
    """

    key: str
    fact: str
    unit: str
    material: str
    heard: str

    @property
    def is_bits(self) -> bool:
        """Whether it is the figure of a model of sound."""
        return self.key == "bits"

    def text(self, figure: float | None) -> str:
        """A figure with the digits that mean something."""
        if figure is None:
            return "-"
        return f"{figure:.3f}" if self.is_bits else f"{figure:.4g}"


BITS = Measure("bits", "bits_per_sample", "bits/sample", "audio", "hours_of_audio")
SQUARED_ERROR = Measure("squared_error", "squared_error", "squared error", "series", "points_heard")
ABSOLUTE_ERROR = Measure("absolute_error", "absolute_error", "absolute error", "series", "points_heard")
MEASURES = (BITS, SQUARED_ERROR, ABSOLUTE_ERROR)


def measure_of(config: Config) -> Measure:
    """What the model that a configuration describes is measured in."""
    if not config.is_series:
        quantization = config.quantization
        return replace(BITS, unit=Quantizer(quantization.kind, quantization.classes).unit)
    return SQUARED_ERROR if config.output.error == "squared" else ABSOLUTE_ERROR


def measure_in(entry: Mapping[str, Any], unit: str = BITS.unit) -> Measure:
    """What the figures of a line of ``metrics.jsonl``, or facts for ``--json``, are measured in, by their names.

    Args:
        entry: the line or the facts.
        unit: of bits/sample, with the classes where they are not the usual ones.
    """

    def is_in(measure: Measure) -> bool:
        key, fact = measure.key, measure.fact
        return any(name in entry for name in (f"train_{key}", f"validation_{key}", f"best_{fact}", f"all_{fact}"))

    found = next(filter(is_in, MEASURES), BITS)
    return replace(found, unit=unit) if found.is_bits else found


def unit_of_loss(config: Config) -> float:
    """By which a loss is multiplied to be a figure: nats to bits, errors to the units of the data."""
    if not config.is_series:
        return 1.0 / math.log(2)
    scale = float(config.series.scale)
    return scale * scale if config.output.error == "squared" else scale
