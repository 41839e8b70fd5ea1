"""Auditions: what the model sounds like so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.data.conditioning import ClipCondition
from wavegen.model.network import Network
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler


def audition(
    model: Network,
    quantizer: Quantizer,
    sample_rate_hz: int,
    seconds: float,
    seed: int,
    progress: Callable[[int, int], None],
    conditions: Sequence[ClipCondition] = (),
) -> npt.NDArray[np.float32]:
    """Generate a clip from silence; in a conditioned model one for each of some conditions, one behind the other.

    Args:
        model: with the weights to hear.
        quantizer: the model's companding.
        sample_rate_hz: the model's rate.
        seconds: length of the clip, or of all of them.
        seed: of the draws; the same at every audition, so that they compare.
        progress: called with (samples made, samples in all).
        conditions: of a conditioned model: one or more.

    Returns:
        (T,) the waveform.
    """
    count = max(1, len(conditions))
    n_samples = max(1, round(seconds * sample_rate_hz / count))
    sampler = Sampler(build_engine("auto", model), quantizer)
    blocks: list[npt.NDArray[np.float32]] = []
    for block in sampler.stream(Request(n_samples=n_samples, count=count, seed=seed, conditions=conditions or None)):
        blocks.append(block)
        progress(sum(block.size for block in blocks), n_samples * count)
    return np.concatenate(blocks, axis=1).reshape(-1)
