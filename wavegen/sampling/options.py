"""The sampling options of an audio model, as one dataclass that checks its values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.mel import Frames
from wavegen.audio.quantize import Floats
from wavegen.errors import ParameterError, UsageError
from wavegen.model.outputs import Truncation

Label = str | Mapping[str, float]  # a name, "NAME=WEIGHT,NAME=WEIGHT", or weights by name

MAX_THREADS = 1024
MAX_SECONDS = 10_000_000  # a third of a year


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingOptions:
    """How clips are generated, besides their length.

    Args:
        count: clips, generated side by side.
        temperature: logits are divided by it: above 1 wilder, below 1 tamer, 0 always the likeliest class.
        top_k: draw among the k likeliest classes only; softmax outputs only.
        top_p: draw among the likeliest classes that together reach this probability; softmax outputs only.
        seed: the same seed gives the same audio.
        prime: (T,) waveform at the model's rate, as ``TrainedModel.load_prime`` gives it, that every clip continues.
        labels: of the clips in turn, each a name or weights of several, or one of all clips; the model's own in turn by
            default.
        mel: frames for a model that is conditioned on them: from ``TrainedModel.mel_spectrogram`` or ``load_mel``, or
            (F, n_mels) of your own.
        engine: auto, numba, torch or reference.
        precision: of the weights: auto, float32, bfloat16 or int8.
        threads: CPU threads, clips are distributed over them; all cores by default.

    Raises:
        ParameterError: a value is out of its range. Names of labels, engines and precisions are checked by the model.
    """

    count: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    prime: npt.ArrayLike | None = None
    labels: Label | Sequence[Label] = ()
    mel: npt.ArrayLike | Frames | None = None
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        _ = self.truncation
        if self.count < 1:
            raise ParameterError("count", f"expected a whole number, 1 or more, found {self.count}")
        if not 0 <= self.seed < 1 << 64:
            raise ParameterError("seed", f"expected a whole number from 0 to 2^64 - 1, found {self.seed}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            found = f"expected a whole number, 1 or more, up to {MAX_THREADS}, found {self.threads}"
            raise ParameterError("threads", found)
        if len(self.label_list) > self.count:
            found = f"expected at most one for each clip, found {len(self.label_list)} for {self.count}"
            raise ParameterError("labels", found)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> SamplingOptions:
        """Build options from a call's keyword arguments.

        Raises:
            UsageError: there is no such option; the nearest one is named.
            ParameterError: a value is out of its range.
        """
        known = [each.name for each in fields(cls)]
        for name in keywords:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                suggestion = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
                raise UsageError(f"unknown keyword '{name}'; {suggestion}")
        return cls(**keywords)

    @cached_property
    def truncation(self) -> Truncation:
        """The changes to each distribution before a draw."""
        return Truncation(self.temperature, self.top_k, self.top_p)

    @property
    def label_list(self) -> Sequence[Label]:
        """The labels as a list."""
        return [self.labels] if isinstance(self.labels, str | Mapping) else self.labels


def samples_in(seconds: float, sample_rate_hz: int) -> int:
    """Return a clip's length in samples.

    Raises:
        ParameterError: the length is not a number above 0, too large, or less than a sample.
    """
    if not seconds > 0:
        raise ParameterError("seconds", f"expected a number above 0, or inf, found {seconds:g}")
    if seconds > MAX_SECONDS:
        raise ParameterError("seconds", f"expected at most {MAX_SECONDS:,}, or inf, found {seconds:g}")
    n_samples = round(seconds * sample_rate_hz)
    if n_samples < 1:
        raise ParameterError("seconds", f"shorter than one sample at {sample_rate_hz:,} Hz", seconds)
    return n_samples


def as_mono(waveform: npt.ArrayLike) -> Floats:
    """Return a waveform as a (T,) float32 array.

    Raises:
        UsageError: it is not one clip of finite numbers, one or more.
    """
    array = np.asarray(waveform, dtype=np.float32)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise UsageError(f"expected a waveform of finite numbers, (T,) with T >= 1, found the shape {array.shape}")
    return array
