"""The sampler: it gives the engine each clip's past and random numbers, and yields the classes in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats, Quantizer
from wavegen.data.conditioning import ClipCondition
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines.engine import ClassArray, Engine

CHUNK_SAMPLES = 1600  # a tenth of a second at 16 kHz: the longest wait after Ctrl-C, and between progress updates
WORDS_PER_BLOCK = 4  # Philox4x64 gives four 64-bit numbers for each value of its counter


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
