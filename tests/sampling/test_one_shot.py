"""One-shots end where their sound has faded, on sounds whose end is known."""

import numpy as np
import pytest

from wavegen.audio.levels import decibels
from wavegen.sampling.sampler import FADE_OUT_SECONDS, FADED_DB, FADED_STEPS, STEP_SECONDS, cut_one_shots, find_end

RATE_HZ = 8000


def decay(seconds, fall_db_per_second=60.0, amplitude=0.8, hz=500):
    """A sine that decays by a number of decibels a second."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * 10 ** (-fall_db_per_second * at / 20) * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def drone(seconds):
    return decay(seconds, 0.0)


def blocks(*clips, size=997):
    """The clips side by side, in parts as a sampler makes them."""
    together = np.stack(clips)
    for start in range(0, together.shape[1], size):
        yield together[:, start : start + size]


def level_db(clip):
    return float(decibels(clip.var(dtype=np.float64)))


@pytest.mark.parametrize("fall_db_per_second", [40.0, 80.0, 200.0])
def test_a_decaying_sine_ends_where_it_is_40_db_below(fall_db_per_second):
    sound = decay(3.0, fall_db_per_second)
    (cut,) = cut_one_shots(blocks(sound), RATE_HZ)
    expected = FADED_DB / fall_db_per_second
    assert expected - 0.05 <= len(cut) / RATE_HZ <= expected + 0.15
    last = level_db(cut[-800:]) - max(level_db(cut[start : start + 800]) for start in range(0, 1600, 160))
    assert last <= -FADED_DB + 0.1 * fall_db_per_second


def test_a_cut_clip_is_as_it_was_but_for_a_short_fade():
    sound = decay(3.0)
    (cut,) = cut_one_shots(blocks(sound), RATE_HZ)
    n = round(FADE_OUT_SECONDS * RATE_HZ)
    np.testing.assert_array_equal(cut[:-n], sound[: len(cut) - n])
    assert cut[-1] == 0
    assert (np.abs(cut[-n:]) <= np.abs(sound[len(cut) - n : len(cut)])).all()


def test_of_two_hits_the_first_is_left():
    second = round(0.6 * RATE_HZ)
    sound = decay(2.0)
    sound[second:] += decay(1.4)
    (cut,) = cut_one_shots(blocks(sound), RATE_HZ)
    assert 0.9 * second <= len(cut) <= second + STEP_SECONDS * RATE_HZ


def test_a_sound_without_an_end_keeps_its_length():
    (cut,) = cut_one_shots(blocks(drone(1.5)), RATE_HZ)
    np.testing.assert_array_equal(cut, drone(1.5))


def test_a_tremolo_is_one_sound():
    at = np.arange(2 * RATE_HZ) / RATE_HZ
    sound = drone(2.0) * (0.6 + 0.4 * np.sin(2 * np.pi * 5 * at)).astype(np.float32)  # 14 dB up and down
    (cut,) = cut_one_shots(blocks(sound), RATE_HZ)
    assert len(cut) == len(sound)


def test_a_clip_depends_on_neither_other_clips_nor_block_length():
    sounds = [decay(3.0), drone(3.0), decay(3.0, 100.0, hz=300)]
    together = cut_one_shots(blocks(*sounds), RATE_HZ)
    for sound, cut in zip(sounds, together, strict=True):
        for size in (160, 5000, 10**6):
            (alone,) = cut_one_shots(blocks(sound, size=size), RATE_HZ)
            np.testing.assert_array_equal(alone, cut)


def test_no_more_is_made_than_is_needed():
    taken = []

    def counted():
        for block in blocks(decay(60.0), decay(60.0, 100.0)):
            taken.append(block.shape[1])
            yield block

    cut_one_shots(counted(), RATE_HZ)
    assert sum(taken) < 2 * RATE_HZ


def test_silence_has_no_end():
    """There is no sound that could be over: the length asked for is what is given."""
    (cut,) = cut_one_shots(blocks(np.zeros(RATE_HZ, np.float32)), RATE_HZ)
    assert len(cut) == RATE_HZ


def test_clips_shorter_than_a_level_are_left():
    (cut,) = cut_one_shots(blocks(decay(0.05)), RATE_HZ)
    np.testing.assert_array_equal(cut, decay(0.05))


def test_a_sound_counts_as_over_after_a_while():
    loud, quiet = np.full(20, -10.0), np.full(FADED_STEPS + 5, -60.0)
    assert find_end(np.concatenate([loud, quiet[:FADED_STEPS]])) is None
    end = find_end(np.concatenate([loud, quiet]))
    assert 20 <= end <= 25
    assert find_end(np.concatenate([loud, quiet[:5], loud])) == 24, "the last quiet step"


def test_what_flickers_before_the_sound_is_no_sound():
    flicker, nothing, hit = np.full(10, -76.0), np.full(20, -100.0), np.linspace(-10, -90, 60)
    levels = np.concatenate([flicker, nothing, hit])
    assert find_end(levels[:31]) is None
    assert find_end(levels) > 45
