"""Auditions: what the model sounds like so far."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler


def audition(
    model: WaveNet,
    quantizer: Quantizer,
    sample_rate_hz: int,
    seconds: float,
    seed: int,
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float32]:
    """Generate a clip from silence.

    Args:
        model: with the weights to hear.
        quantizer: the model's companding.
        sample_rate_hz: the model's rate.
        seconds: length of the clip.
        seed: of the draws; the same at every audition, so that they compare.
        progress: called with (samples made, samples in all).

    Returns:
        (T,) the waveform.
    """
    n_samples = max(1, round(seconds * sample_rate_hz))
    sampler = Sampler(build_engine("auto", model), quantizer)
    blocks: list[npt.NDArray[np.float32]] = []
    for block in sampler.stream(Request(n_samples=n_samples, seed=seed)):
        blocks.append(block[0])
        progress(sum(map(len, blocks)), n_samples)
    return np.concatenate(blocks)
