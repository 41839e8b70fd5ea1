"""The protocol of the sampling engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wavegen.data.conditioning import ClipCondition
from wavegen.errors import ModelError
from wavegen.model.outputs import Truncation

ClassArray = npt.NDArray[np.int64]


class Engine(Protocol):
    """One implementation of the sampling loop.

    An engine holds a batch of streams. ``start`` gives them their past; each later call continues from there.
    """

    @property
    def receptive_field(self) -> int:
        """Samples of past that ``start`` needs."""

    def padding(self, silence: int) -> int:
        """Return the class that pads a clip's past in ``start``, given that of silence."""

    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        """Restart the streams.

        Args:
            past: (B, receptive_field or more) classes, the newest last; of a recurrent network all of the past.
            conditions: of a conditioned network: each stream's, counted from the first sample that is made.
        """

    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        """Draw the next samples of every stream.

        Args:
            uniforms: (B, n) in [0, 1), one for each sample.
            truncation: what is done to each distribution first.

        Returns:
            (B, n) classes.

        Raises:
            ModelError: a distribution is not finite.
        """

    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        """Take given samples as the next ones, step by step as in generating.

        Args:
            classes: (B, n).

        Returns:
            (B, n, parameters of the distribution) what the engine's network put out for each of them.
        """


def not_finite() -> ModelError:
    """Return the error of an engine whose distribution is not finite."""
    return ModelError("the model's outputs are not finite: its weights are damaged, or its training diverged")
