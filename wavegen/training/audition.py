"""Auditions: what the model sounds like so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.audio.writer import AudioWriter
from wavegen.model.wavenet import WaveNet
from wavegen.report.pictures import draw_audio
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler


def audition(
    model: WaveNet,
    quantizer: Quantizer,
    sample_rate_hz: int,
    seconds: float,
    seed: int,
    path: Path,
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float32]:
    """Generate a clip from silence and write it, with its picture beside it.

    Args:
        model: with the weights to hear.
        quantizer: the model's companding.
        sample_rate_hz: the model's rate.
        seconds: length of the clip.
        seed: of the draws; the same at every audition, so that they compare.
        path: of the WAV file.
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
    waveform = np.concatenate(blocks)
    path.parent.mkdir(exist_ok=True)
    draw_audio(path.with_suffix(".png"), waveform, sample_rate_hz, path.stem)
    with AudioWriter(path, sample_rate_hz, overwrite=True) as writer:  # last: it says that the audition is done
        writer.write(waveform)
    return waveform
