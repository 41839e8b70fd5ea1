"""Sample statistics rank what is known to sound worse: real recordings that were damaged, a little and more."""

import functools
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.signal import butter, sosfiltfilt

from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.evaluation.sample_statistics import (
    Moments,
    RecordingStatistics,
    band_powers,
    frechet_distance,
    in_pieces,
    loudness_features,
    spread,
)

RATE_HZ = 16000
DATA = Path(__file__).parents[1] / "data"
PREPARED = Preparation(RATE_HZ, remove_dc=True, trim_db=50, level="peak")


@functools.cache
def recordings(name):
    return [load_waveform(path, PREPARED) for path in sorted((DATA / name).glob("*.flac"))]


@functools.cache
def statistics(name):
    return RecordingStatistics(recordings(name), RATE_HZ)


# --- damage ------------------------------------------------------------------------------------------------------


def low_pass(clip, hz, rng):
    return sosfiltfilt(butter(8, hz, fs=RATE_HZ, output="sos"), np.pad(clip, 50))[50:-50].astype(np.float32)


def noise(clip, db, rng):
    return clip + np.float32(10 ** (db / 20)) * rng.standard_normal(len(clip)).astype(np.float32)


def silence(clip, share, rng):
    at = rng.integers(len(clip) + 1)
    return np.insert(clip, at, np.zeros(int(len(clip) * share / (1 - share)), np.float32))


def shuffled(clip, ms, rng):
    size = RATE_HZ * ms // 1000
    parts = [clip[i : i + size] for i in range(0, len(clip), size)]
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))])


def quieter(clip, db, rng):
    return clip * np.float32(10 ** (-db / 20))


DAMAGE = [
    ("speech", low_pass, [6000, 3000, 1500]),
    ("speech", noise, [-40, -30, -20]),
    ("speech", silence, [0.1, 0.3, 0.6]),
    ("speech", shuffled, [250, 64, 20]),
    ("speech", quieter, [3, 6, 12]),
    ("drums", low_pass, [3000, 1500]),
    ("drums", noise, [-30, -20]),
    ("drums", silence, [0.6]),
    ("drums", shuffled, [64, 20]),
    ("drums", quieter, [6, 12, 24]),
    ("piano", noise, [-40, -30, -20]),
    ("piano", silence, [0.6]),
    ("piano", shuffled, [250, 64]),
    ("piano", quieter, [6, 12, 24]),
]
FAST = [("speech", noise), ("drums", shuffled), ("piano", quieter)]


@pytest.mark.parametrize(
    ("name", "damage", "amounts"),
    [
        pytest.param(*row, marks=() if row[:2] in FAST else pytest.mark.slow, id=f"{row[0]}-{row[1].__name__}")
        for row in DAMAGE
    ],
)
def test_more_damage_has_a_higher_score_in_nearly_all_bootstrap_repeats(name, damage, amounts):
    measured = statistics(name)
    pieces = in_pieces(recordings(name), RATE_HZ)[1::2]  # the half that is not the reference

    def moments(clips):
        return [Moments.of(loudness_features(band_powers(clip, RATE_HZ), measured.reference_power)) for clip in clips]

    rng = np.random.default_rng(1)
    steps = [moments(pieces), *(moments([damage(clip, much, rng) for clip in pieces]) for much in amounts)]
    draws = [rng.integers(0, len(pieces), len(pieces)) for _ in range(100)]
    scores = np.array([[measured.score([step[i] for i in draw]) for step in steps] for draw in draws])
    assert (np.diff(scores, axis=1) > 0).mean(axis=0).min() >= 0.95


@pytest.mark.parametrize("name", ["speech", "drums", "piano"])
def test_impostors_score_far_worse_than_other_recordings(name):
    figures = statistics(name).references()
    recorded = figures.pop("recordings")
    assert all(impostor.score > 2 * recorded.score for impostor in figures.values())


def test_the_recordings_themselves_have_no_distance():
    figures = statistics("speech").figures(in_pieces(recordings("speech"), RATE_HZ)[0::2])
    assert figures.score == pytest.approx(0, abs=1e-6)
    assert figures.level_distance_db == pytest.approx(0, abs=1e-9)


# --- figures -----------------------------------------------------------------------------------------------------


def test_frechet_distance_is_that_of_gaussians():
    rng = np.random.default_rng(2)
    one, other = (rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)) + i for i in (0, 1))
    means, covariances = [x.mean(axis=0) for x in (one, other)], [np.cov(x.T, bias=True) for x in (one, other)]
    expected = np.square(means[0] - means[1]).sum() + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    found = frechet_distance(Moments.of(one), Moments.sum([Moments.of(other[:200]), Moments.of(other[200:])]))
    assert found == pytest.approx(expected, rel=1e-6)


def test_band_powers_add_up_to_a_sines_power():
    seconds = np.arange(RATE_HZ) / RATE_HZ
    powers = band_powers(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), RATE_HZ)
    assert np.median(powers.sum(axis=1)) == pytest.approx(0.5, rel=0.1)
    assert powers.shape == (98, 40)


def test_figures_of_a_clip_whose_sound_begins_late():
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    measured = RecordingStatistics([tone] * 4, RATE_HZ)
    figures = measured.figures([np.concatenate([np.zeros(2 * RATE_HZ, np.float32), tone / 2])])
    assert figures.first_sound_seconds == pytest.approx(2.0)
    assert figures.silent_share == pytest.approx(2 / 3)
    assert figures.half_silent == 1
    assert figures.loud_db == pytest.approx(measured.loud_db - 6.02, abs=0.1)
    assert figures.centroid_hz == pytest.approx(500, rel=0.05)
    assert figures.interval is None
    assert measured.figures([np.zeros(RATE_HZ, np.float32)]).first_sound_seconds == np.inf


def test_long_clips_are_compared_at_both_ends():
    measured, clips = statistics("speech"), recordings("speech")
    clip = np.concatenate([np.resize(np.concatenate(clips), 12 * RATE_HZ), 0.1 * np.ones(12 * RATE_HZ)])
    first, last = measured.figures_of_ends([clip.astype(np.float32)] * 2).values()
    assert (first.n_clips, first.seconds, last.seconds) == (2, 20, 20)
    assert first.score < last.score / 4
    assert measured.figures_of_ends([clip, clip[: 19 * RATE_HZ]]) == {}


def test_intervals_hold_the_score_and_shrink_with_more_clips():
    clips = in_pieces(recordings("speech"), RATE_HZ)[1::2]
    few, many = (statistics("speech").figures(clips[:n]) for n in (8, len(clips)))
    for each in (few, many):
        assert each.interval[0] < each.score < each.interval[1]
    assert few.interval[1] - few.interval[0] > many.interval[1] - many.interval[0] > 0


def test_pieces_are_spread_evenly():
    assert spread([5, 12, 1], 5) == [(0, 0, 5), (1, 0, 5), (1, 5, 10), (1, 10, 12), (2, 0, 1)]
    chosen = spread([1] * 1000, 5, most=10)
    assert [clip for clip, _, _ in chosen] == list(range(0, 1000, 100))


def test_one_piece_is_too_little_to_compare_with():
    with pytest.raises(ValueError, match="expected two or more pieces of recordings, found 1"):
        RecordingStatistics([np.ones(100, np.float32)], RATE_HZ)
