import math
import os
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

from command_line import PROGRAMS
from wavegen.audio.quantize import Quantizer
from wavegen.errors import DataError
from wavegen.evaluation.baselines import baseline_bits, clip_bits, fit_baselines

NAMES = ["uniform", "unigram", "order-1 Markov", "order-2 Markov", "linear prediction"]
QUANTIZERS = [
    Quantizer("mu_law", 16),
    Quantizer("linear", 16),
    Quantizer("mu_law", 256),
    Quantizer("linear", 2),
]

SHARED_DATA = Path(
    os.environ.get("WAVEGEN_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
).resolve()


def tones(quantizer, lengths, seed):
    """Clips of two tones, a fading and noise: predictable, but not too much."""
    generator = np.random.default_rng(seed)
    clips = []
    for length in lengths:
        t = np.arange(length)
        wave = 0.5 * np.sin(0.07 * t + generator.uniform(0, 6)) + 0.2 * np.sin(0.31 * t)
        wave = wave * np.exp(-t / 900) + 0.02 * generator.standard_normal(length)
        clips.append(quantizer.encode(wave.astype(np.float32)))
    return clips


class SlowReference:
    """The definitions of the five models, read aloud: dictionaries, and one sample after the other."""

    def __init__(self, clips, quantizer):
        self.quantizer, self.classes = quantizer, quantizer.classes
        singles, self.pairs, self.triples = Counter(), Counter(), Counter()
        for clip in clips:
            x = clip.tolist()
            singles.update(x)
            self.pairs.update(pairwise(x))
            self.triples.update(zip(x, x[1:], x[2:], strict=False))
        total = sum(singles.values()) + 0.5 * self.classes
        self.uni = [(singles[c] + 0.5) / total for c in range(self.classes)]

    def p1(self, a, b):
        after_a = sum(n for (first, _), n in self.pairs.items() if first == a)
        return (self.pairs[a, b] + 8 * self.uni[b]) / (after_a + 8)

    def p2(self, a, b, c):
        after = {key[2]: n for key, n in self.triples.items() if key[:2] == (a, b)}
        d = max(len(after), 1)
        return (after.get(c, 0) + d * self.p1(b, c)) / (sum(after.values()) + d)

    def bits(self, clip):
        x = clip.tolist()
        lines = {
            "uniform": [1 / self.classes for _ in x],
            "unigram": [self.uni[c] for c in x],
            "order-1 Markov": [self.p1(x[t - 1], x[t]) if t >= 1 else self.uni[x[t]] for t in range(len(x))],
            "order-2 Markov": [self.p2(*x[t - 2 : t + 1]) if t >= 2 else self.uni[x[t]] for t in range(len(x))],
            "linear prediction": self.linear_prediction(clip),
        }
        return {name: -math.fsum(math.log2(p) for p in line) for name, line in lines.items()}

    def linear_prediction(self, clip):
        amplitude = [0.0] * 1024 + self.quantizer.decode(clip).astype(np.float64).tolist()
        edges = self.quantizer.edges().tolist()
        fast = slow = 0.02
        a = [0.9] + [0.0] * 23
        probabilities = []
        for t in range(1024, len(amplitude)):
            if t > 1024 and t % 256 == 0:
                a = self.fit_prediction(amplitude[t - 1024 : t])
            prediction = sum(a[i] * amplitude[t - 1 - i] for i in range(24))
            scale = (fast + slow) / 2 + 1e-5
            c = int(clip[t - 1024])
            mass = laplace_cdf(edges[c + 1], prediction, scale) - laplace_cdf(edges[c], prediction, scale)
            probabilities.append(0.995 * mass + 0.005 * self.uni[c])
            residual = abs(amplitude[t] - prediction)
            fast += (residual - fast) / 24
            slow += (residual - slow) / 200
        return probabilities

    @staticmethod
    def fit_prediction(past):
        y = [x * 0.5 * (1 - math.cos(math.pi * n / 1024)) for n, x in enumerate(past)]
        r = [sum(y[n] * y[n - lag] for n in range(lag, 1024)) for lag in range(25)]
        r[0] = r[0] * 1.0005 + 1e-7
        return np.linalg.solve([[r[abs(i - j)] for j in range(24)] for i in range(24)], r[1:]).tolist()


def laplace_cdf(x, middle, scale):
    z = (x - middle) / scale
    return 0.5 * math.exp(z) if z < 0 else 1 - 0.5 * math.exp(-z)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_every_model_is_its_slow_definition(quantizer):
    training = tones(quantizer, [700, 1, 400, 2, 0], seed=1)
    held_out = tones(quantizer, [1, 2, 3, 255, 256, 257, 0, 1600], seed=2)
    baselines = fit_baselines(iter(training), quantizer.classes)
    reference = SlowReference(training, quantizer)
    expected = [reference.bits(clip) for clip in held_out]
    for clip, bits in zip(held_out, expected, strict=True):
        assert clip_bits(baselines, clip, quantizer) == pytest.approx(bits, rel=1e-9)

    total = baseline_bits(baselines, held_out, quantizer)
    assert list(total) == NAMES
    n_samples = sum(len(clip) for clip in held_out)
    for name in NAMES:
        assert total[name] == pytest.approx(sum(bits[name] for bits in expected) / n_samples, rel=1e-9)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("n_past", [0, 1, 2, 100, 256, 1300])
def test_probabilities_of_the_next_sample_sum_to_one(quantizer, n_past):
    baselines = fit_baselines(tones(quantizer, [900, 500], seed=3), quantizer.classes)
    (past,) = tones(quantizer, [n_past], seed=4)
    before = clip_bits(baselines, past, quantizer)
    sums = dict.fromkeys(NAMES, 0.0)
    for c in range(quantizer.classes):
        after = clip_bits(baselines, np.append(past, past.dtype.type(c)), quantizer)
        for name in NAMES:
            sums[name] += 2 ** (before[name] - after[name])
    assert sums == pytest.approx(dict.fromkeys(NAMES, 1.0), rel=1e-9)


def test_pieces_change_nothing(monkeypatch):
    quantizer = Quantizer()
    training, held_out = tones(quantizer, [5000, 3000], seed=5), tones(quantizer, [4000, 2048], seed=6)
    whole = baseline_bits(fit_baselines(training, 256), held_out, quantizer)
    for name in ("PIECE", "FIT_PIECE"):
        monkeypatch.setattr(f"wavegen.evaluation.baselines.{name}", 256)
    pieces = baseline_bits(fit_baselines(training, 256), held_out, quantizer)
    assert pieces == pytest.approx(whole, rel=1e-12)


def test_counting_takes_little_more_memory_than_the_counts():
    noise = np.random.default_rng(7).integers(0, 256, 4_000_000, dtype=np.uint8)
    tracemalloc.start()
    try:
        baselines = fit_baselines(np.array_split(noise, 300), 256)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (_, triples) = baselines.markov
    assert triples.grams.size > 3_500_000
    # grams and counts, once more while they grow, and the pieces that are counted at once
    assert most < 2.5 * 8 * triples.grams.size + 60e6


@pytest.mark.parametrize("classes", [256, 2000])
def test_counting_stops_at_a_number_of_different_n_grams(classes, monkeypatch):
    monkeypatch.setattr("wavegen.evaluation.baselines.MOST_GRAMS", 3000)
    monkeypatch.setattr("wavegen.evaluation.baselines.PIECE", 1000)
    noise = np.random.default_rng(8).integers(0, classes, 20_000, dtype=np.uint16)
    baselines = fit_baselines([noise], classes)
    assert [3000 < table.grams.size <= 4000 for table in baselines.markov] == [True, True]
    past, quantizer = noise[:2], Quantizer("mu_law", classes)
    before = clip_bits(baselines, past, quantizer)
    after = [clip_bits(baselines, np.append(past, np.uint16(c)), quantizer) for c in range(classes)]
    for name in ("order-1 Markov", "order-2 Markov"):
        assert sum(2 ** (before[name] - bits[name]) for bits in after) == pytest.approx(1, rel=1e-9)


def test_a_sure_and_wrong_prediction_costs_no_more_than_the_unigram_share():
    # A long silence narrows the Laplace to its floor; then comes a full-scale click, 10^5 scales away.
    quantizer = Quantizer()
    silence = np.full(4000, quantizer.silence, dtype=np.uint8)
    baselines = fit_baselines([np.arange(256, dtype=np.uint8)], 256)
    for click in (0, 255):
        clip = np.append(silence, np.uint8(click))
        bits = clip_bits(baselines, clip, quantizer)["linear prediction"]
        quiet = clip_bits(baselines, silence, quantizer)["linear prediction"]
        assert bits - quiet == pytest.approx(-math.log2(0.005 / 256), rel=1e-9)


def test_reads_read_only_memory_maps_of_4096_classes(tmp_path):
    quantizer = Quantizer("mu_law", 4096)
    clips = tones(quantizer, [1500, 600], seed=7)
    maps = []
    for i, clip in enumerate(clips):
        clip.tofile(tmp_path / f"{i}.u16")
        maps.append(np.memmap(tmp_path / f"{i}.u16", dtype=np.uint16, mode="r"))
    baselines = fit_baselines(maps[:1], 4096)
    expected = baseline_bits(fit_baselines(clips[:1], 4096), clips[1:], quantizer)
    assert baseline_bits(baselines, maps[1:], quantizer) == expected
    assert expected["uniform"] == 12
    # the reference at the largest numbers an n-gram can have
    assert expected["order-2 Markov"] * 600 == pytest.approx(
        SlowReference(clips[:1], quantizer).bits(clips[1])["order-2 Markov"], rel=1e-9
    )


def test_16_bit_samples_are_not_counted_in_pairs():
    quantizer = Quantizer("linear", 65536)
    training, held_out = tones(quantizer, [5000], seed=8), tones(quantizer, [1000, 1], seed=9)
    baselines = fit_baselines(training, 65536)
    assert baselines.markov is None
    bits = baseline_bits(baselines, held_out, quantizer)
    assert list(bits) == ["uniform", "unigram", "linear prediction"]
    assert bits["uniform"] == 16
    reference = SlowReference([np.concatenate(training)], quantizer)
    total = sum(-math.log2(p) for clip in held_out for p in reference.linear_prediction(clip))
    assert bits["linear prediction"] == pytest.approx(total / 1001, rel=1e-9)
    assert bits["linear prediction"] < bits["unigram"]


@pytest.mark.parametrize("length", [1, 2])
def test_fits_clips_too_short_for_any_markov_model(length):
    quantizer = Quantizer("linear", 4)
    clips = [np.array([1, 2][:length], dtype=np.uint8)]
    baselines = fit_baselines(clips, 4)
    held_out = np.array([0, 1, 2, 3, 1, 2], dtype=np.uint8)
    assert clip_bits(baselines, held_out, quantizer) == pytest.approx(
        SlowReference(clips, quantizer).bits(held_out), rel=1e-9
    )


@pytest.mark.parametrize("clips", [[], [np.empty(0, dtype=np.uint8)]], ids=["no clip", "empty clip"])
def test_nothing_to_fit_or_score_is_an_error(clips):
    with pytest.raises(DataError, match=r"expected training clips .*found no sample"):
        fit_baselines(clips, 256)
    baselines = fit_baselines([np.array([128], dtype=np.uint8)], 256)
    with pytest.raises(DataError, match=r"expected held-out clips .*found no sample"):
        baseline_bits(baselines, clips, Quantizer())


def test_another_number_of_classes_is_an_error():
    baselines = fit_baselines([np.array([1, 2], dtype=np.uint8)], 16)
    with pytest.raises(ValueError, match="baselines of 16 classes cannot score clips of 256"):
        clip_bits(baselines, np.array([1], dtype=np.uint8), Quantizer())


def test_scoring_needs_no_torch():
    run([sys.executable, PROGRAMS / "score_baselines.py"], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "speech-en.heldout.txt").is_file(), reason=f"no {SHARED_DATA}")
def test_published_values_on_the_fixed_split():
    import soundfile

    quantizer = Quantizer()
    names = set((SHARED_DATA / "speech-en.heldout.txt").read_text().split())
    training, held_out = [], []
    for path in sorted((SHARED_DATA / "speech-en").glob("*.flac")):
        waveform, rate_hz = soundfile.read(path, dtype="float32")
        assert rate_hz == 16000
        (held_out if path.name in names else training).append(quantizer.encode(waveform))
    assert (len(held_out), len(training)) == (55, 499)
    bits = baseline_bits(fit_baselines(training, 256), held_out, quantizer)
    published = dict(zip(NAMES, [8, 7.598, 4.931, 4.296, 3.707], strict=True))
    assert bits == pytest.approx(published, abs=0.001)  # published to three decimals
