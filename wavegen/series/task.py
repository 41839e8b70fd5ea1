"""The task of training on series of numbers: windows, loss unit, and scores of held-out series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.config import Config
from wavegen.data.corpus import Corpus, by_content
from wavegen.data.windows import Batch, Tape
from wavegen.evaluation import loss_unit_of
from wavegen.model.network import Network
from wavegen.series import corpus as series_corpus
from wavegen.series.corpus import Normalization, Progress, Series, build_normalization
from wavegen.series.files import Values
from wavegen.series.forecast import model_errors
from wavegen.series.scores import baseline_errors, fit_linear_forecast


class SeriesWindows(Tape):
    """The endless stream of training windows of series; see ``wavegen.data.windows``.

    A target is the next ``horizon`` values. The first value of a series is no part of any, for nothing is forecast
    before it.

    Args:
        series: (T,) each, in the data's own units; those that are not longer than the horizon are left out.
        normalization: of the model.
        receptive_field: values of past that one forecast sees.
        window_targets: forecasts in a window.
        before: what the network sees before the first value of a series.
        seed: decides the shuffles.
        horizon: values that are forecast.

    Raises:
        DataError: no series is long enough.
    """

    def __init__(
        self,
        series: Sequence[Values],
        normalization: Normalization,
        receptive_field: int,
        window_targets: int,
        before: float,
        seed: int,
        horizon: int,
    ) -> None:
        self.series = [normalization.normalize(values) for values in series if len(values) > horizon]
        super().__init__([len(values) - horizon for values in self.series], receptive_field, window_targets, seed)
        self.before, self.horizon = before, horizon

    def batch(self, first: int, count: int) -> Batch:
        """Return items first .. first + count - 1 of the stream as one batch."""
        field, length = self.receptive_field, self.receptive_field + self.window_targets
        values = np.full((count, length), self.before, dtype=np.float32)
        ahead = np.zeros((count, length, self.horizon), dtype=np.float32)
        is_real = np.zeros((count, length), dtype=np.bool_)
        for row in range(count):
            for at, number, begin, n_steps in self.pieces(first + row):
                series, stop = self.series[number], begin + n_steps
                # target i of a series is x[i + 1] ... x[i + horizon]; x[0] stands on the last place before target 0
                known, real = min(max(begin, -1), stop), min(max(begin, 0), stop)
                values[row, at + known - begin : at + n_steps] = series[known + 1 : stop + 1]
                following = sliding_window_view(series, self.horizon)  # (T - horizon + 1, horizon)
                ahead[row, at + real - begin : at + n_steps] = following[real + 1 : stop + 1]
                is_real[row, at + real - begin : at + n_steps] = True
        return Batch(values[:, :-1], ahead[:, field:], is_real[:, field:], None, first)


class SeriesTask:
    """Series of numbers as ``wavegen.training.task.Task``; every validation scores all that are held out.

    Args:
        config: complete.
        corpus: of series.
    """

    fewest_steps: ClassVar[int] = 0
    tries_bfloat16: ClassVar[bool] = False  # small errors of large values are lost in 8 bits of mantissa

    def __init__(self, config: Config, corpus: Corpus[Series]) -> None:
        self.settings, self.output, self.corpus = config.training, config.output, corpus
        self.normalization = build_normalization(config)
        self.loss_unit = loss_unit_of(config)
        self.loss_scale = self.normalization.error_scale(config.output.error)

    @staticmethod
    def read_corpus(config: Config, progress: Progress | None = None) -> Corpus[Series]:
        """Read or make the series that a configuration names."""
        return series_corpus.read_corpus(config, progress)

    @staticmethod
    def with_corpus(config: Config, corpus: Corpus[Series]) -> Config:
        """Return the configuration with the offset and scale of its corpus."""
        return series_corpus.with_normalization(config, corpus)

    @staticmethod
    def noise(config: Config, network: Network, n_windows: int, window_targets: int) -> Batch:
        """Return a batch of normally distributed values."""
        shape = (n_windows, network.receptive_field - 1 + window_targets, config.output.horizon)
        values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        is_real = np.ones((n_windows, window_targets), dtype=np.bool_)
        return Batch(values[:, :, 0], values[:, -window_targets:], is_real)

    @staticmethod
    def measure_overhead(config: Config, corpus: Corpus[Series], network: Network, batch: Batch) -> None:
        """Return None: a validation always scores all series, at the speed of training, and there are no auditions."""

    def windows(self, network: Network) -> SeriesWindows:
        """Return the windows to train on."""
        return SeriesWindows(
            [series.values for series in self.corpus.train],
            self.normalization,
            network.receptive_field,
            self.settings.window_targets,
            network.before_series,
            self.settings.seed,
            self.output.horizon,
        )

    def trained_on(self, n_targets: int) -> dict[str, float]:
        """Return the number of forecasts."""
        return {"points_seen": n_targets}

    def validation_clips(self, seconds: float | None) -> list[Series]:  # noqa: ARG002
        """Return all held-out series."""
        return by_content(self.corpus.validation)

    def validation_length(self, clips: Sequence[Series]) -> dict[str, float]:
        """Return the number of forecasts."""
        return {"held_out_points": sum(map(self.n_predictions, clips))}

    def n_predictions(self, clip: Series) -> int:
        """Return the number of positions that are followed by enough values."""
        return clip.n_samples - self.output.horizon

    def summed_losses(self, network: Network, clips: Sequence[Series], scored: Callable[[int], None]) -> list[float]:
        """Return each series's summed errors in the units of the data."""
        normalized = [self.normalization.normalize(series.values) for series in clips]
        errors = model_errors(network, normalized, self.output.horizon, self.output.error, scored)
        return [each.total * self.loss_scale for each in errors]

    def baselines(self, clips: Sequence[Series]) -> dict[str, float]:  # noqa: ARG002
        """Return the errors on all held-out series, which are what every validation scores."""
        return self._baselines

    @cached_property
    def _baselines(self) -> dict[str, float]:
        horizon = self.output.horizon
        linear = fit_linear_forecast([series.values for series in self.corpus.train], horizon)
        held_out = [series.values for series in self.corpus.validation]
        each = [baseline_errors(linear, values, horizon, self.output.error) for values in held_out]
        n_positions = sum(errors["linear"].n_positions for errors in each)
        return {name: sum(e[name].total for e in each) / n_positions for name in each[0]}

    def recording_profile(self) -> None:
        """Return None: there is no sound."""

    def audition(self, *_: Any) -> None:
        """Return None: there is nothing to listen to."""
