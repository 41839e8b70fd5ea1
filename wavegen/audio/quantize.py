"""Mu-law and linear companding: waveforms in [-1, 1] <-> classes in [0, classes)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wavegen.config import Config

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class Samples(Protocol):
    """A waveform, in memory or in a file."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Floats: ...


@dataclass(frozen=True)
class Quantizer:
    """The map between amplitudes and classes.

        mu_law:  y = sign(x) ln(1 + mu|x|) / ln(1 + mu),   mu = classes - 1
                 class = floor((y + 1) / 2 * mu + 0.5)       (WaveNet, section 2.2; ITU-T G.711)
        linear:  class = floor(x * classes / 2 + 0.5) + silence

    The 65,536 linear classes are the integers of a 16-bit file: class c is the integer c - 32,768.

    Args:
        kind: how amplitudes are spread over the classes.
        classes: number of levels, 2 to 65,536.
    """

    kind: Literal["mu_law", "linear"] = "mu_law"
    classes: int = 256

    def __str__(self) -> str:
        """Describe the quantizer; figures in bits/sample compare only where the descriptions are the same."""
        bits = math.log2(self.classes)
        resolution = f" ({bits:.0f} bit)" if bits.is_integer() else ""
        return f"{self.classes:,} {self.kind.replace('_', '-')} classes{resolution}"

    @property
    def unit(self) -> str:
        """Bits/sample, and in which classes unless those are the usual 256 mu-law ones."""
        usual = (self.kind, self.classes) == ("mu_law", 256)
        return "bits/sample" + ("" if usual else f" in {str(self).partition(' (')[0]}")

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

        clipped = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)).clamp(-1.0, 1.0)
        if self.kind == "mu_law":
            mu = float(self.classes - 1)
            scale = torch.log1p(torch.tensor(mu))
            companded = torch.sign(clipped) * torch.log1p(mu * torch.abs(clipped)) / scale
            position = ((companded + 1) / 2 * mu + 0.5).to(torch.int32).numpy()
        else:
            steps = torch.floor(clipped * (self.classes / 2) + 0.5).to(torch.int32)
            position = (steps + self.silence).clamp(0, self.classes - 1).numpy()
        classes: Classes = position.astype(np.uint8) if self.classes <= 256 else position.astype(np.uint16)
        return classes

    def decode(self, classes: npt.NDArray[np.integer]) -> Floats:
        """Return the amplitude in the middle of each class.

        Args:
            classes: (..., T) integers in [0, classes).

        Returns:
            (..., T) float32 in [-1, 1].
        """
        levels: Floats = self._expand(np.arange(self.classes, dtype=np.float64)).astype(np.float32)
        waveform: Floats = levels[classes]
        return waveform

    def edges(self) -> npt.NDArray[np.float64]:
        """Return the amplitudes between neighbouring classes: class c covers [edges[c], edges[c + 1]).

        Returns:
            (classes + 1,) float64, increasing; the outermost are -inf and inf: what is louder is clipped.
        """
        inner = self._expand(np.arange(self.classes - 1, dtype=np.float64) + 0.5)
        return np.concatenate([[-np.inf], inner, [np.inf]])

    def _expand(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the amplitude at a (fractional) class, the inverse of the companding."""
        if self.kind == "linear":
            return (position - self.silence) * (2.0 / self.classes)
        y = 2.0 * position / (self.classes - 1) - 1.0
        magnitude = np.expm1(np.abs(y) * math.log(self.classes)) / (self.classes - 1)
        return np.copysign(magnitude, y)


class Decoded:
    """Classes as a waveform; only what is asked for is decoded.

    Args:
        classes: (..., T), which may be mapped into memory.
        quantizer: that they are of.
    """

    def __init__(self, classes: npt.NDArray[np.integer], quantizer: Quantizer) -> None:
        self.classes, self.quantizer, self.shape = classes, quantizer, classes.shape

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, part: Any) -> Floats:
        return self.quantizer.decode(self.classes[part])


def build_quantizer(config: Config) -> Quantizer:
    """Return the quantizer that a configuration names."""
    return Quantizer(config.quantization.kind, config.quantization.classes)
