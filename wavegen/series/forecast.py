"""Forecast series with a trained model, and score its forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.data.corpus import TrainingClipIndex, TrainingClips
from wavegen.errors import DataError, ParameterError, UsageError, WavegenError
from wavegen.evaluation.clips import warn_of_trained_on
from wavegen.model.outputs import not_finite
from wavegen.series.baselines import LinearForecast, fit_linear_forecast
from wavegen.series.corpus import build_normalization, hash_of, series_in, synthetic_test_series
from wavegen.series.scores import Errors, ScoredSeries, model_errors
from wavegen.text import printable

if TYPE_CHECKING:
    from wavegen.model.network import Network

MOST_STEPS = 100_000  # of a forecast


class Forecaster:
    """Forecasts and scores series with a trained model.

    Args:
        config: of the training.
        network: with the weights to use, on its device.
        training: the series of the training.
    """

    def __init__(self, config: Config, network: Network, training: TrainingClips) -> None:
        self.config, self.network, self.training = config, network, training

    def forecast(self, series: npt.ArrayLike, steps: int | None = None) -> npt.NDArray[np.float64]:
        """Forecast the next values of series.

        Args:
            series: (T,) one series so far, or (N, T) several, in the data's own units.
            steps: values to forecast; the model's horizon by default. Beyond it, the forecasts are taken as known.

        Returns:
            (steps,), or (N, steps).

        Raises:
            UsageError: the series or the steps are not what is expected.
        """
        steps = self.config.output.horizon if steps is None else steps
        values = np.asarray(series, dtype=np.float64)
        if values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all():
            raise UsageError(f"expected series of finite numbers, (T,) or (N, T), found the shape {values.shape}")
        if not 1 <= steps <= MOST_STEPS:
            raise ParameterError("steps", f"expected a whole number from 1 to {MOST_STEPS:,}, found {steps}")
        normalization = build_normalization(self.config)
        rows = [forecast(self.network, normalization.normalize(row), steps) for row in np.atleast_2d(values)]
        forecasts = normalization.denormalize(np.stack(rows))
        return forecasts[0] if values.ndim == 1 else forecasts

    def score_series(self, series: Sequence[ScoredSeries], scored: Callable[[int], None] | None = None) -> list[Errors]:
        """Compute the errors of the model's forecasts of each series, in the data's own units.

        Args:
            series: each longer than the model's horizon.
            scored: called with the number of positions after each part.
        """
        output, normalization = self.config.output, build_normalization(self.config)
        seen = [normalization.normalize(each.values) for each in series]
        unit = normalization.error_scale(output.error)
        return [e.times(unit) for e in model_errors(self.network, seen, output.horizon, output.error, scored)]

    def held_out_series(self) -> list[ScoredSeries]:
        """Return the series that the training held out.

        Raises:
            DataError: it held out none, or they are not there any more.
        """
        held_out, index = self.training.of_split("validation"), self._index()
        return [
            ScoredSeries(
                each.name,
                each.values,
                None if index is None else index.contains_held_out(each.name, each.content_hash, each.values),
            )
            for each in held_out
        ]

    def series_to_score(self, paths: Sequence[Path], test: bool, notice: Callable[[str], None]) -> list[ScoredSeries]:
        """Return the series of some files and folders, or those that the training held out.

        Args:
            paths: of the files; none for those held out.
            test: take synthetic series that are neither trained on nor held out.
            notice: receives what is left out, and what was trained on.

        Raises:
            UsageError: ``test`` without synthetic series, or together with paths; a path is not there.
            DataError: there is no series to score.
        """
        if test:
            if self.config.series.synthetic is None:
                raise UsageError("--test: only runs on synthetic series (series.synthetic) have it; give files instead")
            if paths:
                raise UsageError("--test: expected no files with it; give files or --test")
            return [ScoredSeries(*each, False) for each in synthetic_test_series(self.config.series.points)]
        series = self._read_all(paths, notice) if paths else self.held_out_series()
        warn_of_trained_on(series, "series", "series", notice)
        return series

    def _read_all(self, paths: Sequence[Path], notice: Callable[[str], None]) -> list[ScoredSeries]:
        """Read the series of some files and folders; a notice names what is left out."""
        index, series = self._index(), []
        for each in series_in(paths, self.config.output.horizon):
            if isinstance(each, str):
                notice(each)
            else:
                name, values = each
                trained_on = None if index is None else index.contains(hash_of(values), values)
                series.append(ScoredSeries(name, values, trained_on))
        if not series:
            where = ", ".join(map(printable, paths))
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

    def _index(self) -> TrainingClipIndex | None:
        """Return the index of the training series by their values; None for an exported model."""
        manifest = self.training.manifest
        return None if manifest is None else TrainingClipIndex(manifest)


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
    import torch

    field = network.receptive_field
    known = np.concatenate([np.full(field - 1, network.before_series, dtype=np.float32), values])
    device, forecasts, state = next(network.parameters()).device, np.empty(0, dtype=np.float32), None
    network.eval()
    with torch.no_grad():
        while len(forecasts) < steps:
            inputs = torch.from_numpy(known)[None].to(device)  # (1, T)
            if network.has_memory:  # the state holds what came before: (1, T, horizon)
                parameters, state = network.advance(inputs, state)
            else:
                parameters = network(inputs[:, -field:])
            # (1, T, horizon) -> (horizon,): what follows the newest value
            ahead = parameters[0, -1].float().cpu().numpy()
            forecasts = np.concatenate([forecasts, ahead])
            known = ahead if network.has_memory else np.concatenate([known[-field:], ahead])
    if not np.isfinite(forecasts).all():
        raise not_finite()
    return forecasts[:steps]
