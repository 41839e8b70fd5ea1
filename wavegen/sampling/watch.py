"""Watching what is generated: dead silence, clipping and runaway noise are found while it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats

PIECE_SECONDS = 0.1  # audio is judged in pieces of this length: longer than a period of the lowest tone
FEWEST_SAMPLES = 64  # of a piece, where the rate is low

# Measured on 36 minutes of recorded speech, piano notes and drums, and on 42 minutes that models made of them.
DEAD_DB = -70.0  # of full scale: the quietest three of 256 mu-law classes; a recorded pause lies above, or is shorter
FULL_SCALE = 0.99  # of magnitudes, so that the outermost classes of every quantizer count
CLIPPED_SHARE = 0.01  # of a piece; a loud recording touches full scale, one driven into it stays there
NOISE_DB = -20.0  # of full scale, see `unpredictable_db`: speech reaches -32, loud drums -23, runaway noise -14

SMALLEST_POWER = 1e-20  # -200 dB: digital silence has to have some logarithm

KINDS = ("dead silence", "clipping", "noise")
SHORTEST_SECONDS = (2.0, 1.0, 1.0)  # of each kind: a pause, a crash cymbal and a loud hit are shorter


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a generated clip.

    Args:
        kind: one of ``KINDS``.
        start_seconds: where it begins.
        seconds: how long it lasts, all stretches of it together.
    """

    kind: str
    start_seconds: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s of {self.kind} from {self.start_seconds:.1f} s on"


class Watch:
    """Listens to clips while they are made; what it remembers does not grow with their length.

    A piece is dead if its level (RMS without the mean: a value that stands still is as silent as 0) is below
    ``DEAD_DB``, clipped if ``CLIPPED_SHARE`` of its samples are at full scale, and noise if what nobody could predict
    of it is louder than ``NOISE_DB``. Pieces in a row that last ``SHORTEST_SECONDS`` are a fault; a clip that is dead
    from end to end is one however short.

    Args:
        sample_rate_hz: of the clips.
        count: of the clips, made side by side.
    """

    def __init__(self, sample_rate_hz: int, count: int = 1) -> None:
        self._piece = max(FEWEST_SAMPLES, round(PIECE_SECONDS * sample_rate_hz))
        self._seconds = self._piece / sample_rate_hz
        self._shortest = np.array([[max(1, round(seconds / self._seconds))] for seconds in SHORTEST_SECONDS])
        self._rest: Floats = np.zeros((count, 0), np.float32)
        self._n_pieces = 0
        self._run, self._total, self._first = (np.zeros((len(KINDS), count), np.int64) for _ in range(3))

    def hear(self, block: Floats) -> list[tuple[int, Fault]]:
        """Listen on.

        Args:
            block: (count, n) what the clips have got since.

        Returns:
            Clips, and each kind of fault that was found in them for the first time.
        """
        known = self._total > 0
        joined = np.concatenate([self._rest, block], axis=1)
        whole = joined.shape[1] // self._piece * self._piece
        for begin in range(0, whole, self._piece):
            self._judge(joined[:, begin : begin + self._piece])
        self._rest = joined[:, whole:]
        return [(clip, self._fault(kind, clip)) for kind, clip in np.argwhere((self._total > 0) & ~known).tolist()]

    def faults(self, clip: int = 0) -> list[Fault]:
        """What is wrong with a clip so far."""
        if 0 < self._run[0, clip] == self._n_pieces:
            return [Fault(KINDS[0], 0.0, self._n_pieces * self._seconds)]
        return [self._fault(kind, clip) for kind in range(len(KINDS)) if self._total[kind, clip]]

    def _fault(self, kind: int, clip: int) -> Fault:
        first, total = int(self._first[kind, clip]), int(self._total[kind, clip])
        return Fault(KINDS[kind], first * self._seconds, total * self._seconds)

    def _judge(self, pieces: Floats) -> None:
        """Take a piece of each clip, (count, n)."""
        is_bad = np.stack(
            [
                _decibels(pieces.var(axis=1, dtype=np.float64)) < DEAD_DB,
                (np.abs(pieces) >= FULL_SCALE).mean(axis=1) >= CLIPPED_SHARE,
                unpredictable_db(pieces) > NOISE_DB,
            ]
        )
        self._n_pieces += 1
        self._run = np.where(is_bad, self._run + 1, 0)
        begins = self._run == self._shortest
        self._first = np.where(begins & (self._total == 0), self._n_pieces - self._shortest, self._first)
        self._total += np.where(begins, self._shortest, self._run > self._shortest)


def unpredictable_db(pieces: Floats) -> npt.NDArray[np.float64]:
    """The level of what no linear prediction from the past could know, the innovation: of hiss all, of a tone nothing.

        power = exp(mean over frequencies of ln S(f)),   S the power spectrum     (Kolmogorov, 1941; Szego)
        ln S(f) is on average the periodogram's logarithm + Euler's constant      (Davis and Jones, 1968)

    It is the level times the spectral flatness, in one figure: loud tones and faint hiss both have little of it.

    Args:
        pieces: (count, n) waveforms.

    Returns:
        (count,) decibels of full scale.
    """
    n = pieces.shape[1]
    window = np.hanning(n + 1)[:-1]
    shaped = (pieces - pieces.mean(axis=1, keepdims=True)) * window
    periodogram = np.abs(np.fft.rfft(shaped, axis=1)[:, 1 : n // 2]) ** 2 / np.sum(window**2)
    return _decibels(np.exp(np.log(periodogram + SMALLEST_POWER).mean(axis=1) + np.euler_gamma))


def _decibels(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 10 * np.log10(power + SMALLEST_POWER)


def in_words(faults: Sequence[Fault]) -> str:
    """Faults on a line."""
    return "; ".join(map(str, faults))


def remedy(faults: Iterable[Fault], is_best: bool = False) -> str:
    """What a user can do about faults of a clip, which may be the best of several already."""
    directions = {"raise" if fault.kind == "dead silence" else "lower" for fault in faults}
    ways = [f"{direction} --temperature" for direction in directions if len(directions) == 1]
    return ", or ".join([*ways, *(["try --best-of 8"] * (not is_best)), "train longer"])
