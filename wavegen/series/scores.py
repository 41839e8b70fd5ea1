"""Errors of forecasts: a model's and those of the baselines, the last value and a linear forecast, at every position.

Position p of a series x[0..T-1] has seen x[0..p] and forecasts x[p+1] ... x[p+horizon]; p goes from 0 to
T - 1 - horizon. Nothing is forecast before the first value. The baselines are scored where the model is.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.config import Config
from wavegen.errors import DataError
from wavegen.evaluation.scores import Comparison, compare
from wavegen.series.files import Values

ROWS = 65536  # positions whose sums are taken at a time
TAPS = 50  # values that the linear forecast sees


Rows = TypeVar("Rows", Values, range)


class Targets(NamedTuple):
    """The values of a series that are forecast, and how an error counts.

    Attributes:
        horizon: values that each position forecasts.
        error: squared or absolute.
        positions: those at which the network forecasts; with strides not every one.
        only_last: of these the last one alone is trained and scored.
    """

    horizon: int
    error: str = "squared"
    positions: slice = slice(0, None, 1)
    only_last: bool = False

    def of(self, rows: Rows) -> Rows:
        """Select among what each position of a series has, or among their numbers."""
        forecast: Rows = rows[self.positions]
        return forecast[-1:] if self.only_last else forecast

    def errors(self, forecasts: Values, truth: Values) -> Values:
        """Return the errors of forecasts, elementwise."""
        difference = forecasts - truth
        return np.square(difference) if self.error == "squared" else np.abs(difference)

    def ahead(self, values: Values) -> Values:
        """Return the next values of every position, (T - horizon, horizon)."""
        return sliding_window_view(values, self.horizon)[1:]


def build_targets(config: Config) -> Targets:
    """Return what a configuration's model forecasts."""
    output = config.output
    return Targets(output.horizon, output.error, config.model.positions, config.series.positions == "last")


class ScoredSeries(NamedTuple):
    """A series to score.

    Attributes:
        name: of the series.
        values: (T,).
        trained_on: whether the training saw it; None where that is not known.
    """

    name: str
    values: Values
    trained_on: bool | None = None


@dataclass(frozen=True)
class Errors:
    """Summed errors of the forecasts of some series.

    Args:
        n_positions: at which was forecast.
        by_horizon: (horizon,) sums over the positions.
        n_ends: series, of which each has a last position.
        at_end: (horizon,) the errors at the last position, summed over the series.
    """

    n_positions: int
    by_horizon: Values
    n_ends: int
    at_end: Values

    @classmethod
    def of(cls, errors: Values) -> Errors:
        """Sum up the errors of one series.

        Args:
            errors: (positions, horizon).
        """
        return cls(len(errors), errors.sum(axis=0), 1, errors[-1])

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.n_positions + other.n_positions,
            self.by_horizon + other.by_horizon,
            self.n_ends + other.n_ends,
            self.at_end + other.at_end,
        )

    def times(self, factor: float) -> Errors:
        """Return the errors in other units."""
        return Errors(self.n_positions, self.by_horizon * factor, self.n_ends, self.at_end * factor)

    @property
    def total(self) -> float:
        """The sum over positions of the mean over the horizon."""
        return float(self.by_horizon.mean())

    @property
    def mean(self) -> float:
        """Over all positions and horizons."""
        return self.total / self.n_positions

    def as_dict(self) -> dict[str, Any]:
        """Return the means, for ``--json``."""
        by_horizon = (self.by_horizon / self.n_positions).tolist()
        at_end = self.at_end / self.n_ends
        return {
            "error": self.mean,
            "error_at_end": float(at_end.mean()),
            "by_horizon": by_horizon,
            "next_value": by_horizon[0],
            "next_value_at_end": float(at_end[0]),
        }


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

        def mapped(seen: Values, weights: Values) -> Values:
            forecasts: Values = seen @ weights[:-1] + weights[-1]
            return forecasts

        starts = [mapped(known[: k + 1][::-1], self.weights[k]) for k in range(min(most, len(known)))]
        rest = sliding_window_view(known, most)[1:, ::-1] if len(known) > most else np.empty((0, most))
        return np.concatenate([np.stack(starts), mapped(rest, self.weights[-1])]) + self.center


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
    """Sum x x^T and x y^T over positions, for each number of values seen (the last: ``most`` or more).

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


def baseline_errors(linear: LinearForecast | None, values: Values, targets: Targets) -> dict[str, Errors]:
    """Return the errors of the trivial baselines on a series, in its units; the simplest first."""
    truth = targets.ahead(values)
    forecasts = {"last value": values[: len(truth), None]}
    if linear is not None:
        forecasts["linear"] = linear.forecasts(values)
    return {name: Errors.of(targets.of(targets.errors(each, truth))) for name, each in forecasts.items()}


@dataclass(frozen=True)
class SeriesScore:
    """The errors on a series, or on all of them together.

    Args:
        name: of the series.
        errors: the model's.
        baselines: those of each trivial baseline.
        trained_on: as ``ScoredSeries``.
    """

    name: str
    errors: Errors
    baselines: dict[str, Errors]
    trained_on: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for ``--json``."""
        return {
            "name": self.name,
            "positions": self.errors.n_positions,
            **self.errors.as_dict(),
            "baselines": {name: errors.as_dict() for name, errors in self.baselines.items()},
        }


def score_series(
    series: Sequence[ScoredSeries], errors: Sequence[Errors], linear: LinearForecast | None, targets: Targets
) -> list[SeriesScore]:
    """Compute the scores of a model and of the trivial baselines.

    Args:
        series: that were scored.
        errors: the model's on each.
        linear: as ``fit_linear_forecast``; None leaves it out.
        targets: of the model.
    """
    return [
        SeriesScore(each.name, own, baseline_errors(linear, each.values, targets), each.trained_on)
        for each, own in zip(series, errors, strict=True)
    ]


def all_series(scores: Sequence[SeriesScore]) -> SeriesScore:
    """Sum the scores of all series: every position counts the same.

    Raises:
        DataError: there is none.
    """
    if not scores:
        raise DataError("expected series to score, found none")
    summed = functools.partial(functools.reduce, operator.add)
    baselines = {name: summed(each.baselines[name] for each in scores) for name in scores[0].baselines}
    return SeriesScore("all", summed(each.errors for each in scores), baselines)


def comparison(scores: Sequence[SeriesScore]) -> Comparison:
    """Return the mean error of all series, over positions and horizons, with 95% intervals over series."""
    return compare(
        [score.errors.total for score in scores],
        {name: [score.baselines[name].total for score in scores] for name in scores[0].baselines},
        [score.errors.n_positions for score in scores],
    )
