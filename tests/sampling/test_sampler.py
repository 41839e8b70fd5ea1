from itertools import islice

import numpy as np
import pytest
import torch

from wavegen.audio.quantize import Quantizer
from wavegen.errors import ModelError
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines import ENGINES, build_engine
from wavegen.sampling.sampler import Request, Sampler, uniforms

QUANTIZER = Quantizer("mu_law", 16)


def sampler_of(model, name="torch"):
    return Sampler(build_engine(name, model), QUANTIZER)


def audio(model, request, chunk=64, name="torch"):
    """(count, n) classes."""
    return np.concatenate(list(sampler_of(model, name).stream_classes(request, chunk)), axis=1)


@pytest.fixture
def wide_model(random_model):
    """Wide enough that a matrix product's rounding depends on its shape and threads."""
    return random_model(
        dilations=[1, 2, 4, 8],
        residual_channels=64,
        gate_channels=64,
        skip_channels=256,
        head_channels=256,
    )


# --- the same audio, bit for bit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [Truncation(), Truncation(0.9, top_k=12, top_p=0.95)], ids=str)
@pytest.mark.parametrize(("count", "chunk", "threads"), [(3, 1, 2), (3, 7, 1), (3, 1000, 2), (1, 64, 1), (9, 50, 2)])
def test_chunks_count_and_threads_change_nothing(wide_model, count, chunk, threads, truncation):
    prime = np.random.default_rng(1).integers(0, 16, 300)
    request = {"n_samples": 150, "seed": 4, "truncation": truncation, "prime": prime}
    torch.set_num_threads(2)
    expected = audio(wide_model, Request(count=9, **request))
    torch.set_num_threads(threads)
    found = audio(wide_model, Request(count=count, **request), chunk)
    assert np.array_equal(found, expected[:count])
    assert len(np.unique(expected, axis=0)) == 9, "every clip is its own"


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_logits_do_not_depend_on_the_other_clips(wide_model, name):
    """Stricter than equal audio: the last bit of every logit."""
    rng = np.random.default_rng(2)
    past, classes = rng.integers(0, 16, (17, wide_model.receptive_field)), rng.integers(0, 16, (17, 20))
    engine = build_engine(name, wide_model)
    found = {}
    for count in (1, 8, 9, 17):
        engine.start(past[:count])
        found[count] = engine.force(classes[:count])
    for count in (1, 8, 9):
        assert np.array_equal(found[count], found[17][:count])


def test_a_clips_number_decides_its_draws(random_model):
    model = random_model()
    six = audio(model, Request(80, count=6, seed=3))
    assert np.array_equal(audio(model, Request(80, count=2, seed=3, numbers=[5, 2])), six[[5, 2]])
    far = audio(model, Request(80, count=2, seed=3, numbers=[2 + (1023 << 32), 2]))
    assert not np.array_equal(*far)


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_request_gives_the_same_audio_and_another_seed_another(random_model, name):
    model = random_model()
    first, again, other = (audio(model, Request(80, 2, seed), name=name) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_draw_has_its_own_number(random_model):
    """A model that says the same of every sample draws what the uniform numbers say: class = floor(16 u)."""
    model = random_model()
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
    found = audio(model, Request(200, count=3, seed=2**64 - 1), chunk=33)
    numbers = np.stack([uniforms(2**64 - 1, clip, 0, 200) for clip in range(3)])
    assert np.array_equal(found, (numbers * 16).astype(int))


# --- the past ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_an_unprimed_start_is_a_start_from_silence(random_model, name):
    model = random_model()
    field = model.receptive_field
    unprimed = audio(model, Request(60, seed=3), name=name)
    for length in (0, 1, field, 3 * field):
        silence = np.full(length, QUANTIZER.silence)
        assert np.array_equal(audio(model, Request(60, seed=3, prime=silence), name=name), unprimed)
    other = np.full(field, QUANTIZER.silence + 3)
    assert not np.array_equal(audio(model, Request(60, seed=3, prime=other), name=name), unprimed)


def test_a_short_prime_stands_behind_silence(random_model):
    model = random_model()
    prime = np.array([3, 14, 15], dtype=np.uint8)
    padded = np.concatenate([np.full(model.receptive_field - 3, QUANTIZER.silence), prime])
    short, long = (audio(model, Request(60, prime=heard)) for heard in (prime, padded))
    assert np.array_equal(short, long)
    engine = build_engine("reference", model)
    engine.start(padded[None].astype(np.int64))
    assert np.array_equal(short, engine.generate(uniforms(0, 0, 0, 60)[None], Truncation()))


def test_only_the_last_receptive_field_of_a_prime_counts(random_model):
    model = random_model()
    field = model.receptive_field
    long = np.random.default_rng(5).integers(0, 16, 5 * field).astype(np.uint8)
    assert np.array_equal(audio(model, Request(60, prime=long)), audio(model, Request(60, prime=long[-field:])))
    newer = long.copy()
    newer[-field] = (newer[-field] + 7) % 16
    logits = []
    for prime in (long, newer):
        engine = build_engine("torch", model)
        engine.start(prime[None].astype(np.int64))
        logits.append(engine.force(np.zeros((1, 1), dtype=np.int64)))
    assert not np.array_equal(*logits), "the oldest sample of the receptive field counts"


# --- streaming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_samples", "chunk", "lengths"), [(100, 40, [40, 40, 20]), (80, 40, [40, 40]), (1, 40, [1])])
def test_chunks_have_the_asked_lengths(random_model, n_samples, chunk, lengths):
    chunks = list(sampler_of(random_model()).stream_classes(Request(n_samples, count=2), chunk))
    assert [part.shape for part in chunks] == [(2, length) for length in lengths]


def test_an_endless_request_begins_like_a_finite_one(random_model):
    model = random_model()
    endless = sampler_of(model).stream_classes(Request(None, seed=6), chunk=30)
    begun = np.concatenate(list(islice(endless, 4)), axis=1)
    assert np.array_equal(begun, audio(model, Request(120, seed=6)))


def test_waveforms_are_the_decoded_classes(random_model):
    model = random_model()
    waveform = np.concatenate(list(sampler_of(model).stream(Request(90, count=2), chunk=25)), axis=1)
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, QUANTIZER.decode(audio(model, Request(90, count=2))))


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_torchs_engines_run_on_one_thread_and_their_listener_on_all(random_model, name):
    """A product's rounding can depend on the threads that share it."""
    model, seen = random_model(), set()
    model.head.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    for _ in sampler_of(model, name).stream_classes(Request(12, count=2), chunk=4):
        assert torch.get_num_threads() == 2
    assert seen == {1}


def test_the_threads_are_given_back_after_an_error(random_model):
    model = random_model()
    with torch.no_grad():
        model.output.bias.fill_(float("nan"))
    with pytest.raises(ModelError):
        audio(model, Request(10), name="torch")
    assert torch.get_num_threads() == 2
