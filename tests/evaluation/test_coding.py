"""Is bits/sample what coding the audio takes? Clips are coded, and decoded by who has nothing but the code.

The coder is a range coder on the probabilities that an engine's queues give sample by sample; the figure comes from one
teacher-forced pass. They agree only if no prediction sees what it predicts, and if all classes' probabilities sum to 1.
"""

import math
from copy import deepcopy
from functools import cache

import constriction
import numpy as np
import pytest
import soundfile
import torch

import wavegen
from mixtures import MIXTURE_KINDS, engines_of
from wavegen.evaluation.scores import score_clips, total
from wavegen.sampling.engines import build_engine

RATE_HZ, CLIP_SAMPLES = 8000, 1200
LAST_BITS = 64  # with which a range coder's code ends, whatever it holds
PLACEHOLDER = 0

TRAINING = [
    "audio.level=keep",
    *("audio.sample_rate_hz=8000", "data.validation=0.5", "model.cycles=1", "model.dilation_cycle=5"),
    *("model.residual_channels=8", "model.gate_channels=8", "model.skip_channels=16", "model.head_channels=16"),
    *("training.steps=60", "training.batch_size=2", "training.window_targets=200", "training.audition_every=0"),
]
SIXTEEN_BIT = ["output.components=2", "training.steps=200"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones that glide, under noise: nothing that a small model gets right for sure."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(1)
    time = np.arange(CLIP_SAMPLES) / RATE_HZ
    for i in range(20):
        glide = np.sin(2 * np.pi * rng.uniform(100, 900) * time * (1 + time))
        soundfile.write(folder / f"{i}.wav", 0.3 * glide + 0.03 * rng.standard_normal(CLIP_SAMPLES), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def train(recordings, tmp_path_factory):
    def trained(preset, settings):
        config = wavegen.load_config(preset, [*TRAINING, *settings])
        run = tmp_path_factory.mktemp("runs") / "run"
        return wavegen.train(recordings, config, run=run, device="cpu", notice=lambda text: None)

    return trained


@pytest.fixture(scope="module")
def trained_with(train):
    """Trains a model with an output of some kind, once."""

    @cache
    def trained(kind):
        return train("small", []) if kind == "softmax" else train("16bit", [*SIXTEEN_BIT, f"output.kind={kind}"])

    return trained


def probabilities(distribution, parameters):
    """Of all classes, from the parameters that a network puts out: (B, n_parameters) to (B, classes)."""
    parameters = torch.from_numpy(parameters)
    if distribution.kind == "softmax":
        return parameters.double().softmax(dim=-1).numpy()
    every_class = torch.arange(distribution.classes)
    nats = [distribution.loss(row.expand(len(every_class), -1), every_class) for row in parameters]
    return torch.stack(nats).double().neg().exp().numpy()


class Predictor:
    """The probabilities of a model's next samples, from an engine that is fed each sample after it was predicted.

    Args:
        model: trained.
        name: of the engine.
        n_clips: side by side, from their silent past on.
    """

    def __init__(self, model, name, n_clips):
        self.engine, self.distribution, self.n_clips = build_engine(name, model.network), model.distribution, n_clips
        padding = self.engine.padding(model.quantizer.silence)
        self.engine.start(np.full((n_clips, self.engine.receptive_field), padding))

    def next(self):
        """(n_clips, classes), by a copy of the engine: what that one takes for the sample itself is forgotten."""
        shared = {id(self.engine.model): self.engine.model} if hasattr(self.engine, "model") else {}
        parameters = deepcopy(self.engine, shared).force(np.full((self.n_clips, 1), PLACEHOLDER))
        return probabilities(self.distribution, parameters[:, 0])

    def take(self, classes):
        """Hear (n_clips,) samples."""
        self.engine.force(classes[:, None])


def in_two_parts(p):
    """The probabilities of the upper half of a class's digits, and of the lower half together with each upper one.

    A coder's probabilities are multiples of 2^-24: those of 65,536 classes would be rounded by too much.
    """
    table = p.reshape(len(p), math.isqrt(p.shape[1]), -1)
    return table.sum(axis=2), table


def encoded(clips, predictor):
    """The code for (B, T) classes: its words of 32 bits, and the bits that it would take with no rounding at all."""
    coder, model = constriction.stream.queue.RangeEncoder(), constriction.stream.model.Categorical(perfect=False)
    ideal, clip = 0.0, np.arange(len(clips))
    for classes in clips.T:
        p = predictor.next()
        ideal -= np.log2(p[clip, classes]).sum()
        upper, lower = in_two_parts(p)
        high, low = np.divmod(classes, lower.shape[2])
        coder.encode(high.astype(np.int32), model, upper)
        coder.encode(low.astype(np.int32), model, lower[clip, high])
        predictor.take(classes)
    return coder.get_compressed(), ideal


def decoded(words, n_samples, predictor):
    """The (B, T) classes that a code stands for."""
    coder, model = constriction.stream.queue.RangeDecoder(words), constriction.stream.model.Categorical(perfect=False)
    samples = []
    for _ in range(n_samples):
        upper, lower = in_two_parts(predictor.next())
        high = coder.decode(model, upper)
        low = coder.decode(model, lower[np.arange(len(high)), high])
        samples.append(high.astype(np.int64) * lower.shape[2] + low)
        predictor.take(samples[-1])
    return np.stack(samples, axis=1)


GRID = [
    ("softmax", 4, 600, "numba"),
    ("softmax", 4, 600, "torch"),
    *(
        pytest.param(kind, 2, 300, engine, marks=pytest.mark.slow)
        for kind in MIXTURE_KINDS
        for engine in engines_of(kind)
        if engine != "reference"
    ),
]


@pytest.mark.parametrize(("kind", "n_clips", "n_samples", "engine"), GRID)
def test_coding_held_out_clips_takes_the_bits_that_evaluate_prints(trained_with, kind, n_clips, n_samples, engine):
    model = trained_with(kind)
    held_out = [clip._replace(classes=clip.classes[:n_samples]) for clip in model.clips.held_out()[:n_clips]]
    clips = np.stack([clip.classes for clip in held_out]).astype(np.int64)
    assert clips.shape == (n_clips, n_samples)

    bits = total(score_clips(model.network, held_out, model.quantizer, None, lambda n: None)).bits
    words, ideal = encoded(clips, Predictor(model, engine, n_clips))
    spent = 32 * len(words)
    assert ideal == pytest.approx(bits, rel=1e-6)
    assert 0.999 * bits <= spent <= 1.001 * bits + LAST_BITS
    assert bits < 0.9 * clips.size * math.log2(model.quantizer.classes), "a model that has learnt something"
    assert np.array_equal(decoded(words, n_samples, Predictor(model, engine, n_clips)), clips)
