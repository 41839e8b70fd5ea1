"""Measure pitch, voiced stretches, onsets and pauses of clips: figures that a listener follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from wavegen.audio.levels import Frames, frame_size, load_librosa
from wavegen.audio.quantize import Floats
from wavegen.evaluation.sample_statistics import PIECE_SECONDS, REPEATS, spread

LOWEST_HZ, HIGHEST_HZ = 65.0, 1000.0  # of pitch: C2 to B5
PITCH_WINDOW_SECONDS, PITCH_HOP_SECONDS = 0.064, 0.02
SEMITONE_PARTS = 0.25  # pyin's resolution; its default of 0.1 takes twenty times as long for the same median
ONSET_HOP_SECONDS, ONSET_WINDOW = 0.01, 2048  # the window in samples: librosa's
PAUSE_DB = 40.0  # below the recordings' loud level
PAUSE_FRAMES = 2  # of 0.1 s, at least
MOST_PIECES = 64  # that are measured, evenly spread over the clips


@dataclass(frozen=True)
class Figure:
    """A figure of clips.

    Attributes:
        value: of all of them.
        interval: 95% of the bootstrap repeats over pieces of 10 s at most.
    """

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Heard:
    """Figures of the sound of clips.

    Attributes:
        pitch_hz: the median fundamental frequency of voiced frames (Mauch and Dixon, 2014, "pYIN: A fundamental
            frequency estimator using probabilistic threshold distributions"); None where hardly any is.
        voiced: share of the frames that have a pitch.
        onsets: per second: peaks of spectral flux, as librosa finds them.
        pauses: per 10 s: 0.2 s and more, 40 dB below the recordings' loud level, between sounds.
    """

    pitch_hz: Figure | None
    voiced: Figure
    onsets: Figure
    pauses: Figure


@dataclass(frozen=True)
class _Piece:
    seconds: float
    pitches_hz: Floats
    n_frames: int
    n_onsets: int
    n_pauses: int


def measure_heard(clips: Sequence[Floats], rate_hz: int, loud_db: float, seed: int = 0) -> Heard:
    """Measure what is heard in clips, in ``MOST_PIECES`` pieces at most.

    Args:
        clips: (T,) waveforms, one or more.
        rate_hz: their sample rate.
        loud_db: the recordings' loud level.
        seed: of the bootstrap.
    """
    chosen = spread([len(clip) for clip in clips], round(PIECE_SECONDS * rate_hz), MOST_PIECES)
    pieces = [_measure(clips[i][start:stop], rate_hz, loud_db) for i, start, stop in chosen]
    draws = np.random.default_rng(seed).integers(0, len(pieces), (REPEATS, len(pieces)))

    def estimate(of: Callable[[Sequence[_Piece]], float]) -> Figure:
        repeats = [of([pieces[i] for i in draw]) for draw in draws.tolist()]
        low, high = np.nanquantile(repeats, [0.025, 0.975])
        return Figure(of(pieces), (float(low), float(high)))

    def per_second(count: Callable[[_Piece], int]) -> Figure:
        return estimate(lambda some: sum(map(count, some)) / sum(piece.seconds for piece in some))

    voiced = estimate(lambda some: sum(len(p.pitches_hz) for p in some) / max(1, sum(p.n_frames for p in some)))
    return Heard(
        estimate(_median_pitch) if voiced.interval[0] > 0 else None,
        voiced,
        per_second(lambda piece: piece.n_onsets),
        per_second(lambda piece: 10 * piece.n_pauses),
    )


def _median_pitch(pieces: Sequence[_Piece]) -> float:
    pitches = np.concatenate([piece.pitches_hz for piece in pieces])
    return float(np.median(pitches)) if len(pitches) else np.nan


def _measure(piece: Floats, rate_hz: int, loud_db: float) -> _Piece:
    librosa = load_librosa("core.pitch")

    window = round(PITCH_WINDOW_SECONDS * rate_hz)
    seconds = len(piece) / rate_hz
    piece = np.pad(piece, (0, max(0, max(window, ONSET_WINDOW, frame_size(rate_hz)) - len(piece))))
    pitches, is_voiced, _ = librosa.pyin(
        piece,
        fmin=LOWEST_HZ,
        fmax=min(HIGHEST_HZ, rate_hz / 4),
        sr=rate_hz,
        frame_length=window,
        hop_length=round(PITCH_HOP_SECONDS * rate_hz),
        resolution=SEMITONE_PARTS,
    )
    onsets = librosa.onset.onset_detect(y=piece, sr=rate_hz, hop_length=round(ONSET_HOP_SECONDS * rate_hz))
    levels = Frames.of(piece, rate_hz).level_db
    runs = [(quiet, len(list(frames))) for quiet, frames in groupby(levels < loud_db - PAUSE_DB)]
    pauses = [n for quiet, n in runs[1:-1] if quiet and n >= PAUSE_FRAMES]  # the first and the last are not between
    return _Piece(seconds, pitches[is_voiced], len(pitches), len(onsets), len(pauses))
