"""The linear forecast: the baseline that a model of series has to beat, fitted on the training series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.errors import DataError
from wavegen.series.files import Values

ROWS = 65536  # positions whose sums are taken at a time
TAPS = 50  # values that the linear forecast sees


@dataclass(frozen=True)
class LinearForecast:
    """The linear map that suits the training series best, by least squares.

        x[p + h] = b[h] + sum over i < k of w[i, h] x[p - i],   h = 1 ... horizon

    with a map of its own for each number k of values that a position has seen, up to ``TAPS``.

    Args:
        weights: (k + 1, horizon) for k = 1, 2, ...: w, the newest value's first, then b.
        center: subtracted from the values first; it changes no forecast, and spares digits.
    """

    weights: tuple[Values, ...]
    center: float

    def forecasts(self, values: Values) -> Values:
        """(T - horizon, horizon): the forecasts at every position of a series."""
        horizon = self.weights[0].shape[1]
        most = len(self.weights)
        known = values[: len(values) - horizon] - self.center
        starts = [_mapped(known[: k + 1][::-1], self.weights[k]) for k in range(min(most, len(known)))]
        rest = sliding_window_view(known, most)[1:, ::-1] if len(known) > most else np.empty((0, most))
        return np.concatenate([np.stack(starts), _mapped(rest, self.weights[-1])]) + self.center


def _mapped(seen: Values, weights: Values) -> Values:
    forecasts: Values = seen @ weights[:-1] + weights[-1]
    return forecasts


def fit_linear_forecast(series: Sequence[Values], horizon: int) -> LinearForecast:
    """Fit the linear forecast on the training series.

    The normal equations: for k values, the sums over all positions that have seen k or more.

    Args:
        series: (T,) each, T > horizon.
        horizon: values to forecast.

    Raises:
        DataError: there is no position to fit it on.
    """
    positions = max((len(values) - horizon for values in series), default=0)
    if positions < 1:
        raise DataError("baselines: expected training series to fit them on, found none long enough; check the split")
    most = min(TAPS, positions)
    center = sum(float(values.sum()) for values in series) / sum(map(len, series))
    gram, moments = _sums_by_length(series, horizon, most, center)
    weights = []
    for k in range(1, most + 1):
        columns = [*range(k), most]  # the newest k values, and the constant
        products, targets = gram[k - 1 :].sum(axis=0)[np.ix_(columns, columns)], moments[k - 1 :].sum(axis=0)[columns]
        weights.append(np.linalg.lstsq(products, targets, rcond=1e-12)[0])
    return LinearForecast(tuple(weights), center)


def _sums_by_length(series: Sequence[Values], horizon: int, most: int, center: float) -> tuple[Values, Values]:
    """For each number of values seen (the last: ``most`` or more), the sums of x x^T and of x y^T over positions.

    x holds the values seen, the newest first, zeros where there are none, and a 1; y the next ones.
    """
    gram = np.zeros((most, most + 1, most + 1))
    moments = np.zeros((most, most + 1, horizon))
    # the first positions of all series at a time: each is one row
    head = most - 1 + horizon
    heads = np.full((len(series), head), np.nan)
    for row, values in zip(heads, series, strict=True):
        row[: min(head, len(values))] = values[:head] - center
    for k in range(1, most):
        rows = heads[~np.isnan(heads[:, k + horizon - 1])]
        x = np.zeros((len(rows), most + 1))
        x[:, :k], x[:, most] = rows[:, :k][:, ::-1], 1.0
        gram[k - 1], moments[k - 1] = x.T @ x, x.T @ rows[:, k : k + horizon]
    for values in series:
        for begin in range(0, len(values) - horizon - most + 1, ROWS):
            piece = values[begin : begin + ROWS + most + horizon - 1] - center
            windows = sliding_window_view(piece, most + horizon)
            x = np.concatenate([windows[:, most - 1 :: -1], np.ones((len(windows), 1))], axis=1)
            gram[-1] += x.T @ x
            moments[-1] += x.T @ windows[:, most:]
    return gram, moments
