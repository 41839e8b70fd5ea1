"""Properties of all inputs, tried on many: quantization, windows, configurations, queues, resampling, numbers."""

import itertools
import math
import os
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clips import numbered_clips
from recordings import resample
from wavegen.audio.quantize import Quantizer
from wavegen.cli.commands import _parse_temperatures
from wavegen.config import Config, override, parse_config
from wavegen.config.yaml_source import parse_yaml, write_yaml
from wavegen.data.windows import WindowStream
from wavegen.errors import UsageError
from wavegen.sampling.engines.torch_engines import TorchQueueEngine

LONG = os.environ.get("WAVEGEN_FAULTS") == "long"
tried = settings(
    max_examples=5000 if LONG else 60,
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
amplitudes = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50).map(lambda x: np.array(x, np.float32))
quantizers = st.builds(Quantizer, st.sampled_from(["mu_law", "linear"]), st.integers(2, 4096))


@tried
@given(quantizers, amplitudes)
def test_a_round_trip_stays_within_half_a_step(quantizer, waveform):
    classes = quantizer.encode(waveform)
    assert classes.max() < quantizer.classes
    edges, again = quantizer.edges(), quantizer.decode(classes)
    slack = 1e-6 + 4e-6 * np.abs(waveform)  # float32 companding
    assert (waveform >= edges[classes] - slack).all()
    assert (waveform <= edges[classes.astype(int) + 1] + slack).all()
    np.testing.assert_array_equal(quantizer.encode(again), classes)


@tried
@given(quantizers, amplitudes)
def test_louder_is_never_a_lower_class(quantizer, waveform):
    classes = quantizer.encode(np.sort(waveform)).astype(int)
    assert (np.diff(classes) >= 0).all()
    assert (np.diff(quantizer.decode(np.arange(quantizer.classes))) > 0).all()


@tried
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(0, 2**40),
    st.integers(0, 3),
)
def test_an_epoch_has_every_target_once(lengths, field, n_targets, seed, epoch):
    clips = numbered_clips(lengths)
    stream = WindowStream(clips, field, n_targets, -1, seed)
    batch = stream.batch(epoch * stream.windows_per_epoch, stream.windows_per_epoch)
    assert sorted(batch.targets[batch.is_real]) == list(range(sum(lengths)))
    assert stream.n_targets(epoch * stream.windows_per_epoch, stream.windows_per_epoch) == sum(lengths)


sections = st.fixed_dictionaries(
    {},
    optional={
        "audio": st.fixed_dictionaries({}, optional={"sample_rate_hz": st.integers(1000, 192000)}),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "folder": st.text(max_size=30),
                "validation": st.floats(0, 0.5) | st.text(max_size=9),
                "label_names": st.lists(st.text(max_size=9), min_size=1, max_size=4, unique=True),
            },
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "cycles": st.integers(1, 20),
                "dilation_cycle": st.integers(1, 20) | st.lists(st.integers(1, 1 << 20), min_size=1, max_size=9),
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(1, 10**9),
                "learning_rate": st.floats(0, 1, exclude_min=True),
                "gradient_clip": st.none() | st.floats(0, exclude_min=True, allow_nan=False),
                "seed": st.integers(0, 2**63 - 1),
                "batch_size": st.just("auto") | st.integers(1, 65536),
            },
        ),
    },
)


@tried
@given(sections)
def test_a_configuration_comes_back_from_its_yaml(tree):
    config = parse_config(write_yaml(tree), "it")
    text = config.to_yaml()
    again = parse_config(text, "it")
    assert again == config
    assert again.to_yaml() == text
    for section, values in tree.items():
        for key, value in values.items():
            assert getattr(getattr(again, section), key) == value


@tried
@given(st.text(max_size=40))
def test_any_text_is_a_value_or_an_error(text):
    for reads in (
        lambda: override(Config(), [f"data.folder={text}"]),
        lambda: parse_yaml(text),
    ):
        try:
            reads()
        except UsageError as error:
            assert error.exit_code == 2  # noqa: PT017


@tried
@given(st.floats())
def test_numbers_of_the_command_line(number):
    if 0 <= number < math.inf:
        assert _parse_temperatures(f"1,{number!r}") == [1.0, number]
    else:
        with pytest.raises(UsageError, match=r"^temperatures: expected numbers, 0 or more"):
            _parse_temperatures(f"1,{number!r}")


@tried
@given(st.integers(1, 3000), st.integers(100, 200_000), st.integers(1000, 192_000))
def test_resampling_keeps_the_length_in_seconds(n_samples, from_hz, to_hz):
    resampled = resample(np.ones(n_samples, np.float32), from_hz, to_hz)
    assert len(resampled) == -(-n_samples * to_hz // from_hz)
    assert resampled.dtype == np.float32
    assert np.isfinite(resampled).all()


@settings(tried, max_examples=500 if LONG else 15)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(2, 4),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(0, 1000),
)
def test_queues_remember_what_a_plain_list_does(random_model, dilations, kernel_size, chunks, seed):
    """An engine with its ring buffers, however it is fed, against the network on the plain list of all past classes."""
    torch.set_num_threads(1)
    model = random_model(seed=seed, dilations=dilations, kernel_size=kernel_size)
    field, rng = model.receptive_field, np.random.default_rng(seed)
    past, fed = rng.integers(0, 16, (1, field)), rng.integers(0, 16, (1, sum(chunks)))
    engine = TorchQueueEngine(model)
    engine.start(past)
    starts = np.cumsum([0, *chunks])
    found = np.concatenate([engine.force(fed[:, a:b]) for a, b in itertools.pairwise(starts)], axis=1)
    remembered = deque(past[0], maxlen=field)
    for t, new in enumerate(fed[0]):
        with torch.inference_mode():
            expected = model(torch.tensor([list(remembered)]))[0, -1].numpy()
        np.testing.assert_allclose(found[0, t], expected, atol=1e-4, rtol=1e-4)
        remembered.append(new)
