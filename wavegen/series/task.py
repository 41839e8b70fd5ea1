"""The task of training on series of numbers: windows, loss unit, and scores of held-out series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.config import Config
from wavegen.data.corpus import Corpus, by_content
from wavegen.data.windows import Batch, Piece, Tape
from wavegen.evaluation.scores import loss_unit_of
from wavegen.model.network import Network
from wavegen.series.corpus import Normalization, Series, build_normalization, read_corpus, with_normalization
from wavegen.series.files import Values
from wavegen.series.forecast import model_errors
from wavegen.series.scores import Targets, baseline_errors, build_targets, fit_linear_forecast


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
        targets: of the model; others than at every position only with ``AlignedWindows``.

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
        targets: Targets,
    ) -> None:
        horizon, shortest = targets.horizon, targets.horizon + targets.positions.start
        self.series = [normalization.normalize(values) for values in series if len(values) > shortest]
        super().__init__([len(values) - horizon for values in self.series], receptive_field, window_targets, seed)
        self.before, self.targets = before, targets

    def batch(self, first: int, count: int) -> Batch:
        """Return items first .. first + count - 1 of the stream as one batch."""
        field, length, horizon = self.receptive_field, self.receptive_field + self.window_targets, self.targets.horizon
        values = np.full((count, length), self.before, dtype=np.float32)
        ahead = np.zeros((count, length, horizon), dtype=np.float32)
        is_real = np.zeros((count, length), dtype=np.bool_)
        for row in range(count):
            for at, number, begin, n_steps in self.pieces(first + row):
                series, stop = self.series[number], begin + n_steps
                # target i of a series is x[i + 1] ... x[i + horizon]; x[0] stands on the last place before target 0
                known, real = min(max(begin, -1), stop), min(max(begin, 0), stop)
                values[row, at + known - begin : at + n_steps] = series[known + 1 : stop + 1]
                following = sliding_window_view(series, horizon)  # (T - horizon + 1, horizon)
                ahead[row, at + real - begin : at + n_steps] = following[real + 1 : stop + 1]
                is_real[row, at + real - begin : at + n_steps] = True
        positions = self.targets.positions
        is_target = is_real[:, field:][:, positions]
        if self.targets.only_last:  # the real targets from each one on: 1 at the last
            is_target = is_target & (is_target[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
        # with strides the inputs begin where the window's positions begin, without the past that padding would be
        begin = field - 1 if positions.step > 1 else 0
        return Batch(values[:, begin:-1], ahead[:, field:][:, positions], is_target, None, first)


class AlignedWindows(SeriesWindows):
    """Windows that begin at a series' first value, and at every ``window_targets`` positions from there.

    An epoch visits them shuffled. Where the last positions alone are targets, a window is the end of a series.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        size, only_last = self.window_targets, self.targets.only_last
        self.begins = [
            (number, begin)
            for number, length in enumerate(self._lengths.tolist())
            for begin in ([max(0, length - size)] if only_last else range(0, length, size))
        ]
        self.windows_per_epoch = len(self.begins)

    def n_targets(self, first: int, count: int) -> int:
        """Count the real targets of items first .. first + count - 1, without reading any."""
        pieces = (piece for item in range(first, first + count) for piece in self.pieces(item))
        return sum(len(self.targets.of(range(piece.length - self.receptive_field))) for piece in pieces)

    def pieces(self, item: int) -> Iterator[Piece]:
        """Yield the piece of a series that item's window is."""
        epoch, place = divmod(item, self.windows_per_epoch)
        number, begin = self.begins[self._epoch(epoch).windows[place]]
        length = min(self.window_targets, int(self._lengths[number]) - begin)
        yield Piece(0, number, begin - self.receptive_field, self.receptive_field + length)


class SeriesTask:
    """Series of numbers, with the methods of ``wavegen.training.task.AudioTask``.

    Every validation scores all that are held out.

    Args:
        config: complete.
        corpus: of series.
    """

    fewest_steps: ClassVar[int] = 0
    last_step_margin: ClassVar[float] = 0.0  # the error of a forecast is what counts
    tries_bfloat16: ClassVar[bool] = False  # small errors of large values are lost in 8 bits of mantissa
    read_corpus = staticmethod(read_corpus)
    with_corpus = staticmethod(with_normalization)

    def __init__(self, config: Config, corpus: Corpus[Series]) -> None:
        self.settings, self.corpus, self.targets = config.training, corpus, build_targets(config)
        self.normalization = build_normalization(config)
        self.windows_type = AlignedWindows if config.series.windows == "aligned" else SeriesWindows
        self.loss_unit = loss_unit_of(config)
        self.loss_scale = self.normalization.error_scale(self.targets.error)

    @staticmethod
    def noise(config: Config, network: Network, n_windows: int, window_targets: int) -> Batch:
        """Return a batch of normally distributed values."""
        shape = (n_windows, network.padding_steps + window_targets, config.output.horizon)
        values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        targets = values[:, network.padding_steps :][:, network.positions]
        return Batch(values[:, :, 0], targets, np.ones(targets.shape[:2], dtype=np.bool_))

    @staticmethod
    def measure_overhead(config: Config, corpus: Corpus[Series], network: Network, batch: Batch) -> None:
        """Return None: a validation always scores all series, at the speed of training, and there are no auditions."""

    def windows(self, network: Network) -> SeriesWindows:
        """Return the windows to train on."""
        return self.windows_type(
            [series.values for series in self.corpus.train],
            self.normalization,
            network.receptive_field,
            self.settings.window_targets,
            network.before_series,
            self.settings.seed,
            self.targets,
        )

    def trained_on(self, n_targets: int) -> dict[str, float]:
        """Return the number of forecasts, and how often each was trained."""
        return {"points_seen": n_targets, "epochs": n_targets / self._epoch_targets}

    def validation_clips(self, seconds: float | None) -> list[Series]:  # noqa: ARG002
        """Return all held-out series."""
        return by_content(self.corpus.validation)

    def validation_length(self, clips: Sequence[Series]) -> dict[str, float]:
        """Return the number of forecasts."""
        return {"held_out_points": sum(map(self.n_predictions, clips))}

    def n_predictions(self, clip: Series) -> int:
        """Return the number of positions that are scored, all of them followed by enough values."""
        return len(self.targets.of(range(clip.n_samples - self.targets.horizon)))

    def summed_losses(self, network: Network, clips: Sequence[Series], scored: Callable[[int], None]) -> list[float]:
        """Return each series's summed errors in the units of the data."""
        normalized = [self.normalization.normalize(series.values) for series in clips]
        errors = model_errors(network, normalized, self.targets, scored)
        return [each.total * self.loss_scale for each in errors]

    def baselines(self, clips: Sequence[Series]) -> dict[str, float]:  # noqa: ARG002
        """Return the errors on all held-out series, which are what every validation scores."""
        return self._baselines

    @cached_property
    def _epoch_targets(self) -> int:
        return sum(map(self.n_predictions, self.corpus.train))

    @cached_property
    def _baselines(self) -> dict[str, float]:
        linear = fit_linear_forecast([series.values for series in self.corpus.train], self.targets.horizon)
        each = [baseline_errors(linear, series.values, self.targets) for series in self.corpus.validation]
        n_positions = sum(errors["linear"].n_positions for errors in each)
        return {name: sum(e[name].total for e in each) / n_positions for name in each[0]}

    def recording_profile(self) -> None:
        """Return None: there is no sound."""

    def audition(self, *_: Any) -> None:
        """Return None: there is nothing to listen to."""
