import numpy as np
import pytest
import torch
import torchaudio

from wavegen.audio.quantize import Quantizer

COUNTS = [2, 3, 16, 255, 256, 257, 1024, 4096]
QUANTIZERS = [*(("mu_law", classes) for classes in COUNTS), *(("linear", classes) for classes in (*COUNTS, 65536))]


@pytest.mark.parametrize("classes", COUNTS)
def test_mu_law_equals_torchaudio_class_for_class(classes):
    every_16_bit_value = np.arange(-32768, 32768, dtype=np.float32) / 32768
    rng = np.random.default_rng(0)
    loud = rng.uniform(-1, 1, 500_000).astype(np.float32)
    quiet = (rng.standard_normal(500_000) * 10.0 ** rng.uniform(-8, -1, 500_000)).astype(np.float32).clip(-1, 1)
    waveform = np.concatenate([every_16_bit_value, loud, quiet, np.float32([-1, -0.0, 0, 1])])

    expected = torchaudio.functional.mu_law_encoding(torch.from_numpy(waveform), classes).numpy()

    np.testing.assert_array_equal(Quantizer("mu_law", classes).encode(waveform), expected)


@pytest.mark.parametrize("classes", COUNTS)
def test_mu_law_decodes_as_torchaudio_does(classes):
    every_class = np.arange(classes)
    expected = torchaudio.functional.mu_law_decoding(torch.from_numpy(every_class), classes).numpy()
    np.testing.assert_allclose(Quantizer("mu_law", classes).decode(every_class), expected, atol=2e-6)


@pytest.mark.parametrize(("kind", "classes"), QUANTIZERS)
def test_every_class_survives_the_round_trip(kind, classes):
    quantizer = Quantizer(kind, classes)
    every_class = np.arange(classes)
    waveform = quantizer.decode(every_class)
    assert waveform.dtype == np.float32
    assert (np.diff(waveform) > 0).all()
    if kind == "mu_law":
        assert (waveform[0], waveform[-1]) == (-1, 1)
    else:
        assert waveform[quantizer.silence] == 0
    np.testing.assert_array_equal(quantizer.encode(waveform), every_class)


@pytest.mark.parametrize(("kind", "classes"), QUANTIZERS)
def test_edges_lie_where_the_class_changes(kind, classes):
    quantizer = Quantizer(kind, classes)
    edges = quantizer.edges()
    levels = quantizer.decode(np.arange(classes))
    assert len(edges) == classes + 1
    assert edges[0] == -np.inf
    assert edges[-1] == np.inf
    assert ((edges[:-1] < levels) & (levels < edges[1:])).all()
    # float32 companding rounds: close to an edge by less than a hundredth of a class either side may be right
    inner = edges[1:-1]
    widths = np.diff(np.concatenate([[-1.0], inner, [1.0]]))
    nudge = np.minimum(widths[:-1], widths[1:]) / 100 + 2e-7
    np.testing.assert_array_equal(quantizer.encode((inner - nudge).astype(np.float32)), np.arange(classes - 1))
    np.testing.assert_array_equal(quantizer.encode((inner + nudge).astype(np.float32)), np.arange(1, classes))


@pytest.mark.parametrize("classes", [*COUNTS, 65536])
def test_linear_error_is_at_most_half_a_step(classes):
    waveform = np.random.default_rng(1).uniform(-1, 1, 10_000).astype(np.float32)
    quantizer = Quantizer("linear", classes)
    inside = np.abs(waveform) < quantizer.decode(np.array([classes - 1]))
    error = np.abs(quantizer.decode(quantizer.encode(waveform)) - waveform)
    assert error[inside].max(initial=0) <= 1 / classes + 1e-6
    assert error.max() <= 2 / classes + 1e-6  # at full scale, as in a 16-bit file


def test_65536_linear_classes_are_the_integers_of_a_16_bit_file():
    quantizer = Quantizer("linear", 65536)
    integers = np.arange(-32768, 32768)
    waveform = (integers / 32768).astype(np.float32)
    np.testing.assert_array_equal(quantizer.encode(waveform), integers + 32768)
    np.testing.assert_array_equal(quantizer.decode(integers + 32768), waveform)
    assert quantizer.encode(np.float32([-2, 1, 2])).tolist() == [0, 65535, 65535]


@pytest.mark.parametrize(("kind", "classes"), QUANTIZERS)
def test_silence_is_the_class_of_zero(kind, classes):
    quantizer = Quantizer(kind, classes)
    assert quantizer.encode(np.zeros(3, np.float32)).tolist() == [quantizer.silence] * 3
    assert quantizer.encode(np.float32([-0.0])).tolist() == [quantizer.silence]


def test_louder_than_full_scale_is_clipped():
    quantizer = Quantizer("mu_law", 256)
    assert quantizer.encode(np.float32([-1e30, -1.5, 1.5, 1e30])).tolist() == [0, 0, 255, 255]


def test_classes_take_one_byte_up_to_256_and_two_above():
    silence = np.zeros((2, 5), np.float32)
    assert Quantizer("mu_law", 256).encode(silence).dtype == np.uint8
    assert Quantizer("mu_law", 257).encode(silence).dtype == np.uint16
    assert Quantizer("mu_law", 257).encode(silence).shape == (2, 5)
