"""Sample statistics: how closely clips resemble the recordings.

Likelihood measures how well a model predicts; these figures measure how its samples sound. They compare clips with
recordings as the model was trained on them (prepared). The sample score is the Frechet distance of loudness statistics.
The idea is that of the Frechet audio distance (Kilgour et al., 2019, "Frechet Audio Distance: A Reference-Free Metric
for Evaluating Music Enhancement Algorithms"), with loudness in place of a network's embedding: nothing to download, and
differences at inaudible levels count for nothing. Pitch, voiced stretches, onsets and pauses are compared as well: a
listener follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

import numpy as np

from wavegen.audio.levels import FRAME_SECONDS as LEVEL_SECONDS
from wavegen.audio.levels import LOUD_QUANTILE, SILENT_DB, SMALLEST_POWER, Doubles, Frames, frame_size
from wavegen.audio.librosa_loading import load_librosa
from wavegen.audio.quantize import Floats

# Loudness: mel bands of short frames, each band's power relative to the recordings' loud frames, in sones.
FRAME_SECONDS, HOP_SECONDS = 0.025, 0.01
N_BANDS, HIGHEST_HZ = 40, 8000.0
SONE_EXPONENT = 0.3  # loudness doubles every 10 dB (Stevens, 1955, "The Measurement of Loudness")
LAGS_SECONDS = (0.05, 0.25)  # differences over these: how loudness moves from syllable to syllable, hit to hit
SCALE = 1000.0  # so that scores have few decimals

# Levels: see wavegen.audio.levels.
SOUND_DB = -45.0  # relative to the recordings' loud level; the first frame above is a clip's first sound
FLOOR_DB = -60.0  # relative to the loud level; all below counts as equally quiet

SILENT_AMPLITUDE = 10 ** (SILENT_DB / 20)
REPEATS = 100  # of a bootstrap
SEED = 0  # of the bootstraps, and of the impostors
PIECE_SECONDS = 10.0  # longer clips are split: every piece is one draw in a bootstrap
MOST_PIECES = 240  # of recordings: 40 minutes at most

# Pitch, onsets and pauses.
LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ = 65.0, 1000.0  # of pitch: C2 to B5
PITCH_WINDOW_SECONDS, PITCH_HOP_SECONDS = 0.064, 0.02
SEMITONE_PARTS = 0.25  # pyin's resolution; its default of 0.1 takes twenty times as long for the same median
ONSET_HOP_SECONDS, ONSET_WINDOW = 0.01, 2048  # the window in samples: librosa's
PAUSE_DB = 40.0  # below the recordings' loud level
PAUSE_FRAMES = 2  # of 0.1 s, at least
MOST_HEARD = 64  # pieces that are measured, evenly spread over the clips


@dataclass(frozen=True)
class Moments:
    """Sums from which the mean and the covariance of feature vectors follow; they add up over clips.

    Attributes:
        n: number of vectors.
        total: (D,) their sum.
        products: (D, D) the sum of their outer products.
    """

    n: int
    total: Doubles
    products: Doubles

    @classmethod
    def of(cls, features: Doubles) -> Moments:
        """Sum the moments of (F, D) feature vectors."""
        return cls(len(features), features.sum(axis=0), features.T @ features)

    @classmethod
    def sum(cls, parts: Sequence[Moments]) -> Moments:
        """Add up moments, one after the other: a stack of them takes 400 MB for ten hours."""
        n, totals, products = zip(*((part.n, part.total, part.products) for part in parts), strict=True)
        return cls(sum(n), sum(totals[1:], totals[0]), sum(products[1:], products[0]))

    @property
    def mean(self) -> Doubles:
        """(D,) mean."""
        return self.total / self.n

    @property
    def covariance(self) -> Doubles:
        """(D, D) covariance."""
        return self.products / self.n - np.outer(self.mean, self.mean)

    @cached_property
    def root(self) -> Doubles:
        """(D, D) symmetric square root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: Doubles = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root


def frechet_distance(one: Moments, other: Moments) -> float:
    """Return the squared Frechet distance of the two Gaussians with these moments.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))     (Dowson and Landau, 1982)
    """
    # (C1 C2)^(1/2) has the trace of (C1^(1/2) C2 C1^(1/2))^(1/2), which is symmetric.
    eigenvalues = np.linalg.eigvalsh(one.root @ other.covariance @ one.root)
    trace = np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    return float(np.square(one.mean - other.mean).sum() + max(0.0, trace))


