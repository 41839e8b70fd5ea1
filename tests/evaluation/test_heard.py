import numpy as np
import pytest

from wavegen.evaluation.sample_statistics import measure_heard

RATE_HZ = 16000
LOUD_DB = -10.0


def tone(hz, seconds=1.0):
    """A sawtooth of ten partials: something with a pitch."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return sum(0.2 / k * np.sin(2 * np.pi * k * hz * time) for k in range(1, 11)).astype(np.float32)


def hiss(seconds, level=0.1):
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def test_pitch_and_voiced_share_of_tones():
    heard = measure_heard([tone(110, 4), tone(220, 6)], RATE_HZ, LOUD_DB)
    assert heard.pitch_hz.value == pytest.approx(220, rel=0.03)
    assert heard.pitch_hz.interval[0] == pytest.approx(110, rel=0.03)
    assert heard.voiced.value > 0.9
    noisy = measure_heard([np.concatenate([tone(220, 2), hiss(6)])], RATE_HZ, LOUD_DB)
    assert noisy.voiced.value == pytest.approx(0.25, abs=0.1)


def test_noise_has_no_pitch():
    heard = measure_heard([hiss(5)] * 3, RATE_HZ, LOUD_DB)
    assert heard.voiced.value < 0.1
    assert measure_heard([silence(1)], RATE_HZ, LOUD_DB).pitch_hz is None


def test_onsets_are_those_of_hits():
    decay = np.exp(-np.arange(8000) / 800)
    hits = [np.concatenate([silence(0.3), np.tile(hiss(0.5, 0.3) * decay, n)]).astype(np.float32) for n in (6, 10)]
    for n, clip in zip((6, 10), hits, strict=True):
        onsets = measure_heard([clip], RATE_HZ, LOUD_DB).onsets.value
        assert onsets * len(clip) / RATE_HZ == pytest.approx(n, abs=1)


def test_pauses_lie_between_sounds_and_last():
    clip = np.concatenate([silence(1), tone(200), silence(0.5), tone(200), silence(0.05), tone(200), silence(1)])
    seconds = len(clip) / RATE_HZ
    assert measure_heard([clip], RATE_HZ, LOUD_DB).pauses.value == pytest.approx(10 / seconds)


def test_intervals_hold_the_figure_and_shrink_with_more_clips():
    def clips(n):
        rng = np.random.default_rng(3)
        return [np.concatenate([tone(rng.uniform(150, 250)), hiss(rng.uniform(0.2, 2))]) for _ in range(n)]

    few, many = (measure_heard(clips(n), RATE_HZ, LOUD_DB).voiced for n in (3, 20))
    for each in (few, many):
        assert each.interval[0] <= each.value <= each.interval[1]
    assert np.ptp(many.interval) < np.ptp(few.interval)


@pytest.mark.parametrize("n_samples", [1, 100, 1600])
def test_clips_shorter_than_a_frame_are_measured(n_samples):
    heard = measure_heard([hiss(1)[:n_samples]], RATE_HZ, LOUD_DB)
    assert heard.pauses.value == 0
