"""Trivial baselines that a trained network has to beat, scored in bits/sample on the same held-out clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.errors import DataError
from wavegen.evaluation.linear_prediction import linear_prediction_bits

Classes = npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PIECE = 1 << 20  # n-grams that are counted at once

MOST_COUNTED_CLASSES = 4096  # beyond, hardly a pair of samples occurs twice: there are no Markov models
MOST_GRAMS = 1 << 24  # different ones that are counted, all there are of 256 classes: 130 MB, twice that meanwhile
PRIOR_COUNT = 8.0  # how many transitions the unigram weighs in order 1


FITTED_SAMPLES = 100_000_000  # 1.7 hours at 16 kHz: callers fit on no more, the counts hardly change after


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
        classes: number of levels of a sample.
        unigram: (classes,) probability of each class: (count + 0.5), normalized.
        markov: pairs and triples of classes; None of more classes than can be counted.
    """

    classes: int
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
    pairs, triples = _Tally(classes), _Tally(classes)
    for clip in clips:
        for values in _grams(clip, 1, classes):
            counts += np.bincount(values, minlength=classes)
        if classes > MOST_COUNTED_CLASSES:
            continue
        for grams in _grams(clip, 2, classes):
            pairs.add(grams)
        for grams in _grams(clip, 3, classes):
            triples.add(grams)
    if not counts.any():
        raise DataError("baselines: expected training clips to fit them on, found no sample; check the split")
    unigram: Floats = (counts + 0.5) / (counts.sum() + 0.5 * classes)
    markov = None
    if classes <= MOST_COUNTED_CLASSES:
        markov = pairs.n_grams(), triples.n_grams()
    return Baselines(classes, unigram, markov)


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
    classes = baselines.classes
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
