"""The verdict on generated audio: its faults, found while it is generated.

Level, silence, distribution of levels and spectrum are compared with the recordings' profile in the checkpoint.
Clipping and runaway noise are faults by absolute rules; without a profile dead silence is one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import SILENT_DB, Frames, RecordingProfile, Sound, decibels, frame_size
from wavegen.audio.quantize import Floats

# Measured on 36 minutes of recorded speech, piano notes and drums, and on 42 minutes that models made of them.
DEAD_DB = -70.0  # of full scale: the quietest three of 256 mu-law classes; a recorded pause lies above, or is shorter
FULL_SCALE = 0.99  # of magnitudes, so that the outermost classes of every quantizer count
CLIPPED_SHARE = 0.01  # of a frame; a loud recording touches full scale, one driven into it stays there
NOISE_DB = -20.0  # of full scale, see `unpredictable_db`: speech reaches -32, loud drums -23, runaway noise -14

RUNS = ("dead silence", "clipping", "noise")  # faults that unbroken runs of frames are
SHORTEST_SECONDS = (2.0, 1.0, 1.0)  # of each: a pause, a crash cymbal and a loud hit are shorter

# How far beyond the recordings' own windows of five seconds a clip may go.
QUIETER_DB, LOUDER_DB = 6.0, 4.0
MORE_SILENT = 0.25
LEVELS_FACTOR, LEVELS_DB = 1.4, 3.0
BRIGHTER, DULLER = 1.5, 0.5
FEWEST_FRAMES = 20  # two seconds; of shorter clips only the level is judged, and less strictly
SHORT_QUIETER_DB = 12.0
SMALLEST_NOISE = 1e-20  # -200 dB: the logarithm of digital silence must exist
MOST_FRAMES = 6000  # that are remembered of a clip: ten minutes; of longer ones every second frame, or fourth, ...


@dataclass(frozen=True)
class Fault:
    """A fault of a generated clip.

    Attributes:
        kind: "silence", "level", "levels", "spectrum", or one of ``RUNS``.
        words: the fault in words, for the user.
        severity: more is worse; 1 is just beyond what is accepted.
    """

    kind: str
    words: str
    severity: float

    def __str__(self) -> str:
        return self.words


class Verdict:
    """Judges clips while they are generated, in memory that does not grow with their length.

    A frame is clipped if ``CLIPPED_SHARE`` of its samples are at full scale, and noise if the part of it that cannot be
    predicted is louder than ``NOISE_DB``; frames in a row that last ``SHORTEST_SECONDS`` are a fault.

    Args:
        sample_rate_hz: of the clips.
        count: of the clips, made side by side.
        recordings: the profile of the training's recordings; without it, dead silence is a fault as other runs are.
        labels: of the clips in turn; each is compared with the recordings of its label. None for all recordings.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        count: int = 1,
        recordings: RecordingProfile | None = None,
        labels: Sequence[str | None] = (None,),
    ) -> None:
        self._rate_hz, self._recordings, self._labels = sample_rate_hz, recordings, labels
        self._size = frame_size(sample_rate_hz)
        self._seconds = self._size / sample_rate_hz
        self._shortest = np.array([[max(1, round(seconds / self._seconds))] for seconds in SHORTEST_SECONDS])
        self._rest: Floats = np.zeros((count, 0), np.float32)
        self._n_frames = 0
        self._run, self._total, self._first = (np.zeros((len(RUNS), count), np.int64) for _ in range(3))
        self._remembered: list[Frames] = []
        self._stride = 1

    def update(self, block: Floats) -> list[tuple[int, Fault]]:
        """Judge the next block of each clip.

        Args:
            block: (count, n).

        Returns:
            Clips, and each run that was found in them for the first time.
        """
        known = self._total > 0
        joined = np.concatenate([self._rest, block], axis=1)
        whole = joined.shape[1] // self._size * self._size
        if whole:
            self._add(joined[:, :whole])
        self._rest = joined[:, whole:]
        new = (self._total > 0) & ~known
        if self._recordings is not None:
            new[0] = False  # they may have pauses as long
        return [(clip, self._run_so_far(kind, clip)) for kind, clip in np.argwhere(new).tolist()]

    @property
    def is_whole(self) -> bool:
        """True if the clips are long enough to compare all of their sound with the recordings'."""
        return self._recordings is not None and self._n_frames >= FEWEST_FRAMES

    def faults(self, clip: int = 0) -> list[Fault]:
        """Return the faults of a clip so far."""
        runs = [self._run_so_far(kind, clip) for kind in range(len(RUNS)) if self._total[kind, clip]]
        if self._recordings is not None and self._remembered:
            self._remembered = [Frames.joined(self._remembered)]  # once, not for each of many clips
            recordings = self._recordings.of_label(self._labels[clip % len(self._labels)])
            faults = compare(self._remembered[0][clip], recordings)
            return [*faults, *(fault for fault in runs if fault.kind != RUNS[0])]
        if 0 < self._run[0, clip] == self._n_frames:  # dead from end to end, however short
            return [self._run_fault(0, 0, self._n_frames)]
        return runs

    def _run_so_far(self, kind: int, clip: int) -> Fault:
        return self._run_fault(kind, self._first[kind, clip], self._total[kind, clip])

    def _run_fault(self, kind: int, first: int, n_frames: int) -> Fault:
        start, seconds = first * self._seconds, float(n_frames * self._seconds)
        words = f"{seconds:.1f} s of {RUNS[kind]} from {start:.1f} s on"
        return Fault(RUNS[kind], words, max(1.0, seconds / SHORTEST_SECONDS[kind]))

    def _add(self, waveforms: Floats) -> None:
        """Take whole frames of each clip, (count, F * size)."""
        frames = Frames.of(waveforms, self._rate_hz)
        pieces, n_before = waveforms.reshape(len(waveforms), -1, self._size), self._n_frames
        for i in range(len(frames)):
            self._n_frames += 1
            self._count_runs(pieces[:, i], frames.level_db[:, i])
        first = -n_before % self._stride
        self._remembered.append(frames[:, first :: self._stride])
        if sum(map(len, self._remembered)) > MOST_FRAMES:
            self._remembered = [Frames.joined(self._remembered)[:, ::2]]
            self._stride *= 2

    def _count_runs(self, frame: Floats, level_db: npt.NDArray[np.float64]) -> None:
        """Take a frame of each clip, (count, size)."""
        is_bad = np.stack(
            [
                level_db < DEAD_DB,
                (np.abs(frame) >= FULL_SCALE).mean(axis=1) >= CLIPPED_SHARE,
                unpredictable_db(frame) > NOISE_DB,
            ]
        )
        self._run = np.where(is_bad, self._run + 1, 0)
        begins = self._run == self._shortest
        self._first = np.where(begins & (self._total == 0), self._n_frames - self._shortest, self._first)
        self._total += np.where(begins, self._shortest, self._run > self._shortest)