@lru_cache(maxsize=4)
def _mel_filters(rate_hz: int, n_fft: int) -> Doubles:
    """(bands, n_fft // 2 + 1) triangles of height 1."""
    filters: Doubles = load_librosa().filters.mel(
        sr=rate_hz, n_fft=n_fft, n_mels=N_BANDS, fmax=min(HIGHEST_HZ, rate_hz / 2), norm=None, dtype=np.float64
    )
    return filters


def band_powers(waveform: Floats, rate_hz: int) -> Doubles:
    """Return the (F, bands) power of each mel band in each frame; a full-scale sine has 0.5."""
    size, hop = round(FRAME_SECONDS * rate_hz), max(1, round(HOP_SECONDS * rate_hz))
    padded = np.pad(waveform, (0, max(0, size - len(waveform))))
    # (T,) -> (F, size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1]
    n_fft = 1 << (size - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(frames * window, n_fft)) ** 2
    # Parseval: both halves of the spectrum, without the window's own power
    spectrum *= 2 / (n_fft * np.square(window).sum())
    powers: Doubles = spectrum @ _mel_filters(rate_hz, n_fft).T
    return powers


def loudness_features(powers: Doubles, reference_power: float) -> Doubles:
    """Return each frame's loudness in every band, and its change over each of ``LAGS_SECONDS``.

    Args:
        powers: (F, bands) of one clip.
        reference_power: of the recordings' loud frames.

    Returns:
        (F, 3 * bands). A difference reaches back to the clip's first frame at most.
    """
    loudness = (powers / reference_power) ** SONE_EXPONENT
    at = np.arange(len(loudness))
    changes = [loudness - loudness[np.maximum(0, at - round(lag / HOP_SECONDS))] for lag in LAGS_SECONDS]
    return np.concatenate([loudness, *changes], axis=1)


def spread(lengths: Sequence[int], size: int, most: int = MOST_PIECES) -> list[tuple[int, int, int]]:
    """Split clips into pieces of a size at most, and choose some, evenly spread over all, where there are too many.

    Args:
        lengths: of the clips, in samples.
        size: of a piece, in samples.
        most: pieces to choose.

    Returns:
        Each piece as its clip's index, its first sample and the one after its last.
    """
    pieces = [
        (i, start, min(start + size, length)) for i, length in enumerate(lengths) for start in range(0, length, size)
    ]
    step = max(1.0, len(pieces) / most)
    return [pieces[int(k * step)] for k in range(int(len(pieces) / step))]


def in_pieces(clips: Iterable[Floats], rate_hz: int) -> list[Floats]:
    """Split clips into pieces of ``PIECE_SECONDS`` at most."""
    size = round(PIECE_SECONDS * rate_hz)
    return [clip[start : start + size] for clip in clips for start in range(0, len(clip), size)]


@dataclass(frozen=True)
class SampleFigures:
    """Figures of some clips, compared with the recordings.

    Attributes:
        score: the sample score, 0 for the recordings themselves; lower is better.
        interval: its 95% bootstrap interval over clips; None for a single piece.
        loud_db: the ``LOUD_QUANTILE`` of all frames' levels, in dB of full scale.
        level_distance_db: how far the distribution of frame levels is from the recordings': the Wasserstein distance of
            the levels relative to each one's own loud level, those below ``FLOOR_DB`` taken as that.
        silent_share: of all frames, those below ``SILENT_DB``.
        half_silent: clips of which at least half is silent.
        first_sound_seconds: where the first sound begins, in 95% of clips; infinite where more have none.
        centroid_hz: the centroid of the mean power spectrum.
        n_clips: their number.
        seconds: their length together.
    """

    score: float
    interval: tuple[float, float] | None
    loud_db: float
    level_distance_db: float
    silent_share: float
    half_silent: int
    first_sound_seconds: float
    centroid_hz: float
    n_clips: int
    seconds: float


