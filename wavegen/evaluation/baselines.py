"""Trivial baselines that a trained network has to beat, scored in bits/sample on the same held-out clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.audio.quantize import Quantizer
from wavegen.errors import DataError

Classes = npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PIECE = 1 << 20  # n-grams that are counted at once

MOST_COUNTED_CLASSES = 4096  # beyond, hardly a pair of samples occurs twice: there are no Markov models
MOST_GRAMS = 1 << 24  # different ones that are counted, all there are of 256 classes: 130 MB, twice that meanwhile
PRIOR_COUNT = 8.0  # how many transitions the unigram weighs in order 1
FITTED_SAMPLES = 100_000_000  # 1.7 hours at 16 kHz: callers fit on no more, the counts hardly change after

# Adaptive linear prediction, the strongest of them.
FIT_PIECE = 1 << 18  # samples processed at a time; a multiple of a fit's length
ORDER = 24  # coefficients of the linear prediction: 1.5 ms at 16 kHz
REFIT_EVERY = 256  # samples that one fit predicts
MEMORY = 1024  # samples of past that a fit sees
SCALE_RATES = (1 / 24, 1 / 200)  # of the two running averages of |residual|
SCALE_START = 0.02
UNIGRAM_SHARE = 0.005  # mixed into linear prediction: the far tail of a Laplace underflows to 0


@dataclass(frozen=True)
class NGrams:
    """Counts of the n-grams in the fitted clips, stored sparsely.

    The n-gram of classes a, b, c is the number (a * classes + b) * classes + c.

    Args:
        grams: (N,) the n-grams that occurred, ascending.
        before: (N + 1,) how often smaller n-grams than each occurred, and all together.
    """

    grams: npt.NDArray[Any]
    before: npt.NDArray[np.uint32]

    def within(self, first: Ints, stop: Ints) -> tuple[Ints, Ints]:
        """Return how often n-grams from ``first`` up to ``stop`` occurred, and how many different ones did."""
        # of one type: NumPy would convert all n-grams to a common one
        low, high = (np.searchsorted(self.grams, keys.astype(self.grams.dtype)) for keys in (first, stop))
        return self.before[high].astype(np.int64) - self.before[low], high - low


@dataclass(frozen=True)
class Baselines:
    """The trivial models as fitted on training clips.

    Args:
        unigram: (classes,) probability of each class: (count + 0.5), normalized.
        markov: pairs and triples of classes; None of more classes than can be counted.
    """

    unigram: Floats
    markov: tuple[NGrams, NGrams] | None


def fit_baselines(clips: Iterable[Classes], classes: int) -> Baselines:
    """Count what the trivial models need, in one pass.

    Memory grows with the different trigrams, up to ``MOST_GRAMS``, and not with the audio.

    Args:
        clips: training clips, (T,) integers in [0, classes); those of one or two samples give what they have.
        classes: number of levels.

    Returns:
        The fitted models.

    Raises:
        DataError: there is no clip, or none has a sample.
    """
    counts = np.zeros(classes, dtype=np.int64)
    tallies = {length: _Tally(classes) for length in (2, 3)} if classes <= MOST_COUNTED_CLASSES else {}
    for clip in clips:
        for values in _grams(clip, 1, classes):
            counts += np.bincount(values, minlength=classes)
        for length, tally in tallies.items():
            for grams in _grams(clip, length, classes):
                tally.add(grams)
    if not counts.any():
        raise DataError("baselines: expected training clips to fit them on, found no sample; check the split")
    unigram: Floats = (counts + 0.5) / (counts.sum() + 0.5 * classes)
    markov = (tallies[2].n_grams(), tallies[3].n_grams()) if tallies else None
    return Baselines(unigram, markov)


def baseline_bits(baselines: Baselines, clips: Sequence[Classes], quantizer: Quantizer) -> dict[str, float]:
    """Score held-out clips with every trivial model.

    Args:
        baselines: as ``fit_baselines`` gave them.
        clips: held-out clips, (T,) integers in [0, classes).
        quantizer: what made the classes.

    Returns:
        Bits/sample of each model, every sample of every clip counted once; the simplest model first.

    Raises:
        DataError: there is no clip, or none has a sample.
    """
    n_samples = sum(clip.size for clip in clips)
    if n_samples == 0:
        raise DataError("baselines: expected held-out clips to score, found no sample; check the split")
    totals = [clip_bits(baselines, clip, quantizer) for clip in clips]
    return {name: math.fsum(total[name] for total in totals) / n_samples for name in totals[0]}


def clip_bits(baselines: Baselines, clip: Classes, quantizer: Quantizer) -> dict[str, float]:
    """Score one clip with every trivial model that its classes can be counted for.

    The samples that lack the past a Markov model needs (the first at order 1, the first two at order 2) are
    scored by the unigram.

    Args:
        baselines: as ``fit_baselines`` gave them.
        clip: (T,) integers in [0, classes), of any length.
        quantizer: what made the classes.

    Returns:
        Total bits of each model over the clip; the simplest model first.

    Raises:
        ValueError: the quantizer has another number of classes than the baselines.
    """
    classes = len(baselines.unigram)
    if quantizer.classes != classes:
        raise ValueError(f"baselines of {classes} classes cannot score clips of {quantizer.classes}")
    unigram = -np.log2(baselines.unigram)
    bits = {"uniform": clip.size * math.log2(classes), "unigram": 0.0}
    for values in _grams(clip, 1, classes):
        bits["unigram"] += float(unigram[values].sum())
    if baselines.markov is not None:
        for order, probability in ((1, _order_1_probability), (2, _order_2_probability)):
            total = float(unigram[clip[:order]].sum())
            # Far fewer n-grams are different than there are samples: each is looked up once.
            for grams in _grams(clip, order + 1, classes):
                distinct, counts = np.unique(grams, return_counts=True)
                total -= float(counts @ np.log2(probability(baselines.unigram, baselines.markov, distinct)))
            bits[f"order-{order} Markov"] = total
    bits["linear prediction"] = linear_prediction_bits(baselines.unigram, clip, quantizer)
    return bits


def _order_1_probability(unigram: Floats, markov: tuple[NGrams, NGrams], grams: Ints) -> Floats:
    """Probability of b after a, for each n-gram a, b.

    P1(b | a) = (C(a, b) + 8 uni(b)) / (C(a) + 8),   C(a) = sum over b of C(a, b)
    """
    pairs, classes = markov[0], len(unigram)
    contexts = grams // classes * classes
    seen, _ = pairs.within(grams, grams + 1)
    total, _ = pairs.within(contexts, contexts + classes)
    prior: Floats = PRIOR_COUNT * unigram[grams % classes]
    return (seen + prior) / (total + PRIOR_COUNT)


def _order_2_probability(unigram: Floats, markov: tuple[NGrams, NGrams], grams: Ints) -> Floats:
    """Probability of c after a, b, for each n-gram a, b, c.

        P2(c | a, b) = (C(a, b, c) + d P1(c | b)) / (C(a, b) + d),   C(a, b) = sum over c of C(a, b, c)

    with d the number of different classes seen after a, b, at least 1 (Witten and Bell, 1991, "The
    zero-frequency problem", method C, interpolated).
    """
    triples, classes = markov[1], len(unigram)
    contexts = grams // classes * classes
    seen, _ = triples.within(grams, grams + 1)
    total, kinds = triples.within(contexts, contexts + classes)
    kinds = np.maximum(kinds, 1)
    prior = kinds * _order_1_probability(unigram, markov, grams % classes**2)  # without a: the n-gram b, c
    return (seen + prior) / (total + kinds)


class _Tally:
    """Counts n-grams piece by piece, in memory that grows with the different ones only."""

    def __init__(self, classes: int) -> None:
        self._grams: npt.NDArray[Any] = np.empty(0, dtype=np.uint32 if classes**3 < 1 << 32 else np.uint64)
        self._counts = np.empty(0, dtype=np.uint32)
        self._pending, self._n_pending = list[Ints](), 0

    def add(self, grams: Ints) -> None:
        self._pending.append(grams)
        self._n_pending += grams.size
        if self._n_pending >= PIECE:
            self._merge()

    def _merge(self) -> None:
        pending, self._pending, self._n_pending = self._pending, [], 0
        if not pending or self._grams.size > MOST_GRAMS:
            return
        distinct, counts = np.unique(np.concatenate(pending).astype(self._grams.dtype), return_counts=True)
        places = np.searchsorted(self._grams, distinct)
        is_new = places == np.searchsorted(self._grams, distinct, side="right")
        self._counts[places[~is_new]] += counts[~is_new].astype(np.uint32)
        self._grams = np.insert(self._grams, places[is_new], distinct[is_new])
        self._counts = np.insert(self._counts, places[is_new], counts[is_new])

    def n_grams(self) -> NGrams:
        self._merge()
        before = np.zeros(self._grams.size + 1, dtype=np.uint32)
        np.cumsum(self._counts, dtype=np.uint32, out=before[1:])
        return NGrams(self._grams, before)


def _grams(clip: Classes, length: int, classes: int) -> Iterator[Ints]:
    """Yield the n-gram at every place of a clip, ``length`` classes each, one piece of the clip at a time."""
    for start in range(0, clip.size - length + 1, PIECE):
        piece = np.asarray(clip[start : start + PIECE + length - 1], dtype=np.int64)
        n_grams = piece.size - length + 1
        grams = piece[:n_grams]
        for offset in range(1, length):
            grams = grams * classes + piece[offset : offset + n_grams]
        yield grams


def linear_prediction_bits(unigram: Floats, clip: Classes, quantizer: Quantizer) -> float:
    """Compute the total bits of a clip under adaptive linear prediction with a Laplace residual.

        P(c) = 0.995 (F(edges[c + 1]) - F(edges[c])) + 0.005 uni(c),   F the Laplace CDF around the prediction

    The Laplace's mean absolute value at t is the mean of two running averages of |residual| before t, + 1e-5.

    Args:
        unigram: (classes,) probability of each class.
        clip: (T,) integers in [0, classes).
        quantizer: what made the classes.
    """
    from scipy.signal import lfilter

    edges = quantizer.edges()
    averages = [np.array([SCALE_START]) for _ in SCALE_RATES]
    past = np.zeros(MEMORY)  # before the clip: silence
    bits = 0.0
    for start in range(0, clip.size, FIT_PIECE):
        values = np.asarray(clip[start : start + FIT_PIECE], dtype=np.int64)
        samples = np.concatenate([past, quantizer.decode(values).astype(np.float64)])
        prediction = _predict(samples, at_clip_start=start == 0)
        residual = np.abs(samples[MEMORY:] - prediction)
        scale = np.full(values.size, 1e-5)
        for i, rate in enumerate(SCALE_RATES):
            # s[t] = (1 - rate) s[t - 1] + rate |residual[t - 1]|: the filter's state is the next average
            running, averages[i] = lfilter([0.0, rate], [1.0, rate - 1.0], residual, zi=averages[i])
            scale += running / len(SCALE_RATES)
        mass = _laplace_mass((edges[values] - prediction) / scale, (edges[values + 1] - prediction) / scale)
        probability = (1 - UNIGRAM_SHARE) * mass + UNIGRAM_SHARE * unigram[values]
        bits -= float(np.log2(probability).sum())
        past = samples[-MEMORY:]
    return bits


def _predict(samples: Floats, at_clip_start: bool) -> Floats:
    """Predict every sample after the first ``MEMORY`` linearly from the ``ORDER`` before it.

        prediction[t] = sum over i of a[i] x[t - i],   sum over j of r[|i - j|] a[j] = r[i],   i, j = 1 ... 24

    the autocorrelation method (Makhoul, 1975, "Linear prediction: a tutorial review", section II). r is that
    of the last 1,024 samples before the fit under the rising half of a Hann window: the latest weigh most.
    r[0] * 1.0005 + 1e-7 keeps silence and pure tones solvable. A clip's first fit has only silence to go by:
    its 256 predictions are 0.9 x[t - 1].
    """
    n_samples = samples.size - MEMORY
    n_fits = -(-n_samples // REFIT_EVERY)
    padded = np.concatenate([samples, np.zeros(n_fits * REFIT_EVERY - n_samples)])

    taper = np.sin(np.pi * np.arange(MEMORY) / (2 * MEMORY)) ** 2
    starts = REFIT_EVERY * np.arange(n_fits)
    pasts = sliding_window_view(padded, MEMORY)[starts] * taper  # (fits, MEMORY)
    lags = np.arange(ORDER)
    r = np.stack([(pasts[:, lag:] * pasts[:, : MEMORY - lag]).sum(axis=1) for lag in range(ORDER + 1)], axis=1)
    r[:, 0] = r[:, 0] * 1.0005 + 1e-7
    toeplitz = r[:, np.abs(lags[:, None] - lags)]  # (fits, ORDER, ORDER)
    coefficients = np.linalg.solve(toeplitz, r[:, 1:, None])[:, :, 0]
    if at_clip_start:
        coefficients[0] = 0.0
        coefficients[0, 0] = 0.9

    prediction = np.zeros((n_fits, REFIT_EVERY))
    for i in range(ORDER):
        delayed = padded[MEMORY - 1 - i : padded.size - 1 - i].reshape(n_fits, REFIT_EVERY)
        prediction += coefficients[:, i, None] * delayed
    return prediction.reshape(-1)[:n_samples]


def _laplace_mass(lower: Floats, upper: Floats) -> Floats:
    """Compute the probability that a Laplace variable of mean absolute value 1 falls between two bounds.

    Differences of CDFs near 1 cancel, so an interval is first mirrored to the side where exp decays:

        lower >= 0:  exp(-lower) (1 - exp(lower - upper)) / 2      else:  1 - exp(lower) / 2 - exp(-upper) / 2
    """
    mirrored = lower + upper < 0
    near = np.where(mirrored, -upper, lower)
    far = np.where(mirrored, -lower, upper)
    within = np.exp(-np.maximum(near, 0.0)) * -np.expm1(near - far)
    across = -np.expm1(np.minimum(near, 0.0)) - np.expm1(-far)
    return 0.5 * np.where(near >= 0, within, across)
