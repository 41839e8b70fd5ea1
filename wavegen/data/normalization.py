"""What a network sees of a series: its values around their mean, in units of their deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavegen.data.corpus import Clip
from wavegen.data.series import values_of
from wavegen.data.series_files import Values

ROUNDING = 1e-12  # of the largest value: a smaller deviation is none


@dataclass(frozen=True)
class Normalization:
    """What the network sees of a value: (x - offset) / scale.

    Args:
        offset: the mean of the series that are trained on.
        scale: their standard deviation.
    """

    offset: float
    scale: float

    @classmethod
    def of(cls, series: Sequence[Values]) -> Normalization:
        """That of some series; one that never changes has the scale 1."""
        n_values = sum(map(len, series))
        mean = sum(float(values.sum()) for values in series) / n_values
        variance = sum(float(np.square(values - mean).sum()) for values in series) / n_values
        deviation, largest = variance**0.5, max(float(np.abs(values).max()) for values in series)
        return cls(mean, deviation if deviation > ROUNDING * largest else 1.0)

    def seen(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Values as the network sees them."""
        return ((values - self.offset) / self.scale).astype(np.float32)

    def undone(self, seen: npt.NDArray[np.floating]) -> Values:
        """The reverse."""
        return np.asarray(seen, dtype=np.float64) * self.scale + self.offset


class SeenSeries:
    """A clip's values as the network sees them, for ``wavegen.data.windows``.

    Args:
        clip: of a series.
        normalization: of the model.
    """

    def __init__(self, clip: Clip, normalization: Normalization) -> None:
        self.n_samples = clip.n_samples
        self._seen = normalization.seen(values_of(clip))

    def classes(self) -> npt.NDArray[np.float32]:
        """(n_samples,) values."""
        return self._seen
