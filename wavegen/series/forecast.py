"""Forecast series with a trained model, and score its forecasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from wavegen.config import Config
from wavegen.data.corpus import TrainingClipIndex, TrainingClips
from wavegen.errors import DataError, ParameterError, UsageError, WavegenError
from wavegen.evaluation.clips import warn_of_trained_on
from wavegen.model.network import Network
from wavegen.model.outputs import not_finite
from wavegen.series.corpus import build_normalization, hash_of, series_in, synthetic_test_series
from wavegen.series.scores import Errors, LinearForecast, ScoredSeries, Targets, build_targets, fit_linear_forecast
from wavegen.text import list_first, printable

MOST_STEPS = 100_000  # of a forecast
ROWS = 65536  # positions, with their context, that a network sees at a time


class Forecaster:
    """Forecasts and scores series with a trained model.

    Args:
        config: of the training.
        network: with the weights to use, on its device.
        training: the series of the training.
    """

    def __init__(self, config: Config, network: Network, training: TrainingClips) -> None:
        self.config, self.network, self.training = config, network, training
        self.targets, self.normalization = build_targets(config), build_normalization(config)

    def forecast(self, series: npt.ArrayLike, steps: int | None = None) -> npt.NDArray[np.float64]:
        """Forecast the next values of series: ``TrainedModel.forecast``, which documents the arguments."""
        steps = self.config.output.horizon if steps is None else steps
        values = np.asarray(series, dtype=np.float64)
        if values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all():
            raise UsageError(f"expected series of finite numbers, (T,) or (N, T), found the shape {values.shape}")
        if values.shape[-1] <= (first := self.config.model.positions.start):
            raise UsageError(f"expected {first + 1} values or more, as the layers see, found {values.shape[-1]}")
        if not 1 <= steps <= MOST_STEPS:
            raise ParameterError("steps", f"expected a whole number from 1 to {MOST_STEPS:,}, found {steps}")
        rows = [forecast(self.network, self.normalization.normalize(row), steps) for row in np.atleast_2d(values)]
        forecasts = self.normalization.denormalize(np.stack(rows))
        return forecasts[0] if values.ndim == 1 else forecasts

    def score_series(self, series: Sequence[ScoredSeries], scored: Callable[[int], None] | None = None) -> list[Errors]:
        """Compute the errors of the model's forecasts of each series, in the data's own units.

        Args:
            series: each longer than the model's horizon.
            scored: called with the number of positions after each part.
        """
        seen = [self.normalization.normalize(each.values) for each in series]
        errors = model_errors(self.network, seen, self.targets, scored)
        return [each.times(self.normalization.error_scale(self.targets.error)) for each in errors]

    def held_out_series(self) -> list[ScoredSeries]:
        """Return the series that the training held out.

        Raises:
            DataError: it held out none, or they are not there any more.
        """
        held_out, index = self.training.of_split("validation"), TrainingClipIndex(self.training.manifest)
        return [
            ScoredSeries(each.name, each.values, index.contains_held_out(each.name, each.content_hash, each.values))
            for each in held_out
        ]

    def series_to_score(self, paths: Sequence[Path], test: bool, notice: Callable[[str], None]) -> list[ScoredSeries]:
        """Return the series of some files and folders, or those that the training held out.

        Args:
            paths: of the files; none for those held out.
            test: take synthetic series that are neither trained on nor held out.
            notice: called with what is left out, and what was trained on.

        Raises:
            UsageError: ``test`` without synthetic series, or together with paths; a path is not there.
            DataError: there is no series to score.
        """
        if test:
            if self.config.series.synthetic is None:
                raise ParameterError("test", "only runs on synthetic series (series.synthetic) have it; give files")
            if paths:
                raise ParameterError("test", "expected no files with it; give one or the other")
            return [ScoredSeries(*each, False) for each in synthetic_test_series(self.config.series.points)]
        series = self._read_all(paths, notice) if paths else self.held_out_series()
        warn_of_trained_on(series, "series", "series", notice)
        return series

    def _read_all(self, paths: Sequence[Path], notice: Callable[[str], None]) -> list[ScoredSeries]:
        """Read the series of some files and folders; a notice names what is left out."""
        index, series = TrainingClipIndex(self.training.manifest), []
        for name, values in series_in(paths, self.config.output.horizon + self.config.model.positions.start, notice):
            series.append(ScoredSeries(name, values, index.contains(hash_of(values), values)))
        if not series:
            where = list_first(map(printable, paths))
            raise DataError(f"{where}: expected series to score (.npy, .csv), found none that can be used")
        return series

    def fit_linear_forecast(self, notice: Callable[[str], None]) -> LinearForecast | None:
        """Fit the linear forecast on the training split; None, and a notice, where that is gone."""
        try:
            series = self.training.of_split("train")
        except WavegenError as error:
            notice(f"no linear forecast, it needs the training's series: {error}")
            return None
        return fit_linear_forecast([each.values for each in series], self.config.output.horizon)


def forecast(network: Network, values: npt.NDArray[np.float32], steps: int) -> npt.NDArray[np.float32]:
    """Forecast the next values of a series.

    A network forecasts as many values as its horizon; later ones are forecast with the earlier forecasts as input.

    Args:
        network: of series, on its device.
        values: (T,) the series so far, T >= 1, as the network sees it.
        steps: values to forecast.

    Returns:
        (steps,), as the network sees them.
    """
    field, stride = network.receptive_field, network.positions.step
    known = np.concatenate([np.full(network.padding_steps, network.before_series, dtype=np.float32), values])
    device, forecasts, state = next(network.parameters()).device, np.empty(0, dtype=np.float32), None
    has_state = network.has_memory and stride == 1
    network.eval()
    with torch.no_grad():
        while len(forecasts) < steps:
            # with strides from where a forecast ends at the newest value
            first = (len(known) - field) % stride
            inputs = torch.from_numpy(known[first:])[None].to(device)  # (1, T)
            if has_state:  # it holds what came before: (1, T, horizon)
                parameters, state = network.advance(inputs, state)
            else:
                parameters = network(inputs if network.has_memory else inputs[:, -field:])
            # (1, T, horizon) -> (horizon,): what follows the newest value
            following = parameters[0, -1].float().cpu().numpy()
            forecasts = np.concatenate([forecasts, following])
            past = known if network.has_memory else known[-field:]
            known = following if has_state else np.concatenate([past, following])
    if not np.isfinite(forecasts).all():
        raise not_finite()
    return forecasts[:steps]


def model_errors(
    network: Network,
    series: Sequence[npt.NDArray[np.float32]],
    targets: Targets,
    scored: Callable[[int], None] | None = None,
) -> list[Errors]:
    """Compute the errors of a network's forecasts.

    Args:
        network: in the precision to score in.
        series: (T,) each, as the network sees them.
        targets: of the network.
        scored: called with the number of positions of each series.

    Returns:
        Each series's errors, in the network's units.
    """
    by_series: dict[int, Errors] = {}
    for group in _alike(series, network.receptive_field):
        together = np.stack([series[i] for i in group])
        parts = list(_forecasts(network, together[:, : together.shape[1] - targets.horizon]))
        for i, forecast in zip(group, np.concatenate(parts, axis=1), strict=True):
            truth = targets.of(targets.ahead(series[i].astype(np.float64)))
            at = forecast[-1:] if targets.only_last else forecast
            by_series[i] = Errors.of(targets.errors(at.astype(np.float64), truth))
            if scored:
                scored(len(truth))
    return [by_series[i] for i in range(len(series))]


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
    device, n_before = next(network.parameters()).device, network.padding_steps
    before = np.full((len(values), n_before), network.before_series, dtype=np.float32)
    inputs = torch.from_numpy(np.concatenate([before, values], axis=1)).to(device)
    stretch = max(1, ROWS // len(values))
    state = None
    network.eval()
    with torch.no_grad():
        for begin in range(0, values.shape[1], stretch):
            end = min(begin + stretch, values.shape[1])
            first = 0 if state is None else begin + n_before
            forecasts, state = network.advance(inputs[:, first : end + n_before], state)
            yield forecasts.float().cpu().numpy()
