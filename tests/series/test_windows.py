"""Windows on series: every position of every series once, with its past and the values ahead of it."""

import numpy as np
import pytest

from wavegen.errors import DataError
from wavegen.series.corpus import Normalization
from wavegen.series.scores import Targets
from wavegen.series.task import AlignedWindows, SeriesWindows


def series_of(lengths):
    """The first has the values 1000, 1001, ..., the second 2000, 2001, ..."""
    return [1000.0 * (i + 1) + np.arange(length) for i, length in enumerate(lengths)]


def windows(lengths, field, n_targets, before, seed, horizon):
    return SeriesWindows(series_of(lengths), Normalization(0.0, 1.0), field, n_targets, before, seed, Targets(horizon))


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize(
    ("lengths", "field", "n_targets"),
    [([9], 4, 7), ([20, 5, 11], 3, 4), ([4, 4, 30], 1, 100), ([17, 8], 12, 1), ([6] * 9, 4, 9)],
)
def test_every_position_is_visited_once_with_its_past_and_what_comes(lengths, field, n_targets, horizon):
    stream = windows(lengths, field, n_targets, float("nan"), seed=5, horizon=horizon)
    for epoch in (0, 1, 7):
        count = stream.windows_per_epoch
        batch = stream.batch(epoch * count, count)
        assert batch.inputs.dtype == batch.targets.dtype == np.float32
        assert batch.inputs.shape == (count, field - 1 + n_targets)
        assert batch.targets.shape == (count, n_targets, horizon)
        assert stream.n_targets(epoch * count, count) == batch.is_real.sum()
        visited = []
        for row, place in np.argwhere(batch.is_real):
            past = batch.inputs[row, place : place + field]
            newest = int(past[-1])
            begin = 1000 * (newest // 1000)  # of its series
            expected = np.arange(newest - field + 1, newest + 1)
            known = expected >= begin
            assert np.array_equal(past[known], expected[known])
            assert np.isnan(past[~known]).all()  # before a series there is nothing, not the series before
            assert np.array_equal(batch.targets[row, place], newest + 1 + np.arange(horizon))
            visited.append(newest)
        positions = [s[0] + p for s in series_of(lengths) for p in range(len(s) - horizon)]
        assert sorted(visited) == positions


def test_a_batch_of_series_does_not_depend_on_how_it_is_cut():
    stream = windows([30, 40], 5, 6, 0.0, seed=1, horizon=2)
    whole, part = stream.batch(3, 9), stream.batch(7, 2)
    assert np.array_equal(whole.inputs[4:6], part.inputs)
    assert np.array_equal(whole.targets[4:6], part.targets)
    assert np.array_equal(whole.is_real[4:6], part.is_real)


def test_series_that_are_too_short_for_the_horizon_are_none():
    with pytest.raises(DataError, match="expected at least one training clip"):
        windows([3, 2], 4, 4, 0.0, seed=0, horizon=3)


def test_a_windows_length_can_fit_a_series_and_its_padding():
    """As in the preset: of 60 points 50 are positions to forecast 10 from, behind a receptive field of 31."""
    stream = windows([60] * 8, 31, 81, float("nan"), seed=0, horizon=10)
    assert stream.windows_per_epoch == 8
    assert stream.n_targets(0, 8) == 8 * 50


@pytest.mark.parametrize(
    "targets", [Targets(2), Targets(2, only_last=True), Targets(2, positions=slice(3, None, 2))], ids=str
)
@pytest.mark.parametrize("n_targets", [20, 6])
def test_aligned_windows_begin_with_their_series(targets, n_targets):
    """Every position that counts is visited once in an epoch, in windows from the series' first value on."""
    lengths, field, horizon = [22, 9, 16], 4, 2
    plain = Normalization(0.0, 1.0)
    stream = AlignedWindows(series_of(lengths), plain, field, n_targets, 0.0, 5, targets)
    has_strides = targets.positions.step > 1
    expected = []
    for series in series_of(lengths):
        begins = range(0, len(series) - horizon, n_targets)
        if targets.only_last:
            begins = [max(0, len(series) - horizon - n_targets)]
        for begin in begins:
            window = range(begin, min(begin + n_targets, len(series) - horizon))
            expected += [series[position] for position in targets.of(window)]
    for epoch in (0, 3):
        count = stream.windows_per_epoch
        batch = stream.batch(epoch * count, count)
        assert stream.n_targets(epoch * count, count) == batch.is_real.sum()
        visited = []
        for row, place in np.argwhere(batch.is_real):
            at = place * 2 + 3 if has_strides else place + field - 1  # of its newest value
            newest = batch.inputs[row, at]
            begin = 1000 * (newest // 1000)
            past = np.maximum(newest - np.arange(field)[::-1], begin - 1)
            past[past < begin] = 0.0  # what stands before a series
            assert np.array_equal(batch.inputs[row, at - field + 1 : at + 1], past)
            assert np.array_equal(batch.targets[row, place], newest + 1 + np.arange(horizon))
            visited.append(newest)
        assert sorted(visited) == sorted(expected)
