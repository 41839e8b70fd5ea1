import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from recordings import prepare, resample
from wavegen.audio.mono import to_mono
from wavegen.audio.waveform import (
    FADE_SECONDS,
    PEAK_LEVEL,
    RMS_LEVEL,
    SILENCE_FRAME_SECONDS,
    Preparation,
    find_sound,
    load_waveform,
    open_audio,
)


def trim_silence(waveform, rate_hz, top_db):
    start, stop = find_sound(waveform, rate_hz, top_db)
    return waveform[start:stop]


def shorten_pauses(waveform, rate_hz, below_db, longest_seconds):
    """Prepare what begins and ends with a tone: nothing is cut off its ends."""
    return prepare(Preparation(rate_hz, trim_db=below_db, pause_seconds=longest_seconds), waveform)


def set_level(waveform, level, max_gain_db=None):
    return prepare(Preparation(RATE_HZ, level=level, max_gain_db=max_gain_db), waveform)


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
    trimmed = trim_silence(np.concatenate([silence, tone, silence, tone, silence]), 16000, 40)
    assert 3.0 <= len(trimmed) / 16000 < 3.04  # no onset behind more silence than a frame


@pytest.mark.parametrize("amplitude", [1e-5, 1.0, 1e30])
def test_trimming_does_not_depend_on_the_level(amplitude):
    waveform = np.concatenate([silence(1), tone(1), silence(1)])
    trimmed = trim_silence(waveform * np.float32(amplitude), RATE_HZ, 50)
    assert len(trimmed) == len(trim_silence(waveform, RATE_HZ, 50)) < 1.04 * RATE_HZ


@pytest.mark.parametrize("n_samples", [1, 100, 16000])
def test_trimming_keeps_silence_from_end_to_end(n_samples):
    assert len(trim_silence(np.zeros(n_samples, np.float32), 16000, 40)) == n_samples


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


def test_load_waveform_reports_what_happened(tmp_path):
    silence, tone = np.zeros(44100, np.float32), sine(440, 2.0, 44100, amplitude=0.25)
    whole = np.concatenate([silence, tone])
    soundfile.write(tmp_path / "a.wav", np.stack([whole, whole], axis=1), 44100, subtype="FLOAT")

    with open_audio(tmp_path / "a.wav", Preparation(16000, trim_db=40, level="peak")) as loaded:
        waveform = np.concatenate(list(loaded.clip.blocks()))

    assert loaded.source_seconds == pytest.approx(3.0)
    assert loaded.trimmed_seconds == pytest.approx(1.0, abs=0.1)
    assert len(waveform) / 16000 + loaded.trimmed_seconds == pytest.approx(3.0)
    assert len(waveform) == loaded.clip.n_samples
    assert loaded.clip.peak == pytest.approx(0.25, rel=0.02)
    assert np.abs(waveform).max() == pytest.approx(PEAK_LEVEL, rel=1e-4)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1


def test_load_waveform_without_trimming_keeps_every_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with open_audio(tmp_path / "a.wav", Preparation(16000)) as loaded:
        assert loaded.clip.n_samples == 16000
    assert loaded.trimmed_seconds == 0
    assert loaded.clip.peak == 0


# --- preparation --------------------------------------------------------------------------------------------------

RATE_HZ = 16000
ALL_STEPS = Preparation(RATE_HZ, remove_dc=True, trim_db=50.0, pause_seconds=1.0, level="peak", max_gain_db=30.0)


