"""One-shots: clips that end where their sound has faded, such as a hit or a note."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import SILENT_DB, decibels
from wavegen.audio.quantize import Floats

STEP_SECONDS = 0.02  # level is followed in steps of this length
LEVEL_STEPS = 5  # a level is that of 0.1 s
FADED_DB = 40.0  # below the loudest 0.1 s: inaudible behind a hit
FADED_STEPS = 10  # that a sound stays so quiet before it counts as over
FALLEN_DB, RISE_DB = 20.0, 15.0  # a rise of this size after a fall of this size begins the next sound
RISE_STEPS = 3  # within which it rises
LOOK_STEPS = 25  # steps between two searches for the end
FADE_OUT_SECONDS = 0.01


def find_end(levels_db: npt.NDArray[np.float64]) -> int | None:
    """Return the step in which a sound is over, or None if it continues.

    Args:
        levels_db: (n,) of each ``STEP_SECONDS`` so far.
    """
    if len(levels_db) < LEVEL_STEPS:
        return None
    power = np.convolve(10 ** (levels_db / 10), np.ones(LEVEL_STEPS) / LEVEL_STEPS, mode="valid")
    loudest = np.maximum.accumulate(decibels(power))
    if loudest[-1] < SILENT_DB:
        return None  # nothing has begun yet
    begin, below = int(np.argmax(loudest >= SILENT_DB)), loudest - decibels(power)
    for i in range(begin + 1, len(below)):
        if (below[i - FADED_STEPS + 1 : i + 1] > FADED_DB).sum() == FADED_STEPS:
            return i - FADED_STEPS + LEVEL_STEPS
        quietest = i - 1 - int(levels_db[max(0, i - RISE_STEPS) : i][::-1].argmin())
        has_fallen = i - LEVEL_STEPS >= begin and below[i - LEVEL_STEPS] > FALLEN_DB
        if has_fallen and levels_db[i] - levels_db[quietest] > RISE_DB:
            return quietest
    return None


def cut_one_shots(blocks: Iterable[Floats], rate_hz: int) -> list[Floats]:
    """Take blocks of clips until the sound of each is over, and cut each clip there, with a short fade.

    Args:
        blocks: (count, n) each; no more are taken than needed.
        rate_hz: of the clips.

    Returns:
        (T_i,) of each clip; one that does not end is as long as the blocks were.
    """
    size, clips = max(1, round(STEP_SECONDS * rate_hz)), np.zeros((0, 0), np.float32)
    ends: list[int | None] = []
    looked_at = 0
    for block in blocks:
        clips = block if not ends else np.concatenate([clips, block], axis=1)
        ends = ends or [None] * len(block)
        if clips.shape[1] >= looked_at + LOOK_STEPS * size:
            looked_at, ends = clips.shape[1], _find_ends(clips, size, ends)
            if None not in ends:
                break
    ends = _find_ends(clips, size, ends)
    return [
        clip if end is None else _fade_out(clip[: (end + 1) * size].copy(), rate_hz)
        for clip, end in zip(clips, ends, strict=True)
    ]


def _find_ends(clips: Floats, size: int, ends: list[int | None]) -> list[int | None]:
    """Look for the ends that are not known yet, in (count, T) clips."""
    n_steps = clips.shape[1] // size
    levels = decibels(clips[:, : n_steps * size].reshape(len(clips), n_steps, size).var(axis=-1, dtype=np.float64))
    return [find_end(own) if end is None else end for own, end in zip(levels, ends, strict=True)]


def _fade_out(clip: Floats, rate_hz: int) -> Floats:
    n = min(len(clip), round(FADE_OUT_SECONDS * rate_hz))
    clip[len(clip) - n :] *= np.linspace(1, 0, n, dtype=np.float32)
    return clip
