"""Mu-law and linear companding: waveforms in [-1, 1] <-> classes in [0, classes)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Quantizer:
    """The map between amplitudes and classes.

        mu_law:  y = sign(x) ln(1 + mu|x|) / ln(1 + mu),   mu = classes - 1
        linear:  y = x
        class = floor((y + 1) / 2 * mu + 0.5)                (WaveNet, section 2.2; ITU-T G.711)

    Args:
        kind: how amplitudes are spread over the classes.
        classes: number of levels, 2 to 65,536.
    """

    kind: Literal["mu_law", "linear"] = "mu_law"
    classes: int = 256

    @property
    def silence(self) -> int:
        """The class of amplitude 0."""
        return self.classes // 2

    def encode(self, waveform: Floats) -> Classes:
        """Quantize a waveform.

        The mu-law classes are torchaudio's ``mu_law_encoding`` of the same samples, class for class: the same
        float32 operations in the same order.

        Args:
            waveform: (..., T) float32; values outside [-1, 1] are clipped.

        Returns:
            (..., T) classes, uint8 or (above 256 classes) uint16.
        """
        import torch

        mu = float(self.classes - 1)
        companded = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)).clamp(-1.0, 1.0)
        if self.kind == "mu_law":
            scale = torch.log1p(torch.tensor(mu))
            companded = torch.sign(companded) * torch.log1p(mu * torch.abs(companded)) / scale
        position = ((companded + 1) / 2 * mu + 0.5).to(torch.int32).numpy()
        classes: Classes = position.astype(np.uint8) if self.classes <= 256 else position.astype(np.uint16)
        return classes

    def decode(self, classes: npt.NDArray[np.integer]) -> Floats:
        """Give each class the amplitude at its middle.

        Args:
            classes: (..., T) integers in [0, classes).

        Returns:
            (..., T) float32 in [-1, 1].
        """
        levels: Floats = self._expand(np.arange(self.classes, dtype=np.float64)).astype(np.float32)
        waveform: Floats = levels[classes]
        return waveform

    def edges(self) -> npt.NDArray[np.float64]:
        """The amplitudes between neighbouring classes: class c covers [edges[c], edges[c + 1]).

        Returns:
            (classes + 1,) float64, increasing; the outermost are -inf and inf: what is louder is clipped.
        """
        inner = self._expand(np.arange(self.classes - 1, dtype=np.float64) + 0.5)
        return np.concatenate([[-np.inf], inner, [np.inf]])

    def _expand(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The amplitude at a (fractional) place on the scale of classes: the inverse of the companding."""
        y = 2.0 * position / (self.classes - 1) - 1.0
        if self.kind == "linear":
            return y
        magnitude = np.expm1(np.abs(y) * math.log(self.classes)) / (self.classes - 1)
        return np.copysign(magnitude, y)