def silence(seconds):
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def hiss(seconds, rms):
    return (rms * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def tone(seconds, amplitude=0.5):
    return sine(440, seconds, RATE_HZ, amplitude)


def test_without_any_step_a_recording_stays_as_it_is():
    waveform = np.concatenate([silence(1), 0.3 + tone(0.5), silence(3), tone(0.5)])
    np.testing.assert_array_equal(prepare(Preparation(RATE_HZ), waveform), waveform)


def test_the_mean_is_removed():
    removed = prepare(Preparation(RATE_HZ, remove_dc=True), tone(1.0) + np.float32(0.2))
    assert removed.dtype == np.float32
    np.testing.assert_allclose(removed, tone(1.0), atol=1e-6)


def test_all_steps_are_done_in_their_order():
    """The offset is removed before silence is looked for, and the level is set last."""
    parts = [silence(2), tone(1, 0.02), silence(4), tone(1, 0.02), silence(2)]
    prepared = prepare(ALL_STEPS, np.concatenate(parts) + np.float32(0.3))
    assert len(prepared) / RATE_HZ == pytest.approx(3.0, abs=0.2)
    assert np.abs(prepared).max() == pytest.approx(0.02 * 10 ** (30 / 20), rel=0.01)
    assert prepared.mean() == pytest.approx(0, abs=1e-3)
    cut = prepare(replace(ALL_STEPS, level="keep"), np.concatenate(parts))
    np.testing.assert_array_equal(set_level(cut, "peak", 30.0), prepare(ALL_STEPS, np.concatenate(parts)))


@pytest.mark.parametrize(
    ("off", "seconds", "peak", "mean"),
    [
        ({"remove_dc": False}, 10.0, PEAK_LEVEL, 0.75),  # nothing is silent beside an offset
        ({"trim_db": None}, 10.0, PEAK_LEVEL, 0.0),
        ({"pause_seconds": None}, 6.0, PEAK_LEVEL, 0.0),
        ({"level": "keep"}, 3.0, 0.1, 0.0),
        ({"max_gain_db": 6.0}, 3.0, 0.2, 0.0),
        ({}, 3.0, PEAK_LEVEL, 0.0),
    ],
    ids=str,
)
def test_each_step_can_be_left_out(off, seconds, peak, mean):
    parts = [silence(2), tone(1, 0.1), silence(4), tone(1, 0.1), silence(2)]
    prepared = prepare(replace(ALL_STEPS, **off), np.concatenate(parts) + np.float32(0.3))
    assert len(prepared) / RATE_HZ == pytest.approx(seconds, abs=0.2)
    assert np.abs(prepared).max() == pytest.approx(peak, rel=0.02)
    assert prepared.mean() == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize("n_samples", [1, 2, 100, 319, 16000])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_recording_of_nothing_is_never_empty(n_samples, value):
    prepared = prepare(ALL_STEPS, np.full(n_samples, value, np.float32))
    assert 1 <= len(prepared) <= n_samples
    assert np.abs(prepared).max() < 1e-6


def test_a_long_pause_keeps_its_ends():
    """Of a pause of 3 s a second is left: nearly half of it from either end, with a cross-fade between."""
    noise = hiss(3, 1e-4)
    waveform = np.concatenate([tone(1), noise, tone(0.5)])
    shortened = shorten_pauses(waveform, RATE_HZ, 50.0, 1.0)
    assert len(shortened) == round(2.5 * RATE_HZ)
    half = (RATE_HZ - round(FADE_SECONDS * RATE_HZ)) // 2
    np.testing.assert_array_equal(shortened[: RATE_HZ + half], waveform[: RATE_HZ + half])
    np.testing.assert_array_equal(shortened[-RATE_HZ // 2 - half :], waveform[-RATE_HZ // 2 - half :])


@pytest.mark.parametrize("seconds", [0.995, 1.0, 1.005, 1.011, 1.5])
def test_no_clip_becomes_longer(seconds):
    waveform = np.concatenate([tone(1), silence(seconds), tone(1)])
    assert len(shorten_pauses(waveform, RATE_HZ, 50.0, 1.0)) <= len(waveform)


@pytest.mark.parametrize("seconds", [0.5, 0.98, 1.0])
def test_a_short_pause_stays(seconds):
    waveform = np.concatenate([tone(1), silence(seconds), tone(1)])
    np.testing.assert_array_equal(shorten_pauses(waveform, RATE_HZ, 50.0, 1.0), waveform)


def test_every_long_pause_is_shortened_and_quiet_sound_is_none():
    soft = tone(3, 0.5 * 10 ** (-45 / 20))  # 45 dB below
    waveform = np.concatenate([tone(1), silence(2), tone(1), soft, tone(1), silence(5), tone(1)])
    shortened = shorten_pauses(waveform, RATE_HZ, 50.0, 0.5)
    assert len(shortened) / RATE_HZ == pytest.approx(8.0, abs=2 * (FADE_SECONDS + SILENCE_FRAME_SECONDS))
    assert len(shorten_pauses(waveform, RATE_HZ, 40.0, 0.5)) < len(shortened) - 2 * RATE_HZ


def test_the_join_within_a_pause_is_smooth():
    """A slow wave below the threshold, which a plain cut would break, has no step where it was cut."""
    quiet = sine(3.3, 4.0, RATE_HZ, amplitude=1e-3)
    waveform = np.concatenate([tone(1), quiet, tone(1)])
    shortened = shorten_pauses(waveform, RATE_HZ, 50.0, 1.0)
    pause = shortened[RATE_HZ:-RATE_HZ]
    assert len(pause) < 1.1 * RATE_HZ
    slope = np.abs(np.diff(quiet)).max()
    fade = 2e-3 / (FADE_SECONDS * RATE_HZ)  # from one extreme to the other within the fade
    assert np.abs(np.diff(pause)).max() <= 1.01 * (slope + fade)


@pytest.mark.parametrize("n_samples", [1, 319])
def test_less_than_a_frame_has_no_pause(n_samples):
    waveform = np.zeros(n_samples, np.float32)
    assert len(shorten_pauses(waveform, RATE_HZ, 50.0, 1.0)) == n_samples


@pytest.mark.parametrize("level", ["peak", "rms"])
def test_the_gain_is_limited_upwards_only(level):
    quiet, loud = tone(1, 1e-3), tone(1, 4.0)
    assert np.abs(set_level(quiet, level, 20.0)).max() == pytest.approx(1e-2, rel=1e-3)
    np.testing.assert_array_equal(set_level(quiet, level, 0.0), quiet)
    np.testing.assert_array_equal(set_level(quiet, level, 120.0), set_level(quiet, level))
    np.testing.assert_array_equal(set_level(loud, level, 0.0), set_level(loud, level))


def test_unequal_preparations_have_unequal_texts():
    others = [
        {"sample_rate_hz": 8000},
        {"remove_dc": False},
        {"trim_db": None},
        {"trim_db": 40.0},
        {"pause_seconds": None},
        {"level": "rms"},
        {"max_gain_db": None},
    ]
    texts = {str(replace(ALL_STEPS, **other)) for other in others} | {str(ALL_STEPS)}
    assert len(texts) == 1 + len(others)


def test_load_waveform_prepares_and_reports_what_was_cut(tmp_path):
    whole = np.concatenate([silence(1), tone(1, 0.1), silence(4), tone(1, 0.1)])
    soundfile.write(tmp_path / "a.wav", whole, RATE_HZ, subtype="FLOAT")
    with open_audio(tmp_path / "a.wav", ALL_STEPS) as loaded:
        np.testing.assert_array_equal(load_waveform(tmp_path / "a.wav", ALL_STEPS), prepare(ALL_STEPS, whole))
    assert loaded.trimmed_seconds == pytest.approx(4.0, abs=0.1)
    assert loaded.clip.peak == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44100, 11127])
def test_nothing_depends_on_the_size_of_blocks(tmp_path, monkeypatch, rate_hz):
    """Not what is decoded at once, nor what is prepared at once."""
    rng = np.random.default_rng(0)
    sound = [sine(300, 1.3, rate_hz), np.zeros(3 * rate_hz), sine(500, 0.7, rate_hz, 0.2), np.zeros(rate_hz // 3)]
    whole = np.concatenate(sound) + 1e-4 * rng.standard_normal(sum(map(len, sound))) + 0.02
    soundfile.write(tmp_path / "a.wav", np.stack([whole, 0.5 * whole], axis=1), rate_hz, subtype="PCM_24")
    expected = load_waveform(tmp_path / "a.wav", ALL_STEPS)
    assert 2 * RATE_HZ < len(expected) < 4 * RATE_HZ
    for values, block in ((2**12, 1000), (2**16, 2**18), (999, 313)):
        monkeypatch.setattr("wavegen.audio.read.BLOCK_VALUES", values)
        monkeypatch.setattr("wavegen.audio.waveform.BLOCK", block)
        np.testing.assert_array_equal(load_waveform(tmp_path / "a.wav", ALL_STEPS), expected)
    monkeypatch.setattr("wavegen.audio.resample.PIECE", 5000)  # torch rounds sums of other lengths otherwise
    np.testing.assert_allclose(load_waveform(tmp_path / "a.wav", ALL_STEPS), expected, rtol=0, atol=3e-6)
