"""The levels of frames, and the profile of recordings, on signals whose levels are known."""

import json

import numpy as np
import pytest

from wavegen.audio.levels import (
    FLOOR_DB,
    Frames,
    RecordingProfile,
    Sound,
    decibels,
    frame_size,
    typical_event_seconds,
)

RATE_HZ = 8000


def tone(seconds, level_db=-20.0, hz=400):
    amplitude = np.sqrt(2) * 10 ** (level_db / 20)
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def test_levels_are_without_the_mean_and_silence_has_one():
    frames = Frames.of(np.stack([tone(0.35), 0.5 + tone(0.35, -40.0), np.full(2800, 0.7, np.float32)]), RATE_HZ)
    assert len(frames) == 3
    np.testing.assert_allclose(frames.level_db, [[-20.0] * 3, [-40.0] * 3, [-100.0] * 3], atol=0.01)
    assert decibels(0.0) == -100


def test_a_frame_has_some_samples_at_any_rate():
    assert frame_size(RATE_HZ) == 800
    assert frame_size(100) == 64
    assert len(Frames.of(np.zeros(63, np.float32), 100)) == 0


def test_frames_are_joined_and_parted():
    waveform = np.concatenate([tone(0.5), tone(0.5, -30.0, 1000)])
    whole = Frames.of(waveform, RATE_HZ)
    joined = Frames.joined([Frames.of(waveform[:2400], RATE_HZ), Frames.of(waveform[2400:], RATE_HZ)])
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(whole[2:5], name), getattr(whole, name)[2:5])


def test_the_figures_of_a_sound():
    frames = Frames.of(np.concatenate([tone(7.5), silence(2.5)]), RATE_HZ)
    quantiles = np.full(41, -30.0)
    sound = Sound.of(frames, quantiles)
    assert sound.loud_db == pytest.approx(-20, abs=0.01)
    assert sound.silent_share == 0.25
    assert sound.centroid_hz == pytest.approx(400, rel=0.02)
    assert sound.distance_db == pytest.approx(0.75 * 10 + 0.25 * (-30 - FLOOR_DB), rel=0.05)  # in 41 quantiles


def test_the_profile_of_recordings():
    clips = [np.concatenate([tone(2.0), silence(1.0)]), tone(6.0, -30.0, 1000), np.concatenate([silence(2), tone(3)])]
    profile = RecordingProfile.of(clips, RATE_HZ)
    assert profile.clip_seconds == [3.0, 5.0, 6.0]
    assert profile.whole.loud_db == pytest.approx(-20, abs=0.1)
    assert profile.whole.silent_share == pytest.approx(3 / 14, abs=0.01)
    assert profile.whole.distance_db == pytest.approx(0, abs=0.1)
    for name in vars(profile.whole):
        assert getattr(profile.lowest, name) <= getattr(profile.highest, name)
    assert profile.level_quantiles == sorted(profile.level_quantiles)
    assert profile.level_quantiles[0] == FLOOR_DB


def test_windows_begin_where_clips_begin():
    decays = [np.concatenate([tone(1.0), tone(20.0, -60.0)])] * 10
    assert RecordingProfile.of(decays, RATE_HZ).lowest.loud_db == pytest.approx(-20, abs=0.1)
    assert RecordingProfile.of(decays[:9], RATE_HZ).lowest.loud_db == pytest.approx(-60, abs=0.1), "few: from anywhere"


def test_a_profile_survives_json():
    profile = RecordingProfile.of([tone(6.0), silence(1.0)], RATE_HZ)
    assert RecordingProfile.from_dict(json.loads(json.dumps(profile.as_dict(), allow_nan=False))) == profile


@pytest.mark.parametrize("clips", [[silence(0.3)], [tone(0.1)], [tone(0.15), silence(0.05)], [silence(20)]])
def test_short_and_silent_recordings_have_a_profile(clips):
    profile = RecordingProfile.of(clips, RATE_HZ)
    figures = [value for sound in (profile.whole, profile.lowest, profile.highest) for value in vars(sound).values()]
    assert np.isfinite([*figures, *profile.clip_seconds, *profile.level_quantiles]).all()


@pytest.mark.parametrize("clips", [[], [silence(0.05)], [silence(0.0), tone(0.09)]])
def test_without_a_whole_frame_there_is_no_profile(clips):
    assert RecordingProfile.of(clips, RATE_HZ) is None


def levels_of(*parts):
    return Frames.of(np.concatenate(parts), RATE_HZ).level_db


def test_events_go_from_one_onset_to_the_next():
    decay = np.concatenate([tone(0.5, level) for level in range(-20, -60, -4)])  # 5 s
    syllables = np.concatenate([part for _ in range(10) for part in (tone(0.3), tone(0.2, -50.0))])
    assert typical_event_seconds([levels_of(decay), levels_of(decay)]) == pytest.approx(5.0)
    assert typical_event_seconds([levels_of(syllables), np.zeros(0)]) == pytest.approx(0.5)
    assert typical_event_seconds([levels_of(decay, decay, syllables)]) == pytest.approx(5.0), "most of the time"


def test_where_nothing_begins_there_is_no_event():
    assert typical_event_seconds([]) is None
    assert typical_event_seconds([np.zeros(0)]) is None
    assert typical_event_seconds([levels_of(silence(3))]) is None


def test_a_label_has_a_profile_of_its_own():
    profile = RecordingProfile.of([tone(6.0)], RATE_HZ)
    profile.labels["quiet"] = RecordingProfile.of([tone(6.0, -50.0)], RATE_HZ)
    read = RecordingProfile.from_dict(json.loads(json.dumps(profile.as_dict())))
    assert read == profile
    assert read.of_label("quiet").whole.loud_db == pytest.approx(-50, abs=0.1)
    assert read.of_label("unknown") is read
    assert read.of_label(None) is read


def test_frames_of_long_recordings_are_measured_in_parts(monkeypatch):
    waveforms = np.random.default_rng(0).standard_normal((2, 16_000 * 2)).astype(np.float32)
    whole = Frames.of(waveforms, 16_000)
    monkeypatch.setattr("wavegen.audio.levels.MOST_FRAMES", 7)
    parts = Frames.of(waveforms, 16_000)
    assert len(whole) == len(parts) == 20
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(parts, name), values, err_msg=name)
