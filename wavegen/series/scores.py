"""Errors of forecasts: a model's and those of the trivial baselines, at every position.

Position p of a series x[0..T-1] has seen x[0..p] and forecasts x[p+1] ... x[p+horizon]; p goes from 0 to
T - 1 - horizon. Nothing is forecast before the first value.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.errors import DataError
from wavegen.evaluation.interval import Comparison, compare
from wavegen.series.baselines import LinearForecast
from wavegen.series.files import Values

if TYPE_CHECKING:
    from torch import Tensor

    from wavegen.model.network import Network

ROWS = 65536  # positions, with their context, that a network sees at a time


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
        first_at_end: the error of the next value at the last position, summed over the series.
    """

    n_positions: int
    by_horizon: Values
    n_ends: int
    first_at_end: float

    @classmethod
    def of(cls, errors: Values) -> Errors:
        """Sum up the errors of one series.

        Args:
            errors: (positions, horizon).
        """
        return cls(len(errors), errors.sum(axis=0), 1, float(errors[-1, 0]))

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.n_positions + other.n_positions,
            self.by_horizon + other.by_horizon,
            self.n_ends + other.n_ends,
            self.first_at_end + other.first_at_end,
        )

    def times(self, factor: float) -> Errors:
        """Return the errors in other units."""
        return Errors(self.n_positions, self.by_horizon * factor, self.n_ends, self.first_at_end * factor)

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
        return {
            "error": self.mean,
            "by_horizon": by_horizon,
            "next_value": by_horizon[0],
            "next_value_at_end": self.first_at_end / self.n_ends,
        }


def errors_of(forecasts: Values, truth: Values, kind: str) -> Values:
    """Return squared or absolute errors, elementwise."""
    difference = forecasts - truth
    return np.square(difference) if kind == "squared" else np.abs(difference)


def ahead(values: Values, horizon: int) -> Values:
    """Return the next values of every position, (T - horizon, horizon)."""
    return sliding_window_view(values, horizon)[1:]


def model_errors(
    network: Network,
    series: Sequence[npt.NDArray[np.float32]],
    horizon: int,
    kind: str,
    scored: Callable[[int], None] | None = None,
) -> list[Errors]:
    """Compute the errors of a network's forecasts.

    Args:
        network: in the precision to score in.
        series: (T,) each, as the network sees them.
        horizon: of the network.
        kind: squared or absolute.
        scored: called with the number of positions after each part.

    Returns:
        Each series's errors, in the network's units.
    """
    by_series: list[Errors | None] = [None] * len(series)
    for group in _alike(series, network.receptive_field):
        together = np.stack([series[i] for i in group])
        parts = []
        for part in _forecasts(network, together[:, : together.shape[1] - horizon]):
            parts.append(part)
            if scored:
                scored(part.shape[0] * part.shape[1])
        forecasts = np.concatenate(parts, axis=1).astype(np.float64)
        for i, forecast in zip(group, forecasts, strict=True):
            by_series[i] = Errors.of(errors_of(forecast, ahead(series[i].astype(np.float64), horizon), kind))
    return [errors for errors in by_series if errors is not None]


def _alike(series: Sequence[npt.NDArray[np.float32]], context: int) -> Iterator[list[int]]:
    """Yield the indices of series of the same length, as many as fit into one batch."""
    order = sorted(range(len(series)), key=lambda i: len(series[i]))
    for length, same in groupby(order, key=lambda i: len(series[i])):
        group, size = list(same), max(1, ROWS // (length + context))
        for first in range(0, len(group), size):
            yield group[first : first + size]


def _forecasts(network: Network, values: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Compute a network's forecasts at every position of some series, a stretch of positions at a time.

    Args:
        network: on its device.
        values: (B, T).

    Yields:
        (B, n, horizon).
    """
    import torch

    device, field = next(network.parameters()).device, network.receptive_field
    before = np.full((len(values), field - 1), network.before_series, dtype=np.float32)
    inputs = torch.from_numpy(np.concatenate([before, values], axis=1)).to(device)
    stretch = max(1, ROWS // len(values))
    state = None
    network.eval()
    with torch.no_grad():
        for begin in range(0, values.shape[1], stretch):
            end = min(begin + stretch, values.shape[1])
            first = 0 if state is None else begin + field - 1
            forecasts, state = network.advance(inputs[:, first : end + field - 1], state)
            yield _array(forecasts)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def baseline_errors(linear: LinearForecast | None, values: Values, horizon: int, kind: str) -> dict[str, Errors]:
    """Return the errors of the trivial baselines on a series, in its units; the simplest first."""
    truth = ahead(values, horizon)
    forecasts = {"last value": values[: len(truth), None]}
    if linear is not None:
        forecasts["linear"] = linear.forecasts(values)
    return {name: Errors.of(errors_of(forecast, truth, kind)) for name, forecast in forecasts.items()}


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
    series: Sequence[ScoredSeries], errors: Sequence[Errors], linear: LinearForecast | None, horizon: int, kind: str
) -> list[SeriesScore]:
    """Compute the scores of a model and of the trivial baselines.

    Args:
        series: that were scored.
        errors: the model's on each.
        linear: as ``fit_linear_forecast``; None leaves it out.
        horizon: of the model.
        kind: squared or absolute.
    """
    return [
        SeriesScore(each.name, own, baseline_errors(linear, each.values, horizon, kind), each.trained_on)
        for each, own in zip(series, errors, strict=True)
    ]


def all_series(scores: Sequence[SeriesScore]) -> SeriesScore:
    """Sum the scores of all series: every position counts the same.

    Raises:
        DataError: there is none.
    """
    if not scores:
        raise DataError("expected series to score, found none")
    first, *others = scores
    baselines = {
        name: functools.reduce(operator.add, (each.baselines[name] for each in others), errors)
        for name, errors in first.baselines.items()
    }
    return SeriesScore("all", functools.reduce(operator.add, (each.errors for each in others), first.errors), baselines)


def comparison(scores: Sequence[SeriesScore]) -> Comparison:
    """Return the mean error of all series, over positions and horizons, with 95% intervals over series."""
    return compare(
        [score.errors.total for score in scores],
        {name: [score.baselines[name].total for score in scores] for name in scores[0].baselines},
        [score.errors.n_positions for score in scores],
    )
