import math

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from wavegen.audio.signal import (
    PEAK_LEVEL,
    RMS_LEVEL,
    load_waveform,
    resample,
    set_level,
    to_mono,
    trim_silence,
)


def sine(frequency_hz, seconds, rate_hz, amplitude=0.5):
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def test_mono_is_the_mean_of_the_channels():
    frames = np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)
    np.testing.assert_allclose(to_mono(frames), frames.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(to_mono(frames[:, :1]), frames[:, 0])


RATES = [
    *[(44100, 16000), (48000, 22050), (192000, 8000), (22050, 16000), (8000, 44100), (11025, 16000), (96000, 44100)],
    *[(11127, 16000), (44099, 16000), (16000, 44101), (22255, 16000)],  # nearly or quite without a common divisor
]


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_a_resampled_sine_keeps_frequency_level_and_length(from_hz, to_hz):
    waveform = sine(1000, 2.0, from_hz)
    resampled = resample(waveform, from_hz, to_hz)

    assert resampled.dtype == np.float32
    assert len(resampled) == math.ceil(len(waveform) * to_hz / from_hz)
    middle = slice(to_hz // 2, 3 * to_hz // 2)  # away from the ends, where the filter sees the silence beyond
    np.testing.assert_allclose(resampled[middle], sine(1000, 2.0, to_hz)[: len(resampled)][middle], atol=1e-3)


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in RATES if pair[0] > 1.2 * pair[1]])
def test_nothing_above_half_the_new_rate_is_folded_back(from_hz, to_hz):
    resampled = resample(sine(0.55 * to_hz, 1.0, from_hz), from_hz, to_hz)
    assert np.abs(resampled[to_hz // 4 : 3 * to_hz // 4]).max() < 0.01


def test_resampling_is_torchaudios():
    waveform = np.random.default_rng(0).uniform(-1, 1, 44100).astype(np.float32)
    expected = torchaudio.functional.resample(
        torch.from_numpy(waveform),
        44100,
        16000,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    ).numpy()
    np.testing.assert_allclose(resample(waveform, 44100, 16000), expected, atol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 100])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 16000), (8000, 16000), (11127, 16000), (1, 16000)])
def test_very_short_waveforms_keep_their_length(n_samples, from_hz, to_hz):
    resampled = resample(np.full(n_samples, 0.1, np.float32), from_hz, to_hz)
    assert len(resampled) == math.ceil(n_samples * to_hz / from_hz)
    assert np.isfinite(resampled).all()


def test_the_same_rate_changes_nothing():
    waveform = np.float32([0.1, -0.2])
    np.testing.assert_array_equal(resample(waveform, 16000, 16000), waveform)


def test_trimming_cuts_the_ends_and_not_the_middle():
    silence, tone = np.zeros(16000, np.float32), sine(440, 1.0, 16000)
    trimmed = trim_silence(np.concatenate([silence, tone, silence, tone, silence]), 40)
    assert 3.0 <= len(trimmed) / 16000 < 3.3  # in steps of 512 samples


@pytest.mark.parametrize("n_samples", [1, 100, 16000])
def test_trimming_keeps_silence_from_end_to_end(n_samples):
    assert len(trim_silence(np.zeros(n_samples, np.float32), 40)) == n_samples


def test_levels():
    quiet = sine(440, 1.0, 16000, amplitude=0.01)
    np.testing.assert_array_equal(set_level(quiet, "keep"), quiet)
    assert np.abs(set_level(quiet, "peak")).max() == pytest.approx(PEAK_LEVEL, rel=1e-4)
    assert np.sqrt(np.mean(set_level(quiet, "rms") ** 2)) == pytest.approx(RMS_LEVEL, rel=1e-4)
    assert set_level(quiet, "rms").dtype == np.float32


def test_rms_does_not_clip_a_click():
    click = np.zeros(16000, np.float32)
    click[100] = 0.001
    assert np.abs(set_level(click, "rms")).max() == pytest.approx(1.0)


@pytest.mark.parametrize("level", ["keep", "peak", "rms"])
@pytest.mark.parametrize("amplitude", [0.0, 1e-42])
def test_silence_stays_silence(level, amplitude):
    assert np.abs(set_level(np.full(100, amplitude, np.float32), level)).max() < 1e-6


def test_load_waveform_says_what_happened(tmp_path):
    silence, tone = np.zeros(44100, np.float32), sine(440, 2.0, 44100, amplitude=0.25)
    whole = np.concatenate([silence, tone])
    soundfile.write(tmp_path / "a.wav", np.stack([whole, whole], axis=1), 44100, subtype="FLOAT")

    loaded = load_waveform(tmp_path / "a.wav", sample_rate_hz=16000, trim_db=40, level="peak")

    assert loaded.source_seconds == pytest.approx(3.0)
    assert loaded.missing_seconds == 0
    assert loaded.trimmed_seconds == pytest.approx(1.0, abs=0.1)
    assert len(loaded.waveform) / 16000 + loaded.trimmed_seconds == pytest.approx(3.0)
    assert loaded.peak == pytest.approx(0.25, rel=0.02)
    assert np.abs(loaded.waveform).max() == pytest.approx(PEAK_LEVEL, rel=1e-4)
    assert loaded.waveform.dtype == np.float32
    assert loaded.waveform.ndim == 1


def test_load_waveform_without_trimming_keeps_every_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    loaded = load_waveform(tmp_path / "a.wav", sample_rate_hz=16000, trim_db=None, level="keep")
    assert len(loaded.waveform) == 16000
    assert loaded.trimmed_seconds == 0
    assert loaded.peak == 0