class RecordingStatistics:
    """Statistics of recordings, to compare clips with.

    Every second piece of the recordings is the reference; the others show which score recordings of the same kind
    have. Two impostors show which score clips have that share the recordings' mean spectrum and level, and nothing
    else: stationary noise, and a tenth of a second repeated.

    Args:
        recordings: (T,) waveforms, prepared as the model's training data, two or more pieces of which nothing is
            silent throughout.
        rate_hz: their sample rate.

    Attributes:
        others: the pieces that are not the reference.
    """

    def __init__(self, recordings: Sequence[Floats], rate_hz: int) -> None:
        self.rate_hz = rate_hz
        pieces = in_pieces(recordings, rate_hz)
        if len(pieces) < 2:
            raise ValueError(f"expected two or more pieces of recordings, found {len(pieces)}")
        reference, self.others = pieces[0::2], pieces[1::2]
        powers = [band_powers(piece, rate_hz) for piece in reference]
        totals = np.concatenate([each.sum(axis=1) for each in powers])
        self.reference_power = max(float(np.quantile(totals, LOUD_QUANTILE)), SMALLEST_POWER)
        self._reference = Moments.sum([self._moments_of(each) for each in powers])
        levels = [_frames_of(piece, rate_hz).level_db for piece in pieces]
        self._levels = _relative_levels(np.concatenate(levels[0::2]))
        self.loud_db = float(np.quantile(np.concatenate(levels), LOUD_QUANTILE))

    def _moments_of(self, powers: Doubles) -> Moments:
        return Moments.of(loudness_features(powers, self.reference_power))

    def figures(self, clips: Sequence[Floats]) -> SampleFigures:
        """Compare clips with the recordings.

        Args:
            clips: (T,) waveforms at the recordings' rate, one or more.
        """
        from scipy.stats import wasserstein_distance

        pieces = in_pieces(clips, self.rate_hz)
        moments = [self._moments_of(band_powers(piece, self.rate_hz)) for piece in pieces]
        each = [_frames_of(clip, self.rate_hz) for clip in clips]
        levels, together = [frames.level_db for frames in each], Frames.joined(each)
        first = [_first_above(own, self.loud_db + SOUND_DB) * LEVEL_SECONDS for own in levels]
        return SampleFigures(
            score=self.score(moments),
            interval=self._interval(moments),
            loud_db=float(np.quantile(together.level_db, LOUD_QUANTILE)),
            level_distance_db=float(wasserstein_distance(_relative_levels(together.level_db), self._levels)),
            silent_share=float(np.mean(together.level_db < SILENT_DB)),
            half_silent=sum(bool(np.mean(each < SILENT_DB) >= 0.5) for each in levels),
            first_sound_seconds=float(np.quantile(first, 0.95, method="inverted_cdf")),
            centroid_hz=together.centroid_hz,
            n_clips=len(clips),
            seconds=sum(map(len, clips)) / self.rate_hz,
        )

    def figures_of_ends(self, clips: Sequence[Floats]) -> dict[str, SampleFigures]:
        """Compare the first and the last 10 s of clips, by name; empty where one is shorter than both together."""
        size = round(PIECE_SECONDS * self.rate_hz)
        if min(map(len, clips)) < 2 * size:
            return {}
        return {
            "their first 10 s": self.figures([clip[:size] for clip in clips]),
            "their last 10 s": self.figures([clip[-size:] for clip in clips]),
        }

    def references(self) -> dict[str, SampleFigures]:
        """Return the figures of the other half of the recordings, and of the impostors."""
        return {"recordings": self.figures(self.others), **{name: self.figures(c) for name, c in self._impostors()}}

    def score(self, moments: Sequence[Moments]) -> float:
        """Return the sample score of clips with these moments."""
        return SCALE * frechet_distance(self._reference, Moments.sum(moments))

    def _interval(self, moments: Sequence[Moments]) -> tuple[float, float] | None:
        """Bootstrap over pieces: 95% of the repeats lie in it, once they lie around the score of all pieces.

        A repeat has some pieces twice and lacks others, so its score is higher by itself.
        """
        if len(moments) < 2:
            return None
        rng = np.random.default_rng(SEED)
        scores = [self.score([moments[i] for i in rng.integers(0, len(moments), len(moments))]) for _ in range(REPEATS)]
        low, high = np.quantile(scores, [0.025, 0.975]) - np.mean(scores) + self.score(moments)
        return max(0.0, float(low)), float(high)

    def _impostors(self) -> Iterable[tuple[str, list[Floats]]]:
        """Make the two impostors: noise with the other half's mean spectrum, and a tenth of a second repeated."""
        rng = np.random.default_rng(SEED)
        size = round(PIECE_SECONDS * self.rate_hz)
        whole = np.concatenate(self.others)
        n_fft = 1 << 12
        blocks = np.resize(whole, (max(1, len(whole) // n_fft), n_fft))
        parts = np.array_split(blocks, 1 + len(blocks) // 256)  # the spectra of 20 minutes take 200 MB
        spectrum = np.sqrt(sum((np.abs(np.fft.rfft(part)) ** 2).sum(axis=0) for part in parts) / len(blocks))
        noises = []
        for _ in range(4):
            white = np.fft.rfft(rng.standard_normal(size))
            shape = np.interp(np.linspace(0, 1, len(white)), np.linspace(0, 1, len(spectrum)), spectrum)
            noise = np.fft.irfft(white * shape, size)
            noises.append((noise * np.sqrt(np.mean(whole**2.0) / np.mean(noise**2))).astype(np.float32))
        yield "noise of their spectrum", noises
        length, order = frame_size(self.rate_hz), np.argsort(_frames_of(whole, self.rate_hz).level_db)
        chosen = order[[int(share * (len(order) - 1)) for share in (0.5, 0.7, 0.8, 0.9)]]
        yield "0.1 s repeated", [np.resize(whole[i * length : (i + 1) * length], size) for i in chosen]


def _frames_of(clip: Floats, rate_hz: int) -> Frames:
    """Measure a clip's frames; one shorter than a frame is padded with silence."""
    missing = frame_size(rate_hz) - len(clip)
    return Frames.of(clip if missing <= 0 else np.pad(clip, (0, missing)), rate_hz)  # np.pad copies


def _first_above(levels: Doubles, threshold_db: float) -> float:
    """Index of the first level above a threshold; infinite if there is none."""
    above = np.flatnonzero(levels > threshold_db)
    return float(above[0]) if len(above) else np.inf


def _relative_levels(levels: Doubles) -> Doubles:
    """Return levels relative to their own loud level, sorted."""
    return np.sort(np.clip(levels - np.quantile(levels, LOUD_QUANTILE), FLOOR_DB, None))


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


def measure_heard(clips: Sequence[Floats], rate_hz: int, loud_db: float) -> Heard:
    """Measure what is heard in clips, in ``MOST_HEARD`` pieces at most.

    Args:
        clips: (T,) waveforms, one or more.
        rate_hz: their sample rate.
        loud_db: the recordings' loud level.
    """
    chosen = spread([len(clip) for clip in clips], round(PIECE_SECONDS * rate_hz), MOST_HEARD)
    pitches, counts = zip(*(_measure(clips[i][start:stop], rate_hz, loud_db) for i, start, stop in chosen), strict=True)
    every = np.arange(len(chosen))
    draws = np.vstack([every, np.random.default_rng(SEED).integers(0, len(every), (REPEATS, len(every)))])
    # (1 + REPEATS, pieces, 5) -> five of (1 + REPEATS,): of all pieces, then of the pieces that each repeat drew
    seconds, n_voiced, n_frames, n_onsets, n_pauses = np.array(counts)[draws].sum(axis=1).T

    def figure(values: Doubles) -> Figure:
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        return Figure(float(values[0]), (float(low), float(high)))

    voiced, pitch = figure(n_voiced / np.maximum(1, n_frames)), None
    if voiced.interval[0] > 0:
        drawn = (np.concatenate([pitches[i] for i in draw]) for draw in draws)
        pitch = figure(np.array([np.median(hertz) if len(hertz) else np.nan for hertz in drawn]))
    return Heard(pitch, voiced, figure(n_onsets / seconds), figure(10 * n_pauses / seconds))


def _measure(piece: Floats, rate_hz: int, loud_db: float) -> tuple[Floats, tuple[float, ...]]:
    """Return a piece's pitches, and its seconds, numbers of voiced frames, of all frames, of onsets and of pauses."""
    librosa = load_librosa("core.pitch")
    seconds, window = len(piece) / rate_hz, round(PITCH_WINDOW_SECONDS * rate_hz)
    piece = np.pad(piece, (0, max(0, max(window, ONSET_WINDOW, frame_size(rate_hz)) - len(piece))))
    pitches, is_voiced, _ = librosa.pyin(
        piece,
        fmin=LOWEST_PITCH_HZ,
        fmax=min(HIGHEST_PITCH_HZ, rate_hz / 4),
        sr=rate_hz,
        frame_length=window,
        hop_length=round(PITCH_HOP_SECONDS * rate_hz),
        resolution=SEMITONE_PARTS,
    )
    onsets = librosa.onset.onset_detect(y=piece, sr=rate_hz, hop_length=round(ONSET_HOP_SECONDS * rate_hz))
    levels = Frames.of(piece, rate_hz).level_db
    runs = [(quiet, len(list(frames))) for quiet, frames in groupby(levels < loud_db - PAUSE_DB)]
    pauses = [n for quiet, n in runs[1:-1] if quiet and n >= PAUSE_FRAMES]  # the first and the last are not between
    return pitches[is_voiced], (seconds, is_voiced.sum(), len(pitches), len(onsets), len(pauses))
