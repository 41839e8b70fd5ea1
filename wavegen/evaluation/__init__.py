"""The unit of a model's losses: bits/sample of audio, or errors of forecasts in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wavegen.audio.quantize import build_quantizer
from wavegen.config import Config


@dataclass(frozen=True)
class LossUnit:
    """The unit of a loss. Less is better.

    Attributes:
        name: stored in files.
        full_name: printed after a number; names the classes unless they are the usual 256 mu-law ones.
        data: the kind of data that a model with this loss is trained on.
    """

    name: str
    full_name: str
    data: str

    @property
    def is_bits(self) -> bool:
        """True for the loss of an audio model."""
        return self.name == BITS.name

    def format(self, loss: float | None) -> str:
        """Return a loss with its significant digits."""
        if loss is None:
            return "-"
        return f"{loss:.3f}" if self.is_bits else f"{loss:.4g}"


BITS = LossUnit("bits/sample", "bits/sample", "audio")
SQUARED_ERROR = LossUnit("squared error", "squared error", "series")
ABSOLUTE_ERROR = LossUnit("absolute error", "absolute error", "series")
LOSS_UNITS = {unit.name: unit for unit in (BITS, SQUARED_ERROR, ABSOLUTE_ERROR)}


def loss_unit_of(config: Config) -> LossUnit:
    """Return the unit of the losses of a configuration's output."""
    if config.output.kind != "regression":
        return replace(BITS, full_name=build_quantizer(config).unit)
    return SQUARED_ERROR if config.output.error == "squared" else ABSOLUTE_ERROR


def loss_unit_in(entry: Mapping[str, Any]) -> LossUnit:
    """Return the unit of the losses in a line of ``metrics.jsonl``; the line does not store the classes."""
    return LOSS_UNITS[entry.get("loss_unit", BITS.name)]
