"""Stacks of layers, recurrent ones among them, step by step: each engine against one pass over the clip."""

import numpy as np
import pytest
import torch

from wavegen.audio.quantize import Quantizer
from wavegen.config import parse_config
from wavegen.errors import UsageError
from wavegen.model.building import build_model
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines import build_engine, choose_engine
from wavegen.sampling.sampler import Request, Sampler, uniforms

QUANTIZER = Quantizer("mu_law", 16)
LAYERS = """
  layers:
    - {kind: conv, channels: 6, kernel_size: 3, dilation: 2, activation: relu, name: low}
    - {kind: average_pool, kernel_size: 2, dilation: 5}
    - {kind: dense, channels: 6, activation: tanh}
    - {kind: add, source: low}
    - {kind: max_pool, kernel_size: 3, dilation: 1}
    - {kind: concatenate, source: input}
    - {kind: conv, channels: 5, kernel_size: 1}
"""
KINDS = {
    "stack": "model:\n  kind: stack" + LAYERS,
    "scalar stack": "model:\n  kind: stack\n  input: scalar" + LAYERS,
    "one tap": "model: {kind: stack, layers: [{kind: dense, channels: 6, activation: tanh}]}\n",
    "gru": "model: {kind: stack, layers: [{kind: gru, channels: 6}, {kind: gru, channels: 6}], context: 9}\n",
    "lstm": "model: {kind: stack, layers: [{kind: lstm, channels: 6}], context: 9, input: one_hot}\n",
    "rnn, one step of context": "model: {kind: stack, layers: [{kind: rnn, channels: 6}], context: 1}\n",
    "mixed": "model:\n  kind: stack\n  context: 9"
    + LAYERS
    + "    - {kind: rnn, channels: 5, layer_norm: true}\n    - {kind: conv, channels: 5, dilation: 3}\n"
    + "    - {kind: lstm, channels: 4}\n    - {kind: concatenate, source: low}\n",
}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_engine = pytest.mark.parametrize("name", ["torch", "reference"])


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    """As the sampler runs every engine."""
    torch.set_num_threads(1)


def random_network(kind):
    torch.manual_seed(3)
    model = build_model(parse_config(KINDS[kind] + "quantization: {classes: 16}", "x")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def some(shape, seed):
    return np.random.default_rng(seed).integers(0, 16, shape)


def past_of(model, prime):
    """(B, T) primes behind what stands before a clip's start."""
    before = np.full((len(prime), model.receptive_field), model.padding(QUANTIZER.silence))
    return np.concatenate([before, prime], axis=1)


@torch.inference_mode()
def teacher_forced(model, past, classes):
    """(B, n, classes) logits of each of these classes, from one pass over the whole past."""
    heard = np.concatenate([past, classes], axis=1)[:, :-1]
    return model(torch.from_numpy(heard)).numpy()[:, -classes.shape[1] :]


@every_kind
@every_engine
@pytest.mark.parametrize("n_prime", [0, 4, 60])
def test_engines_have_the_teacher_forced_logits(name, kind, n_prime):
    model = random_network(kind)
    past, classes = past_of(model, some((9, n_prime), 1)), some((9, 40), 2)
    engine = build_engine(name, model)
    engine.start(past)
    found = np.concatenate([engine.force(classes[:, :7]), engine.force(classes[:, 7:])], axis=1)
    np.testing.assert_allclose(found, teacher_forced(model, past, classes), atol=1e-4)


@every_kind
def test_engines_draw_the_same_audio(kind):
    """These draws lie far enough from any boundary between classes."""
    model, numbers = random_network(kind), np.stack([uniforms(5, clip, 0, 60) for clip in range(3)])
    drawn = []
    for name in ("torch", "reference"):
        engine = build_engine(name, model)
        engine.start(past_of(model, some((3, 20), 3)))
        drawn.append(engine.generate(numbers, Truncation(0.9)))
    assert np.array_equal(*drawn)


@every_kind
def test_a_clip_depends_on_neither_chunks_nor_count(kind):
    sampler = Sampler(build_engine("torch", random_network(kind)), QUANTIZER)
    prime = some((30,), 4)
    one = np.concatenate(list(sampler.stream_classes(Request(50, 1, 7, prime=prime), chunk=50)), axis=1)
    many = np.concatenate(list(sampler.stream_classes(Request(50, 11, 7, prime=prime), chunk=13)), axis=1)
    assert np.array_equal(one[0], many[0])


@pytest.mark.parametrize("kind", ["gru", "lstm", "mixed"])
def test_a_recurrent_network_sees_all_of_the_prime(kind):
    model = random_network(kind)
    primes = np.repeat(some((1, 24), 5), 2, axis=0)
    primes[1, :12] = 0  # before the last `context` samples
    engine = build_engine("torch", model)
    engine.start(past_of(model, primes))
    first, second = engine.force(np.zeros((2, 1), np.int64))[:, 0]
    assert not np.array_equal(first, second)


def test_a_long_past_is_processed_in_stretches(monkeypatch):
    monkeypatch.setattr("wavegen.model.stack.PRIME_STEPS", 7)
    model = random_network("mixed")
    past, classes = past_of(model, some((3, 80), 1)), some((3, 5), 2)
    engine = build_engine("torch", model)
    engine.start(past)
    np.testing.assert_allclose(engine.force(classes), teacher_forced(model, past, classes), atol=1e-4)


@every_kind
def test_a_step_leaves_its_buffers_where_they_are(kind):
    """A CUDA graph holds addresses: buffers may not move."""
    engine = build_engine("torch", random_network(kind))
    engine.start(past_of(engine.model, some((2, 5), 6)))
    (group,) = engine.groups
    before = [tensor.data_ptr() for tensor in group.step.buffers]
    engine.generate(np.full((2, 20), 0.4), Truncation())
    assert [tensor.data_ptr() for tensor in group.step.buffers] == before


def test_the_fused_engine_is_for_wavenets(engine_source):
    assert choose_engine("auto", engine_source(kind="stack")) == "torch"
    with pytest.raises(UsageError, match="engine='numba': it runs WaveNets, and this model is a stack"):
        choose_engine("numba", engine_source(kind="stack"))
    with pytest.raises(UsageError, match="has float32 only"):
        choose_engine("auto", engine_source(kind="stack"), "int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_kind
def test_on_cuda_with_and_without_a_graph(kind):
    from wavegen.sampling.engines.torch_engines import TorchQueueEngine

    model = random_network(kind)
    past, classes = past_of(model, some((33, 30), 7)), some((33, 50), 8)
    expected, numbers = teacher_forced(model, past, classes), np.stack([uniforms(7, clip, 0, 90) for clip in range(33)])
    drawn = []
    for capture in (True, False):
        engine = TorchQueueEngine(model.to("cuda"), capture=capture)
        engine.start(past)
        np.testing.assert_allclose(engine.force(classes), expected, atol=1e-3)
        engine.start(past)
        drawn.append(np.concatenate([engine.generate(part, Truncation()) for part in np.split(numbers, 3, axis=1)], 1))
    assert np.array_equal(*drawn)
