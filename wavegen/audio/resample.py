"""Change the sample rate of a waveform, in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from wavegen.audio.quantize import Floats

PIECE = 2**18  # samples that are resampled at once

# torchaudio's windowed sinc with the constants of its "kaiser best" (tutorial "Audio Resampling")
SINC_ZERO_CROSSINGS = 64
SINC_ROLLOFF = 0.9475937167399596
KAISER_BETA = 14.769656459379492
MAX_KERNEL_VALUES = 2**20  # 4 MB, 50 ms to make; 44.1 to 16 kHz takes 130,400, 11127 to 16000 Hz 180 million


def resampled(blocks: Iterable[Floats], from_hz: int, to_hz: int) -> Iterator[Floats]:
    """Change the sample rate block by block; what comes out does not depend on how a waveform is split into blocks.

    torchaudio keeps a filter for each of the to_hz / gcd phases, as long as from_hz / gcd: exact and fast for the
    rates in use, gigabytes for a pair such as 11127 and 16000 Hz. Such pairs go through the SoX resampler.

    Args:
        blocks: (n,) float32, one behind the other.
        from_hz: their rate.
        to_hz: the rate wanted.

    Yields:
        Blocks of ceil(T * to_hz / from_hz) samples together, of T that came.
    """
    if from_hz == to_hz:
        yield from blocks
        return
    common = math.gcd(from_hz, to_hz)
    half_width = SINC_ZERO_CROSSINGS * from_hz / min(from_hz, to_hz) / SINC_ROLLOFF
    is_torchs = to_hz // common * (2 * half_width + from_hz // common) <= MAX_KERNEL_VALUES
    resample_blocks = _resampled_by_torchaudio if is_torchs else _resampled_by_soxr
    n_in = n_out = 0

    def counted() -> Iterator[Floats]:
        nonlocal n_in
        for block in blocks:
            n_in += len(block)
            yield block

    for block in resample_blocks(counted(), from_hz, to_hz):
        n_out += len(block)
        yield block[: len(block) - max(0, n_out + (n_in * to_hz // -from_hz))]


def _resampled_by_torchaudio(blocks: Iterable[Floats], from_hz: int, to_hz: int) -> Iterator[Floats]:
    """`torchaudio.functional.resample` in pieces, each with the samples around it that its filters reach."""
    import torch

    apply = _torchaudio_resampler(from_hz, to_hz)
    common = math.gcd(from_hz, to_hz)
    step_in, step_out = from_hz // common, to_hz // common
    margin = -(-(apply.width + step_in) // step_in)  # in steps
    piece = max(1, PIECE // step_in)  # likewise

    def resampled_piece(steps: int) -> Floats:
        # (margin + steps + margin steps of input) -> (steps of output)
        window = torch.from_numpy(held[: (margin + steps + margin) * step_in])
        resampled: Floats = apply(window).numpy()
        return resampled[margin * step_out : (margin + steps) * step_out]

    held = np.zeros(margin * step_in, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= (margin + piece + margin) * step_in:
            yield resampled_piece(piece)
            held = held[piece * step_in :]
    last = -(-(len(held) - margin * step_in) // step_in)  # steps
    held = np.concatenate([held, np.zeros((last + 2 * margin) * step_in - len(held), np.float32)])
    yield resampled_piece(last)


@lru_cache(maxsize=16)
def _torchaudio_resampler(from_hz: int, to_hz: int) -> Any:
    """Return a resampler with its filters, made once for all files of a rate."""
    from torchaudio.transforms import Resample

    return Resample(
        from_hz,
        to_hz,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=SINC_ZERO_CROSSINGS,
        rolloff=SINC_ROLLOFF,
        beta=KAISER_BETA,
    )


def _resampled_by_soxr(blocks: Iterable[Floats], from_hz: int, to_hz: int) -> Iterator[Floats]:
    import soxr

    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield np.zeros(to_hz // from_hz + 1, np.float32)  # it may be a sample short