def compare(frames: Frames, recordings: RecordingProfile) -> list[Fault]:
    """Return the faults of a clip in comparison with the recordings.

    Args:
        frames: of the clip, (F,), one or more.
        recordings: their profile.
    """
    sound = Sound.of(frames, np.array(recordings.level_quantiles))
    whole, low, high = recordings.whole, recordings.lowest, recordings.highest
    is_short = len(frames) < FEWEST_FRAMES
    faults = []
    quieter = low.loud_db - sound.loud_db - (SHORT_QUIETER_DB if is_short else QUIETER_DB)
    if sound.loud_db < SILENT_DB:
        faults.append(Fault("silence", "silence from end to end", 10.0))
    elif quieter > 0:
        words = f"{whole.loud_db - sound.loud_db:.0f} dB quieter than the recordings"
        faults.append(Fault("level", words, 1 + quieter / QUIETER_DB))
    elif sound.loud_db > high.loud_db + LOUDER_DB and not is_short:
        words = f"{sound.loud_db - whole.loud_db:.0f} dB louder than the recordings"
        faults.append(Fault("level", words, (sound.loud_db - high.loud_db) / LOUDER_DB))
    if is_short:
        return faults
    more_silent = sound.silent_share - high.silent_share
    if more_silent > MORE_SILENT and sound.loud_db >= SILENT_DB:
        words = f"{100 * sound.silent_share:.0f}% silent, recordings {100 * whole.silent_share:.0f}%"
        faults.append(Fault("silence", words, more_silent / MORE_SILENT))
    furthest = LEVELS_FACTOR * high.distance_db + LEVELS_DB
    if sound.distance_db > furthest and not faults:
        words = f"its levels lie {sound.distance_db:.0f} dB from the recordings'"
        faults.append(Fault("levels", words, sound.distance_db / furthest))
    for factor, limit, word in ((BRIGHTER, high.centroid_hz, "brighter"), (DULLER, low.centroid_hz, "duller")):
        ratio = sound.centroid_hz / (factor * max(limit, 1.0))  # that of digital silence is 0
        if (ratio > 1) == (factor > 1) and ratio != 1 and sound.loud_db >= SILENT_DB:
            centroids = f"spectral centroid {sound.centroid_hz:,.0f} Hz, theirs {whole.centroid_hz:,.0f} Hz"
            words = f"{word} than the recordings ({centroids})"
            faults.append(Fault("spectrum", words, max(ratio, 1 / max(ratio, 1e-3))))
    return faults


def unpredictable_db(pieces: Floats) -> npt.NDArray[np.float64]:
    """Return the level of the linear prediction residual: all of a hiss, nothing of a tone.

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
    return decibels(np.exp(np.log(periodogram + SMALLEST_NOISE).mean(axis=1) + np.euler_gamma))


def in_words(faults: Sequence[Fault]) -> str:
    """Return faults on a line."""
    return "; ".join(map(str, faults))
