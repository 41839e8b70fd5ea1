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
    """What a loss is called. Less is better.

    Attributes:
        name: in files.
        unit: behind a number; with the classes where they are not the usual ones.
        material: what a model of this measure is trained on.
        key: in the scores of ``evaluate --json`` and ``--csv``.
    """

    name: str
    unit: str
    material: str
    key: str

    @property
    def is_bits(self) -> bool:
        """Whether it is the loss of a model of sound."""
        return self.name == BITS.name

    def text(self, loss: float | None) -> str:
        """Return a loss with the digits that mean something."""
        if loss is None:
            return "-"
        return f"{loss:.3f}" if self.is_bits else f"{loss:.4g}"


BITS = Measure("bits/sample", "bits/sample", "audio", "bits_per_sample")
SQUARED_ERROR = Measure("squared error", "squared error", "series", "squared_error")
ABSOLUTE_ERROR = Measure("absolute error", "absolute error", "series", "absolute_error")
MEASURES = {measure.name: measure for measure in (BITS, SQUARED_ERROR, ABSOLUTE_ERROR)}


def measure_of(config: Config) -> Measure:
    """What the model that a configuration describes is measured in."""
    if not config.is_series:
        quantization = config.quantization
        return replace(BITS, unit=Quantizer(quantization.kind, quantization.classes).unit)
    return SQUARED_ERROR if config.output.error == "squared" else ABSOLUTE_ERROR


def measure_in(entry: Mapping[str, Any]) -> Measure:
    """Return what the losses of a line of ``metrics.jsonl`` are; of bits/sample, the classes are not known there."""
    return MEASURES[entry.get("loss_unit", BITS.name)]


def unit_of_loss(config: Config) -> float:
    """By which a loss is multiplied to be a figure: nats to bits, errors to the units of the data."""
    if not config.is_series:
        return 1.0 / math.log(2)
    scale = float(config.series.scale)
    return scale * scale if config.output.error == "squared" else scale
