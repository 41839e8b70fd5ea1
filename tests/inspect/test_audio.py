"""Audio files."""

import math

import numpy as np
import pytest
import soundfile

from inspections import RATE, inspected, sine, write
from wavegen.audio.quantize import Quantizer
from wavegen.errors import AudioError
from wavegen.inspect import inspect_path


def test_audio_level_of_a_known_sine(tmp_path):
    facts, text = inspected(write(tmp_path / "a.wav", sine(0.5, 2.0, 400.0)), "audio")
    level = facts["level"]
    assert level["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert level["rms_dbfs"] == pytest.approx(-9.03, abs=0.01)
    assert level["dc_offset"] == pytest.approx(0, abs=1e-4)
    assert level["clipped_samples"] == 0
    assert level["leading_silence_seconds"] == level["trailing_silence_seconds"] == 0
    assert (facts["rate_hz"], facts["channels"], facts["bits"], facts["encoding"]) == (RATE, 1, 16, "PCM_16")
    assert (facts["samples_per_channel"], facts["seconds"], facts["missing_seconds"]) == (32000, 2.0, 0.0)
    assert facts["file_bytes"] == (tmp_path / "a.wav").stat().st_size
    for shown in ("WAV 16 bit", "16,000 Hz", "2.0 s (32,000 samples)", "-6.0 dBFS", "-9.0 dBFS"):
        assert shown in text
    assert "missing" not in text


def test_audio_dc_offset_is_that_of_the_worst_channel(tmp_path):
    left = sine(0.2, 1.0, 400.0)
    facts, text = inspected(write(tmp_path / "a.wav", np.stack([left, left - 0.25], axis=1)), "audio")
    assert facts["level"]["dc_offset"] == pytest.approx(-0.25, abs=1e-4)
    assert "-0.2500 of full scale" in text


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "ULAW", "ALAW", "FLOAT", "PCM_32"])
def test_audio_clipping_is_found_in_every_encoding(tmp_path, subtype):
    loud = np.clip(sine(0.5, 1.0, 400.0), -0.45, 0.45)
    silent = write(tmp_path / "quiet.wav", loud, subtype=subtype)
    assert inspected(silent, "audio")[0]["level"]["clipped_samples"] == 0
    loud[100:103], loud[200:205] = 1.0, -1.0
    facts, _ = inspected(write(tmp_path / "a.wav", loud, subtype=subtype), "audio")
    assert facts["level"]["clipped_samples"] == 8
    assert facts["level"]["clipped_share"] == 8 / RATE


def test_audio_silence_at_both_ends(tmp_path):
    noise = np.random.default_rng(0).normal(0, 1e-5, RATE)
    waveform = np.concatenate([noise[:8000], sine(0.5, 1.0), noise[:4000]])
    facts, text = inspected(write(tmp_path / "a.flac", waveform, subtype="PCM_24"), "audio")
    assert facts["level"]["leading_silence_seconds"] == pytest.approx(0.5, abs=0.011)
    assert facts["level"]["trailing_silence_seconds"] == pytest.approx(0.25, abs=0.011)
    assert facts["level"]["silence_threshold_db"] == 60
    assert "silence at start  0.50 s" in text


def test_audio_of_digital_silence(tmp_path):
    facts, text = inspected(write(tmp_path / "a.wav", np.zeros(8000)), "audio")
    assert facts["level"]["peak_dbfs"] is None
    assert facts["level"]["rms_dbfs"] is None
    assert facts["level"]["leading_silence_seconds"] == 0.5
    assert facts["mu_law"]["signal_to_noise_db"] is None
    assert facts["mu_law"]["classes_used"] == 1
    assert "digital silence" in text


def test_audio_quantization_is_that_of_the_quantizer(tmp_path):
    # two channels whose mix is off the 16-bit grid now and then; more samples than one block of decoding
    rng = np.random.default_rng(1)
    envelope = np.abs(np.sin(np.arange(700_000) / 50_000))[:, None]
    path = write(tmp_path / "a.wav", rng.laplace(0, 0.05, (700_000, 2)).clip(-1, 1) * envelope)
    facts, text = inspected(path, "audio")
    mono = soundfile.read(path, dtype="float32")[0].mean(axis=1, dtype=np.float32)
    quantizer = Quantizer()
    classes = quantizer.encode(mono)
    error = mono - quantizer.decode(classes)
    ratio = 10 * math.log10(np.square(mono, dtype=float).sum() / np.square(error, dtype=float).sum())
    assert facts["mu_law"]["classes_used"] == len(np.unique(classes))
    assert facts["mu_law"]["signal_to_noise_db"] == pytest.approx(ratio, abs=1e-4)
    assert 30 < ratio < 40
    assert f"{len(np.unique(classes))} of 256" in text
    assert f"{ratio:.1f} dB" in text


def test_audio_reports_progress_in_samples(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(2**21 + 5))
    calls = []
    inspect_path(str(path), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2**21 + 5, 2**21 + 5)
    assert calls == sorted(calls)
    assert len(calls) > 1


def test_audio_shorter_than_a_piece_of_the_level(tmp_path):
    facts, _ = inspected(write(tmp_path / "a.wav", np.array([0.5])), "audio")
    assert facts["level"]["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert facts["level"]["rms_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert facts["level"]["leading_silence_seconds"] == facts["level"]["trailing_silence_seconds"] == 0


def test_audio_that_is_none_is_an_error(tmp_path):
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(AudioError, match=r"a\.wav: libsndfile cannot read it"):
        inspect_path(str(tmp_path / "a.wav"))
