"""Request in, audio out: the past of each clip, its random numbers, and the engine's classes in chunks; one-shots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import SILENT_DB, decibels
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.data.conditioning import ClipCondition
from wavegen.model.outputs import ClassArray, Truncation
from wavegen.sampling.engines import Engine, SeededEngine

CHUNK_SAMPLES = 1600  # a tenth of a second at 16 kHz: the longest wait after Ctrl-C, and between progress updates
WORDS_PER_BLOCK = 4  # Philox4x64 gives four 64-bit numbers for each value of its counter

STEP_SECONDS = 0.02  # level is followed in steps of this length
LEVEL_STEPS = 5  # a level is that of 0.1 s
FADED_DB = 40.0  # below the loudest 0.1 s: inaudible behind a hit
FADED_STEPS = 10  # that a sound stays so quiet before it counts as over
FALLEN_DB, RISE_DB = 20.0, 15.0  # a rise of this size after a fall of this size begins the next sound
RISE_STEPS = 3  # within which it rises
LOOK_STEPS = 25  # steps between two searches for the end
FADE_OUT_SECONDS = 0.01


@dataclass(frozen=True)
class Request:
    """A request for clips, in samples and classes of one model; ``Generator.prepare`` builds it from checked options.

    Args:
        n_samples: length of each clip; None for an endless stream.
        count: clips, made side by side.
        seed: with the clip's number and the sample's place it decides every draw.
        numbers: of the clips; 0, 1, 2, ... by default.
        truncation: temperature, top-k, top-p.
        prime: (T,) classes that every clip continues; None begins from silence, as the clips of a corpus do.
        conditions: of a conditioned model: each clip's.
    """

    n_samples: int | None
    count: int = 1
    seed: int = 0
    truncation: Truncation = field(default_factory=Truncation)
    prime: npt.NDArray[np.integer] | None = None
    conditions: Sequence[ClipCondition] | None = None
    numbers: Sequence[int] | None = None


class Sampler:
    """Draws new audio from a model.

    Args:
        engine: runs the model.
        quantizer: the model's companding.
    """

    def __init__(self, engine: Engine, quantizer: Quantizer) -> None:
        self.engine = engine
        self.quantizer = quantizer

    def stream_classes(self, request: Request, chunk: int = CHUNK_SAMPLES) -> Iterator[ClassArray]:
        """Generate in chunks; how long they are changes nothing in the audio.

        Args:
            request: what to generate.
            chunk: samples between two yields.

        Yields:
            (count, n) classes, n <= chunk.

        Raises:
            ModelError: the model's outputs are not finite.
        """
        self.engine.start(np.repeat(self._past(request)[None], request.count, axis=0), request.conditions)
        clips = range(request.count) if request.numbers is None else request.numbers
        made = 0
        while request.n_samples is None or made < request.n_samples:
            stop = made + chunk if request.n_samples is None else min(made + chunk, request.n_samples)
            if isinstance(self.engine, SeededEngine):
                yield self.engine.generate_seeded(request.seed, clips, made, stop - made, request.truncation)
            else:
                numbers = np.stack([uniforms(request.seed, clip, made, stop) for clip in clips])
                yield self.engine.generate(numbers, request.truncation)
            made = stop

    def stream(self, request: Request, chunk: int = CHUNK_SAMPLES) -> Iterator[Floats]:
        """Like ``stream_classes``, as waveforms: (count, n) float32 in [-1, 1]."""
        for classes in self.stream_classes(request, chunk):
            yield self.quantizer.decode(classes)

    def _past(self, request: Request) -> ClassArray:
        """Return the past of each clip's first sample: silence, then the prime."""
        padding = self.engine.padding(self.quantizer.silence)
        silence = np.full(self.engine.receptive_field, padding, dtype=np.int64)
        return silence if request.prime is None else np.concatenate([silence, request.prime.astype(np.int64)])


def uniforms(seed: int, clip: int, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Return the uniform numbers that draw samples start .. stop - 1 of one clip; calls may come in any order.

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
    first_block = start // WORDS_PER_BLOCK
    # NumPy's Philox counts up before its first block, so block n stands behind the counter n - 1 (mod 2^256).
    counter = (first_block - 1) % (1 << 256)
    words = [(counter >> shift) & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192)]
    generator = np.random.Philox(key=np.array([seed, clip], dtype=np.uint64), counter=np.array(words, dtype=np.uint64))
    skipped = start - first_block * WORDS_PER_BLOCK
    raw = generator.random_raw(skipped + stop - start)[skipped:]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


# --- one-shots -----------------------------------------------------------------------------------------------------


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
