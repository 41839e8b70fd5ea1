"""The random numbers of sampling: one for each (seed, clip, sample), whatever the order they are asked in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PER_BLOCK = 4  # Philox4x64 gives four 64-bit numbers for each value of its counter


def uniforms(seed: int, clip: int, start: int, stop: int) -> npt.NDArray[np.float64]:
    """The uniform numbers that draw samples start .. stop-1 of one clip.

    Philox4x64-10 (Salmon et al., 2011) with the key (seed, clip): number t is word t mod 4 of the block with the
    counter t div 4, its upper 53 bits scaled to [0, 1).

    Args:
        seed: 0 or more, below 2^64.
        clip: which of the clips made together, from 0.
        start: the first sample, counted from the first generated one.
        stop: one past the last sample.

    Returns:
        (stop - start,) float64 in [0, 1).
    """
    first_block = start // _PER_BLOCK
    # NumPy's Philox counts up before its first block, so block n stands behind the counter n - 1 (mod 2^256).
    counter = (first_block - 1) % (1 << 256)
    words = [(counter >> shift) & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192)]
    generator = np.random.Philox(key=np.array([seed, clip], dtype=np.uint64), counter=np.array(words, dtype=np.uint64))
    skipped = start - first_block * _PER_BLOCK
    raw = generator.random_raw(skipped + stop - start)[skipped:]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
