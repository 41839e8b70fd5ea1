"""What a quantizer makes of audio as it streams by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wavegen.audio.quantize import Quantizer
from wavegen.audio.read import Floats
from wavegen.report.inspection.level import energy


class QuantizationMeter:
    """What a quantizer makes of a stream of mono blocks.

    Args:
        quantizer: the companding.

    Attributes:
        counts: (classes,) how often each class occurred so far.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.counts = np.zeros(quantizer.classes, dtype=np.int64)
        self._quantizer = quantizer
        self._edges = quantizer.edges()[1:-1].astype(np.float32)
        self._levels = quantizer.decode(np.arange(quantizer.classes))
        self._signal = self._noise = 0.0

    def hear(self, waveform: Floats) -> Floats:
        """Add (T,) samples.

        Returns:
            (T,) the error of each: the sample less the amplitude of its class.
        """
        # The classes of Quantizer.encode, but for samples within rounding of an edge; that imports torch, which takes
        # as long as hearing minutes of audio.
        classes = np.searchsorted(self._edges, waveform, side="right")
        error: Floats = waveform - self._levels[classes]
        self.counts += np.bincount(classes, minlength=self._quantizer.classes)
        self._signal += float(energy(waveform[None])[0])
        self._noise += float(energy(error[None])[0])
        return error

    def facts(self) -> dict[str, Any]:
        """How many classes occur, and how far the noise that rounding to them makes lies below the signal."""
        n_used = int(np.count_nonzero(self.counts))
        audible = self._signal > 0 and self._noise > 0
        return {
            "classes": self._quantizer.classes,
            "classes_used": n_used,
            "share_of_classes_used": n_used / self._quantizer.classes,
            "signal_to_noise_db": 10 * math.log10(self._signal / self._noise) if audible else None,
        }
