"""One-shots: clips that end where their sound has faded, such as a hit or a note."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import decibels
from wavegen.audio.quantize import Floats

STEP_SECONDS = 0.02  # level is followed in steps of this length
LEVEL_STEPS = 5  # a level is that of 0.1 s
FADED_DB = 40.0  # below the loudest 0.1 s: inaudible behind a hit
FADED_STEPS = 10  # that a sound stays so quiet before it counts as over
FALLEN_DB, RISE_DB = 20.0, 15.0  # after a fall by so much, a rise by so much is the next sound
RISE_STEPS = 3  # within which it rises
FADE_OUT_SECONDS = 0.01


def find_end(levels_db: npt.NDArray[np.float64]) -> int | None:
    """Return the step in which a sound is over, or None if it goes on.

    Args:
        levels_db: (n,) of each ``STEP_SECONDS`` so far.
    """
    if len(levels_db) < LEVEL_STEPS:
        return None
    power = np.convolve(10 ** (levels_db / 10), np.ones(LEVEL_STEPS) / LEVEL_STEPS, mode="valid")
    loudest = np.maximum.accumulate(decibels(power))
    below = loudest - decibels(power)
    for i in range(1, len(below)):
        if (below[i - FADED_STEPS + 1 : i + 1] > FADED_DB).sum() == FADED_STEPS:
            return i - FADED_STEPS + LEVEL_STEPS
        rise = levels_db[i] - levels_db[max(0, i - RISE_STEPS) : i].min()
        if rise > RISE_DB and below[max(0, i - LEVEL_STEPS)] > FALLEN_DB:
            return i
    return None


def cut_one_shots(blocks: Iterable[Floats], rate_hz: int) -> list[Floats]:
    """Take blocks of clips until the sound of each is over, and cut each clip there, with a short fade.

    Args:
        blocks: (count, n) each; no more are taken than needed.
        rate_hz: of the clips.

    Returns:
        (T_i,) of each clip; one that does not end is as long as the blocks were.
    """
    size, clips, ends = max(1, round(STEP_SECONDS * rate_hz)), np.zeros((0, 0), np.float32), list[int | None]()
    for block in blocks:
        clips = block if not ends else np.concatenate([clips, block], axis=1)
        ends = ends or [None] * len(block)
        n_steps = clips.shape[1] // size
        levels = decibels(clips[:, : n_steps * size].reshape(len(clips), n_steps, size).var(axis=-1, dtype=np.float64))
        ends = [find_end(own) if end is None else end for own, end in zip(levels, ends, strict=True)]
        if all(end is not None for end in ends):
            break
    return [
        clip if end is None else _fade_out(clip[: (end + 1) * size].copy(), rate_hz)
        for clip, end in zip(clips, ends, strict=True)
    ]


def _fade_out(clip: Floats, rate_hz: int) -> Floats:
    n = min(len(clip), round(FADE_OUT_SECONDS * rate_hz))
    clip[len(clip) - n :] *= np.linspace(1, 0, n, dtype=np.float32)
    return clip
